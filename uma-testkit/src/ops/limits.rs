//! Programs for limits: of items, of bytes in a group and in its parent, and of what is cached; with
//! callers that fail, that give up at a deadline, and tasks that wait and are dropped.

use std::fmt;

use super::{Mode, write_rust};

/// What three zones that share groups are to do.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct LimitProgram {
    /// How they are built.
    pub config: LimitConfig,
    /// What is done to them.
    pub ops: Vec<LimitOp>,
}

impl fmt::Debug for LimitProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_rust(f, "LimitProgram", &self.config, "LimitOp", &self.ops)
    }
}

/// How the zones are built. Two are in an inner group, the third in the outer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct LimitConfig {
    /// CPUs, less one, of four.
    pub cpus: u8,
    /// Items in a bucket, of nine.
    pub bucket: u8,
    /// Most items of each zone; 0 for no limit.
    pub items: [u8; 3],
    /// The outer and the inner group's limit, in items of 32 bytes; 0 for none.
    pub groups: [u8; 2],
}

/// One thing to do. `zone` is one of three; `i` picks an item or a task that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[allow(missing_docs, reason = "the fields are explained above")]
pub enum LimitOp {
    /// Allocates, and fails at a limit.
    Alloc { cpu: u8, zone: u8, times: u8 },
    /// Allocates, with a deadline that has passed.
    AllocUntil { cpu: u8, zone: u8 },
    /// Allocates as a task does: polls it once.
    AllocAsync { cpu: u8, zone: u8 },
    /// Polls a task again.
    Poll { cpu: u8, i: u8 },
    /// Drops a task.
    Cancel { cpu: u8, i: u8 },
    /// Frees items.
    Free { cpu: u8, i: u8, times: u8 },
    /// Changes a zone's limit; 0 lifts it.
    SetMaxItems { zone: u8, max: u8 },
    /// Changes a group's limit, in items of 32 bytes; 0 lifts it.
    SetMaxBytes { group: u8, max: u8 },
    /// Bounds what a zone caches; 255 lifts the bound.
    SetMaxCached { zone: u8, max: u8 },
    /// Gives back what is held beyond need.
    Reclaim { zone: u8, mode: Mode },
    /// Checks counts.
    Verify,
}
