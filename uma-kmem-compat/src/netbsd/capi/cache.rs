//! `pool_cache_*`. What a pool can do as well is that of the pool, by another name.

use core::ffi::{c_char, c_int, c_uint, c_void};
use core::ptr;

use super::boundary;
use super::pool::{
    uma_netbsd_pool_nget, uma_netbsd_pool_nput, uma_netbsd_pool_prime, uma_netbsd_pool_reclaim,
    uma_netbsd_pool_set_drain_hook, uma_netbsd_pool_sethardlimit, uma_netbsd_pool_sethiwat,
    uma_netbsd_pool_setlowat,
};
use super::{
    CPool, POOLS, Wish, bound, destroy, get_slow, handle, is_plain, list, live, pool, put_slow,
};
use crate::netbsd::{Callbacks, Constructor, Destructor, DrainHook, PageAllocator, SYSTEM};
use crate::sync::{AtomicPtr, Ordering};

/// Translates an address: `vtophys`.
type Translate = extern "C-unwind" fn(usize) -> usize;

/// Null: an address is its own translation.
static TRANSLATE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// # Safety
///
/// As [`Wish::make`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_init(
    size: usize,
    align: c_uint,
    offset: c_uint,
    flags: c_uint,
    name: *const c_char,
    pages: *const PageAllocator,
    _level: c_int,
    ctor: Option<Constructor>,
    dtor: Option<Destructor>,
    arg: *mut c_void,
) -> *mut CPool {
    const NAME: &str = "pool_cache_init";
    boundary(NAME, || {
        let cache = Some(Callbacks { ctor, dtor, arg });
        let flags = flags.cast_signed();
        let wish = Wish { function: NAME, name, size, align, offset, flags, pages, cache };
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { wish.make(ptr::null_mut()) }
    })
}

/// The same, in memory of the caller's.
///
/// # Safety
///
/// As [`Wish::make`]; `at` can be written, and is the cache's until it is destroyed.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_bootstrap(
    at: *mut CPool,
    size: usize,
    align: c_uint,
    offset: c_uint,
    flags: c_uint,
    name: *const c_char,
    pages: *const PageAllocator,
    _level: c_int,
    ctor: Option<Constructor>,
    dtor: Option<Destructor>,
    arg: *mut c_void,
) {
    const NAME: &str = "pool_cache_bootstrap";
    boundary(NAME, || {
        if at.is_null() || !at.is_aligned() {
            let why = if at.is_null() { "null" } else { "misaligned" };
            SYSTEM.misuse(NAME, format_args!("the cache is {why}"));
            return;
        }
        let cache = Some(Callbacks { ctor, dtor, arg });
        let flags = flags.cast_signed();
        let wish = Wish { function: NAME, name, size, align, offset, flags, pages, cache };
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            if wish.make(at).is_null() && !list::contains(at) {
                at.write(CPool { handle: ptr::null_mut() });
            }
        }
    });
}

/// # Safety
///
/// As [`destroy`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_destroy(at: *mut CPool) {
    const NAME: &str = "pool_cache_destroy";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            let Some(found) = bound(NAME, at) else { return };
            if !ptr::eq(&raw const found.own, at) {
                SYSTEM
                    .misuse(NAME, format_args!("{} was made by pool_cache_bootstrap", found.pool));
            }
            destroy(NAME, at);
        }
    });
}

/// # Safety
///
/// As [`destroy`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_bootstrap_destroy(at: *mut CPool) {
    const NAME: &str = "pool_cache_bootstrap_destroy";
    // SAFETY: the caller's duty is passed on unchanged.
    boundary(NAME, || unsafe { destroy(NAME, at) });
}

/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_get(at: *mut CPool, flags: c_int) -> *mut c_void {
    if is_plain(flags) {
        // SAFETY: the caller's duty is passed on unchanged.
        let object = unsafe { POOLS.pop(handle(at)) };
        if !object.is_null() {
            return object;
        }
    }
    // SAFETY: as above.
    unsafe { miss(at, flags) }
}

/// # Safety
///
/// As [`live`].
#[cold]
#[inline(never)]
unsafe extern "C" fn miss(at: *mut CPool, flags: c_int) -> *mut c_void {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("pool_cache_get", || unsafe {
        let object = get_slow("pool_cache_get", at, flags);
        if let Some(found) = live(at) {
            let pool = &found.pool;
            POOLS.shorten((*at).handle, |front| pool.lend_front(front));
        }
        object
    })
}

