//! What a million live items cost, and what is left of them: figures from the system, in a process of
//! their own (this file has one test, so nothing else runs beside it).

use std::alloc::Layout;
use std::time::{Duration, Instant};

use uma::core::{Item, ItemSource, Request};
use uma::{RawZone, Reclaim};
use uma_testkit::Rng;

const ITEMS: usize = 1_000_000;
/// What may be resident beyond all bounds: pages of the program that are used for the first time.
const SLACK: usize = 64 << 10;

/// Bytes resident but for what is mapped from files, as Linux tells them: exactly, unlike the figures in `statm`, of
/// which every CPU may keep a part to itself. What the C library's allocator holds free is given back before.
fn resident() -> Option<usize> {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// What an item is filled with.
fn mark(item: Item) -> u8 {
    (item.addr() / 8) as u8 | 1
}

fn alloc(zone: &RawZone, into: &mut [Item]) {
    for place in into {
        *place = zone.alloc(Request::NOWAIT).unwrap();
        // SAFETY: the item is ours.
        unsafe { place.as_ptr().write_bytes(mark(*place), zone.layout().size()) };
    }
}

/// Frees items, which must hold what `alloc` wrote.
fn free(zone: &RawZone, items: &[Item]) {
    for &item in items {
        // SAFETY: the item is ours, and freed once.
        unsafe {
            let bytes = std::slice::from_raw_parts(item.as_ptr(), zone.layout().size());
            assert!(bytes.iter().all(|&byte| byte == mark(item)));
            zone.free(item);
        }
    }
}

/// Bytes of the pages that hold a part of an item. Sorts the items.
fn pages_of(items: &mut [Item], size: usize) -> usize {
    items.sort_unstable_by_key(|item| item.addr());
    let page = rustix::param::page_size();
    let (mut pages, mut next) = (0, 0);
    for item in items {
        let (first, last) = (item.addr() / page, (item.addr() + size - 1) / page);
        pages += (last + 1) - first.max(next);
        next = last + 1;
    }
    pages * page
}

fn shuffle(items: &mut [Item]) {
    let mut random = Rng::new(1);
    for at in (1..items.len()).rev() {
        items.swap(at, random.below(at + 1));
    }
}

fn drain() -> Duration {
    let start = Instant::now();
    uma::reclaim(Reclaim::DrainCpu);
    start.elapsed()
}

fn per_item(bytes: usize) -> f64 {
    bytes as f64 / ITEMS as f64
}

#[test]
fn a_million_items_cost_little_more_than_their_size_and_go_again() {
    if resident().is_none() {
        println!("NOT TESTED: no /proc/self/smaps_rollup on this system");
        return;
    }
    let huge = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if huge.is_ok_and(|setting| setting.contains("[always]")) {
        println!(
            "NOT TESTED: what it is like with huge pages, which this system gives to everybody and which round the \
             end of a heap up by more than the bounds: measured without them"
        );
        uma::set_huge_pages(uma::mmap::HugePages::Unwanted);
    }
    let mut items: Vec<Item> = Vec::with_capacity(ITEMS);
    // Touch the vector's own memory, so that it is resident before we count.
    items.resize(ITEMS, Item::new(std::ptr::NonNull::dangling()));
    for size in [64, 200, 1000] {
        let layout = Layout::from_size_align(size, 8).unwrap();
        let zone = RawZone::builder("million", layout).build().unwrap();
        // What is needed once, as the program's own pages, is not counted.
        alloc(&zone, &mut items[..ITEMS / 100]);
        free(&zone, &items[..ITEMS / 100]);
        drain();

        let before = resident().unwrap();
        let now = || resident().unwrap().saturating_sub(before);
        alloc(&zone, &mut items);
        let all = now();
        println!("{size} bytes: {:.2} resident per live item", per_item(all));
        assert!(all <= (ITEMS * size) * 101 / 100 + SLACK, "{all} bytes for {size}");

        // A random nine tenths are freed: what stays is the pages that hold an item of the last tenth.
        shuffle(&mut items);
        let (live, freed) = items.split_at_mut(ITEMS / 10);
        free(&zone, freed);
        let slabs = zone.stats().slabs;
        let time = drain();
        let (some, bound) = (now(), pages_of(live, size));
        println!(
            "{size} bytes: {:.2} resident per item after 90 % are freed, {:.2} % over the pages in use; \
             drained in {time:.1?} from {slabs} slabs",
            per_item(some),
            (some as f64 / bound as f64 - 1.0) * 100.0,
        );
        let again = drain();
        println!("{size} bytes: drained again in {again:.1?}");
        if cfg!(target_os = "linux") {
            assert!(some <= bound * 103 / 100 + SLACK, "{some} bytes, {bound} in use, for {size}");
        }

        free(&zone, live);
        drain();
        let left = now();
        println!("{size} bytes: {:.3} resident per item after all are freed", per_item(left));
        assert!(left * 10 <= ITEMS, "{left} bytes stay");
    }
}
