//! Counts what a page supplier gives out.

use core::alloc::Layout;
use core::ptr::NonNull;

use crate::power::{has_powers_of, says_what};
use crate::sync::{AtomicU64, AtomicUsize, Ordering, const_unless_modelled};
use crate::{Decommit, PageError, PageRun, PageSupplier, Protect, Region, Regions, Request};

/// Counts the runs that `S` gives out: how many are out, how many were at most, how often none was to
/// be had.
///
/// Now and peak never say more than is out: a run counts from just after it was taken until just before
/// it is given back.
///
/// ```
/// use core::alloc::Layout;
/// use uma_core::{Counting, PageSupplier, Request};
///
/// fn peak(pages: impl PageSupplier) -> usize {
///     let pages = Counting::new(pages);
///     let layout = Layout::from_size_align(2 * pages.page_size(), 1).unwrap();
///     if let Ok(run) = pages.alloc_pages(layout, Request::NOWAIT) {
///         // SAFETY: the run came from there, and was not used.
///         unsafe { pages.free_pages(run) };
///     }
///     pages.counts().peak_pages()
/// }
/// ```
#[derive(Debug)]
pub struct Counting<S> {
    inner: S,
    runs: AtomicUsize,
    bytes: AtomicUsize,
    peak_runs: AtomicUsize,
    peak_bytes: AtomicUsize,
    allocs: AtomicU64,
    failures: AtomicU64,
}

/// What a [`Counting`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageCounts {
    /// Size of a page in bytes.
    pub page_size: usize,
    /// Runs that are out.
    pub runs: usize,
    /// Bytes in them.
    pub bytes: usize,
    /// Most runs that were out at once.
    pub peak_runs: usize,
    /// Most bytes that were out at once.
    pub peak_bytes: usize,
    /// Runs given out since the beginning.
    pub allocs: u64,
    /// Requests that got none.
    pub failures: u64,
}

impl PageCounts {
    /// Pages that are out.
    pub fn pages(&self) -> usize {
        self.bytes.checked_div(self.page_size).unwrap_or(0)
    }

    /// Most pages that were out at once.
    pub fn peak_pages(&self) -> usize {
        self.peak_bytes.checked_div(self.page_size).unwrap_or(0)
    }
}

impl<S> Counting<S> {
    const_unless_modelled! {
        /// Counts what `inner` gives out from now on.
        pub const fn new(inner: S) -> Self {
            Self {
                inner,
                runs: AtomicUsize::new(0),
                bytes: AtomicUsize::new(0),
                peak_runs: AtomicUsize::new(0),
                peak_bytes: AtomicUsize::new(0),
                allocs: AtomicU64::new(0),
                failures: AtomicU64::new(0),
            }
        }
    }

    /// The supplier below.
    pub const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: PageSupplier> Counting<S> {
    /// The figures of the moment, each exact by itself.
    pub fn counts(&self) -> PageCounts {
        PageCounts {
            page_size: self.inner.page_size(),
            runs: self.runs.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            peak_runs: self.peak_runs.load(Ordering::Relaxed),
            peak_bytes: self.peak_bytes.load(Ordering::Relaxed),
            allocs: self.allocs.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}

/// Adds to a figure and keeps the most that it ever was.
fn add(now: &AtomicUsize, peak: &AtomicUsize, count: usize) {
    let now = now.fetch_add(count, Ordering::Relaxed) + count;
    peak.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: passes runs through unchanged from a supplier that keeps the contract.
unsafe impl<S: PageSupplier> PageSupplier for Counting<S> {
    fn page_size(&self) -> usize {
        self.inner.page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        let run = self.inner.alloc_pages(layout, request).inspect_err(|_| {
            self.failures.fetch_add(1, Ordering::Relaxed);
        })?;
        add(&self.runs, &self.peak_runs, 1);
        add(&self.bytes, &self.peak_bytes, layout.size());
        self.allocs.fetch_add(1, Ordering::Relaxed);
        Ok(run)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        self.runs.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(run.layout().size(), Ordering::Relaxed);
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.inner.free_pages(run) }
    }

    says_what!(inner);
}

has_powers_of!(inner in Counting);
