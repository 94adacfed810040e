//! The only file of this crate that names shared cells, so that a model checker can take their place:
//! [loom](https://docs.rs/loom) under `cfg(loom)`, [shuttle](https://docs.rs/shuttle) under
//! `cfg(shuttle)`.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(all(shuttle, not(loom)))]
pub(crate) use shuttle::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(not(loom))]
pub(crate) use core::cell::UnsafeCell;
#[cfg(loom)]
pub(crate) use modelled::UnsafeCell;

/// A flag in a static, of which no model knows.
#[allow(unused_imports, reason = "where there are restartable sequences")]
pub(crate) use core::sync::atomic::AtomicBool as Flag;

pub(crate) use lock_api::Mutex;

/// A constructor that is `const`; but not where the cells are a model checker's, which cannot be made
/// before the model runs.
#[cfg(not(any(loom, shuttle)))]
macro_rules! const_unless_modelled {
    ($(#[$attribute:meta])* $vis:vis const $($rest:tt)*) => {
        $(#[$attribute])* $vis const $($rest)*
    };
}

#[cfg(any(loom, shuttle))]
macro_rules! const_unless_modelled {
    ($(#[$attribute:meta])* $vis:vis const $($rest:tt)*) => {
        $(#[$attribute])* $vis $($rest)*
    };
}

pub(crate) use const_unless_modelled;

/// A cell for a static that nobody ever writes.
pub(crate) const fn never_written<T>(value: T) -> UnsafeCell<T> {
    #[cfg(not(loom))]
    return UnsafeCell::new(value);
    #[cfg(loom)]
    return UnsafeCell::never_written(value);
}

#[cfg(loom)]
mod modelled {
    /// A cell that one thread at a time may touch: if two do without an order between them, loom
    /// reports a data race. It does so as well for buckets, which lie in raw memory, since their header
    /// is touched whenever their items are.
    pub(crate) struct UnsafeCell<T> {
        value: core::cell::UnsafeCell<T>,
        watch: Option<loom::cell::UnsafeCell<()>>,
    }

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            let watch = Some(loom::cell::UnsafeCell::new(()));
            Self { value: core::cell::UnsafeCell::new(value), watch }
        }

        pub(crate) const fn never_written(value: T) -> Self {
            Self { value: core::cell::UnsafeCell::new(value), watch: None }
        }

        pub(crate) fn get(&self) -> *mut T {
            if let Some(watch) = &self.watch {
                watch.with_mut(|_| ());
            }
            self.value.get()
        }
    }

    impl<T> Drop for UnsafeCell<T> {
        /// Taking the cell away is the last access.
        fn drop(&mut self) {
            if !loom::thread::panicking() {
                self.get();
            }
        }
    }
}
