//! One region at work: its bitmap, and the book that is kept of a region added later.
//!
//! ```text
//!   StaticPages { first region, its marks, added } --> Book { marks, next } --> Book { .. , null }
//!                                                     in the region itself
//! ```
//!
//! Books are only ever appended, under the supplier's lock, and stay where they are: whoever reads the
//! list without the lock finds some of them, in order. Marks and bitmaps are under the lock.

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use uma_core::{PageError, PageRun};

use crate::free::{FreeMap, Grid, Marks, words_for};
use crate::region::{Extent, Plan};
use crate::sync::{AtomicPtr, Ordering, UnsafeCell};

/// A region with its bitmap, for as long as the lock is held.
pub(crate) struct Part<'a> {
    pub(crate) extent: Extent,
    plan: Plan,
    zero: bool,
    pub(crate) map: FreeMap<'a>,
}

impl<'a> Part<'a> {
    /// The region, with `marks` that belong to it. `zero` says whether it is zero where never handed out.
    ///
    /// # Safety
    ///
    /// `plan` is that of the region, whose memory nobody but the caller uses but for its runs; and the
    /// bitmap was set up ([`begin`](Self::begin)), or is just about to be.
    pub(crate) unsafe fn new(extent: Extent, plan: Plan, zero: bool, marks: &'a mut Marks) -> Self {
        // SAFETY: `plan` puts this many aligned words here, clear of pages, claim and book. They are
        // initialised, or written before they are read, and the caller's alone.
        let words = unsafe {
            let at = extent.base.add(plan.bitmap).cast::<u64>();
            core::slice::from_raw_parts_mut(at.as_ptr(), words_for(plan.count))
        };
        Self { extent, plan, zero, map: FreeMap { words, marks } }
    }

    /// Sets the bitmap up and returns the marks for it.
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new).
    pub(crate) unsafe fn begin(extent: Extent, plan: Plan) -> Marks {
        // SAFETY: as in `new`; the words need not be initialised yet.
        unsafe {
            let bitmap = extent.base.add(plan.bitmap).cast::<u64>();
            bitmap.write_bytes(0, words_for(plan.count));
        }
        let mut marks = Marks::default();
        // SAFETY: passed on to the caller; the words are zero now.
        unsafe { Part::new(extent, plan, false, &mut marks) }.map.reset(plan.count);
        marks
    }

    /// The address of the first page.
    fn start(&self) -> usize {
        self.extent.base.addr().get() + self.plan.pages
    }

    /// Takes the lowest run that fits.
    pub(crate) fn take(&mut self, layout: Layout, page: usize) -> Result<PageRun, PageError> {
        let step = (layout.align() / page).max(1);
        let phase = (self.start() / page).wrapping_neg() & (step - 1);
        if phase >= self.plan.count {
            return Err(PageError::BadAlign);
        }
        let taken = self.map.take(layout.size() / page, Grid { step, phase });
        let taken = taken.ok_or(PageError::Exhausted)?;
        // SAFETY: the bitmap took these pages for us: they lie in the region, are aligned, and are
        // nobody else's. If `zero`, they are zero until handed out.
        Ok(unsafe {
            let base = self.extent.base.add(self.plan.pages + taken.page * page);
            PageRun::from_parts(base, layout, taken.fresh && self.zero, 0)
        })
    }

    /// Gives back a run that was taken here.
    pub(crate) fn give(&mut self, run: &PageRun, page: usize) {
        let first = (run.base().addr().get() - self.start()) / page;
        self.map.give(first, run.layout().size() / page);
    }
}

/// What is kept of a region that was added, in its own memory.
pub(crate) struct Book {
    pub(crate) extent: Extent,
    plan: Plan,
    zero: bool,
    /// Under the lock.
    marks: UnsafeCell<Marks>,
    next: AtomicPtr<Book>,
}

impl Book {
    /// Sets a region up and writes its book.
    ///
    /// # Safety
    ///
    /// `plan` is that of the region, with room for a book, and the caller may use the region for ever,
    /// alone.
    pub(crate) unsafe fn write(extent: Extent, plan: Plan, zero: bool) -> NonNull<Self> {
        // SAFETY: passed on to the caller.
        let marks = UnsafeCell::new(unsafe { Part::begin(extent, plan) });
        let book = Self { extent, plan, zero, marks, next: AtomicPtr::new(ptr::null_mut()) };
        // SAFETY: `plan` puts an aligned place of this size here, clear of everything else.
        unsafe {
            let at = extent.base.add(plan.book).cast::<Self>();
            at.write(book);
            at
        }
    }

    /// The region at work.
    ///
    /// # Safety
    ///
    /// The caller holds the supplier's lock, and lets go of the last part that it got here.
    pub(crate) unsafe fn part(&self) -> Part<'_> {
        // SAFETY: marks are touched only here, under the lock. `write` has set the region up, which is
        // the supplier's alone.
        unsafe { Part::new(self.extent, self.plan, self.zero, &mut *self.marks.get()) }
    }
}

/// The books of a supplier, in the order in which they were added.
pub(crate) struct Books(AtomicPtr<Book>);

impl Books {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// All that are there by now.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Book> {
        // Acquire: a book is read after it was written (`append`).
        // SAFETY: pointers here are null, or to books that were written and stay for ever.
        let load = |at: &AtomicPtr<Book>| unsafe { at.load(Ordering::Acquire).as_ref() };
        core::iter::successors(load(&self.0), move |book| load(&book.next))
    }

    /// Puts a book behind all others.
    ///
    /// # Safety
    ///
    /// The caller holds the supplier's lock, and `book` was written by [`Book::write`] and is in no list.
    pub(crate) unsafe fn append(&self, book: NonNull<Book>) {
        let last = self.iter().last().map_or(&self.0, |last| &last.next);
        last.store(book.as_ptr(), Ordering::Release);
    }
}
