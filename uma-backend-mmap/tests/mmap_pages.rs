//! What only this supplier promises, beyond the conformance suite of the test kit.

use std::alloc::Layout;

use uma_backend_mmap::{Config, HugePages, MmapPages};
use uma_core::{PageError, PageRun, PageSupplier, Regions, Request};

const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;

fn take(pages: &MmapPages, size: usize, align: usize) -> PageRun {
    let layout = Layout::from_size_align(size, align).unwrap();
    pages.alloc_pages(layout, Request::NOWAIT).unwrap()
}

fn give(pages: &MmapPages, run: PageRun) {
    // SAFETY: the tests give back whole runs of the supplier that they came from, once.
    unsafe { pages.free_pages(run) }
}

fn fill(run: &PageRun, byte: u8) {
    // SAFETY: the run is ours.
    unsafe { run.base().write_bytes(byte, run.layout().size()) };
}

fn all(run: &PageRun, byte: u8) -> bool {
    // SAFETY: the run is ours, and nothing writes to it meanwhile. Fresh memory is zeroed.
    let bytes = unsafe { std::slice::from_raw_parts(run.base().as_ptr(), run.layout().size()) };
    bytes.iter().all(|&b| b == byte)
}

fn balanced(pages: &MmapPages) {
    let stats = pages.stats();
    assert_eq!(stats.in_use + stats.dirty + stats.clean, stats.reserved);
    assert_eq!(stats.maps - stats.unmaps, stats.chunks as u64);
}

#[test]
fn nothing_is_mapped_before_it_is_needed() {
    static PAGES: MmapPages = MmapPages::new();
    assert_eq!(PAGES.stats().reserved, 0);
    PAGES.trim();
    let run = take(&PAGES, 64 * KIB, 64 * KIB);
    assert_eq!((PAGES.stats().reserved, PAGES.stats().in_use), (128 * MIB, 64 * KIB));
    assert!(PAGES.contains(run.base().as_ptr()));
    assert!(!PAGES.contains((&raw const PAGES).cast()));
    give(&PAGES, run);
    balanced(&PAGES);
}

#[test]
fn chunks_double_and_large_requests_have_their_own() {
    let pages = MmapPages::with_config(Config::DEFAULT.chunks(MIB, 8 * MIB));
    let mut held = Vec::new();
    for expected in [1, 2, 4, 8, 16, 24, 32] {
        while pages.stats().reserved < expected * MIB {
            held.push(take(&pages, 256 * KIB, 4 * KIB));
        }
        assert_eq!(pages.stats().reserved, expected * MIB);
    }
    let before = pages.stats().reserved;
    held.push(take(&pages, 100 * MIB, 4 * KIB));
    assert_eq!(pages.stats().reserved, before + 100 * MIB);
    held.push(take(&pages, 4 * KIB, 64 * MIB));
    held.into_iter().for_each(|run| give(&pages, run));
    balanced(&pages);
    pages.trim();
    assert_eq!(pages.stats().reserved, MIB, "all but the smallest chunk are unmapped");
    balanced(&pages);
}

#[test]
fn alignments_to_a_gibibyte() {
    let pages = MmapPages::new();
    let mut held = Vec::new();
    for shift in 0..=30 {
        let run = take(&pages, 8 * KIB, 1 << shift);
        assert!(run.base().addr().get().is_multiple_of(1 << shift));
        fill(&run, 1);
        held.push(run);
    }
    held.into_iter().for_each(|run| give(&pages, run));
    balanced(&pages);
}

#[test]
fn lowest_addresses_are_reused_and_neighbours_coalesce() {
    let pages = MmapPages::with_config(Config::DEFAULT.chunks(MIB, MIB));
    let mut runs: Vec<_> = (0..16).map(|_| take(&pages, 64 * KIB, 4 * KIB)).collect();
    assert_eq!(pages.stats().chunks, 1);
    assert!(runs.is_sorted_by_key(PageRun::base));
    let first = runs[0].base();
    // The last ones first, so that indices stay; then the middle before its neighbours.
    for index in [15, 13, 11, 9, 9, 9, 9, 1, 3, 2, 1, 0, 0, 0, 0, 0] {
        give(&pages, runs.remove(index));
    }
    let whole = take(&pages, MIB, 4 * KIB);
    assert_eq!(whole.base(), first, "one span again");
    give(&pages, whole);
    let low = take(&pages, 4 * KIB, 4 * KIB);
    assert_eq!(low.base(), first);
    give(&pages, low);
}

