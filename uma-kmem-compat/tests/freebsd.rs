//! The FreeBSD face from Rust.
#![cfg(feature = "freebsd")]

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicUsize, Ordering};

use uma_kmem_compat::freebsd::{
    self, Callbacks, CreateError, M, Smr, Type, Zone, ZoneFlags, malloc_usable_size,
};
use uma_kmem_compat::uma::core::{ConfigFault, Reclaim};

#[test]
fn bad_descriptions_say_what_is_wrong() {
    let fault = |size, align, flags| match Zone::create("bad", size, align, flags).unwrap_err() {
        CreateError::Config(error) => error.fault,
        other => panic!("{other}"),
    };
    let none = ZoneFlags::empty();
    assert_eq!(fault(0, 7, none), ConfigFault::ZeroSize);
    assert_eq!(fault(64, 8, none), ConfigFault::BadAlign);
    assert!(matches!(fault(1 << 40, 7, none), ConfigFault::SizeTooLarge(_)));
    assert!(matches!(
        fault(64, 7, ZoneFlags::FIRSTTOUCH | ZoneFlags::ROUNDROBIN),
        ConfigFault::Conflict(..)
    ));
    let unknown = ZoneFlags::from_bits_retain(1 << 31);
    let error = Zone::create("bad", 64, 7, unknown).unwrap_err();
    assert_eq!(error, CreateError::UnknownFlags(1 << 31));
}

#[test]
fn a_secondary_zone_needs_slabs_under_it() {
    let primary = Zone::create("slabs", 64, 7, ZoneFlags::empty()).unwrap();
    // SAFETY: there are no callbacks.
    let second = unsafe { primary.second_create("none", Callbacks::default()) }.unwrap();
    // SAFETY: as above.
    let error = unsafe { second.second_create("third", Callbacks::default()) }.unwrap_err();
    assert_eq!(error.to_string(), "zone \"none\" has no slabs of its own");
    assert!(matches!(error, CreateError::NoSlabs(name) if name.as_str() == "none"));
}

static LIVE: AtomicI64 = AtomicI64::new(0);

unsafe extern "C-unwind" fn init(_: *mut c_void, size: c_int, _: c_int) -> c_int {
    assert_eq!(size, 48);
    LIVE.fetch_add(1, Ordering::Relaxed);
    0
}

unsafe extern "C-unwind" fn fini(_: *mut c_void, _: c_int) {
    LIVE.fetch_sub(1, Ordering::Relaxed);
}

#[test]
fn a_secondary_zone_has_callbacks_of_its_own() {
    let primary = Zone::create("primary", 48, 7, ZoneFlags::empty()).unwrap();
    let callbacks = Callbacks { init: Some(init), fini: Some(fini), ..Callbacks::default() };
    // SAFETY: the callbacks do not touch the item.
    let second = unsafe { primary.second_create("second", callbacks) }.unwrap();
    second.set_max(10);
    let items: Vec<_> = (0..10).map(|_| second.alloc(M::NOWAIT).unwrap()).collect();
    assert!(second.alloc(M::NOWAIT).is_none());
    assert_eq!((second.cur(), primary.cur(), second.max()), (10, 0, 10));
    assert!(LIVE.load(Ordering::Relaxed) >= 10);
    // SAFETY: they came from this zone and are used no more.
    items.into_iter().for_each(|item| unsafe { second.free(item) });
    drop(primary);
    second.destroy();
    assert_eq!(LIVE.load(Ordering::Relaxed), 0);
}

#[test]
fn lowering_a_limit_counts_what_is_in_use() {
    let zone = Zone::create("lower", 64, 7, ZoneFlags::empty()).unwrap();
    let mut items: Vec<_> = (0..100).map(|_| zone.alloc(M::NOWAIT).unwrap()).collect();
    assert_eq!(zone.set_max(5), 5);
    while let Some(item) = items.pop() {
        // SAFETY: it came from this zone and is used no more.
        unsafe { zone.free(item) };
        match zone.alloc(M::NOWAIT) {
            Some(item) if items.len() < 5 => {
                // SAFETY: as above.
                unsafe { zone.free(item) };
            }
            None if items.len() >= 5 => {}
            _ => panic!("with {} in use", items.len()),
        }
    }
}

