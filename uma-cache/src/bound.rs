//! A bound on what a cache holds, and how it is lowered while the cache is in use.
//!
//! Of the items that may be cached about half may lie in slots, in two buckets for each CPU, and the rest
//! in the depot, as in `uma_zone_set_maxcache`:
//!
//! ```text
//!   largest bucket = items / (2 buckets * CPUs) / 2      at least 1, if there is one item for each
//!   depot          = items - largest bucket * 2 * CPUs
//! ```
//!
//! A hit knows nothing of it: it fills and empties the bucket that is there. So the bound lies in the size of
//! the buckets that are installed. Whoever lowers it first says so and then takes all buckets out; whoever
//! installs a bucket looks at the size afterwards. One of the two finds a bucket that is too large.

use lock_api::RawMutex;
use uma_core::{ItemSource, Metadata, Reclaim};

use crate::sync::Ordering;
use crate::{BucketCache, PerCpu};

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> BucketCache<S, C, L, M> {
    /// Bounds the items that are cached, in slots and depot together (`uma_zone_set_maxcache`), at any time;
    /// `None` lifts the bound. With fewer than two for each CPU nothing is cached.
    ///
    /// What is cached goes back to the source, so the bound holds when this returns. It does not count
    /// what threads have in hand, on its way, nor does it raise what the [`CacheConfig`](crate::CacheConfig)
    /// says. In the copy of a process that fork(2) makes, the depot may hold as much again in the beginning,
    /// until it is next used.
    pub fn set_max_cached(&self, items: Option<u64>) {
        let items = items.unwrap_or(u64::MAX);
        let config = if self.config.bucket == 0 { 0 } else { self.config.max_bucket };
        let buckets = self.buckets();
        let each = match items / buckets / 2 {
            0 => u64::from(items >= buckets),
            each => each,
        };
        // At most what is configured, so it fits.
        let largest = each.min(config.into()) as u16;
        self.bound.store(items, Ordering::SeqCst);
        self.largest.store(largest, Ordering::SeqCst);
        // Either it finds the slots, and then the exchanges in `drain` come before those of whoever installs a
        // bucket later; or the slots are made after it, and whoever finds them finds the new size.
        self.slot_count.fetch_add(0, Ordering::AcqRel);
        self.drain(Reclaim::DrainCpu);
    }

    /// The bound of [`set_max_cached`](Self::set_max_cached), if there is one.
    pub fn max_cached(&self) -> Option<u64> {
        Some(self.bound.load(Ordering::Relaxed)).filter(|&items| items != u64::MAX)
    }

    /// Buckets in slots, at most.
    fn buckets(&self) -> u64 {
        (self.percpu.cpus().max(1) as u64).saturating_mul(2)
    }

    /// Items that the depot may hold.
    pub(crate) fn depot_most(&self) -> usize {
        let most = self.config.depot.saturating_mul(self.percpu.cpus());
        let bound = self.bound.load(Ordering::SeqCst);
        if bound == u64::MAX {
            return most;
        }
        let largest = u64::from(self.largest.load(Ordering::SeqCst));
        let in_slots = self.buckets().saturating_mul(largest);
        usize::try_from(bound.saturating_sub(in_slots)).map_or(most, |rest| rest.min(most))
    }

    /// Whether a bucket of this size may not be in a slot (any more).
    pub(crate) fn too_large(&self, capacity: u16) -> bool {
        // After the exchange that put the bucket there, which is after those of whoever lowered the bound, if they
        // did not find it.
        capacity > self.largest.load(Ordering::SeqCst)
    }

    /// After a bucket was put into a slot: takes it out again if a bound came meanwhile.
    pub(crate) fn installed(&self, capacity: u16) {
        if self.too_large(capacity) {
            self.flush();
        }
    }

    /// Gives back what the depot was made to hold beyond the bound.
    pub(crate) fn keep_bound(&self) {
        if self.bound.load(Ordering::Relaxed) == u64::MAX {
            return;
        }
        loop {
            let mut depot = self.depot.lock();
            let full = if depot.items() > self.depot_most() { depot.take_full() } else { None };
            drop(depot);
            let Some(full) = full else { return };
            self.spill(full).delete_in(&self.metadata);
        }
    }
}
