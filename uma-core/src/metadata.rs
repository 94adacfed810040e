//! Memory for the allocator's own bookkeeping.

use core::alloc::Layout;
use core::ptr::NonNull;

use crate::Request;

/// Memory for buckets, slots, off-slab headers and lookup tables.
///
/// It is the counterpart of UMA's internal bucket and slab zones. It is a trait of its own, beside
/// [`PageSupplier`](crate::PageSupplier), because bookkeeping is small and comes in many sizes.
///
/// # Safety
///
/// - Memory returned is valid for reads and writes of `layout.size()` bytes, aligned to
///   `layout.align()`, and overlaps no other live memory, until it is freed.
/// - No method may come back into a zone that has caches (that would recurse without end), nor
///   unwind.
pub unsafe trait Metadata {
    /// Memory for `layout`, or `None` if there is none. Never waits. Contents are unspecified.
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>>;

    /// The same for a caller who makes do with what is held already, if `request` may not
    /// [take pages](Request::may_take_pages). Who supplies from a pool has nothing to do about it.
    fn alloc_meta_for(&self, layout: Layout, request: Request) -> Option<NonNull<u8>> {
        let _ = request;
        self.alloc_meta(layout)
    }

    /// Gives memory back.
    ///
    /// # Safety
    ///
    /// `at` came from `alloc_meta` of this value with this very `layout`, is not used afterwards, and
    /// was not given back before.
    unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout);
}

// SAFETY: forwards to an implementation that keeps the contract.
unsafe impl<M: Metadata + ?Sized> Metadata for &M {
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
        (**self).alloc_meta(layout)
    }

    fn alloc_meta_for(&self, layout: Layout, request: Request) -> Option<NonNull<u8>> {
        (**self).alloc_meta_for(layout, request)
    }

    unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).free_meta(at, layout) }
    }
}
