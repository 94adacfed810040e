//! What the supplier reports of itself.

/// Figures of a [`StaticPages`](crate::StaticPages), in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StaticStats {
    /// Pages in the region, without its head, tail and bookkeeping.
    pub total: usize,
    /// Pages that are free.
    pub free: usize,
    /// Pages in the longest free run.
    pub largest: usize,
}
