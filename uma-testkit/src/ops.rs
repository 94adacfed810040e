//! Programs for what is under test: the language of the property tests and of the fuzz targets.
//!
//! A program is a configuration and a list of operations. It is plain data: `Debug` prints it as Rust
//! that can be pasted into a test, and with the feature `arbitrary` it is made from a fuzzer's bytes.
//! [`run`](crate::run) executes one on a stack of layers and compares it with a model.
//!
//! *Every value of every field means something.* Numbers are reduced to what is possible where they are
//! used (the methods of [`Config`] say how), so that no program is refused and each byte counts.
//!
//! | program | for |
//! |---|---|
//! | [`Program`] | stacks of item sources: a keg, a cache, a whole zone |
//! | [`compat::CompatProgram`] | the interfaces of other systems |
//! | [`layout::Layouts`] | slab layouts |
//! | [`limits::LimitProgram`] | limits of items, bytes and caches, tasks that wait |
//! | [`malloc::MallocProgram`] | allocation of any size |
//! | [`misuse::Misuse`] | one wrong free |
//! | [`mt::MtProgram`] | threads that take turns |
//! | [`pages::PageProgram`] | page suppliers |
//! | [`typed::TypedProgram`] | zones of a Rust type, and object caches |

pub mod compat;
pub mod decisions;
pub mod layout;
pub mod limits;
pub mod malloc;
pub mod misuse;
pub mod mt;
pub mod pages;
pub mod typed;

use std::fmt;

use uma_core::Reclaim;

use crate::hooks::{CountingHooks, Hook};

/// Writes a program as Rust: the configuration, and each operation with the name of its type, which
/// the derived `Debug` of an enum leaves out.
fn write_rust(
    f: &mut fmt::Formatter<'_>,
    program: &str,
    config: &dyn fmt::Debug,
    op: &str,
    ops: &[impl fmt::Debug],
) -> fmt::Result {
    writeln!(f, "{program} {{\n    config: {config:?},\n    ops: vec![")?;
    for each in ops {
        writeln!(f, "        {op}::{each:?},")?;
    }
    write!(f, "    ],\n}}")
}

/// Implements `Debug` of an enum without fields so that the type's name is printed too.
macro_rules! debug_with_type {
    ($name:ident { $($variant:ident),+ }) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => concat!(stringify!($name), "::", stringify!($variant)),)+
                })
            }
        }
    };
}
use debug_with_type;

/// What a stack of item sources is to do.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Program {
    /// How the stack is built.
    pub config: Config,
    /// What is done to it.
    pub ops: Vec<Op>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_rust(f, "Program", &self.config, "Op", &self.ops)
    }
}

/// How a stack of item sources is built. What a layer has no use for is ignored.
///
/// Everything is small, so that a short program reaches full buckets, empty depots, limits and the end
/// of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Config {
    /// See [`Self::item`].
    pub size: u16,
    /// See [`Self::item`].
    pub align: u8,
    /// See [`Self::page_size`].
    pub page: u8,
    /// See [`Self::largest_slab`].
    pub slab: u8,
    /// Whether slab headers may lie outside.
    pub outside: bool,
    /// Whether slabs may not be touched.
    pub no_touch: bool,
    /// See [`Self::slabs`] and [`Self::quarantine`].
    pub slabs: u8,
    /// See [`Self::cpus`].
    pub cpus: u8,
    /// Whether slots are reached by pinning, and not by locks.
    pub pinned: bool,
    /// See [`Self::bucket`].
    pub bucket: u8,
    /// See [`Self::depot`].
    pub depot: u8,
    /// Most items out at once; 0 for no limit.
    pub limit: u8,
    /// Whether items are constructed.
    pub hooks: bool,
    /// Whether all counts are checked after every operation. It takes every bucket out of the caches and
    /// puts it back, so what goes wrong only in undisturbed caches needs `false`.
    pub closely: bool,
    /// Whether everything is reclaimed before the stack is dropped.
    pub reclaim_first: bool,
}

impl Config {
    /// Size and alignment of an item: 1 to 6000 bytes, aligned to at most 4096.
    pub const fn item(&self) -> (usize, usize) {
        (1 + self.size as usize % 6000, 1 << (self.align % 13))
    }

    /// Bytes in a page: 256 to 4096.
    pub const fn page_size(&self) -> usize {
        256 << (self.page % 5)
    }

    /// The largest slab for small items: 1 to 16 pages.
    pub const fn largest_slab(&self) -> usize {
        self.page_size() << (self.slab % 5)
    }

    /// Slabs that there are pages for: 1 to 16.
    pub const fn slabs(&self) -> usize {
        1 + self.slabs as usize % 16
    }

    /// Whether checks stand on the cache of a zone, and how many items are in quarantine then: 0 or 8. By
    /// what [`slabs`](Self::slabs) has no use for.
    pub const fn quarantine(&self) -> Option<u32> {
        match self.slabs / 16 % 4 {
            1 => Some(0),
            3 => Some(8),
            _ => None,
        }
    }

    /// CPUs: 1 to 4.
    pub const fn cpus(&self) -> usize {
        1 + self.cpus as usize % 4
    }