/// # Safety
///
/// As [`live`]; the object came from the cache, and is used no more.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_put(at: *mut CPool, object: *mut c_void) {
    // SAFETY: the caller's duty is passed on unchanged.
    if !unsafe { POOLS.push(handle(at), object) } {
        // SAFETY: as above; nobody has taken the object.
        unsafe { no_room(at, object) };
    }
}

/// # Safety
///
/// As [`uma_netbsd_pool_cache_put`].
#[cold]
#[inline(never)]
unsafe extern "C" fn no_room(at: *mut CPool, object: *mut c_void) {
    const NAME: &str = "pool_cache_put";
    // SAFETY: the caller's duty is passed on unchanged.
    boundary(NAME, || unsafe { put_slow(NAME, at, object, |pool, item| pool.put(item)) });
}

/// The object, and its physical address if anybody wants it.
///
/// # Safety
///
/// As [`live`]; `physical` is null or can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_get_paddr(
    at: *mut CPool,
    flags: c_int,
    physical: *mut usize,
) -> *mut c_void {
    boundary("pool_cache_get_paddr", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let object = unsafe { uma_netbsd_pool_cache_get(at, flags) };
        if !object.is_null() && !physical.is_null() {
            let translate = TRANSLATE.load(Ordering::Acquire);
            let address = if translate.is_null() {
                object.addr()
            } else {
                // SAFETY: `uma_netbsd_set_vtophys` stored a function of this type.
                let translate = unsafe { core::mem::transmute::<*mut (), Translate>(translate) };
                translate(object.addr())
            };
            // SAFETY: the caller says that it can be written.
            unsafe { physical.write(address) };
        }
        object
    })
}

/// # Safety
///
/// As [`uma_netbsd_pool_cache_put`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_put_paddr(
    at: *mut CPool,
    object: *mut c_void,
    _physical: usize,
) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { uma_netbsd_pool_cache_put(at, object) }
}

/// # Safety
///
/// The function may be called from any thread.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_set_vtophys(translate: Option<Translate>) {
    boundary("uma_netbsd_set_vtophys", || {
        let translate = translate.map_or(ptr::null_mut(), |function| function as *mut ());
        TRANSLATE.store(translate, Ordering::Release);
    });
}

/// # Safety
///
/// As [`uma_netbsd_pool_cache_put`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_destruct_object(at: *mut CPool, object: *mut c_void) {
    const NAME: &str = "pool_cache_destruct_object";
    // SAFETY: the caller's duty is passed on unchanged.
    boundary(NAME, || unsafe { put_slow(NAME, at, object, |pool, item| pool.destruct(item)) });
}

/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_invalidate(at: *mut CPool) {
    const NAME: &str = "pool_cache_invalidate";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(pool) = unsafe { pool(NAME, at) } {
            pool.invalidate();
        }
    });
}

/// Whether any page went.
///
/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_reclaim(at: *mut CPool) -> bool {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { uma_netbsd_pool_reclaim(at) != 0 }
}

/// # Safety
///
/// As [`uma_netbsd_pool_set_drain_hook`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_set_drain_hook(
    at: *mut CPool,
    hook: Option<DrainHook>,
    argument: *mut c_void,
) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { uma_netbsd_pool_set_drain_hook(at, hook, argument) };
}

/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_setlowat(at: *mut CPool, count: c_int) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { uma_netbsd_pool_setlowat(at, count) };
}

/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_sethiwat(at: *mut CPool, count: c_int) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { uma_netbsd_pool_sethiwat(at, count) };
}

/// # Safety
///
/// As [`uma_netbsd_pool_sethardlimit`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_sethardlimit(
    at: *mut CPool,
    count: c_int,
    warning: *const c_char,
    ratecap: c_int,
) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { uma_netbsd_pool_sethardlimit(at, count, warning, ratecap) };
}

/// 0, or `ENOMEM`.
///
/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_prime(at: *mut CPool, count: c_int) -> c_int {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { uma_netbsd_pool_prime(at, count) }
}

/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_nget(at: *mut CPool) -> c_uint {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { uma_netbsd_pool_nget(at) }
}

/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_cache_nput(at: *mut CPool) -> c_uint {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { uma_netbsd_pool_nput(at) }
}
