//! Controls: the suites find what is wrong with suppliers and sources that are wrong on purpose.

mod common;

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::Pool;
use uma_core::{AllocError, Item, ItemSource, PageError, PageRun, PageSupplier, Request};
use uma_testkit::conformance::{
    item_source, item_source_threads, page_supplier, page_supplier_exhaustion,
    page_supplier_threads,
};
use uma_testkit::{Budget, Fake};

/// The message with which the suite rejects it.
#[track_caller]
fn rejection(suite: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(suite)).expect_err("the suite found nothing wrong");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast::<&str>().map_or_else(|_| String::new(), |m| (*m).into()),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    TakesOddSizes,
    RefusesWithBadSize,
    IgnoresAlign,
    SaysZeroed,
    SaysReusedIsZeroed,
    OtherLayout,
    SameRunTwice,
    Scribbles,
    ForgetsFlag,
    ChangesPageSize,
}

/// A supplier with one fault. Its runs are parts of allocations that are larger than they look, so
/// that the faults do no harm.
struct Bad {
    fake: Fake,
    wrong: Wrong,
    calls: AtomicUsize,
    /// A run that is out: its address, as a pointer, and its size.
    last: Mutex<Option<(Item, usize)>>,
    used: AtomicBool,
}

impl Bad {
    fn new(wrong: Wrong) -> Self {
        let fake = Fake::new();
        fake.allow_leaks();
        Self {
            fake,
            wrong,
            calls: AtomicUsize::new(0),
            last: Mutex::new(None),
            used: AtomicBool::new(false),
        }
    }
}

// SAFETY: none: it breaks the contract on purpose, for the suites only, and in ways that stay inside
// memory that it owns.
unsafe impl PageSupplier for Bad {
    fn page_size(&self) -> usize {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        if self.wrong == Wrong::ChangesPageSize && calls == 1 { 8192 } else { 4096 }
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        let size = layout.size();
        let rounded = match self.wrong {
            Wrong::TakesOddSizes => size.max(1).next_multiple_of(4096),
            // One page more than asked for.
            Wrong::IgnoresAlign if layout.align() > 4096 && size == 4096 => 2 * 4096,
            _ => size,
        };
        if self.wrong == Wrong::RefusesWithBadSize && size == 3 * 4096 {
            return Err(PageError::BadSize);
        }
        if self.wrong == Wrong::SameRunTwice
            && size == 4096
            && let Some((item, size)) = *self.last.lock().unwrap()
            && layout.align() <= 4096
        {
            let layout = Layout::from_size_align(size, layout.align()).unwrap();
            // SAFETY: none, see above.
            return Ok(unsafe { PageRun::from_parts(item.as_non_null(), layout, false, 0) });
        }
        let inner = Layout::from_size_align(rounded, layout.align()).unwrap();
        let run = self.fake.alloc_pages(inner, request)?;
        let (mut base, mut zeroed) = (run.base(), false);
        let (mut outer, flag) = (layout, run.flag());
        match self.wrong {
            Wrong::IgnoresAlign if rounded > size => {
                // SAFETY: the allocation is one page larger.
                base = unsafe { base.add(4096) };
            }
            Wrong::SaysZeroed => zeroed = true,
            Wrong::SaysReusedIsZeroed if !self.used.load(Ordering::Relaxed) => {
                zeroed = true;
                // SAFETY: the run is ours.
                unsafe { base.write_bytes(0, size) };
            }
            Wrong::SaysReusedIsZeroed => zeroed = true,
            Wrong::OtherLayout if size == 4 * 4096 => {
                outer = Layout::from_size_align(2 * 4096, layout.align()).unwrap();
            }
            _ => {}
        }
        if self.wrong == Wrong::Scribbles
            && let Some((item, size)) = *self.last.lock().unwrap()
        {
            // SAFETY: the last run is still out.
            unsafe { item.as_ptr().add(size - 1).write(0x77) };
        }
        *self.last.lock().unwrap() = Some((Item::new(base), size));
        // SAFETY: none, see above.
        Ok(unsafe { PageRun::from_parts(base, outer, zeroed, flag) })
    }

