//! What went wrong, in which arena.

use core::fmt;

use uma_core::Name;

/// Why an arena did not do what it was asked to.
///
/// Addresses and sizes are in the arena's own units. Most of these are panics in the originals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VmemFault {
    /// The quantum is not a power of two.
    BadQuantum(usize),
    /// A size of 0.
    ZeroSize,
    /// The size, rounded up to the quantum, is beyond any address.
    Overflow(usize),
    /// A span that does not begin and end at a multiple of the quantum.
    Unaligned {
        /// Where it begins.
        base: usize,
        /// Its size.
        size: usize,
    },
    /// A span that goes beyond the last address, or with which the arena would have more addresses
    /// than can be counted.
    TooLarge {
        /// Where it begins.
        base: usize,
        /// Its size.
        size: usize,
    },
    /// A span of which the arena has a part already.
    Overlap {
        /// Where it begins.
        base: usize,
        /// Its size.
        size: usize,
    },
    /// The alignment is not a power of two, or less than the quantum.
    BadAlign(usize),
    /// The phase is no multiple of the quantum, or not below the alignment.
    BadPhase(usize),
    /// The boundary not to cross is not a power of two, or less than the quantum.
    BadNocross(usize),
    /// No range of this size can be so aligned and not cross such a boundary.
    Overconstrained,
    /// The lowest address allowed is above the highest.
    BadRange {
        /// The lowest.
        min: usize,
        /// The highest.
        max: usize,
    },
    /// There is no room that fits, and the caller would not or could not wait.
    Exhausted {
        /// The size asked for.
        size: usize,
        /// Free addresses in all, in pieces that did not fit.
        free: usize,
    },
    /// The deadline passed while waiting for room.
    TimedOut {
        /// The size asked for.
        size: usize,
    },
    /// Another caller has the lock of the arena, and this one would not wait for it.
    Busy,
    /// No memory for tags.
    Metadata,
    /// The parent gave a span that does not fit what it was asked for.
    BadImport {
        /// Where the span begins.
        base: usize,
        /// Its size.
        size: usize,
        /// The size asked for.
        wanted: usize,
    },
    /// The segment was freed, but the parent did not take the span back that it lay in.
    NotTaken {
        /// Where the span begins.
        base: usize,
        /// Its size.
        size: usize,
    },
    /// Freed: an address that the arena does not have.
    Foreign {
        /// The address.
        addr: usize,
        /// The size that it was freed with.
        size: usize,
    },
    /// Freed: an address at which no allocated segment begins. It was freed before, or lies inside one.
    NotAllocated {
        /// The address.
        addr: usize,
        /// The size that it was freed with.
        size: usize,
    },
    /// Freed: with another size than it was allocated with.
    WrongSize {
        /// The address.
        addr: usize,
        /// The size that it was freed with.
        size: usize,
        /// The size that it was allocated with.
        allocated: usize,
    },
    /// More walks at the same time than the arena can keep track of.
    TooManyWalks,
}

impl fmt::Display for VmemFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadQuantum(quantum) => {
                write!(f, "the quantum {quantum:#x} is not a power of two")
            }
            Self::ZeroSize => f.write_str("a size of 0"),
            Self::Overflow(size) => {
                write!(f, "the size {size:#x}, rounded up to the quantum, is beyond any address")
            }
            Self::Unaligned { base, size } => write!(
                f,
                "the span of {size:#x} at {base:#x} does not begin and end at a multiple of the quantum"
            ),
            Self::TooLarge { base, size } => {
                write!(f, "the span of {size:#x} at {base:#x} has addresses beyond the last")
            }
            Self::Overlap { base, size } => {
                write!(f, "the arena has a part of the span of {size:#x} at {base:#x} already")
            }
            Self::BadAlign(align) => {
                write!(f, "the alignment {align:#x} is not a power of two from the quantum on")
            }
            Self::BadPhase(phase) => write!(
                f,
                "the phase {phase:#x} is not a multiple of the quantum below the alignment"
            ),
            Self::BadNocross(nocross) => {
                write!(f, "the boundary {nocross:#x} is not a power of two from the quantum on")
            }
            Self::Overconstrained => {
                f.write_str("no range of this size and alignment fits between two boundaries")
            }
            Self::BadRange { min, max } => {
                write!(f, "the lowest address allowed, {min:#x}, is above the highest, {max:#x}")
            }
            Self::Exhausted { size, free } => {
                write!(f, "no room for {size:#x} (free in all: {free:#x})")
            }
            Self::TimedOut { size } => {
                write!(f, "the deadline passed while waiting for room for {size:#x}")
            }
            Self::Busy => f.write_str("another caller has the lock"),
            Self::Metadata => f.write_str("no memory for boundary tags"),
            Self::BadImport { base, size, wanted } => write!(
                f,
                "asked for a span of {wanted:#x}, the parent gave {size:#x} at {base:#x}, which does not fit"
            ),
            Self::NotTaken { base, size } => write!(
                f,
                "freed, but the parent did not take back the span of {size:#x} at {base:#x}"
            ),
            Self::Foreign { addr, size } => {
                write!(f, "free of {size:#x} at {addr:#x}, which the arena does not have")
            }
            Self::NotAllocated { addr, size } => write!(
                f,
                "free of {size:#x} at {addr:#x}, where no allocated segment begins (freed twice?)"
            ),
            Self::WrongSize { addr, size, allocated } => {
                write!(f, "free of {size:#x} at {addr:#x}, which was allocated with {allocated:#x}")
            }
            Self::TooManyWalks => f.write_str("too many walks at the same time"),
        }
    }
}

impl core::error::Error for VmemFault {}

/// A [`VmemFault`], and the arena in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmemError {
    /// The arena's name.
    pub arena: Name,
    /// What went wrong.
    pub fault: VmemFault,
}

impl fmt::Display for VmemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arena \"{}\": {}", self.arena, self.fault)
    }
}

impl core::error::Error for VmemError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.fault)
    }
}

/// Segments that were still allocated when their arena was destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaked {
    /// The arena's name.
    pub arena: Name,
    /// How many segments.
    pub segments: usize,
    /// How many addresses, each segment rounded up to the quantum.
    pub size: usize,
}

impl fmt::Display for Leaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arena, segments, size } = self;
        write!(
            f,
            "arena \"{arena}\": destroyed with {segments} segments of {size:#x} in all leaked"
        )
    }
}

impl core::error::Error for Leaked {}
