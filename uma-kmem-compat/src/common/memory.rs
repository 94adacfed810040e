//! Memory for the faces' own books: what describes a cache, what leads to it, what was written down of runs.
//!
//! It comes from the global allocator, and there may be none. Then the caller gets an error, as he would for want of
//! pages, and the process does not end. So nothing here is allocated by the containers of the standard library
//! unless room was made before, by [`push`] or [`enter`], and shared ownership is [`Counted`]: `Arc` can only be made
//! or end the process.
//!
//! ```text
//!   Counted -----> | strong | weak | value |      the value goes with the last Counted,
//!   Weak --------->                               the memory with the last of either
//! ```

use core::alloc::Layout;
use core::fmt;
use core::hash::{BuildHasherDefault, Hash};
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use std::collections::HashMap;
use std::hash::DefaultHasher;

use uma::core::{ConfigError, ConfigFault, Name};

use crate::sync::{AtomicUsize, Ordering, fence};

/// There is no memory for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no memory for the books about it")
    }
}

/// The same, of a zone that could not be made.
pub(crate) fn no_zone(name: &str, size: usize, align: usize) -> ConfigError {
    ConfigError { zone: Name::new(name), size, align, fault: ConfigFault::NoMemory }
}

/// Room for one value.
fn room<T>() -> Result<NonNull<T>, NoMemory> {
    const { assert!(size_of::<T>() != 0) }
    // SAFETY: the layout is not empty.
    let at = unsafe { std::alloc::alloc(Layout::new::<T>()) };
    NonNull::new(at.cast()).ok_or(NoMemory)
}

/// A value in a box, which may be sent to [`Box::from_raw`]. Without memory the value is dropped.
pub(crate) fn boxed<T>(value: T) -> Result<Box<T>, NoMemory> {
    let at = room::<T>()?;
    // SAFETY: it is room for the value, from the global allocator.
    unsafe {
        at.write(value);
        Ok(Box::from_raw(at.as_ptr()))
    }
}

/// Puts a value at the end of a list.
pub(crate) fn push<T>(list: &mut Vec<T>, value: T) -> Result<(), NoMemory> {
    list.try_reserve(1).map_err(|_| NoMemory)?;
    list.push(value);
    Ok(())
}

/// Text of one's own.
pub(crate) fn owned(text: &str) -> Result<String, NoMemory> {
    let mut own = String::new();
    own.try_reserve_exact(text.len()).map_err(|_| NoMemory)?;
    own.push_str(text);
    Ok(own)
}

/// A table that can be in a static.
pub(crate) type Table<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// An empty one.
pub(crate) const fn table<K, V>() -> Table<K, V> {
    HashMap::with_hasher(BuildHasherDefault::new())
}

/// Enters something in a table, in the place of what was there.
pub(crate) fn enter<K: Eq + Hash, V>(
    table: &mut Table<K, V>,
    key: K,
    value: V,
) -> Result<(), NoMemory> {
    table.try_reserve(1).map_err(|_| NoMemory)?;
    table.insert(key, value);
    Ok(())
}

/// What [`Counted`] leads to.
pub(crate) struct Counts<T: ?Sized> {
    strong: AtomicUsize,
    /// One for all the strong ones together.
    weak: AtomicUsize,
    value: ManuallyDrop<T>,
}

/// A value with several owners: an [`Arc`](std::sync::Arc) that may fail to come about.
pub(crate) struct Counted<T: ?Sized>(NonNull<Counts<T>>);

// SAFETY: owners on several threads read the value, and any of them may drop it.
unsafe impl<T: ?Sized + Send + Sync> Send for Counted<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for Counted<T> {}

impl<T> Counted<T> {
    /// The first owner. Without memory the value is dropped.
    pub(crate) fn new(value: T) -> Result<Self, NoMemory> {
        let at = room::<Counts<T>>()?;
        let (strong, weak) = (AtomicUsize::new(1), AtomicUsize::new(1));
        // SAFETY: it is room for these.
        unsafe { at.write(Counts { strong, weak, value: ManuallyDrop::new(value) }) };
        Ok(Self(at))
    }

    /// Somebody who owns nothing, and can become an owner as long as there is one.
    pub(crate) fn downgrade(&self) -> Weak<T> {
        self.counts().weak.fetch_add(1, Ordering::Relaxed);
        Weak(self.0)
    }

