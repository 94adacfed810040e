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
    /// Bytes of address space beside `reserved`: bookkeeping, walls, and what aligning chunks takes. A
    /// part of about 1/16,000 of the memory that was ever touched is resident.
    pub beside: usize,
    /// Chunks held.
    pub chunks: usize,
    /// Chunks ever mapped.
    pub maps: u64,
    /// How often the system refused to map, as much as was asked for.
    pub maps_refused: u64,
    /// Chunks ever unmapped.
    pub unmaps: u64,
    /// How often the system refused to unmap. The chunk is kept and used again.
    pub unmaps_refused: u64,
    /// Calls ever made to decommit.
    pub advises: u64,
    /// How many of these the system refused.
    pub refused: u64,
    /// Calls ever made to make pages inaccessible or accessible.
    pub protects: u64,
    /// How many of these the system refused.
    pub protects_refused: u64,
    /// Names, wishes for huge pages and about core dumps, and huge pages to be taken apart, that the system was
    /// told.
    pub hints: u64,
    /// How many of these it refused.
    pub hints_refused: u64,
}

/// Calls of one kind.
#[derive(Debug)]
pub(crate) struct Calls {
    made: AtomicU64,
    refused: AtomicU64,
}

impl Calls {
    pub(crate) const fn new() -> Self {
        Self { made: AtomicU64::new(0), refused: AtomicU64::new(0) }
    }

    /// Counts a call, and how it went.
    pub(crate) fn count<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        add(&self.made, 1);
        add(&self.refused, u64::from(result.is_err()));
        result
    }

    pub(crate) fn made(&self) -> u64 {
        figure(&self.made)
    }

    pub(crate) fn refused(&self) -> u64 {
        figure(&self.refused)
    }
}

/// All calls.
#[derive(Debug)]
pub(crate) struct AllCalls {
    pub(crate) map: Calls,
    pub(crate) unmap: Calls,
    pub(crate) discard: Calls,
    pub(crate) protect: Calls,
    pub(crate) hint: Calls,
}

impl AllCalls {
    pub(crate) const fn new() -> Self {
        Self {
            map: Calls::new(),
            unmap: Calls::new(),
            discard: Calls::new(),
            protect: Calls::new(),
            hint: Calls::new(),
        }
    }
}

/// Adds to a figure that orders nothing.
fn add(figure: &AtomicU64, by: u64) {
    figure.fetch_add(by, Ordering::Relaxed);
}

/// Reads a figure that orders nothing.
fn figure(figure: &AtomicU64) -> u64 {
    figure.load(Ordering::Relaxed)
}
