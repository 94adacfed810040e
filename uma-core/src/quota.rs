//! Bounds what a page supplier gives out.

use core::alloc::Layout;
use core::ptr::NonNull;

use crate::power::{has_powers_of, says_what};
use crate::sync::{AtomicUsize, Ordering, const_unless_modelled};
use crate::{Decommit, PageError, PageRun, PageSupplier, Protect, Region, Regions, Request};

/// Lets at most so many bytes of `S` be out at once; beyond that it is [`PageError::Exhausted`].
///
/// The bound is kept at every moment, also between threads: bytes count from just before a run is taken
/// until just after it was given back. A request that fails below costs nothing.
///
/// ```
/// use core::alloc::Layout;
/// use uma_core::{PageError, PageSupplier, Quota, Request};
///
/// fn third(pages: impl PageSupplier) -> PageError {
///     let page = pages.page_size();
///     let pages = Quota::new(pages, 2 * page);
///     let three = Layout::from_size_align(3 * page, 1).unwrap();
///     pages.alloc_pages(three, Request::NOWAIT).unwrap_err()
/// }
/// ```
#[derive(Debug)]
pub struct Quota<S> {
    inner: S,
    max: AtomicUsize,
    used: AtomicUsize,
}

impl<S> Quota<S> {
    const_unless_modelled! {
        /// At most `bytes` of `inner`.
        pub const fn new(inner: S, bytes: usize) -> Self {
            Self { inner, max: AtomicUsize::new(bytes), used: AtomicUsize::new(0) }
        }
    }

    /// The supplier below.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// Bytes that are out.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that may be out.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Changes the bound. What is out beyond it stays so.
    pub fn set_max(&self, bytes: usize) {
        self.max.store(bytes, Ordering::Relaxed);
    }
}

impl<S: PageSupplier> Quota<S> {
    /// At most so many pages of `inner`.
    pub fn pages(inner: S, pages: usize) -> Self {
        let bytes = pages.saturating_mul(inner.page_size());
        Self::new(inner, bytes)
    }
}

/// Bytes charged and not yet spent on a run.
struct Charge<'a> {
    used: &'a AtomicUsize,
    bytes: usize,
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

// SAFETY: passes runs through unchanged from a supplier that keeps the contract.
unsafe impl<S: PageSupplier> PageSupplier for Quota<S> {
    fn page_size(&self) -> usize {
        self.inner.page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        // First, since what can never be is no matter of quota.
        PageError::check(layout, self.page_size())?;
        let (bytes, max) = (layout.size(), self.max());
        let charge = |used: usize| used.checked_add(bytes).filter(|&used| used <= max);
        // The figure alone matters, and orders nothing else.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, charge)
            .map_err(|_| PageError::Exhausted)?;
        let charge = Charge { used: &self.used, bytes };
        let run = self.inner.alloc_pages(layout, request)?;
        core::mem::forget(charge);
        Ok(run)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        let _charge = Charge { used: &self.used, bytes: run.layout().size() };
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.inner.free_pages(run) }
    }

    says_what!(inner);
}

has_powers_of!(inner in Quota);
