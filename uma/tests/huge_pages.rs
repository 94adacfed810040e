//! Huge pages for a whole process: by the environment, by a call, and what is left of them. Each case is a process
//! of its own.
#![cfg(target_os = "linux")]

use std::fs::read_to_string;
use std::mem::MaybeUninit;
use std::process::{Command, Output};

use uma::core::{Item, Request};
use uma::mmap::HugePages;
use uma::{Reclaim, Zone};

const ITEMS: usize = 1_000_000;
const HUGE: usize = 2 << 20;

static NODES: Zone<[u64; 8]> = Zone::new("nodes");

fn start(case: &str, env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_case", "--nocapture"]).env("UMA_TEST_CASE", case);
    command.env_remove("UMA_HUGE_PAGES").envs(env.iter().copied());
    let output = command.output().unwrap();
    let (out, err) = (&output.stdout, &output.stderr);
    print!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(output.status.success(), "case {case}: {}", output.status);
    output
}

/// Not a test: what the others start.
#[test]
fn a_case() {
    match std::env::var("UMA_TEST_CASE").as_deref() {
        Ok("as it is") => println!("wish={}", wish()),
        Ok("by a call") => {
            println!("wish={}", wish());
            uma::set_huge_pages(HugePages::Wanted);
            println!("wish={}", wish());
        }
        Ok("a million") => a_million(),
        Ok(case) => panic!("no case {case}"),
        Err(_) => {}
    }
}

/// What the system was told of the memory that an item lies in.
fn wish() -> &'static str {
    let item = NODES.as_raw().alloc(Request::NOWAIT).unwrap();
    let mut here = false;
    let mut wish = "no mapping";
    for line in read_to_string("/proc/self/smaps").unwrap().lines() {
        let range = line.split(' ').next().and_then(|word| word.split_once('-'));
        let number = |word| usize::from_str_radix(word, 16).ok();
        if let Some((Some(from), Some(to))) = range.map(|(from, to)| (number(from), number(to))) {
            here = (from..to).contains(&item.addr());
        } else if here && line.starts_with("VmFlags") {
            wish = if line.contains(" hg") {
                "wanted"
            } else if line.contains(" nh") {
                "unwanted"
            } else {
                "none"
            };
        }
    }
    // SAFETY: the item is ours.
    unsafe { NODES.as_raw().free(item) };
    wish
}

fn wishes(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    // The harness may have begun a line with the name of the test.
    let wishes = text.lines().filter_map(|line| Some(line.split_once("wish=")?.1.to_owned()));
    wishes.collect()
}

/// Whether the system knows such wishes.
fn are_known() -> bool {
    let known = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
    if !known {
        println!("NOT TESTED: no transparent huge pages in this system");
    }
    known
}

#[test]
fn the_environment_says_whether_they_are_wanted() {
    if !are_known() {
        return;
    }
    assert_eq!(wishes(&start("as it is", &[])), ["none"]);
    for (wish, told) in [("wanted", "wanted"), ("unwanted", "unwanted"), ("system", "none")] {
        let output = start("as it is", &[("UMA_HUGE_PAGES", wish)]);
        assert_eq!(wishes(&output), [told]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("UMA_HUGE_PAGES"));
    }
    let output = start("as it is", &[("UMA_HUGE_PAGES", "enormous")]);
    assert_eq!(wishes(&output), ["none"]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("UMA_HUGE_PAGES=enormous"), "{complaint}");
}

#[test]
fn a_call_says_it_of_memory_that_is_there() {
    if are_known() {
        assert_eq!(wishes(&start("by a call", &[])), ["none", "wanted"]);
    }
}

#[test]
fn a_million_items_cost_few_faults_and_go_again() {
    start("a million", &[("UMA_HUGE_PAGES", "wanted")]);
}

/// Bytes of the process that are resident, but for files; and how many of them are on huge pages.
fn resident() -> [usize; 2] {
    let rollup = read_to_string("/proc/self/smaps_rollup").unwrap();
    ["Anonymous:", "AnonHugePages:"].map(|field| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    })
}

fn faults() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the structure is writable; it is valid when zero.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_minflt
}

fn a_million() {
    let mut items: Vec<Item> = Vec::with_capacity(ITEMS);
    // Its own memory is there before we count.
    items.resize(ITEMS, Item::new(std::ptr::NonNull::dangling()));
    let zone = NODES.as_raw();
    let first = zone.alloc(Request::NOWAIT).unwrap();
    // SAFETY: the item is ours.
    unsafe { zone.free(first) };
    let ([before, huge_before], faults_before) = (resident(), faults());
    for item in &mut items {
        *item = zone.alloc(Request::NOWAIT).unwrap();
        // SAFETY: the item is ours.
        unsafe { item.as_ptr().write_bytes(1, 64) };
    }
    let faults = faults() - faults_before;
    let [now, huge] = resident();
    let bytes = now - before;
    println!("{faults} faults, {bytes} bytes, {} of them on huge pages", huge - huge_before);
    // The kernel need not have found a huge page each time.
    if huge - huge_before < bytes - bytes / 50 {
        println!("NOT TESTED: this system gives no huge pages, or not enough");
    } else {
        let most = bytes / HUGE + 64;
        assert!(faults <= most as i64, "{faults} faults, {most} would do");
        assert!(bytes <= ITEMS * 64 / 100 * 101 + HUGE, "{bytes} bytes for all");
    }
    for &item in &items {
        // SAFETY: the item is ours, and freed once.
        unsafe { zone.free(item) };
    }
    uma::reclaim(Reclaim::DrainCpu);
    let left = resident()[0].saturating_sub(before);
    println!("{left} bytes after all are freed");
    assert!(left * 10 <= ITEMS, "{left} bytes stay");
}
