//! `mempool_*`.
//!
//! A `mempool_t` is one word, so that it can lie in a structure of the program (`mempool_init`): it leads to the
//! pool. That of a pool made by `mempool_create` lies in the pool's handle itself.

use core::ffi::{c_int, c_uint, c_void};
use core::ptr;

use super::boundary;
use super::{CACHES, Cache, NO_MEMORY, bad};
use crate::common::{BadHandle, Handle, Handles, unusable};
use crate::linux::{AllocElement, Elements, FreeElement, Gfp, Mempool, SYSTEM};

/// `mempool_t`.
#[repr(C)]
struct CMempool {
    pool: *mut Handle<Pool>,
}

#[repr(C)]
struct Pool {
    pool: Mempool,
    /// Used by pools of `mempool_create`.
    own: CMempool,
}

// SAFETY: the pointer is only compared and handed out.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

static POOLS: Handles<Pool, { u16::from_le_bytes(*b"lm") }> = Handles::new();

/// The pool of a `mempool_t`, or a report.
///
/// # Safety
///
/// It is null, or can be read, and leads nowhere or to what `make` returned.
unsafe fn pool<'a>(function: &'static str, at: *const CMempool) -> Option<&'a Pool> {
    let fault = if at.is_null() {
        BadHandle::Null
    } else if !at.is_aligned() {
        BadHandle::Misaligned
    } else {
        // SAFETY: the caller's duty is passed on unchanged.
        match unsafe { POOLS.get((*at).pool) } {
            Ok(pool) => return Some(pool),
            Err(BadHandle::Null) => BadHandle::Destroyed,
            Err(fault) => fault,
        }
    };
    bad(function, "pool", fault);
    None
}

/// # Safety
///
/// As [`Mempool::create`].
unsafe fn make(
    function: &'static str,
    least: c_int,
    alloc: Option<AllocElement>,
    free: Option<FreeElement>,
    data: *mut c_void,
    gfp: c_uint,
) -> Option<*mut Handle<Pool>> {
    let (Some(alloc), Some(free)) = (alloc, free) else {
        SYSTEM.misuse(function, format_args!("a function of the pool is null"));
        return None;
    };
    let Ok(least) = usize::try_from(least) else {
        SYSTEM.misuse(function, format_args!("a reserve of {least} elements"));
        return None;
    };
    let elements = Elements { alloc, free, data };
    // SAFETY: the caller's duty is passed on unchanged.
    let pool = unsafe { Mempool::create(least, elements, Gfp::from_bits_retain(gfp)) }.ok()?;
    POOLS.insert(Pool { pool, own: CMempool { pool: ptr::null_mut() } }).ok()
}

/// # Safety
///
/// As [`Mempool::create`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_mempool_create_node(
    least: c_int,
    alloc: Option<AllocElement>,
    free: Option<FreeElement>,
    data: *mut c_void,
    gfp: c_uint,
    _node: c_int,
) -> *mut c_void {
    boundary("mempool_create", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(handle) = (unsafe { make("mempool_create", least, alloc, free, data, gfp) })
        else {
            return ptr::null_mut();
        };
        // SAFETY: the handle is new, so nobody else has the pool yet.
        unsafe {
            let own = &raw mut (*POOLS.value(handle)).own;
            (*own).pool = handle;
            own.cast()
        }
    })
}

/// 0, or `-ENOMEM`.
///
/// # Safety
///
/// As [`Mempool::create`]; `at` can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_mempool_init_node(
    at: *mut CMempool,
    least: c_int,
    alloc: Option<AllocElement>,
    free: Option<FreeElement>,
    data: *mut c_void,
    gfp: c_uint,
    _node: c_int,
) -> c_int {
    boundary("mempool_init", || {
        if at.is_null() || !at.is_aligned() {
            bad(
                "mempool_init",
                "pool",
                if at.is_null() { BadHandle::Null } else { BadHandle::Misaligned },
            );
            return NO_MEMORY;
        }
        // SAFETY: the caller's duty is passed on unchanged.
        let handle = unsafe { make("mempool_init", least, alloc, free, data, gfp) };
        // SAFETY: the caller says that it can be written.
        unsafe { at.write(CMempool { pool: handle.unwrap_or(ptr::null_mut()) }) };
        if handle.is_some() { 0 } else { NO_MEMORY }
    })
}

/// Ends a pool of `mempool_init`. One that is all zeros, or was ended, is left alone.
///
/// # Safety
///
/// `at` can be read and written, and nobody uses the pool any more.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_mempool_exit(at: *mut CMempool) {
    const NAME: &str = "mempool_exit";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            if at.is_null() || (at.is_aligned() && (*at).pool.is_null()) {
                return;
            }
            if pool(NAME, at).is_none() {
                return;
            }
            let handle = core::mem::replace(&mut (*at).pool, ptr::null_mut());
            match POOLS.remove(handle) {
                Ok(pool) => drop(pool),
                Err(fault) => bad(NAME, "pool", fault),
            }
        }
    });
}

