//! The NetBSD face from Rust.
#![cfg(feature = "netbsd")]

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use uma_kmem_compat::netbsd::{
    Callbacks, CreateVmem, KmFlags, PageAllocator, Pool, PoolArgs, PoolCache, PoolFlags, VmFlags,
    Vmem, VmemSource, kmem_alloc, kmem_free, kmem_roundup_size, kmem_stats,
};
use uma_kmem_compat::uma::core::ConfigFault;

#[test]
fn a_pool_ends_when_nothing_of_it_is_out() {
    let pool = Pool::create("req", 56, PoolArgs::default()).unwrap();
    assert_eq!((pool.size(), pool.align()), (56, 8));
    let item = pool.get(PoolFlags::WAITOK | PoolFlags::ZERO).unwrap();
    let mut seen = Vec::new();
    pool.for_each_out(|item| seen.push(item));
    assert_eq!(seen, [item]);
    let still = pool.destroy().unwrap_err();
    assert_eq!(still.to_string(), "pool \"req\" busy: still out: 1");
    let pool = still.pool;
    // SAFETY: it came from this pool and is used no more.
    unsafe { pool.put(item) };
    assert!(pool.reclaim() && !pool.reclaim());
    let stats = pool.stats();
    assert_eq!((stats.gets, stats.puts, stats.out, stats.pages), (1, 1, 0, 0));
    pool.destroy().unwrap();
}

#[test]
fn bad_descriptions_say_what_is_wrong() {
    let fault = |size, align| {
        let args = PoolArgs { align, ..PoolArgs::default() };
        Pool::create("bad", size, args).unwrap_err().fault
    };
    assert_eq!(fault(0, 0), ConfigFault::ZeroSize);
    assert_eq!(fault(64, 24), ConfigFault::BadAlign);
    assert!(matches!(fault(1 << 40, 0), ConfigFault::SizeTooLarge(_)));
    assert_eq!(fault(usize::MAX, 4096), ConfigFault::Overflow);
}

#[test]
#[should_panic = "double free"]
fn a_second_put_is_found_out() {
    let pool = Pool::create("twice", 64, PoolArgs::default()).unwrap();
    let item = pool.get(PoolFlags::NOWAIT).unwrap();
    // SAFETY: it came from this pool. The second put is what the test is about: the pool does not touch the
    // memory, and notices.
    unsafe {
        pool.put(item);
        pool.put(item);
    }
}

/// A constructor that fails at the k-th object, for every k, loses none of the others.
#[test]
fn a_constructor_may_fail_at_any_object() {
    #[derive(Default)]
    struct Source {
        most: usize,
        made: AtomicUsize,
    }
    unsafe extern "C-unwind" fn make(source: *mut c_void, object: *mut c_void, _: c_int) -> c_int {
        // SAFETY: the argument is a `Source`, which outlives the cache; the object has 64 bytes.
        unsafe {
            let source = &*source.cast::<Source>();
            if source.made.load(Ordering::Relaxed) == source.most {
                return 12;
            }
            source.made.fetch_add(1, Ordering::Relaxed);
            object.cast::<u64>().write(7);
        }
        0
    }
    unsafe extern "C-unwind" fn end(source: *mut c_void, object: *mut c_void) {
        // SAFETY: as above, and `make` made the object.
        unsafe {
            assert_eq!(object.cast::<u64>().read(), 7);
            (*source.cast::<Source>()).made.fetch_sub(1, Ordering::Relaxed);
        }
    }
    for most in 0..40 {
        let source = Box::new(Source { most, ..Source::default() });
        let arg = (&raw const *source).cast_mut().cast();
        let callbacks = Callbacks { ctor: Some(make), dtor: Some(end), arg };
        // SAFETY: the callbacks take that argument, and touch no more than they may.
        let cache = unsafe { PoolCache::create("some", 64, PoolArgs::default(), callbacks) };
        let cache = cache.unwrap();
        let mut got = Vec::new();
        // Some lie on another CPU if the thread comes from there just now. Without them others can be made.
        for _ in 0..100 {
            got.extend(std::iter::from_fn(|| cache.get(PoolFlags::WAITOK)));
            assert_eq!(source.made.load(Ordering::Relaxed), most);
            if got.len() == most {
                break;
            }
            cache.invalidate();
        }
        assert_eq!(got.len(), most);
        // SAFETY: all came from this cache and are used no more.
        got.into_iter().for_each(|object| unsafe { cache.put(object) });
        cache.destroy().unwrap();
        assert_eq!(source.made.load(Ordering::Relaxed), 0);
    }
}

