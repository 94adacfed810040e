//! Programs at random, on stable Rust: what the fuzz targets in `fuzz/` do, for as long as a test may
//! take. A program that fails is made small, and is printed as Rust.

mod programs;

use proptest::prelude::*;
use proptest::strategy::Union;
use proptest::test_runner::{Config as RunnerConfig, TestRunner};

use uma_testkit::ops::compat::{CacheConfig, CompatConfig, CompatOp, CompatProgram, Face, How};
use uma_testkit::ops::decisions::Decisions;
use uma_testkit::ops::layout::Layouts;
use uma_testkit::ops::limits::{LimitConfig, LimitOp, LimitProgram};
use uma_testkit::ops::malloc::{Bytes, MallocConfig, MallocOp, MallocProgram};
use uma_testkit::ops::misuse::{Misuse, Wrong};
use uma_testkit::ops::mt::{MtConfig, MtOp, MtProgram, Patience};
use uma_testkit::ops::pages::{PageConfig, PageOp, PageProgram};
use uma_testkit::ops::typed::{TypedConfig, TypedOp, TypedProgram};
use uma_testkit::ops::{Config, Fault, Mode, Op, Other, Program};

/// Tries so many programs.
fn check<S: Strategy>(cases: u32, programs: S, run: impl Fn(&S::Value)) {
    let config = RunnerConfig { cases, failure_persistence: None, ..RunnerConfig::default() };
    let result = TestRunner::new(config).run(&programs, |program| {
        run(&program);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

fn byte() -> impl Strategy<Value = u8> + Clone {
    any::<u8>()
}

/// A small number mostly, so that faults come soon.
fn soon() -> impl Strategy<Value = u8> + Clone {
    prop_oneof![4 => 0..4_u8, 1 => byte()]
}

fn mode() -> impl Strategy<Value = Mode> {
    prop::sample::select(vec![Mode::Trim, Mode::Drain, Mode::DrainCpu])
}

prop_compose! {
    fn config()(
        (size, align, page, slab, slabs) in (prop_oneof![1..300_u16, any::<u16>()], 0..8_u8, byte(), byte(), byte()),
        (outside, no_touch, pinned, hooks, closely, reclaim_first) in any::<(bool, bool, bool, bool, bool, bool)>(),
        (cpus, bucket, depot, limit) in (byte(), byte(), byte(), prop_oneof![Just(0), 1..40_u8]),
    ) -> Config {
        Config {
            size, align, page, slab, slabs, outside, no_touch, pinned, hooks, closely,
            reclaim_first, cpus, bucket, depot, limit,
        }
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop::sample::select(vec![
        Fault::InitRefuses,
        Fault::CtorRefuses,
        Fault::InitPanics,
        Fault::CtorPanics,
        Fault::DtorPanics,
        Fault::FiniPanics,
    ])
}

fn op() -> impl Strategy<Value = Op> {
    let cpu = 0..5_u8;
    let faults = fault();
    let others = prop::sample::select(vec![
        Other::AllocOnFirst,
        Other::AllocOnSecond,
        Other::FreeOnFirst,
        Other::FreeOnSecond,
        Other::DrainCpu,
        Other::Want,
    ]);
    Union::new_weighted(vec![
        (8, (cpu.clone(), byte()).prop_map(|(cpu, times)| Op::Alloc { cpu, times }).boxed()),
        (1, cpu.clone().prop_map(|cpu| Op::AllocZeroed { cpu }).boxed()),
        (1, cpu.clone().prop_map(|cpu| Op::AllocFromReserve { cpu }).boxed()),
        (2, (cpu.clone(), byte()).prop_map(|(cpu, frees)| Op::AllocWaiting { cpu, frees }).boxed()),
        (1, (cpu.clone(), byte()).prop_map(|(cpu, gives)| Op::AllocOrFlush { cpu, gives }).boxed()),
        (3, (cpu.clone(), byte()).prop_map(|(cpu, n)| Op::AllocBatch { cpu, n }).boxed()),
        (
            8,
            (cpu.clone(), any::<u16>(), byte())
                .prop_map(|(cpu, i, times)| Op::Free { cpu, i, times })
                .boxed(),
        ),
        (
            3,
            (cpu.clone(), any::<u16>(), byte())
                .prop_map(|(cpu, i, n)| Op::FreeBatch { cpu, i, n })
                .boxed(),
        ),
        (1, (cpu, any::<u16>()).prop_map(|(cpu, i)| Op::Discard { cpu, i }).boxed()),
        (2, mode().prop_map(|mode| Op::Reclaim { mode }).boxed()),
        (1, soon().prop_map(|max| Op::SetLimit { max }).boxed()),
        (1, soon().prop_map(|items| Op::SetReserve { items }).boxed()),
        (1, soon().prop_map(|items| Op::Prealloc { items }).boxed()),
        (1, soon().prop_map(|k| Op::PagesFail { k }).boxed()),
        (1, soon().prop_map(|k| Op::MetadataFail { k }).boxed()),
        (3, (faults, soon()).prop_map(|(fault, k)| Op::HookFails { fault, k }).boxed()),
        (1, Just(Op::NoFaults).boxed()),
        (1, soon().prop_map(|every| Op::Migrate { every }).boxed()),
        (3, (soon(), others).prop_map(|(after, other)| Op::Interrupt { after, other }).boxed()),
        (1, soon().prop_map(|times| Op::Contend { times }).boxed()),
        (1, any::<bool>().prop_map(|on| Op::Want { on }).boxed()),
        (1, Just(Op::Fork).boxed()),
        (2, Just(Op::Stats).boxed()),
        (1, Just(Op::Verify).boxed()),
    ])
}

fn program() -> impl Strategy<Value = Program> {
    (config(), prop::collection::vec(op(), 0..80)).prop_map(|(config, ops)| Program { config, ops })
}

fn page_op() -> impl Strategy<Value = PageOp> {
    prop_oneof![
        6 => (byte(), byte()).prop_map(|(pages, align)| PageOp::Alloc { pages, align }),
        1 => any::<u16>().prop_map(|bytes| PageOp::AllocOdd { bytes }),
        4 => byte().prop_map(|i| PageOp::Free { i }),
        1 => (byte(), byte(), byte())
            .prop_map(|(i, from, pages)| PageOp::Decommit { i, from, pages }),
        1 => Just(PageOp::DecommitAll),
        1 => Just(PageOp::Trim),
        1 => Just(PageOp::Verify),
    ]
}

fn page_program() -> impl Strategy<Value = PageProgram> {
    let config = (byte(), byte(), soon(), any::<u16>(), any::<u16>(), byte()).prop_map(
        |(pages, chunk_max, dirty, head, tail, page)| PageConfig {
            pages,
            chunk_max,
            dirty,
            head,
            tail,
            page,
        },
    );
    (config, prop::collection::vec(page_op(), 0..60))
        .prop_map(|(config, ops)| PageProgram { config, ops })
}

fn typed_op() -> impl Strategy<Value = TypedOp> {
    let cpu = 0..5_u8;
    Union::new_weighted(vec![
        (6, (cpu.clone(), byte()).prop_map(|(cpu, text)| TypedOp::Alloc { cpu, text }).boxed()),
        (
            2,
            (cpu.clone(), byte(), any::<bool>())
                .prop_map(|(cpu, text, panics)| TypedOp::AllocWith { cpu, text, panics })
                .boxed(),
        ),
        (
            4,
            (cpu.clone(), byte(), any::<bool>())
                .prop_map(|(cpu, i, panics)| TypedOp::Drop { cpu, i, panics })
                .boxed(),
        ),
        (2, (cpu.clone(), byte()).prop_map(|(cpu, i)| TypedOp::IntoInner { cpu, i }).boxed()),
        (1, byte().prop_map(|i| TypedOp::Raw { i }).boxed()),
        (1, (byte(), byte()).prop_map(|(i, text)| TypedOp::Change { i, text }).boxed()),
        (
            2,
            (cpu.clone(), soon(), soon())
                .prop_map(|(cpu, count, used)| TypedOp::Prefill { cpu, count, used })
                .boxed(),
        ),
        (6, (cpu.clone(), byte()).prop_map(|(cpu, text)| TypedOp::Get { cpu, text }).boxed()),
        (5, (cpu, byte()).prop_map(|(cpu, i)| TypedOp::Put { cpu, i }).boxed()),
        (1, soon().prop_map(|k| TypedOp::InitRefuses { k }).boxed()),
        (1, soon().prop_map(|k| TypedOp::InitPanics { k }).boxed()),
        (1, soon().prop_map(|k| TypedOp::CtorRefuses { k }).boxed()),
        (1, soon().prop_map(|k| TypedOp::CtorPanics { k }).boxed()),
        (1, soon().prop_map(|k| TypedOp::DtorPanics { k }).boxed()),
        (1, soon().prop_map(|max| TypedOp::SetLimit { max }).boxed()),
        (1, soon().prop_map(|k| TypedOp::PagesFail { k }).boxed()),
        (1, soon().prop_map(|k| TypedOp::MetadataFail { k }).boxed()),
        (1, mode().prop_map(|mode| TypedOp::Reclaim { mode }).boxed()),
        (3, Just(TypedOp::Verify).boxed()),
    ])
}

fn typed_program() -> impl Strategy<Value = TypedProgram> {
    let config = (byte(), byte(), prop_oneof![Just(0), 1..20_u8], byte())
        .prop_map(|(cpus, bucket, limit, slabs)| TypedConfig { cpus, bucket, limit, slabs });
    (config, prop::collection::vec(typed_op(), 0..60))
        .prop_map(|(config, ops)| TypedProgram { config, ops })
}

fn malloc_op() -> impl Strategy<Value = MallocOp> {
    // Small sizes mostly, and the neighbours of powers of two.
    let edge = (0..17_u32, 0..3_u16)
        .prop_map(|(power, by)| (((1 << power) - 1_u32) as u16).wrapping_add(by));
    let base = prop_oneof![3 => 0..600_u16, 2 => edge, 1 => any::<u16>()];
    let bytes = (base, prop_oneof![3 => Just(0_u8), 1 => 0..5_u8])
        .prop_map(|(base, shift)| Bytes { base, shift });
    let cpu = || 0..4_u8;
    Union::new_weighted(vec![
        (8, (cpu(), bytes.clone()).prop_map(|(cpu, bytes)| MallocOp::Alloc { cpu, bytes }).boxed()),
        (2, bytes.clone().prop_map(|bytes| MallocOp::AllocZeroed { bytes }).boxed()),
        (
            2,
            (bytes.clone(), byte())
                .prop_map(|(bytes, times)| MallocOp::AllocMany { bytes, times })
                .boxed(),
        ),
        (
            3,
            (bytes.clone(), byte())
                .prop_map(|(bytes, align)| MallocOp::AllocAligned { bytes, align })
                .boxed(),
        ),
        (1, any::<u16>().prop_map(|less| MallocOp::AllocAbsurd { less }).boxed()),
        (4, (cpu(), byte()).prop_map(|(cpu, i)| MallocOp::Free { cpu, i }).boxed()),
        (4, (cpu(), byte()).prop_map(|(cpu, i)| MallocOp::FreeSized { cpu, i }).boxed()),
        (2, (byte(), byte()).prop_map(|(i, times)| MallocOp::FreeMany { i, times }).boxed()),
        (5, (byte(), bytes.clone()).prop_map(|(i, bytes)| MallocOp::Realloc { i, bytes }).boxed()),
        (2, (byte(), bytes).prop_map(|(i, bytes)| MallocOp::WrongSize { i, bytes }).boxed()),
        (
            2,
            (byte(), any::<u32>()).prop_map(|(i, offset)| MallocOp::Interior { i, offset }).boxed(),
        ),
        (3, Just(MallocOp::Again).boxed()),
        (1, soon().prop_map(|k| MallocOp::FailPages { k }).boxed()),
        (1, soon().prop_map(|k| MallocOp::FailMeta { k }).boxed()),
        (1, mode().prop_map(|mode| MallocOp::Reclaim { mode }).boxed()),
        (1, Just(MallocOp::Live).boxed()),
        (1, Just(MallocOp::Verify).boxed()),
    ])
}

#[test]
fn mallocs() {
    let config = (byte(), byte(), byte()).prop_map(|(table, cpus, memory)| MallocConfig {
        table,
        cpus,
        memory,
    });
    let programs = (config, prop::collection::vec(malloc_op(), 0..60))
        .prop_map(|(config, ops)| MallocProgram { config, ops });
    check(150, programs, programs::malloc::malloc_ops);
}

fn limit_op() -> impl Strategy<Value = LimitOp> {
    let (cpu, zone) = (|| 0..5_u8, || 0..3_u8);
    Union::new_weighted(vec![
        (
            6,
            (cpu(), zone(), soon())
                .prop_map(|(cpu, zone, times)| LimitOp::Alloc { cpu, zone, times })
                .boxed(),
        ),
        (2, (cpu(), zone()).prop_map(|(cpu, zone)| LimitOp::AllocUntil { cpu, zone }).boxed()),
        (6, (cpu(), zone()).prop_map(|(cpu, zone)| LimitOp::AllocAsync { cpu, zone }).boxed()),
        (3, (cpu(), byte()).prop_map(|(cpu, i)| LimitOp::Poll { cpu, i }).boxed()),
        (2, (cpu(), byte()).prop_map(|(cpu, i)| LimitOp::Cancel { cpu, i }).boxed()),
        (
            6,
            (cpu(), byte(), soon())
                .prop_map(|(cpu, i, times)| LimitOp::Free { cpu, i, times })
                .boxed(),
        ),
        (1, (zone(), soon()).prop_map(|(zone, max)| LimitOp::SetMaxItems { zone, max }).boxed()),
        (1, (zone(), soon()).prop_map(|(group, max)| LimitOp::SetMaxBytes { group, max }).boxed()),
        (1, (zone(), byte()).prop_map(|(zone, max)| LimitOp::SetMaxCached { zone, max }).boxed()),
        (1, (zone(), mode()).prop_map(|(zone, mode)| LimitOp::Reclaim { zone, mode }).boxed()),
        (3, Just(LimitOp::Verify).boxed()),
    ])
}

fn limit_program() -> impl Strategy<Value = LimitProgram> {
    let few = || prop_oneof![Just(0), 1..30_u8];
    let config = (byte(), byte(), [few(), few(), few()], [few(), few()])
        .prop_map(|(cpus, bucket, items, groups)| LimitConfig { cpus, bucket, items, groups });
    (config, prop::collection::vec(limit_op(), 0..60))
        .prop_map(|(config, ops)| LimitProgram { config, ops })
}

#[test]
fn limits() {
    check(300, limit_program(), programs::limits::limits);
}

#[test]
fn slab_layouts() {
    let wishes = (any::<(u32, u8, u8, u8)>(), any::<u32>(), any::<bool>(), any::<bool>()).prop_map(
        |((size, shift, align, page), largest, outside, no_touch)| Layouts {
            size,
            shift,
            align,
            page,
            largest,
            outside,
            no_touch,
        },
    );
    check(1500, wishes, programs::layout::slab_layout);
}

#[test]
fn kegs() {
    check(150, program(), programs::keg::keg_ops);
}

#[test]
fn arenas() {
    let decisions = prop::collection::vec(any::<u8>(), 0..1500).prop_map(Decisions);
    check(100, decisions, programs::vmem::vmem_ops);
}

#[test]
fn caches() {
    check(200, program(), programs::cache::cache_ops);
}

#[test]
fn zones() {
    check(
        std::env::var("ZN").map_or(250, |n| n.parse().unwrap()),
        program(),
        programs::zone::zone_ops,
    );
}

/// A limit is lowered and the quarantine is emptied into the cache, where an item unwinds: the others do not
/// stay there.
#[test]
fn a_quarantine_that_unwinds_as_it_settles() {
    let config = Config { size: 1, slabs: 48, bucket: 1, hooks: true, ..Config::default() };
    let ops = vec![
        Op::Alloc { cpu: 0, times: 0 },
        Op::Alloc { cpu: 0, times: 1 },
        Op::Free { cpu: 0, i: 0, times: 1 },
        Op::HookFails { fault: Fault::FiniPanics, k: 0 },
        Op::Alloc { cpu: 2, times: 0 },
        Op::SetLimit { max: 1 },
        Op::Stats,
    ];
    programs::zone::zone_ops(&Program { config, ops });
}

#[test]
fn typed_zones() {
    check(200, typed_program(), programs::typed::typed);
}

#[test]
fn static_regions() {
    let both = (page_program(), program());
    check(80, both, |(pages, keg)| programs::suppliers::static_exhaustion(pages, keg));
}

#[test]
fn mmap_chunks() {
    check(100, page_program(), programs::suppliers::mmap_budget);
}

#[test]
fn misuses() {
    let wrongs =
        vec![Wrong::Again, Wrong::TwiceAtOnce, Wrong::Interior, Wrong::Foreign, Wrong::Nothing];
    let misuses =
        (config(), any::<(u8, u64, u8, u16)>(), prop::sample::select(wrongs), any::<(u8, u8)>())
            .prop_map(|(config, (taken, back, i, offset), wrong, (before, after))| Misuse {
                config,
                taken,
                back,
                wrong,
                i,
                offset,
                before,
                after,
            });
    check(300, misuses, programs::misuse::misuse);
}

prop_compose! {
    fn cache_config()(
        (size, align, flags) in (prop_oneof![3 => 0..300_u16, 1 => any::<u16>()], byte(), prop_oneof![1 => Just(0), 1 => byte()]),
        (constructed, each, pages) in any::<(bool, bool, bool)>(),
    ) -> CacheConfig {
        CacheConfig { size, align, flags, constructed, each, pages }
    }
}

fn how() -> impl Strategy<Value = How> + Clone {
    any::<(bool, bool, bool)>().prop_map(|(zero, wait, more)| How { zero, wait, more })
}

fn compat_op() -> impl Strategy<Value = CompatOp> {
    use CompatOp as Op;
    let cache = || 0..4_u8;
    let (base, shift) = (|| prop_oneof![4 => 0..600_u16, 1 => any::<u16>()], || 0..5_u8);
    Union::new_weighted(vec![
        (
            6,
            (cache(), cache_config())
                .prop_map(|(cache, config)| Op::Create { cache, config })
                .boxed(),
        ),
        (
            2,
            (cache(), cache(), cache_config())
                .prop_map(|(of, cache, config)| Op::Second { of, cache, config })
                .boxed(),
        ),
        (2, cache().prop_map(|cache| Op::Destroy { cache }).boxed()),
        (
            10,
            (cache(), how(), byte())
                .prop_map(|(cache, how, times)| Op::Alloc { cache, how, times })
                .boxed(),
        ),
        (
            3,
            (cache(), how(), byte())
                .prop_map(|(cache, how, n)| Op::AllocBulk { cache, how, n })
                .boxed(),
        ),
        (
            8,
            (cache(), byte(), byte())
                .prop_map(|(cache, i, times)| Op::Free { cache, i, times })
                .boxed(),
        ),
        (
            3,
            (cache(), byte(), byte())
                .prop_map(|(cache, i, n)| Op::FreeBulk { cache, i, n })
                .boxed(),
        ),
        (1, (cache(), byte()).prop_map(|(cache, i)| Op::Discard { cache, i }).boxed()),
        (1, (cache(), byte()).prop_map(|(cache, i)| Op::FreeTwice { cache, i }).boxed()),
        (
            1,
            (cache(), byte(), byte())
                .prop_map(|(cache, n, used)| Op::Sheaf { cache, n, used })
                .boxed(),
        ),
        (2, (cache(), soon()).prop_map(|(cache, max)| Op::SetLimit { cache, max }).boxed()),
        (1, (cache(), soon()).prop_map(|(cache, items)| Op::Prime { cache, items }).boxed()),
        (1, (cache(), soon()).prop_map(|(cache, items)| Op::LowWater { cache, items }).boxed()),
        (2, (cache(), byte()).prop_map(|(cache, how)| Op::Reap { cache, how }).boxed()),
        (1, byte().prop_map(|how| Op::ReapAll { how }).boxed()),
        (2, (cache(), soon()).prop_map(|(cache, least)| Op::Pool { cache, least }).boxed()),
        (2, how().prop_map(|how| Op::PoolAlloc { how }).boxed()),
        (1, byte().prop_map(|i| Op::PoolFree { i }).boxed()),
        (1, soon().prop_map(|least| Op::PoolResize { least }).boxed()),
        (1, soon().prop_map(|k| Op::PoolFails { k }).boxed()),
        (1, Just(Op::PoolEnd).boxed()),
        (
            4,
            (base(), shift(), byte(), how())
                .prop_map(|(base, shift, align, how)| Op::Memory { base, shift, align, how })
                .boxed(),
        ),
        (3, byte().prop_map(|i| Op::FreeMemory { i }).boxed()),
        (
            2,
            (byte(), base(), shift(), how())
                .prop_map(|(i, base, shift, how)| Op::Resize { i, base, shift, how })
                .boxed(),
        ),
        (
            1,
            (byte(), base(), shift())
                .prop_map(|(i, base, shift)| Op::WrongSize { i, base, shift })
                .boxed(),
        ),
        (1, (byte(), any::<u16>()).prop_map(|(i, offset)| Op::Interior { i, offset }).boxed()),
        (2, Just(Op::Again).boxed()),
        (1, (cache(), soon()).prop_map(|(cache, k)| Op::CtorRefuses { cache, k }).boxed()),
        (1, (cache(), soon()).prop_map(|(cache, k)| Op::CtorPanics { cache, k }).boxed()),
        (1, (cache(), soon()).prop_map(|(cache, k)| Op::DtorPanics { cache, k }).boxed()),
        (1, (cache(), soon()).prop_map(|(cache, k)| Op::PagesFail { cache, k }).boxed()),
        (1, Just(Op::NoFaults).boxed()),
        (1, byte().prop_map(|what| Op::BadCreate { what }).boxed()),
        (2, Just(Op::Verify).boxed()),
    ])
}

fn compat_program(face: Face) -> impl Strategy<Value = CompatProgram> {
    (any::<bool>(), prop::collection::vec(compat_op(), 0..80)).prop_map(move |(checked, ops)| {
        CompatProgram { config: CompatConfig { face, checked }, ops }
    })
}

#[test]
fn faces() {
    for face in [Face::Solaris, Face::Umem, Face::Linux, Face::Netbsd, Face::Freebsd] {
        check(40, compat_program(face), programs::compat::compat);
    }
}

fn mt_op() -> impl Strategy<Value = MtOp> {
    let (thread, cpu, zone) = (|| 0..4_u8, || 0..5_u8, || 0..2_u8);
    let patience = prop::sample::select(vec![Patience::Nowait, Patience::Until, Patience::Wait]);
    Union::new_weighted(vec![
        (
            10,
            (thread(), cpu(), zone(), patience)
                .prop_map(|(thread, cpu, zone, patience)| MtOp::Alloc {
                    thread,
                    cpu,
                    zone,
                    patience,
                })
                .boxed(),
        ),
        (
            2,
            (thread(), cpu(), zone(), byte())
                .prop_map(|(thread, cpu, zone, n)| MtOp::AllocMany { thread, cpu, zone, n })
                .boxed(),
        ),
        (
            7,
            (thread(), cpu(), zone(), byte(), soon())
                .prop_map(|(thread, cpu, zone, i, times)| MtOp::Free {
                    thread,
                    cpu,
                    zone,
                    i,
                    times,
                })
                .boxed(),
        ),
        (
            2,
            (thread(), cpu(), zone(), byte(), byte())
                .prop_map(|(thread, cpu, zone, i, n)| MtOp::FreeMany { thread, cpu, zone, i, n })
                .boxed(),
        ),
        (
            1,
            (thread(), zone(), byte())
                .prop_map(|(thread, zone, i)| MtOp::Keep { thread, zone, i })
                .boxed(),
        ),
        (1, thread().prop_map(|thread| MtOp::End { thread }).boxed()),
        (
            2,
            (thread(), cpu(), zone(), mode())
                .prop_map(|(thread, cpu, zone, mode)| MtOp::Reclaim { thread, cpu, zone, mode })
                .boxed(),
        ),
        (
            1,
            (thread(), zone(), soon())
                .prop_map(|(thread, zone, max)| MtOp::SetMaxItems { thread, zone, max })
                .boxed(),
        ),
        (1, (thread(), soon()).prop_map(|(thread, max)| MtOp::SetMaxBytes { thread, max }).boxed()),
        (
            1,
            (thread(), cpu(), zone())
                .prop_map(|(thread, cpu, zone)| MtOp::WaitUnused { thread, cpu, zone })
                .boxed(),
        ),
        (8, byte().prop_map(|after| MtOp::Interrupt { after }).boxed()),
        (4, thread().prop_map(|thread| MtOp::Go { thread }).boxed()),
        (1, thread().prop_map(|thread| MtOp::WakeForNothing { thread }).boxed()),
        (1, byte().prop_map(|by| MtOp::Tick { by }).boxed()),
        (1, soon().prop_map(|k| MtOp::PagesFail { k }).boxed()),
        (1, soon().prop_map(|k| MtOp::MetadataFail { k }).boxed()),
        (
            1,
            (zone(), fault(), soon())
                .prop_map(|(zone, fault, k)| MtOp::HookFails { zone, fault, k })
                .boxed(),
        ),
        (1, Just(MtOp::NoFaults).boxed()),
        (2, Just(MtOp::Verify).boxed()),
    ])
}

fn mt_program() -> impl Strategy<Value = MtProgram> {
    let few = || prop_oneof![1 => Just(0), 4 => 1..12_u8];
    let config = (byte(), byte(), 0..5_u8, [few(), few()], few(), byte(), any::<bool>()).prop_map(
        |(threads, cpus, bucket, items, group, slabs, checked)| MtConfig {
            threads,
            cpus,
            bucket,
            items,
            group,
            slabs,
            checked,
        },
    );
    (config, prop::collection::vec(mt_op(), 0..60))
        .prop_map(|(config, ops)| MtProgram { config, ops })
}

#[test]
fn threads_in_turns() {
    check(150, mt_program(), programs::mt::mt_replay);
}

/// A program that fails is printed so that it can be pasted into a test: here is one that was.
#[test]
fn programs_are_printed_as_rust() {
    macro_rules! as_printed {
        ($program:expr) => {
            let printed = format!("{:?}", $program);
            // But for white space and commas at the end of a list.
            let squeeze = |text: &str| {
                let text = text.split_whitespace().collect::<String>();
                text.replace(",]", "]").replace(",}", "}")
            };
            assert_eq!(squeeze(&printed), squeeze(stringify!($program)));
        };
    }
    as_printed!(Program {
        config: Config {
            size: 24,
            align: 3,
            page: 0,
            slab: 0,
            outside: true,
            no_touch: false,
            slabs: 2,
            cpus: 1,
            pinned: false,
            bucket: 2,
            depot: 2,
            limit: 7,
            hooks: true,
            closely: true,
            reclaim_first: true,
        },
        ops: vec![
            Op::Alloc { cpu: 0, times: 3 },
            Op::HookFails { fault: Fault::FiniPanics, k: 1 },
            Op::Reclaim { mode: Mode::DrainCpu },
            Op::Verify,
        ],
    });
    as_printed!(PageProgram {
        config: PageConfig { pages: 9, chunk_max: 1, dirty: 0, head: 5, tail: 6, page: 1 },
        ops: vec![PageOp::Alloc { pages: 3, align: 2 }, PageOp::Free { i: 0 }, PageOp::Trim],
    });
    as_printed!(TypedProgram {
        config: TypedConfig { cpus: 1, bucket: 2, limit: 3, slabs: 4 },
        ops: vec![TypedOp::Get { cpu: 1, text: 2 }, TypedOp::Verify],
    });
}

/// A panic leaves a zone above its group's limit, and who counts it drains it: what is counted is what is so then.
#[test]
fn a_count_that_drains() {
    use programs::mt::mt_replay;

    mt_replay(&MtProgram {
        config: MtConfig {
            threads: 0,
            cpus: 0,
            bucket: 1,
            items: [0, 0],
            group: 0,
            slabs: 33,
            checked: false,
        },
        ops: vec![
            MtOp::Alloc { thread: 0, cpu: 0, zone: 0, patience: Patience::Nowait },
            MtOp::FreeMany { thread: 0, cpu: 0, zone: 0, i: 0, n: 1 },
            MtOp::Alloc { thread: 0, cpu: 0, zone: 1, patience: Patience::Nowait },
            MtOp::Free { thread: 0, cpu: 0, zone: 1, i: 0, times: 0 },
            MtOp::HookFails { zone: 0, fault: Fault::FiniPanics, k: 0 },
            MtOp::SetMaxBytes { thread: 0, max: 1 },
            MtOp::WaitUnused { thread: 0, cpu: 0, zone: 0 },
        ],
    });
}