#[test]
fn zeroed_is_said_of_fresh_and_of_decommitted_memory_only() {
    let pages = MmapPages::with_config(Config::DEFAULT.chunks(MIB, MIB));
    let run = take(&pages, MIB, 4 * KIB);
    assert!(run.is_zeroed() && all(&run, 0));
    fill(&run, 0xaa);
    give(&pages, run);
    assert_eq!(pages.stats().dirty, MIB);

    let run = take(&pages, 64 * KIB, 4 * KIB);
    assert!(!run.is_zeroed(), "dirty memory is not zero");
    assert!(all(&run, 0xaa), "and was not decommitted");
    give(&pages, run);

    if cfg!(target_os = "linux") {
        pages.decommit_all();
        assert_eq!((pages.stats().dirty, pages.stats().advises), (0, 1));
        let run = take(&pages, MIB, 4 * KIB);
        assert!(run.is_zeroed() && all(&run, 0));
        give(&pages, run);
    }
    balanced(&pages);
}

#[test]
fn a_run_across_dirty_and_clean_memory_is_not_called_zeroed() {
    let pages = MmapPages::with_config(Config::DEFAULT.chunks(MIB, MIB));
    let run = take(&pages, 64 * KIB, 4 * KIB);
    fill(&run, 0xaa);
    give(&pages, run);
    let all_of_it = take(&pages, MIB, 4 * KIB);
    assert!(!all_of_it.is_zeroed());
    give(&pages, all_of_it);
}

#[test]
#[cfg(target_os = "linux")]
fn dirty_memory_is_bounded_and_decommitted_in_batches() {
    let pages = MmapPages::with_config(Config::DEFAULT.dirty_max(MIB));
    let runs: Vec<_> = (0..1024).map(|_| take(&pages, 16 * KIB, 16 * KIB)).collect();
    runs.iter().for_each(|run| fill(run, 1));
    let mut most = 0;
    for run in runs {
        give(&pages, run);
        most = most.max(pages.stats().dirty);
    }
    let stats = pages.stats();
    assert!(most <= MIB && most > MIB / 2, "{most} bytes were dirty");
    // 16 MiB freed in order: half a MiB to a batch of one call.
    assert!((20..=40).contains(&stats.advises), "{} calls", stats.advises);
    assert_eq!(stats.refused, 0);
    balanced(&pages);
}

#[test]
#[cfg(target_os = "linux")]
fn steady_use_makes_no_system_calls() {
    let pages = MmapPages::new();
    give(&pages, take(&pages, 16 * KIB, 16 * KIB));
    let before = pages.stats();
    for _ in 0..10_000 {
        let runs: Vec<_> = (0..8).map(|_| take(&pages, 16 * KIB, 16 * KIB)).collect();
        runs.into_iter().for_each(|run| give(&pages, run));
    }
    let after = pages.stats();
    assert_eq!((after.maps, after.advises), (before.maps, before.advises));
}

#[test]
fn decommit_inside_a_live_run() {
    let pages = MmapPages::new();
    let run = take(&pages, 64 * KIB, 4 * KIB);
    fill(&run, 7);
    // SAFETY: whole pages of a live run that is ours.
    unsafe {
        pages.decommit(run.base().add(8 * KIB), 16 * KIB);
        pages.decommit(run.base(), 0);
    }
    // SAFETY: the run is ours, and was written in full.
    let bytes = unsafe { std::slice::from_raw_parts(run.base().as_ptr(), 64 * KIB) };
    assert!(bytes[..8 * KIB].iter().all(|&b| b == 7));
    assert!(bytes[8 * KIB..24 * KIB].iter().all(|&b| b == 0));
    assert!(bytes[24 * KIB..].iter().all(|&b| b == 7));
    assert!(pages.stats().advises == 1);
    give(&pages, run);
}

