//! Boot memory now, another supplier from one moment on (`uma_startup`, then `uma_startup2`).

use core::alloc::Layout;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crate::fallback::Pair;
use crate::sync::{AtomicUsize, Ordering, UnsafeCell, const_unless_modelled};
use crate::{Decommit, PageError, PageRun, PageSupplier, Region, Regions, Request};

/// Supplies runs of `A` until [`hand_over`](Self::hand_over) names another supplier, and runs of that
/// from then on.
///
/// A zone made on boot memory keeps working through the change: its next slab comes from the later
/// supplier, and a boot slab goes back to boot memory whenever it is freed. When nothing of `A` is out
/// any more, its memory may serve other ends.
///
/// It decommits what lies in runs of one that can. Its page size is that of `A`, always.
///
/// ```
/// use core::alloc::Layout;
/// use uma_core::{Handover, PageError, PageSupplier, Regions, Request};
///
/// fn boot<A: Regions, B: PageSupplier>(boot: A, system: B) -> Result<(), PageError> {
///     let pages = Handover::new(boot);
///     let page = Layout::from_size_align(pages.page_size(), 1).unwrap();
///     let early = pages.alloc_pages(page, Request::NOWAIT)?;
///     // SAFETY: the two share no memory.
///     assert!(unsafe { pages.hand_over(system) }.is_ok());
///     let late = pages.alloc_pages(page, Request::NOWAIT)?;
///     assert!(pages.first().holds(early.base().as_ptr()));
///     assert!(!pages.first().holds(late.base().as_ptr()));
///     // SAFETY: both came from there, and each goes back where it came from.
///     unsafe {
///         pages.free_pages(early);
///         pages.free_pages(late);
///     }
///     Ok(())
/// }
/// ```
pub struct Handover<A, B> {
    first: A,
    later: UnsafeCell<MaybeUninit<B>>,
    /// [`OPEN`], then [`TAKEN`] for a moment, then [`DONE`].
    state: AtomicUsize,
}

/// There is no later supplier.
const OPEN: usize = 0;
/// Somebody is putting one in.
const TAKEN: usize = 1;
/// It is there, and stays.
const DONE: usize = 2;

// SAFETY: the later supplier is written once, by whoever changed the state to `TAKEN`, and shared only
// after that (release store of `DONE`, acquire loads).
unsafe impl<A: Sync, B: Send + Sync> Sync for Handover<A, B> {}
// SAFETY: it owns both.
unsafe impl<A: Send, B: Send> Send for Handover<A, B> {}

impl<A, B> Handover<A, B> {
    const_unless_modelled! {
        /// Runs of `first`, for now.
        pub const fn new(first: A) -> Self {
            Self {
                first,
                later: UnsafeCell::new(MaybeUninit::uninit()),
                state: AtomicUsize::new(OPEN),
            }
        }
    }

    /// The supplier of the beginning.
    pub const fn first(&self) -> &A {
        &self.first
    }

    /// The supplier of today, if it was handed over.
    pub fn later(&self) -> Option<&B> {
        // Acquire: what was written before `DONE` is seen.
        if self.state.load(Ordering::Acquire) != DONE {
            return None;
        }
        // SAFETY: it was written before `DONE`, and nobody writes it any more.
        Some(unsafe { (*self.later.get()).assume_init_ref() })
    }
}

impl<A: PageSupplier, B: PageSupplier> Handover<A, B> {
    /// From now on new runs come from `later`.
    ///
    /// # Errors
    ///
    /// That it was handed over already, or that pages of `later` are larger; with what was given.
    ///
    /// # Safety
    ///
    /// `later` shares no memory with the first: no run of it lies in a region of that.
    pub unsafe fn hand_over(&self, later: B) -> Result<(), HandoverError<B>> {
        let (size, pages) = (self.first.page_size(), later.page_size());
        if pages > size {
            return Err(HandoverError::LargerPages { later, size, pages });
        }
        let (order, failed) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.state.compare_exchange(OPEN, TAKEN, order, failed).is_err() {
            return Err(HandoverError::Again(later));
        }
        // SAFETY: whoever made it `TAKEN` has it alone, until `DONE`.
        unsafe { (*self.later.get()).write(later) };
        self.state.store(DONE, Ordering::Release);
        Ok(())
    }

