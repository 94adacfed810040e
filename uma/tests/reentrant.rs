//! Hooks that use zones: the one that calls them, and others. Every hook, in every tier, with caches and without; a
//! hook of a hook is one of those that do nothing more, or there would be no end.

use std::alloc::Layout;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use uma::core::{FnHooks, Item, Refused, Request};
use uma::{AtLimit, Hardening, Host, RawZone, Reclaim, Zone};

thread_local! {
    /// Whether the thread is in a hook already.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// What hooks are to use, and how often they did.
struct Victim {
    zone: OnceLock<RawZone<Host, FnHooks>>,
    calls: [AtomicUsize; 5],
}

static OTHER: Zone<[u64; 20]> = Zone::new("other");

/// Uses the zone that calls, another one, all zones, and one that is made and ended here.
fn use_zones(context: *const (), hook: usize) {
    // SAFETY: hooks are given a victim, which stays.
    let victim = unsafe { &*context.cast::<Victim>() };
    victim.calls[hook].fetch_add(1, Ordering::Relaxed);
    if INSIDE.replace(true) {
        return;
    }
    let zone = victim.zone.get().unwrap();
    let one = zone.alloc(Request::NOWAIT);
    let other = OTHER.alloc([1; 20]).unwrap();
    assert_eq!(zone.name().as_str(), "victim");
    let _ = zone.stats();
    zone.reclaim(Reclaim::Trim);
    assert!(uma::zones().len() > 1);
    uma::reclaim(Reclaim::Trim);
    drop(Zone::<u64>::builder("brief").build().unwrap().alloc(1).unwrap());
    drop(other);
    if let Ok(item) = one {
        // SAFETY: it came from there and was not used.
        unsafe { zone.free(item) };
    }
    zone.reclaim(Reclaim::Drain);
    INSIDE.set(false);
}

unsafe fn init(context: *mut (), _: Item, _: Request) -> Result<(), Refused> {
    use_zones(context, 0);
    Ok(())
}

unsafe fn ctor(context: *mut (), _: Item, _: *mut (), _: Request) -> Result<(), Refused> {
    use_zones(context, 1);
    Ok(())
}

unsafe fn dtor(context: *mut (), _: Item, _: *mut ()) {
    use_zones(context, 2);
}

unsafe fn fini(context: *mut (), _: Item) {
    use_zones(context, 3);
}

/// Runs everything that calls hooks. Returns how often each was.
fn run(hardening: Hardening, bucket: Option<u16>) -> [usize; 5] {
    let calls = [const { AtomicUsize::new(0) }; 5];
    let victim: &'static Victim = Box::leak(Box::new(Victim { zone: OnceLock::new(), calls }));
    let context = std::ptr::from_ref(victim).cast_mut().cast::<()>();
    let hooks =
        FnHooks { context, init: Some(init), ctor: Some(ctor), dtor: Some(dtor), fini: Some(fini) };
    let at_limit = |_: AtLimit| use_zones(std::ptr::from_ref(victim).cast(), 4);
    let layout = Layout::new::<[u64; 12]>();
    let builder = RawZone::builder("victim", layout).hardening(hardening).max_items(60);
    let builder = builder.maxaction(Box::leak(Box::new(at_limit)));
    let builder = if let Some(bucket) = bucket { builder.bucket(bucket) } else { builder };
    // SAFETY: the hooks touch no item.
    let zone = unsafe { builder.hooks(hooks) }.build().unwrap();
    assert!(victim.zone.set(zone).is_ok());
    let zone = victim.zone.get().unwrap();
    for _ in 0..2 {
        let mut items = Vec::new();
        // A hook may have what is missing, for a moment.
        while let Ok(item) = zone.alloc(Request::NOWAIT) {
            items.push(item);
        }
        assert!(items.len() > 40, "{} items", items.len());
        // SAFETY: they came from there and were not used.
        items.into_iter().for_each(|item| unsafe { zone.free(item) });
        zone.reclaim(Reclaim::DrainCpu);
    }
    assert_eq!(zone.stats().used(), 0);
    victim.calls.each_ref().map(|calls| calls.load(Ordering::Relaxed))
}

/// A hook that waits for its own caller would wait for ever.
#[test]
fn hooks_use_the_zone_that_calls_them() {
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(600));
        eprintln!("a hook waits for its caller");
        std::process::abort();
    });
    for hardening in
        [Hardening::RELEASE, Hardening::HARDENED, Hardening::DEBUG, Hardening::sampled(3)]
    {
        for bucket in [None, Some(0), Some(1)] {
            let calls = run(hardening, bucket);
            assert!(calls.iter().all(|&calls| calls > 0), "{hardening:?}, {bucket:?}: {calls:?}");
            assert_eq!(calls[1], calls[2], "{hardening:?}, {bucket:?}: ctor and dtor");
        }
    }
}
