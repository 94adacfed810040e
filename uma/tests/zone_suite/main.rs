//! One suite of zone tests, on every supplier of pages and every way to the slots.

mod ends;
mod platforms;
mod suite;

use std::ptr::NonNull;

use parking_lot::RawMutex;
use uma::Hardening;
use uma::cache::{CpuLocks, PerCpu, Pinned};
use uma::core::{AllocError, PageError, PageSupplier, Request};
use uma::keg::MetaKegs;
use uma::mmap::MmapPages;
use uma::{RawZone, Reclaim};
use uma_backend_static::StaticPages;
use uma_testkit::{Budget, FailNth, Fake};

use platforms::{Chosen, Machine, On, Preemption, run_on};
use suite::{Bench, free, take};

const PLENTY: usize = 32 << 20;

/// A static region: leaked memory, which is as good.
fn region(bytes: usize) -> StaticPages<RawMutex> {
    let memory = Box::leak(vec![0u8; bytes].into_boxed_slice());
    // SAFETY: the memory is leaked, so it is valid for ever and ours alone.
    unsafe { StaticPages::from_raw(NonNull::from_mut(memory).cast(), bytes) }
}

fn run<P, C>(pages: P, cpus: C, caching: bool) -> Machine<P, C>
where
    P: PageSupplier + Send + Sync,
    C: PerCpu + Copy + Send + Sync,
{
    run_at(Hardening::RELEASE, pages, cpus, caching)
}

/// The same in a tier that checks.
fn run_at<P, C>(tier: Hardening, pages: P, cpus: C, caching: bool) -> Machine<P, C>
where
    P: PageSupplier + Send + Sync,
    C: PerCpu + Copy + Send + Sync,
{
    let mut machine = Machine::new(pages, cpus);
    machine.tier = tier;
    Bench { machine: &machine, caching }.all();
    machine
}