/// Readers find what a pointer leads to unharmed, however many writers replace it.
#[test]
fn readers_see_no_item_that_was_freed() {
    struct Node {
        value: AtomicUsize,
        twice: AtomicUsize,
    }

    /// What was taken apart says so.
    unsafe extern "C-unwind" fn dtor(at: *mut c_void, _: c_int, _: *mut c_void) {
        // SAFETY: the zone's items are nodes.
        let node = unsafe { &*at.cast::<Node>() };
        node.value.store(1, Ordering::Relaxed);
        node.twice.store(1, Ordering::Relaxed);
    }

    let callbacks = Callbacks { dtor: Some(dtor), ..Callbacks::default() };
    // SAFETY: the dtor suits nodes.
    let zone =
        unsafe { Zone::create_with("node", size_of::<Node>(), callbacks, 7, ZoneFlags::SMR) };
    let zone = zone.unwrap();
    let smr: &Smr = zone.smr().unwrap();
    let new = |value: usize| {
        let at = zone.alloc_smr(M::WAITOK).unwrap().cast::<Node>();
        let twice = AtomicUsize::new(2 * value);
        // SAFETY: the item is ours.
        unsafe { at.write(Node { value: AtomicUsize::new(value), twice }) };
        at.as_ptr()
    };
    let current = AtomicPtr::new(new(0));
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let _section = smr.enter();
                    // SAFETY: it was there when we entered, or came later; so it stays until we leave.
                    let node = unsafe { &*current.load(Ordering::Acquire) };
                    let value = node.value.load(Ordering::Relaxed);
                    assert_eq!(2 * value, node.twice.load(Ordering::Relaxed));
                }
                done.fetch_add(1, Ordering::Release);
            });
        }
        for value in 0.. {
            let old = current.swap(new(value), Ordering::AcqRel);
            let old = ptr::NonNull::new(old.cast()).unwrap();
            // SAFETY: nobody finds it any more.
            unsafe { zone.free_smr(old) };
            if done.load(Ordering::Acquire) == 2 {
                break;
            }
        }
    });
    let last = ptr::NonNull::new(current.into_inner().cast()).unwrap();
    // SAFETY: as above.
    unsafe { zone.free_smr(last) };
    assert_eq!(zone.cur(), 0);
    zone.reclaim(Reclaim::Drain);
    zone.reclaim(Reclaim::DrainCpu);
    assert_eq!(zone.stats().used(), 0);
}

/// A dtor that unwinds, in the first of several batches of deferred frees, loses none of the others.
#[test]
fn a_dtor_that_unwinds_loses_no_deferred_free() {
    static DTORS: AtomicUsize = AtomicUsize::new(0);

    unsafe extern "C-unwind" fn dtor(_: *mut c_void, _: c_int, _: *mut c_void) {
        assert_ne!(DTORS.fetch_add(1, Ordering::Relaxed), 0, "as planned");
    }

    let callbacks = Callbacks { dtor: Some(dtor), ..Callbacks::default() };
    // SAFETY: the dtor does not touch the item.
    let zone = unsafe { Zone::create_with("unwinds", 64, callbacks, 7, ZoneFlags::SMR) }.unwrap();
    let items: Vec<_> = (0..300).map(|_| zone.alloc_smr(M::WAITOK).unwrap()).collect();
    let smr = zone.smr().unwrap().clone();
    let stage = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _section = smr.enter();
            stage.wait();
            stage.wait();
        });
        stage.wait();
        // SAFETY: they came from this zone and are used no more.
        items.into_iter().for_each(|item| unsafe { zone.free_smr(item) });
        stage.wait();
    });
    assert_eq!(DTORS.load(Ordering::Relaxed), 0, "somebody was reading");
    let unwound = catch_unwind(AssertUnwindSafe(|| zone.reclaim(Reclaim::DrainCpu)));
    unwound.expect_err("the dtor unwinds");
    zone.reclaim(Reclaim::DrainCpu);
    assert_eq!((DTORS.load(Ordering::Relaxed), zone.cur(), zone.stats().used()), (300, 0, 0));
}

