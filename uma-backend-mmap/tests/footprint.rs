//! What the process costs the system: resident memory and mappings. One test, because the figures
//! are those of the whole process.
#![cfg(target_os = "linux")]

use std::alloc::Layout;

use uma_backend_mmap::MmapPages;
use uma_core::{PageRun, PageSupplier, Request};

const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;

/// Bytes resident but for what is mapped from files: exactly, unlike the figures in `statm`, of which every CPU may keep
/// a part to itself.
fn resident() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * KIB
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }
}

static PAGES: MmapPages = MmapPages::new();

fn take(size: usize, align: usize) -> PageRun {
    let layout = Layout::from_size_align(size, align).unwrap();
    let run = PAGES.alloc_pages(layout, Request::NOWAIT).unwrap();
    // SAFETY: the run is ours. Every page is touched.
    unsafe { run.base().write_bytes(1, size) };
    run
}

fn give(run: PageRun) {
    // SAFETY: a whole run of this supplier, given back once.
    unsafe { PAGES.free_pages(run) }
}

#[test]
fn memory_goes_back() {
    let (before, maps_before) = (resident(), mappings());
    let mut random = Random(0x0bad_cafe_dead_beef);

    // A GiB of mixed runs, freed in no order.
    let mut held = Vec::new();
    while PAGES.stats().in_use < 1 << 30 {
        let size = (1 + random.below(16)) * [4 * KIB, 16 * KIB, 64 * KIB][random.below(3)];
        held.push(take(size, (4 * KIB) << random.below(6)));
    }
    assert!(resident() - before >= 1 << 30);
    // The bound that the crate's documentation states.
    let bound = 4 * PAGES.stats().chunks + 1;
    assert!(PAGES.stats().chunks <= 5, "4 for a GiB, and one for what is beyond");
    assert!(mappings() - maps_before <= bound, "{} mappings more", mappings() - maps_before);
    while held.len() > 100 {
        give(held.swap_remove(random.below(held.len())));
    }
    let stats = PAGES.stats();
    let kept = resident() - before;
    assert!(kept <= stats.in_use + 32 * MIB + 8 * MIB, "{kept} bytes resident, {stats:?}");
    assert!(mappings() - maps_before <= bound, "decommitting splits no mapping");
    held.drain(..).for_each(give);
    PAGES.trim();
    let kept = resident().saturating_sub(before);
    assert!(kept < 6 * MIB, "{kept} bytes resident after trim");
    let stats = PAGES.stats();
    assert_eq!((stats.in_use, stats.dirty, stats.chunks, stats.refused), (0, 0, 1, 0));

    // Growing and shrinking, with and without trims, comes to rest.
    let (resident_then, maps_then) = (resident(), mappings());
    let reserved = |cycle: usize| {
        let runs: Vec<_> = (0..10)
            .map(|step| take((16 * KIB) << ((cycle + step) % 5), (16 * KIB) << (cycle % 3)))
            .collect();
        runs.into_iter().for_each(give);
        if cycle.is_multiple_of(100) {
            PAGES.trim();
        }
        PAGES.stats().reserved
    };
    let most = (0..10_000).map(reserved).max();
    assert_eq!(most, Some(PAGES.stats().reserved), "address space grew");
    PAGES.trim();
    assert!(resident().saturating_sub(resident_then) < 2 * MIB);
    assert!(mappings() <= maps_then + 2);
}
