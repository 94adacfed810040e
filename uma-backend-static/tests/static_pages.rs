//! What only this supplier promises, beyond the conformance suite of the test kit.

use std::alloc::Layout;
use std::collections::BTreeSet;
use std::ptr::NonNull;

use uma_backend_static::{AddError, StaticMemory, StaticPages};
use uma_core::{PageError, PageRun, PageSupplier, Regions, Request};

type Pages = StaticPages<spin::Mutex<()>>;

const PAGE: usize = 4096;

fn layout(pages: usize, align: usize) -> Layout {
    Layout::from_size_align(pages * PAGE, align).unwrap()
}

fn take(pages: &impl PageSupplier, count: usize, align: usize) -> Result<PageRun, PageError> {
    pages.alloc_pages(layout(count, align), Request::NOWAIT)
}

fn give(pages: &impl PageSupplier, run: PageRun) {
    // SAFETY: the tests give back whole runs of the supplier that they came from, once.
    unsafe { pages.free_pages(run) }
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

#[test]
fn to_exhaustion_and_back_a_thousand_times() {
    static MEMORY: StaticMemory<{ 257 * PAGE }> = StaticMemory::new();
    static PAGES: Pages = Pages::new(&MEMORY);
    let mut random = Random(0x0123_4567_89ab_cdef);
    let whole = PAGES.stats();
    assert_eq!((whole.total, whole.free, whole.largest), (256, 256, 256));
    for _ in 0..1000 {
        let mut held = Vec::new();
        let mut left = 256;
        while left > 0 {
            let count = 1 + random.below(9);
            let align = PAGE << random.below(4);
            if let Ok(run) = take(&PAGES, count, align) {
                assert!(run.base().addr().get().is_multiple_of(align));
                left -= count;
                held.push(run);
            } else if let Ok(run) = take(&PAGES, 1, PAGE) {
                left -= 1;
                held.push(run);
            } else {
                panic!("{left} pages are free, but not one can be had");
            }
            if random.below(4) == 0 {
                let run = held.swap_remove(random.below(held.len()));
                left += run.layout().size() / PAGE;
                give(&PAGES, run);
            }
            assert_eq!(PAGES.stats().free, left);
        }
        assert_eq!(take(&PAGES, 1, PAGE).unwrap_err(), PageError::Exhausted);
        while !held.is_empty() {
            give(&PAGES, held.swap_remove(random.below(held.len())));
        }
        assert_eq!(PAGES.stats(), whole);
    }
    let run = take(&PAGES, 256, PAGE).expect("the region is one run again");
    give(&PAGES, run);
}

#[test]
fn every_second_page_in_use_is_no_room_for_two() {
    static MEMORY: StaticMemory<{ 129 * PAGE }> = StaticMemory::new();
    static PAGES: Pages = Pages::new(&MEMORY);
    let runs: Vec<_> = std::iter::from_fn(|| take(&PAGES, 1, PAGE).ok()).collect();
    assert_eq!(runs.len(), 128);
    let mut kept = Vec::new();
    for (index, run) in runs.into_iter().enumerate() {
        if index % 2 == 0 { give(&PAGES, run) } else { kept.push(run) }
    }
    let stats = PAGES.stats();
    assert_eq!((stats.free, stats.largest), (64, 1));
    assert_eq!(take(&PAGES, 2, PAGE).unwrap_err(), PageError::Exhausted);
    give(&PAGES, kept.swap_remove(20));
    assert_eq!(PAGES.stats().largest, 3);
    kept.into_iter().for_each(|run| give(&PAGES, run));
    assert_eq!(PAGES.stats().largest, 128);
}

#[test]
fn pages_never_handed_out_are_zero_and_reused_ones_are_not_called_so() {
    static MEMORY: StaticMemory<{ 9 * PAGE }> = StaticMemory::new();
    static PAGES: Pages = Pages::new(&MEMORY);
    let first = take(&PAGES, 3, PAGE).unwrap();
    assert!(first.is_zeroed());
    // SAFETY: the run is ours.
    unsafe { first.base().write_bytes(0xff, 3 * PAGE) };
    give(&PAGES, first);
    let again = take(&PAGES, 4, PAGE).unwrap();
    assert!(!again.is_zeroed(), "three of its pages were used");
    let rest = take(&PAGES, 4, PAGE).unwrap();
    assert!(rest.is_zeroed());
    give(&PAGES, again);
    give(&PAGES, rest);
}

#[test]
fn the_second_supplier_over_the_same_memory_has_nothing() {
    static MEMORY: StaticMemory<{ 9 * PAGE }> = StaticMemory::new();
    static ONE: Pages = Pages::new(&MEMORY);
    static TWO: Pages = Pages::new(&MEMORY);
    let run = take(&ONE, 8, PAGE).unwrap();
    assert_eq!(take(&TWO, 1, PAGE).unwrap_err(), PageError::Exhausted);
    assert_eq!(TWO.stats().total, 0);
    give(&ONE, run);
    assert_eq!(take(&TWO, 1, PAGE).unwrap_err(), PageError::Exhausted);
}

#[test]
fn a_raw_region_with_ragged_ends() {
    let mut memory = vec![0xabu8; 40 * PAGE];
    let (offset, len) = (PAGE - 100 - memory.as_ptr().addr() % PAGE, 33 * PAGE);
    // SAFETY: offset and length stay inside the vector, which outlives the supplier and which
    // nothing else uses meanwhile.
    let pages = unsafe {
        let base = NonNull::new(memory.as_mut_ptr().add(offset)).unwrap();
        Pages::from_raw(base, len)
    };
    let low = memory.as_ptr().wrapping_add(offset);
    assert!(pages.contains(low) && pages.contains(low.wrapping_add(len - 1)));
    assert!(!pages.contains(low.wrapping_sub(1)) && !pages.contains(low.wrapping_add(len)));
    assert_eq!(pages.stats().total, 32, "the ragged head holds the bookkeeping");
    let pages = Box::new(pages);
    let run = take(&*pages, 32, PAGE).expect("the supplier may be moved");
    assert!(!run.is_zeroed() && run.base().addr().get().is_multiple_of(PAGE));
    assert!(pages.contains(run.base().as_ptr()));
    // SAFETY: the run is ours.
    unsafe { run.base().write_bytes(0xcd, 32 * PAGE) };
    give(&*pages, run);
    assert_eq!(pages.stats().largest, 32, "writing all pages leaves the bookkeeping alone");
    drop(pages);
    let outside = (0..offset).chain(offset + len..memory.len());
    assert!(outside.into_iter().all(|at| memory[at] == 0xab), "written outside of the region");
}

#[test]
fn bad_alignments_and_sizes() {
    static MEMORY: StaticMemory<{ 9 * PAGE }> = StaticMemory::new();
    static PAGES: Pages = Pages::new(&MEMORY);
    assert_eq!(take(&PAGES, 1, 1 << 46).unwrap_err(), PageError::BadAlign);
    assert_eq!(take(&PAGES, 9, PAGE).unwrap_err(), PageError::Exhausted);
    assert_eq!(take(&PAGES, 0, PAGE).unwrap_err(), PageError::BadSize);
    let huge = Layout::from_size_align(isize::MAX as usize & !(PAGE - 1), PAGE).unwrap();
    assert_eq!(PAGES.alloc_pages(huge, Request::NOWAIT).unwrap_err(), PageError::Exhausted);
    let odd = Layout::from_size_align(PAGE + 1, 1).unwrap();
    assert_eq!(PAGES.alloc_pages(odd, Request::NOWAIT).unwrap_err(), PageError::BadSize);
}

#[test]
fn other_page_sizes() {
    static MEMORY: StaticMemory<{ 1 << 20 }> = StaticMemory::new();
    static PAGES: StaticPages<spin::Mutex<()>, 65536> = StaticPages::new(&MEMORY);
    let run = PAGES
        .alloc_pages(Layout::from_size_align(65536, 131_072).unwrap(), Request::NOWAIT)
        .unwrap();
    assert!(run.base().addr().get().is_multiple_of(131_072));
    give(&PAGES, run);
    assert!(PAGES.stats().total >= 14);

    static SMALL: StaticMemory<1024> = StaticMemory::new();
    static BYTES: StaticPages<spin::Mutex<()>, 64> = StaticPages::new(&SMALL);
    assert_eq!(BYTES.stats().total, 15);
}

#[test]
fn threads_share_it() {
    static MEMORY: StaticMemory<{ 65 * PAGE }> = StaticMemory::new();
    static PAGES: Pages = Pages::new(&MEMORY);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            scope.spawn(move || {
                let mut random = Random(0xdead_beef + u64::from(thread));
                for _ in 0..2000 {
                    let count = 1 + random.below(8);
                    let Ok(run) = take(&PAGES, count, PAGE) else { continue };
                    let len = count * PAGE;
                    // SAFETY: the run is ours, and written in full before it is read.
                    let seen: BTreeSet<u8> = unsafe {
                        run.base().write_bytes(thread, len);
                        std::thread::yield_now();
                        std::slice::from_raw_parts(run.base().as_ptr(), len)
                            .iter()
                            .copied()
                            .collect()
                    };
                    assert_eq!(seen, BTreeSet::from([thread]));
                    give(&PAGES, run);
                }
            });
        }
    });
    assert_eq!(PAGES.stats().largest, 64);
}

