//! The only file of this crate that names shared cells, so that a model checker can take their place:
//! [loom](https://docs.rs/loom) under `cfg(loom)`, [shuttle](https://docs.rs/shuttle) under
//! `cfg(shuttle)`.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
#[cfg(all(shuttle, not(loom)))]
pub(crate) use shuttle::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

#[cfg(not(loom))]
pub(crate) use core::cell::UnsafeCell;
#[cfg(loom)]
pub(crate) use modelled::UnsafeCell;

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

#[cfg(loom)]
mod modelled {
    /// A cell that one thread at a time may touch: if two do without an order between them, loom
    /// reports a data race.
    pub(crate) struct UnsafeCell<T> {
        value: core::cell::UnsafeCell<T>,
        watch: loom::cell::UnsafeCell<()>,
    }

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            let watch = loom::cell::UnsafeCell::new(());
            Self { value: core::cell::UnsafeCell::new(value), watch }
        }

        pub(crate) fn get(&self) -> *mut T {
            self.watch.with_mut(|_| ());
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