/// Locked memory cannot be decommitted.
#[test]
#[cfg(target_os = "linux")]
fn a_refusal_to_decommit_is_survived_and_not_repeated_at_once() {
    let config = Config::DEFAULT.chunks(MIB, MIB).dirty_max(64 * KIB);
    let pages = MmapPages::with_config(config);
    let run = take(&pages, 128 * KIB, 4 * KIB);
    fill(&run, 5);
    let (locked, len) = (run.base().as_ptr().cast(), 128 * KIB);
    // SAFETY: the range is mapped, and is unlocked below.
    assert_eq!(unsafe { libc::mlock(locked, len) }, 0);

    // SAFETY: a whole page of a live run that is ours.
    unsafe { pages.decommit(run.base(), 4 * KIB) };
    // SAFETY: the run is ours, and was written in full.
    let bytes = unsafe { std::slice::from_raw_parts(run.base().as_ptr(), 128 * KIB) };
    assert!(bytes[..4 * KIB].iter().all(|&byte| byte == 0), "zeros are written instead");
    assert!(bytes[4 * KIB..].iter().all(|&byte| byte == 5));
    assert_eq!((pages.stats().advises, pages.stats().refused), (1, 1));

    let base = run.base();
    give(&pages, run);
    let stats = pages.stats();
    assert_eq!((stats.advises, stats.refused), (2, 2));
    assert_eq!(stats.dirty, 128 * KIB, "what was refused is dirty still");
    balanced(&pages);
    for _ in 0..100 {
        let run = take(&pages, 16 * KIB, 4 * KIB);
        assert!(run.base() == base && !run.is_zeroed());
        give(&pages, run);
    }
    assert_eq!(pages.stats().advises, 2, "and is not tried again at every free");

    // SAFETY: as above.
    assert_eq!(unsafe { libc::munlock(locked, len) }, 0);
    pages.decommit_all();
    let stats = pages.stats();
    assert_eq!((stats.advises, stats.refused, stats.dirty), (3, 2, 0));
}

#[test]
fn what_cannot_be_had_is_an_error() {
    let pages = MmapPages::new();
    let ask = |size, align| {
        let layout = Layout::from_size_align(size, align).unwrap();
        pages.alloc_pages(layout, Request::NOWAIT).map(drop).unwrap_err()
    };
    let most = isize::MAX as usize & !0xffff;
    assert!(matches!(ask(most, 4 * KIB), PageError::System(_) | PageError::Exhausted));
    assert!(matches!(ask(4 * KIB, 1 << 62), PageError::System(_) | PageError::Exhausted));
    assert!(matches!(ask(1 << 50, 1 << 30), PageError::System(_) | PageError::Exhausted));
    assert_eq!(ask(0, 1), PageError::BadSize);
    assert_eq!(ask(5000, 1), PageError::BadSize);
    assert_eq!(pages.stats().reserved, 0);
    balanced(&pages);
    // Nothing is left of what fails: no place in the directory, which is one page.
    for _ in 0..1000 {
        ask(4 * KIB, 1 << 62);
    }
    assert_eq!(pages.stats().beside, pages.page_size());
}

