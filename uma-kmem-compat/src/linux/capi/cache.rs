//! `kmem_cache_*`.

use core::ffi::{c_char, c_int, c_uint, c_void};
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use super::boundary;
use super::{At, CACHES, Cache, bad, cache, can_be};
use crate::common::memory::{NoMemory, no_zone};
use crate::common::{Sample, text, unusable};
use crate::linux::pages::set_grace_period;
use crate::linux::{
    CacheArgs, Constructor, CreateError, Gfp, GracePeriod, KmemCache, SYSTEM, SlabFlags,
};

/// `struct kmem_cache_args`.
#[repr(C)]
struct Args {
    align: c_uint,
    useroffset: c_uint,
    usersize: c_uint,
    freeptr_offset: c_uint,
    use_freeptr_offset: bool,
    ctor: Option<Constructor>,
    sheaf_capacity: c_uint,
}

/// # Safety
///
/// The name is null or a string that ends in a zero; the constructor suits objects of that size.
unsafe fn create(
    function: &'static str,
    name: *const c_char,
    size: c_uint,
    args: CacheArgs,
    ctor: Option<Constructor>,
    flags: c_uint,
) -> *mut Cache {
    let flags = SlabFlags::from_bits_retain(flags);
    // SAFETY: the caller's duty is passed on unchanged.
    let name = unsafe { text(name) };
    let made = match &name {
        Some(name) => {
            // SAFETY: the caller's duty is passed on unchanged.
            let made = unsafe { KmemCache::create_with(name, size as usize, args, ctor, flags) };
            made.and_then(|cache| {
                let no_memory = |NoMemory| no_zone(name, size as usize, args.align).into();
                let align = cache.align();
                CACHES.insert_aligned(cache, align).map_err(no_memory)
            })
        }
        None => {
            SYSTEM.misuse(function, format_args!("the name is null"));
            Err(CreateError::NoName)
        }
    };
    match made {
        Ok(handle) => handle,
        Err(error) => {
            let name = name.as_deref().unwrap_or("");
            if flags.contains(SlabFlags::PANIC) {
                SYSTEM.fatal(function, format_args!("SLAB_PANIC: no cache \"{name}\": {error}"));
            }
            SYSTEM.report(function, format_args!("no cache \"{name}\": {error}"));
            ptr::null_mut()
        }
    }
}

/// # Safety
///
/// As [`create`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_create(
    name: *const c_char,
    size: c_uint,
    align: c_uint,
    flags: c_uint,
    ctor: Option<Constructor>,
) -> *mut Cache {
    boundary("kmem_cache_create", || {
        let args = CacheArgs { align: align as usize, ..CacheArgs::default() };
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { create("kmem_cache_create", name, size, args, ctor, flags) }
    })
}

/// # Safety
///
/// As [`create`]; `args` is null or can be read.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_create_args(
    name: *const c_char,
    size: c_uint,
    args: *const Args,
    flags: c_uint,
) -> *mut Cache {
    boundary("kmem_cache_create", || {
        if !args.is_aligned() {
            SYSTEM.misuse("kmem_cache_create", format_args!("the arguments are misaligned"));
            return ptr::null_mut();
        }
        // SAFETY: the caller says so.
        let (args, ctor) = match unsafe { args.as_ref() } {
            Some(args) => (
                CacheArgs {
                    align: args.align as usize,
                    user_offset: args.useroffset as usize,
                    user_size: args.usersize as usize,
                    free_pointer_offset: args
                        .use_freeptr_offset
                        .then_some(args.freeptr_offset as usize),
                    sheaf_capacity: args.sheaf_capacity,
                },
                args.ctor,
            ),
            None => (CacheArgs::default(), None),
        };
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { create("kmem_cache_create", name, size, args, ctor, flags) }
    })
}

