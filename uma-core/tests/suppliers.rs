//! Adaptors of page suppliers: counts, quotas, two as one, and the hand-over from boot memory.

use std::alloc::Layout;
use std::error::Error;
use std::ptr::NonNull;

use uma_core::{
    Counting, Decommit, Fallback, Handover, HandoverError, PageError, PageRun, PageSupplier,
    Protect, Quota, Region, Regions, Request,
};
use uma_testkit::conformance::{
    decommit, page_supplier, page_supplier_exhaustion, page_supplier_threads, protect, regions,
};
use uma_testkit::{FailNth, Fake, Outstanding};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;

fn layout(pages: usize) -> Layout {
    Layout::from_size_align(pages * PAGE, PAGE).unwrap()
}

fn take(pages: &impl PageSupplier, count: usize) -> Result<PageRun, PageError> {
    pages.alloc_pages(layout(count), Request::NOWAIT)
}

fn give(pages: &impl PageSupplier, run: PageRun) {
    // SAFETY: the tests give back whole runs of the supplier that they came from, once.
    unsafe { pages.free_pages(run) }
}

/// Two suppliers that share no memory, as one.
fn fallback<A: Regions, B: PageSupplier>(first: A, second: B) -> Fallback<A, B> {
    // SAFETY: the tests name two that share none.
    unsafe { Fallback::new(first, second) }
}

/// A boot supplier that was handed over to another.
fn handed_over<A: Regions, B: PageSupplier>(first: A, later: B) -> Handover<A, B> {
    let pages = Handover::new(first);
    // SAFETY: the tests name two that share no memory.
    assert!(unsafe { pages.hand_over(later) }.is_ok());
    pages
}

/// A supplier without any power but one: it tells where its memory is.
struct Plain(Fake);

// SAFETY: forwards to one that keeps the contract.
unsafe impl PageSupplier for Plain {
    fn page_size(&self) -> usize {
        self.0.page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        assert!(!request.may_wait(), "the first supplier is asked to wait");
        self.0.alloc_pages(layout, request)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.free_pages(run) }
    }
}

// SAFETY: as above.
unsafe impl Regions for Plain {
    fn generation(&self) -> u64 {
        self.0.generation()
    }

    fn visit_regions(&self, visit: &mut dyn FnMut(Region)) {
        self.0.visit_regions(visit);
    }
}

// SAFETY: as above. It does not say that it can.
unsafe impl Protect for Plain {
    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.protect(at, len) }
    }

    unsafe fn unprotect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.unprotect(at, len) }
    }
}

#[test]
fn all_keep_the_contract() {
    let counting = Counting::new(Fake::new());
    page_supplier(&counting);
    page_supplier_threads(&counting);
    let counts = counting.counts();
    assert_eq!((counts.runs, counts.bytes), (0, 0));
    assert!(counts.peak_runs > 1 && counts.peak_bytes > MIB && counts.failures > 0, "{counts:?}");
    assert_eq!(counting.inner().outstanding(), Outstanding::default());

    let quota = Quota::pages(Fake::new(), 3 * MIB / PAGE);
    page_supplier(&quota);
    page_supplier_threads(&quota);
    page_supplier_exhaustion(&quota);
    assert_eq!((quota.used(), quota.max()), (0, 3 * MIB));

    // So little in the first that most come from the second, and both are used up at times.
    let both = fallback(Quota::new(Fake::new(), 20 * PAGE), Quota::new(Fake::new(), 3 * MIB));
    page_supplier(&both);
    page_supplier_threads(&both);
    page_supplier_exhaustion(&both);
    assert_eq!((both.first().used(), both.second().used()), (0, 0));
    page_supplier(&fallback(Fake::with_page_size(64), Fake::with_page_size(65536)));
    page_supplier(&fallback(Quota::new(Fake::with_page_size(65536), MIB), Fake::new()));

    let pages: Handover<_, Quota<Fake>> = Handover::new(Quota::new(Fake::new(), 3 * MIB));
    page_supplier(&pages);
    // SAFETY: two fakes share no memory.
    assert!(unsafe { pages.hand_over(Quota::new(Fake::with_page_size(256), 2 * MIB)) }.is_ok());
    page_supplier(&pages);
    page_supplier_threads(&pages);
    page_supplier_exhaustion(&pages);
    assert_eq!((pages.first().used(), pages.later().unwrap().used()), (0, 0));
}

