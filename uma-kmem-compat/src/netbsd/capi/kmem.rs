//! `kmem_*`. What deals with strings is inline in the header.

use core::ffi::{c_uint, c_void};

use uma::core::Request;

use super::boundary;
use crate::netbsd::kmem::{self as heap};
use crate::netbsd::{KmFlags, kmem_roundup_size, kmem_stats};

#[unsafe(no_mangle)]
extern "C" fn uma_netbsd_kmem_alloc(size: usize, flags: c_uint) -> *mut c_void {
    boundary("kmem_alloc", || {
        heap::alloc("kmem_alloc", size, KmFlags::from_bits_retain(flags), Request::NOWAIT)
    })
}

#[unsafe(no_mangle)]
extern "C" fn uma_netbsd_kmem_zalloc(size: usize, flags: c_uint) -> *mut c_void {
    boundary("kmem_zalloc", || {
        let request = Request::NOWAIT.zeroed();
        heap::alloc("kmem_zalloc", size, KmFlags::from_bits_retain(flags), request)
    })
}

/// # Safety
///
/// As [`heap::kmem_free`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_kmem_free(at: *mut c_void, size: usize) {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("kmem_free", || unsafe { heap::free("kmem_free", at, size) });
}

#[unsafe(no_mangle)]
extern "C" fn uma_netbsd_kmem_roundup_size(size: usize) -> usize {
    boundary("kmem_roundup_size", || kmem_roundup_size(size))
}

/// Allocations in use.
#[unsafe(no_mangle)]
extern "C" fn uma_netbsd_kmem_active() -> u64 {
    boundary("uma_netbsd_kmem_active", || kmem_stats().used())
}
