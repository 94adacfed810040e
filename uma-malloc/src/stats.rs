//! What an instance knows of itself.

use uma::core::Stats;

use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// Figures of one instance, in bytes and numbers of allocations. They are exact when no other thread uses
/// it, and a good estimate while others do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MallocStats {
    /// Allocations that succeeded.
    pub allocs: u64,
    /// Allocations that were freed.
    pub frees: u64,
    /// Allocations that failed.
    pub fails: u64,
    /// Bytes in use, by the sizes of classes and of large runs.
    pub bytes: u64,
    /// Bytes of pages held: slabs of all classes, and large runs.
    pub held: u64,
    /// Large runs in use.
    pub large: u64,
    /// Bytes of these.
    pub large_bytes: u64,
    /// Free items that were found without their mark when they were to be handed out, because somebody
    /// wrote to them after they were freed, or freed them twice. They are never handed out again.
    pub corrupt: u64,
}

impl MallocStats {
    /// Allocations in use.
    pub const fn used(&self) -> u64 {
        self.allocs.saturating_sub(self.frees)
    }

    pub(crate) fn add(&mut self, zone: &Stats) {
        self.allocs += zone.allocs;
        self.frees += zone.frees;
        self.bytes += zone.used() * zone.size as u64;
        self.held += zone.bytes;
    }
}

/// What the zones do not count.
pub(crate) struct Counters {
    pub(crate) large_allocs: AtomicU64,
    pub(crate) large_frees: AtomicU64,
    pub(crate) large_bytes: AtomicUsize,
    pub(crate) corrupt: AtomicU64,
}

impl Counters {
    pub(crate) const fn new() -> Self {
        Self {
            large_allocs: AtomicU64::new(0),
            large_frees: AtomicU64::new(0),
            large_bytes: AtomicUsize::new(0),
            corrupt: AtomicU64::new(0),
        }
    }

    pub(crate) fn took(&self, bytes: usize) {
        self.large_allocs.fetch_add(1, Ordering::Relaxed);
        self.large_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn gave(&self, bytes: usize) {
        self.large_frees.fetch_add(1, Ordering::Relaxed);
        self.large_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn fill(&self, stats: &mut MallocStats) {
        let frees = self.large_frees.load(Ordering::Relaxed);
        let allocs = self.large_allocs.load(Ordering::Relaxed);
        let bytes = self.large_bytes.load(Ordering::Relaxed) as u64;
        stats.allocs += allocs;
        stats.frees += frees;
        stats.bytes += bytes;
        stats.held += bytes;
        stats.large = allocs.saturating_sub(frees);
        stats.large_bytes = bytes;
        stats.corrupt = self.corrupt.load(Ordering::Relaxed);
    }
}
