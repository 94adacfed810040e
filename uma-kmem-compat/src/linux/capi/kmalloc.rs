//! `kmalloc` and its family. What is only another name or order of arguments is inline in the header.

use core::ffi::{c_uint, c_void};
use core::ptr;

use super::boundary;
use super::can_be;
use crate::common::unusable;
use crate::linux::kmalloc::{self as heap};
use crate::linux::{Gfp, SYSTEM};

#[unsafe(no_mangle)]
extern "C" fn uma_linux_kmalloc(size: usize, gfp: c_uint) -> *mut c_void {
    boundary("kmalloc", || heap::kmalloc(size, Gfp::from_bits_retain(gfp)))
}

/// Null if the product overflows.
#[unsafe(no_mangle)]
extern "C" fn uma_linux_kmalloc_array(count: usize, size: usize, gfp: c_uint) -> *mut c_void {
    boundary("kmalloc_array", || {
        let bytes = count.checked_mul(size);
        bytes.map_or(ptr::null_mut(), |size| heap::kmalloc(size, Gfp::from_bits_retain(gfp)))
    })
}

/// # Safety
///
/// As [`heap::krealloc`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_krealloc(
    at: *const c_void,
    size: usize,
    gfp: c_uint,
) -> *mut c_void {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("krealloc", || unsafe {
        heap::krealloc(at.cast_mut(), size, Gfp::from_bits_retain(gfp))
    })
}

/// Null if the product overflows: the memory is as it was.
///
/// # Safety
///
/// As [`heap::krealloc`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_krealloc_array(
    at: *mut c_void,
    count: usize,
    size: usize,
    gfp: c_uint,
) -> *mut c_void {
    boundary("krealloc_array", || match count.checked_mul(size) {
        // SAFETY: the caller's duty is passed on unchanged.
        Some(size) => unsafe { heap::krealloc(at, size, Gfp::from_bits_retain(gfp)) },
        None => ptr::null_mut(),
    })
}

/// # Safety
///
/// As [`heap::kfree`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kfree(at: *const c_void) {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("kfree", || unsafe { heap::kfree(at) });
}

/// # Safety
///
/// As [`heap::kfree`], for each.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kfree_bulk(count: usize, all: *mut *mut c_void) {
    boundary("kfree_bulk", || {
        if count == 0 {
            return;
        }
        if let Some(why) = unusable(all) {
            SYSTEM.misuse("kfree_bulk", format_args!("the array is {why}"));
            return;
        }
        if !can_be("kfree_bulk", format_args!(""), count) {
            return;
        }
        // SAFETY: the caller says that there are so many, and so many there can be.
        let all = unsafe { core::slice::from_raw_parts(all, count) };
        // SAFETY: the caller's duty is passed on unchanged.
        all.iter().for_each(|at| unsafe { heap::free("kfree_bulk", *at) });
    });
}

/// # Safety
///
/// As [`heap::kfree`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kfree_sensitive(at: *const c_void) {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("kfree_sensitive", || unsafe { heap::kfree_sensitive(at) });
}

/// Frees memory when a grace period has passed. If nobody has said what that is, it is reported, and the memory
/// stays.
///
/// # Safety
///
/// As [`heap::kfree`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kfree_rcu_mightsleep(at: *const c_void) {
    const NAME: &str = "kfree_rcu_mightsleep";
    boundary(NAME, || {
        if crate::linux::pages::wait_for_grace_period() {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { heap::free(NAME, at) };
        } else {
            SYSTEM.misuse(
                NAME,
                format_args!("uma_linux_set_grace_period was not called; the memory stays"),
            );
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn uma_linux_ksize(at: *const c_void) -> usize {
    boundary("ksize", || heap::ksize(at))
}

#[unsafe(no_mangle)]
extern "C" fn uma_linux_kmalloc_size_roundup(size: usize) -> usize {
    boundary("kmalloc_size_roundup", || heap::kmalloc_size_roundup(size))
}

#[unsafe(no_mangle)]
extern "C" fn uma_linux_kmem_dump_obj(at: *const c_void) {
    boundary("kmem_dump_obj", || {
        heap::describe(at, |what| SYSTEM.report("kmem_dump_obj", what));
    });
}

/// Bytes of `kmalloc` in use, as usable.
#[unsafe(no_mangle)]
extern "C" fn uma_linux_kmalloc_active() -> u64 {
    boundary("uma_linux_kmalloc_active", || heap::kmalloc_stats().used())
}

/// For pools whose elements come from `kmalloc`; the data is the size.
#[unsafe(no_mangle)]
extern "C-unwind" fn uma_linux_mempool_kmalloc(gfp: c_uint, size: *mut c_void) -> *mut c_void {
    uma_linux_kmalloc(size.addr(), gfp)
}

/// # Safety
///
/// As [`heap::kfree`].
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn uma_linux_mempool_kfree(element: *mut c_void, _size: *mut c_void) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { uma_linux_kfree(element) }
}
