//! No memory for bookkeeping.

use core::alloc::Layout;
use core::ptr::NonNull;

use uma_core::Metadata;

/// Never has memory: for kegs whose headers all lie inside their slabs.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMetadata;

// SAFETY: it returns no memory at all.
unsafe impl Metadata for NoMetadata {
    fn alloc_meta(&self, _: Layout) -> Option<NonNull<u8>> {
        None
    }

    unsafe fn free_meta(&self, _: NonNull<u8>, _: Layout) {}
}
