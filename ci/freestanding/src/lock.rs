//! A lock that needs nothing but an atomic flag.

use core::sync::atomic::{AtomicBool, Ordering};

use uma_core::RawMutex;

/// Waits by spinning.
pub(crate) struct SpinLock(AtomicBool);

// SAFETY: the flag is set by one holder at a time, and what the holder wrote is published by the
// release store that clears it.
unsafe impl RawMutex for SpinLock {
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = lock_api::GuardSend;

    fn lock(&self) {
        while !self.try_lock() {
            core::hint::spin_loop();
        }
    }

    fn try_lock(&self) -> bool {
        !self.0.swap(true, Ordering::Acquire)
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}
