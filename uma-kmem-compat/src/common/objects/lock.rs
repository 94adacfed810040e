//! The one lock of what caches share beside the engine: lists, queues, the books of moves.
//!
//! It is held for a few instructions, and by the thread that forks while the copy of the process is made, so that
//! what it guards is whole in the child and nobody waits there for a thread that is gone. Nothing of the
//! user's is called under it, and it is never taken twice: the global allocator and a table are all that may be
//! used. The handlers for fork(2) are installed after the engine's, with the first cache or heap, so that the lock is
//! taken before the engine's locks.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

use uma::{Host, Platform};

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

/// Sees to it that forks go well from now on.
pub(super) fn install() {
    extern "C" fn before() {
        acquire();
    }
    extern "C" fn after() {
        release();
    }
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if !INSTALLED.swap(true, Ordering::AcqRel) {
        // The engine's come with the first look at the CPUs.
        let _ = Host.cpus();
        // Without memory for handlers a fork is as before; there is nobody to tell.
        // SAFETY: the library cannot be unloaded, so the functions stay.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
    }
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
        acquire();
        Guard(&self.0)
    }
}

pub(super) struct Guard<'a, T>(&'a UnsafeCell<T>);

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