#[test]
fn regions_are_added_and_used_in_order() {
    static ONE: StaticMemory<{ 5 * PAGE }> = StaticMemory::new();
    static TWO: StaticMemory<{ 9 * PAGE }> = StaticMemory::new();
    static PAGES: Pages = Pages::new(&ONE);
    let small = take(&PAGES, 3, PAGE).unwrap();
    assert_eq!(take(&PAGES, 2, PAGE).unwrap_err(), PageError::Exhausted);
    assert_eq!(Regions::generation(&PAGES), 1);
    PAGES.add(&TWO).unwrap();
    assert_eq!(Regions::generation(&PAGES), 2);
    let stats = PAGES.stats();
    assert_eq!((stats.total, stats.free, stats.largest, stats.regions), (12, 9, 8, 2));
    // Where it fits first, and never from one into the other.
    let two = take(&PAGES, 2, PAGE).unwrap();
    let one = take(&PAGES, 1, PAGE).unwrap();
    let region = |run: &PageRun| {
        let mut found = Vec::new();
        let base = run.base().as_ptr();
        let mut index = 0;
        PAGES.visit_regions(&mut |region| {
            if region.contains(base, run.layout().size()) {
                found.push(index);
            }
            index += 1;
        });
        assert_eq!((index, found.len()), (2, 1));
        assert!(PAGES.contains(base) && PAGES.holds(base));
        found[0]
    };
    assert_eq!((region(&small), region(&two), region(&one)), (0, 1, 0));
    assert!(two.is_zeroed(), "so is an array that was added");
    assert_eq!(take(&PAGES, 7, PAGE).unwrap_err(), PageError::Exhausted);
    let rest = take(&PAGES, 6, PAGE).unwrap();
    assert_eq!(PAGES.stats().free, 0);
    // Each goes back where it came from.
    for (run, largest) in [(small, 3), (one, 4), (two, 4), (rest, 8)] {
        give(&PAGES, run);
        assert_eq!(PAGES.stats().largest, largest);
    }
    assert_eq!(PAGES.stats().free, 12);
}

