//! A keg alone.

use uma_core::{ItemSource, Metadata, PageSupplier, Stats};
use uma_keg::Keg;
use uma_testkit::machine::{self, OneThread, Unlocked};
use uma_testkit::model::Model;
use uma_testkit::ops::Program;
use uma_testkit::{Budget, FailNth, FailPlan, Fake, HeapMeta, Moment, Rig, run};

/// Runs a program on a keg over a supplier that has an end, and fails by plan.
pub fn keg_ops(program: &Program) {
    let config = &program.config;
    let slab = super::slab(config).slab_size();
    let budget = slab * config.slabs();
    let pages = FailNth::new(Budget::new(Fake::with_page_size(config.page_size()), budget));
    keg_on(program, &pages, Some(&pages), &|moment, stats| {
        let used = pages.inner().used();
        assert_eq!(used as u64, stats.bytes, "bytes of pages: {stats:?}");
        if let Moment::Exhausted { .. } = moment {
            assert!(used + slab > budget, "exhausted with {used} bytes used of {budget}");
        }
    });
    assert_eq!(pages.inner().inner().outstanding().runs, 0, "runs that did not come back");
}

/// Runs a program on a keg over any supplier; `check` is called whenever counts are checked.
pub fn keg_on<P: PageSupplier>(
    program: &Program,
    pages: &P,
    faults: Option<&FailPlan>,
    check: &dyn Fn(Moment, &Stats),
) {
    machine::reset();
    let Program { config, ops } = program;
    let meta = HeapMeta::new();
    let keg =
        Keg::<_, OneThread, _>::with_layout(Unlocked(pages), Unlocked(&meta), super::slab(config));
    let rig = Rig {
        source: &keg,
        is_zone: false,
        keeps_contents: true,
        checks: false,
        // It costs nothing, and disturbs nothing.
        closely: true,
        pages: faults,
        metadata: Some(&meta),
        hooks: None,
        limit: 0,
        set_limit: None,
        set_reserve: Some(&|items| keg.set_reserve(items)),
        prealloc: Some(&|items| keg.prealloc(items)),
        want: None,
        check: &|moment, stats, model| {
            check_keg(&keg, moment, stats, model);
            check(moment, stats);
        },
    };
    run(ops, &rig, config.reclaim_first);
    if config.reclaim_first {
        assert_eq!(meta.outstanding().runs, 0, "metadata of a keg without slabs");
    }
    drop(keg);
    assert_eq!(meta.outstanding().runs, 0, "metadata that did not come back");
}

fn check_keg<P: PageSupplier, M: Metadata>(
    keg: &Keg<P, OneThread, M>,
    moment: Moment,
    stats: &Stats,
    model: &Model,
) {
    check_slabs(keg, moment, stats, model.live());
    assert_eq!(keg.live(), model.live(), "items in use");
    let reserve = keg.reserve();
    match moment {
        Moment::Took { reserve: false } => {
            assert!(stats.keg_free >= reserve, "the reserve of {reserve} was used: {stats:?}");
        }
        Moment::Verify => {
            let mut live = Vec::new();
            keg.for_each_live(|item| {
                machine::outside_locks("an item is visited");
                live.push(item);
            });
            let visited = live.iter().map(|item| item.addr());
            assert!(visited.eq(model.ranges().starts()), "items that are out, in order");
            let step = 1 + live.len() / 8;
            assert!(live.iter().step_by(step).all(|&item| keg.contains(item)));
        }
        _ => {}
    }
}

/// What holds for the slabs below any stack of which `out` items are out of the keg.
pub(super) fn check_slabs<P: PageSupplier, M: Metadata>(
    keg: &Keg<P, OneThread, M>,
    moment: Moment,
    stats: &Stats,
    out: u64,
) {
    let slab = keg.slab_layout();
    let all = stats.slabs * slab.items() as u64;
    assert_eq!(all, out + stats.keg_free, "items that there are: {stats:?}");
    assert_eq!(stats.bytes, stats.slabs * slab.slab_size() as u64, "bytes: {stats:?}");
    match moment {
        Moment::Exhausted { reserve } => {
            let kept = if reserve { 0 } else { keg.reserve() };
            assert!(stats.keg_free <= kept, "exhausted, with free items: {stats:?}");
        }
        Moment::End => assert_eq!(stats.slabs, 0, "slabs after everything was reclaimed"),
        _ => {}
    }
    let layout = keg.layout();
    assert_eq!((stats.size, stats.align), (layout.size(), layout.align()));
}
