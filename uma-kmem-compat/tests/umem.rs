//! The face of libumem from Rust.
#![cfg(feature = "umem")]

use core::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

use uma_kmem_compat::uma::core::ConfigFault;
use uma_kmem_compat::umem::{
    Callbacks, CreateError, RETRY, Umc, Umem, UmemCache, exit, umem_alloc, umem_alloc_align,
    umem_free, umem_free_align, umem_nofail_callback, umem_reap, umem_zalloc,
};

static FAILING: AtomicU32 = AtomicU32::new(0);

unsafe extern "C-unwind" fn construct(_: *mut c_void, _: *mut c_void, flag: c_int) -> c_int {
    assert_eq!(flag, 0);
    c_int::from(FAILING.load(Ordering::Relaxed) != 0)
}

unsafe extern "C-unwind" fn less() -> c_int {
    FAILING.fetch_sub(1, Ordering::Relaxed);
    RETRY
}

#[test]
fn a_request_that_must_not_fail_asks() {
    let callbacks = Callbacks { constructor: Some(construct), ..Callbacks::NONE };
    // SAFETY: the constructor touches no object.
    let cache = unsafe { UmemCache::create_with("asks", 64, 0, callbacks, Umc::empty()) }.unwrap();
    FAILING.store(3, Ordering::Relaxed);
    assert!(cache.alloc(Umem::DEFAULT).is_none());
    // SAFETY: it may be called on any thread.
    unsafe { umem_nofail_callback(Some(less)) };
    let object = cache.alloc(Umem::NOFAIL).unwrap();
    assert_eq!(FAILING.load(Ordering::Relaxed), 0);
    // SAFETY: the object is ours.
    unsafe { cache.free(object) };
    cache.destroy().unwrap();
    assert_eq!(exit(0x107), 0x107);
}

#[test]
fn what_cannot_be_is_an_error() {
    let make = |size, align, flags| UmemCache::create("bad", size, align, flags).unwrap_err();
    assert_eq!(make(8, 24, Umc::empty()), CreateError::BadAlign(24));
    assert_eq!(make(8, 8192, Umc::empty()), CreateError::BadAlign(8192));
    assert_eq!(make(8, 0, Umc::NOTOUCH | Umc::NOHASH), CreateError::BadFlags);
    let (empty, huge) = (make(0, 0, Umc::empty()), make(usize::MAX, 0, Umc::empty()));
    assert!(matches!(&empty, CreateError::Config(error) if error.fault == ConfigFault::ZeroSize));
    let numbers = [empty.errno(), huge.errno()];
    assert_eq!(numbers, [22, 12]);
}

#[test]
fn what_is_in_use_is_told() {
    let cache = UmemCache::create("leaky", 32, 0, Umc::NOMAGAZINE).unwrap();
    assert!(cache.alloc(Umem::DEFAULT).is_some());
    let leaked = cache.destroy().unwrap_err();
    assert_eq!((leaked.objects, leaked.cache.is_none()), (1, true));
}

#[test]
fn memory_of_any_size() {
    for size in [1, 8, 9, 4096, 200_000] {
        let (one, zeros) = (umem_alloc(size, Umem::DEFAULT), umem_zalloc(size, Umem::DEFAULT));
        let aligned = umem_alloc_align(size, 256, Umem::DEFAULT);
        assert_eq!(aligned.addr() % 256, 0);
        // SAFETY: they are ours, and have so many bytes.
        unsafe {
            assert_eq!(zeros.cast::<u8>().add(size - 1).read(), 0);
            umem_free(one, size);
            umem_free(zeros, size);
            umem_free_align(aligned, size);
        }
    }
    assert!(umem_alloc(0, Umem::DEFAULT).is_null());
    assert!(umem_alloc(usize::MAX, Umem::DEFAULT).is_null());
    assert!(umem_alloc_align(8, 3, Umem::DEFAULT).is_null());
    umem_reap();
}