#[test]
fn alignments_that_only_some_region_has() {
    // Eight pages each, the first so that none of its pages but the first is at a multiple of 16.
    let memory = Box::leak(vec![0u8; 64 * PAGE].into_boxed_slice());
    let base = NonNull::from_mut(memory).cast::<u8>();
    let first = base.addr().get().next_multiple_of(16 * PAGE) - base.addr().get();
    let pages = Pages::empty();
    assert_eq!(take(&pages, 1, PAGE).unwrap_err(), PageError::Exhausted);
    assert_eq!((pages.stats().regions, Regions::generation(&pages)), (0, 0));
    // SAFETY: parts of leaked memory that nobody else uses, and that do not overlap.
    unsafe {
        pages.add_raw(base.add(first + PAGE), 8 * PAGE).unwrap();
        assert_eq!(take(&pages, 1, 16 * PAGE).unwrap_err(), PageError::BadAlign);
        pages.add_raw(base.add(first + 15 * PAGE), 8 * PAGE).unwrap();
    }
    let run = take(&pages, 1, 16 * PAGE).unwrap();
    assert_eq!(run.base().addr().get(), base.addr().get() + first + 16 * PAGE);
    assert!(!run.is_zeroed(), "raw memory may hold anything");
    // It may have one later, whatever those before and behind it say.
    // SAFETY: as above.
    unsafe { pages.add_raw(base.add(first + 33 * PAGE), 8 * PAGE).unwrap() };
    assert_eq!(take(&pages, 1, 16 * PAGE).unwrap_err(), PageError::Exhausted);
    give(&pages, run);
}

