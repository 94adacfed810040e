//! `kmem_cache_*`.

use core::ffi::{c_char, c_int, c_void};
use core::ptr::{self, NonNull};

use super::boundary;
use super::{CACHES, Cache, VmemHandle, arena, bad, cache};
use crate::common::memory::{Counted, NoMemory, no_zone};
use crate::common::objects::{Backing, or_null};
use crate::common::text;
use crate::solaris::{
    Callbacks, Constructor, CreateError, Destructor, Km, Kmc, KmemCache, Leaked, MoveCallback,
    ReclaimCallback, SYSTEM,
};

/// # Safety
///
/// The name is null or a string that ends in a zero; the callbacks suit objects of that size; the arena is as
/// [`Handles::get`](crate::common::Handles::get) has it.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "so many has the original")]
unsafe extern "C" fn uma_solaris_kmem_cache_create(
    name: *const c_char,
    size: usize,
    align: usize,
    constructor: Option<Constructor>,
    destructor: Option<Destructor>,
    reclaim: Option<ReclaimCallback>,
    private: *mut c_void,
    vmp: *mut VmemHandle,
    flags: c_int,
) -> *mut Cache {
    const NAME: &str = "kmem_cache_create";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let name = unsafe { text(name) };
        let callbacks = Callbacks { constructor, destructor, reclaim, private };
        let mut known = Kmc::from_bits_truncate(flags);
        if known.bits() != flags {
            let unknown = flags & !known.bits();
            SYSTEM.report(NAME, format_args!("unknown flags {unknown:#x} mean nothing"));
            known = Kmc::from_bits_truncate(flags);
        }
        let backing: Result<Option<Counted<dyn Backing>>, CreateError> = if vmp.is_null() {
            Ok(None)
        } else {
            // SAFETY: as above.
            match unsafe { arena(NAME, vmp) } {
                Some(arena) if !arena.has_identifiers() => {
                    // SAFETY: a coercion.
                    Ok(Some(unsafe { arena.clone().cast(|arena| arena as _) }))
                }
                _ => Err(CreateError::BadArena),
            }
        };
        let made = match (&name, backing) {
            (None, _) => Err(CreateError::NoName),
            (_, Err(error)) => Err(error),
            // SAFETY: the caller vouches for the callbacks.
            (Some(name), Ok(backing)) => unsafe {
                KmemCache::create_over(name, size, align, callbacks, backing, known)
            },
        };
        let no_memory = || no_zone(name.as_deref().unwrap_or(""), size, align);
        let made = made.and_then(|cache| {
            let align = cache.align();
            CACHES.insert_aligned(cache, align).map_err(|NoMemory| CreateError::from(no_memory()))
        });
        match made {
            Ok(handle) => handle,
            Err(error) => {
                let name = name.as_deref().unwrap_or("");
                let what = format_args!("no cache \"{name}\": {error}");
                if error == CreateError::BadName || error == no_memory().into() {
                    // The manual has null for the one, and nothing else; the other is not the caller's fault.
                    SYSTEM.report(NAME, what);
                } else {
                    SYSTEM.misuse(NAME, what);
                }
                ptr::null_mut()
            }
        }
    })
}

/// # Safety
///
/// As [`crate::common::Handles::remove`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_kmem_cache_destroy(handle: *mut Cache) {
    const NAME: &str = "kmem_cache_destroy";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on; nobody else uses the cache.
        if unsafe { cache(NAME, handle) }.is_none() {
            return;
        }
        // Looked at before the handle dies, so that it can stay.
        // SAFETY: as above.
        match unsafe { CACHES.remove(handle) } {
            Ok(cache) => {
                if let Err(Leaked { cache: Some(cache), .. }) = cache.destroy() {
                    let align = cache.align();
                    // SAFETY: `insert_aligned` returned the handle, and nobody else uses it.
                    unsafe { CACHES.restore(handle, cache, align) };
                }
            }
            Err(fault) => bad(NAME, "cache", fault),
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_kmem_cache_alloc(handle: *mut Cache, flags: c_int) -> *mut c_void {
    // SAFETY: the caller's duty is passed on unchanged.
    let object = unsafe { CACHES.pop(handle) };
    if !object.is_null() {
        return object;
    }
    // SAFETY: as above.
    unsafe { alloc_slow(handle, flags) }
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[cold]
#[inline(never)]
unsafe extern "C" fn alloc_slow(handle: *mut Cache, flags: c_int) -> *mut c_void {
    const NAME: &str = "kmem_cache_alloc";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(cache) = (unsafe { cache(NAME, handle) }) else { return ptr::null_mut() };
        let object = cache.alloc_slow(Km::from_bits_retain(flags));
        // SAFETY: the handle is live, and the front goes with it.
        unsafe { CACHES.shorten(handle, |front| cache.lend_front(front)) };
        or_null(object.ok_or(())).cast()
    })
}

