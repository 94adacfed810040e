//! libumem.

use std::alloc::Layout;
use std::ffi::c_int;
use std::ptr::NonNull;

use uma_kmem_compat::umem::{
    CreateError, Leaked, RETRY, Umc, Umem as Flags, UmemCache, umem_alloc, umem_alloc_align,
    umem_free, umem_nofail_callback, umem_reap, umem_zalloc,
};
use uma_malloc::SizeClasses;
use uma_testkit::ops::compat::{CacheConfig, How};

use super::solaris::callbacks;
use super::{Cache, Counts, Face, Made};

unsafe extern "C" {
    safe fn uma_umem_alloc_active() -> u64;
}

unsafe extern "C-unwind" fn again() -> c_int {
    RETRY
}

pub struct Umem;

fn flags(how: How) -> Flags {
    if how.wait { Flags::NOFAIL } else { Flags::DEFAULT }
}

impl Face for Umem {
    fn create(&self, place: usize, config: &CacheConfig) -> Result<Made, String> {
        // SAFETY: it may be called on any thread.
        unsafe { umem_nofail_callback(Some(again)) };
        let mut wanted = Umc::empty();
        for (bit, flag) in [Umc::NOTOUCH, Umc::NODEBUG, Umc::NOMAGAZINE].into_iter().enumerate() {
            if config.has(bit as u32) {
                wanted = wanted | flag;
            }
        }
        let callbacks = callbacks(place, config.constructed);
        let (size, align) = (config.size(), config.align());
        // SAFETY: the callbacks take objects of this size.
        let cache = unsafe { UmemCache::create_with("compat", size, align, callbacks, wanted) };
        let cache = cache.map_err(|error| error.to_string())?;
        let least = match align {
            0 if size > 8 => 16,
            align => align.max(8),
        };
        assert_eq!((cache.size(), cache.align()), (size, least));
        let layout = Layout::from_size_align(size, least).expect("it was made");
        let (begins, ends) = (config.constructed, config.constructed);
        Ok(Made { cache: Box::new(cache), layout, begins, ends, each: false, zeroes: false })
    }

    fn memory(&self, size: usize, align: usize, how: How) -> (*mut u8, usize) {
        let flags = flags(how);
        let natural = if size > 8 { 16 } else { 8 };
        if how.zero {
            (umem_zalloc(size, flags).cast(), natural)
        } else if align != 0 {
            (umem_alloc_align(size, align, flags).cast(), align)
        } else {
            (umem_alloc(size, flags).cast(), natural)
        }
    }

    unsafe fn free(&self, at: *mut u8, size: usize) {
        // SAFETY: passed on to the caller.
        unsafe { umem_free(at.cast(), size) };
    }

    fn classes(&self) -> &'static SizeClasses {
        SizeClasses::UMEM_ALLOC
    }

    fn used(&self) -> u64 {
        uma_umem_alloc_active()
    }

    fn finds_size(&self, size: usize, other: usize, checked: bool) -> bool {
        super::solaris::Solaris.finds_size(size, other, checked)
    }

    fn reap_all(&self, _: u8) {
        umem_reap();
    }

    fn bad(&self, what: u8) {
        let make = |size, align, flags| UmemCache::create("bad", size, align, flags).unwrap_err();
        match what % 4 {
            0 => assert_eq!(make(0, 0, Umc::empty()).errno(), 22),
            1 => assert_eq!(make(8, 24, Umc::empty()), CreateError::BadAlign(24)),
            2 => assert_eq!(make(8, 0, Umc::NOTOUCH | Umc::NOHASH), CreateError::BadFlags),
            _ => assert_eq!(make(usize::MAX, 0, Umc::empty()).errno(), 12),
        }
        assert!(umem_alloc(usize::MAX, Flags::DEFAULT).is_null());
        assert!(umem_alloc_align(8, 3, Flags::NOFAIL).is_null());
    }
}

impl Cache for UmemCache {
    fn take(&self, how: How) -> Option<NonNull<u8>> {
        self.alloc(flags(how))
    }

    unsafe fn give(&self, object: NonNull<u8>) {
        // SAFETY: passed on to the caller.
        unsafe { self.free(object) };
    }

    fn counts(&self) -> Counts {
        let stats = self.stats();
        Counts { used: stats.used(), cached: stats.cached, allocs: stats.allocs }
    }

    fn reap(&self, _: u8) -> bool {
        self.reap_now();
        true
    }

    fn destroy(self: Box<Self>) -> Result<(), (Box<dyn Cache>, u64)> {
        (*self).destroy().map_err(|Leaked { objects, cache }| {
            (Box::new(cache.expect("it is refused")) as Box<dyn Cache>, objects)
        })
    }
}