#[test]
fn memory_has_a_type() {
    let of = Type::new("rust", "from Rust");
    let at = freebsd::malloc(100, &of, M::WAITOK);
    assert_eq!((malloc_usable_size(at), of.stats().bytes), (128, 128));
    // SAFETY: the memory is ours, and used no more once it has moved or was freed.
    unsafe {
        let at = freebsd::realloc(at, 1000, &of, M::NOWAIT);
        assert!(!at.is_null());
        assert!(freebsd::types().iter().any(|of| of.name() == "rust"));
        freebsd::free(at, &of);
    }
    assert_eq!((of.stats().used(), of.description()), (0, "from Rust"));
    of.end();
    assert!(freebsd::types().iter().all(|of| of.name() != "rust"));
}

#[test]
fn what_a_realloc_adds_is_zero() {
    let of = Type::new("grown", "grown memory");
    let at = freebsd::malloc(100, &of, M::WAITOK).cast::<u8>();
    // SAFETY: the memory is ours, has so many bytes, and is freed once.
    unsafe {
        at.write_bytes(0xff, 128);
        let at = freebsd::realloc(at.cast(), 5000, &of, M::WAITOK | M::ZERO).cast::<u8>();
        assert_eq!(at.add(127).read(), 0xff);
        assert!((128..5000).all(|offset| at.add(offset).read() == 0));
        freebsd::free(at.cast(), &of);
    }
    of.end();
}

unsafe extern "C-unwind" fn pages(
    _: *mut c_void,
    bytes: usize,
    _: c_int,
    flag: *mut u8,
    _: c_int,
) -> *mut c_void {
    PAGES.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the flag is the zone's, for us to write; the size is not 0.
    unsafe {
        flag.write(1);
        std::alloc::alloc(std::alloc::Layout::from_size_align(bytes, 4096).unwrap()).cast()
    }
}

unsafe extern "C-unwind" fn no_pages(at: *mut c_void, bytes: usize, _: u8) {
    PAGES.fetch_sub(1, Ordering::Relaxed);
    let layout = std::alloc::Layout::from_size_align(bytes, 4096).unwrap();
    // SAFETY: they came from there with this layout.
    unsafe { std::alloc::dealloc(at.cast(), layout) };
}

static PAGES: AtomicI64 = AtomicI64::new(0);

#[test]
fn functions_are_set_before_the_first_item_and_not_later() {
    let zone = Zone::create("cold", 48, 7, ZoneFlags::empty()).unwrap();
    // SAFETY: the functions are as they have to be, and the callbacks do not touch the item.
    unsafe {
        assert!(zone.set_pages(Some(pages), Some(no_pages)));
        assert!(zone.set_init_fini(None, None));
        let item = zone.alloc(M::NOWAIT).unwrap();
        assert!(PAGES.load(Ordering::Relaxed) > 0);
        assert!(!zone.set_pages(None, None) && !zone.set_init_fini(None, None));
        zone.free(item);
    }
    zone.destroy();
    assert_eq!(PAGES.load(Ordering::Relaxed), 0);
}

#[test]
fn an_item_for_each_cpu() {
    let zone = Zone::create("pcpu", 8, 7, ZoneFlags::PCPU).unwrap();
    let item = zone.alloc_pcpu(M::WAITOK | M::ZERO).unwrap();
    // SAFETY: the first copy is ours, and the item used no more.
    unsafe {
        assert_eq!(item.cast::<u64>().read(), 0);
        zone.free(item);
    }
    zone.destroy();
}

/// Guard pages are of the host's pages only. In a process of its own, since the environment is read once.
#[test]
fn hardened_zones_have_guard_pages() {
    if std::env::var_os("UMA_DEBUG").is_none() {
        let me = std::env::current_exe().unwrap();
        let mut child = std::process::Command::new(me);
        child.args(["--exact", "hardened_zones_have_guard_pages"]).env("UMA_DEBUG", "hardened");
        return assert!(child.status().unwrap().success());
    }
    let zone = Zone::create("guarded", 100, 7, ZoneFlags::empty()).unwrap();
    let items: Vec<_> = (0..1000).map(|_| zone.alloc(M::NOWAIT).unwrap()).collect();
    // SAFETY: they came from this zone and are used no more.
    items.into_iter().for_each(|item| unsafe { zone.free(item) });
    zone.reclaim(Reclaim::DrainCpu);
    zone.destroy();
}