#[test]
fn regions_are_known_as_they_come_and_go() {
    let pages = MmapPages::with_config(Config::DEFAULT.chunks(MIB, MIB));
    let regions = || {
        let mut found = Vec::new();
        pages.visit_regions(&mut |region| found.push((region.base, region.len)));
        assert!(found.is_sorted());
        found
    };
    let mut generations = vec![pages.generation()];
    assert!(regions().is_empty());
    let small = take(&pages, 4 * KIB, 4 * KIB);
    generations.push(pages.generation());
    let large = take(&pages, 8 * MIB, 4 * KIB);
    generations.push(pages.generation());
    assert!(regions().contains(&(large.base(), 8 * MIB)));
    let larger = take(&pages, 16 * MIB, 4 * KIB);
    generations.push(pages.generation());
    let all = regions();
    assert_eq!(all.len(), 3);
    let region = regions().into_iter().find(|&(_, len)| len == MIB).unwrap();
    assert_eq!(region.0, small.base());
    let gone = (larger.base(), 16 * MIB);
    give(&pages, large);
    give(&pages, larger);
    pages.trim();
    generations.push(pages.generation());
    let left: Vec<_> = all.into_iter().filter(|&region| region != gone).collect();
    assert_eq!(regions(), left, "what has a run stays, and the smallest that has none");
    give(&pages, small);
    assert_eq!(generations.pop(), Some(pages.generation()), "runs do not count");
    generations.push(pages.generation());
    assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn maintaining_gives_back_what_nobody_needed() {
    let pages = MmapPages::new();
    let mut runs: Vec<_> = (0..128).map(|_| take(&pages, 64 * KIB, 64 * KIB)).collect();
    runs.iter().for_each(|run| fill(run, 1));
    runs.drain(..).for_each(|run| give(&pages, run));
    // A spike: since the last call there was nothing free at first.
    pages.maintain();
    assert_eq!((pages.stats().dirty, pages.stats().advises), (8 * MIB, 0));
    // Of the 8 MiB that are dirty, 2 are in use now and then.
    let some: Vec<_> = (0..32).map(|_| take(&pages, 64 * KIB, 64 * KIB)).collect();
    some.into_iter().for_each(|run| give(&pages, run));
    pages.maintain();
    assert_eq!((pages.stats().dirty, pages.stats().advises), (2 * MIB, 1));
    pages.maintain();
    assert_eq!(pages.stats().dirty, 0);
    balanced(&pages);
}

/// A huge page goes whole, and none is torn while there is one that is wholly free.
#[test]
#[cfg(target_os = "linux")]
fn whole_huge_pages_are_given_back_first() {
    const HUGE: usize = 2 * MIB;
    let pages = MmapPages::with_config(Config::DEFAULT.dirty_max(12 * MIB));
    if pages.page_size() != 4096 {
        println!("NOT TESTED: huge pages are not 2 MiB here");
        return;
    }
    let mut runs: Vec<_> = (0..32).map(|_| take(&pages, MIB, MIB)).collect();
    assert!(runs[0].base().addr().get().is_multiple_of(HUGE), "a region begins with a huge page");
    runs.iter().for_each(|run| fill(run, 1));
    let resident = |at: usize| {
        let mut there = [0_u8; 256];
        let start = std::ptr::with_exposed_provenance_mut(at);
        // SAFETY: there is a byte for each page.
        assert_eq!(unsafe { libc::mincore(start, MIB, there.as_mut_ptr()) }, 0);
        there.iter().filter(|&&page| page & 1 == 1).count()
    };
    let bases: Vec<usize> =
        runs.iter().map(|run| run.base().as_ptr().expose_provenance()).collect();
    // Every second MiB, which are halves of huge pages, then two whole ones: 13 MiB in all.
    for at in [30, 28, 26, 24, 22, 20, 18, 16, 14].into_iter().chain([3, 2, 1, 0]) {
        give(&pages, runs.remove(at));
    }
    assert_eq!(pages.stats().dirty, 6 * MIB);
    let gone: Vec<usize> = (0..32).filter(|&at| resident(bases[at]) == 0).collect();
    assert_eq!(gone[..4], [0, 1, 2, 3], "whole ones: {gone:?}");
    assert_eq!(gone.len(), 7, "and then from the end");
    assert_eq!(gone[4..], [26, 28, 30]);
    runs.into_iter().for_each(|run| give(&pages, run));
    balanced(&pages);
}

/// What the system makes of names and wishes is its own affair.
#[test]
#[cfg(target_os = "linux")]
fn mappings_have_names_and_wishes() {
    let config = Config::DEFAULT.name(c"uma test name").huge_pages(HugePages::Wanted);
    let pages = MmapPages::with_config(config);
    let unwishing = MmapPages::new();
    give(&unwishing, take(&unwishing, 4 * KIB, 4 * KIB));
    let run = take(&pages, 4 * KIB, 4 * KIB);
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let stats = pages.stats();
    // It has a name, too, and nothing else to say.
    let names_refused = unwishing.stats().hints_refused;
    if names_refused == 0 {
        assert!(smaps.contains("[anon:uma test name]"));
    } else {
        println!("NOT TESTED: this kernel refuses names: {stats:?}");
    }
    let base = run.base().addr().get();
    let mut here = false;
    let mut flags = String::new();
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|word| word.split_once('-'));
        if let Some((from, to)) = range
            && let (Ok(from), Ok(to)) =
                (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
        {
            here = (from..to).contains(&base);
        } else if here && line.starts_with("VmFlags") {
            flags = line.to_owned();
        }
    }
    if stats.hints_refused == names_refused {
        assert!(flags.contains(" hg"), "{flags}");
    } else {
        println!("NOT TESTED: this kernel refuses huge pages: {stats:?}");
    }
    assert_eq!(stats.hints, 2);
    give(&pages, run);
}