    /// Items in a bucket at first and at most: 0 to 8, and up to four times as many.
    pub const fn bucket(&self) -> (u16, u16) {
        let first = self.bucket % 9;
        (first as u16, first as u16 * (1 + (self.bucket / 9) as u16 % 4))
    }

    /// Items in the depot for each CPU: 0 to 15.
    pub const fn depot(&self) -> usize {
        self.depot as usize % 16
    }
}

/// One thing to do to a stack of item sources.
///
/// `cpu` is the CPU that it is done on; the number after the last CPU stands for one without a slot.
/// `i` picks one of the items that are out. A fault comes at the `k`-th call from now, 0 being the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[allow(missing_docs, reason = "the fields are explained above, or where they are used")]
pub enum Op {
    /// Takes 1 to 8 items one by one.
    Alloc { cpu: u8, times: u8 },
    /// Takes an item filled with zeros.
    AllocZeroed { cpu: u8 },
    /// Takes an item that may be of the reserve.
    AllocFromReserve { cpu: u8 },
    /// Takes an item and waits for it at the limit; up to 3 items are freed meanwhile, on any CPU.
    AllocWaiting { cpu: u8, frees: u8 },
    /// Takes an item; if there is none, up to 3 others are given back before it fails.
    AllocOrFlush { cpu: u8, gives: u8 },
    /// Takes up to `n` items at once, at least one.
    AllocBatch { cpu: u8, n: u8 },
    /// Gives 1 to 8 items back one by one.
    Free { cpu: u8, i: u16, times: u8 },
    /// Gives up to `n` items back at once.
    FreeBatch { cpu: u8, i: u16, n: u8 },
    /// Gives an item back that no cache may keep.
    Discard { cpu: u8, i: u16 },
    /// Gives back what is held beyond need.
    Reclaim { mode: Mode },
    /// Changes the limit; 0 lifts it.
    SetLimit { max: u8 },
    /// Changes the keg's reserve.
    SetReserve { items: u8 },
    /// Makes slabs ahead.
    Prealloc { items: u8 },
    /// A request for pages fails.
    PagesFail { k: u8 },
    /// A request for bookkeeping memory fails.
    MetadataFail { k: u8 },
    /// A hook fails.
    HookFails { fault: Fault, k: u8 },
    /// Nothing fails any more.
    NoFaults,
    /// The thread moves to the next CPU whenever it has asked so often which one it is on; 0 for never.
    Migrate { every: u8 },
    /// When the CPU is asked for the `after`-th time from now (from 1 on), another thread runs.
    Interrupt { after: u8, other: Other },
    /// So many locks are found taken at the first try.
    Contend { times: u8 },
    /// Somebody waits for an item below the caches, or no longer does.
    Want { on: bool },
    /// The process is copied.
    Fork,
    /// Checks the counts.
    Stats,
    /// Checks the counts and the contents of all items.
    Verify,
}

/// [`Reclaim`], made by a fuzzer and printed as Rust.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[allow(missing_docs, reason = "as in `Reclaim`")]
pub enum Mode {
    Trim,
    Drain,
    DrainCpu,
}

debug_with_type!(Mode { Trim, Drain, DrainCpu });

impl From<Mode> for Reclaim {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Trim => Self::Trim,
            Mode::Drain => Self::Drain,
            Mode::DrainCpu => Self::DrainCpu,
        }
    }
}

/// What another thread does.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[allow(missing_docs, reason = "the names say it")]
pub enum Other {
    AllocOnFirst,
    AllocOnSecond,
    FreeOnFirst,
    FreeOnSecond,
    DrainCpu,
    /// As [`Op::Want`].
    Want,
}

debug_with_type!(Other { AllocOnFirst, AllocOnSecond, FreeOnFirst, FreeOnSecond, DrainCpu, Want });

/// How a hook fails.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[allow(missing_docs, reason = "the names say it")]
pub enum Fault {
    InitRefuses,
    CtorRefuses,
    InitPanics,
    CtorPanics,
    DtorPanics,
    FiniPanics,
}

debug_with_type!(Fault {
    InitRefuses,
    CtorRefuses,
    InitPanics,
    CtorPanics,
    DtorPanics,
    FiniPanics
});

impl Fault {
    /// Plans it for the `k`-th call from now, 0 being the next.
    ///
    /// One panic is planned at a time: a fini that panicked after a dtor did would end the process.
    pub fn plan(self, hooks: &CountingHooks, k: u64) {
        if !matches!(self, Self::InitRefuses | Self::CtorRefuses) {
            hooks.never();
        }
        match self {
            Self::InitRefuses => hooks.refuse_at(Hook::Init, k + 1),
            Self::CtorRefuses => hooks.refuse_at(Hook::Ctor, k + 1),
            Self::InitPanics => hooks.panic_at(Hook::Init, k + 1),
            Self::CtorPanics => hooks.panic_at(Hook::Ctor, k + 1),
            Self::DtorPanics => hooks.panic_at(Hook::Dtor, k + 1),
            Self::FiniPanics => hooks.panic_at(Hook::Fini, k + 1),
        }
    }
}
