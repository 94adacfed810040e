//! NetBSD: pools and pool caches.

use std::alloc::Layout;
use std::ptr::{self, NonNull};

use uma::core::ConfigFault;
use uma::debug::has_sanitizer;
use uma_kmem_compat::netbsd::{
    Callbacks, Constructor, Destructor, KmFlags, PageAllocator, Pool, PoolArgs, PoolCache,
    PoolFlags, StillOut, kmem_alloc, kmem_free, kmem_roundup_size, kmem_stats, kmem_zalloc,
    set_pserialize,
};
use uma_malloc::SizeClasses;
use uma_testkit::ops::compat::{CacheConfig, How};

use super::hooks::{faults, netbsd_begin, netbsd_end, netbsd_no_page, netbsd_page, of_each_place};
use super::{Cache, Counts, Face, Made};

pub struct Netbsd;

fn flags(how: How) -> PoolFlags {
    let mut flags = if how.wait { PoolFlags::WAITOK } else { PoolFlags::NOWAIT };
    flags.set(PoolFlags::ZERO, how.zero);
    flags.set(PoolFlags::LIMITFAIL, how.more);
    flags
}

/// Nobody reads what was freed.
extern "C-unwind" fn performed() {}

fn allocator(place: usize) -> PageAllocator {
    type Alloc = unsafe extern "C-unwind" fn(*mut std::ffi::c_void, i32) -> *mut std::ffi::c_void;
    type Free = unsafe extern "C-unwind" fn(*mut std::ffi::c_void, *mut std::ffi::c_void);
    PageAllocator {
        alloc: Some(of_each_place!(netbsd_page: Alloc)[place]),
        free: Some(of_each_place!(netbsd_no_page: Free)[place]),
        page_size: 4096,
    }
}

impl Face for Netbsd {
    fn create(&self, place: usize, config: &CacheConfig) -> Result<Made, String> {
        set_pserialize(Some(performed));
        let mut wanted = PoolFlags::default();
        for (bit, flag) in [PoolFlags::NOTOUCH, PoolFlags::LARGECACHE, PoolFlags::PSERIALIZE]
            .into_iter()
            .enumerate()
        {
            wanted.set(flag, config.has(bit as u32));
        }
        let (size, align) = (config.size(), config.align());
        let args = PoolArgs { align, flags: wanted };
        // SAFETY: the callbacks take objects of this size, and the functions give pages.
        let cache: Box<dyn Cache> = unsafe {
            if config.each || config.constructed {
                let callbacks = match config.constructed {
                    true => Callbacks {
                        ctor: Some(of_each_place!(netbsd_begin: Constructor)[place]),
                        dtor: Some(of_each_place!(netbsd_end: Destructor)[place]),
                        arg: ptr::without_provenance_mut(place),
                    },
                    false => Callbacks::NONE,
                };
                Box::new(
                    match config.pages {
                        true => {
                            PoolCache::create_on("compat", size, args, callbacks, allocator(place))
                        }
                        false => PoolCache::create("compat", size, args, callbacks),
                    }
                    .map_err(|error| error.to_string())?,
                )
            } else {
                Box::new(
                    match config.pages {
                        true => Pool::create_on("compat", size, args, allocator(place)),
                        false => Pool::create("compat", size, args),
                    }
                    .map_err(|error| error.to_string())?,
                )
            }
        };
        let align = if align == 0 { 8 } else { align };
        let layout = Layout::from_size_align(size, align).expect("it was made");
        let (begins, ends) = (config.constructed, config.constructed);
        Ok(Made { cache, layout, begins, ends, each: false, zeroes: !begins })
    }

    fn memory(&self, size: usize, _: usize, how: How) -> (*mut u8, usize) {
        let flags = if how.wait { KmFlags::SLEEP } else { KmFlags::NOSLEEP };
        let at = if how.zero { kmem_zalloc(size, flags) } else { kmem_alloc(size, flags) };
        (at.cast(), if size.is_multiple_of(64) { 64 } else { 8 })
    }

    unsafe fn free(&self, at: *mut u8, size: usize) {
        // SAFETY: passed on to the caller.
        unsafe { kmem_free(at.cast(), size) };
    }

    fn bytes(&self) -> Option<u64> {
        Some(kmem_stats().bytes)
    }

