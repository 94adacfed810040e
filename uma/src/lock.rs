//! The lock of the platform `Host`.

use core::cell::Cell;
use core::fmt;
use std::thread;
use std::time::Duration;

use parking_lot::lock_api::{GuardNoSend, RawMutex};
use parking_lot_core::DEFAULT_PARK_TOKEN;

use crate::sync::{AtomicBool, Ordering, UnsafeCell};

/// Set in the copy that fork(2) makes, while it lets go of the locks that the original took.
static IN_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether this process is a copy.
static IS_COPY: AtomicBool = AtomicBool::new(false);

std::thread_local! {
    /// Whether `parking_lot` knows this thread.
    static KNOWN: Cell<bool> = const { Cell::new(false) };
}

/// A lock of `parking_lot` that can be let go of in the copy of a process, and waited for without memory.
///
/// In a copy, threads that waited for the lock are gone, and the queue that they waited in may have been
/// copied while it was being changed, so it must not be touched: the lock is made new instead. Nor may the queues of
/// other locks, which share tables and locks of their own; so in a copy nobody waits in a queue, but looks again
/// and again. What these locks guard takes no longer than a few steps.
///
/// Where a thread waits for the first time, `parking_lot` and the C library take memory for it, and the process ends
/// if there is none. So it is made known to them when it first takes such a lock, free or not.
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
        // Not at the end of a thread: it is known, or will hardly have to wait any more.
        if KNOWN.try_with(|known| !known.replace(true)).unwrap_or(false) {
            introduce();
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

/// Makes this thread known to `parking_lot`: it is about to wait in a queue of its own, and does not.
#[cold]
fn introduce() {
    static QUEUE: u8 = 0;
    let key = (&raw const QUEUE).addr();
    // SAFETY: nothing else has the address of the queue; the closures do nothing.
    unsafe {
        parking_lot_core::park(key, || false, || {}, |_, _| {}, DEFAULT_PARK_TOKEN, None);
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
