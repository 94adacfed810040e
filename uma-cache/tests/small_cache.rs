//! A cache so small that every path is taken often: buckets of two items, a depot of two per CPU.
//!
//! The CPU that a call runs on is chosen by the test, so everything here is deterministic.

use std::alloc::Layout;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use parking_lot::RawMutex;
use uma_cache::{BucketCache, CacheConfig, CpuLocks, CurrentCpu};
use uma_core::{
    AllocError, Constructed, Item, ItemSource, Limited, Metadata, NoSleep, Reclaim, Request, Stats,
};
use uma_keg::{Keg, NoMetadata, SlabConfig, SlabLayout};
use uma_testkit::hooks::{CountingHooks, Hook};
use uma_testkit::{Budget, Fake, HeapMeta, Pool, Rng, conformance};

const CPUS: usize = 3;
const LIMIT: u64 = 40;
const TINY: CacheConfig = CacheConfig { bucket: 2, max_bucket: 2, depot: 2 };

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

#[derive(Clone, Copy, Debug)]
struct Chosen;

impl CurrentCpu for Chosen {
    fn cpus(&self) -> usize {
        CPUS
    }

    fn current(&self) -> usize {
        CPU.get()
    }
}

type Slabs<'a> = Keg<&'a Budget<Fake>, RawMutex, NoMetadata>;
type Supply<'a> = Limited<Constructed<Slabs<'a>, &'a CountingHooks>, RawMutex, NoSleep>;
type Cache<'a> = BucketCache<Supply<'a>, CpuLocks<Chosen>, RawMutex, &'a HeapMeta>;

struct Below {
    pages: Budget<Fake>,
    metadata: HeapMeta,
    hooks: CountingHooks,
}

impl Below {
    fn new() -> Self {
        let pages = Budget::new(Fake::new(), 1 << 20);
        Self { pages, metadata: HeapMeta::new(), hooks: CountingHooks::new() }
    }

    fn keg(&self) -> Slabs<'_> {
        let item = Layout::from_size_align(512, 8).unwrap();
        let layout = SlabLayout::new(item, SlabConfig::new().largest_slab(4096)).unwrap();
        Keg::with_layout(&self.pages, NoMetadata, layout)
    }

    fn cache(&self, config: CacheConfig) -> Cache<'_> {
        self.cache_over(self.keg(), config)
    }

    fn cache_over<'a>(&'a self, keg: Slabs<'a>, config: CacheConfig) -> Cache<'a> {
        // SAFETY: these hooks do not touch the items.
        let made = unsafe { Constructed::new(keg, &self.hooks) };
        let limited = Limited::new(made, NonZeroU64::new(LIMIT), NoSleep);
        BucketCache::new(limited, CpuLocks::new(Chosen), &self.metadata, config)
    }

    /// Nothing is out any more, and nothing went wrong.
    fn assert_over(&self) {
        self.hooks.assert_balanced();
        assert_eq!(self.pages.used(), 0);
        assert_eq!(self.metadata.outstanding().runs, 0);
    }
}

fn stats(cache: &Cache<'_>) -> Stats {
    let mut stats = Stats::default();
    cache.visit_stats(&mut stats);
    stats
}

fn take(cache: &Cache<'_>, most: usize) -> Vec<Item> {
    (0..most).map_while(|_| cache.alloc(Request::NOWAIT).ok()).collect()
}

fn take_batch(cache: &Cache<'_>, most: usize) -> Vec<Item> {
    let mut items = vec![MaybeUninit::uninit(); most];
    let count = cache.import(&mut items, Request::NOWAIT).unwrap_or(0);
    // SAFETY: a source initialises as many as it returns.
    items[..count].iter().map(|item| unsafe { item.assume_init() }).collect()
}

fn give(cache: &Cache<'_>, item: Item) {
    // SAFETY: every caller took it from this cache and gives it up.
    unsafe { cache.free(item) };
}

fn give_batch(cache: &Cache<'_>, items: &[Item]) {
    // SAFETY: as above.
    unsafe { cache.release(items) };
}

#[test]
fn it_conforms() {
    for config in [TINY, CacheConfig::for_size(512), CacheConfig::none()] {
        let below = Below::new();
        let cache = below.cache(config);
        conformance::item_source(&cache);
        drop(cache);
        below.assert_over();
    }
}