    unsafe fn free_pages(&self, run: PageRun) {
        *self.last.lock().unwrap() = None;
        self.used.store(true, Ordering::Relaxed);
        let (base, layout, flag) = (run.base(), run.layout(), run.flag());
        let flag = if self.wrong == Wrong::ForgetsFlag { flag.wrapping_add(1) } else { flag };
        // What was handed out in another shape cannot go back to the fake.
        let lost = matches!(self.wrong, Wrong::IgnoresAlign | Wrong::OtherLayout);
        if !lost {
            // SAFETY: it came from there.
            unsafe { self.fake.free_pages(PageRun::from_parts(base, layout, false, flag)) };
        }
    }
}

#[test]
fn bad_page_suppliers_are_found_out() {
    let cases = [
        (Wrong::TakesOddSizes, "BadSize"),
        (Wrong::RefusesWithBadSize, "whole number of pages"),
        (Wrong::IgnoresAlign, "is not aligned"),
        (Wrong::SaysZeroed, "flagged as zeroed"),
        (Wrong::SaysReusedIsZeroed, "flagged as zeroed"),
        (Wrong::OtherLayout, "layout that was asked for"),
        (Wrong::SameRunTwice, "overlaps"),
        (Wrong::Scribbles, "contents of a live run changed"),
        (Wrong::ForgetsFlag, "given back with"),
        (Wrong::ChangesPageSize, "page size is always the same"),
    ];
    for (wrong, expected) in cases {
        let message = rejection(|| page_supplier(&Bad::new(wrong)));
        assert!(message.contains(expected), "expected {expected:?}, found {message:?}");
    }
}

#[test]
fn threads_find_what_one_finds() {
    for wrong in [Wrong::SaysZeroed, Wrong::SameRunTwice, Wrong::Scribbles] {
        rejection(|| page_supplier_threads(&Bad::new(wrong)));
    }
}

/// A budget over a supplier that loses pages, and charges them for ever.
#[derive(Default)]
struct Leaky {
    fake: Fake,
    lost: AtomicUsize,
    frees: AtomicUsize,
    taken: AtomicUsize,
}

const PAGES: usize = 64;

// SAFETY: none but the fake's; it loses pages, which is what the suite must notice.
unsafe impl PageSupplier for Leaky {
    fn page_size(&self) -> usize {
        4096
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        PageError::check(layout, 4096)?;
        let pages = layout.size() / 4096;
        if self.taken.load(Ordering::Relaxed) + pages > PAGES - self.lost.load(Ordering::Relaxed) {
            return Err(PageError::Exhausted);
        }
        self.taken.fetch_add(pages, Ordering::Relaxed);
        self.fake.alloc_pages(layout, request)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        self.taken.fetch_sub(run.layout().size() / 4096, Ordering::Relaxed);
        if self.frees.fetch_add(1, Ordering::Relaxed) % 50 == 49 {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.fake.free_pages(run) }
    }
}

#[test]
fn a_supplier_that_loses_pages_is_found_out() {
    let message = rejection(|| page_supplier_exhaustion(&Leaky::default()));
    assert!(message.contains("pages"), "{message}");
    let message = rejection(|| page_supplier(&Leaky::default()));
    assert!(message.contains("Exhausted"), "{message}");
    let message = rejection(|| page_supplier_exhaustion(&Budget::new(Fake::new(), 1 << 30)));
    assert!(message.contains("no end"), "{message}");
}

#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    SameItemTwice,
    Misaligned,
    Scribbles,
    Wants,
    ReturnsNone,
    ReturnsTooMany,
    FillsInLess,
    LosesItems,
    LosesDiscarded,
    NeverFlushes,
    ChangesLayout,
}

/// A source with one flaw, over a pool of items that are larger than they look.
struct Flawed {
    pool: Pool,
    flaw: Flaw,
    last: Mutex<Option<Item>>,
    lost: Mutex<Vec<Item>>,
    layouts: AtomicUsize,
}

impl Flawed {
    fn new(flaw: Flaw) -> Self {
        let pool = Pool::of(Layout::from_size_align(128, 64).unwrap(), 100);
        let (last, lost) = (Mutex::new(None), Mutex::new(Vec::new()));
        Self { pool, flaw, last, lost, layouts: AtomicUsize::new(0) }
    }