#[test]
fn regions_that_cannot_be_added() {
    static ONE: StaticMemory<{ 9 * PAGE }> = StaticMemory::new();
    static TWO: StaticMemory<{ 9 * PAGE }> = StaticMemory::new();
    static TINY: StaticMemory<PAGE> = StaticMemory::new();
    static PAGES: Pages = Pages::new(&ONE);
    static OTHER: Pages = Pages::new(&TWO);
    assert_eq!(PAGES.add(&ONE), Err(AddError::Overlaps));
    assert_eq!(PAGES.add(&TINY), Err(AddError::TooSmall));
    assert_eq!(OTHER.stats().total, 8);
    assert_eq!(PAGES.add(&TWO), Err(AddError::Claimed));
    let memory = Box::leak(vec![0xab_u8; 8 * PAGE].into_boxed_slice());
    let base = NonNull::from_mut(memory).cast::<u8>();
    // SAFETY: parts of leaked memory that nobody else uses; those that overlap are refused.
    unsafe {
        PAGES.add_raw(base, 4 * PAGE).unwrap();
        for (from, len) in [(0, 4), (3, 4), (1, 2)] {
            let again = PAGES.add_raw(base.add(from * PAGE), len * PAGE);
            assert_eq!(again, Err(AddError::Overlaps));
        }
        assert_eq!(base.add(4 * PAGE).read(), 0xab, "written before it was looked at");
        PAGES.add_raw(base.add(4 * PAGE), 4 * PAGE).unwrap();
    }
    for (error, text) in [
        (AddError::Overlaps, "overlaps"),
        (AddError::TooSmall, "no room"),
        (AddError::Claimed, "another supplier"),
    ] {
        assert!(error.to_string().contains(text), "{error}");
    }
    assert_eq!((PAGES.stats().regions, OTHER.stats().regions), (3, 1));
    // One that is claimed away before it was used holds nothing, and is no region.
    static LATE: Pages = Pages::new(&ONE);
    assert!(!LATE.contains((&raw const ONE).cast()) && LATE.regions().is_some());
    assert_eq!(Regions::generation(&LATE), 0);
    LATE.visit_regions(&mut |region| panic!("{region:?} belongs to another"));
}

#[test]
fn many_regions_to_exhaustion_and_back() {
    let memory = Box::leak(vec![0u8; 300 * PAGE].into_boxed_slice());
    let base = NonNull::from_mut(memory).cast::<u8>();
    let pages = Pages::empty();
    let mut random = Random(0x0bad_cafe_dead_beef);
    let mut at = 0;
    while at < 280 * PAGE {
        let len = 2 * PAGE + random.below(12 * PAGE);
        // SAFETY: parts of leaked memory that nobody else uses, one behind the other.
        if unsafe { pages.add_raw(base.add(at), len) }.is_err() {
            assert!(len < 4 * PAGE, "no room for a page in {len} bytes");
        }
        at += len + random.below(100);
    }
    let whole = pages.stats();
    assert!(whole.regions > 20 && whole.total > 200, "{whole:?}");
    for _ in 0..50 {
        let mut held = Vec::new();
        let mut left = whole.total;
        while left > 0 {
            let count = 1 + random.below(6);
            let Ok(run) = take(&pages, count, PAGE).or_else(|_| take(&pages, 1, PAGE)) else {
                panic!("{left} pages are free, but not one can be had");
            };
            left -= run.layout().size() / PAGE;
            // SAFETY: the run is ours.
            unsafe { run.base().write_bytes(0xee, run.layout().size()) };
            held.push(run);
        }
        assert_eq!((pages.stats().free, pages.stats().largest), (0, 0));
        while !held.is_empty() {
            give(&pages, held.swap_remove(random.below(held.len())));
        }
        assert_eq!(pages.stats(), whole);
    }
}

#[test]
fn regions_come_while_threads_allocate() {
    let memory = Box::leak(vec![0u8; 64 * PAGE].into_boxed_slice());
    let base = NonNull::from_mut(memory).cast::<u8>();
    let pages = Pages::empty();
    std::thread::scope(|scope| {
        for thread in 0..3_u8 {
            let pages = &pages;
            scope.spawn(move || {
                let mut random = Random(77 + u64::from(thread));
                while pages.stats().regions < 8 {
                    let Ok(run) = take(pages, 1 + random.below(4), PAGE) else { continue };
                    std::thread::yield_now();
                    assert!(pages.contains(run.base().as_ptr()));
                    // SAFETY: the run is ours.
                    unsafe { run.base().write_bytes(thread, run.layout().size()) };
                    give(pages, run);
                }
            });
        }
        for index in 0..8 {
            std::thread::sleep(std::time::Duration::from_millis(1));
            // SAFETY: parts of leaked memory that nobody else uses, one beside the other.
            unsafe { pages.add_raw(base.add(index * 8 * PAGE), 8 * PAGE) }.unwrap();
        }
    });
    let stats = pages.stats();
    assert!(stats.free == stats.total && stats.total >= 48, "{stats:?}");
}