/// # Safety
///
/// As [`create`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_create_usercopy(
    name: *const c_char,
    size: c_uint,
    align: c_uint,
    flags: c_uint,
    useroffset: c_uint,
    usersize: c_uint,
    ctor: Option<Constructor>,
) -> *mut Cache {
    boundary("kmem_cache_create_usercopy", || {
        let args = CacheArgs {
            align: align as usize,
            user_offset: useroffset as usize,
            user_size: usersize as usize,
            ..CacheArgs::default()
        };
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { create("kmem_cache_create_usercopy", name, size, args, ctor, flags) }
    })
}

/// Null is nothing. A cache with objects in use stays, and they can still be freed.
///
/// # Safety
///
/// As [`crate::common::Handles::remove`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_destroy(handle: *mut Cache) {
    const NAME: &str = "kmem_cache_destroy";
    boundary(NAME, || {
        if handle.is_null() {
            return;
        }
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(cache) = (unsafe { cache(NAME, handle) }) else { return };
        let used = cache.stats().used();
        if used != 0 {
            let mut some = Sample::default();
            cache.for_each_used(|object| some.add(object));
            SYSTEM.report(
                NAME,
                format_args!("{cache} still has {used} objects in use and stays:{some}"),
            );
            return;
        }
        // SAFETY: the caller uses the cache no more.
        match unsafe { CACHES.remove(handle) } {
            Ok(cache) => drop(cache),
            Err(fault) => bad(NAME, "cache", fault),
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_alloc(handle: *mut Cache, gfp: c_uint) -> *mut c_void {
    if gfp & Gfp::ZERO.bits() == 0 {
        // SAFETY: the caller's duty is passed on unchanged.
        let object = unsafe { CACHES.pop(handle) };
        if !object.is_null() {
            return object;
        }
    }
    // SAFETY: as above.
    unsafe { alloc_slow(handle, gfp) }
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[cold]
#[inline(never)]
unsafe extern "C" fn alloc_slow(handle: *mut Cache, gfp: c_uint) -> *mut c_void {
    const NAME: &str = "kmem_cache_alloc";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(cache) = (unsafe { cache(NAME, handle) }) else { return ptr::null_mut() };
        let object = cache.alloc_slow(Gfp::from_bits_retain(gfp));
        // SAFETY: the handle is live, and the front goes with it.
        unsafe { CACHES.shorten(handle, |front| cache.lend_front(front)) };
        object.cast()
    })
}

/// # Safety
///
/// As [`uma_linux_kmem_cache_alloc`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_zalloc(handle: *mut Cache, gfp: c_uint) -> *mut c_void {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { uma_linux_kmem_cache_alloc(handle, gfp | Gfp::ZERO.bits()) }
}

/// # Safety
///
/// As [`crate::common::Handles::get`]; the object came from the cache, and is used no more.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn uma_linux_kmem_cache_free(handle: *mut Cache, object: *mut c_void) {
    // SAFETY: the caller's duty is passed on unchanged.
    if !unsafe { CACHES.push(handle, object) } {
        // SAFETY: as above; nobody has taken the object.
        unsafe { free_slow(handle, object) }
    }
}

/// # Safety
///
/// As [`uma_linux_kmem_cache_free`].
#[cold]
#[inline(never)]
unsafe extern "C" fn free_slow(handle: *mut Cache, object: *mut c_void) {
    const NAME: &str = "kmem_cache_free";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(cache) = (unsafe { cache(NAME, handle) }) else { return };
        match NonNull::new(object) {
            // SAFETY: the caller's duty is passed on unchanged.
            Some(item) if cache.is_aligned(object) => unsafe { cache.free(item.cast()) },
            // SAFETY: as above.
            _ => unsafe { free_seen(NAME, cache, object) },
        }
    });
}

/// Frees an object after a look at it; reports it if it is none.
///
/// # Safety
///
/// The object is null, misaligned, or one of the cache in use, unless the cache checks every free.
#[cold]
#[inline(never)]
unsafe fn free_seen(function: &'static str, cache: &KmemCache, object: *mut c_void) {
    let Some(item) = NonNull::new(object.cast::<u8>()) else {
        SYSTEM.misuse(function, format_args!("{cache}: the object is null"));
        return;
    };
    if !item.addr().get().is_multiple_of(cache.align()) {
        let (at, align) = (At(object), cache.align());
        SYSTEM.misuse(
            function,
            format_args!("{cache}: {at} is not aligned to {align} bytes, so it is no object of it"),
        );
        return;
    }
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { cache.free(item) };
}

