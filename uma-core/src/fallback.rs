//! Two page suppliers as one.
//!
//! ```text
//!                    alloc                        free, decommit, protect
//!                      |                                    |
//!   Fallback        first has none?                 in a region of first?
//!                   no /      \ yes                 yes /        \ no
//!                   first    second                 first       second
//!
//!   Handover        handed over?
//!                   no /      \ yes                 the same
//!                   first     later
//! ```
//!
//! Whose a run is its address tells, since the two share no memory: nothing is kept per run, and the
//! flag byte stays with the supplier that set it. What is common to both is in [`Pair`]. No locks.

use core::alloc::Layout;
use core::ptr::NonNull;

use crate::{Decommit, PageError, PageRun, PageSupplier, Protect, Region, Regions, Request};

/// Two suppliers that share no memory.
pub(crate) struct Pair<'a, A, B> {
    pub(crate) first: &'a A,
    /// If it is there yet.
    pub(crate) second: Option<&'a B>,
}

impl<A: Regions, B: PageSupplier> Pair<'_, A, B> {
    /// Gives a run back to whose it is.
    ///
    /// # Safety
    ///
    /// It came from one of the two, and is used no more.
    pub(crate) unsafe fn free(&self, run: PageRun) {
        match self.second {
            // SAFETY: it lies outside of the first one's regions, in which all its runs lie.
            Some(second) if !self.first.holds(run.base().as_ptr()) => unsafe {
                second.free_pages(run);
            },
            // SAFETY: it lies in a region of the first, where the second has no memory; or there is no
            // other.
            _ => unsafe { self.first.free_pages(run) },
        }
    }

    /// Whether either can decommit.
    pub(crate) fn decommits(&self) -> bool {
        self.first.decommits().is_some() || self.second.is_some_and(|b| b.decommits().is_some())
    }

    /// Decommits what lies in a run of one that can, and nothing else.
    ///
    /// # Safety
    ///
    /// As [`Decommit::decommit`] of whose run it is.
    pub(crate) unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        if len == 0 {
            // It may lie just behind a run.
            return;
        }
        let power = match self.second {
            Some(second) if !self.first.holds(at.as_ptr()) => second.decommits(),
            _ => self.first.decommits(),
        };
        if let Some(power) = power {
            // SAFETY: it lies in a run of that supplier, as in `free`; the rest is the caller's duty.
            unsafe { power.decommit(at, len) };
        }
    }

    /// Waits as those who can decommit do: each, since it is not known in which of them somebody is.
    pub(crate) fn relax(&self) {
        let second = self.second.and_then(|second| second.decommits());
        self.first.decommits().into_iter().chain(second).for_each(Decommit::relax);
    }

    /// The power of whose run `at` lies in.
    fn protects(&self, at: NonNull<u8>) -> Option<&dyn Protect> {
        match self.second {
            Some(second) if !self.first.holds(at.as_ptr()) => second.protects(),
            _ => self.first.protects(),
        }
    }
}

/// Runs of `A`; where it has none, runs of `B`: boot memory first, huge pages first, a small fast pool
/// first.
///
/// `A` is not asked to wait. Its page size may be another than that of `B`: the larger counts.
///
/// It decommits what lies in runs of one that can, and can protect, and tell regions, if both can.
#[derive(Debug)]
pub struct Fallback<A, B> {
    first: A,
    second: B,
}

impl<A: Regions, B: PageSupplier> Fallback<A, B> {
    /// Runs of `first`, then of `second`.
    ///
    /// # Safety
    ///
    /// The two share no memory: as long as both live, no run of `second` lies in a region of `first`.
    pub const unsafe fn new(first: A, second: B) -> Self {
        Self { first, second }
    }

    /// The supplier that is asked first.
    pub const fn first(&self) -> &A {
        &self.first
    }

    /// The supplier that is asked then.
    pub const fn second(&self) -> &B {
        &self.second
    }

    const fn pair(&self) -> Pair<'_, A, B> {
        Pair { first: &self.first, second: Some(&self.second) }
    }
}

