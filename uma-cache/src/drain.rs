//! Taking items out of the cache: flushes for waiting callers, reclaim, and the census.
//!
//! Taking another CPU's buckets: exchange its pointers with the empty bucket, fence, and only then
//! look at what was taken. CPUs are done in groups so that one fence can serve many. Where no fence can be had, what
//! was taken goes back unseen, and the next drain tries again.

use core::ptr::NonNull;

use lock_api::RawMutex;
use uma_core::{ItemSource, Metadata, Reclaim, Stats};

use crate::bucket::{Bucket, Owned};
use crate::hand::{Busy, Underway};
use crate::sync::Ordering;
use crate::{BucketCache, PerCpu, Which};

/// CPUs whose buckets are taken with one fence: their pointers wait in an array on the stack.
const GROUP: usize = 32;

/// Runs what is left to do when it is dropped, also if a hook unwinds before.
pub(crate) struct Finally<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// An empty bucket left over when a hook unwinds, deleted.
struct Leftover<'a, M: Metadata> {
    metadata: &'a M,
    bucket: Owned,
}

impl<M: Metadata> Drop for Leftover<'_, M> {
    fn drop(&mut self) {
        core::mem::replace(&mut self.bucket, Owned::none()).delete_in(self.metadata);
    }
}

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> BucketCache<S, C, L, M> {
    /// Gives every cached item back to the source.
    pub(crate) fn flush(&self) {
        self.collect();
        self.empty_depot(0);
    }

    /// Moves the buckets of all CPUs to the depot.
    pub(crate) fn collect(&self) {
        self.detach_all(&mut |_, _, bucket| self.keep(bucket));
    }

    /// Gives back what `mode` says, all of it also if a hook unwinds. Returns whether there was anything that had
    /// to be looked at below.
    pub(crate) fn drain(&self, mode: Reclaim) -> bool {
        if mode == Reclaim::DrainCpu {
            self.collect();
        }
        let mut depot = self.depot.lock();
        // Under the lock, so that of two that end a period at once the second finds nothing.
        let fetched = self.fetched.swap(0, Ordering::Relaxed);
        let (need, without_idle) = depot.end_period(fetched);
        let before = depot.items();
        drop(depot);
        let keep = match mode {
            Reclaim::Idle if without_idle == before => return false,
            Reclaim::Idle => without_idle,
            Reclaim::Trim => need,
            Reclaim::Drain | Reclaim::DrainCpu => 0,
        };
        let _emptied = Finally(|| {
            if mode != Reclaim::Idle {
                // Buckets that grew in a rush start small again.
                self.capacity.store(self.config.bucket, Ordering::Relaxed);
            }
            self.delete_empty();
        });
        self.empty_depot(keep);
        true
    }

    /// Gives the memory of the depot's empty buckets back.
    pub(crate) fn delete_empty(&self) {
        loop {
            let bucket = self.depot.lock().take_empty();
            let Some(bucket) = bucket else { return };
            bucket.delete_in(&self.metadata);
        }
    }

    /// Gives the items of full buckets back, as long as `keep` items stay. If a hook unwinds, the others
    /// still go.
    pub(crate) fn empty_depot(&self, keep: usize) {
        struct Rest<'a, S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> {
            cache: &'a BucketCache<S, C, L, M>,
            keep: usize,
        }

        impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> Rest<'_, S, C, L, M> {
            fn run(&self) {
                loop {
                    let full = self.cache.depot.lock().take_surplus(self.keep);
                    let Some(full) = full else { return };
                    let empty = self.cache.spill(full);
                    self.cache.depot.lock().put(empty);
                }
            }
        }

        impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> Drop for Rest<'_, S, C, L, M> {
            fn drop(&mut self) {
                // After a panic; a second one aborts, as it does when the elements of a `Vec` are
                // dropped.
                self.run();
            }
        }

        let rest = Rest { cache: self, keep };
        rest.run();
        core::mem::forget(rest);
    }

    /// Gives the items of a harvested bucket back to the source, and returns it empty.
    pub(crate) fn spill(&self, bucket: Owned) -> Owned {
        let _busy = Busy::new(&self.busy);
        let mut held = Leftover { metadata: &self.metadata, bucket };
        let items = held.bucket.take_all();
        // SAFETY: the bucket owned these items, which came from the source, and gives them up. The
        // slice lies in the bucket, which nobody else has.
        unsafe { self.source.release(items) };
        let empty = core::mem::replace(&mut held.bucket, Owned::none());
        core::mem::forget(held);
        empty
    }

    /// Takes the buckets of all CPUs and hands each over, harvested or not as it is, with the lock on
    /// [`hands`](BucketCache::hands). `each` must not unwind, and take no lock but the depot's.
    fn detach_all(&self, each: &mut dyn FnMut(usize, Which, Owned)) {
        for first in (0..self.slots().count()).step_by(GROUP) {
            self.detach_group(first, each);
        }
    }

    /// The same for one group of CPUs, that which begins with `first`.
    fn detach_group(&self, first: usize, each: &mut dyn FnMut(usize, Which, Owned)) {
        let slots = self.slots();
        let group = first..slots.count().min(first + GROUP);
        let _hands = self.hands.lock();
        let mut taken = [(Bucket::empty(), Bucket::empty()); GROUP];
        let mut any = false;
        for (slot, pair) in group.clone().filter_map(|cpu| slots.get(cpu)).zip(&mut taken) {
            *pair = (slot.detach(Which::Alloc), slot.detach(Which::Free));
            any |= *pair != (Bucket::empty(), Bucket::empty());
        }
        if !any {
            return;
        }
        let passed = self.percpu.fence_range(slots, group.clone());
        for (cpu, mut pair) in group.zip(taken) {
            let any = pair != (Bucket::empty(), Bucket::empty());
            if !passed && any && !self.percpu.fence(slots, cpu) {
                self.restore(cpu, &mut pair);
            }
            // SAFETY: the exchange took them out of the slot and the fence has passed, or they would have been
            // restored; so nothing on that CPU uses them.
            let owned = |bucket: NonNull<Bucket>| unsafe { Owned::from_raw(bucket) };
            each(cpu, Which::Alloc, owned(pair.0));
            each(cpu, Which::Free, owned(pair.1));
        }
    }

    /// Puts back what was taken from a CPU that nobody can wait for; what is left in `pair` is ours. With the lock
    /// on [`hands`](BucketCache::hands).
    fn restore(&self, cpu: usize, pair: &mut (NonNull<Bucket>, NonNull<Bucket>)) {
        let Some(slot) = self.slots().get(cpu) else { return };
        for (which, bucket) in [(Which::Alloc, &mut pair.0), (Which::Free, &mut pair.1)] {
            // SAFETY: it was taken from there with the lock on hands, under which alone buckets are put back.
            if *bucket != Bucket::empty() && unsafe { slot.restore(which, *bucket) } {
                *bucket = Bucket::empty();
            }
        }
    }

    /// Shows to `each`, for every CPU that has a slot, how many items its buckets hold.
    ///
    /// It costs what exact statistics cost: a fence, and a hit in between takes the slow way once.
    pub fn visit_cpus(&self, each: &mut dyn FnMut(usize, u64)) {
        let cpus = self.slots().count();
        for first in (0..cpus).step_by(GROUP) {
            let mut held = [0; GROUP];
            self.census(first, &mut |cpu, count| held[cpu - first] += count);
            // Only now, with no bucket in hand: it may unwind.
            (first..cpus).zip(held).for_each(|(cpu, held)| each(cpu, held));
        }
    }

    /// Counts what is cached and what has been done.
    pub(crate) fn account(&self, stats: &mut Stats) {
        let cpus = self.slots().count();
        let mut cached = 0;
        for first in (0..cpus).step_by(GROUP) {
            self.census(first, &mut |_, count| cached += count);
        }
        stats.allocs = self.allocs.load(Ordering::Relaxed);
        stats.frees = self.frees.load(Ordering::Relaxed);
        stats.cached = cached + self.depot.lock().items() as u64;
        stats.bucket_size = u32::from(self.new_capacity());
        stats.slots = cpus as u32;
        stats.mode = self.percpu.mode();
    }

    /// Takes every bucket of a group of CPUs, harvests it, shows its CPU and what it holds to `each`, which
    /// must not unwind, and puts it back. A hit in between takes the slow way once.
    fn census(&self, first: usize, each: &mut dyn FnMut(usize, u64)) {
        let underway = Underway::new(self);
        let slots = self.slots();
        let mut oversize = false;
        self.detach_group(first, &mut |cpu, which, mut bucket| {
            if bucket.is_none() {
                return;
            }
            self.count(bucket.harvest());
            let (count, capacity) = (u64::from(bucket.count()), bucket.capacity());
            let back = match slots.get(cpu) {
                Some(slot) if Busy::none(self.hungry.load(Ordering::SeqCst)) => {
                    slot.put_back(which, bucket)
                }
                _ => Err(bucket),
            };
            match back {
                Ok(()) => {
                    each(cpu, count);
                    oversize |= self.too_large(capacity);
                }
                Err(bucket) => self.keep(bucket),
            }
        });
        drop(underway);
        if oversize {
            // A bound came meanwhile, and did not find what was in hand here.
            self.flush();
        }
        self.keep_bound();
    }
}
