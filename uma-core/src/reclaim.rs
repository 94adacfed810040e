//! How hard to give memory back.

/// How much a reclaim gives back, as `uma_zone_reclaim` of zone(9) has it.
///
/// Each mode does what the one before it does, and more. None of them touches items in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reclaim {
    /// Depots down to their working set (`UMA_RECLAIM_TRIM`), then slabs that are wholly free.
    Trim,
    /// Depots emptied (`UMA_RECLAIM_DRAIN`), then slabs that are wholly free.
    Drain,
    /// The buckets of every CPU too (`UMA_RECLAIM_DRAIN_CPU`).
    DrainCpu,
}