/// # Safety
///
/// As [`crate::common::Handles::get`]; the object came from the cache, and is used no more.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_kmem_cache_free(handle: *mut Cache, object: *mut c_void) {
    // SAFETY: the caller's duty is passed on unchanged.
    if !unsafe { CACHES.push(handle, object) } {
        // SAFETY: as above; nobody has taken the object.
        unsafe { free_slow(handle, object) }
    }
}

/// # Safety
///
/// As [`uma_solaris_kmem_cache_free`].
#[cold]
#[inline(never)]
unsafe extern "C" fn free_slow(handle: *mut Cache, object: *mut c_void) {
    const NAME: &str = "kmem_cache_free";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(cache) = (unsafe { cache(NAME, handle) }) else { return };
        let Some(item) = NonNull::new(object.cast::<u8>()) else {
            return SYSTEM.misuse(NAME, format_args!("{cache}: the object is null"));
        };
        if !cache.is_aligned(object) {
            let (at, align) = (object.addr(), cache.align());
            return SYSTEM.misuse(
                NAME,
                format_args!(
                    "{cache}: {at:#x} is not aligned to {align} bytes, so it is no object of it"
                ),
            );
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { cache.free(item) };
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`], and [`KmemCache::set_move`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_kmem_cache_set_move(
    handle: *mut Cache,
    callback: Option<MoveCallback>,
) {
    const NAME: &str = "kmem_cache_set_move";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(cache) = (unsafe { cache(NAME, handle) }) else { return };
        let Some(callback) = callback else {
            return SYSTEM.misuse(NAME, format_args!("{cache}: the callback is null"));
        };
        if cache.is_untouched() {
            return SYSTEM
                .misuse(NAME, format_args!("{cache} does not touch its objects (KMC_NOTOUCH)"));
        }
        if cache.stats().slabs != 0 {
            return SYSTEM.misuse(NAME, format_args!("{cache} has allocated objects already"));
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { cache.set_move(callback) };
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_kmem_cache_move_notify(handle: *mut Cache, object: *mut c_void) {
    const NAME: &str = "kmem_cache_move_notify";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(cache) = (unsafe { cache(NAME, handle) }) else { return };
        match NonNull::new(object) {
            Some(object) => cache.move_notify(object.cast()),
            None => SYSTEM.misuse(NAME, format_args!("{cache}: the object is null")),
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_kmem_cache_reap_now(handle: *mut Cache) {
    boundary("kmem_cache_reap_now", || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(cache) = unsafe { cache("kmem_cache_reap_now", handle) } {
            cache.reap_now();
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_kmem_cache_reap_soon(handle: *mut Cache) {
    boundary("kmem_cache_reap_soon", || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(cache) = unsafe { cache("kmem_cache_reap_soon", handle) } {
            cache.reap_soon();
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`]; the field is null or a string that ends in a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_kmem_cache_stat(handle: *mut Cache, field: *const c_char) -> u64 {
    const NAME: &str = "kmem_cache_stat";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let (cache, field) = unsafe { (cache(NAME, handle), text(field)) };
        let Some(cache) = cache else { return 0 };
        let field = field.as_deref().unwrap_or("");
        cache.stat(field).unwrap_or_else(|| {
            SYSTEM.misuse(NAME, format_args!("{cache}: there is no figure \"{field}\""));
            0
        })
    })
}
