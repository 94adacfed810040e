//! Programs for general-purpose allocation.

use std::fmt;

use super::{Mode, write_rust};

/// What an instance of size classes is to do.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct MallocProgram {
    /// How it is built.
    pub config: MallocConfig,
    /// What is done to it.
    pub ops: Vec<MallocOp>,
}

impl fmt::Debug for MallocProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_rust(f, "MallocProgram", &self.config, "MallocOp", &self.ops)
    }
}

/// How an instance is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct MallocConfig {
    /// Which table of classes; from 128 on, on small slabs.
    pub table: u8,
    /// CPUs, less one, of four.
    pub cpus: u8,
    /// Bytes that there are, in 64 KiB.
    pub memory: u8,
}

/// A size of up to 1 MiB: `base`, shifted by up to 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Bytes {
    /// What is shifted.
    pub base: u16,
    /// By how much.
    pub shift: u8,
}

impl Bytes {
    /// The size, in bytes.
    pub fn size(self) -> usize {
        usize::from(self.base) << (self.shift % 5)
    }
}

/// One thing to do to an instance. `i` picks an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[allow(missing_docs, reason = "the fields are explained above")]
pub enum MallocOp {
    /// Allocates.
    Alloc {
        cpu: u8,
        bytes: Bytes,
    },
    /// Allocates zeroed memory.
    AllocZeroed {
        bytes: Bytes,
    },
    /// Allocates so many times.
    AllocMany {
        bytes: Bytes,
        times: u8,
    },
    /// Allocates memory aligned to a power of two of at most 2 MiB.
    AllocAligned {
        bytes: Bytes,
        align: u8,
    },
    /// Asks for more than there can be.
    AllocAbsurd {
        less: u16,
    },
    /// Frees by the pointer alone.
    Free {
        cpu: u8,
        i: u8,
    },
    /// Frees by pointer, size and alignment.
    FreeSized {
        cpu: u8,
        i: u8,
    },
    /// Frees so many.
    FreeMany {
        i: u8,
        times: u8,
    },
    /// Changes the size.
    Realloc {
        i: u8,
        bytes: Bytes,
    },
    /// Frees with another size, which is refused if it is found.
    WrongSize {
        i: u8,
        bytes: Bytes,
    },
    /// Frees a pointer into an allocation.
    Interior {
        i: u8,
        offset: u32,
    },
    /// Frees what was freed last once more, unless it has been handed out again.
    Again,
    /// The next so-manieth run of pages, or piece of bookkeeping, is not to be had.
    FailPages {
        k: u8,
    },
    FailMeta {
        k: u8,
    },
    /// Gives memory back.
    Reclaim {
        mode: Mode,
    },
    /// Compares what is said to be in use with what is.
    Live,
    /// Checks the contents of all allocations.
    Verify,
}
