//! The flags, with the values that they have in Linux 6.8 (`uma/linux/gfp.h`, `uma/linux/slab.h`).

use bitflags::bitflags;

bitflags! {
    /// `gfp_t`: how hard an allocation may try.
    ///
    /// Of these, [`ZERO`](Self::ZERO), [`DIRECT_RECLAIM`](Self::DIRECT_RECLAIM) and [`NOFAIL`](Self::NOFAIL)
    /// change what happens here. Zones of memory and placement mean nothing in a process.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Gfp: u32 {
        /// `__GFP_ZERO`: the object is filled with zeros. Not for caches with a constructor.
        const ZERO = 0x100;
        /// `__GFP_DIRECT_RECLAIM`: where there is no memory, caches may be drained, and `mempool` waits.
        const DIRECT_RECLAIM = 0x400;
        /// `__GFP_KSWAPD_RECLAIM`: nothing to wake here.
        const KSWAPD_RECLAIM = 0x800;
        /// `__GFP_IO`.
        const IO = 0x40;
        /// `__GFP_FS`.
        const FS = 0x80;
        /// `__GFP_HIGH`.
        const HIGH = 0x20;
        /// `__GFP_NOWARN`.
        const NOWARN = 0x2000;
        /// `__GFP_NOFAIL`: tries for ever.
        const NOFAIL = 0x8000;
        /// `__GFP_NORETRY`: caches are not drained.
        const NORETRY = 0x1_0000;
        /// `__GFP_NOMEMALLOC`.
        const NOMEMALLOC = 0x8_0000;
        /// `__GFP_ACCOUNT`.
        const ACCOUNT = 0x40_0000;

        /// May reclaim.
        const KERNEL = Self::DIRECT_RECLAIM.bits() | Self::KSWAPD_RECLAIM.bits() | Self::IO.bits()
            | Self::FS.bits();
        /// Fails rather than reclaim.
        const NOWAIT = Self::KSWAPD_RECLAIM.bits();
        /// As `NOWAIT`.
        const ATOMIC = Self::HIGH.bits() | Self::KSWAPD_RECLAIM.bits();

        // The rest is accepted and means nothing here.
        const _ = !0;
    }
}

bitflags! {
    /// `slab_flags_t`: what kind of cache.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SlabFlags: u32 {
        /// A free of what is no object of the cache in use is found out, reported, and not done.
        const CONSISTENCY_CHECKS = 0x100;
        /// That, and writes past an object, when it is freed.
        const RED_ZONE = 0x400;
        /// That, and writes to a free object, when it is allocated; not where memory stays what it is.
        const POISON = 0x800;
        /// Objects are aligned to cache lines, small ones to as much of one as they fill.
        const HWCACHE_ALIGN = 0x2000;
        /// Memory is memory here.
        const CACHE_DMA = 0x4000;
        /// Memory is memory here.
        const CACHE_DMA32 = 0x8000;
        /// That, and reports say who allocated and who freed.
        const STORE_USER = 0x1_0000;
        /// Means nothing here: all memory can be reclaimed. `SLAB_TEMPORARY` is the same.
        const RECLAIM_ACCOUNT = 0x2_0000;
        /// A cache that cannot be made ends the process.
        const PANIC = 0x4_0000;
        /// Memory of objects stays what it is until a grace period has passed; see
        /// [`set_grace_period`](super::set_grace_period).
        const TYPESAFE_BY_RCU = 0x8_0000;
        /// Means nothing here.
        const TRACE = 0x20_0000;
        /// Means nothing here.
        const NOLEAKTRACE = 0x80_0000;
        /// Caches are never merged.
        const NO_MERGE = 0x100_0000;
        /// Means nothing here.
        const FAILSLAB = 0x200_0000;
        /// Means nothing here.
        const ACCOUNT = 0x400_0000;
        /// Debugging by the environment is left out: there is none.
        const NO_USER_FLAGS = 0x1000_0000;
        /// Means nothing here.
        const SKIP_KFENCE = 0x2000_0000;
        /// Means nothing here.
        const NO_OBJ_EXT = 0x4000_0000;

        /// Those that have a cache look at every free.
        const DEBUG = Self::CONSISTENCY_CHECKS.bits() | Self::RED_ZONE.bits() | Self::POISON.bits()
            | Self::STORE_USER.bits();
    }
}
