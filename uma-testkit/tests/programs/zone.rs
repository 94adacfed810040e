//! A whole zone, each layer with what it needs to fail.

use std::num::NonZeroU64;

use uma_cache::{BucketCache, CpuLocks, PerCpu, Pinned};
use uma_core::{Constructed, Hooks, ItemSource, Limited, Name, NoHooks, Zone};
use uma_keg::Keg;
use uma_testkit::machine::{self, Cpus, OneThread, Sleeper, Unlocked};
use uma_testkit::ops::Program;
use uma_testkit::{Budget, FailNth, Fake, HeapMeta, Rig, StampingHooks, run};

use super::cache::cache_config;
use super::keg::check_slabs;

/// Runs a program on a zone: cache over limit over constructed over keg over a supplier that has an end
/// and fails by plan, with hooks that refuse and panic by plan.
pub fn zone_ops(program: &Program) {
    let cpus = Cpus(program.config.cpus());
    if program.config.pinned {
        zone_on(program, Pinned::new(cpus));
    } else {
        zone_on(program, CpuLocks::new(cpus));
    }
}

fn zone_on(program: &Program, cpus: impl PerCpu) {
    if program.config.hooks {
        let hooks = StampingHooks::new(super::item(&program.config).size());
        zone_with(program, cpus, &hooks, Some(&hooks));
        hooks.counting().assert_balanced();
    } else {
        zone_with(program, cpus, NoHooks, None);
    }
}

fn zone_with<H: Hooks + Copy>(
    program: &Program,
    cpus: impl PerCpu,
    hooks: H,
    stamping: Option<&StampingHooks>,
) {
    machine::reset();
    let Program { config, ops } = program;
    let slab = super::slab(config);
    let budget = slab.slab_size() * config.slabs();
    let pages = FailNth::new(Budget::new(Fake::with_page_size(config.page_size()), budget));
    let meta = HeapMeta::new();
    let limit = u64::from(config.limit);

    let keg = Keg::<_, OneThread, _>::with_layout(Unlocked(&pages), Unlocked(&meta), slab);
    // SAFETY: the hooks touch no more than the item size that they were made with, if anything.
    let constructed = unsafe { Constructed::new(keg, hooks) };
    let limited = Limited::<_, OneThread, _>::new(constructed, NonZeroU64::new(limit), Sleeper);
    let cache = BucketCache::<_, _, OneThread, _>::new(
        limited,
        cpus,
        Unlocked(&meta),
        cache_config(config),
    );
    // SAFETY: as above; they take no argument.
    let zone = unsafe { Zone::with_hooks(Name::new("zone"), cache, hooks) };

    let limited = zone.source().source();
    let keg = limited.source().source();
    let rig = Rig {
        source: &zone,
        is_zone: true,
        keeps_contents: stamping.is_none(),
        closely: config.closely,
        pages: Some(&pages),
        metadata: Some(&meta),
        hooks: stamping,
        limit,
        set_limit: Some(&|max| {
            limited.set_max(max);
            zone.settle();
        }),
        set_reserve: Some(&|items| keg.set_reserve(items)),
        prealloc: Some(&|items| keg.prealloc(items)),
        want: None,
        check: &|moment, stats, model| {
            let exist = model.live() + stats.cached;
            check_slabs(keg, moment, stats, exist);
            assert_eq!(limited.items(), exist, "items that the limit counts: {stats:?}");
            assert_eq!(limited.sleepers(), 0, "sleepers, though nobody sleeps");
            assert_eq!(stats.limit, limited.max().map_or(0, NonZeroU64::get));
        },
    };
    run(ops, &rig, config.reclaim_first);
    drop(zone);
    assert_eq!(pages.inner().inner().outstanding().runs, 0, "runs that did not come back");
    assert_eq!(meta.outstanding().runs, 0, "metadata that did not come back");
}
