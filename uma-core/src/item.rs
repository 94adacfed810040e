//! One item, as a pointer that may cross threads.

use core::ptr::NonNull;

/// A pointer to one item.
///
/// It is a plain pointer that owns nothing: which layer owns the item is a matter of the protocol
/// (see [`ItemSource`](crate::ItemSource)). It differs from `NonNull<u8>` in that it may be sent to
/// another thread, because items move between CPUs in buckets.
///
/// The pointer keeps the provenance of the page run that the item lies in. Hand the *same* pointer
/// back on free, not one made from a reference to part of the item.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Item(NonNull<u8>);

// SAFETY: an `Item` is an address with provenance and gives no access by itself; whoever reads or
// writes through it must own the item, which the protocol of `ItemSource` arranges across threads.
unsafe impl Send for Item {}
// SAFETY: as above; there is nothing to reach through `&Item` that a copy would not give.
unsafe impl Sync for Item {}

impl Item {
    /// Wraps a pointer.
    #[inline]
    pub const fn new(pointer: NonNull<u8>) -> Self {
        Self(pointer)
    }

    /// The pointer, for the item's owner.
    #[inline]
    pub const fn as_non_null(self) -> NonNull<u8> {
        self.0
    }

    /// The pointer, for the item's owner.
    #[inline]
    pub const fn as_ptr(self) -> *mut u8 {
        self.0.as_ptr()
    }

    /// The pointer as one to a `T`, for the item's owner.
    #[inline]
    pub const fn cast<T>(self) -> NonNull<T> {
        self.0.cast()
    }

    /// The address, for arithmetic and messages.
    #[inline]
    pub fn addr(self) -> usize {
        self.0.addr().get()
    }
}

impl From<NonNull<u8>> for Item {
    #[inline]
    fn from(pointer: NonNull<u8>) -> Self {
        Self(pointer)
    }
}

impl core::fmt::Debug for Item {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Item({:#x})", self.addr())
    }
}