/// A hit is a hit: the source is not asked, and last in is first out.
#[test]
fn items_come_back_last_in_first_out() {
    let below = Below::new();
    let cache = below.cache(CacheConfig { bucket: 8, max_bucket: 8, depot: 16 });
    let items = take(&cache, 3);
    let made = below.hooks.counts().init;
    items.iter().for_each(|&item| give(&cache, item));
    let again = take(&cache, 3);
    assert_eq!(again, items.into_iter().rev().collect::<Vec<_>>());
    assert_eq!(below.hooks.counts().init, made);
    again.into_iter().for_each(|item| give(&cache, item));
    drop(cache);
    below.assert_over();
}

/// What one CPU frees, another finds by way of the depot, without asking the source.
#[test]
fn buckets_travel_through_the_depot() {
    let below = Below::new();
    let cache = below.cache(CacheConfig { bucket: 2, max_bucket: 2, depot: 16 });
    CPU.set(0);
    let items = take(&cache, 12);
    items.into_iter().for_each(|item| give(&cache, item));
    let made = below.hooks.counts().init;
    CPU.set(1);
    let items = take(&cache, 8);
    assert_eq!((items.len(), below.hooks.counts().init), (8, made));
    items.into_iter().for_each(|item| give(&cache, item));
}

/// The depot keeps what it may and no more.
#[test]
fn the_depot_is_bounded() {
    let below = Below::new();
    let cache = below.cache(TINY);
    let items = take(&cache, LIMIT as usize);
    items.into_iter().for_each(|item| give(&cache, item));
    let depot = TINY.depot * CPUS;
    let slot = 2 * usize::from(TINY.bucket);
    let cached = stats(&cache).cached as usize;
    assert!(cached <= depot + slot && cached >= depot, "{cached} items are cached");
}

#[test]
fn counts_are_exact_whatever_the_path() {
    let below = Below::new();
    let cache = below.cache(TINY);
    let (mut rng, mut held) = (Rng::new(7), Vec::new());
    let mut frees = 0;
    for _ in 0..20_000 {
        CPU.set(rng.below(CPUS));
        match rng.below(12) {
            0..4 => held.extend(take(&cache, 1)),
            4..8 if !held.is_empty() => {
                give(&cache, held.swap_remove(rng.below(held.len())));
                frees += 1;
            }
            8 => held.extend(take_batch(&cache, 1 + rng.below(9))),
            9 => {
                let some = held.split_off(held.len() - rng.below(held.len() + 1).min(9));
                give_batch(&cache, &some);
                frees += some.len();
            }
            10 => cache.reclaim(rng.pick(&[Reclaim::Trim, Reclaim::Drain, Reclaim::DrainCpu])),
            _ => {}
        }
        let stats = stats(&cache);
        assert_eq!((stats.allocs, stats.frees), ((frees + held.len()) as u64, frees as u64));
        assert!(stats.used() + stats.cached <= LIMIT, "{stats:?}");
    }
    assert!(frees > 1000);
    give_batch(&cache, &held);
    drop(cache);
    below.assert_over();
}

/// Fails the k-th call of a hook, by `plan`, for every k, on every path.
fn sweep(plan: impl Fn(&CountingHooks, u64), failed: impl Fn(&CountingHooks) -> u64) {
    let quiet = |run: &mut dyn FnMut()| drop(catch_unwind(AssertUnwindSafe(run)));
    for k in 1.. {
        let below = Below::new();
        let cache = below.cache(TINY);
        let (mut rng, mut held) = (Rng::new(k), Vec::new());
        plan(&below.hooks, k);
        for _ in 0..150 {
            CPU.set(rng.below(CPUS));
            match rng.below(10) {
                0..3 => quiet(&mut || held.extend(take(&cache, 1))),
                3..6 if !held.is_empty() => {
                    let item = held.swap_remove(rng.below(held.len()));
                    quiet(&mut || give(&cache, item));
                }
                6 => quiet(&mut || held.extend(take_batch(&cache, 1 + rng.below(9)))),
                7 => {
                    let some = held.split_off(held.len() - rng.below(held.len() + 1).min(9));
                    quiet(&mut || give_batch(&cache, &some));
                }
                8 => quiet(&mut || cache.reclaim(Reclaim::DrainCpu)),
                _ => {}
            }
        }
        let failed = failed(&below.hooks);
        below.hooks.never();
        let counts = stats(&cache);
        assert_eq!(counts.used(), held.len() as u64, "call {k}: {counts:?}");
        held.extend(take(&cache, LIMIT as usize));
        assert_eq!(held.len(), LIMIT as usize, "call {k}: items were lost");
        give_batch(&cache, &held);
        drop(cache);
        below.assert_over();
        if failed == 0 {
            assert!(k > 40, "only {k} calls were tried");
            return;
        }
    }
}

