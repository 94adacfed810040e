//! Values in items.

use core::borrow::{Borrow, BorrowMut};
use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, needs_drop};
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use core::ptr::NonNull;

use uma_core::Item;

use super::{Room, Zone};
use crate::{DefaultPlatform, Platform};

/// A value in an item of a zone: a `Box` whose memory goes back to that zone.
///
/// It borrows the zone, so the compiler sees to it that a zone outlives its values: see
/// [`Zone`](Zone#how-long-values-live).
pub struct ZoneBox<'z, T, P: Platform = DefaultPlatform> {
    pub(super) pointer: NonNull<T>,
    pub(super) zone: &'z Zone<T, P>,
    pub(super) owns: PhantomData<T>,
}

// SAFETY: a box owns its value, and its zone may be used from any thread.
unsafe impl<T: Send, P: Platform> Send for ZoneBox<'_, T, P> {}
// SAFETY: `&ZoneBox` gives `&T` and `&Zone`.
unsafe impl<T: Sync, P: Platform> Sync for ZoneBox<'_, T, P> {}

impl<'z, T, P: Platform> ZoneBox<'z, T, P> {
    /// The zone that the memory goes back to.
    pub const fn zone(this: &Self) -> &'z Zone<T, P> {
        this.zone
    }

    /// Takes the value out, and gives the item back.
    pub fn into_inner(this: Self) -> T {
        let this = ManuallyDrop::new(this);
        let _room = Room { zone: this.zone, item: Item::new(this.pointer.cast()) };
        // SAFETY: the box owned a valid value and will not be dropped.
        unsafe { this.pointer.read() }
    }

    /// The bare pointer, to keep in a structure of your own. See [`Zone::box_from_raw`].
    #[must_use = "a box that is not made again leaks its item"]
    pub fn into_raw(this: Self) -> NonNull<T> {
        ManuallyDrop::new(this).pointer
    }

    /// A reference for as long as the zone lives. The item is not freed: the zone reports it when it
    /// is dropped.
    pub fn leak(this: Self) -> &'z mut T {
        let mut pointer = Self::into_raw(this);
        // SAFETY: the value is valid and nobody else has it; its memory lives as long as the zone.
        unsafe { pointer.as_mut() }
    }

    /// The same box, with the promise that the value will not move.
    pub fn into_pin(this: Self) -> Pin<Self> {
        // SAFETY: the value stays in its item until it is dropped there: neither moving the box nor
        // the zone moves it, and `into_inner` cannot be called on a `Pin` of a value that minds.
        unsafe { Pin::new_unchecked(this) }
    }
}

impl<T, P: Platform> Drop for ZoneBox<'_, T, P> {
    #[inline]
    fn drop(&mut self) {
        let item = Item::new(self.pointer.cast());
        if needs_drop::<T>() {
            // The item goes back after the value is dropped, also if that panics.
            let _room = Room { zone: self.zone, item };
            // SAFETY: the box owns a valid value, and this is its end.
            unsafe { self.pointer.drop_in_place() };
        } else {
            // SAFETY: the item came from this zone, and the value needs no farewell.
            unsafe { self.zone.raw.free(item) };
        }
    }
}

impl<T, P: Platform> Deref for ZoneBox<'_, T, P> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the box owns a valid value.
        unsafe { self.pointer.as_ref() }
    }
}

impl<T, P: Platform> DerefMut for ZoneBox<'_, T, P> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the box owns a valid value.
        unsafe { self.pointer.as_mut() }
    }
}

impl<T, P: Platform> AsRef<T> for ZoneBox<'_, T, P> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T, P: Platform> AsMut<T> for ZoneBox<'_, T, P> {
    fn as_mut(&mut self) -> &mut T {
        self
    }
}

impl<T, P: Platform> Borrow<T> for ZoneBox<'_, T, P> {
    fn borrow(&self) -> &T {
        self
    }
}

impl<T, P: Platform> BorrowMut<T> for ZoneBox<'_, T, P> {
    fn borrow_mut(&mut self) -> &mut T {
        self
    }
}

/// The value has its own place: moving the box does not move it.
impl<T, P: Platform> Unpin for ZoneBox<'_, T, P> {}

impl<T: fmt::Debug, P: Platform> fmt::Debug for ZoneBox<'_, T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display, P: Platform> fmt::Display for ZoneBox<'_, T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: PartialEq, P: Platform> PartialEq for ZoneBox<'_, T, P> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq, P: Platform> Eq for ZoneBox<'_, T, P> {}
