//! The lock of the platform `Host`.

use core::fmt;
use std::thread;
use std::time::Duration;

use parking_lot::lock_api::{GuardNoSend, RawMutex};

use crate::sync::{AtomicBool, Ordering, UnsafeCell};

/// Set in the copy that fork(2) makes, while it lets go of the locks that the original took.
static IN_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether this process is a copy.
static IS_COPY: AtomicBool = AtomicBool::new(false);

/// A lock of `parking_lot` that can be let go of in the copy of a process, and is waited for there without memory.
///
/// In a copy, threads that waited for the lock are gone, and the queue that they waited in may have been
/// copied while it was being changed, so it must not be touched: the lock is made new instead. Nor may the queues of
/// other locks, which share tables and locks of their own; so in a copy nobody waits in a queue, but looks again
/// and again. What these locks guard takes no longer than a few steps.
pub struct HostLock(UnsafeCell<parking_lot::RawMutex>);

// SAFETY: the cell is written in the copy of a process only, where there is one thread; otherwise it
// is as shared as the lock inside.
unsafe impl Sync for HostLock {}

impl HostLock {
    fn inner(&self) -> &parking_lot::RawMutex {
        // SAFETY: nobody writes the cell but `unlock` in a process of one thread.
        unsafe { &*self.0.get() }
    }

    fn lock_in_copy(&self) {
        const AT_ONCE: u32 = 10;
        let mut tries = 0;
        while !self.inner().try_lock() {
            match tries {
                0..AT_ONCE => thread::yield_now(),
                _ => thread::sleep(Duration::from_micros(50)),
            }
            tries = tries.saturating_add(1);
        }
    }
}

// SAFETY: forwards to a lock that keeps the contract; `unlock` leaves a lock that nobody holds.
unsafe impl RawMutex for HostLock {
    const INIT: Self = Self(UnsafeCell::new(parking_lot::RawMutex::INIT));
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        if IS_COPY.load(Ordering::Relaxed) {
            return self.lock_in_copy();
        }
        self.inner().lock();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.inner().try_lock()
    }

    #[inline]
    unsafe fn unlock(&self) {
        if IN_CHILD.load(Ordering::Relaxed) {
            // SAFETY: the caller holds the lock, and this is the only thread of the process.
            unsafe { *self.0.get() = parking_lot::RawMutex::INIT };
        } else {
            // SAFETY: the caller holds the lock.
            unsafe { self.inner().unlock() };
        }
    }
}

impl fmt::Debug for HostLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostLock")
    }
}

/// Runs `let_go` in the copy of a process, in which all locks are made new as they are let go of.
pub(crate) fn in_child(let_go: impl FnOnce()) {
    IS_COPY.store(true, Ordering::Relaxed);
    IN_CHILD.store(true, Ordering::Relaxed);
    let_go();
    IN_CHILD.store(false, Ordering::Relaxed);
}
