//! Waiting for memory that others give back.

use core::time::Duration;

/// Tries between two that everything is drained for.
const TRIES: u32 = 64;

/// One who waits for memory, and tries again every millisecond.
///
/// What others free meanwhile may stay with their zones, in caches and in slabs that nobody uses. Draining all of them
/// takes long, and costs those who are well off, so it is done now and then: often enough that nobody waits for ever
/// for memory that is free.
pub(crate) struct Patience {
    tries: u32,
}

impl Patience {
    pub(crate) const fn new() -> Self {
        Self { tries: 0 }
    }

    /// Waits for a millisecond. Whether everything is to be drained before the next try.
    #[must_use]
    pub(crate) fn wait(&mut self) -> bool {
        std::thread::sleep(Duration::from_millis(1));
        self.tries = self.tries.wrapping_add(1);
        self.tries.is_multiple_of(TRIES)
    }
}