#[test]
fn a_dropped_supplier_leaves_live_runs_alone() {
    let run = {
        let pages = MmapPages::with_config(Config::DEFAULT.chunks(MIB, MIB));
        let run = take(&pages, 16 * KIB, 16 * KIB);
        fill(&run, 9);
        run
    };
    assert!(all(&run, 9));
}

#[test]
fn threads_with_trims_among_them() {
    static PAGES: MmapPages =
        MmapPages::with_config(Config::DEFAULT.chunks(MIB, 4 * MIB).dirty_max(256 * KIB));
    std::thread::scope(|scope| {
        for thread in 1..=4_u8 {
            scope.spawn(move || {
                let mut held: Vec<PageRun> = Vec::new();
                for step in 0..4000_usize {
                    if step % 3 == 2 || held.len() > 60 {
                        let run = held.swap_remove(step * 7 % held.len());
                        assert!(all(&run, thread));
                        give(&PAGES, run);
                    } else {
                        let run = take(&PAGES, (1 + step % 9) * 8 * KIB, (4 * KIB) << (step % 5));
                        assert!(!run.is_zeroed() || all(&run, 0));
                        fill(&run, thread);
                        held.push(run);
                    }
                    if step % 50 == usize::from(thread) {
                        PAGES.trim();
                    }
                }
                held.into_iter().for_each(|run| give(&PAGES, run));
            });
        }
    });
    PAGES.trim();
    let stats = PAGES.stats();
    assert_eq!((stats.in_use, stats.dirty, stats.chunks), (0, 0, 1));
    balanced(&PAGES);
}

/// Whether the mapping at an address is in core dumps, if the system tells.
#[cfg(target_os = "linux")]
fn is_dumped(at: usize) -> Option<bool> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let hex = |text| usize::from_str_radix(text, 16).ok();
        if let Some((start, end)) = range.and_then(|(start, end)| hex(start).zip(hex(end))) {
            inside = (start..end).contains(&at);
        } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
            return Some(!flags.split(' ').any(|flag| flag == "dd"));
        }
    }
    None
}

/// A run for a request without dump is not dumped, its neighbours are, and so is who has its pages next.
#[test]
#[cfg(target_os = "linux")]
fn runs_are_left_out_of_core_dumps() {
    let pages = MmapPages::with_config(Config::DEFAULT.chunks(MIB, MIB));
    let layout = Layout::from_size_align(64 * KIB, 64 * KIB).unwrap();
    let is_in_dumps = |run: &PageRun| {
        let start = run.base().addr().get();
        let [first, last] = [start, start + run.layout().size() - 1].map(is_dumped);
        assert_eq!(first, last);
        first
    };
    let before = take(&pages, 64 * KIB, 64 * KIB);
    if is_in_dumps(&before).is_none() {
        println!("NOT TESTED: what is dumped, which /proc/self/smaps of this system does not tell");
        return give(&pages, before);
    }
    let hidden = pages.alloc_pages(layout, Request::NOWAIT.without_dump()).unwrap();
    let behind = take(&pages, 64 * KIB, 64 * KIB);
    assert_eq!([&before, &hidden, &behind].map(is_in_dumps), [true, false, true].map(Some));
    assert!(hidden.is_zeroed());
    fill(&hidden, 7);
    assert!(all(&hidden, 7));
    let at = hidden.base();
    give(&pages, hidden);
    let next = take(&pages, 64 * KIB, 64 * KIB);
    assert_eq!((next.base(), is_in_dumps(&next)), (at, Some(true)));
    for run in [before, behind, next] {
        give(&pages, run);
    }
    assert_eq!(pages.stats().hints, 3, "a name, and two about dumps");
}
