//! Bucket caches over a pool whose items are allocations of their own.

use uma_cache::{BucketCache, CacheConfig, CpuLocks, PerCpu, Pinned};
use uma_core::{Constructed, Hooks, ItemSource, Name, NoHooks, Zone};
use uma_testkit::machine::{self, Cpus, OneThread, Unlocked};
use uma_testkit::ops::{Config, Program};
use uma_testkit::{HeapMeta, Moment, Pool, Rig, StampingHooks, run};

/// How much a cache may hold, by a program.
pub(super) fn cache_config(config: &Config) -> CacheConfig {
    let (bucket, max_bucket) = config.bucket();
    CacheConfig { bucket, max_bucket, depot: config.depot() }
}

/// Runs a program on a cache over a pool: with hooks below and above it, or alone.
pub fn cache_ops(program: &Program) {
    let cpus = Cpus(program.config.cpus());
    if program.config.pinned {
        cache_with(program, Pinned::new(cpus));
    } else {
        cache_with(program, CpuLocks::new(cpus));
    }
}

fn cache_with(program: &Program, cpus: impl PerCpu) {
    machine::reset();
    let config = &program.config;
    let item = super::item(config);
    let pool = Pool::new(item, 8 * config.slabs(), 1 + usize::from(config.slab));
    let meta = HeapMeta::new();
    if config.hooks {
        let hooks = StampingHooks::new(item.size());
        let zone = cached(config, &pool, &hooks, cpus, &meta);
        drive(program, &zone, &pool, &meta, Some(&hooks));
        drop(zone);
        hooks.counting().assert_balanced();
    } else {
        let zone = cached(config, &pool, NoHooks, cpus, &meta);
        // Without hooks the zone on top adds nothing, so that the cache can be seen alone.
        drive(program, zone.source(), &pool, &meta, None);
        drop(zone);
    }
    assert_eq!(pool.out(), 0, "items that did not come back");
    assert_eq!(meta.outstanding().runs, 0, "metadata that did not come back");
}

type Cached<'a, H, C> =
    Zone<BucketCache<Constructed<&'a Pool, H>, C, OneThread, Unlocked<&'a HeapMeta>>, H>;

fn cached<'a, H: Hooks + Copy, C: PerCpu>(
    config: &Config,
    pool: &'a Pool,
    hooks: H,
    cpus: C,
    meta: &'a HeapMeta,
) -> Cached<'a, H, C> {
    // SAFETY: the hooks touch no more than the item size that they were made with, if anything.
    let below = unsafe { Constructed::new(pool, hooks) };
    let cache = BucketCache::new(below, cpus, Unlocked(meta), cache_config(config));
    // SAFETY: as above; they take no argument.
    unsafe { Zone::with_hooks(Name::new("cache"), cache, hooks) }
}

fn drive(
    program: &Program,
    source: &dyn ItemSource,
    pool: &Pool,
    meta: &HeapMeta,
    hooks: Option<&StampingHooks>,
) {
    let Program { config, ops } = program;
    let rig = Rig {
        source,
        is_zone: hooks.is_some(),
        keeps_contents: false,
        checks: false,
        closely: config.closely,
        pages: Some(pool.plan()),
        metadata: Some(meta),
        hooks,
        limit: 0,
        set_limit: None,
        set_reserve: None,
        prealloc: None,
        want: Some(&|on| pool.want(on)),
        check: &|moment, stats, model| {
            let exist = model.live() + stats.cached;
            assert_eq!(pool.out() as u64, exist, "items out of the pool: {stats:?}");
            if let Moment::Exhausted { .. } = moment {
                assert_eq!(pool.left(), 0, "exhausted, with items in the pool");
            }
        },
    };
    run(ops, &rig, config.reclaim_first);
}
