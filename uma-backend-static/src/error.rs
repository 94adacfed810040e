//! Why a region cannot be added.

use core::fmt;

/// Why [`StaticPages::add`](crate::StaticPages::add) did not add a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddError {
    /// Not one page fits beside the bookkeeping.
    TooSmall,
    /// It has a byte in common with a region that is there.
    Overlaps,
    /// Another supplier has the memory.
    Claimed,
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooSmall => "the region has no room for a page beside its bookkeeping",
            Self::Overlaps => "the region overlaps one that the supplier has",
            Self::Claimed => "the memory belongs to another supplier",
        })
    }
}

impl core::error::Error for AddError {}
