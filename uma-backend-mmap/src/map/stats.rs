//! What a map reports of itself.

use crate::stats::Calls;
use crate::sync::{AtomicUsize, Ordering};

/// Figures of a [`Map`](super::Map). Sizes are in bytes, in whole pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapStats {
    /// The whole map.
    pub size: usize,
    /// Allocated, with guard pages and submaps.
    pub in_use: usize,
    /// Most that was ever allocated.
    pub peak: usize,
    /// Allocations and submaps that are there.
    pub segments: usize,
    /// Accessible: wired, pageable, and what was entered.
    pub committed: usize,
    /// Locked in memory.
    pub locked: usize,
    /// Allocations that were ever made.
    pub allocs: u64,
    /// And freed.
    pub frees: u64,
    /// Allocations for which there was no room.
    pub fails: u64,
    /// Allocations that waited for room.
    pub waits: u64,
    /// Callers that wait for room just now.
    pub waiting: usize,
    /// How often the system was asked again for memory that it had refused.
    pub retries: u64,
    /// Calls to make pages accessible that the system refused.
    pub commits_refused: u64,
    /// Calls to make pages inaccessible that it refused: what was freed there is zero, but can be touched.
    pub protects_refused: u64,
    /// Calls to take memory back that it refused: zeros were written, and the memory stays.
    pub discards_refused: u64,
    /// Calls to lock pages in memory that it refused (`RLIMIT_MEMLOCK`): they are wired in name only.
    pub locks_refused: u64,
    /// Bytes of bookkeeping: tags, without marks.
    pub meta_bytes: usize,
}

/// What is counted beside the arena.
pub(super) struct Figures {
    pub(super) committed: AtomicUsize,
    pub(super) locked: AtomicUsize,
    pub(super) commit: Calls,
    pub(super) protect: Calls,
    pub(super) discard: Calls,
    pub(super) lock: Calls,
    pub(super) retries: AtomicUsize,
}

impl Figures {
    pub(super) const fn new() -> Self {
        Self {
            committed: AtomicUsize::new(0),
            locked: AtomicUsize::new(0),
            commit: Calls::new(),
            protect: Calls::new(),
            discard: Calls::new(),
            lock: Calls::new(),
            retries: AtomicUsize::new(0),
        }
    }
}

/// Adds to a figure that orders nothing.
pub(super) fn more(figure: &AtomicUsize, by: usize) {
    figure.fetch_add(by, Ordering::Relaxed);
}

/// Subtracts from one.
pub(super) fn less(figure: &AtomicUsize, by: usize) {
    figure.fetch_sub(by, Ordering::Relaxed);
}
