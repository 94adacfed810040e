//! A raw zone as a source of items, so that zones and limits can stand on zones.

use core::alloc::Layout;
use core::mem::MaybeUninit;

use uma_core::{AllocError, Hooks, Item, ItemSource, Reclaim, Request, Stats};

use crate::{Origin, Platform, RawZone};

/// A batch that is its caller's once it was told of: a subscriber may unwind.
struct Told<'a, S: ItemSource> {
    zone: &'a S,
    items: &'a [MaybeUninit<Item>],
}

impl<S: ItemSource> Drop for Told<'_, S> {
    fn drop(&mut self) {
        // SAFETY: the zone has initialised these, and handed them out to nobody.
        unsafe { self.zone.release(self.items.assume_init_ref()) };
    }
}

// SAFETY: forwards to the stack, which keeps the contract. A zone that was never used has handed out
// nothing, so nothing can come back to it.
unsafe impl<P, H, O> ItemSource for RawZone<P, H, O>
where
    P: Platform,
    H: Hooks + Clone + Send + Sync + 'static,
    O: Origin<P>,
{
    fn layout(&self) -> Layout {
        // A zone whose layout is wrong hands out nothing, so it does not matter what this says then.
        self.item().unwrap_or(Layout::new::<u8>())
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        let imported = self.stack()?.import(into, request);
        let told = Told { zone: self, items: &into[..imported.unwrap_or(0)] };
        self.tell_growth_if_made();
        core::mem::forget(told);
        imported.inspect_err(|&reason| self.notice_if_made(reason))
    }

    unsafe fn release(&self, items: &[Item]) {
        if let Some(zone) = self.stack_if_made() {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { zone.release(items) };
        }
    }

    #[inline]
    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        if self.alarmed() {
            self.alloc_as_source(request, &mut || {})
        } else {
            self.stack()?.alloc(request)
        }
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        self.alloc_as_source(request, flush)
    }

    #[inline]
    unsafe fn free(&self, item: Item) {
        if let Some(zone) = self.stack_if_made() {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { zone.free(item) };
        }
    }

    unsafe fn discard(&self, item: Item) {
        if let Some(zone) = self.stack_if_made() {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { zone.discard(item) };
        }
    }

    fn wanted(&self) -> bool {
        self.stack_if_made().is_some_and(ItemSource::wanted)
    }

    fn reclaim(&self, mode: Reclaim) {
        Self::reclaim(self, mode);
    }

    fn visit_stats(&self, stats: &mut Stats) {
        if let Some(zone) = self.stack_if_made() {
            zone.visit_stats(stats);
        }
    }

    // `prefork` and `postfork` are not passed on: the zone's place in the registry sees to them. From above,
    // its locks would be taken twice, and a zone that is made meanwhile let go of without having been held.

    fn settle(&self) {
        if let Some(zone) = self.stack_if_made() {
            zone.settle();
        }
    }
}
