//! Sources that are two functions.

use core::alloc::Layout;
use core::mem::MaybeUninit;

use crate::{AllocError, Item, ItemSource, Request};

/// An [`ItemSource`] made of two function pointers, `uma_import` and `uma_release` of zone(9): for C, and
/// for pools that are a few functions.
///
/// Unlike there an item need not be memory to the functions, but it is to whoever uses the source: see
/// [`new`](Self::new).
#[derive(Clone, Copy, Debug)]
pub struct FnSource {
    layout: Layout,
    context: *mut (),
    import: unsafe fn(*mut (), &mut [MaybeUninit<Item>], Request) -> usize,
    release: unsafe fn(*mut (), &[Item]),
}

// SAFETY: neither function pointers nor a pointer that is only handed to them give access to anything.
// `new` demands that they may be called on any thread.
unsafe impl Send for FnSource {}
// SAFETY: as above.
unsafe impl Sync for FnSource {}

impl FnSource {
    /// A source of items of this layout. `context` is passed to both functions (`arg` of
    /// `uma_zcache_create`).
    ///
    /// `import` stores up to as many items as the slice has room for, from its beginning, and returns how
    /// many; 0 says that there are none just now, which callers see as [`AllocError::Source`]. `release`
    /// takes items back. Neither is called with a lock held.
    ///
    /// # Safety
    ///
    /// The functions keep the contract of [`ItemSource`] for such items, may be called on any thread
    /// and at the same time, and do not unwind with items in hand.
    pub const unsafe fn new(
        layout: Layout,
        context: *mut (),
        import: unsafe fn(*mut (), &mut [MaybeUninit<Item>], Request) -> usize,
        release: unsafe fn(*mut (), &[Item]),
    ) -> Self {
        Self { layout, context, import, release }
    }
}

// SAFETY: the functions keep the contract, as `new` demands; a count above the room is cut.
unsafe impl ItemSource for FnSource {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        // SAFETY: the context is that which the function expects.
        match unsafe { (self.import)(self.context, into, request) } {
            0 => Err(AllocError::Source),
            count => Ok(count.min(into.len())),
        }
    }

    unsafe fn release(&self, items: &[Item]) {
        if !items.is_empty() {
            // SAFETY: as above; the rest is passed on from the caller.
            unsafe { (self.release)(self.context, items) };
        }
    }
}