    /// The value, for the only owner: from now on nobody can become one.
    ///
    /// # Errors
    ///
    /// The owner, who is not the only one.
    pub(crate) fn alone(self) -> Result<Alone<T>, Self> {
        let strong = &self.counts().strong;
        // Acquire: what the others did with the value was before; see `drop`.
        if strong.compare_exchange(1, 0, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(self);
        }
        Ok(Alone(ManuallyDrop::new(self).0))
    }
}

impl<T: ?Sized> Counted<T> {
    fn counts(&self) -> &Counts<T> {
        // SAFETY: the memory stays as long as there is an owner.
        unsafe { self.0.as_ref() }
    }

    /// The same owner, of the value as another type.
    ///
    /// # Safety
    ///
    /// `cast` returns the same pointer, and is a coercion.
    pub(crate) unsafe fn cast<U: ?Sized>(
        self,
        cast: impl FnOnce(*mut Counts<T>) -> *mut Counts<U>,
    ) -> Counted<U> {
        let at = cast(ManuallyDrop::new(self).0.as_ptr());
        // SAFETY: it was not null, and is the same.
        Counted(unsafe { NonNull::new_unchecked(at) })
    }

    /// Whether both own the same.
    pub(crate) fn same(&self, other: &Self) -> bool {
        ptr::addr_eq(self.0.as_ptr(), other.0.as_ptr())
    }
}

impl<T: ?Sized> Clone for Counted<T> {
    fn clone(&self) -> Self {
        self.counts().strong.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl<T: ?Sized> Deref for Counted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.counts().value
    }
}

impl<T: ?Sized> Drop for Counted<T> {
    fn drop(&mut self) {
        // Release: what this owner did with the value is before its end.
        if self.counts().strong.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            // SAFETY: there was one owner left, and nobody becomes one any more.
            unsafe { end(self.0) }
        }
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for Counted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Counted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Drops the value, and the memory if nobody looks at the counts any more.
///
/// # Safety
///
/// Nobody owns the value, or can become an owner.
unsafe fn end<T: ?Sized>(at: NonNull<Counts<T>>) {
    /// Also if the value's own drop unwinds.
    struct Memory<T: ?Sized>(NonNull<Counts<T>>, Layout);

    impl<T: ?Sized> Drop for Memory<T> {
        fn drop(&mut self) {
            // SAFETY: the share of the owners is left, and goes here.
            unsafe { leave(&raw const (*self.0.as_ptr()).weak, self.0.cast(), self.1) }
        }
    }

    // SAFETY: passed on to the caller.
    unsafe {
        let memory = Memory(at, Layout::for_value(at.as_ref()));
        ManuallyDrop::drop(&mut (*at.as_ptr()).value);
        drop(memory);
    }
}

/// Gives up a share of the memory, and the memory with the last one.
///
/// # Safety
///
/// The share is the caller's, of memory of this layout, in which the count lies.
unsafe fn leave(weak: *const AtomicUsize, memory: NonNull<u8>, layout: Layout) {
    // SAFETY: the memory is there as long as the share is.
    if unsafe { (*weak).fetch_sub(1, Ordering::Release) } == 1 {
        fence(Ordering::Acquire);
        // SAFETY: it is from `room`, of that layout, and nobody has a share.
        unsafe { std::alloc::dealloc(memory.as_ptr(), layout) }
    }
}

/// Somebody who can become an owner as long as there is one.
pub(crate) struct Weak<T>(NonNull<Counts<T>>);

// SAFETY: as for `Counted`, which it can become.
unsafe impl<T: Send + Sync> Send for Weak<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Weak<T> {}

impl<T> Weak<T> {
    /// An owner, if there is one.
    pub(crate) fn upgrade(&self) -> Option<Counted<T>> {
        // SAFETY: the memory stays as long as we do. The value is not looked at.
        let strong = unsafe { &(*self.0.as_ptr()).strong };
        let more = |owners: usize| (owners != 0).then(|| owners + 1);
        // Acquire: an owner who comes back after `Alone` finds what was done meanwhile.
        let owned = strong.fetch_update(Ordering::Acquire, Ordering::Relaxed, more);
        owned.is_ok().then(|| Counted(self.0))
    }

