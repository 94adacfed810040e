//! A source under several zones, whose locks are taken once when the process is copied.

use core::alloc::Layout;
use core::mem::MaybeUninit;

use crate::sync::{AtomicU64, Ordering, const_unless_modelled};
use crate::{AllocError, Item, ItemSource, Process, Reclaim, Request, Stats};

/// A source that several stacks share, each by a [`Share`].
///
/// A plain reference is a source as well, but passes on neither [`prefork`](ItemSource::prefork) nor
/// [`postfork`](ItemSource::postfork), because the second stack to be locked would wait for the first for
/// ever. Shares count: the first one locks the source, the last one lets it go.
///
/// ```text
///   zone A ---> share --.
///                        >--- Shared { 2 of its shares are preforked, source }
///   zone B ---> share --'
/// ```
#[derive(Debug)]
pub struct Shared<S> {
    /// Shares that are preforked just now. It is one thread that makes a copy of the process.
    locked: AtomicU64,
    source: S,
}

impl<S> Shared<S> {
    const_unless_modelled! {
        /// Makes a source ready to be shared.
        pub const fn new(source: S) -> Self {
            Self { locked: AtomicU64::new(0), source }
        }
    }

    /// The source.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// The source, for one more stack.
    pub const fn share(&self) -> Share<'_, S> {
        Share(self)
    }
}

/// A [`Shared`] source, as one stack has it.
#[derive(Debug)]
pub struct Share<'a, S>(&'a Shared<S>);

impl<S> Clone for Share<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Share<'_, S> {}

// SAFETY: forwards every method to an implementation that keeps the contract; items go back to the source
// that they came from, by whatever share.
unsafe impl<S: ItemSource> ItemSource for Share<'_, S> {
    fn layout(&self) -> Layout {
        self.0.source.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        self.0.source.import(into, request)
    }

    unsafe fn release(&self, items: &[Item]) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.source.release(items) }
    }

    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        self.0.source.alloc(request)
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        self.0.source.alloc_or_flush(request, flush)
    }

    unsafe fn free(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.source.free(item) }
    }

    unsafe fn discard(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.source.discard(item) }
    }

    fn wanted(&self) -> bool {
        self.0.source.wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        self.0.source.reclaim(mode);
    }

    fn visit_stats(&self, stats: &mut Stats) {
        self.0.source.visit_stats(stats);
    }

    fn prefork(&self) {
        if self.0.locked.fetch_add(1, Ordering::AcqRel) == 0 {
            self.0.source.prefork();
        }
    }

    unsafe fn postfork(&self, process: Process) {
        if self.0.locked.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: as many shares were preforked as are let go, by the caller's duty for each; the
            // first of them locked the source.
            unsafe { self.0.source.postfork(process) };
        }
    }

    fn settle(&self) {
        self.0.source.settle();
    }
}
