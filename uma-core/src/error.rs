//! Why something could not be had.

use core::alloc::Layout;
use core::fmt;

use crate::Name;

/// Why a page supplier gave no run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageError {
    /// The supplier has nothing left that fits. It may have later.
    Exhausted,
    /// The size is zero or not a multiple of the page size.
    BadSize,
    /// The alignment is more than this supplier can give.
    BadAlign,
    /// The system refused, with this error number.
    System(i32),
    /// The supplier whose run it is has no such power.
    Unsupported,
}

impl PageError {
    /// Refuses what no supplier can give: a size of zero, or one that is no multiple of `page_size`.
    ///
    /// # Errors
    ///
    /// [`PageError::BadSize`] in those two cases.
    pub const fn check(layout: Layout, page_size: usize) -> Result<(), Self> {
        if layout.size() == 0 || !layout.size().is_multiple_of(page_size) {
            return Err(Self::BadSize);
        }
        Ok(())
    }
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted => f.write_str("the page supplier is exhausted"),
            Self::BadSize => f.write_str("a page run must be a positive multiple of the page size"),
            Self::BadAlign => f.write_str("the page supplier cannot align a run that much"),
            // ENOMEM has this number on every Unix.
            Self::System(12) => {
                f.write_str("the system has no more memory or address space to give (error 12)")
            }
            Self::System(code) => {
                write!(f, "the system refused to supply pages (error {code})")
            }
            Self::Unsupported => f.write_str("the page supplier cannot do that to its runs"),
        }
    }
}

impl core::error::Error for PageError {}

/// Why an item could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocError {
    /// As many items exist as the limit allows, and the caller would not or could not wait.
    Limit,
    /// The zones of a group hold as many bytes as its limit allows, and the caller would not or could not
    /// wait.
    GroupLimit,
    /// The deadline passed while waiting at the limit.
    TimedOut,
    /// No pages for a new slab.
    Pages(PageError),
    /// No memory for the allocator's own bookkeeping.
    Metadata,
    /// The source that the zone was put over has no item just now.
    Source,
    /// The init or ctor hook refused.
    Refused,
    /// What was asked for cannot be served by this source at all, now or later.
    Unsupported,
}

impl AllocError {
    /// Whether free items held in caches could have served the request: the failures after which it
    /// is worth draining caches and trying again.
    pub const fn is_shortage(self) -> bool {
        matches!(
            self,
            Self::Limit
                | Self::GroupLimit
                | Self::Metadata
                | Self::Source
                | Self::Pages(PageError::Exhausted | PageError::System(_))
        )
    }
}

impl From<PageError> for AllocError {
    fn from(error: PageError) -> Self {
        Self::Pages(error)
    }
}

impl From<Refused> for AllocError {
    fn from(_: Refused) -> Self {
        Self::Refused
    }
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit => f.write_str("the zone is at its limit of items"),
            Self::GroupLimit => f.write_str("the zone's group is at its limit of bytes"),
            Self::TimedOut => f.write_str("the deadline passed while waiting at the zone's limit"),
            Self::Pages(error) => error.fmt(f),
            Self::Metadata => f.write_str("no memory for the allocator's own bookkeeping"),
            Self::Source => f.write_str("the source below the zone has no item"),
            Self::Refused => f.write_str("the zone's init or ctor refused"),
            Self::Unsupported => f.write_str("the zone cannot serve such a request"),
        }
    }
}

impl core::error::Error for AllocError {}

/// What an init or ctor hook returns to say that it could not do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the hook refused")
    }
}

impl core::error::Error for Refused {}

/// What is wrong with the configuration of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigFault {
    /// The item size is zero.
    ZeroSize,
    /// The alignment is not a power of two, or an alignment mask not one less than one.
    BadAlign,
    /// The alignment is above the largest supported, which is given.
    AlignTooLarge(usize),
    /// The size is above the largest supported, which is given.
    SizeTooLarge(usize),
    /// Size rounded up to the alignment overflows.
    Overflow,
    /// The limit is zero items.
    ZeroLimit,
    /// Such a zone needs a feature that is not compiled in, which is named.
    NeedsFeature(&'static str),
    /// Two things were asked for that exclude each other, both of which are named.
    Conflict(&'static str, &'static str),
    /// The memory for the zone itself could not be had.
    NoMemory,
    /// The memory for all its items, which it is to have from the beginning, could not be had.
    NoBacking(AllocError),
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroSize => f.write_str("items must have a size"),
            Self::BadAlign => f.write_str("the alignment is not a power of two"),
            Self::AlignTooLarge(most) => write!(f, "the alignment is above {most} bytes"),
            Self::SizeTooLarge(most) => write!(f, "the size is above {most} bytes"),
            Self::Overflow => f.write_str("the size rounded up to the alignment overflows"),
            Self::ZeroLimit => f.write_str("a limit of 0 items would allow none at all"),
            Self::NeedsFeature(feature) => {
                write!(f, "such items need the cargo feature \"{feature}\"")
            }
            Self::Conflict(one, other) => write!(f, "{one} and {other} exclude each other"),
            Self::NoMemory => f.write_str("no memory for the zone itself"),
            Self::NoBacking(why) => write!(f, "no memory for all its items: {why}"),
        }
    }
}

impl core::error::Error for ConfigFault {}

/// A zone that cannot be made: which, with what size and alignment, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The zone's name.
    pub zone: Name,
    /// The item size asked for, in bytes.
    pub size: usize,
    /// The alignment asked for, in bytes.
    pub align: usize,
    /// What is wrong.
    pub fault: ConfigFault,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { zone, size, align, fault } = self;
        write!(f, "zone \"{zone}\" of {size}-byte items aligned to {align}: {fault}")
    }
}

impl core::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.fault)
    }
}
