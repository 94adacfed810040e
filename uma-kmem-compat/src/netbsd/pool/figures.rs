//! What a pool tells of itself.

use core::ptr::NonNull;

use uma::Reclaim;
use uma::core::Stats;

use super::Pool;
use crate::netbsd::PoolStats;
use crate::sync::Ordering;

impl Pool {
    /// Items in use, as the pages have it: a second put of an item is not counted.
    pub fn out(&self) -> u64 {
        Self::out_of(&self.zone.stats())
    }

    pub(super) fn out_of(zone: &Stats) -> u64 {
        (zone.slabs * u64::from(zone.per_slab)).saturating_sub(zone.free())
    }

    /// Pages that the pool has.
    #[cfg(feature = "capi")]
    pub(in crate::netbsd) fn pages(&self) -> u64 {
        self.zone.stats().slabs + self.supply.idle() as u64
    }

    /// Bytes of its pages in use.
    #[cfg(feature = "capi")]
    pub(in crate::netbsd) fn bytes(&self) -> u64 {
        self.zone.stats().bytes
    }

    /// Calls `visit` with every item in use, after emptying the caches.
    pub fn for_each_out(&self, mut visit: impl FnMut(NonNull<u8>)) {
        self.zone.reclaim(Reclaim::DrainCpu);
        self.zone.for_each_live(|item| visit(item.as_non_null()));
    }

    /// Whether the counts agree with the pages (`pool_chk`). They do not after a second put of an item.
    pub fn is_consistent(&self) -> bool {
        let mut live = 0;
        self.zone.for_each_live(|_| live += 1);
        let stats = self.zone.stats();
        live == stats.used() + stats.cached
    }

    /// The figures.
    pub fn stats(&self) -> PoolStats {
        let zone = self.zone.stats();
        PoolStats {
            size: self.size as u64,
            align: self.align as u64,
            pages: zone.slabs + self.supply.idle() as u64,
            free: zone.free(),
            out: Self::out_of(&zone),
            gets: zone.allocs,
            puts: zone.frees,
            fails: self.fails.load(Ordering::Relaxed),
            page_allocs: self.supply.got.load(Ordering::Relaxed),
            page_frees: self.supply.gave.load(Ordering::Relaxed),
            idle: self.supply.idle() as u64,
            per_page: self.per_page,
            cached: zone.cached,
            limit: zone.limit,
            waiting: zone.sleepers,
        }
    }
}
