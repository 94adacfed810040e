//! What happens at the limits of the system. Each case is a process of its own, which this program starts
//! with its name in the environment, so that limits end with it.
#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::process::Command;

use uma_backend_mmap::{Config, MmapPages};
use uma_core::{PageError, PageRun, PageSupplier, Protect, Request};
use uma_testkit::conformance;

const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;

/// Runs `case` in a process of its own, or is that process.
fn alone(name: &str, case: fn()) {
    const CASE: &str = "UMA_EXHAUSTION_CASE";
    if std::env::var_os(CASE).is_some_and(|wanted| wanted == name) {
        return case();
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CASE, name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{text}\n{error}", output.status);
    assert!(text.contains("1 passed"), "{name} did not run: {text}");
    print!("{text}");
}

/// Lets this process have so many bytes of address space more than it has.
fn allow(more: usize) {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').next().unwrap().parse().unwrap();
    let bytes = (pages * 4 * KIB + more) as libc::rlim_t;
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the structure is readable.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

fn ask(pages: &MmapPages, size: usize, align: usize) -> Result<PageRun, PageError> {
    pages.alloc_pages(Layout::from_size_align(size, align).unwrap(), Request::NOWAIT)
}

fn give(pages: &MmapPages, run: PageRun) {
    // SAFETY: a whole run of this supplier, once.
    unsafe { pages.free_pages(run) }
}

/// Takes runs until there are no more.
fn drain(pages: &MmapPages, size: usize) -> Vec<PageRun> {
    let mut held = Vec::with_capacity(1 << 16);
    loop {
        match ask(pages, size, 4 * KIB) {
            Ok(run) => held.push(run),
            Err(error) => {
                assert_eq!(error, PageError::System(libc::ENOMEM));
                let text = error.to_string();
                assert!(text.contains("memory or address space"), "{text}");
                return held;
            }
        }
    }
}

#[test]
fn address_space() {
    alone("address_space", || {
        static PAGES: MmapPages = MmapPages::new();
        let limit = 300 * MIB;
        allow(limit);
        // The first chunks are as ever, the last are what there is.
        let held = drain(&PAGES, 64 * KIB);
        let most = held.len();
        assert!(most * 64 * KIB > limit - 16 * MIB, "{most} runs, {:?}", PAGES.stats());
        assert!(PAGES.stats().maps_refused > 0 && PAGES.stats().chunks < 20, "{:?}", PAGES.stats());
        held.into_iter().for_each(|run| give(&PAGES, run));

        // A run for which all of it must be given back first.
        let run = ask(&PAGES, 200 * MIB, 4 * KIB).unwrap();
        assert!(matches!(ask(&PAGES, 200 * MIB, 4 * KIB), Err(PageError::System(libc::ENOMEM))));
        give(&PAGES, run);
        PAGES.trim();

        let again = drain(&PAGES, 64 * KIB);
        assert!(again.len() * 100 > most * 95, "{} of {most} runs", again.len());
        again.into_iter().for_each(|run| give(&PAGES, run));
        PAGES.trim();
        conformance::page_supplier(&PAGES);
        let stats = PAGES.stats();
        assert_eq!((stats.in_use, stats.maps - stats.unmaps), (0, stats.chunks as u64));
    });
}

/// Pages protected one by one, until the system allows no more mappings.
#[test]
fn mappings_of_protected_pages() {
    alone("mappings_of_protected_pages", || {
        let pages = MmapPages::with_config(Config::DEFAULT);
        let run = ask(&pages, 1024 * MIB, 4 * KIB).unwrap();
        let before = mappings();
        let most = 1024 * MIB / (8 * KIB);
        // SAFETY: all pages of a run that is ours, and nobody touches them.
        let protect = |at| unsafe { pages.protect(run.base().add(at * 8 * KIB), 4 * KIB) };
        let refused = (0..most).find(|&at| protect(at).is_err());
        match refused {
            Some(at) => println!("{at} pages protected, {} mappings", mappings()),
            None => println!("NOT TESTED: this system allows more than {most} mappings"),
        }
        // Two for each: the page, and what is behind it.
        assert!(mappings() <= before + 2 * refused.unwrap_or(most) + 2);
        assert_eq!(pages.stats().protects_refused, u64::from(refused.is_some()));
        // One call ends it all.
        // SAFETY: the whole of a run that is ours.
        unsafe { pages.unprotect(run.base(), 1024 * MIB) }.unwrap();
        assert!(mappings() <= before + 2, "{} mappings", mappings());
        give(&pages, run);
        conformance::page_supplier(&pages);
    });
}

/// Guards need no mappings, where the system has such.
#[test]
fn guards_without_mappings() {
    alone("guards_without_mappings", || {
        let pages = MmapPages::with_config(Config::DEFAULT);
        let run = ask(&pages, 64 * MIB, 4 * KIB).unwrap();
        let before = mappings();
        for at in (0..64 * MIB).step_by(8 * KIB) {
            // SAFETY: a page of a run that is ours, and nobody touches it.
            unsafe { pages.guard(run.base().add(at), 4 * KIB) }.unwrap();
        }
        let more = mappings() - before;
        if more > 2 {
            println!("NOT TESTED: this kernel (before 6.13) has no guards without mappings");
            assert!(more <= 2 * 8192);
        }
        // SAFETY: whole pages of a run that is ours; they are written once they may be.
        unsafe {
            run.base().add(4 * KIB).write_bytes(1, 4 * KIB);
            pages.unprotect(run.base(), 64 * MIB).unwrap();
            run.base().write_bytes(1, 64 * MIB);
        }
        give(&pages, run);
    });
}

/// A guard stops who touches it: the process dies.
#[test]
fn guards_stop_accesses() {
    const CASE: &str = "UMA_GUARD_CASE";
    if let Some(how) = std::env::var_os(CASE) {
        let pages = MmapPages::new();
        let run = ask(&pages, 12 * KIB, 4 * KIB).unwrap();
        // SAFETY: pages of a run that is ours. The last access is none that is allowed: that is the test.
        unsafe {
            let page = run.base().add(4 * KIB);
            match how.to_str() {
                Some("guard") => pages.guard(page, 4 * KIB).unwrap(),
                Some("protect") => pages.protect(page, 4 * KIB).unwrap(),
                // Nothing: the control.
                Some("none") => page.write(1),
                // The page before the first run is the wall of the bookkeeping.
                _ => {
                    run.base().sub(1).write_volatile(1);
                    return;
                }
            }
            run.base().write_bytes(1, 4 * KIB);
            run.base().add(8 * KIB).write_bytes(1, 4 * KIB);
            page.add(100).write_volatile(1);
        }
        return;
    }
    use std::os::unix::process::ExitStatusExt as _;
    for (how, signal) in [
        ("guard", Some(libc::SIGSEGV)),
        ("protect", Some(libc::SIGSEGV)),
        ("none", None),
        ("wall", Some(libc::SIGSEGV)),
    ] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "guards_stop_accesses", "--test-threads=1"])
            .env(CASE, how)
            .output()
            .unwrap();
        assert_eq!(output.status.signal(), signal, "{how}: {}", output.status);
    }
}
