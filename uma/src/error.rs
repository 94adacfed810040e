//! Errors that say what was asked, of which zone, and why it failed.

use core::alloc::Layout;
use core::fmt;

use uma_core::{AllocError, Name};

/// An allocation that failed: of which zone, for what, and why.
// It has its place in the frame of whoever allocates, also on a hit: one that is larger is to be seen in
// `docs/fast-path.txt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneError {
    zone: Name,
    item: Layout,
    reason: AllocError,
}

impl ZoneError {
    pub(crate) const fn new(zone: Name, item: Layout, reason: AllocError) -> Self {
        Self { zone, item, reason }
    }

    /// The zone's name.
    pub const fn zone(&self) -> &Name {
        &self.zone
    }

    /// The layout of the zone's items.
    pub const fn item(&self) -> Layout {
        self.item
    }

    /// Why there was no item. If it is the limit of a group, the zone says
    /// [which](crate::RawZone::full_group); the error itself would grow for it.
    pub const fn reason(&self) -> AllocError {
        self.reason
    }
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { zone, item, reason } = self;
        write!(f, "no item of {} bytes from zone \"{zone}\": {reason}", item.size())
    }
}

impl core::error::Error for ZoneError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// An allocation that failed, with the value that was to be put into the item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rejected<T> {
    /// The value, unharmed.
    pub value: T,
    /// Why it could not be placed.
    pub error: ZoneError,
}

impl<T> fmt::Debug for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> core::error::Error for Rejected<T> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<T> From<Rejected<T>> for ZoneError {
    fn from(rejected: Rejected<T>) -> Self {
        rejected.error
    }
}