fn quiet_planned_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload_as_str().unwrap_or_default();
            if !text.contains("as planned") {
                usual(panic);
            }
        }));
    });
}

#[test]
fn an_init_that_refuses_loses_nothing() {
    sweep(|hooks, k| hooks.refuse_at(Hook::Init, k), |hooks| hooks.counts().refused);
}

#[test]
fn an_init_that_panics_loses_nothing() {
    quiet_planned_panics();
    sweep(|hooks, k| hooks.panic_at(Hook::Init, k), |hooks| hooks.counts().panicked);
}

#[test]
fn a_fini_that_panics_loses_nothing() {
    quiet_planned_panics();
    sweep(|hooks, k| hooks.panic_at(Hook::Fini, k), |hooks| hooks.counts().panicked);
}

/// Without memory for slots or buckets a cache passes everything through.
#[test]
fn no_metadata_at_all() {
    let below = Below::new();
    below.metadata.fail_from(1);
    let cache = below.cache(TINY);
    conformance::item_source(&cache);
    assert_eq!(stats(&cache).cached, 0);
    below.metadata.never();
    drop(cache);
    below.assert_over();
}

/// Settings that contradict each other are put right.
#[test]
fn a_largest_bucket_below_the_first() {
    let below = Below::new();
    let cache = below.cache(CacheConfig { bucket: 4, max_bucket: 0, depot: 8 });
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let cache = &cache;
            scope.spawn(move || {
                let mut rng = Rng::new(seed);
                for _ in 0..3000 {
                    CPU.set(rng.below(CPUS));
                    let some = take(cache, 6);
                    some.into_iter().for_each(|item| give(cache, item));
                }
            });
        }
    });
    let all = take(&cache, 100);
    assert_eq!(all.len(), LIMIT as usize);
    give_batch(&cache, &all);
}

/// The reserve goes to who asks for it, one item at a time, and not into a bucket for everybody.
#[test]
fn a_reserve_is_not_cached_ahead() {
    let below = Below::new();
    let keg = below.keg();
    keg.prealloc(28).unwrap();
    keg.set_reserve(8);
    below.pages.set_max(below.pages.used());
    let cache = below.cache_over(keg, CacheConfig { bucket: 8, max_bucket: 8, depot: 16 });
    let ordinary = take(&cache, 100);
    assert!(cache.alloc(Request::NOWAIT).is_err());
    let reserved = cache.alloc(Request::NOWAIT.from_reserve()).unwrap();
    assert_eq!(take(&cache, 100), [], "the reserve went into a bucket");
    let rest: Vec<_> =
        (0..8).map_while(|_| cache.alloc(Request::NOWAIT.from_reserve()).ok()).collect();
    assert_eq!(rest.len(), 7);
    give(&cache, reserved);
    give_batch(&cache, &rest);
    give_batch(&cache, &ordinary);
}

/// An item whose state is in doubt is kept by no cache on its way down.
#[test]
fn discarded_items_are_taken_apart() {
    let below = Below::new();
    let cache = below.cache(CacheConfig { bucket: 8, max_bucket: 8, depot: 16 });
    // SAFETY: these hooks do not touch the items.
    let outer = unsafe { Constructed::new(&cache, uma_core::NoHooks) };
    let outer = Limited::<_, RawMutex, _>::new(outer, None, NoSleep);
    let item = outer.alloc(Request::NOWAIT).unwrap();
    let before = below.hooks.counts().fini;
    // SAFETY: taken above, and given up here.
    unsafe { outer.discard(item) };
    assert_eq!(below.hooks.counts().fini, before + 1);
    assert_eq!((outer.items(), stats(&cache).used()), (0, 0));
}