    /// Whether it is one of this owner's.
    pub(crate) fn is_of(&self, owner: &Counted<T>) -> bool {
        self.0 == owner.0
    }

    /// Whether there is an owner.
    pub(crate) fn is_owned(&self) -> bool {
        // SAFETY: as in `upgrade`.
        unsafe { (*self.0.as_ptr()).strong.load(Ordering::Relaxed) != 0 }
    }
}

impl<T> Drop for Weak<T> {
    fn drop(&mut self) {
        // SAFETY: the share is ours.
        unsafe {
            let weak = &raw const (*self.0.as_ptr()).weak;
            leave(weak, self.0.cast(), Layout::new::<Counts<T>>());
        }
    }
}

/// A value that had one owner, who may have it back.
pub(crate) struct Alone<T>(NonNull<Counts<T>>);

// SAFETY: it owns the value.
unsafe impl<T: Send + Sync> Send for Alone<T> {}

impl<T> Alone<T> {
    /// The value itself.
    pub(crate) fn into_inner(self) -> T {
        let at = ManuallyDrop::new(self).0;
        // SAFETY: the value is ours, and moved out once; the share of the owners goes with it.
        unsafe {
            let value = (&raw const (*at.as_ptr()).value).cast::<T>().read();
            leave(&raw const (*at.as_ptr()).weak, at.cast(), Layout::new::<Counts<T>>());
            value
        }
    }

    /// An owner, as before: others can become one again.
    pub(crate) fn shared(self) -> Counted<T> {
        let at = ManuallyDrop::new(self).0;
        // SAFETY: the memory is there, and nobody else changes a count of 0.
        unsafe { (*at.as_ptr()).strong.store(1, Ordering::Release) };
        Counted(at)
    }
}

impl<T> Deref for Alone<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: nobody else has the value.
        unsafe { &(*self.0.as_ptr()).value }
    }
}

impl<T> Drop for Alone<T> {
    fn drop(&mut self) {
        // SAFETY: nobody else owns the value, and with a count of 0 nobody becomes an owner.
        unsafe { end(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    struct Counting<'a>(&'a AtomicU64);

    impl Drop for Counting<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_value_goes_once_with_its_last_owner() {
        let drops = AtomicU64::new(0);
        let gone = || drops.load(Ordering::Relaxed);
        let one = Counted::new(Counting(&drops)).unwrap();
        let (two, weak) = (one.clone(), one.downgrade());
        assert!(one.same(&two) && weak.is_of(&one));
        drop(one);
        let three = weak.upgrade().unwrap();
        drop(two);
        assert_eq!(gone(), 0);
        drop(three);
        assert_eq!(gone(), 1);
        assert!(weak.upgrade().is_none() && !weak.is_owned());
        drop(weak);
        assert_eq!(gone(), 1);
    }

    #[test]
    fn the_only_owner_is_alone_until_he_shares() {
        let drops = AtomicU64::new(0);
        let one = Counted::new(Counting(&drops)).unwrap();
        let weak = one.downgrade();
        let two = one.clone();
        let Err(one) = one.alone() else { panic!("there are two") };
        drop(two);
        let Ok(alone) = one.alone() else { panic!("there is one") };
        assert!(weak.upgrade().is_none());
        let one = alone.shared();
        assert!(weak.upgrade().is_some());
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        drop(one.alone());
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn owners_of_a_trait_object_free_what_it_is() {
        let one = Counted::new(String::from("text")).unwrap();
        // SAFETY: a coercion.
        let any: Counted<dyn fmt::Display + Send + Sync> = unsafe { one.cast(|at| at as _) };
        assert_eq!(any.to_string(), "text");
        drop(any.clone());
    }

    #[test]
    fn threads_that_come_and_go_drop_it_once() {
        for _ in 0..50 {
            let drops = AtomicU64::new(0);
            let one = Counted::new(Counting(&drops)).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    let (mine, weak) = (one.clone(), one.downgrade());
                    scope.spawn(move || {
                        let again = weak.upgrade();
                        drop((mine, weak));
                        drop(again);
                    });
                }
                drop(one);
            });
            assert_eq!(drops.load(Ordering::Relaxed), 1);
        }
    }
}
