//! How a caller waits at a limit.

use crate::Deadline;

/// How a thread waits until another wakes it, and what time it is.
///
/// A wake-up that comes before the sleep must not be lost: [`sleep`](Self::sleep) then returns at
/// once, as `std::thread::park` does. Sleeps may end early; callers look at their condition again.
pub trait Sleep {
    /// Names one waiting caller.
    type Waker: Clone + Send + Sync;

    /// Whether callers can be put to sleep at all. Where this is `false`, a request that may wait is
    /// treated as one that may not.
    const CAN_SLEEP: bool = true;

    /// Nanoseconds on a clock that never goes back.
    fn now(&self) -> u64;

    /// The waker of the calling thread.
    fn waker(&self) -> Self::Waker;

    /// Sleeps until woken or until the deadline, or less long.
    fn sleep(&self, until: Deadline);

    /// Wakes the caller that `waker` names. That caller may be gone by now; then nothing happens.
    fn wake(&self, waker: &Self::Waker);
}

impl<Z: Sleep + ?Sized> Sleep for &Z {
    type Waker = Z::Waker;
    const CAN_SLEEP: bool = Z::CAN_SLEEP;

    fn now(&self) -> u64 {
        (**self).now()
    }

    fn waker(&self) -> Self::Waker {
        (**self).waker()
    }

    fn sleep(&self, until: Deadline) {
        (**self).sleep(until);
    }

    fn wake(&self, waker: &Self::Waker) {
        (**self).wake(waker);
    }
}

/// Never sleeps: at a limit every request fails at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSleep;

impl Sleep for NoSleep {
    type Waker = ();
    const CAN_SLEEP: bool = false;

    fn now(&self) -> u64 {
        0
    }

    fn waker(&self) {}

    fn sleep(&self, _: Deadline) {}

    fn wake(&self, (): &()) {}
}

/// Waits by spinning, with a clock that the user supplies. For kernels without a scheduler yet.
#[derive(Clone, Copy, Debug)]
pub struct Spin {
    clock: fn() -> u64,
}

impl Spin {
    /// Spins; `clock` returns nanoseconds and never goes back.
    pub const fn new(clock: fn() -> u64) -> Self {
        Self { clock }
    }
}

impl Sleep for Spin {
    type Waker = ();

    fn now(&self) -> u64 {
        (self.clock)()
    }

    fn waker(&self) {}

    fn sleep(&self, _: Deadline) {
        core::hint::spin_loop();
    }

    fn wake(&self, (): &()) {}
}
