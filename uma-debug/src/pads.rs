//! Room around items: red zones, below whatever constructs them.

use core::alloc::Layout;
use core::mem::MaybeUninit;

use uma_core::{AllocError, Item, ItemSource, Process, Reclaim, Request, Stats};

use crate::Hardening;

/// Bytes of red zone behind an item, at least.
const TAIL: usize = 16;
/// Bytes of red zone before an item, at least.
const FRONT: usize = 16;
/// Items that are aligned to more have no red zone before them, which would be as large as that.
const MOST_FRONT: usize = 64;

/// How an item lies between its red zones.
///
/// ```text
///   |  red zone  | item                   |  red zone  |
///   ^ from below ^ what the layers above see           ^ from below + outer size
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pads {
    item: Layout,
    outer: Layout,
    front: usize,
}

impl Pads {
    /// No room: the item is what comes from below.
    pub const fn none(item: Layout) -> Self {
        Self { item, outer: item, front: 0 }
    }

    /// The room that a tier wants, or `None` if the layout then overflows.
    pub const fn new(item: Layout, hardening: &Hardening) -> Option<Self> {
        if !hardening.red_zones {
            return Some(Self::none(item));
        }
        // The sanitizer marks eight bytes at a time; and what rounding up to the alignment adds is red
        // zone, too.
        let align = if item.align() < 8 { 8 } else { item.align() };
        let front = match align {
            _ if align > MOST_FRONT => 0,
            _ if align < FRONT => FRONT,
            _ => align,
        };
        let Some(size) = item.size().checked_add(front + TAIL) else { return None };
        let Some(size) = size.checked_next_multiple_of(align) else { return None };
        match Layout::from_size_align(size, align) {
            Ok(outer) => Some(Self { item, outer, front }),
            Err(_) => None,
        }
    }

    /// The item's layout.
    pub const fn item(&self) -> Layout {
        self.item
    }

    /// The layout of item and red zones.
    pub const fn outer(&self) -> Layout {
        self.outer
    }

    /// Bytes before the item.
    pub const fn front(&self) -> usize {
        self.front
    }

    /// Bytes behind the item.
    pub const fn tail(&self) -> usize {
        self.outer.size() - self.front - self.item.size()
    }
}

/// Items with room around them, as items without.
#[derive(Debug)]
pub struct Padded<S> {
    source: S,
    pads: Pads,
}

impl<S> Padded<S> {
    /// Items out of the outer ones of `source`.
    ///
    /// # Safety
    ///
    /// The layout of the source's items is `pads.outer()`, or has the same size at a larger alignment.
    pub const unsafe fn new(source: S, pads: Pads) -> Self {
        Self { source, pads }
    }

    /// The source below.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// How items lie in those of the source.
    pub const fn pads(&self) -> &Pads {
        &self.pads
    }

    /// The item in an outer one.
    #[inline]
    fn inner(&self, outer: Item) -> Item {
        // SAFETY: an outer item is longer than what is before the inner one.
        Item::new(unsafe { outer.as_non_null().add(self.pads.front) })
    }

    /// The outer item of one.
    #[inline]
    fn outer(&self, inner: Item) -> Item {
        let address = inner.as_ptr().wrapping_sub(self.pads.front);
        // What is no item of ours may lie anywhere, but not there.
        core::ptr::NonNull::new(address).map_or(inner, Item::new)
    }
}

// SAFETY: an inner item is part of an outer one, is given back as that, and each has its own. The size fits
// and the alignment is that of the outer one, as `Pads` has it. All else is passed on.
unsafe impl<S: ItemSource> ItemSource for Padded<S> {
    fn layout(&self) -> Layout {
        self.pads.item
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        let count = self.source.import(into, request)?;
        if self.pads.front != 0 {
            // SAFETY: the source has initialised so many.
            for item in unsafe { into[..count].assume_init_mut() } {
                *item = self.inner(*item);
            }
        }
        Ok(count)
    }

    unsafe fn release(&self, items: &[Item]) {
        if self.pads.front == 0 {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { self.source.release(items) };
            return;
        }
        for some in items.chunks(64) {
            let mut outer = [MaybeUninit::uninit(); 64];
            for (outer, &item) in outer.iter_mut().zip(some) {
                outer.write(self.outer(item));
            }
            // SAFETY: as many were written as there are in `some`; they came from the source, and the
            // caller gives them up.
            unsafe { self.source.release(outer[..some.len()].assume_init_ref()) };
        }
    }

    #[inline]
    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        Ok(self.inner(self.source.alloc(request)?))
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        Ok(self.inner(self.source.alloc_or_flush(request, flush)?))
    }

    #[inline]
    unsafe fn free(&self, item: Item) {
        // SAFETY: the caller's duty is passed on, of the outer item.
        unsafe { self.source.free(self.outer(item)) }
    }

    unsafe fn discard(&self, item: Item) {
        // SAFETY: as above.
        unsafe { self.source.discard(self.outer(item)) }
    }

    fn wanted(&self) -> bool {
        self.source.wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        self.source.reclaim(mode);
    }

    fn visit_stats(&self, stats: &mut Stats) {
        self.source.visit_stats(stats);
        (stats.size, stats.align) = (self.pads.item.size(), self.pads.item.align());
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