/// All or none: returns `count` or 0.
///
/// # Safety
///
/// As [`uma_linux_kmem_cache_alloc`]; there is room for so many pointers.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_alloc_bulk(
    handle: *mut Cache,
    gfp: c_uint,
    count: usize,
    into: *mut *mut c_void,
) -> c_int {
    const NAME: &str = "kmem_cache_alloc_bulk";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(cache) = (unsafe { cache(NAME, handle) }) else { return 0 };
        let Ok(result) = c_int::try_from(count) else {
            SYSTEM.misuse(NAME, format_args!("{cache}: {count} objects are more than can be told"));
            return 0;
        };
        if count == 0 {
            return 0;
        }
        if let Some(why) = unusable(into) {
            SYSTEM.misuse(NAME, format_args!("{cache}: the array is {why}"));
            return 0;
        }
        // SAFETY: the caller says that there is room; a pointer that is not null is a `NonNull`.
        let into = unsafe {
            core::slice::from_raw_parts_mut(into.cast::<MaybeUninit<NonNull<u8>>>(), count)
        };
        if cache.alloc_bulk(Gfp::from_bits_retain(gfp), into) == count { result } else { 0 }
    })
}

/// # Safety
///
/// As [`uma_linux_kmem_cache_free`], for each.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_free_bulk(
    handle: *mut Cache,
    count: usize,
    objects: *mut *mut c_void,
) {
    const NAME: &str = "kmem_cache_free_bulk";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(cache) = (unsafe { cache(NAME, handle) }) else { return };
        if count == 0 {
            return;
        }
        if let Some(why) = unusable(objects) {
            SYSTEM.misuse(NAME, format_args!("{cache}: the array is {why}"));
            return;
        }
        if !can_be(NAME, format_args!("{cache}: "), count) {
            return;
        }
        // SAFETY: the caller says that there are so many, and so many there can be.
        let objects = unsafe { core::slice::from_raw_parts(objects, count) };
        let plain = |object: &*mut c_void| !object.is_null() && cache.is_aligned(*object);
        if objects.iter().all(plain) {
            // SAFETY: the caller's duty is passed on; none is null, so they are `NonNull`s.
            unsafe { cache.free_bulk(&*(ptr::from_ref(objects) as *const [NonNull<u8>])) };
        } else {
            // SAFETY: as above.
            objects.iter().for_each(|object| unsafe { free_seen(NAME, cache, *object) });
        }
    });
}

/// 0 if nothing is left.
///
/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_shrink(handle: *mut Cache) -> c_int {
    boundary("kmem_cache_shrink", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let cache = unsafe { cache("kmem_cache_shrink", handle) };
        c_int::from(cache.is_some_and(|cache| !cache.shrink()))
    })
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_size(handle: *mut Cache) -> c_uint {
    boundary("kmem_cache_size", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let cache = unsafe { cache("kmem_cache_size", handle) };
        // It came as an unsigned int.
        cache.map_or(0, |cache| cache.size() as c_uint)
    })
}

/// # Safety
///
/// As [`crate::common::Handles::get`]; the name lives as long as the cache.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_name(handle: *mut Cache) -> *const c_char {
    boundary("kmem_cache_name", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let cache = unsafe { cache("kmem_cache_name", handle) };
        cache.map_or(ptr::null(), |cache| cache.name().as_ptr())
    })
}

/// Objects in use.
///
/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_active(handle: *mut Cache) -> u64 {
    boundary("uma_linux_kmem_cache_active", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let cache = unsafe { cache("uma_linux_kmem_cache_active", handle) };
        cache.map_or(0, |cache| cache.stats().used())
    })
}

#[unsafe(no_mangle)]
extern "C" fn uma_linux_set_grace_period(synchronize: Option<GracePeriod>) {
    boundary("uma_linux_set_grace_period", || set_grace_period(synchronize));
}
