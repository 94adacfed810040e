//! Programs for the interfaces of other systems: one vocabulary for all of them.
//!
//! An operation that a system does not have is the nearest one that it does have, or nothing: Linux has no
//! limits, and only FreeBSD has secondary zones.

use std::fmt;

use super::{debug_with_type, write_rust};

/// What one face is to do.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct CompatProgram {
    /// Which face, and how.
    pub config: CompatConfig,
    /// What is done.
    pub ops: Vec<CompatOp>,
}

impl fmt::Debug for CompatProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_rust(f, "CompatProgram", &self.config, "CompatOp", &self.ops)
    }
}

/// Which face, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct CompatConfig {
    /// The system.
    pub face: Face,
    /// Whether the system's own checks are on: `kmem_flags`, `slab_debug`, `options DIAGNOSTIC`.
    pub checked: bool,
}

/// A system whose interface it is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[allow(missing_docs, reason = "the names say it")]
pub enum Face {
    Solaris,
    Umem,
    Linux,
    Netbsd,
    Freebsd,
}

debug_with_type!(Face { Solaris, Umem, Linux, Netbsd, Freebsd });

/// How a cache, pool or zone is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct CacheConfig {
    /// See [`Self::size`].
    pub size: u16,
    /// See [`Self::align`].
    pub align: u8,
    /// Which of the system's flags, a bit for each.
    pub flags: u8,
    /// Whether objects are constructed when memory enters the cache, and taken apart when it leaves.
    pub constructed: bool,
    /// Whether something is called at each allocation and free (FreeBSD), or objects have a cache at all
    /// (NetBSD).
    pub each: bool,
    /// Whether pages come from functions, where the system has that; they can fail.
    pub pages: bool,
}

impl CacheConfig {
    /// Bytes of an object: 1 to 3000.
    pub const fn size(&self) -> usize {
        1 + self.size as usize % 3000
    }

    /// The alignment that is asked for: none (0), or 1 to 256.
    pub const fn align(&self) -> usize {
        match self.align % 10 {
            0 => 0,
            more => 1 << (more - 1),
        }
    }

    /// Whether this bit of the flags is set.
    pub const fn has(&self, bit: u32) -> bool {
        self.flags & (1 << bit) != 0
    }
}

/// How hard a request may try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct How {
    /// The memory is to be zeros.
    pub zero: bool,
    /// It may wait, where nobody would wait for ever.
    pub wait: bool,
    /// The reserve may be used, or the limit is to fail: what the system has beside.
    pub more: bool,
}

/// One thing to do. `cache` is one of four places; `i` picks what there is; a fault comes at the `k`-th call from
/// now, 0 being the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[allow(missing_docs, reason = "the fields are explained above, or where they are used")]
pub enum CompatOp {
    /// Makes a cache, if the place is free.
    Create { cache: u8, config: CacheConfig },
    /// Makes a secondary zone of one, if the other place is free.
    Second { of: u8, cache: u8, config: CacheConfig },
    /// Ends a cache; if anything is in use, that is an error and it stays.
    Destroy { cache: u8 },
    /// Takes 1 to 8 objects one by one.
    Alloc { cache: u8, how: How, times: u8 },
    /// Takes up to 32 objects at once.
    AllocBulk { cache: u8, how: How, n: u8 },
    /// Gives 1 to 8 objects back one by one.
    Free { cache: u8, i: u8, times: u8 },
    /// Gives up to `n` objects back at once.
    FreeBulk { cache: u8, i: u8, n: u8 },
    /// Takes an object apart, past the caches.
    Discard { cache: u8, i: u8 },
    /// Frees an object twice, where that is found out.
    FreeTwice { cache: u8, i: u8 },
    /// Sets objects aside and uses some of them.
    Sheaf { cache: u8, n: u8, used: u8 },
    /// Changes the limit; 255 lifts it.
    SetLimit { cache: u8, max: u8 },
    /// Makes slabs ahead.
    Prime { cache: u8, items: u8 },
    /// Has so many free objects be there, or be in reserve.
    LowWater { cache: u8, items: u8 },
    /// Has a cache give back what is free.
    Reap { cache: u8, how: u8 },
    /// Has all of them do so.
    ReapAll { how: u8 },
    /// Makes a pool of elements with a reserve on top of a cache.
    Pool { cache: u8, least: u8 },
    /// Takes an element.
    PoolAlloc { how: How },
    /// Gives an element back.
    PoolFree { i: u8 },
    /// Changes the size of the reserve.
    PoolResize { least: u8 },
    /// A request for an element fails, and those after it.
    PoolFails { k: u8 },
    /// Ends the pool, when its elements are back.
    PoolEnd,
    /// Takes memory of any size: `base`, doubled so often.
    Memory { base: u16, shift: u8, align: u8, how: How },
    /// Gives memory back.
    FreeMemory { i: u8 },
    /// Changes the size of memory, where the system has that.
    Resize { i: u8, base: u16, shift: u8, how: How },
    /// Frees memory with another size, where that is found out.
    WrongSize { i: u8, base: u16, shift: u8 },
    /// Frees what is within memory.
    Interior { i: u8, offset: u16 },
    /// Frees what was freed just now.
    Again,
    /// A constructor refuses.
    CtorRefuses { cache: u8, k: u8 },
    /// A constructor unwinds.
    CtorPanics { cache: u8, k: u8 },
    /// A destructor unwinds.
    DtorPanics { cache: u8, k: u8 },
    /// A request for pages fails, where they come from functions.
    PagesFail { cache: u8, k: u8 },
    /// Nothing fails any more.
    NoFaults,
    /// Describes a cache that cannot be.
    BadCreate { what: u8 },
    /// Checks the contents of everything that is out.
    Verify,
}

/// A size: `base`, doubled up to four times.
pub const fn bytes(base: u16, shift: u8) -> usize {
    (base as usize) << (shift % 5)
}
