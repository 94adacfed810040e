//! What zones report, as programs and people read it.
//!
//! | form | for | by |
//! |---|---|---|
//! | [`Table`] | people: the columns of `vmstat -z` | `Display` |
//! | [`Json`] | programs: everything that [`Stats`] has | `Display` |
//! | [`Prometheus`] | monitoring: the text format, one family a figure | `Display` |
//! | [`stream`] | tools: the records of FreeBSD's `vm.zone_stats` | bytes |
//!
//! They show [`Zones`]: a [`Registry`], which is asked while it is shown, or a list of [`ZoneInfo`] taken
//! down before. None of them allocates, or holds a lock while it writes.

mod json;
mod prometheus;
pub mod stream;
mod table;

use core::fmt;

use uma_core::{Name, RawMutex, Stats};

pub use json::Json;
pub use prometheus::Prometheus;
pub use table::Table;

use crate::{Registry, ZoneFlags, ZoneRef};

/// One zone as it was when asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneInfo {
    /// The zone's name.
    pub name: Name,
    /// Its figures.
    pub stats: Stats,
    /// Its flags.
    pub flags: ZoneFlags,
    /// The zone on whose slabs it stands, if it is a secondary zone.
    pub primary: Option<Name>,
}

impl ZoneInfo {
    /// Of a zone of a registry, as it is now.
    pub(crate) fn of(zone: ZoneRef<'_>) -> Self {
        let (name, stats) = (zone.name(), zone.stats());
        Self { name, stats, flags: zone.flags(), primary: zone.primary() }
    }
}

/// Zones whose figures can be shown.
pub trait Zones {
    /// Shows them in turn, until `each` fails.
    ///
    /// # Errors
    ///
    /// What `each` returned.
    fn try_each(&self, each: &mut dyn FnMut(&ZoneInfo) -> fmt::Result) -> fmt::Result;
}

impl Zones for [ZoneInfo] {
    fn try_each(&self, each: &mut dyn FnMut(&ZoneInfo) -> fmt::Result) -> fmt::Result {
        self.iter().try_for_each(each)
    }
}

impl<L: RawMutex> Zones for Registry<L> {
    fn try_each(&self, each: &mut dyn FnMut(&ZoneInfo) -> fmt::Result) -> fmt::Result {
        let mut result = Ok(());
        self.visit(&mut |zone| {
            if result.is_ok() {
                result = each(&ZoneInfo::of(zone));
            }
        });
        result
    }
}

impl<L: RawMutex> Registry<L> {
    /// The zones as a table, for `Display`.
    pub const fn table(&self) -> Table<'_, Self> {
        Table(self)
    }

    /// The zones as JSON, for `Display`.
    pub const fn json(&self) -> Json<'_, Self> {
        Json(self)
    }
}
