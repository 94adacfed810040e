//! The Solaris face from Rust.
#![cfg(feature = "solaris")]

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use uma_kmem_compat::solaris::{
    Callbacks, CreateError, Km, Kmc, KmemCache, kmem_alloc, kmem_alloc_tryhard, kmem_free,
    kmem_reap, kmem_zalloc,
};

static CONSTRUCTED: AtomicU32 = AtomicU32::new(0);
static DESTRUCTED: AtomicU32 = AtomicU32::new(0);

unsafe extern "C-unwind" fn construct(at: *mut c_void, _: *mut c_void, flag: c_int) -> c_int {
    CONSTRUCTED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: objects have 64 bytes.
    unsafe { at.cast::<c_int>().write(flag) };
    0
}

unsafe extern "C-unwind" fn destruct(_: *mut c_void, _: *mut c_void) {
    DESTRUCTED.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn objects_stay_constructed() {
    let callbacks =
        Callbacks { constructor: Some(construct), destructor: Some(destruct), ..Callbacks::NONE };
    // SAFETY: they take objects of 64 bytes, on any thread.
    let cache = unsafe { KmemCache::create_with("rust", 64, 0, callbacks, Kmc::empty()) }.unwrap();
    for _ in 0..1000 {
        let object = cache.alloc(Km::SLEEP).unwrap();
        // SAFETY: the object is ours.
        unsafe {
            assert_eq!(object.cast::<c_int>().read(), 0);
            cache.free(object);
        }
    }
    assert!(CONSTRUCTED.load(Ordering::Relaxed) < 1000);
    assert_eq!(cache.stat("alloc"), Some(1000));
    assert_eq!(cache.stat("nonsense"), None);
    cache.destroy().unwrap();
    assert_eq!(CONSTRUCTED.load(Ordering::Relaxed), DESTRUCTED.load(Ordering::Relaxed));
}

#[test]
fn what_cannot_be_is_an_error() {
    let make = |size, align, flags| KmemCache::create("bad", size, align, flags).unwrap_err();
    assert!(matches!(make(0, 0, Kmc::empty()), CreateError::Config(_)));
    assert!(matches!(make(8, 24, Kmc::empty()), CreateError::Config(_)));
    let flags = Kmc::NOTOUCH | Kmc::NOHASH;
    assert_eq!(make(8, 0, flags), CreateError::BadFlags(flags));
}

#[test]
fn what_is_in_use_is_told() {
    let cache = KmemCache::create("leaky", 32, 0, Kmc::NOMAGAZINE).unwrap();
    let object = cache.alloc(Km::NOSLEEP).unwrap();
    let mut seen = Vec::new();
    cache.for_each_used(|used| seen.push(used));
    assert_eq!(seen, [object]);
    let leaked = cache.destroy().unwrap_err();
    assert_eq!((leaked.objects, leaked.cache.is_none()), (1, true));
}

#[test]
fn memory_of_any_size() {
    for size in [1, 7, 8, 100, 4096, 5000, 200_000] {
        let (one, zeros) = (kmem_alloc(size, Km::SLEEP), kmem_zalloc(size, Km::SLEEP));
        let (more, with) = kmem_alloc_tryhard(size, Km::SLEEP);
        assert!(with >= size && !more.is_null());
        // SAFETY: they are ours, and have so many bytes.
        unsafe {
            assert_eq!(zeros.cast::<u8>().add(size - 1).read(), 0);
            kmem_free(one, size);
            kmem_free(zeros, size);
            kmem_free(more, with);
        }
    }
    assert!(kmem_alloc(0, Km::SLEEP).is_null());
    // SAFETY: null with 0 bytes is nothing.
    unsafe { kmem_free(core::ptr::null_mut(), 0) };
    kmem_reap();
}

/// A move callback that unwinds loses neither the object that it was offered nor those that others gave up.
#[test]
fn a_move_that_unwinds_loses_no_object() {
    static OFFERED: AtomicU32 = AtomicU32::new(0);

    unsafe extern "C-unwind" fn moves(
        old: *mut c_void,
        new: *mut c_void,
        size: usize,
        _: *mut c_void,
    ) -> c_int {
        assert_ne!(OFFERED.fetch_add(1, Ordering::Relaxed), 2, "as planned");
        // SAFETY: both are objects of so many bytes.
        unsafe { new.cast::<u8>().copy_from_nonoverlapping(old.cast(), size) };
        // No.
        1
    }

    let cache = KmemCache::create("moving", 256, 0, Kmc::empty()).unwrap();
    // SAFETY: nothing of the cache is moved: every answer is no.
    assert!(unsafe { cache.set_move(moves) });
    free_most(&cache, |kept| {
        cache.reap_now();
        until(|| OFFERED.load(Ordering::Relaxed) >= 3);
        // SAFETY: they came from this cache and are used no more.
        kept.into_iter().for_each(|object| unsafe { cache.free(object) });
    });
    until(|| cache.stats().used() == 0);
    cache.destroy().unwrap();
}

/// A cache whose objects are being offered for moving is empty when its owner has freed them all: who destroys it
/// waits until the scan has given back what it had in hand.
#[test]
fn a_cache_that_is_scanned_can_be_destroyed() {
    static OFFERED: AtomicU32 = AtomicU32::new(0);
    static GO_ON: AtomicU32 = AtomicU32::new(0);

    unsafe extern "C-unwind" fn moves(
        _: *mut c_void,
        _: *mut c_void,
        _: usize,
        _: *mut c_void,
    ) -> c_int {
        OFFERED.fetch_add(1, Ordering::Relaxed);
        until(|| GO_ON.load(Ordering::Relaxed) != 0);
        // The owner does not know it any more.
        4
    }

    let cache = KmemCache::create("scanned", 256, 0, Kmc::empty()).unwrap();
    // SAFETY: nothing of the cache is moved.
    assert!(unsafe { cache.set_move(moves) });
    free_most(&cache, |kept| {
        cache.reap_now();
        until(|| OFFERED.load(Ordering::Relaxed) != 0);
        // SAFETY: they came from this cache and are used no more.
        kept.into_iter().for_each(|object| unsafe { cache.free(object) });
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            GO_ON.store(1, Ordering::Relaxed);
        });
        cache.destroy().unwrap();
    });
}

