//! Failure of the k-th call.

use std::alloc::Layout;
use std::ptr::NonNull;

use uma_core::{Decommit, PageError, PageRun, PageSupplier, Protect, Region, Regions, Request};

use crate::sync::{AtomicU64, Ordering};

/// Which of a sequence of calls fail. Calls are numbered from 1, anew each time a plan is made.
///
/// To fail at every place once:
///
/// ```
/// # let plan = uma_testkit::FailPlan::new();
/// # let exercise = |plan: &uma_testkit::FailPlan| for _ in 0..3 { plan.call(); };
/// for k in 1.. {
///     plan.fail_at(k);
///     exercise(&plan);
///     if plan.failed() == 0 {
///         break; // there is no k-th call
///     }
/// }
/// ```
#[derive(Debug)]
pub struct FailPlan {
    calls: AtomicU64,
    failed: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
}

impl FailPlan {
    /// No call fails.
    pub const fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            first: AtomicU64::new(u64::MAX),
            last: AtomicU64::new(0),
        }
    }

    /// Only the `k`-th call from now fails.
    pub fn fail_at(&self, k: u64) {
        self.plan(k, k);
    }

    /// The `k`-th call from now fails, and all after it.
    pub fn fail_from(&self, k: u64) {
        self.plan(k, u64::MAX);
    }

    /// No call from now fails.
    pub fn never(&self) {
        self.plan(u64::MAX, 0);
    }

    /// Calls since the plan was made.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// How many of these failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }

    /// Counts a call and says whether it must fail.
    pub fn call(&self) -> bool {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let fails = (self.first.load(Ordering::SeqCst)..=self.last.load(Ordering::SeqCst))
            .contains(&number);
        self.failed.fetch_add(u64::from(fails), Ordering::SeqCst);
        fails
    }

    fn plan(&self, first: u64, last: u64) {
        self.first.store(first, Ordering::SeqCst);
        self.last.store(last, Ordering::SeqCst);
        self.calls.store(0, Ordering::SeqCst);
        self.failed.store(0, Ordering::SeqCst);
    }
}

impl Default for FailPlan {
    fn default() -> Self {
        Self::new()
    }
}

/// Fails allocations of `P` by a [`FailPlan`], with [`PageError::Exhausted`]. Frees and decommits never
/// fail.
///
/// It dereferences to the plan: `pages.fail_at(3)`.
#[derive(Debug, Default)]
pub struct FailNth<P> {
    inner: P,
    plan: FailPlan,
}

impl<P> FailNth<P> {
    /// Puts a plan around `inner`, by which nothing fails yet.
    pub const fn new(inner: P) -> Self {
        Self { inner, plan: FailPlan::new() }
    }

    /// The supplier below.
    pub const fn inner(&self) -> &P {
        &self.inner
    }
}

impl<P> std::ops::Deref for FailNth<P> {
    type Target = FailPlan;

    fn deref(&self) -> &FailPlan {
        &self.plan
    }
}

// SAFETY: passes runs through unchanged from a supplier that keeps the contract.
unsafe impl<P: PageSupplier> PageSupplier for FailNth<P> {
    fn page_size(&self) -> usize {
        self.inner.page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        if self.plan.call() {
            return Err(PageError::Exhausted);
        }
        self.inner.alloc_pages(layout, request)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.inner.free_pages(run) }
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
unsafe impl<P: Decommit> Decommit for FailNth<P> {
    unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.inner.decommit(at, len) }
    }

    fn relax(&self) {
        self.inner.relax();
    }
}

// SAFETY: as above.
unsafe impl<P: Protect> Protect for FailNth<P> {
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
unsafe impl<P: Regions> Regions for FailNth<P> {
    fn generation(&self) -> u64 {
        self.inner.generation()
    }

    fn visit_regions(&self, visit: &mut dyn FnMut(Region)) {
        self.inner.visit_regions(visit);
    }
}
