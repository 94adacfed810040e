//! What can go wrong, and what can be done wrong.

use core::fmt;

use uma::core::{AllocError, Name};

/// An allocation that failed: of which instance, for what, and why. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MallocError {
    /// The instance's name.
    pub name: Name,
    /// The size asked for, in bytes.
    pub size: usize,
    /// The alignment asked for, in bytes.
    pub align: usize,
    /// Why there is no memory.
    pub fault: MallocFault,
}

/// Why an allocation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MallocFault {
    /// The size, rounded up to whole pages and the alignment, is more than an object can have.
    TooLarge,
    /// The alignment is not a power of two.
    BadAlign,
    /// There was no memory, also after every class had given back what it held.
    Alloc(AllocError),
}

impl fmt::Display for MallocFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("no object can be that large"),
            Self::BadAlign => f.write_str("the alignment is not a power of two"),
            Self::Alloc(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for MallocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, size, align, fault } = self;
        write!(f, "no {size} bytes aligned to {align} from \"{name}\": {fault}")
    }
}

impl core::error::Error for MallocError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.fault {
            MallocFault::Alloc(error) => Some(error),
            _ => None,
        }
    }
}

/// What is wrong with a pointer that was given back or asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The instance has nothing there: the pointer is not its own, or the memory has long been freed.
    Foreign,
    /// It points into memory of the instance, but not to where an allocation begins.
    Interior,
    /// It is free already.
    DoubleFree,
    /// The allocation is of another size than the caller says.
    WrongSize {
        /// What the caller says, in bytes.
        given: usize,
    },
}

/// A pointer that was refused. Nothing has been done to what it points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misuse {
    /// The instance's name.
    pub name: Name,
    /// The address.
    pub addr: usize,
    /// Bytes of the allocation, or of items of its class; 0 if there is none.
    pub size: usize,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, addr, size, fault } = self;
        match fault {
            Fault::Foreign => write!(f, "\"{name}\" has no allocation at {addr:#x}"),
            Fault::Interior => {
                write!(
                    f,
                    "no allocation of \"{name}\" begins at {addr:#x}, but {size} bytes are in use around it"
                )
            }
            Fault::DoubleFree => {
                write!(f, "double free of the {size} bytes at {addr:#x} of \"{name}\"")
            }
            Fault::WrongSize { given } => {
                write!(f, "the allocation at {addr:#x} of \"{name}\" has {size} bytes, not {given}")
            }
        }
    }
}

impl core::error::Error for Misuse {}