#[test]
fn powers_are_passed_on() {
    decommit(&Counting::new(Fake::new()));
    protect(&Counting::new(Fake::new()));
    regions(&Counting::new(Fake::new()));
    let quota = Quota::new(Fake::new(), MIB);
    decommit(&quota);
    protect(&quota);
    regions(&quota);
    let small = || Quota::new(Fake::new(), 16 * PAGE);
    decommit(&fallback(small(), Fake::new()));
    protect(&fallback(small(), Fake::new()));
    regions(&fallback(small(), Fake::new()));
    regions(&fallback(fallback(small(), small()), Fake::new()));
    decommit(&handed_over(small(), Fake::new()));

    // As types too, and each to whose run it is.
    let both = fallback(Quota::pages(Fake::new(), 1), Fake::new());
    let (one, two) = (take(&both, 1).unwrap(), take(&both, 1).unwrap());
    let (first, second) = (both.first().inner(), both.second());
    // SAFETY: pages of runs that are ours.
    unsafe {
        both.decommit(one.base(), PAGE);
        assert_eq!((first.decommitted(), second.decommitted()), (PAGE, 0));
        both.decommit(two.base(), PAGE);
        assert_eq!((first.decommitted(), second.decommitted()), (PAGE, PAGE));
        both.protect(one.base(), PAGE).unwrap();
        assert_eq!((first.protected(), second.protected()), (1, 0));
        both.protect(two.base(), PAGE).unwrap();
        both.unprotect(one.base(), PAGE).unwrap();
        assert_eq!((first.protected(), second.protected()), (0, 1));
        both.unprotect(two.base(), PAGE).unwrap();
    }
    assert!(both.holds(one.base().as_ptr()) && both.holds(two.base().as_ptr()));
    assert!(!both.holds((&raw const both).cast()));
    give(&both, one);
    give(&both, two);
}

#[test]
fn powers_that_only_one_of_two_has() {
    let pages = fallback(Plain(Fake::new()), Fake::new());
    assert!(pages.protects().is_none() && pages.regions().is_some());
    let pages = fallback(Fake::new(), Plain(Fake::new()));
    assert!(pages.protects().is_none() && pages.regions().is_none());
    assert!(fallback(Plain(Fake::new()), Plain(Fake::new())).decommits().is_none());

    // Boot memory that cannot decommit: what lies there stays as it is, at no fault.
    let pages = fallback(Quota::pages(Plain(Fake::new()), 1), Fake::new());
    let (one, two) = (take(&pages, 1).unwrap(), take(&pages, 1).unwrap());
    let power = pages.decommits().expect("the second can");
    // SAFETY: pages of runs that are ours.
    unsafe {
        one.base().write(1);
        two.base().write(1);
        power.decommit(one.base(), PAGE);
        power.decommit(two.base(), PAGE);
        assert_eq!((one.base().read(), two.base().read()), (1, Fake::DECOMMITTED));
    }
    give(&pages, one);
    give(&pages, two);

    // One that has a power and does not say so.
    let pages = fallback(Plain(Fake::new()), Fake::new());
    let run = take(&pages, 1).unwrap();
    // SAFETY: a page of a run that is ours.
    unsafe {
        assert_eq!(pages.protect(run.base(), PAGE), Err(PageError::Unsupported));
        assert_eq!(pages.unprotect(run.base(), PAGE), Err(PageError::Unsupported));
    }
    assert!(PageError::Unsupported.to_string().contains("cannot do that"));
    give(&pages, run);
}

#[test]
fn counting_counts_to_the_byte() {
    let pages = Counting::new(FailNth::new(Fake::new()));
    let (a, b) = (take(&pages, 3).unwrap(), take(&pages, 1).unwrap());
    pages.inner().fail_at(1);
    assert_eq!(take(&pages, 7).unwrap_err(), PageError::Exhausted);
    let counts = pages.counts();
    assert_eq!((counts.runs, counts.pages(), counts.bytes), (2, 4, 4 * PAGE));
    give(&pages, a);
    let c = take(&pages, 2).unwrap();
    let counts = pages.counts();
    assert_eq!((counts.runs, counts.pages()), (2, 3));
    assert_eq!((counts.peak_runs, counts.peak_pages(), counts.peak_bytes), (2, 4, 4 * PAGE));
    assert_eq!((counts.allocs, counts.failures, counts.page_size), (3, 1, PAGE));
    give(&pages, b);
    give(&pages, c);
    assert_eq!((pages.counts().runs, pages.counts().bytes), (0, 0));
}

