//! What went wrong, in which map.

use std::fmt;

use uma_core::Name;

use super::{KmFlags, MapType};
use crate::sys::Errno;

/// Why a map did not do what it was asked to. Sizes are in bytes. Most of these are assertions in the
/// original, or not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapFault {
    /// A size of 0.
    ZeroSize,
    /// More than the map can ever have room for, so aligned.
    TooLarge {
        /// The size asked for.
        size: usize,
        /// The size of the map.
        map: usize,
    },
    /// The alignment is not a power of two, or less than a page.
    BadAlign(usize),
    /// The colour is not a multiple of the page, or beyond the last one.
    BadColor(usize),
    /// The number of colours is not a power of two.
    BadColors(usize),
    /// Not just one type, or, where something is freed, anything else but a type.
    BadFlags(KmFlags),
    /// Zero-filled memory was asked for of a type that has no such choice.
    ZeroNotWired(KmFlags),
    /// Pageable memory, in a map that is not for it.
    NotPageable,
    /// There is no room, and the caller would not wait.
    Exhausted {
        /// The size asked for.
        size: usize,
        /// Free addresses in all, in pieces that did not fit.
        free: usize,
    },
    /// Another caller has the map's lock, and this one would not wait for it.
    Busy,
    /// No memory for bookkeeping.
    Metadata,
    /// The system refused.
    System {
        /// The call.
        call: &'static str,
        /// The size in question.
        size: usize,
        /// The number of its error.
        errno: Errno,
    },
    /// The map does not have this range, or it does not begin at a page.
    Foreign {
        /// Where it begins.
        addr: usize,
        /// Its size.
        size: usize,
    },
    /// A part of the range that a submap was to have is allocated.
    Taken {
        /// Where it begins.
        addr: usize,
        /// Its size.
        size: usize,
    },
    /// Nothing that is allocated begins here. It was freed before, or lies inside something.
    NotAllocated {
        /// The address.
        addr: usize,
        /// The size that the caller gave.
        size: usize,
    },
    /// It was allocated with another size.
    WrongSize {
        /// The address.
        addr: usize,
        /// The size that the caller gave.
        size: usize,
        /// The size that it was allocated with, in whole pages.
        allocated: usize,
    },
    /// It was allocated with another type.
    WrongType {
        /// The address.
        addr: usize,
        /// The type that the caller gave, or that the call is for.
        given: MapType,
        /// The type that it was allocated with.
        allocated: MapType,
    },
    /// Memory was entered here, and not removed before the addresses were freed.
    Entered {
        /// The address.
        addr: usize,
        /// How many pages.
        pages: usize,
    },
    /// Another call is at work on this allocation just now.
    InUse {
        /// The address.
        addr: usize,
    },
}

impl fmt::Display for MapFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ZeroSize => f.write_str("a size of 0"),
            Self::TooLarge { size, map } => {
                write!(f, "{size:#x} so aligned never fit into the map's {map:#x}")
            }
            Self::BadAlign(align) => {
                write!(f, "the alignment {align:#x} is not a power of two from a page on")
            }
            Self::BadColor(color) => {
                write!(f, "the colour {color:#x} is not a multiple of a page below all colours")
            }
            Self::BadColors(colors) => {
                write!(f, "the number of colours, {colors}, is not a power of two")
            }
            Self::BadFlags(flags) => {
                write!(
                    f,
                    "of the flags {flags:?}, just one must be a type, and if freed no other be"
                )
            }
            Self::ZeroNotWired(flags) => {
                write!(f, "of the flags {flags:?}, ZERO goes with WIRED only")
            }
            Self::NotPageable => f.write_str("the map is not for pageable memory"),
            Self::Exhausted { size, free } => {
                write!(f, "no room for {size:#x} (free in all: {free:#x})")
            }
            Self::Busy => f.write_str("another caller has the lock"),
            Self::Metadata => f.write_str("no memory for bookkeeping"),
            Self::System { call, size, errno } => {
                let error = std::io::Error::from_raw_os_error(errno);
                write!(f, "the system refused {call} of {size:#x}: {error}")
            }
            Self::Foreign { addr, size } => {
                write!(f, "there is no range of {size:#x} in whole pages at {addr:#x}")
            }
            Self::Taken { addr, size } => {
                write!(f, "a part of the {size:#x} at {addr:#x} is allocated")
            }
            Self::NotAllocated { addr, size } => {
                write!(f, "{size:#x} at {addr:#x}, where nothing allocated begins (freed twice?)")
            }
            Self::WrongSize { addr, size, allocated } => {
                write!(f, "{size:#x} at {addr:#x}, which was allocated with {allocated:#x}")
            }
            Self::WrongType { addr, given, allocated } => {
                write!(f, "{addr:#x} taken for {given:?}, which was allocated as {allocated:?}")
            }
            Self::Entered { addr, pages } => {
                write!(f, "free of {addr:#x}, where {pages} pages were entered and not removed")
            }
            Self::InUse { addr } => {
                write!(f, "another call is at work on what is allocated at {addr:#x}")
            }
        }
    }
}

impl std::error::Error for MapFault {}

/// A [`MapFault`], and the map in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapError {
    /// The map's name.
    pub map: Name,
    /// What went wrong.
    pub fault: MapFault,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "map \"{}\": {}", self.map, self.fault)
    }
}

impl std::error::Error for MapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.fault)
    }
}

/// Allocations that were still there when their map was destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapLeaked {
    /// The map's name.
    pub map: Name,
    /// How many.
    pub segments: usize,
    /// Bytes in all, with guard pages.
    pub size: usize,
}

impl fmt::Display for MapLeaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { map, segments, size } = self;
        write!(f, "map \"{map}\": destroyed with {segments} allocations of {size:#x} in all leaked")
    }
}

impl std::error::Error for MapLeaked {}