// SAFETY: passes runs through unchanged from suppliers that keep the contract, and each run back to
// where it came from, by the promise of the caller of `new`. The page size is the larger of two that
// never change, so a multiple of it is one of both.
unsafe impl<A: Regions, B: PageSupplier> PageSupplier for Fallback<A, B> {
    fn page_size(&self) -> usize {
        self.first.page_size().max(self.second.page_size())
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        PageError::check(layout, self.page_size())?;
        let first = match self.first.alloc_pages(layout, request.without_waiting()) {
            Ok(run) => return Ok(run),
            Err(error) => error,
        };
        self.second.alloc_pages(layout, request).map_err(|second| match second {
            // The first may have one later.
            PageError::BadAlign => first,
            other => other,
        })
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: it came from one of the two; the rest is the caller's duty.
        unsafe { self.pair().free(run) }
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        if self.pair().decommits() { Some(self) } else { None }
    }

    fn protects(&self) -> Option<&dyn Protect> {
        self.first.protects().and(self.second.protects()).map(|_| Both::of(self) as &dyn Protect)
    }

    fn regions(&self) -> Option<&dyn Regions> {
        self.second.regions().map(|_| Both::of(self) as &dyn Regions)
    }
}

// SAFETY: passes on to whose run it is, who keeps the contract; doing nothing is allowed.
unsafe impl<A: Regions, B: PageSupplier> Decommit for Fallback<A, B> {
    unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: it lies in a run of one of the two; the rest is the caller's duty.
        unsafe { self.pair().decommit(at, len) }
    }

    fn relax(&self) {
        self.pair().relax();
    }
}

// SAFETY: passes on to whose run it is, who keeps the contract.
unsafe impl<A: Regions + Protect, B: Protect> Protect for Fallback<A, B> {
    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        // SAFETY: the caller's duty is passed on to the one whose run it is.
        unsafe { Both::of(self).protect(at, len) }
    }

    unsafe fn unprotect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        // SAFETY: as above.
        unsafe { Both::of(self).unprotect(at, len) }
    }
}

// SAFETY: the regions are those of two suppliers that keep the contract and share no memory, and each
// generation grows only.
unsafe impl<A: Regions, B: Regions> Regions for Fallback<A, B> {
    fn generation(&self) -> u64 {
        Both::of(self).generation()
    }

    fn visit_regions(&self, visit: &mut dyn FnMut(Region)) {
        Both::of(self).visit_regions(visit);
    }

    fn holds(&self, at: *const u8) -> bool {
        self.first.holds(at) || self.second.holds(at)
    }
}

/// A fallback of two suppliers that both have a power, as was found at run time.
#[repr(transparent)]
struct Both<A, B>(Fallback<A, B>);

impl<A, B> Both<A, B> {
    const fn of(fallback: &Fallback<A, B>) -> &Self {
        // SAFETY: `repr(transparent)`.
        unsafe { &*core::ptr::from_ref(fallback).cast::<Self>() }
    }
}

// SAFETY: it is the fallback.
unsafe impl<A: Regions, B: PageSupplier> PageSupplier for Both<A, B> {
    fn page_size(&self) -> usize {
        self.0.page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        self.0.alloc_pages(layout, request)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.free_pages(run) }
    }
}

// SAFETY: as for `Fallback`.
unsafe impl<A: Regions, B: PageSupplier> Protect for Both<A, B> {
    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        match self.0.pair().protects(at) {
            // Nothing, which may lie just behind a run.
            _ if len == 0 => Ok(()),
            // SAFETY: it lies in a run of that supplier; the rest is the caller's duty.
            Some(power) => unsafe { power.protect(at, len) },
            None => Err(PageError::Unsupported),
        }
    }

    unsafe fn unprotect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        match self.0.pair().protects(at) {
            _ if len == 0 => Ok(()),
            // SAFETY: as above.
            Some(power) => unsafe { power.unprotect(at, len) },
            None => Err(PageError::Unsupported),
        }
    }
}

// SAFETY: as for `Fallback`.
unsafe impl<A: Regions, B: PageSupplier> Regions for Both<A, B> {
    fn generation(&self) -> u64 {
        let second = self.0.second.regions().map_or(0, Regions::generation);
        self.0.first.generation() + second
    }

    fn visit_regions(&self, visit: &mut dyn FnMut(Region)) {
        self.0.first.visit_regions(visit);
        if let Some(second) = self.0.second.regions() {
            second.visit_regions(visit);
        }
    }
}
