//! The table of zones, and reclaim over all of them.

use core::fmt;

use uma_core::{Name, RawMutex, Stats};

use crate::Registry;

/// One zone as it was when asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneInfo {
    /// The zone's name.
    pub name: Name,
    /// Its figures.
    pub stats: Stats,
}

/// Shows the zones of a registry as `vmstat -z` does, a line each:
///
/// ```text
/// ITEM                             SIZE      LIMIT       USED       FREE          REQ     FAIL    SLEEP XDOMAIN
/// node                               48          0     812345       1203      1624690        0        0       0
/// ```
///
/// The columns are the item's size in bytes, the most items that may exist (0: no limit), items in
/// use, free items held, allocations so far, failed ones, sleeps at the limit, and frees on another
/// memory domain than the item's (always 0: there is one domain).
pub struct Table<'a, L: RawMutex>(&'a Registry<L>);

impl<L: RawMutex> Registry<L> {
    /// The zones as a table, for `Display`.
    pub const fn table(&self) -> Table<'_, L> {
        Table(self)
    }
}

pub(crate) const HEAD: &str = "ITEM                             SIZE      LIMIT       USED       FREE          REQ     FAIL    SLEEP XDOMAIN";

pub(crate) fn line(f: &mut fmt::Formatter<'_>, name: &Name, stats: &Stats) -> fmt::Result {
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
}

impl<L: RawMutex> fmt::Display for Table<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}")?;
        let mut result = Ok(());
        self.0.visit(&mut |zone| {
            if result.is_ok() {
                result = line(f, &zone.name(), &zone.stats());
            }
        });
        result
    }
}

impl<L: RawMutex> fmt::Debug for Table<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Table")
    }
}
