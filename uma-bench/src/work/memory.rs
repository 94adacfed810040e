//! Memory: bytes resident for each of a million live items, every byte of them written; after a random
//! 90 % was freed and memory asked back; after all was.
//!
//! Each subject is measured in a process of its own, which is this program with a hidden first
//! argument. Resident is what the kernel says (`smaps_rollup`), of anonymous memory: not the pages of the
//! program's file, which come as code is run for the first time, 64 KiB at once; and without pages given up
//! with `MADV_FREE`. What the measuring itself needs is there before it begins.

use std::fs::File;
use std::io::Read as _;
use std::process::Command;

use uma::Reclaim;

use crate::rounds::{Figure, Random};
use crate::subject::{
    self, Filter, HasZone, Size, Subject, Visit, each_malloc, each_process, in_child,
};
use crate::work::Bench;

/// The first argument that makes the program measure one subject and print what it found.
pub(crate) const CHILD: &str = "--measure-memory-of";

const ITEMS: usize = 1_000_000;
const PAGE: usize = 4096;

const WORKLOADS: [&str; 3] = ["memory, all live", "memory, 90 % freed", "memory, all freed"];

pub(crate) fn run(bench: &mut Bench) {
    for size in [64, 200, 1000] {
        let mut figures: [Vec<Figure>; 3] = Default::default();
        for name in each_process(&bench.filter) {
            let Some(measured) = child(name, size) else { continue };
            for (figures, bytes) in figures.iter_mut().zip(&measured) {
                figures.push(Figure::new(name, vec![*bytes]));
            }
            if name == "uma" {
                let pages = measured[3];
                figures[1].push(Figure::new("pages in use", vec![pages]));
            }
        }
        for (name, figures) in WORKLOADS.into_iter().zip(figures) {
            bench.keep(name, size, 1, "bytes", figures);
        }
    }
}

/// Starts the child for one subject and reads its four numbers.
fn child(name: &str, size: usize) -> Option<[f64; 4]> {
    let program = std::env::current_exe().ok()?;
    let size = size.to_string();
    let mut command = Command::new(program);
    // What a subject's name says, its process decides.
    command.args([CHILD, name, &size]).env_remove("UMA_HUGE_PAGES");
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>().ok()?;
    numbers.try_into().ok()
}

/// What the child does: three numbers of bytes for each item, and how much the pages that hold a live
/// item come to when 90 % is freed.
pub(crate) fn measure(name: &str, size: &str) {
    let name = in_child(name);
    let filter = Filter { names: vec![name.to_owned()], alone: true };
    let mut one = One { wanted: name, result: None };
    match size {
        "64" => each::<64>(&filter, &mut one),
        "200" => each::<200>(&filter, &mut one),
        "1000" => each::<1000>(&filter, &mut one),
        _ => {}
    }
    if let Some([live, some, none, pages]) = one.result {
        println!("{live} {some} {none} {pages}");
    }
}

fn each<const N: usize>(filter: &Filter, one: &mut One<'_>)
where
    Size<N>: HasZone,
{
    let mut sized = Sized { one, size: N };
    each_malloc::<N>(filter, &mut sized);
}

struct One<'a> {
    wanted: &'a str,
    result: Option<[f64; 4]>,
}

struct Sized<'a, 'b> {
    one: &'a mut One<'b>,
    size: usize,
}

impl Visit for Sized<'_, '_> {
    fn visit<S: Subject>(&mut self, name: &'static str, subject: S) {
        if name == self.one.wanted {
            self.one.result = Some(life(name, subject, self.size));
        }
    }
}

fn life<S: Subject>(name: &str, subject: S, size: usize) -> [f64; 4] {
    subject::thread_begins();
    let mut items: Vec<Option<S::Held>> = Vec::with_capacity(ITEMS);
    // The vector's pages are there before counting begins.
    // (Written one by one: what the compiler knows to be zeros need not be resident.)
    items.resize_with(ITEMS, || None);
    items.iter_mut().for_each(|place| *std::hint::black_box(place) = None);
    let mut order: Vec<u32> = (0..ITEMS as u32).collect();
    Random::new(3).shuffle(&mut order);
    let mut pages = vec![usize::MAX; ITEMS / 10 * MOST_PAGES];
    resident();
    let before = resident();
    let each = |now: usize| (now as f64 - before as f64) / ITEMS as f64;

    for place in &mut items {
        let held = subject.alloc(0);
        if let Some(block) = S::block(&held) {
            // SAFETY: the block is ours and has so many bytes.
            unsafe { block.0.write_bytes(0x5a, size) };
        }
        *place = Some(held);
    }
    let live = each(resident());

    let (first, last) = order.split_at(ITEMS / 10 * 9);
    let free = |items: &mut [Option<S::Held>], order: &[u32]| {
        for &at in order {
            if let Some(held) = items[at as usize].take() {
                // SAFETY: it came from this subject.
                unsafe { subject.free(held) };
            }
        }
    };
    free(&mut items, first);
    give_back(name);
    let some = each(resident());
    let in_use = pages_in_use::<S>(&items, size, &mut pages);
    free(&mut items, last);
    give_back(name);
    let none = each(resident());
    [live, some, none, in_use]
}

fn give_back(name: &str) {
    if name == "uma" {
        uma::reclaim(Reclaim::DrainCpu);
    } else {
        subject::give_back(name);
    }
}

/// Pages that an item may lie in.
const MOST_PAGES: usize = 2;

/// Bytes of pages that hold any of these items, for each item there once was. `pages` is room for their
/// numbers.
fn pages_in_use<S: Subject>(items: &[Option<S::Held>], size: usize, pages: &mut [usize]) -> f64 {
    let blocks = items.iter().flatten().filter_map(S::block);
    let numbers = blocks.flat_map(|block| {
        let at = block.0.addr().get();
        at / PAGE..=(at + size - 1) / PAGE
    });
    let mut count = 0;
    for number in numbers {
        pages[count] = number;
        count += 1;
    }
    pages[..count].sort_unstable();
    let distinct = pages[..count].chunk_by(|page, next| page == next).count();
    (distinct * PAGE) as f64 / ITEMS as f64
}

/// Bytes of anonymous memory that the process has resident. Nothing is allocated to find out.
fn resident() -> usize {
    let mut buffer = [0; 4096];
    let read = File::open("/proc/self/smaps_rollup").and_then(|mut file| {
        let mut length = 0;
        loop {
            match file.read(&mut buffer[length..])? {
                0 => return Ok(length),
                more => length += more,
            }
        }
    });
    let text = std::str::from_utf8(&buffer[..read.unwrap_or(0)]).unwrap_or("");
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<usize>().ok()
    };
    let anonymous = field("Anonymous:").expect("the kernel says how much is resident");
    1024 * (anonymous - field("LazyFree:").unwrap_or(0))
}
