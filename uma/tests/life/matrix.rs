//! When each hook runs, and what a failure of it leads to: the matrix of zone(9).

use std::ptr;

use uma::core::{AllocError, FnHooks, PageError, Refused, Request};
use uma::{Hardening, RawZone, Reclaim};
use uma_testkit::caught;
use uma_testkit::hooks::Hook;
use uma_testkit::machine;

use crate::toy::{On, Toy, bytes, counting, give, layout, take, telling, told};

#[test]
fn pages_init_ctor_dtor_fini_pages() {
    let toy = Toy::new();
    let zone = RawZone::builder_in("told", layout(64, 8), On(&toy)).bucket(0);
    // SAFETY: the hooks touch nothing.
    let zone = unsafe { zone.hooks(telling("zone")) }.build().unwrap();
    let one = take(&zone, 1);
    give(&zone, one);
    assert_eq!(told(), ["zone init", "zone ctor", "zone dtor", "zone fini"]);
    drop(zone);
    toy.assert_clean();
}

/// UMA of 2002 forgot the fini it was given, so that none was ever called.
#[test]
fn fini_is_called_for_every_init() {
    let toy = Toy::new();
    let hooks = counting();
    let zone = RawZone::builder_in("fini", layout(64, 8), On(&toy));
    // SAFETY: the hooks touch nothing.
    let zone = unsafe { zone.hooks(hooks) }.build().unwrap();
    let items = take(&zone, 700);
    give(&zone, items);
    zone.reclaim(Reclaim::DrainCpu);
    let counts = hooks.counts();
    assert!(counts.init >= 700 && counts.fini == counts.init, "{counts:?}");
    drop(zone);
    hooks.assert_balanced();
    toy.assert_clean();
}

/// Bucket fill: the items before the one whose init refused are kept, the rest goes back.
#[test]
fn a_refused_init_in_a_batch_keeps_those_before_it() {
    let toy = Toy::new();
    let hooks = counting();
    let zone = RawZone::builder_in("batch", layout(64, 8), On(&toy)).bucket(16);
    // SAFETY: the hooks touch nothing.
    let zone = unsafe { zone.hooks(hooks) }.build().unwrap();
    hooks.refuse_at(Hook::Init, 6);
    let items = take(&zone, 5);
    assert_eq!((hooks.counts().init, hooks.counts().fini), (5, 0));
    give(&zone, items);
    drop(zone);
    hooks.assert_balanced();
    toy.assert_clean();
}

/// Single item: it goes back without fini; the caller gets nothing although it would wait, and the failure
/// is counted.
#[test]
fn a_refused_init_fails_the_allocation() {
    let toy = Toy::new();
    let hooks = counting();
    let zone = RawZone::builder_in("single", layout(64, 8), On(&toy)).bucket(0).max_items(1);
    // SAFETY: the hooks touch nothing.
    let zone = unsafe { zone.hooks(hooks) }.build().unwrap();
    hooks.refuse_at(Hook::Init, 1);
    assert_eq!(zone.alloc(Request::WAIT).unwrap_err().reason(), AllocError::Refused);
    let counts = hooks.counts();
    assert_eq!((counts.init, counts.fini, counts.ctor, zone.stats().fails), (0, 0, 0, 1));
    // The limit has room again.
    let one = take(&zone, 1);
    give(&zone, one);
    drop(zone);
    hooks.assert_balanced();
    toy.assert_clean();
}

/// Dtor is skipped, fini is run, the item goes back and the counts agree (where FreeBSD's do not: it
/// forgets the item in the limit).
#[test]
fn a_refused_ctor_skips_the_dtor_and_finishes_the_item() {
    for bucket in [0, 8] {
        let toy = Toy::new();
        let hooks = counting();
        let zone = RawZone::builder_in("ctor", layout(64, 8), On(&toy)).bucket(bucket).max_items(8);
        // SAFETY: the hooks touch nothing.
        let zone = unsafe { zone.hooks(hooks) }.build().unwrap();
        for _ in 0..20 {
            hooks.refuse_at(Hook::Ctor, 1);
            assert_eq!(zone.alloc(Request::WAIT).unwrap_err().reason(), AllocError::Refused);
        }
        let (counts, stats) = (hooks.counts(), zone.stats());
        assert_eq!((counts.ctor, counts.dtor, counts.fini), (0, 0, 20));
        assert_eq!((stats.fails, stats.used()), (20, 0));
        let items = take(&zone, 8);
        give(&zone, items);
        drop(zone);
        hooks.assert_balanced();
        toy.assert_clean();
    }
}