/// Ends a pool of `mempool_create`. Null is nothing.
///
/// # Safety
///
/// As [`pool`], and nobody uses the pool any more.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_mempool_destroy(at: *mut CMempool) {
    const NAME: &str = "mempool_destroy";
    boundary(NAME, || {
        if at.is_null() {
            return;
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            let Some(found) = pool(NAME, at) else { return };
            if !ptr::eq(&raw const found.own, at) {
                SYSTEM.misuse(NAME, format_args!("the pool was made by mempool_init"));
                return;
            }
            match POOLS.remove((*at).pool) {
                Ok(pool) => drop(pool),
                Err(fault) => bad(NAME, "pool", fault),
            }
        }
    });
}

/// 0, or `-ENOMEM`.
///
/// # Safety
///
/// As [`pool`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_mempool_resize(at: *mut CMempool, least: c_int) -> c_int {
    const NAME: &str = "mempool_resize";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(found) = (unsafe { pool(NAME, at) }) else { return NO_MEMORY };
        match usize::try_from(least) {
            Ok(least) if least > 0 => found.pool.resize(least).map_or(NO_MEMORY, |()| 0),
            _ => {
                SYSTEM.misuse(NAME, format_args!("a reserve of {least} elements"));
                NO_MEMORY
            }
        }
    })
}

/// # Safety
///
/// As [`pool`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_mempool_alloc(at: *mut CMempool, gfp: c_uint) -> *mut c_void {
    boundary("mempool_alloc", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let found = unsafe { pool("mempool_alloc", at) };
        found.map_or(ptr::null_mut(), |found| found.pool.alloc(Gfp::from_bits_retain(gfp)))
    })
}

/// # Safety
///
/// As [`pool`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_mempool_alloc_preallocated(at: *mut CMempool) -> *mut c_void {
    boundary("mempool_alloc_preallocated", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let found = unsafe { pool("mempool_alloc_preallocated", at) };
        found.map_or(ptr::null_mut(), |found| found.pool.alloc_preallocated())
    })
}

/// Always 0, but for misuse.
///
/// # Safety
///
/// As [`pool`]; there are so many pointers, which are null or elements.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_mempool_alloc_bulk(
    at: *mut CMempool,
    places: *mut *mut c_void,
    count: c_uint,
    _allocated: c_uint,
) -> c_int {
    const NAME: &str = "mempool_alloc_bulk";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(found) = (unsafe { pool(NAME, at) }) else { return NO_MEMORY };
        if count == 0 {
            return 0;
        }
        if let Some(why) = unusable(places) {
            SYSTEM.misuse(NAME, format_args!("the array is {why}"));
            return NO_MEMORY;
        }
        // SAFETY: the caller says that there are so many.
        let places = unsafe { core::slice::from_raw_parts_mut(places, count as usize) };
        found.pool.alloc_bulk(places);
        0
    })
}

/// Null is nothing.
///
/// # Safety
///
/// As [`pool`]; the element came from the pool and is used no more.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_mempool_free(element: *mut c_void, at: *mut CMempool) {
    boundary("mempool_free", || {
        if element.is_null() {
            return;
        }
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(found) = unsafe { pool("mempool_free", at) } {
            // SAFETY: as above.
            unsafe { found.pool.free(element) };
        }
    });
}

/// Returns how many went into the reserve; the others are still the caller's.
///
/// # Safety
///
/// As [`uma_linux_mempool_free`], for those.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_mempool_free_bulk(
    at: *mut CMempool,
    elements: *mut *mut c_void,
    count: c_uint,
) -> c_uint {
    const NAME: &str = "mempool_free_bulk";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(found) = (unsafe { pool(NAME, at) }) else { return 0 };
        if count == 0 {
            return 0;
        }
        if let Some(why) = unusable(elements) {
            SYSTEM.misuse(NAME, format_args!("the array is {why}"));
            return 0;
        }
        // SAFETY: the caller says that there are so many.
        let elements = unsafe { core::slice::from_raw_parts_mut(elements, count as usize) };
        // SAFETY: as above.
        let taken = unsafe { found.pool.free_bulk(elements) };
        elements[..taken].fill(ptr::null_mut());
        // At most `count`.
        taken as c_uint
    })
}

/// Whether the reserve is full.
///
/// # Safety
///
/// As [`pool`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_mempool_is_saturated(at: *mut CMempool) -> bool {
    boundary("mempool_is_saturated", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let found = unsafe { pool("mempool_is_saturated", at) };
        found.is_some_and(|found| {
            let (least, kept) = found.pool.reserve();
            kept >= least
        })
    })
}

/// An element from a cache, which may not have a constructor: elements of a reserve are not constructed anew.
///
/// # Safety
///
/// As [`Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn uma_linux_mempool_alloc_slab(
    gfp: c_uint,
    cache: *mut c_void,
) -> *mut c_void {
    const NAME: &str = "mempool_alloc_slab";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        match unsafe { CACHES.get(cache.cast::<Cache>()) } {
            Ok(cache) if cache.has_constructor() => {
                SYSTEM.misuse(NAME, format_args!("{cache} has a constructor"));
                ptr::null_mut()
            }
            Ok(cache) => cache.alloc_or_null(Gfp::from_bits_retain(gfp)).cast(),
            Err(fault) => {
                bad(NAME, "cache", fault);
                ptr::null_mut()
            }
        }
    })
}

/// Gives an element back to its cache.
///
/// # Safety
///
/// As [`Handles::get`], and the element came from the cache.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn uma_linux_mempool_free_slab(element: *mut c_void, cache: *mut c_void) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { super::cache::uma_linux_kmem_cache_free(cache.cast::<Cache>(), element) }
}
