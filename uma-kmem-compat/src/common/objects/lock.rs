//! The one lock of what caches share beside the engine: lists, queues, the books of moves.
//!
//! It is held for a few instructions, and by nobody when a copy of the process is made: who takes it is counted in
//! first (see [`fork`]). So what it guards is whole in the child, and nobody waits there for a thread that is gone.
//! Nothing of the user's is called under it, and it is never taken twice: the global allocator and a table are all that
//! may be used.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

use crate::common::fork::{self, Inside};
use crate::sync::{AtomicBool, Ordering};

static HELD: AtomicBool = AtomicBool::new(false);

fn acquire() {
    while HELD.swap(true, Ordering::Acquire) {
        std::thread::yield_now();
    }
}

fn release() {
    HELD.store(false, Ordering::Release);
}

/// Something that is looked at under the lock.
pub(super) struct Guarded<T>(UnsafeCell<T>);

// SAFETY: `lock` is the only way to the value, and only one thread has the lock.
unsafe impl<T: Send> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Takes the lock. The caller has it not already.
    pub(super) fn lock(&self) -> Guard<'_, T> {
        let inside = fork::enter();
        acquire();
        Guard(&self.0, inside)
    }
}

/// The lock is let go of first, and then its owner counted out.
pub(super) struct Guard<'a, T>(
    &'a UnsafeCell<T>,
    #[allow(dead_code, reason = "counted out when it is dropped")] Inside,
);

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: we hold the lock.
        unsafe { &*self.0.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: we hold the lock.
        unsafe { &mut *self.0.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        release();
    }
}