/// The same for an item between guard pages: memguard finished it and then lost it.
#[test]
fn a_refused_ctor_of_a_guarded_item() {
    let toy = Toy::new();
    let hooks = counting();
    let zone = RawZone::builder_in("guarded", layout(64, 8), On(&toy))
        .hardening(Hardening::sampled(1))
        .max_items(4);
    // SAFETY: the hooks touch nothing.
    let zone = unsafe { zone.hooks(hooks) }.build().unwrap();
    for _ in 0..50 {
        hooks.refuse_at(Hook::Ctor, 1);
        assert_eq!(zone.alloc(Request::WAIT).unwrap_err().reason(), AllocError::Refused);
    }
    let (counts, stats) = (hooks.counts(), zone.stats());
    assert_eq!((counts.ctor, counts.dtor), (0, 0));
    assert_eq!((stats.fails, stats.used()), (50, 0));
    let items = take(&zone, 4);
    give(&zone, items);
    drop(zone);
    hooks.assert_balanced();
    toy.assert_clean();
}

#[test]
fn a_panic_of_any_hook_loses_nothing() {
    for hook in [Hook::Init, Hook::Fini, Hook::Ctor, Hook::Dtor] {
        for k in 1..12 {
            let toy = Toy::new();
            let hooks = counting();
            let zone =
                RawZone::builder_in("panics", layout(64, 8), On(&toy)).bucket(4).max_items(20);
            // SAFETY: the hooks touch nothing.
            let zone = unsafe { zone.hooks(hooks) }.build().unwrap();
            hooks.panic_at(hook, k);
            let panicked = caught(|| {
                for _ in 0..3 {
                    let mut items = take(&zone, 10);
                    while let Some(item) = items.pop() {
                        give(&zone, vec![item]);
                    }
                    zone.reclaim(Reclaim::DrainCpu);
                }
            });
            assert!(panicked.is_err(), "{hook:?} {k}");
            // Items that the caller still had are lost to it, not to the limit: what is out is counted.
            let out = zone.stats().used();
            assert!(out <= 10, "{hook:?} {k}: {out} out");
            let rest = take(&zone, 20 - out as usize);
            assert_eq!(zone.alloc(Request::NOWAIT).unwrap_err().reason(), AllocError::Limit);
            give(&zone, rest);
            assert_eq!(hooks.violations(), [""; 0], "{hook:?} {k}");
            if out != 0 {
                std::mem::forget(zone);
                std::mem::forget(toy);
            } else {
                drop(zone);
                toy.assert_clean();
            }
        }
    }
}

/// No hook runs with a lock held, so it may use zones, this one included.
#[test]
fn hooks_may_use_their_own_zone() {
    thread_local! {
        static SELF: std::cell::Cell<*const ()> = const { std::cell::Cell::new(ptr::null()) };
        static DEPTH: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }
    type Own = RawZone<On<'static>, FnHooks>;

    fn once_more() {
        machine::outside_locks("a hook runs");
        // SAFETY: the zone outlives the test's calls of its hooks.
        let Some(zone) = (unsafe { SELF.get().cast::<Own>().as_ref() }) else { return };
        if DEPTH.get() < 2 {
            DEPTH.set(DEPTH.get() + 1);
            let item = zone.alloc(Request::NOWAIT).unwrap();
            let _ = (zone.stats(), zone.platform().0.names());
            // SAFETY: the item came from the zone.
            unsafe { zone.free(item) };
            DEPTH.set(DEPTH.get() - 1);
        }
    }

    let hooks = FnHooks {
        context: ptr::null_mut(),
        init: Some(|_, _, _| {
            once_more();
            Ok(())
        }),
        fini: Some(|_, _| once_more()),
        ctor: Some(|_, _, _, _| {
            once_more();
            Ok(())
        }),
        dtor: Some(|_, _, _| once_more()),
    };
    let on = Toy::leaked();
    let zone = RawZone::builder_in("own", layout(64, 8), on).bucket(2);
    // SAFETY: the hooks touch no item but those they allocate.
    let zone = unsafe { zone.hooks(hooks) }.build().unwrap();
    SELF.set(ptr::from_ref(&zone).cast());
    for _ in 0..3 {
        let items = take(&zone, 9);
        give(&zone, items);
        zone.reclaim(Reclaim::DrainCpu);
    }
    SELF.set(ptr::null());
    drop(zone);
    on.0.assert_clean();
}

