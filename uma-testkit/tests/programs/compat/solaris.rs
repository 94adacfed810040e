//! Solaris.

use std::alloc::Layout;
use std::ptr::{self, NonNull};

use uma_kmem_compat::solaris::{
    Callbacks, Constructor, CreateError, Destructor, Km, Kmc, KmemCache, Leaked, kmem_alloc,
    kmem_alloc_tryhard, kmem_free, kmem_reap, kmem_zalloc,
};
use uma_malloc::SizeClasses;
use uma_testkit::ops::compat::{CacheConfig, How};

use super::hooks::{of_each_place, sun_begin, sun_end};
use super::{Cache, Counts, Face, Made};

unsafe extern "C" {
    safe fn uma_solaris_kmem_alloc_active() -> u64;
}

pub struct Solaris;

fn flags(how: How) -> Km {
    let mut flags = if how.wait { Km::SLEEP } else { Km::NOSLEEP };
    flags.set(Km::PUSHPAGE, how.more);
    flags
}

/// The callbacks of a place, for Solaris and libumem.
pub(super) fn callbacks(place: usize, constructed: bool) -> Callbacks {
    if !constructed {
        return Callbacks::NONE;
    }
    Callbacks {
        constructor: Some(of_each_place!(sun_begin: Constructor)[place]),
        destructor: Some(of_each_place!(sun_end: Destructor)[place]),
        reclaim: None,
        private: ptr::without_provenance_mut(place),
    }
}

impl Face for Solaris {
    fn create(&self, place: usize, config: &CacheConfig) -> Result<Made, String> {
        let all = [Kmc::NOTOUCH, Kmc::NODEBUG, Kmc::NOMAGAZINE, Kmc::PREFILL, Kmc::NOHASH];
        let mut wanted = Kmc::empty();
        for (bit, flag) in all.into_iter().enumerate() {
            wanted.set(flag, config.has(bit as u32) && !wanted.contains(Kmc::NOTOUCH));
        }
        let callbacks = callbacks(place, config.constructed);
        let (size, align) = (config.size(), config.align());
        // SAFETY: the callbacks take objects of this size.
        let cache = unsafe { KmemCache::create_with("compat", size, align, callbacks, wanted) };
        let cache = cache.map_err(|error| error.to_string())?;
        let least = if align == 0 { 8 } else { align };
        assert_eq!((cache.size(), cache.align()), (size, least));
        let layout = Layout::from_size_align(size, least).expect("it was made");
        let (begins, ends) = (config.constructed, config.constructed);
        Ok(Made { cache: Box::new(cache), layout, begins, ends, each: false, zeroes: false })
    }

    fn memory(&self, size: usize, _: usize, how: How) -> (*mut u8, usize) {
        let at =
            if how.zero { kmem_zalloc(size, flags(how)) } else { kmem_alloc(size, flags(how)) };
        if size != 0 && how.more && !how.zero {
            // SAFETY: it is ours.
            unsafe { kmem_free(at, size) };
            let (at, with) = kmem_alloc_tryhard(size, flags(how));
            assert_eq!(with, size, "more than was asked for, though there is memory");
            return (at.cast(), 8);
        }
        (at.cast(), if size.is_multiple_of(64) { 64 } else { 8 })
    }

    unsafe fn free(&self, at: *mut u8, size: usize) {
        // SAFETY: passed on to the caller.
        unsafe { kmem_free(at.cast(), size) };
    }

    fn classes(&self) -> &'static SizeClasses {
        SizeClasses::KMEM_ALLOC
    }

    fn used(&self) -> u64 {
        uma_solaris_kmem_alloc_active()
    }

    fn finds_size(&self, size: usize, other: usize, _: bool) -> bool {
        // The size is written behind the memory, where there is room. What is found for certain is more than any
        // class of that size has, and so little that there is room for a whole mark of it.
        other == 0
            || other > (2 * size).max(8192).next_multiple_of(4096)
            || (size > 16 && other <= size / 2)
    }

    fn reap_all(&self, _: u8) {
        kmem_reap();
    }

    fn bad(&self, what: u8) {
        let make = |size, align, flags| KmemCache::create("bad", size, align, flags).unwrap_err();
        match what % 4 {
            0 => assert!(matches!(make(0, 0, Kmc::empty()), CreateError::Config(_))),
            1 => assert!(matches!(make(8, 24, Kmc::empty()), CreateError::Config(_))),
            2 => {
                let both = Kmc::NOTOUCH | Kmc::NOHASH;
                assert_eq!(make(8, 0, both), CreateError::BadFlags(both));
            }
            _ => {
                assert_eq!(make(8, 0, Kmc::IDENTIFIER), CreateError::BadFlags(Kmc::IDENTIFIER));
            }
        }
    }
}

impl Cache for KmemCache {
    fn take(&self, how: How) -> Option<NonNull<u8>> {
        self.alloc(flags(how))
    }

    unsafe fn give(&self, object: NonNull<u8>) {
        // SAFETY: passed on to the caller.
        unsafe { self.free(object) };
    }

    fn counts(&self) -> Counts {
        let (stats, of) = (self.stats(), |field| self.stat(field).expect("there is such a figure"));
        assert_eq!(of("buf_inuse"), stats.used(), "what the kstat says is in use");
        assert_eq!(stats.allocs - stats.frees, stats.used());
        Counts { used: stats.used(), cached: stats.cached, allocs: stats.allocs }
    }

    fn reap(&self, _: u8) -> bool {
        self.reap_now();
        true
    }

    fn in_use(&self) -> Option<Vec<usize>> {
        let mut all = Vec::new();
        self.for_each_used(|object| all.push(object.addr().get()));
        Some(all)
    }

    fn destroy(self: Box<Self>) -> Result<(), (Box<dyn Cache>, u64)> {
        (*self).destroy().map_err(|Leaked { objects, cache }| {
            (Box::new(cache.expect("it is refused")) as Box<dyn Cache>, objects)
        })
    }
}
