//! The table of `vmstat -z`.

use core::fmt;

use super::{ZoneInfo, Zones};

/// Shows zones as `vmstat -z` does, a line each:
///
/// ```text
/// ITEM                             SIZE      LIMIT       USED       FREE          REQ     FAIL    SLEEP XDOMAIN
/// node                               48          0     812345       1203      1624690        0        0       0
/// ```
///
/// The columns are the item's size in bytes, the most items that may exist (0: no limit), items in
/// use, free items held, allocations so far, failed ones, sleeps at the limit, and frees on another
/// memory domain than the item's (always 0: there is one domain).
#[derive(Debug)]
pub struct Table<'a, Z: ?Sized>(pub(super) &'a Z);

impl<'a, Z: Zones + ?Sized> Table<'a, Z> {
    /// A table of these zones.
    pub const fn new(zones: &'a Z) -> Self {
        Self(zones)
    }
}

const HEAD: &str = "ITEM                             SIZE      LIMIT       USED       FREE          REQ     FAIL    SLEEP XDOMAIN";

impl<Z: Zones + ?Sized> fmt::Display for Table<'_, Z> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}")?;
        self.0.try_each(&mut |ZoneInfo { name, stats, .. }| {
            writeln!(
                f,
                "{name:<31} {:>5} {:>10} {:>10} {:>10} {:>12} {:>8} {:>8} {:>7}",
                stats.size,
                stats.limit,
                stats.used(),
                stats.free(),
                stats.allocs,
                stats.fails,
                stats.sleeps,
                0
            )
        })
    }
}