    fn back(&self, item: Item) {
        let shift = if self.flaw == Flaw::Misaligned { 4 } else { 0 };
        // SAFETY: it came from the pool, `shift` bytes further on.
        unsafe { self.pool.release(&[Item::new(item.as_non_null().sub(shift))]) };
    }
}

// SAFETY: none: it breaks the contract on purpose, as `Bad` does.
unsafe impl ItemSource for Flawed {
    fn layout(&self) -> Layout {
        let changes =
            self.flaw == Flaw::ChangesLayout && self.layouts.fetch_add(1, Ordering::Relaxed) == 1;
        Layout::from_size_align(if changes { 64 } else { 40 }, 8).unwrap()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        match self.flaw {
            // One item is asked for by `alloc`, which counts on it.
            Flaw::ReturnsNone if into.len() > 1 => return Ok(0),
            Flaw::ReturnsTooMany => return self.pool.import(into, request).map(|n| n + 1),
            Flaw::FillsInLess if into.len() > 1 => {
                let less = into.len() - 1;
                return self.pool.import(&mut into[..less], request).map(|n| n + 1);
            }
            Flaw::SameItemTwice => {
                if let Some(item) = *self.last.lock().unwrap() {
                    into[0].write(item);
                    return Ok(1);
                }
            }
            _ => {}
        }
        let count = self.pool.import(into, request)?;
        let mut last = self.last.lock().unwrap();
        for slot in &mut into[..count] {
            // SAFETY: the pool has filled in these.
            let item = unsafe { slot.assume_init() };
            if self.flaw == Flaw::Scribbles
                && let Some(last) = *last
            {
                // SAFETY: it is still out, and the pool has not had it back.
                unsafe { last.as_ptr().add(39).write(0x77) };
            }
            if self.flaw == Flaw::Misaligned {
                // SAFETY: items are larger than they look.
                slot.write(Item::new(unsafe { item.as_non_null().add(4) }));
            }
            *last = Some(item);
        }
        Ok(count)
    }

    unsafe fn release(&self, items: &[Item]) {
        for &item in items {
            *self.last.lock().unwrap() = None;
            let mut lost = self.lost.lock().unwrap();
            if self.flaw == Flaw::LosesItems && item.addr() % 5 == 0 && lost.len() < 30 {
                lost.push(item);
            } else {
                self.back(item);
            }
        }
    }

    unsafe fn discard(&self, item: Item) {
        *self.last.lock().unwrap() = None;
        if self.flaw == Flaw::LosesDiscarded {
            self.lost.lock().unwrap().push(item);
        } else {
            self.back(item);
        }
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        match self.alloc(request) {
            Err(error) if self.flaw != Flaw::NeverFlushes && error.is_shortage() => {
                flush();
                self.alloc(request)
            }
            result => result,
        }
    }

    fn wanted(&self) -> bool {
        self.flaw == Flaw::Wants
    }
}

#[test]
fn flawed_item_sources_are_found_out() {
    let cases = [
        (Flaw::SameItemTwice, "overlaps"),
        (Flaw::Misaligned, "is not aligned"),
        (Flaw::Scribbles, "changed while it was out"),
        (Flaw::Wants, "is wanted"),
        (Flaw::ReturnsNone, "returned 0"),
        (Flaw::ReturnsTooMany, "returned"),
        (Flaw::FillsInLess, "not filled in"),
        (Flaw::LosesItems, "were to be had"),
        (Flaw::LosesDiscarded, "were to be had"),
        (Flaw::NeverFlushes, "without a call of flush"),
        (Flaw::ChangesLayout, "layout is always the same"),
    ];
    for (flaw, expected) in cases {
        let source = std::mem::ManuallyDrop::new(Flawed::new(flaw));
        let message = rejection(|| item_source(&*source));
        assert!(message.contains(expected), "expected {expected:?}, found {message:?}");
    }
    for flaw in [Flaw::SameItemTwice, Flaw::Scribbles, Flaw::Wants, Flaw::LosesItems] {
        let source = std::mem::ManuallyDrop::new(Flawed::new(flaw));
        rejection(|| item_source_threads(&*source));
    }
}