/// Looks at the counts from below, while a run is taken and given back.
struct Witness<'a>(&'a Fake, &'a dyn Fn());

// SAFETY: forwards to one that keeps the contract.
unsafe impl PageSupplier for Witness<'_> {
    fn page_size(&self) -> usize {
        PAGE
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        (self.1)();
        self.0.alloc_pages(layout, request)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.free_pages(run) };
        (self.1)();
    }
}

#[test]
fn a_quota_counts_around_and_a_count_within() {
    let (fake, seen) = (Fake::new(), std::cell::Cell::new(None));
    let pages = std::cell::OnceCell::new();
    let look = || {
        let pages: &Quota<Counting<Witness<'_>>> = pages.get().unwrap();
        seen.set(Some((pages.used(), pages.inner().counts().bytes)));
    };
    assert!(pages.set(Quota::new(Counting::new(Witness(&fake, &look)), 8 * PAGE)).is_ok());
    let pages = pages.get().unwrap();
    let run = take(pages, 2).unwrap();
    assert_eq!(seen.take(), Some((2 * PAGE, 0)), "while a run is taken");
    give(pages, run);
    assert_eq!(seen.take(), Some((2 * PAGE, 0)), "while it is given back");
    assert_eq!(pages.used(), 0);
}

#[test]
fn a_quota_is_kept_to_the_byte() {
    let pages = Quota::new(FailNth::new(Fake::new()), 3 * PAGE);
    assert_eq!(take(&pages, 4).unwrap_err(), PageError::Exhausted);
    assert_eq!(pages.inner().calls(), 0, "nobody below was asked");
    let run = take(&pages, 2).unwrap();
    assert_eq!(take(&pages, 2).unwrap_err(), PageError::Exhausted);
    pages.inner().fail_at(1);
    assert_eq!(take(&pages, 1).unwrap_err(), PageError::Exhausted);
    assert_eq!(pages.used(), 2 * PAGE, "what was not had costs nothing");
    let last = take(&pages, 1).unwrap();
    pages.set_max(PAGE);
    give(&pages, last);
    assert_eq!((pages.used(), pages.max()), (2 * PAGE, PAGE));
    assert_eq!(take(&pages, 1).unwrap_err(), PageError::Exhausted, "there is more out than may be");
    give(&pages, run);
    // What can never be is told from what is too much, whatever is left.
    let odd = Layout::from_size_align(100, 1).unwrap();
    assert_eq!(pages.alloc_pages(odd, Request::NOWAIT).unwrap_err(), PageError::BadSize);
    pages.set_max(usize::MAX);
    let huge = Layout::from_size_align(isize::MAX as usize & !(PAGE - 1), 1).unwrap();
    assert!(pages.alloc_pages(huge, Request::NOWAIT).is_err());
    assert_eq!(pages.used(), 0);
}

#[test]
fn a_quota_is_kept_between_threads() {
    let pages = Quota::pages(Counting::new(Fake::new()), 5);
    std::thread::scope(|scope| {
        for thread in 1..=4 {
            let pages = &pages;
            scope.spawn(move || {
                for _ in 0..2000 {
                    if let Ok(run) = take(pages, thread) {
                        give(pages, run);
                    }
                }
            });
        }
    });
    let counts = pages.inner().counts();
    assert!(counts.peak_pages() <= 5 && counts.bytes == 0, "{counts:?}");
    assert_eq!(pages.used(), 0);
}

#[test]
fn a_fallback_asks_the_first_first() {
    let pages = fallback(Quota::pages(Plain(Fake::new()), 2), FailNth::new(Fake::new()));
    // `Plain` asserts that it is not asked to wait.
    let a = pages.alloc_pages(layout(2), Request::WAIT).unwrap();
    let b = take(&pages, 1).unwrap();
    assert_eq!((pages.first().used(), pages.second().inner().outstanding().runs), (2 * PAGE, 1));
    pages.second().fail_from(1);
    assert_eq!(take(&pages, 1).unwrap_err(), PageError::Exhausted);
    // Each goes back where it came from (a fake knows its own), and is had from there again.
    give(&pages, a);
    assert_eq!((pages.first().used(), pages.second().inner().outstanding().runs), (0, 1));
    let c = take(&pages, 1).unwrap();
    assert_eq!(pages.first().used(), PAGE);
    give(&pages, b);
    assert_eq!((pages.first().used(), pages.second().inner().outstanding().runs), (PAGE, 0));
    give(&pages, c);
    let odd = Layout::from_size_align(100, 1).unwrap();
    assert_eq!(pages.alloc_pages(odd, Request::NOWAIT).unwrap_err(), PageError::BadSize);
}

