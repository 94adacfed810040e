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

/// Items on their way down, which get there also if a report of one unwinds. Those after it go without a look
/// then: one of them may have something to report as well, and a second panic would end the process.
struct Down<'a, S: ItemSource, L: RawMutex, M: Metadata, W: Witness> {
    source: &'a S,
    checks: &'a Checks<L, M, W>,
    items: &'a [Item],
    looked: usize,
}

impl<S: ItemSource, L: RawMutex, M: Metadata, W: Witness> Drop for Down<'_, S, L, M, W> {
    fn drop(&mut self) {
        // SAFETY: whoever released the items gave them up.
        unsafe {
            self.items[self.looked..].iter().for_each(|&item| _ = self.checks.forget(item));
            self.source.release(self.items);
        }
    }
}

/// An item to be taken apart below, also if a report of it unwinds.
pub(crate) struct Discard<'a, S: ItemSource> {
    pub(crate) source: &'a S,
    pub(crate) item: Item,
}

impl<S: ItemSource> Drop for Discard<'_, S> {
    fn drop(&mut self) {
        // SAFETY: whoever discarded the item gave it up, and it came from the source.
        unsafe { self.source.discard(self.item) };
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
        let Some(checks) = self.checks() else {
            // SAFETY: the caller's duty is passed on unchanged.
            return unsafe { self.source.release(items) };
        };
        let mut down = Down { source: &self.source, checks, items, looked: 0 };
        for &item in items {
            down.looked += 1;
            // SAFETY: the caller owns the items, and they are going.
            unsafe { checks.leave(item) };
        }
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
        let _discard = Discard { source: &self.source, item };
        if let Some(checks) = self.checks() {
            // SAFETY: the caller owns the item, and it is going.
            unsafe { checks.leave(item) };
        }
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
