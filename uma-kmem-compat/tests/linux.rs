//! The Linux face from Rust.
#![cfg(feature = "linux")]

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use uma_kmem_compat::linux::{
    CacheArgs, CreateError, Elements, Gfp, KmemCache, Mempool, NoReserve, SlabFlags, kfree,
    kfree_sensitive, kmalloc, kmalloc_stats, krealloc, ksize,
};
use uma_kmem_compat::uma::core::ConfigFault;

#[test]
fn a_cache_ends_when_nothing_of_it_is_in_use() {
    let cache = KmemCache::create("node", 56, 0, SlabFlags::empty()).unwrap();
    assert_eq!((cache.size(), cache.align()), (56, 8));
    let object = cache.alloc(Gfp::KERNEL | Gfp::ZERO).unwrap();
    let mut seen = Vec::new();
    cache.for_each_used(|object| seen.push(object));
    assert_eq!(seen, [object]);
    let still = cache.destroy().unwrap_err();
    assert_eq!(still.to_string(), "1 objects of cache \"node\" are in use");
    let cache = still.cache;
    // SAFETY: it came from this cache and is used no more.
    unsafe { cache.free(object) };
    assert!(cache.shrink());
    cache.destroy().unwrap();
}

#[test]
fn bad_descriptions_say_what_is_wrong() {
    let fault = |size, align, flags| KmemCache::create("bad", size, align, flags).unwrap_err();
    let config = |error| match error {
        CreateError::Config(error) => error.fault,
        other => panic!("{other}"),
    };
    assert_eq!(config(fault(0, 0, SlabFlags::empty())), ConfigFault::ZeroSize);
    assert_eq!(config(fault(0, 0, SlabFlags::TYPESAFE_BY_RCU)), ConfigFault::ZeroSize);
    assert_eq!(config(fault(64, 24, SlabFlags::empty())), ConfigFault::BadAlign);
    assert!(matches!(config(fault(1 << 31, 0, SlabFlags::empty())), ConfigFault::SizeTooLarge(_)));
    config(fault(usize::MAX, 4096, SlabFlags::HWCACHE_ALIGN));
    let unknown = SlabFlags::from_bits_retain(1);
    assert_eq!(fault(64, 0, unknown), CreateError::UnknownFlags(1));
    let args = CacheArgs { free_pointer_offset: Some(usize::MAX), ..CacheArgs::default() };
    // SAFETY: there is no constructor.
    let error =
        unsafe { KmemCache::create_with("bad", 64, args, None, SlabFlags::TYPESAFE_BY_RCU) };
    assert_eq!(error.unwrap_err(), CreateError::FreePointer(usize::MAX));
}

#[test]
fn sheaves_go_back_when_they_are_dropped() {
    let cache = KmemCache::create("sheaf", 64, 0, SlabFlags::empty()).unwrap();
    let mut sheaf = cache.prefill_sheaf(Gfp::KERNEL, 100).unwrap();
    let object = sheaf.alloc(Gfp::KERNEL).unwrap();
    assert_eq!((sheaf.size(), cache.stats().used()), (99, 100));
    drop(sheaf);
    assert_eq!(cache.stats().used(), 1);
    let mut places = [MaybeUninit::uninit(); 8];
    assert_eq!(cache.alloc_bulk(Gfp::NOWAIT, &mut places), 8);
    // SAFETY: all were initialised, came from this cache, and are used no more.
    unsafe {
        cache.free_bulk(places.assume_init_ref());
        cache.free(object);
    }
    cache.destroy().unwrap();
}

/// Pools whose k-th element cannot be had lose none of the others, for every k.
#[test]
fn a_pool_that_cannot_be_filled_gives_back_what_it_had() {
    struct Source {
        left: AtomicUsize,
        out: AtomicUsize,
    }
    unsafe extern "C-unwind" fn take(_: u32, source: *mut c_void) -> *mut c_void {
        // SAFETY: the pool's data is a `Source`, which outlives it.
        let source = unsafe { &*source.cast::<Source>() };
        if source.left.load(Ordering::Relaxed) == 0 {
            return ptr::null_mut();
        }
        source.left.fetch_sub(1, Ordering::Relaxed);
        source.out.fetch_add(1, Ordering::Relaxed);
        Box::into_raw(Box::new(0_u64)).cast()
    }
    unsafe extern "C-unwind" fn give(element: *mut c_void, source: *mut c_void) {
        // SAFETY: as in `take`; the element came from there.
        unsafe {
            (*source.cast::<Source>()).out.fetch_sub(1, Ordering::Relaxed);
            drop(Box::from_raw(element.cast::<u64>()));
        }
    }
    for left in 0..6 {
        let source = Source { left: AtomicUsize::new(left), out: AtomicUsize::new(0) };
        let data = ptr::from_ref(&source).cast_mut().cast();
        let elements = Elements { alloc: take, free: give, data };
        // SAFETY: the functions take that data, which outlives the pool.
        let pool = unsafe { Mempool::create(4, elements, Gfp::KERNEL) };
        assert_eq!(pool.as_ref().map(Mempool::reserve).ok(), (left >= 4).then_some((4, 4)));
        assert_eq!(source.out.load(Ordering::Relaxed), if left >= 4 { 4 } else { 0 });
        if let Err(error) = &pool {
            assert_eq!(*error, NoReserve);
        }
        drop(pool);
        assert_eq!(source.out.load(Ordering::Relaxed), 0);
    }
}

