//! Drains where no fence can be had: what was taken from a CPU goes back, and nothing is handed out twice.
#![cfg(not(any(loom, shuttle)))]

use std::alloc::Layout;
use std::cell::{Cell, RefCell};

use uma_cache::bucket::Owned;
use uma_cache::{BucketCache, CacheConfig, CpuLocks, PerCpu, Slots, Which};
use uma_core::{Item, ItemSource, Reclaim, Request, Stats};
use uma_testkit::machine::{self, Cpus, OneThread};
use uma_testkit::{HeapMeta, Pool};

thread_local! {
    /// The CPU for which there is no fence.
    static DEAF: Cell<Option<usize>> = const { Cell::new(None) };
    /// What happens on that CPU while a fence is asked for.
    static MEANWHILE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

struct Deaf(CpuLocks<Cpus>);

// SAFETY: as the locks; for one CPU it says that it cannot tell.
unsafe impl PerCpu for Deaf {
    fn cpus(&self) -> usize {
        self.0.cpus()
    }

    fn pop(&self, slots: Slots<'_>) -> Option<Item> {
        self.0.pop(slots)
    }

    unsafe fn push(&self, slots: Slots<'_>, item: Item) -> bool {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.push(slots, item) }
    }

    fn swap(&self, slots: Slots<'_>, which: Which, new: Owned) -> Result<Owned, Owned> {
        self.0.swap(slots, which, new)
    }

    fn fence(&self, slots: Slots<'_>, cpu: usize) -> bool {
        if DEAF.get() == Some(cpu) {
            if let Some(meanwhile) = MEANWHILE.take() {
                meanwhile();
            }
            return false;
        }
        self.0.fence(slots, cpu)
    }

    fn mode(&self) -> &'static str {
        "deaf"
    }
}

type Cache = BucketCache<&'static Pool, Deaf, OneThread, &'static HeapMeta>;

const PAIRS: CacheConfig = CacheConfig { bucket: 2, max_bucket: 2, depot: 2 };

/// A cache over a pool of ten items, with two items on each of two CPUs.
fn filled() -> (&'static Cache, &'static Pool) {
    machine::reset();
    DEAF.set(None);
    let pool: &Pool = Box::leak(Box::new(Pool::new(Layout::new::<u64>(), 10, 8)));
    let meta: &HeapMeta = Box::leak(Box::new(HeapMeta::new()));
    let cache: &Cache =
        Box::leak(Box::new(BucketCache::new(pool, Deaf(CpuLocks::new(Cpus(2))), meta, PAIRS)));
    let items = take(cache, 8);
    for (at, item) in items.into_iter().enumerate() {
        machine::run_on(at / 4);
        // SAFETY: it came from there, and goes back once.
        unsafe { cache.free(item) };
    }
    (cache, pool)
}

fn take(cache: &Cache, count: usize) -> Vec<Item> {
    let items: Vec<_> = (0..count).map(|_| cache.alloc(Request::NOWAIT).unwrap()).collect();
    let mut addresses: Vec<_> = items.iter().map(|item| item.addr()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), count, "an item is handed out twice");
    items
}

fn give(cache: &Cache, items: Vec<Item>) {
    for item in items {
        // SAFETY: they came from there, and go back once.
        unsafe { cache.free(item) };
    }
}

#[test]
fn what_cannot_be_had_stays_where_it_is() {
    let (cache, pool) = filled();
    DEAF.set(Some(1));
    cache.reclaim(Reclaim::DrainCpu);
    let left = pool.out();
    assert!(left > 0 && left <= 4, "{left} items are in one CPU's buckets");
    // To look at them takes a fence, too.
    cache.visit_stats(&mut Stats::default());
    cache.reclaim(Reclaim::DrainCpu);
    assert_eq!(pool.out(), left);
    // They are still there for that CPU, and it goes on.
    machine::run_on(1);
    let items = take(cache, left);
    assert_eq!(pool.out(), left, "a hit");
    let more = take(cache, 10 - left);
    give(cache, items);
    give(cache, more);
    // And for everybody, as soon as it can be told.
    DEAF.set(None);
    cache.reclaim(Reclaim::DrainCpu);
    assert_eq!(pool.out(), 0);
    assert_eq!(machine::complaints(), [""; 0]);
}

/// If the CPU has put another bucket in meanwhile, what was taken is free to use.
#[test]
fn another_bucket_has_taken_its_place() {
    let (cache, pool) = filled();
    DEAF.set(Some(1));
    machine::run_on(0);
    // As another thread would. (So what the machine notes, that a lock is held meanwhile, is the drain's.)
    MEANWHILE.set(Some(Box::new(|| {
        machine::run_on(1);
        let items = take(cache, 1);
        give(cache, items);
        machine::run_on(0);
    })));
    cache.reclaim(Reclaim::DrainCpu);
    assert!(MEANWHILE.take().is_none());
    machine::run_on(1);
    let items = take(cache, 10);
    give(cache, items);
    DEAF.set(None);
    cache.reclaim(Reclaim::DrainCpu);
    assert_eq!(pool.out(), 0, "a bucket was lost");
}
