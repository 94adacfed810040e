//! What holds for zones of every kind: with slabs of their own, on those of another, over a source.

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use uma::core::{AllocError, FnHooks, Hooks, Item, ItemSource, NoHooks, Refused, Request};
use uma::debug::{Hardening, Report, Verdict};
use uma::{Host, Origin, Platform, RawZone, Reclaim, ZoneFlags};

const ITEM: Layout = Layout::new::<[u64; 4]>();

/// What the CPUs of a zone hold, as the registry shows it.
fn on_cpus(name: &str) -> u64 {
    let mut sum = 0;
    Host.registry().visit(&mut |zone| {
        if zone.name().as_str() == name {
            zone.visit_cpus(&mut |_, items| sum += items);
        }
    });
    sum
}

fn shows_its_cpus<O: Origin<Host>>(zone: &RawZone<Host, NoHooks, O>) {
    let items: Vec<Item> = (0..3).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect();
    // SAFETY: they came from this zone and are not used any more.
    items.into_iter().for_each(|item| unsafe { zone.free(item) });
    // What is in the depot goes, and all that is left is on CPUs.
    zone.reclaim(Reclaim::Drain);
    let name = zone.name().as_str();
    assert!(on_cpus(name) >= 1, "{name}");
    assert_eq!(on_cpus(name), zone.stats().cached, "{name}");
}

#[test]
fn every_kind_shows_its_cpus() {
    static BELOW: RawZone = RawZone::builder("kinds below", ITEM).lazy();
    let own = RawZone::builder("kinds own", ITEM).bucket(8).build().unwrap();
    let second = own.secondary("kinds second").bucket(8).build().unwrap();
    let over = RawZone::over("kinds over", &BELOW).bucket(8).build().unwrap();
    shows_its_cpus(&own);
    shows_its_cpus(&second);
    shows_its_cpus(&over);
}

/// All items lie between guard pages, if they may.
const SAMPLED: Hardening = Hardening::sampled(1);

#[test]
fn copies_for_each_cpu_are_there_whatever_is_sampled() {
    let zone = RawZone::builder("kinds pcpu", ITEM).flags(ZoneFlags::PCPU).hardening(SAMPLED);
    let zone = zone.build().unwrap();
    for _ in 0..3 {
        let item = zone.alloc_pcpu(Request::NOWAIT.zeroed()).unwrap();
        for cpu in 0..zone.pcpu_copies() {
            let copy = zone.pcpu_copy(item, cpu).unwrap();
            // SAFETY: it is ours until the item is freed.
            unsafe { assert_eq!(copy.cast::<[u64; 4]>().read(), [0; 4]) };
        }
        // SAFETY: it came from this zone and is not used any more.
        unsafe { zone.free(item) };
    }
}

#[test]
fn items_of_a_zone_that_keeps_its_slabs_stay_readable_whatever_is_sampled() {
    let zone = RawZone::builder("kinds nofree", ITEM).flags(ZoneFlags::NOFREE).hardening(SAMPLED);
    let zone = zone.build().unwrap();
    let item = zone.alloc(Request::NOWAIT).unwrap();
    // SAFETY: it came from this zone; and what was an item once is one as long as there is the zone.
    unsafe {
        item.cast::<AtomicU64>().as_ref().store(7, Ordering::Relaxed);
        zone.free(item);
        item.cast::<AtomicU64>().as_ref().load(Ordering::Relaxed);
    }
}

/// Hooks by which an item is marked when it enters the caches.
fn marking() -> FnHooks {
    unsafe fn mark(_: *mut (), item: Item, _: Request) -> Result<(), Refused> {
        // SAFETY: the zone's items have room for it.
        unsafe { item.cast::<u64>().write(0x1234) };
        Ok(())
    }
    FnHooks { init: Some(mark), ..FnHooks::NONE }
}

/// Whether an item of the zone is marked.
fn marked<H, O>(zone: &RawZone<Host, H, O>) -> bool
where
    H: Hooks + Clone + Send + Sync + 'static,
    O: Origin<Host>,
{
    let item = zone.alloc(Request::NOWAIT).unwrap();
    // SAFETY: it came from this zone, has been marked or is memory of the zone's own, and is given up.
    unsafe {
        let marked = item.cast::<u64>().read() == 0x1234;
        zone.free(item);
        marked
    }
}

