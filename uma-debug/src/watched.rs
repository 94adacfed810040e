//! A look at every item that leaves the caches downwards.

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use lock_api::RawMutex;
use uma_core::{AllocError, Item, ItemSource, Metadata, Process, Reclaim, Request, Stats};

use crate::{Checks, Witness};

/// Has [`Checks`] look at items that leave the layers above for those below, where their contents are
/// nobody's concern any more: fini takes them apart, their pages go back. It is `trash_fini` of FreeBSD's
/// uma_dbg.c.
///
/// It stands directly below the caches. Without checks it passes everything through.
pub struct Watched<S, L: RawMutex, M: Metadata, W: Witness> {
    source: S,
    checks: Option<NonNull<Checks<L, M, W>>>,
}

// SAFETY: it shares checks that may be shared between threads, if these bounds hold.
unsafe impl<S: Send, L: RawMutex + Sync, M: Metadata + Sync, W: Witness + Sync> Send
    for Watched<S, L, M, W>
where
    Checks<L, M, W>: Sync,
{
}
// SAFETY: as above.
unsafe impl<S: Sync, L: RawMutex + Sync, M: Metadata + Sync, W: Witness + Sync> Sync
    for Watched<S, L, M, W>
where
    Checks<L, M, W>: Sync,
{
}

impl<S, L: RawMutex, M: Metadata, W: Witness> Watched<S, L, M, W> {
    /// Watches over `source` for `checks`, if there are any.
    ///
    /// # Safety
    ///
    /// The checks outlive this value, and their items are those that come from it.
    pub const unsafe fn new(source: S, checks: Option<NonNull<Checks<L, M, W>>>) -> Self {
        Self { source, checks }
    }

    /// The source below.
    pub const fn source(&self) -> &S {
        &self.source
    }

    #[inline]
    fn checks(&self) -> Option<&Checks<L, M, W>> {
        // SAFETY: they outlive this value (see `new`).
        self.checks.map(|checks| unsafe { checks.as_ref() })
    }
}

/// Items on their way down, which get there also if a report of one unwinds.
struct Down<'a, S: ItemSource>(&'a S, &'a [Item]);

impl<S: ItemSource> Drop for Down<'_, S> {
    fn drop(&mut self) {
        // SAFETY: whoever released the items gave them up.
        unsafe { self.0.release(self.1) };
    }
}

// SAFETY: items pass through unchanged.
unsafe impl<S: ItemSource, L: RawMutex, M: Metadata, W: Witness> ItemSource
    for Watched<S, L, M, W>
{
    fn layout(&self) -> Layout {
        self.source.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        self.source.import(into, request)
    }

    unsafe fn release(&self, items: &[Item]) {
        let down = Down(&self.source, items);
        if let Some(checks) = self.checks() {
            // SAFETY: the caller owns the items, and they are going.
            items.iter().for_each(|&item| unsafe { checks.leave(item) });
        }
        drop(down);
    }

    #[inline]
    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        self.source.alloc(request)
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        self.source.alloc_or_flush(request, flush)
    }

    #[inline]
    unsafe fn free(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.release(&[item]) }
    }

    unsafe fn discard(&self, item: Item) {
        if let Some(checks) = self.checks() {
            // SAFETY: the caller owns the item, and it is going.
            unsafe { checks.leave(item) };
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.source.discard(item) }
    }

    fn wanted(&self) -> bool {
        self.source.wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        self.source.reclaim(mode);
    }

    fn visit_stats(&self, stats: &mut Stats) {
        self.source.visit_stats(stats);
    }

    fn prefork(&self) {
        self.source.prefork();
    }

    unsafe fn postfork(&self, process: Process) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.source.postfork(process) }
    }

    fn settle(&self) {
        self.source.settle();
    }
}

impl<S: core::fmt::Debug, L: RawMutex, M: Metadata, W: Witness> core::fmt::Debug
    for Watched<S, L, M, W>
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Watched")
            .field("source", &self.source)
            .field("watching", &self.checks.is_some())
            .finish()
    }
}