/// The caller's argument reaches ctor and dtor, which may refuse because of it.
#[test]
fn arguments_reach_ctor_and_dtor() {
    let toy = Toy::new();
    let hooks = FnHooks {
        ctor: Some(|_, item, arg, _| {
            // SAFETY: the test passes a pointer to a byte, and the item is the hook's.
            match unsafe { arg.cast::<u8>().as_ref() } {
                Some(0) => Err(Refused),
                Some(&byte) => {
                    bytes(item, 64).fill(byte);
                    Ok(())
                }
                None => Ok(()),
            }
        }),
        dtor: Some(|_, item, arg| {
            // SAFETY: as above.
            if let Some(byte) = unsafe { arg.cast::<u8>().as_mut() } {
                *byte = bytes(item, 64)[63];
            }
        }),
        ..FnHooks::NONE
    };
    let zone = RawZone::builder_in("arg", layout(64, 8), On(&toy));
    // SAFETY: the hooks touch 64 bytes and take null.
    let zone = unsafe { zone.hooks(hooks) }.build().unwrap();
    let (mut good, mut bad, mut back) = (42_u8, 0_u8, 0_u8);
    // SAFETY: these are what the hooks expect.
    unsafe {
        let item = zone.alloc_arg((&raw mut good).cast(), Request::NOWAIT).unwrap();
        assert!(bytes(item, 64).iter().all(|&byte| byte == 42));
        let refused = zone.alloc_arg((&raw mut bad).cast(), Request::WAIT);
        assert_eq!(refused.unwrap_err().reason(), AllocError::Refused);
        zone.free_arg(item, (&raw mut back).cast());
    }
    assert_eq!(back, 42);
    drop(zone);
    toy.assert_clean();
}

/// A bucket fill never takes what is kept in reserve, no drain gives it up, and whoever may have it gets
/// all of it, although some was cached meanwhile.
#[test]
fn a_reserve_is_for_those_who_may_use_it() {
    let toy = Toy::new();
    let zone = RawZone::builder_in("reserve", layout(512, 8), On(&toy)).bucket(16).reserve(20);
    let zone = zone.build().unwrap();
    zone.prealloc(100).unwrap();
    let before = zone.stats().keg_free;
    for mode in [Reclaim::Trim, Reclaim::Drain, Reclaim::DrainCpu] {
        zone.reclaim(mode);
        assert!(zone.stats().keg_free >= 20, "{mode:?} ate the reserve");
    }
    toy.pages.0.set_max(toy.bytes());
    let mut ordinary = Vec::new();
    while let Ok(item) = zone.alloc(Request::NOWAIT) {
        ordinary.push(item);
        machine::run_on(ordinary.len() % 3);
    }
    assert!(before >= 20 && zone.stats().free() == 20, "{}", zone.stats().free());
    let urgent = Request::NOWAIT.from_reserve();
    let reserve: Vec<_> = (0..20).map(|_| zone.alloc(urgent).unwrap()).collect();
    let error = zone.alloc(urgent).unwrap_err().reason();
    assert_eq!(error, AllocError::Pages(PageError::Exhausted));
    // They come back into the bucket of one CPU; another that may have them finds them all.
    machine::run_on(1);
    give(&zone, reserve);
    machine::run_on(2);
    let reserve: Vec<_> = (0..20).map(|_| zone.alloc(urgent).unwrap()).collect();
    give(&zone, reserve);
    give(&zone, ordinary);
    drop(zone);
    toy.assert_clean();
}
