//! What the supplier reports of itself.

use crate::sync::{AtomicU64, Ordering};

/// Figures of an [`MmapPages`](crate::MmapPages).
///
/// `in_use + dirty + clean` is `reserved`, except while memory is on its way to be decommitted, when
/// it is in none of the three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MmapStats {
    /// Bytes of address space in chunks.
    pub reserved: usize,
    /// Bytes in live runs.
    pub in_use: usize,
    /// Bytes free and still committed.
    pub dirty: usize,
    /// Bytes free and known to be zero: never used, or decommitted.
    pub clean: usize,
    /// Chunks held.
    pub chunks: usize,
    /// Chunks ever mapped.
    pub maps: u64,
    /// Chunks ever unmapped.
    pub unmaps: u64,
    /// Calls ever made to decommit.
    pub advises: u64,
    /// How many of these the system refused.
    pub refused: u64,
}

/// System calls made.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) maps: AtomicU64,
    pub(crate) unmaps: AtomicU64,
    pub(crate) advises: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Calls {
    pub(crate) const fn new() -> Self {
        Self {
            maps: AtomicU64::new(0),
            unmaps: AtomicU64::new(0),
            advises: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

/// Adds to a figure that orders nothing.
pub(crate) fn count(figure: &AtomicU64, by: usize) {
    figure.fetch_add(by as u64, Ordering::Relaxed);
}

/// Reads a figure that orders nothing.
pub(crate) fn figure(figure: &AtomicU64) -> u64 {
    figure.load(Ordering::Relaxed)
}