    fn pair(&self) -> Pair<'_, A, B> {
        Pair { first: &self.first, second: self.later() }
    }
}

impl<A, B> Drop for Handover<A, B> {
    fn drop(&mut self) {
        if self.state.load(Ordering::Acquire) == DONE {
            // SAFETY: it was written, and nobody else is there.
            unsafe { (*self.later.get()).assume_init_drop() };
        }
    }
}

// SAFETY: passes runs through unchanged from suppliers that keep the contract, and each run back to
// where it came from, by the promise of the caller of `hand_over`. Pages of the later one are no larger,
// and both are powers of two.
unsafe impl<A: Regions, B: PageSupplier> PageSupplier for Handover<A, B> {
    fn page_size(&self) -> usize {
        self.first.page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        match self.later() {
            None => self.first.alloc_pages(layout, request),
            Some(later) => {
                PageError::check(layout, self.page_size())?;
                later.alloc_pages(layout, request)
            }
        }
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: it came from one of the two; the rest is the caller's duty.
        unsafe { self.pair().free(run) }
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        if self.pair().decommits() { Some(self) } else { None }
    }
}

// SAFETY: passes on to whose run it is, who keeps the contract; doing nothing is allowed.
unsafe impl<A: Regions, B: PageSupplier> Decommit for Handover<A, B> {
    unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: it lies in a run of one of the two; the rest is the caller's duty.
        unsafe { self.pair().decommit(at, len) }
    }

    fn relax(&self) {
        self.pair().relax();
    }
}

// SAFETY: the regions are those of two suppliers that keep the contract and share no memory; the
// generation grows with each of theirs, and once more when the later one comes.
unsafe impl<A: Regions, B: Regions> Regions for Handover<A, B> {
    fn generation(&self) -> u64 {
        let later = self.later().map_or(0, |later| 1 + later.generation());
        self.first.generation() + later
    }

    fn visit_regions(&self, visit: &mut dyn FnMut(Region)) {
        self.first.visit_regions(visit);
        if let Some(later) = self.later() {
            later.visit_regions(visit);
        }
    }

    fn holds(&self, at: *const u8) -> bool {
        self.first.holds(at) || self.later().is_some_and(|later| later.holds(at))
    }
}

impl<A: fmt::Debug, B: fmt::Debug> fmt::Debug for Handover<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover")
            .field("first", &self.first)
            .field("later", &self.later())
            .finish()
    }
}

/// Why a supplier did not take over. It comes back inside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HandoverError<B> {
    /// Another one has, before.
    Again(B),
    /// Its pages are larger than those of the first supplier, which runs are multiples of.
    LargerPages {
        /// What was to take over.
        later: B,
        /// Size of a page of the first supplier, in bytes.
        size: usize,
        /// Size of a page of this one.
        pages: usize,
    },
}

impl<B> HandoverError<B> {
    /// The supplier that did not take over.
    pub fn into_inner(self) -> B {
        match self {
            Self::Again(later) | Self::LargerPages { later, .. } => later,
        }
    }
}

impl<B> fmt::Debug for HandoverError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Again(_) => f.debug_tuple("Again").finish_non_exhaustive(),
            Self::LargerPages { size, pages, .. } => f
                .debug_struct("LargerPages")
                .field("size", size)
                .field("pages", pages)
                .finish_non_exhaustive(),
        }
    }
}

impl<B> fmt::Display for HandoverError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Again(_) => f.write_str("another page supplier has taken over before"),
            Self::LargerPages { size, pages, .. } => write!(
                f,
                "a page supplier with pages of {pages} bytes cannot take over from one of {size}"
            ),
        }
    }
}

impl<B> core::error::Error for HandoverError<B> {}
