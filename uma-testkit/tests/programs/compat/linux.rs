//! Linux.

use std::alloc::Layout;
use std::ffi::c_void;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use uma_kmem_compat::linux::{
    CacheArgs, Constructor, CreateError, Elements as Functions, Gfp, KmemCache, Mempool, SlabFlags,
    kfree, kfree_sensitive, kmalloc, kmalloc_stats, krealloc, ksize, set_grace_period,
};
use uma_malloc::SizeClasses;
use uma_testkit::FailPlan;
use uma_testkit::ops::compat::{CacheConfig, How};

use super::hooks::{linux_begin, of_each_place};
use super::{Cache, Counts, Elements, Face, Made};

pub struct Linux;

fn gfp(how: How) -> Gfp {
    let mut gfp = if how.wait { Gfp::KERNEL } else { Gfp::NOWAIT };
    gfp.set(Gfp::ZERO, how.zero);
    gfp.set(Gfp::NORETRY, how.more);
    gfp
}

/// Nobody reads what was freed, so every grace period is over.
extern "C-unwind" fn over() {}

impl Face for Linux {
    fn create(&self, place: usize, config: &CacheConfig) -> Result<Made, String> {
        set_grace_period(Some(over));
        let all = [
            SlabFlags::CONSISTENCY_CHECKS,
            SlabFlags::RED_ZONE,
            SlabFlags::POISON,
            SlabFlags::STORE_USER,
            SlabFlags::HWCACHE_ALIGN,
            SlabFlags::TYPESAFE_BY_RCU,
            SlabFlags::NO_USER_FLAGS,
        ];
        let mut wanted = SlabFlags::empty();
        for (bit, flag) in all.into_iter().enumerate() {
            wanted.set(flag, config.has(bit as u32));
        }
        let (size, align) = (config.size(), config.align());
        let sheaf_capacity = if config.has(7) { 4 } else { 0 };
        let args = CacheArgs { align, sheaf_capacity, ..CacheArgs::default() };
        let ctor = config.constructed.then(|| of_each_place!(linux_begin: Constructor)[place]);
        // SAFETY: the constructor takes memory of this size.
        let cache = unsafe { KmemCache::create_with("compat", size, args, ctor, wanted) };
        let cache = cache.map_err(|error| error.to_string())?;
        assert!(cache.align() >= align.max(8) && cache.size() == size);
        let layout = Layout::from_size_align(size, cache.align()).expect("it was made");
        let (begins, zeroes) = (config.constructed, !config.constructed);
        let cache = Box::new(cache);
        Ok(Made { cache, layout, begins, ends: false, each: false, zeroes })
    }

    fn memory(&self, size: usize, _: usize, how: How) -> (*mut u8, usize) {
        let align = if size.is_power_of_two() { size.min(4 << 20) } else { 8 };
        (kmalloc(size, gfp(how)).cast(), align.max(8))
    }

    unsafe fn free(&self, at: *mut u8, size: usize) {
        // SAFETY: passed on to the caller.
        unsafe { if size % 3 == 1 { kfree_sensitive(at.cast()) } else { kfree(at.cast()) } };
    }

    unsafe fn resize(&self, at: *mut u8, _: usize, size: usize, how: How) -> Option<*mut u8> {
        // SAFETY: passed on to the caller.
        Some(unsafe { krealloc(at.cast(), size, gfp(how)) }.cast())
    }

    fn usable(&self, at: *mut u8) -> Option<usize> {
        Some(ksize(at.cast()))
    }

    fn realigned(&self, size: usize) -> usize {
        if size.is_power_of_two() { size.min(4 << 20) } else { 1 }
    }

    fn bytes(&self) -> Option<u64> {
        Some(kmalloc_stats().bytes)
    }

    fn classes(&self) -> &'static SizeClasses {
        SizeClasses::KMALLOC
    }

    fn used(&self) -> u64 {
        let stats = kmalloc_stats();
        assert_eq!(stats.corrupt, 0);
        stats.used()
    }

    fn reap_all(&self, how: u8) {
        let mode = [uma::Reclaim::Trim, uma::Reclaim::Drain, uma::Reclaim::DrainCpu];
        uma::reclaim(mode[usize::from(how) % 3]);
    }

    fn bad(&self, what: u8) {
        let none = SlabFlags::empty();
        let make = |size, align| KmemCache::create("bad", size, align, none).unwrap_err();
        match what % 4 {
            0 => assert!(matches!(make(0, 0), CreateError::Config(_))),
            1 => assert!(matches!(make(8, 24), CreateError::Config(_))),
            2 => {
                let args = CacheArgs { free_pointer_offset: Some(0), ..CacheArgs::default() };
                // SAFETY: there is no constructor.
                let made = unsafe { KmemCache::create_with("bad", 8, args, None, none) };
                assert_eq!(made.unwrap_err(), CreateError::FreePointer(0));
            }
            _ => {
                assert!(kmalloc(usize::MAX, Gfp::KERNEL).is_null());
                // SAFETY: these are nothing.
                unsafe {
                    kfree(ptr::null());
                    kfree(kmalloc(0, Gfp::KERNEL));
                }
            }
        }
    }
}

impl Cache for KmemCache {
    fn take(&self, how: How) -> Option<NonNull<u8>> {
        self.alloc(gfp(how))
    }

    unsafe fn give(&self, object: NonNull<u8>) {
        // SAFETY: passed on to the caller.
        unsafe { self.free(object) };
    }

    fn take_many(&self, how: How, n: usize) -> Vec<NonNull<u8>> {
        let mut all = vec![MaybeUninit::uninit(); n];
        let count = self.alloc_bulk(gfp(how), &mut all);
        assert!(count == n || count == 0, "{count} of {n}, which is neither all nor none");
        // SAFETY: so many were initialised.
        all[..count].iter().map(|object| unsafe { object.assume_init() }).collect()
    }