/// Page functions that fail, or give what is not aligned, make gets fail, and all pages go back.
#[test]
fn pages_from_functions_go_back() {
    static OUT: AtomicUsize = AtomicUsize::new(0);
    static SKEW: AtomicUsize = AtomicUsize::new(0);
    const PAGE: usize = 8192;
    fn layout() -> std::alloc::Layout {
        std::alloc::Layout::from_size_align(2 * PAGE, PAGE).unwrap()
    }
    unsafe extern "C-unwind" fn alloc(_: *mut c_void, _: c_int) -> *mut c_void {
        if OUT.load(Ordering::Relaxed) == 3 {
            return std::ptr::null_mut();
        }
        OUT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the layout has a size, and the skew is less than the second page.
        unsafe { std::alloc::alloc(layout()).add(SKEW.load(Ordering::Relaxed)).cast() }
    }
    unsafe extern "C-unwind" fn free(_: *mut c_void, page: *mut c_void) {
        OUT.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: it came from above.
        unsafe {
            let base = page.cast::<u8>().sub(SKEW.load(Ordering::Relaxed));
            std::alloc::dealloc(base, layout());
        }
    }
    let pages = PageAllocator { alloc: Some(alloc), free: Some(free), page_size: PAGE as u32 };
    // SAFETY: the functions do as they should.
    let pool = unsafe { Pool::create_on("pages", 1000, PoolArgs::default(), pages) }.unwrap();
    let got: Vec<NonNull<u8>> = std::iter::from_fn(|| pool.get(PoolFlags::NOWAIT)).collect();
    assert_eq!((got.len(), OUT.load(Ordering::Relaxed)), (24, 3));
    // SAFETY: all came from this pool and are used no more.
    got.into_iter().for_each(|item| unsafe { pool.put(item) });
    assert!(pool.reclaim());
    assert_eq!(OUT.load(Ordering::Relaxed), 0);
    SKEW.store(64, Ordering::Relaxed);
    assert!(pool.get(PoolFlags::NOWAIT).is_none());
    assert_eq!(OUT.load(Ordering::Relaxed), 0);
}

#[test]
fn kmem_knows_sizes() {
    let before = kmem_stats().used();
    let at = kmem_alloc(100, KmFlags::SLEEP);
    assert_eq!(kmem_roundup_size(100), 112);
    assert_eq!(kmem_stats().used(), before + 1);
    // SAFETY: it is ours, and is used no more.
    unsafe { kmem_free(at, 100) };
    assert!(kmem_alloc(usize::MAX, KmFlags::SLEEP).is_null());
}

#[test]
fn an_arena_has_what_it_was_given() {
    let args = CreateVmem {
        base: 0,
        size: 64,
        quantum: 1,
        source: VmemSource::NONE,
        flags: VmFlags::NOSLEEP,
    };
    let arena = Vmem::create("bits", args).unwrap();
    let flags = VmFlags::NOSLEEP | VmFlags::BESTFIT;
    let at = arena.alloc(64, flags).unwrap();
    assert_eq!(at, 0);
    assert!(arena.alloc(1, flags).is_err());
    let leaked = arena.destroy().unwrap_err();
    assert_eq!((leaked.segments, leaked.size), (1, 64));
}

unsafe extern "C-unwind" fn page(_: *mut c_void, _: c_int) -> *mut c_void {
    let page = std::alloc::Layout::from_size_align(4096, 4096).unwrap();
    // SAFETY: the size is not 0.
    unsafe { std::alloc::alloc(page).cast() }
}

unsafe extern "C-unwind" fn no_page(_: *mut c_void, at: *mut c_void) {
    let page = std::alloc::Layout::from_size_align(4096, 4096).unwrap();
    // SAFETY: it came from there with this layout.
    unsafe { std::alloc::dealloc(at.cast(), page) };
}

#[test]
fn a_cache_on_pages_of_the_users_own() {
    let callbacks = Callbacks { ctor: None, dtor: None, arg: std::ptr::null_mut() };
    let pages = PageAllocator { alloc: Some(page), free: Some(no_page), page_size: 4096 };
    // SAFETY: the functions supply pages, on any thread.
    let cache = unsafe { PoolCache::create_on("own", 100, PoolArgs::default(), callbacks, pages) };
    let cache = cache.unwrap();
    let objects: Vec<_> = (0..100).map(|_| cache.get(PoolFlags::NOWAIT).unwrap()).collect();
    for (at, object) in objects.into_iter().enumerate() {
        // SAFETY: it came from this cache and is used no more.
        unsafe { if at % 2 == 0 { cache.put(object) } else { cache.destruct_object(object) } }
    }
    cache.destroy().unwrap();
}
