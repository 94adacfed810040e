//! A whole zone, each layer with what it needs to fail.

use std::num::NonZeroU64;
use std::ptr::NonNull;

use uma::debug::{Checked, Checks, Hardening, Pads, Report, Subject, Verdict, Watched, Witness};
use uma_cache::{BucketCache, CpuLocks, PerCpu, Pinned};
use uma_core::{Constructed, Hooks, ItemSource, Limited, Name, NoHooks, Zone};
use uma_keg::Keg;
use uma_testkit::machine::{self, Cpus, OneThread, Sleeper, Unlocked};
use uma_testkit::ops::Program;
use uma_testkit::{Budget, FailNth, Fake, HeapMeta, Rig, StampingHooks, run};

use super::cache::cache_config;
use super::keg::check_slabs;

/// Runs a program on a zone: cache over limit over constructed over keg over a supplier that has an end
/// and fails by plan, with hooks that refuse and panic by plan; in half of the configurations with checks
/// on the cache, and perhaps a quarantine.
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

type Pages = FailNth<Budget<Fake>>;
type Meta<'a> = Unlocked<&'a HeapMeta>;
type Marks<'a> = Checks<OneThread, Meta<'a>, Strict>;
type Limit<'a, H> =
    Limited<Constructed<Keg<Unlocked<&'a Pages>, OneThread, Meta<'a>>, H>, OneThread, Sleeper>;
type Cache<'a, H, C> =
    BucketCache<Watched<Limit<'a, H>, OneThread, Meta<'a>, Strict>, C, OneThread, Meta<'a>>;

/// Nothing in a program is misuse.
struct Strict;

impl Witness for Strict {
    fn misuse(&self, report: &Report<'_>) -> Verdict {
        machine::complain(report.to_string());
        Verdict::Ignore
    }
}

fn zone_with<H: Hooks + Copy>(
    program: &Program,
    cpus: impl PerCpu,
    hooks: H,
    stamping: Option<&StampingHooks>,
) {
    machine::reset();
    let config = &program.config;
    let slab = super::slab(config);
    let budget = slab.slab_size() * config.slabs();
    let pages = FailNth::new(Budget::new(Fake::with_page_size(config.page_size()), budget));
    let meta = HeapMeta::new();

    let checks = config.quarantine().map(|items| {
        let tier = Hardening::ASAN.quarantine(items).red_zones(false);
        let subject = Subject {
            zone: Name::new("zone"),
            pads: Pads::new(super::item(config), &tier).expect("a layout that is served"),
            slab_align: 0,
            keeps_state: stamping.is_some(),
            no_touch: config.no_touch,
        };
        Marks::new(subject, tier, Unlocked(&meta), Strict).expect("no fault is planned yet")
    });
    let keg = Keg::with_layout(Unlocked(&pages), Unlocked(&meta), slab);
    // SAFETY: the hooks touch no more than the item size that they were made with, if anything.
    let constructed = unsafe { Constructed::new(keg, hooks) };
    let limit = NonZeroU64::new(u64::from(config.limit));
    let limited = Limited::new(constructed, limit, Sleeper);
    // SAFETY: the checks are dropped after the stack, and are of its items.
    let watched = unsafe { Watched::new(limited, checks.as_ref().map(NonNull::from)) };
    let cache: Cache<'_, H, _> =
        BucketCache::new(watched, cpus, Unlocked(&meta), cache_config(config));
    if let Some(checks) = &checks {
        // SAFETY: the checks are of this layout, without pads; `Watched` stands above the hooks.
        let checked = unsafe { Checked::new(cache, checks) };
        drive(program, checked, |top| top.source(), hooks, stamping, (&pages, &meta));
    } else {
        drive(program, cache, |top| top, hooks, stamping, (&pages, &meta));
    }
    drop(checks);
    assert_eq!(pages.inner().inner().outstanding().runs, 0, "runs that did not come back");
    assert_eq!(meta.outstanding().runs, 0, "metadata that did not come back");
}

/// Runs a program on a zone on `top`, which leads to the cache.
fn drive<'a, S: ItemSource, H: Hooks + Copy + 'a, C: PerCpu + 'a>(
    Program { config, ops }: &Program,
    top: S,
    cache: impl Fn(&S) -> &Cache<'a, H, C>,
    hooks: H,
    stamping: Option<&StampingHooks>,
    (pages, meta): (&Pages, &HeapMeta),
) {
    // SAFETY: the hooks touch no more than the item size that they were made with, if anything; they take
    // no argument.
    let zone = unsafe { Zone::with_hooks(Name::new("zone"), top, hooks) };
    let limited = cache(zone.source()).source().source();
    let keg = limited.source().source();
    let rig = Rig {
        source: &zone,
        is_zone: true,
        keeps_contents: stamping.is_none(),
        checks: config.quarantine().is_some(),
        closely: config.closely,
        pages: Some(pages),
        metadata: Some(meta),
        hooks: stamping,
        limit: u64::from(config.limit),
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
}