    unsafe fn give_many(&self, objects: &[NonNull<u8>]) {
        // SAFETY: passed on to the caller.
        unsafe { self.free_bulk(objects) };
    }

    fn counts(&self) -> Counts {
        let stats = self.stats();
        Counts { used: stats.used(), cached: stats.cached, allocs: stats.allocs }
    }

    fn reap(&self, _: u8) -> bool {
        let empty = self.shrink();
        assert_eq!(empty, self.stats().slabs == 0);
        true
    }

    fn in_use(&self) -> Option<Vec<usize>> {
        let mut all = Vec::new();
        self.for_each_used(|object| all.push(object.addr().get()));
        Some(all)
    }

    fn finds_twice(&self, checked: bool) -> bool {
        let flags = self.flags();
        flags.intersects(SlabFlags::DEBUG) || (checked && !flags.contains(SlabFlags::NO_USER_FLAGS))
    }

    fn sheaf(&self, n: usize, used: usize) -> Option<Vec<NonNull<u8>>> {
        let mut sheaf = self.prefill_sheaf(Gfp::KERNEL, n)?;
        assert_eq!(sheaf.size(), n);
        let all = (0..used).map(|_| sheaf.alloc(Gfp::NOWAIT).expect("it was set aside")).collect();
        assert_eq!(sheaf.size(), n - used);
        Some(all)
    }

    fn elements(&self, least: usize) -> Option<Box<dyn Elements>> {
        let cache = NonNull::from(self);
        let data = Box::into_raw(Box::new(Data {
            cache,
            fails: FailPlan::new(),
            refused: AtomicU64::new(0),
            out: AtomicU64::new(0),
        }));
        let functions = Functions { alloc: element, free: no_element, data: data.cast() };
        // Also if a constructor unwinds.
        let without_pool = WithoutPool(data);
        // SAFETY: the functions take this data, which outlives the pool.
        let pool = unsafe { Mempool::create(least, functions, Gfp::KERNEL) }.ok()?;
        core::mem::forget(without_pool);
        assert_eq!(pool.reserve(), (least.max(1), least.max(1)));
        Some(Box::new(Pool { pool: ManuallyDrop::new(pool), data }))
    }

    fn destroy(self: Box<Self>) -> Result<(), (Box<dyn Cache>, u64)> {
        (*self).destroy().map_err(|still| (still.cache as Box<dyn Cache>, still.used))
    }
}

/// Where elements come from.
struct Data {
    /// It outlives the pool: nobody ends a cache that has one.
    cache: NonNull<KmemCache>,
    fails: FailPlan,
    refused: AtomicU64,
    out: AtomicU64,
}

/// The data of a pool that could not be made.
struct WithoutPool(*mut Data);

impl Drop for WithoutPool {
    fn drop(&mut self) {
        // SAFETY: it came from a box, and there is no pool.
        let data = unsafe { Box::from_raw(self.0) };
        if !std::thread::panicking() {
            assert_eq!(data.out.load(SeqCst), 0, "elements of a pool that could not be made");
        }
    }
}

unsafe extern "C-unwind" fn element(gfp: u32, data: *mut c_void) -> *mut c_void {
    // SAFETY: it is the pool's data, and the cache is there.
    let (data, cache) = unsafe {
        let data = &*data.cast::<Data>();
        (data, data.cache.as_ref())
    };
    if data.fails.call() {
        data.refused.fetch_add(1, SeqCst);
        return ptr::null_mut();
    }
    let Some(object) = cache.alloc(Gfp::from_bits_retain(gfp)) else { return ptr::null_mut() };
    data.out.fetch_add(1, SeqCst);
    object.as_ptr().cast()
}

unsafe extern "C-unwind" fn no_element(element: *mut c_void, data: *mut c_void) {
    // SAFETY: as above; the element came from the cache.
    unsafe {
        let data = &*data.cast::<Data>();
        data.out.fetch_sub(1, SeqCst);
        data.cache.as_ref().free(NonNull::new(element.cast()).expect("an element"));
    }
}

struct Pool {
    pool: ManuallyDrop<Mempool>,
    data: *mut Data,
}

impl Pool {
    fn data(&self) -> &Data {
        // SAFETY: it is freed when this is dropped.
        unsafe { &*self.data }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the pool is used no more.
        unsafe { ManuallyDrop::drop(&mut self.pool) };
        // SAFETY: it came from a box, and the pool is gone.
        let data = unsafe { Box::from_raw(self.data) };
        assert_eq!(data.out.load(SeqCst), 0, "elements that did not go back");
    }
}

impl Elements for Pool {
    fn take(&self, wait: bool) -> Option<NonNull<u8>> {
        let gfp = if wait { Gfp::KERNEL } else { Gfp::NOWAIT };
        NonNull::new(self.pool.alloc(gfp).cast())
    }

    unsafe fn give(&self, element: NonNull<u8>) {
        // SAFETY: passed on to the caller.
        unsafe { self.pool.free(element.as_ptr().cast()) };
    }

    fn resize(&self, least: usize) -> bool {
        self.pool.resize(least).is_ok()
    }

    fn reserve(&self) -> (usize, usize) {
        self.pool.reserve()
    }

    fn out(&self) -> u64 {
        self.data().out.load(SeqCst)
    }

    fn fails_from(&self, k: Option<u64>) {
        k.map_or_else(|| self.data().fails.never(), |k| self.data().fails.fail_from(k));
    }

    fn refused(&self) -> u64 {
        self.data().refused.load(SeqCst)
    }
}
