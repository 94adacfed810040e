//! How hard to give memory back.

/// How much a reclaim gives back, as `uma_zone_reclaim` of zone(9) has it.
///
/// Each mode gives back what the one before it does, and more. None of them touches items in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reclaim {
    /// Ends a period of the estimate of what is needed (the periodic work of FreeBSD's zones, every
    /// 20 s), and gives back a quarter of what caches held beyond need for 45 periods, or a bucket if that is
    /// more. Slabs that are wholly free go only then.
    Idle,
    /// Depots down to their working set (`UMA_RECLAIM_TRIM`), then slabs that are wholly free.
    Trim,
    /// Depots emptied (`UMA_RECLAIM_DRAIN`), then slabs that are wholly free.
    Drain,
    /// The buckets of every CPU too (`UMA_RECLAIM_DRAIN_CPU`).
    DrainCpu,
}
