//! The slow paths: what an allocation does when the `alloc` bucket is empty, and a free when both
//! buckets are full.
//!
//! Both are made of exchanges of whole buckets. A thread may be moved to another CPU between any two
//! steps; then a bucket lands in another slot than it came from, which is as good.
//!
//! ```text
//!   alloc:  own free bucket  ->  full bucket of the depot  ->  empty bucket + import  ->  one item
//!   free:   trade the own free bucket for an empty one of the depot                   ->  one item
//! ```
//!
//! Whatever is in a thread's hand meanwhile is held by a guard of [`crate::hand`], so a hook may unwind anywhere.

use core::ops::RangeInclusive;

use lock_api::{MutexGuard, RawMutex};
use uma_core::{AllocError, Item, ItemSource, Metadata, Request};

use crate::bucket::{Owned, Traffic, next_capacity};
use crate::depot::Depot;
use crate::hand::{Busy, Hand, Taken, Underway};
use crate::sync::{Ordering, fence};
use crate::{BucketCache, PerCpu, Which};

/// How often a caller about to fail for want of items looks again while others have some in hand.
pub(crate) const PATIENCE: u32 = if cfg!(loom) { 2 } else { 100 };
/// How often it looks again in any case.
const MOMENT: u32 = if cfg!(loom) { 0 } else { 2 };