fn on_every_access<P: PageSupplier + Send + Sync>(pages: impl Fn() -> P, check: impl Fn(&P)) {
    // Panics are planned here, by the hundred, and are told apart from others by their text.
    quiet_planned_panics();
    check(&run(pages(), CpuLocks::new(Chosen), true).pages);
    check(&run(pages(), CpuLocks::new(Chosen), false).pages);
    let preemption = Box::leak(Box::new(Preemption::default()));
    check(&run(pages(), Pinned::new(&*preemption), true).pages);
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
fn on_mmap() {
    on_every_access(MmapPages::new, |pages| assert_eq!(pages.stats().in_use, 0));
}

#[test]
fn on_static_memory() {
    on_every_access(|| region(PLENTY), |pages| assert_eq!(pages.stats().free, pages.stats().total));
}

#[test]
fn on_fake() {
    on_every_access(Fake::new, |pages| assert_eq!(pages.outstanding().runs, 0));
}

/// Zones that check keep every promise that plain ones do, and find nothing wrong with what the suite does.
#[test]
fn hardened_on_mmap() {
    quiet_planned_panics();
    let pages = run_at(Hardening::HARDENED, MmapPages::new(), CpuLocks::new(Chosen), true).pages;
    assert_eq!(pages.stats().in_use, 0);
}

#[test]
fn debug_on_fake() {
    quiet_planned_panics();
    let pages = run_at(Hardening::DEBUG, Fake::new(), CpuLocks::new(Chosen), true).pages;
    assert_eq!(pages.outstanding().runs, 0);
}

/// Every third item lies between guard pages, if there is room there.
#[test]
fn sampled_on_mmap() {
    quiet_planned_panics();
    let tier = Hardening::sampled(3);
    let pages = run_at(tier, MmapPages::new(), CpuLocks::new(Chosen), true).pages;
    assert_eq!(pages.stats().in_use, 0);
}

#[test]
fn sampled_and_debug_on_fake() {
    quiet_planned_panics();
    let tier = Hardening::DEBUG.sample(2);
    let pages = run_at(tier, Fake::new(), CpuLocks::new(Chosen), false).pages;
    assert_eq!(pages.outstanding().runs, 0);
}

#[test]
fn on_budget() {
    on_every_access(|| Budget::new(Fake::new(), PLENTY), |pages| assert_eq!(pages.used(), 0));
}

/// Bounded suppliers: as many items every time, and a clear error at the end.
fn exhausts<P: PageSupplier + Send + Sync>(pages: P) {
    let machine = Machine::new(pages, CpuLocks::new(Chosen));
    for size in [16, 100, 4096, 20_000] {
        let layout = std::alloc::Layout::from_size_align(size, 8).unwrap();
        let zone = RawZone::builder_in("bounded", layout, On(&machine)).build().unwrap();
        run_on(0);
        let all = take(&zone, usize::MAX);
        assert!(all.len() * size > 500_000, "only {} items of {size} bytes", all.len());
        let error = zone.alloc(Request::WAIT).unwrap_err();
        assert_eq!(error.reason(), AllocError::Pages(PageError::Exhausted));
        let text = error.to_string();
        assert!(text.contains("bounded") && text.contains("exhausted"), "{text}");
        // On another CPU: what the first one has cached is found.
        let count = all.len();
        all.into_iter().for_each(|item| free(&zone, item));
        run_on(1);
        let again = take(&zone, usize::MAX);
        assert_eq!(again.len(), count);
        again.into_iter().for_each(|item| free(&zone, item));
        zone.reclaim(Reclaim::DrainCpu);
        assert_eq!(zone.stats().bytes, 0);
    }
}

#[test]
fn bounded_suppliers_are_used_up_and_filled_again() {
    exhausts(Budget::new(Fake::new(), 1 << 20));
    exhausts(region((1 << 20) + (128 << 10)));
}

/// Fails the k-th request for pages, for every k.
#[test]
fn every_page_failure_is_survived() {
    let machine = Machine::new(FailNth::new(Fake::new()), CpuLocks::new(Chosen));
    for k in 1.. {
        let plan = &machine.pages;
        let layout = std::alloc::Layout::from_size_align(1500, 8).unwrap();
        let zone = RawZone::builder_in("failing", layout, On(&machine)).bucket(4).build().unwrap();
        plan.fail_at(k);
        let mut held = take(&zone, 60);
        held.drain(..held.len() / 2).for_each(|item| free(&zone, item));
        held.extend(take(&zone, 100));
        let failed = plan.failed();
        plan.never();
        assert_eq!(zone.stats().used(), held.len() as u64);
        held.extend(take(&zone, 200 - held.len()));
        assert_eq!(held.len(), 200);
        held.into_iter().for_each(|item| free(&zone, item));
        drop(zone);
        assert_eq!(machine.pages.inner().outstanding().runs, 0);
        assert_eq!(machine.metadata.outstanding(), 0);
        if failed == 0 {
            assert!(k > 3, "only {k} requests were tried");
            break;
        }
    }
}

/// A zone that is dropped with items in use says so, and leaves their memory alone.
#[test]
fn leaks_are_reported_and_survive_the_zone() {
    let machine = Machine::new(Fake::new(), CpuLocks::new(Chosen));
    machine.pages.allow_leaks();
    machine.metadata.allow_leaks();
    let layout = std::alloc::Layout::from_size_align(32, 8).unwrap();
    let zone = RawZone::builder_in("leaky", layout, On(&machine)).build().unwrap();
    let items = take(&zone, 3);
    drop(zone);
    // SAFETY: the zone promises to leave the memory of items in use alone.
    items.iter().for_each(|item| unsafe { item.as_ptr().write_bytes(0xa5, 32) });
    let reports = machine.reports.lock().unwrap().clone();
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert!(report.contains("\"leaky\"") && report.contains("3 items"), "{report}");
    assert!(report.contains(&format!("{:#x}", items[0].addr())), "{report}");
}

/// Boot memory is enough: a static region runs the whole suite with no other supplier, metadata
/// included, to exhaustion and back, again and again. `UMA_STATIC_ROUNDS` says how often, 3 times if unset.
#[test]
fn static_memory_alone() {
    quiet_planned_panics();
    let rounds = std::env::var("UMA_STATIC_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    let pages: &StaticPages<RawMutex> = Box::leak(Box::new(region(ALONE)));
    let kegs: &MetaKegs<_, RawMutex> = Box::leak(Box::new(MetaKegs::new(pages)));
    let preemption: &Preemption = Box::leak(Box::default());
    let whole = pages.stats();
    let mut counts = [0; 4];
    for round in 0..rounds {
        match round % 3 {
            0 => alone(pages, CpuLocks::new(Chosen), true, kegs, &mut counts),
            1 => alone(pages, CpuLocks::new(Chosen), false, kegs, &mut counts),
            _ => alone(pages, Pinned::new(preemption), true, kegs, &mut counts),
        }
        kegs.reclaim();
        assert_eq!(pages.stats(), whole, "after round {round}");
    }
    println!(
        "{rounds} rounds of the suite on {} pages, all of them used up each time",
        whole.total
    );
}

/// Room for the suite and its metadata.
const ALONE: usize = 9 << 20;

/// One round: the suite, and then all pages used up in turn by zones of four sizes. As many items are to be
/// had as ever before.
fn alone<C: PerCpu + Copy + Send + Sync>(
    pages: &'static StaticPages<RawMutex>,
    cpus: C,
    caching: bool,
    kegs: &'static MetaKegs<&'static StaticPages<RawMutex>, RawMutex>,
    counts: &mut [usize; 4],
) {
    let machine = Machine::with_kegs(pages, cpus, kegs);
    Bench { machine: &machine, caching }.all();
    for (size, count) in [64, 1000, 4096, 60_000].into_iter().zip(counts) {
        kegs.reclaim();
        let layout = std::alloc::Layout::from_size_align(size, 8).unwrap();
        let zone = RawZone::builder_in("alone", layout, On(&machine)).bucket(0).build().unwrap();
        run_on(0);
        let all = take(&zone, usize::MAX);
        let (held, total) = (zone.stats().bytes as usize, pages.stats().total * 4096);
        assert!(held > total / 8 * 7, "only {held} of {total} bytes are in slabs");
        let reason = zone.alloc(Request::NOWAIT).unwrap_err().reason();
        assert!(matches!(reason, AllocError::Pages(PageError::Exhausted) | AllocError::Metadata));
        assert!(*count == 0 || *count == all.len(), "{} items of {size}, not {count}", all.len());
        *count = all.len();
        all.into_iter().for_each(|item| free(&zone, item));
    }
}
