//! What the supplier reports of itself.

/// Figures of a [`StaticPages`](crate::StaticPages), in pages of all its regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StaticStats {
    /// Pages in the regions, without their heads, tails and bookkeeping.
    pub total: usize,
    /// Pages that are free.
    pub free: usize,
    /// Pages in the longest free run.
    pub largest: usize,
    /// Regions that have pages at all.
    pub regions: usize,
}