/// A function of a pool that unwinds once costs no other element.
#[test]
fn a_pool_whose_functions_unwind_loses_nothing() {
    struct Source {
        out: AtomicUsize,
        throws: AtomicBool,
    }
    unsafe extern "C-unwind" fn take(_: u32, source: *mut c_void) -> *mut c_void {
        // SAFETY: the pool's data is a `Source`, which outlives it.
        unsafe { (*source.cast::<Source>()).out.fetch_add(1, Ordering::Relaxed) };
        ptr::without_provenance_mut(8)
    }
    unsafe extern "C-unwind" fn give(_: *mut c_void, source: *mut c_void) {
        // SAFETY: as in `take`.
        let source = unsafe { &*source.cast::<Source>() };
        source.out.fetch_sub(1, Ordering::Relaxed);
        assert!(!source.throws.swap(false, Ordering::Relaxed), "as planned");
    }
    let source = Source { out: AtomicUsize::new(0), throws: AtomicBool::new(true) };
    let elements =
        Elements { alloc: take, free: give, data: ptr::from_ref(&source).cast_mut().cast() };
    // SAFETY: the functions take that data, which outlives the pool.
    let pool = unsafe { Mempool::create(6, elements, Gfp::KERNEL) }.unwrap();
    catch_unwind(AssertUnwindSafe(|| pool.resize(2))).expect_err("it unwinds");
    assert_eq!((pool.reserve(), source.out.load(Ordering::Relaxed)), ((2, 5), 5));
    pool.resize(3).unwrap();
    assert_eq!((pool.reserve(), source.out.load(Ordering::Relaxed)), ((3, 3), 3));
    source.throws.store(true, Ordering::Relaxed);
    catch_unwind(AssertUnwindSafe(|| drop(pool))).expect_err("it unwinds");
    assert_eq!(source.out.load(Ordering::Relaxed), 0);
}

#[test]
fn kmalloc_gives_memory_of_any_size() {
    let at = kmalloc(100, Gfp::KERNEL | Gfp::ZERO);
    assert_eq!(ksize(at), 128);
    // SAFETY: the memory is ours, has so many bytes, and is used no more after it was freed.
    unsafe {
        assert_eq!(at.cast::<u8>().add(99).read(), 0);
        let at = krealloc(at, 1 << 20, Gfp::KERNEL);
        assert_eq!(at.addr() % 4096, 0);
        kfree(at);
        kfree(kmalloc(0, Gfp::KERNEL));
    }
    assert!(kmalloc(usize::MAX, Gfp::KERNEL).is_null());
}

/// What is free already is not zeroed: the mark by which the second free is found out lies there.
#[test]
fn a_sensitive_free_of_what_is_free_does_nothing() {
    let kept = kmalloc(3000, Gfp::KERNEL);
    let at = kmalloc(3000, Gfp::KERNEL);
    // SAFETY: the memory is ours and freed once; the second time is found out.
    unsafe {
        kfree_sensitive(at);
        kfree_sensitive(at);
    }
    let again: Vec<_> = (0..64).map(|_| kmalloc(3000, Gfp::KERNEL)).collect();
    assert_eq!(kmalloc_stats().corrupt, 0, "it was freed twice");
    // SAFETY: the memory is ours, and used no more.
    unsafe { again.into_iter().chain([kept]).for_each(|at| kfree(at)) };
}

#[test]
fn changed_sizes_are_aligned_as_new_ones() {
    // SAFETY: the memory is ours, has so many bytes, and is used no more after it was freed.
    unsafe {
        for before in [64, 20_000, 300_000] {
            // Several, so that they do not all happen to lie well.
            let all: Vec<_> = (0..8)
                .map(|_| {
                    let at = kmalloc(before, Gfp::KERNEL);
                    at.cast::<u8>().write_bytes(0x5a, before);
                    let at = krealloc(at, 1 << 16, Gfp::KERNEL);
                    assert_eq!(at.addr() % (1 << 16), 0, "from {before} bytes");
                    assert_eq!(at.cast::<u8>().add(63).read(), 0x5a);
                    at
                })
                .collect();
            all.into_iter().for_each(|at| kfree(at));
        }
    }
}
