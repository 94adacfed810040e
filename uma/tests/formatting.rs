//! Handles can be printed in every state: new, in use, after a panic, when emptied and when their
//! zone could not be destroyed. Nothing that is printed follows a pointer to an item.

use std::alloc::Layout;
use std::fmt::Debug;
use std::num::NonZeroU64;

use uma::core::{FnHooks, Item, Reclaim, Refused, Request};
use uma::{
    CacheZone, Hardening, Host, HostAccess, HostCpus, Maintenance, ObjectCache, OwnSlabs, Park,
    Platform, RawZone, Table, Zone, ZoneBox, ZoneGroup,
};
use uma_testkit::caught;

/// What a value shows of itself, which must have its type's name in it.
#[track_caller]
fn shown(value: &dyn Debug, name: &str) -> String {
    let text = format!("{value:?}");
    assert!(text.contains(name), "no {name} in {text}");
    assert!(!format!("{value:#?}").is_empty());
    text
}

#[test]
fn zones_in_every_state() {
    static STATIC: Zone<u64> = Zone::new("static");
    assert!(shown(&STATIC, "Zone").contains("used_before: false"));
    let builder = Zone::<u64>::builder("formatted").max_items(3);
    shown(&builder, "ZoneBuilder");
    for tier in [Hardening::RELEASE, Hardening::HARDENED, Hardening::DEBUG] {
        let zone = Zone::<u64>::builder("formatted").max_items(3).hardening(tier).build().unwrap();
        assert!(shown(&zone, "Zone").contains("used_before: true"));
        shown(zone.as_raw(), "formatted");
        let one = zone.alloc(0x5eed).unwrap();
        assert_eq!((format!("{one:?}"), one.to_string()), ("24301".into(), "24301".into()));
        shown(&zone, "formatted");
        // After a panic in the middle of an allocation.
        let unborn = caught(|| zone.alloc_with(|| panic!("as planned")).map(drop));
        assert!(unborn.is_err());
        shown(&zone, "formatted");
        let mut room = zone.prefill(2).unwrap();
        shown(&room, "Reserved");
        let rejected = zone.try_alloc(7).unwrap_err();
        assert!(shown(&rejected, "Rejected").contains("formatted"));
        assert!(rejected.to_string().contains("formatted"));
        drop(room.place(1).unwrap());
        shown(&room, "left: 1");
        drop(room);
        drop(one);
        zone.reclaim(Reclaim::DrainCpu);
        shown(&zone, "formatted");
        shown(&zone.stats(), "Stats");
    }
}

#[test]
fn raw_zones_whose_hooks_panic() {
    unsafe fn ctor(_: *mut (), _: Item, _: *mut (), _: Request) -> Result<(), Refused> {
        panic!("as planned")
    }
    let hooks = FnHooks { ctor: Some(ctor), ..FnHooks::NONE };
    let builder = RawZone::builder("formatted, too", Layout::new::<u64>());
    shown(&builder, "RawZoneBuilder");
    // SAFETY: the hook touches no item.
    let zone = unsafe { builder.hooks(hooks) }.build().unwrap();
    for _ in 0..3 {
        assert!(caught(|| zone.alloc(Request::NOWAIT)).is_err());
        shown(&zone, "RawZone");
    }
    assert_eq!(zone.cur_items(), 0);
    shown(&hooks, "FnHooks");
}

#[test]
fn zones_that_are_in_use_or_gone() {
    let zone = RawZone::builder("held", Layout::new::<u64>()).build().unwrap();
    let item = zone.alloc(Request::NOWAIT).unwrap();
    let busy = zone.try_destroy().unwrap_err();
    shown(&busy, "Busy");
    shown(&busy.in_use, "InUse");
    assert!(busy.to_string().contains("1 items of zone \"held\""), "{busy}");
    let list = busy.zone.prefill(3, Request::NOWAIT).unwrap();
    shown(&list, "Prefilled");
    drop(list);
    // SAFETY: the item came from this zone and is used no more.
    unsafe { busy.zone.free(item) };
    busy.zone.try_destroy().unwrap();
    // What a zone that is gone said of itself can still be shown.
    let gone = {
        let zone = Zone::<u8>::builder("gone").max_items(1).build().unwrap();
        let _one = zone.alloc(1).unwrap();
        zone.try_alloc(2).unwrap_err()
    };
    assert!(format!("{gone} {gone:?}").contains("gone"));
}

#[test]
fn zones_over_others() {
    static FIRST: RawZone = RawZone::builder("first", Layout::new::<u64>()).lazy();
    let builder = RawZone::secondary_of(&FIRST, "second", Host);
    shown(&builder, "second");
    let second = builder.build().unwrap();
    shown(&second, "second");
    let third = FIRST.secondary("third");
    shown(&third, "third");
    drop(third);
    let over: CacheZone<&RawZone> = RawZone::over("over", &FIRST).build().unwrap();
    shown(&over, "over");
}

#[test]
fn caches_of_objects() {
    let builder = ObjectCache::<Vec<u8>>::builder("objects");
    shown(&builder, "ObjectCacheBuilder");
    let cache = builder.init(Vec::new).dtor(|object| assert!(object.is_empty(), "as planned"));
    shown(&cache, "ObjectCacheBuilder");
    let cache = cache.build().unwrap();
    shown(&cache, "ObjectCache");
    let mut object = cache.get().unwrap();
    object.push(1);
    assert_eq!(format!("{object:?}"), "[1]");
    assert!(caught(|| drop(object)).is_err());
    shown(&cache, "objects");
    assert_eq!(cache.cur_items(), 0);
}

#[test]
fn the_rest() {
    static GROUP: ZoneGroup = ZoneGroup::new("a group", NonZeroU64::new(1 << 20), Park);
    shown(&GROUP, "a group");
    let zone = Zone::<u64>::builder("in a group").group(&GROUP).build().unwrap();
    let one = zone.alloc(1).unwrap();
    shown(&GROUP, "a group");
    drop(one);
    drop(zone);
    shown(&GROUP, "a group");
    shown(&Host, "Host");
    shown(&Park, "Park");
    shown(&HostCpus, "HostCpus");
    shown(&Host.cpus() as &HostAccess, "HostAccess");
    shown(&OwnSlabs, "OwnSlabs");
    shown(Host.registry(), "Registry");
    shown(&uma::stat(), "Stat");
    shown(&uma::zones(), "[");
    shown(&Maintenance::start(std::time::Duration::from_secs(100)).unwrap(), "Maintenance");
    shown(&Hardening::default(), "Hardening");
    let zones = uma::zones();
    assert!(Table::new(&*zones).to_string().contains("ITEM"));
    let boxed = Zone::<[u8; 3]>::builder("boxed").build().unwrap();
    let pinned = ZoneBox::into_pin(boxed.alloc([1, 2, 3]).unwrap());
    assert_eq!(format!("{pinned:?}"), "[1, 2, 3]");
}