#[test]
fn items_come_as_their_source_has_made_them_whatever_is_sampled() {
    let primary = RawZone::builder("kinds primary", ITEM);
    // SAFETY: the hooks suit the items.
    let primary = unsafe { primary.hooks(marking()) }.build().unwrap();
    assert!(marked(&primary));
    let second = primary.secondary("kinds sampled second").hardening(SAMPLED).build().unwrap();
    assert!(marked(&second), "an item that did not come through the init of the primary");

    let below = Box::leak(Box::new(primary));
    let over = RawZone::over("kinds sampled over", &*below).hardening(SAMPLED).build().unwrap();
    assert!(marked(&over), "an item that did not come from the source");
}

#[test]
fn a_limit_that_is_lowered_drains_the_quarantine() {
    let zone = RawZone::builder("kinds quarantine", ITEM);
    let zone = zone.max_items(8).hardening(Hardening::RELEASE.quarantine(16)).build().unwrap();
    let items: Vec<Item> = (0..8).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect();
    // SAFETY: they came from this zone and are not used any more.
    items.into_iter().for_each(|item| unsafe { zone.free(item) });
    assert_eq!(zone.stats().cached, 8);
    zone.set_max_items(NonZeroU64::new(1)).unwrap();
    assert!(zone.stats().cached <= 1, "more are held than there may be");
}

/// Numbers from 1 on, which are no memory: items of no size at these addresses.
struct Numbers(Mutex<Vec<usize>>);

// SAFETY: each number is out once, and an item of no size needs no memory.
unsafe impl ItemSource for Numbers {
    fn layout(&self) -> Layout {
        Layout::new::<()>()
    }

    fn import(&self, into: &mut [MaybeUninit<Item>], _: Request) -> Result<usize, AllocError> {
        let mut free = self.0.lock().unwrap();
        let mut count = 0;
        while let Some(place) = into.get_mut(count)
            && let Some(number) = free.pop().and_then(NonZeroUsize::new)
        {
            place.write(Item::new(NonNull::without_provenance(number)));
            count += 1;
        }
        if count == 0 { Err(AllocError::Source) } else { Ok(count) }
    }

    unsafe fn release(&self, items: &[Item]) {
        self.0.lock().unwrap().extend(items.iter().map(|item| item.addr()));
    }
}

/// Items that are no memory are looked after as others are, and not touched.
#[test]
fn identifiers_with_checks() {
    static REPORTS: AtomicU64 = AtomicU64::new(0);

    fn on_misuse(_: &Report<'_>) -> Verdict {
        REPORTS.fetch_add(1, Ordering::Relaxed);
        Verdict::Ignore
    }

    let tiers =
        [Hardening::HARDENED, Hardening::DEBUG, Hardening::DEBUG.divisor(3), Hardening::ASAN];
    for (tier, reports) in tiers.into_iter().chain([Hardening::sampled(1)]).zip(1..) {
        let numbers: &Numbers = Box::leak(Box::new(Numbers(Mutex::new((1..=100).collect()))));
        let zone =
            RawZone::over("numbers", numbers).hardening(tier).on_misuse(on_misuse).build().unwrap();
        let mut out: Vec<Item> = (0..100).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect();
        assert!(zone.alloc(Request::NOWAIT).is_err());
        out.sort_unstable_by_key(|item| item.addr());
        assert!(out.iter().map(|item| item.addr()).eq(1..=100));
        let again = out[7];
        // SAFETY: they came from this zone and are not used any more; that one comes twice is found out, where
        // it is looked at.
        unsafe {
            out.into_iter().for_each(|item| zone.free(item));
            if tier.is_live() {
                zone.free(again);
                assert_eq!(REPORTS.load(Ordering::Relaxed), reports);
            }
        }
        assert_eq!(zone.stats().used(), 0);
        drop(zone);
        assert_eq!(numbers.0.lock().unwrap().len(), 100);
    }
}
