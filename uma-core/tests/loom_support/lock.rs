//! The model checker's mutex as a `lock_api` lock.

use std::cell::UnsafeCell;
use std::sync::OnceLock;

use uma_core::RawMutex;

use super::checker::{Mutex, MutexGuard};

/// A lock of the model. It is made when first taken, because `INIT` must be constant and the model
/// checker's own is not.
pub(crate) struct Lock(OnceLock<Box<Inner>>);

struct Inner {
    // First, so that it goes before what it borrows.
    guard: UnsafeCell<Option<MutexGuard<'static, ()>>>,
    mutex: Mutex<()>,
}

// SAFETY: `guard` is touched only by the thread that holds `mutex`.
unsafe impl Sync for Inner {}
// SAFETY: all threads of a model are coroutines on one thread of the system.
unsafe impl Send for Inner {}

impl Lock {
    fn inner(&self) -> &Inner {
        let make = || Inner { guard: UnsafeCell::new(None), mutex: Mutex::new(()) };
        self.0.get_or_init(|| Box::new(make()))
    }
}

impl Inner {
    fn keep(&self, guard: MutexGuard<'_, ()>) {
        // SAFETY: the mutex is in a box that outlives the guard (see the order of fields); we hold it,
        // so the cell is ours.
        unsafe {
            let guard = std::mem::transmute::<MutexGuard<'_, ()>, MutexGuard<'static, ()>>(guard);
            *self.guard.get() = Some(guard);
        }
    }
}

// SAFETY: the mutex excludes; it is unlocked by dropping its guard.
unsafe impl RawMutex for Lock {
    #[allow(clippy::declare_interior_mutable_const, reason = "the trait asks for it")]
    const INIT: Self = Self(OnceLock::new());

    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        let inner = self.inner();
        inner.keep(inner.mutex.lock().unwrap());
    }

    fn try_lock(&self) -> bool {
        let inner = self.inner();
        match inner.mutex.try_lock() {
            Ok(guard) => {
                inner.keep(guard);
                true
            }
            Err(_) => false,
        }
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock.
        drop(unsafe { (*self.inner().guard.get()).take() });
    }
}