/// Cannot align at all.
struct Crooked(Fake);

// SAFETY: forwards to one that keeps the contract.
unsafe impl PageSupplier for Crooked {
    fn page_size(&self) -> usize {
        PAGE
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        if layout.align() > PAGE {
            return Err(PageError::BadAlign);
        }
        self.0.alloc_pages(layout, request)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.free_pages(run) }
    }
}

#[test]
fn a_fallback_reports_what_may_pass() {
    let pages = fallback(Quota::pages(Fake::new(), 2), Crooked(Fake::new()));
    let aligned = Layout::from_size_align(2 * PAGE, 2 * PAGE).unwrap();
    let run = pages.alloc_pages(aligned, Request::NOWAIT).unwrap();
    // The second never can, but the first may later.
    let error = pages.alloc_pages(aligned, Request::NOWAIT).unwrap_err();
    assert_eq!(error, PageError::Exhausted);
    give(&pages, run);
}

#[test]
fn after_startup2_new_runs_come_from_the_later_supplier() {
    let pages: Handover<Fake, Quota<Fake>> = Handover::new(Fake::new());
    assert!(pages.later().is_none());
    let (boot, other) = (take(&pages, 1).unwrap(), take(&pages, 2).unwrap());
    let before = Regions::generation(pages.first());
    // SAFETY: two fakes share no memory.
    assert!(unsafe { pages.hand_over(Quota::pages(Fake::new(), 1)) }.is_ok());
    assert!(Regions::generation(&pages) > before);
    let later = pages.later().unwrap();
    let new = take(&pages, 1).unwrap();
    assert_eq!((pages.first().outstanding().runs, later.used()), (2, PAGE));
    // Boot memory is for the beginning, also when the other is used up.
    assert_eq!(take(&pages, 1).unwrap_err(), PageError::Exhausted);
    give(&pages, boot);
    assert_eq!((pages.first().outstanding().runs, later.used()), (1, PAGE));
    give(&pages, new);
    assert_eq!((pages.first().outstanding().runs, later.used()), (1, 0));
    assert!(pages.holds(other.base().as_ptr()));
    give(&pages, other);
    assert_eq!(pages.first().outstanding(), Outstanding::default());
}

#[test]
fn who_does_not_take_over_comes_back() {
    let pages: Handover<Fake, Fake> = Handover::new(Fake::new());
    // SAFETY: in all of these: two fakes share no memory.
    let error = unsafe { pages.hand_over(Fake::with_page_size(8192)) }.unwrap_err();
    assert!(matches!(error, HandoverError::LargerPages { size: 4096, pages: 8192, .. }));
    let text = error.to_string();
    assert!(text.contains("8192") && text.contains("4096") && error.source().is_none(), "{text}");
    assert_eq!(error.into_inner().page_size(), 8192);
    // SAFETY: as above.
    assert!(unsafe { pages.hand_over(Fake::new()) }.is_ok());
    // SAFETY: as above.
    let error = unsafe { pages.hand_over(Fake::with_page_size(64)) }.unwrap_err();
    assert!(matches!(error, HandoverError::Again(_)));
    assert!(error.to_string().contains("before") && format!("{error:?}").contains("Again"));
    assert_eq!(error.into_inner().page_size(), 64);
    // Dropped with what is inside: a fake with a run out says so.
    let run = take(&pages, 1).unwrap();
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(pages)));
    assert!(dropped.is_err(), "the later supplier was dropped too");
    let _ = run;
}

#[test]
fn a_hand_over_while_others_allocate() {
    for _ in 0..20 {
        let pages: Handover<Fake, Fake> = Handover::new(Fake::new());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut held = Vec::new();
                    for count in 0..300 {
                        held.push(take(&pages, 1 + count % 3).unwrap());
                        if count % 2 == 1 {
                            give(&pages, held.swap_remove(count % held.len()));
                        }
                    }
                    held.into_iter().for_each(|run| give(&pages, run));
                });
            }
            scope.spawn(|| {
                std::thread::yield_now();
                // SAFETY: two fakes share no memory.
                assert!(unsafe { pages.hand_over(Fake::new()) }.is_ok());
            });
        });
        assert_eq!(pages.first().outstanding(), Outstanding::default());
        assert_eq!(pages.later().unwrap().outstanding(), Outstanding::default());
    }
}
