//! Bookkeeping memory that checks its caller.

use std::alloc::Layout;
use std::ptr::NonNull;

use uma_core::Metadata;

use crate::ledger::Ledger;
use crate::{FailPlan, Outstanding};

/// Metadata from the heap, every piece its own allocation, by the same rules as [`Fake`]; and it
/// fails by a [`FailPlan`], to which it dereferences: `meta.fail_at(2)`.
///
/// [`Fake`]: crate::Fake
pub struct HeapMeta {
    ledger: Ledger,
    plan: FailPlan,
}

impl HeapMeta {
    /// Metadata that never fails yet.
    pub fn new() -> Self {
        Self { ledger: Ledger::new("HeapMeta"), plan: FailPlan::new() }
    }

    /// Pieces that are out, and bytes in them.
    pub fn outstanding(&self) -> Outstanding {
        self.ledger.outstanding()
    }

    /// Lets it be dropped with pieces outstanding.
    pub fn allow_leaks(&self) {
        self.ledger.allow_leaks();
    }
}

impl Default for HeapMeta {
    fn default() -> Self {
        Self::new()
    }
}

impl std::ops::Deref for HeapMeta {
    type Target = FailPlan;

    fn deref(&self) -> &FailPlan {
        &self.plan
    }
}

// SAFETY: the global allocator keeps these promises; a size of zero gets `None`. It panics only if
// its caller broke the contract, and calls no zone.
unsafe impl Metadata for HeapMeta {
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
        if self.plan.call() {
            return None;
        }
        self.ledger.take(layout, 0)
    }

    unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller gives the memory up.
        unsafe { self.ledger.give(at, layout, 0) }
    }
}
