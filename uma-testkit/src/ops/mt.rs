//! Programs for threads that take turns.
//!
//! Which thread does something, and at which step it is interrupted so that another goes on, is data: see
//! [`turns`](crate::turns).

use std::fmt;

use super::{Fault, Mode, debug_with_type, write_rust};

/// What some threads are to do with two zones of one group.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct MtProgram {
    /// How the zones are built, and how many threads there are.
    pub config: MtConfig,
    /// What is done, in this order.
    pub ops: Vec<MtOp>,
}

impl fmt::Debug for MtProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_rust(f, "MtProgram", &self.config, "MtOp", &self.ops)
    }
}

/// How the zones are built, and how many threads there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct MtConfig {
    /// Threads, less two, of four.
    pub threads: u8,
    /// CPUs, less one, of four.
    pub cpus: u8,
    /// Items in a bucket, of nine.
    pub bucket: u8,
    /// Most items of each zone; 0 for no limit.
    pub items: [u8; 2],
    /// The group's limit, in items of 32 bytes; 0 for none.
    pub group: u8,
    /// Slabs that there are pages for.
    pub slabs: u8,
    /// Whether free items are marked for a sanitizer and looked up at each free.
    pub checked: bool,
}

/// How long an allocation waits at a limit.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[allow(missing_docs, reason = "the names say it")]
pub enum Patience {
    Nowait,
    Until,
    Wait,
}

debug_with_type!(Patience { Nowait, Until, Wait });

/// One thing to do. `thread` does it on `cpu`; if it is in the middle of something or asleep, that goes on first,
/// and if it cannot, the next thread that is idle does it. `i` picks an item that is out, whoever took it. A fault
/// comes at the `k`-th call from now, 0 being the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[allow(missing_docs, reason = "the fields are explained above, or where they are used")]
pub enum MtOp {
    /// Takes an item.
    Alloc { thread: u8, cpu: u8, zone: u8, patience: Patience },
    /// Takes 1 to 8 items at once.
    AllocMany { thread: u8, cpu: u8, zone: u8, n: u8 },
    /// Gives 1 to 4 items back.
    Free { thread: u8, cpu: u8, zone: u8, i: u8, times: u8 },
    /// Gives up to 8 items back at once.
    FreeMany { thread: u8, cpu: u8, zone: u8, i: u8, n: u8 },
    /// Leaves an item to the thread, which gives it back as it ends.
    Keep { thread: u8, zone: u8, i: u8 },
    /// The thread ends, and another takes its place.
    End { thread: u8 },
    /// Gives back what is held beyond need.
    Reclaim { thread: u8, cpu: u8, zone: u8, mode: Mode },
    /// Changes the limit of a zone; 0 lifts it.
    SetMaxItems { thread: u8, zone: u8, max: u8 },
    /// Changes the limit of the group; 0 lifts it.
    SetMaxBytes { thread: u8, max: u8 },
    /// Waits until no item of a zone is in use.
    WaitUnused { thread: u8, cpu: u8, zone: u8 },
    /// Whoever gets something to do next is interrupted at the so-manieth step of it.
    Interrupt { after: u8 },
    /// Who was interrupted goes on, or who was woken, or whose time has come.
    Go { thread: u8 },
    /// Who sleeps wakes up for nothing.
    WakeForNothing { thread: u8 },
    /// Time passes.
    Tick { by: u8 },
    /// A request for pages fails.
    PagesFail { k: u8 },
    /// A request for bookkeeping memory fails.
    MetadataFail { k: u8 },
    /// A hook of a zone fails.
    HookFails { zone: u8, fault: Fault, k: u8 },
    /// Nothing fails any more.
    NoFaults,
    /// Checks the contents of all items.
    Verify,
}