    fn classes(&self) -> &'static SizeClasses {
        SizeClasses::NETBSD_KMEM
    }

    fn used(&self) -> u64 {
        kmem_stats().used()
    }

    fn finds_size(&self, size: usize, other: usize, checked: bool) -> bool {
        checked || other == 0 || kmem_roundup_size(size) != kmem_roundup_size(other)
    }

    fn reap_all(&self, how: u8) {
        let mode = [uma::Reclaim::Trim, uma::Reclaim::Drain, uma::Reclaim::DrainCpu];
        uma::reclaim(mode[usize::from(how) % 3]);
    }

    fn bad(&self, what: u8) {
        let make = |size, align| {
            let args = PoolArgs { align, ..PoolArgs::default() };
            Pool::create("bad", size, args).unwrap_err().fault
        };
        match what % 3 {
            0 => assert_eq!(make(0, 0), ConfigFault::ZeroSize),
            1 => assert_eq!(make(8, 24), ConfigFault::BadAlign),
            _ => {
                // SAFETY: there are no functions.
                let made = unsafe {
                    let none = PageAllocator { alloc: None, free: None, page_size: 0 };
                    Pool::create_on("bad", 8, PoolArgs::default(), none)
                };
                assert!(matches!(made.unwrap_err().fault, ConfigFault::Conflict(..)));
            }
        }
    }
}

fn counts(pool: &Pool) -> Counts {
    let stats = pool.stats();
    assert_eq!(stats.gets - stats.puts, stats.out, "gets and puts: {stats:?}");
    Counts { used: stats.out, cached: stats.cached, allocs: stats.gets }
}

fn set_limit(pool: &Pool, max: Option<u64>) -> Option<Option<u64>> {
    pool.set_hard_limit(max, None);
    Some(max)
}

fn in_use(pool: &Pool) -> Option<Vec<usize>> {
    assert!(pool.is_consistent(), "counts and pages do not agree");
    let mut all = Vec::new();
    pool.for_each_out(|item| all.push(item.addr().get()));
    Some(all)
}

fn reap(pool: &Pool) {
    let before = pool.stats();
    let went = pool.reclaim();
    let after = pool.stats();
    assert_eq!(went, after.page_frees != before.page_frees, "whether pages went back");
}

impl Cache for Pool {
    fn take(&self, how: How) -> Option<NonNull<u8>> {
        self.get(flags(how))
    }

    unsafe fn give(&self, object: NonNull<u8>) {
        // SAFETY: passed on to the caller.
        unsafe { self.put(object) };
    }

    fn counts(&self) -> Counts {
        let counts = counts(self);
        // With the sanitizer, there is a quarantine.
        assert!(counts.cached == 0 || has_sanitizer(), "a pool has no cache");
        counts
    }

    fn set_limit(&self, max: Option<u64>) -> Option<Option<u64>> {
        set_limit(self, max)
    }

    fn prime(&self, items: u64) {
        prime(self, items);
    }

    fn low_water(&self, items: u64) {
        self.set_low_water(items);
    }

    fn reap(&self, _: u8) -> bool {
        reap(self);
        false
    }

    fn in_use(&self) -> Option<Vec<usize>> {
        in_use(self)
    }

    fn finds_twice(&self, checked: bool) -> bool {
        // Others panic, and the counts do not agree any more.
        checked
    }

    fn destroy(self: Box<Self>) -> Result<(), (Box<dyn Cache>, u64)> {
        (*self).destroy().map_err(|StillOut { pool, out }| (pool as Box<dyn Cache>, out))
    }
}

fn prime(pool: &Pool, items: u64) {
    let failed = faults();
    let result = pool.prime(items);
    let now = faults();
    assert!(result.is_ok() || now != failed, "pages cannot be made, for no reason");
}

impl Cache for PoolCache {
    fn take(&self, how: How) -> Option<NonNull<u8>> {
        self.get(flags(how))
    }

    unsafe fn give(&self, object: NonNull<u8>) {
        // SAFETY: passed on to the caller.
        unsafe { self.put(object) };
    }

    unsafe fn discard(&self, object: NonNull<u8>) {
        // SAFETY: passed on to the caller.
        unsafe { self.destruct_object(object) };
    }

    fn counts(&self) -> Counts {
        counts(self)
    }

    fn set_limit(&self, max: Option<u64>) -> Option<Option<u64>> {
        set_limit(self, max)
    }

    fn prime(&self, items: u64) {
        prime(self, items);
    }

    fn low_water(&self, items: u64) {
        self.set_low_water(items);
    }

    fn reap(&self, how: u8) -> bool {
        let all = !how.is_multiple_of(2);
        if all {
            self.invalidate();
        } else {
            reap(self);
        }
        all
    }

    fn in_use(&self) -> Option<Vec<usize>> {
        in_use(self)
    }

    fn destroy(self: Box<Self>) -> Result<(), (Box<dyn Cache>, u64)> {
        (*self).destroy().map_err(|StillOut { pool, out }| (pool as Box<dyn Cache>, out))
    }
}