fn until(condition: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if condition() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("it never came about");
}

/// Frees all but a few of many objects, which then lie in sparse slabs.
fn free_most(cache: &KmemCache, then: impl FnOnce(Vec<NonNull<u8>>)) {
    let all: Vec<_> = (0..4000).map(|_| cache.alloc(Km::SLEEP).unwrap()).collect();
    let (kept, freed): (Vec<_>, Vec<_>) =
        all.into_iter().enumerate().partition(|(at, _)| at % 16 == 0);
    // SAFETY: they came from this cache and are used no more.
    freed.into_iter().for_each(|(_, object)| unsafe { cache.free(object) });
    then(kept.into_iter().map(|(_, object)| object).collect());
}

/// Beyond what slabs can have, an object is a run of pages.
#[test]
fn an_object_of_more_than_a_gibibyte() {
    let size = (1 << 30) + 100;
    let cache = KmemCache::create("huge", size, 0, Kmc::empty()).unwrap();
    let object = cache.alloc(Km::NOSLEEP).unwrap();
    // SAFETY: it has so many bytes, is ours, and is used no more.
    unsafe {
        object.write(1);
        object.add(size - 1).write(2);
        cache.free(object);
    }
    cache.destroy().unwrap();
    let error = KmemCache::create("odd", size, 24, Kmc::empty()).unwrap_err();
    assert!(matches!(error, CreateError::Config(_)), "{error}");
}

/// Pages that were set aside go with the cache.
#[test]
fn a_reserve_ends_with_its_cache() {
    let cache = KmemCache::create("reserve", 500, 0, Kmc::empty()).unwrap();
    let objects: Vec<_> =
        (0..100).map(|_| cache.alloc(Km::NOSLEEP | Km::PUSHPAGE).unwrap()).collect();
    // SAFETY: they are ours, and used no more.
    objects.into_iter().for_each(|object| unsafe { cache.free(object) });
    drop(cache);
}
