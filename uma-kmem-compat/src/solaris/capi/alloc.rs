//! `kmem_alloc` and its family.

use core::ffi::{c_int, c_void};

use super::boundary;
use crate::common::objects;
use crate::solaris::alloc as heap;
use crate::solaris::{Km, kmem_avail, kmem_debugging, kmem_maxavail, kmem_reap};

#[unsafe(no_mangle)]
extern "C" fn uma_solaris_kmem_alloc(size: usize, flags: c_int) -> *mut c_void {
    boundary("kmem_alloc", || heap::kmem_alloc(size, Km::from_bits_retain(flags)))
}

#[unsafe(no_mangle)]
extern "C" fn uma_solaris_kmem_zalloc(size: usize, flags: c_int) -> *mut c_void {
    boundary("kmem_zalloc", || heap::kmem_zalloc(size, Km::from_bits_retain(flags)))
}

/// # Safety
///
/// There is room for a size, unless the pointer is null.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_kmem_alloc_tryhard(
    size: usize,
    got: *mut usize,
    flags: c_int,
) -> *mut c_void {
    boundary("kmem_alloc_tryhard", || {
        let (at, asize) = heap::kmem_alloc_tryhard(size, Km::from_bits_retain(flags));
        if !got.is_null() {
            // SAFETY: the caller says that there is room.
            unsafe { got.write(asize) };
        }
        at
    })
}

/// # Safety
///
/// As [`heap::kmem_free`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_kmem_free(at: *mut c_void, size: usize) {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("kmem_free", || unsafe { heap::kmem_free(at, size) });
}

#[unsafe(no_mangle)]
extern "C" fn uma_solaris_kmem_reap() {
    boundary("kmem_reap", kmem_reap);
}

/// Caches stand on memory only, so there is nothing to reap for the sake of identifiers.
#[unsafe(no_mangle)]
extern "C" fn uma_solaris_kmem_reap_idspace() {
    boundary("kmem_reap_idspace", || {});
}

#[unsafe(no_mangle)]
extern "C" fn uma_solaris_kmem_avail() -> usize {
    boundary("kmem_avail", kmem_avail)
}

#[unsafe(no_mangle)]
extern "C" fn uma_solaris_kmem_maxavail() -> usize {
    boundary("kmem_maxavail", kmem_maxavail)
}

#[unsafe(no_mangle)]
extern "C" fn uma_solaris_kmem_debugging() -> c_int {
    boundary("kmem_debugging", || c_int::from(kmem_debugging()))
}

/// Whether anything is to be reaped, or is being.
#[unsafe(no_mangle)]
extern "C" fn uma_solaris_kmem_cache_reap_active() -> c_int {
    boundary("kmem_cache_reap_active", || c_int::from(objects::active()))
}

/// Pieces of memory of `kmem_alloc` in use.
#[unsafe(no_mangle)]
extern "C" fn uma_solaris_kmem_alloc_active() -> u64 {
    boundary("uma_solaris_kmem_alloc_active", heap::used)
}
