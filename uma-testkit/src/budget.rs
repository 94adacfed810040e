//! A supplier that runs out.

use std::alloc::Layout;
use std::ptr::NonNull;

use uma_core::{Decommit, PageError, PageRun, PageSupplier, Protect, Region, Regions, Request};

use crate::sync::{AtomicUsize, Ordering};

/// Lets at most a given number of bytes of `P` be outstanding; beyond that it is
/// [`PageError::Exhausted`].
#[derive(Debug)]
pub struct Budget<P> {
    inner: P,
    max: AtomicUsize,
    used: AtomicUsize,
}

impl<P> Budget<P> {
    /// Puts a bound of `max` bytes around `inner`.
    pub const fn new(inner: P, max: usize) -> Self {
        Self { inner, max: AtomicUsize::new(max), used: AtomicUsize::new(0) }
    }

    /// The supplier below.
    pub const fn inner(&self) -> &P {
        &self.inner
    }

    /// Bytes outstanding.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// Changes the bound. What is outstanding beyond it stays so.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::SeqCst);
    }
}

// SAFETY: passes runs through unchanged from a supplier that keeps the contract.
unsafe impl<P: PageSupplier> PageSupplier for Budget<P> {
    fn page_size(&self) -> usize {
        self.inner.page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        PageError::check(layout, self.page_size())?;
        let max = self.max.load(Ordering::SeqCst);
        let charge = |used: usize| used.checked_add(layout.size()).filter(|&used| used <= max);
        self.used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, charge)
            .map_err(|_| PageError::Exhausted)?;
        self.inner.alloc_pages(layout, request).inspect_err(|_| {
            self.used.fetch_sub(layout.size(), Ordering::SeqCst);
        })
    }

    unsafe fn free_pages(&self, run: PageRun) {
        let size = run.layout().size();
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.inner.free_pages(run) };
        self.used.fetch_sub(size, Ordering::SeqCst);
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        self.inner.decommits()
    }

    fn protects(&self) -> Option<&dyn Protect> {
        self.inner.protects()
    }

    fn regions(&self) -> Option<&dyn Regions> {
        self.inner.regions()
    }
}

// SAFETY: runs are those of the supplier below, which keeps the contract.
unsafe impl<P: Decommit> Decommit for Budget<P> {
    unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.inner.decommit(at, len) }
    }
}

// SAFETY: as above.
unsafe impl<P: Protect> Protect for Budget<P> {
    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.inner.protect(at, len) }
    }

    unsafe fn unprotect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.inner.unprotect(at, len) }
    }
}

// SAFETY: as above.
unsafe impl<P: Regions> Regions for Budget<P> {
    fn generation(&self) -> u64 {
        self.inner.generation()
    }

    fn visit_regions(&self, visit: &mut dyn FnMut(Region)) {
        self.inner.visit_regions(visit);
    }
}
