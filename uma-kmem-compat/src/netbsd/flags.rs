//! The flags, with the values that they have in NetBSD 10 (`sys/pool.h`, `sys/kmem.h`, `sys/vmem.h`).

use bitflags::bitflags;

bitflags! {
    /// `PR_*`: how to get an item, and what kind of pool.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PoolFlags: i32 {
        /// `PR_WAITOK`: waits at the hard limit, and for memory.
        const WAITOK = 0x1;
        /// `PR_NOWAIT`: fails instead.
        const NOWAIT = 0x2;
        /// `PR_LIMITFAIL`: with `WAITOK`, fails at the hard limit all the same.
        const LIMITFAIL = 0x100;
        /// `PR_ZERO`: the item is filled with zeros.
        const ZERO = 0x8000;

        /// `PR_RECURSIVE`, of a pool: it supplies others with pages. Accounting, in NetBSD.
        const RECURSIVE = 0x200;
        /// `PR_NOTOUCH`, of a pool: nothing is written into free items. Nothing ever is.
        const NOTOUCH = 0x400;
        /// `PR_NOALIGN`, of a pool: its allocator may return pages that are not aligned to their size.
        const NOALIGN = 0x800;
        /// `PR_LARGECACHE`, of a cache: groups of 63 objects instead of 15.
        const LARGECACHE = 0x1000;
        /// `PR_PSERIALIZE`, of a pool: readers may look at what was freed until a passive serialization; see
        /// [`set_pserialize`](super::set_pserialize).
        const PSERIALIZE = 0x20000;

        // The rest is accepted and means nothing here.
        const _ = !0;
    }
}

bitflags! {
    /// `KM_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct KmFlags: u32 {
        /// `KM_SLEEP`: waits for memory.
        const SLEEP = 0x1;
        /// `KM_NOSLEEP`: fails instead.
        const NOSLEEP = 0x2;
        const _ = !0;
    }
}

bitflags! {
    /// `VM_*` of vmem(9).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VmFlags: u32 {
        /// `VM_SLEEP`: waits for room.
        const SLEEP = 0x1;
        /// `VM_NOSLEEP`: fails instead.
        const NOSLEEP = 0x2;
        /// `VM_INSTANTFIT`: in constant time.
        const INSTANTFIT = 0x1000;
        /// `VM_BESTFIT`: the smallest that fits.
        const BESTFIT = 0x2000;
        /// `VM_BOOTSTRAP`: nothing here.
        const BOOTSTRAP = 0x1_0000;
        /// `VM_POPULATING`: nothing here.
        const POPULATING = 0x4_0000;
        /// `VM_LARGEIMPORT`, of an arena: imports 16 times as much as it needs.
        const LARGEIMPORT = 0x8_0000;
        /// `VM_XIMPORT`: set by `vmem_xcreate`.
        const XIMPORT = 0x10_0000;
        const _ = !0;
    }
}