/// Buckets grow when they were found too small so many times.
const GROW_AFTER: u32 = 4;

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> BucketCache<S, C, L, M> {
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_slow(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        if self.may_cache() {
            match self.refill(request) {
                Ok(Some(item)) => return Ok(item),
                // A shortage may end when caches are flushed, or by waiting: one item will do then.
                Err(error) if !error.is_shortage() => return Err(error),
                Ok(None) | Err(_) => {}
            }
        }
        // From above down: what the caller gives back lands in our buckets first.
        let mut flush_all = || {
            flush();
            self.flush();
        };
        let mut before = self.busy.load(Ordering::SeqCst);
        let mut result = self.source.alloc_or_flush(request, &mut flush_all);
        if result.is_err_and(AllocError::is_shortage) {
            // Others may have had the items in hand, on their way from one place to another: a moment
            // between two slots, or longer where it is counted.
            let _hungry = Busy::new(&self.hungry);
            for again in 0..PATIENCE {
                let now = self.busy.load(Ordering::SeqCst);
                let undisturbed = now == before && Busy::none(now);
                if !result.is_err_and(AllocError::is_shortage) || (again >= MOMENT && undisturbed) {
                    break;
                }
                self.percpu.relax();
                before = self.busy.load(Ordering::SeqCst);
                result = self.source.alloc_or_flush(request.without_waiting(), &mut flush_all);
            }
        }
        let item = result?;
        self.count(Traffic { allocs: 1, frees: 0 });
        Ok(item)
    }

    /// # Safety
    ///
    /// As [`ItemSource::free`].
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn free_slow(&self, item: Item) {
        let one = [item];
        // Until a bucket has taken it, also if a hook unwinds before.
        let mut rest = Taken { cache: self, items: &one };
        if self.may_cache() {
            // SAFETY: passed on from the caller.
            unsafe { self.trade(&mut rest) };
        }
        let left = rest.items;
        core::mem::forget(rest);
        if !left.is_empty() {
            self.count(Traffic { allocs: 0, frees: 1 });
            // SAFETY: passed on from the caller; the item was not taken.
            unsafe { self.source.free(item) };
        }
    }

    /// Whether items may be put into buckets just now.
    pub(crate) fn may_cache(&self) -> bool {
        let none = self.largest.load(Ordering::Relaxed) == 0;
        if none || self.source.wanted() || self.frozen.load(Ordering::SeqCst) {
            return false;
        }
        self.make_slots();
        true
    }

    /// Gets the CPU a bucket with items, and one item for the caller. `None` if buckets cannot be
    /// had.
    fn refill(&self, request: Request) -> Result<Option<Item>, AllocError> {
        let underway = Underway::uncounted(self);
        let Some(mut spare) = self.take(Which::Free) else { return Ok(None) };
        let item;
        if let Some(first) = spare.bucket.pop() {
            item = [first];
            let taken = Taken { cache: self, items: &item };
            // The old `alloc` bucket, empty, becomes the CPU's `free` bucket.
            drop(spare.install(Which::Alloc).install(Which::Free));
            drop(underway);
            core::mem::forget(taken);
        } else if let Some(mut full) = self.trade_in(&mut spare) {
            let Some(first) = full.bucket.pop() else { return Ok(None) };
            item = [first];
            let taken = Taken { cache: self, items: &item };
            let emptied = full.install(Which::Alloc);
            // An empty bucket stays as the CPU's `free` bucket: the spare one or, if the depot took that, the
            // old `alloc` bucket.
            if spare.bucket.is_none() {
                drop(emptied.install(Which::Free));
            } else {
                drop(emptied);
                drop(spare.install(Which::Free));
            }
            drop(underway);
            core::mem::forget(taken);
        } else {
            if spare.bucket.is_none() {
                let Some(bucket) = self.empty_bucket() else { return Ok(None) };
                spare.bucket = bucket;
            }
            self.count(spare.bucket.harvest());
            // The reserve is for those who ask for it, not for the caches.
            let ahead = request.without_waiting().without_reserve();
            let busy = Busy::new(&self.busy);
            let count = self.source.import(spare.bucket.room(), ahead)?;
            self.fetched.fetch_add(count, Ordering::Relaxed);
            self.strained();
            // SAFETY: the source has initialised and given us the first `count`, at most the capacity.
            unsafe { spare.bucket.filled(count as u16) };
            let Some(first) = spare.bucket.pop() else { return Ok(None) };
            item = [first];
            let taken = Taken { cache: self, items: &item };
            drop(spare.install(Which::Alloc));
            drop(busy);
            drop(underway);
            core::mem::forget(taken);
        }
        Ok(Some(item[0]))
    }

    /// Puts one item into the CPU's `free` bucket or, if that is full, trades it for an empty one. If buckets
    /// cannot be had the item stays in `rest`.
    ///
    /// # Safety
    ///
    /// The caller owns the item, and gives it up if it is not in `rest` any more.
    unsafe fn trade(&self, rest: &mut Taken<'_, '_, S, C, L, M>) {
        let _underway = Underway::uncounted(self);
        let Some(mut full) = self.take(Which::Free) else { return };
        // SAFETY: the item is the caller's.
        if unsafe { rest.put(&mut full) } {
            drop(full.install(Which::Free));
            return;
        }
        let Some(mut empty) = self.trade_off(&mut full) else {
            drop(full.install(Which::Free));
            return;
        };
        // SAFETY: as above.
        unsafe { rest.put(&mut empty) };
        // The empty one becomes the `alloc` bucket, which pushes try first: more frees are likely to
        // follow. The full one that was there waits in the other place.
        drop(empty.install(Which::Alloc).install(Which::Free));
        drop(full);
    }

    /// Takes a bucket of the CPU we are on in hand, or `None` if the slot declines.
    pub(crate) fn take(&self, which: Which) -> Option<Hand<'_, S, C, L, M>> {
        let bucket = self.percpu.swap(self.slots(), which, Owned::none()).ok()?;
        Some(Hand { cache: self, bucket })
    }

    /// Trades an empty bucket, or none, for a full one of the depot, in one visit. If the depot wants no more
    /// empty ones, it stays in hand.
    fn trade_in(&self, empty: &mut Hand<'_, S, C, L, M>) -> Option<Hand<'_, S, C, L, M>> {
        self.count(empty.bucket.harvest());
        let mut depot = self.lock_depot();
        let bucket = depot.take_full()?;
        self.put_in_hand(&mut depot, empty);
        drop(depot);
        Some(Hand { cache: self, bucket })
    }

    /// Trades a full bucket for an empty one, of the depot or new. If the depot has enough, or there was no empty
    /// one, it stays in hand.
    fn trade_off(&self, full: &mut Hand<'_, S, C, L, M>) -> Option<Hand<'_, S, C, L, M>> {
        self.count(full.bucket.harvest());
        let mut depot = self.lock_depot();
        let Some(bucket) = depot.take_empty_of(self.sizes()) else {
            drop(depot);
            return self.take_empty();
        };
        self.put_in_hand(&mut depot, full);
        drop(depot);
        Some(Hand { cache: self, bucket })
    }

    /// Leaves a harvested bucket in hand to the depot, unless that has enough.
    fn put_in_hand(&self, depot: &mut Depot, hand: &mut Hand<'_, S, C, L, M>) {
        let bucket = core::mem::replace(&mut hand.bucket, Owned::none());
        if bucket.is_none() {
            return;
        }
        // The bound is asked for under the lock: whoever lowers it empties the depot afterwards.
        if let Err(bucket) = depot.put_bounded(bucket, self.depot_most()) {
            hand.bucket = bucket;
        }
    }

    /// Takes a full bucket of the depot in hand.
    pub(crate) fn take_full(&self) -> Option<Hand<'_, S, C, L, M>> {
        let bucket = self.lock_depot().take_full()?;
        Some(Hand { cache: self, bucket })
    }

    /// Takes an empty bucket in hand.
    pub(crate) fn take_empty(&self) -> Option<Hand<'_, S, C, L, M>> {
        Some(Hand { cache: self, bucket: self.empty_bucket()? })
    }

    /// An empty bucket, from the depot or new. Those from before the buckets grew, or were bounded, are given
    /// up.
    fn empty_bucket(&self) -> Option<Owned> {
        let sizes = self.sizes();
        loop {
            let kept = self.lock_depot().take_empty();
            match kept {
                Some(bucket) if sizes.contains(&bucket.capacity()) => return Some(bucket),
                Some(unfit) => unfit.delete_in(&self.metadata),
                None if *sizes.start() == 0 => return None,
                None => return Owned::new_in(&self.metadata, *sizes.start(), self.bookkeeping),
            }
        }
    }

    /// Sizes of buckets that may be filled: from that of new ones to the largest.
    fn sizes(&self) -> RangeInclusive<u16> {
        self.new_capacity()..=self.largest.load(Ordering::Relaxed)
    }

    /// Items that a new bucket has room for.
    pub(crate) fn new_capacity(&self) -> u16 {
        let largest = self.largest.load(Ordering::Relaxed);
        self.capacity.load(Ordering::Relaxed).min(largest)
    }

    /// Locks the depot. CPUs that meet there make buckets grow: then they come less often.
    fn lock_depot(&self) -> MutexGuard<'_, L, Depot> {
        if let Some(depot) = self.depot.try_lock() {
            return depot;
        }
        self.strained();
        self.depot.lock()
    }

    /// Notes that buckets of this size are not enough: CPUs met at the depot, or a whole bucket had to be
    /// fetched from the source or left to it. Every few times buckets grow.
    fn strained(&self) {
        if self.strain.fetch_add(1, Ordering::Relaxed) % GROW_AFTER != GROW_AFTER - 1 {
            return;
        }
        // What a bound says is looked at where a bucket is made: stored here it could outlive the bound.
        let larger = next_capacity(self.capacity.load(Ordering::Relaxed));
        self.capacity.store(larger.min(self.config.max_bucket), Ordering::Relaxed);
    }

    /// Leaves a bucket to the depot, or takes it apart if the depot has enough.
    pub(crate) fn stash(&self, mut bucket: Owned) {
        if bucket.is_none() {
            return;
        }
        self.count(bucket.harvest());
        let mut depot = self.lock_depot();
        // Asked under the lock: whoever lowers the bound empties the depot afterwards.
        let refused = depot.put_bounded(bucket, self.depot_most());
        drop(depot);
        if let Err(bucket) = refused {
            self.strained();
            self.spill(bucket).delete_in(&self.metadata);
        }
    }

    /// Leaves a bucket to the depot, whatever it has.
    pub(crate) fn keep(&self, mut bucket: Owned) {
        if !bucket.is_none() {
            self.count(bucket.harvest());
            self.depot.lock().put(bucket);
        }
    }

    /// After items were put into a slot or the depot: takes them out again if somebody waits for one.
    /// The waiter counts itself first and flushes then, we cache first and look then, so one of the
    /// two finds the items.
    pub(crate) fn pass_on(&self) {
        fence(Ordering::SeqCst);
        if self.source.wanted() {
            self.flush();
        }
    }

    pub(crate) fn count(&self, traffic: Traffic) {
        if traffic.allocs != 0 {
            self.allocs.fetch_add(traffic.allocs, Ordering::Relaxed);
        }
        if traffic.frees != 0 {
            self.frees.fetch_add(traffic.frees, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::alloc::Layout;

    use uma_core::Reclaim;
    use uma_keg::{Keg, SlabConfig};
    use uma_testkit::{Fake, HeapMeta};

    use super::*;
    use crate::{CacheConfig, CpuLocks, CurrentCpu};

    #[derive(Clone, Copy)]
    struct First;

    impl CurrentCpu for First {
        fn cpus(&self) -> usize {
            1
        }

        fn current(&self) -> usize {
            0
        }
    }

    /// Whoever meets the bound of 0, and is slow to say that buckets are too small, does not say so to the
    /// caches for whom the bound has been lifted meanwhile; nor does a slow drain.
    #[test]
    fn a_bound_leaves_nothing_behind() {
        let (pages, metadata) = (Fake::new(), HeapMeta::new());
        let keg: Keg<_, parking_lot::RawMutex> =
            Keg::new(&pages, Layout::new::<u64>(), SlabConfig::new()).unwrap();
        let config = CacheConfig { bucket: 4, max_bucket: 16, depot: 64 };
        let cache: BucketCache<_, _, parking_lot::RawMutex, _> =
            BucketCache::new(keg, CpuLocks::new(First), &metadata, config);
        let slow: [&dyn Fn(); 2] =
            [&|| (0..4 * GROW_AFTER).for_each(|_| cache.strained()), &|| {
                cache.drain(Reclaim::Trim);
            }];
        for slow in slow {
            cache.set_max_cached(Some(0));
            assert_eq!(cache.new_capacity(), 0);
            // What it stores it could store as well after the next line.
            slow();
            cache.largest.store(config.max_bucket, Ordering::SeqCst);
            assert!(cache.new_capacity() >= config.bucket, "nothing is cached any more");
            cache.set_max_cached(None);
            assert_eq!(cache.new_capacity(), config.bucket);
        }
    }
}