#[test]
fn at_the_limit_it_says_so() {
    let below = Below::new();
    let cache = below.cache(TINY);
    let all = take(&cache, 100);
    assert_eq!(all.len(), LIMIT as usize);
    assert_eq!(cache.alloc(Request::WAIT), Err(AllocError::Limit));
    give_batch(&cache, &all);
}

/// A panic in the middle of a drain does not end it: somebody may wait for the rest.
#[test]
fn a_drain_goes_on_after_a_panic() {
    quiet_planned_panics();
    let below = Below::new();
    let cache = below.cache(CacheConfig { bucket: 2, max_bucket: 2, depot: 16 });
    let items = take(&cache, 20);
    give_batch(&cache, &items);
    assert!(stats(&cache).cached >= 20);
    below.hooks.panic_at(Hook::Fini, 1);
    assert!(catch_unwind(AssertUnwindSafe(|| cache.reclaim(Reclaim::DrainCpu))).is_err());
    assert_eq!(stats(&cache).cached, 0);
    // Nor is anything left for the next one to give back, but the slots.
    assert_eq!((below.pages.used(), below.metadata.outstanding().runs), (0, 1));
    drop(cache);
    below.assert_over();
}

/// Metadata that has nothing from some moment on, when somebody also comes to wait for an item.
struct Scarce<'a> {
    heap: HeapMeta,
    pool: &'a Pool,
    scarce: Cell<bool>,
}

// SAFETY: forwards to an implementation that keeps the contract.
unsafe impl Metadata for Scarce<'_> {
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
        if self.scarce.get() {
            self.pool.want(true);
            return None;
        }
        self.heap.alloc_meta(layout)
    }

    unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.heap.free_meta(at, layout) }
    }
}

/// A free for which there is no bucket, and in which a hook unwinds before the item could go past them: it
/// goes all the same.
#[test]
fn a_free_that_unwinds_loses_nothing() {
    quiet_planned_panics();
    for (batch, k) in [(false, 1), (false, 3), (true, 1), (true, 3)] {
        let pool = Pool::new(Layout::new::<u64>(), 100, 2);
        let metadata = Scarce { heap: HeapMeta::new(), pool: &pool, scarce: Cell::new(false) };
        let hooks = CountingHooks::new();
        // SAFETY: these hooks do not touch the items.
        let made = unsafe { Constructed::new(&pool, &hooks) };
        let config = CacheConfig::with_bucket(2);
        let cache: BucketCache<_, _, RawMutex, _> =
            BucketCache::new(made, CpuLocks::new(Chosen), &metadata, config);
        let items: Vec<_> = (0..9).map(|_| cache.alloc(Request::NOWAIT).unwrap()).collect();
        metadata.scarce.set(true);
        hooks.panic_at(Hook::Fini, k);
        let each = if batch { items.len() } else { 1 };
        let unwound = items.chunks(each).filter(|items| {
            // SAFETY: the items came from there, and each is given up once.
            let free = || unsafe {
                match items {
                    [item] => cache.free(*item),
                    items => cache.release(items),
                }
            };
            catch_unwind(AssertUnwindSafe(free)).is_err()
        });
        assert_eq!(unwound.count(), 1);
        assert_eq!(pool.out(), 0, "items that nobody has");
        let mut stats = Stats::default();
        cache.visit_stats(&mut stats);
        assert_eq!((stats.allocs, stats.frees, stats.cached), (9, 9, 0));
        hooks.assert_balanced();
    }
}

/// Nor does a panic while the cache is dropped leave its own memory behind.
#[test]
fn a_panic_while_it_is_dropped_leaves_nothing() {
    quiet_planned_panics();
    let below = Below::new();
    let cache = below.cache(CacheConfig { bucket: 2, max_bucket: 2, depot: 16 });
    let items = take(&cache, 20);
    give_batch(&cache, &items);
    below.hooks.panic_at(Hook::Fini, 3);
    assert!(catch_unwind(AssertUnwindSafe(move || drop(cache))).is_err());
    below.assert_over();
}
