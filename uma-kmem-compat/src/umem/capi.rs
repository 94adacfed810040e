//! The C functions: `umem.h`. Each has two symbols: `uma_umem_alloc`, to which the header binds, and libumem's own
//! `umem_alloc`, so that what was compiled for libumem can be linked.

use core::ffi::{c_char, c_int, c_void};
use core::ptr::{self, NonNull};

use super::{
    Callbacks, Constructor, CreateError, Destructor, Leaked, NofailCallback, ReclaimCallback,
    SYSTEM, Umc, Umem, UmemCache, alloc,
};
use crate::common::memory::{NoMemory, no_zone};
use crate::common::objects::or_null;
use crate::common::{BadHandle, Handle, Handles, text};

/// `umem_cache_t`, as C has it.
type Cache = Handle<UmemCache>;

static CACHES: Handles<UmemCache, { u16::from_le_bytes(*b"uc") }> = Handles::new();

/// [`boundary`](crate::common::boundary) of this face.
#[inline(always)]
fn boundary<R>(function: &'static str, body: impl FnOnce() -> R) -> R {
    crate::common::boundary(Some(&SYSTEM), function, body)
}

/// Something is wrong with a handle that was given to `function`.
#[cold]
fn bad(function: &'static str, fault: BadHandle) {
    SYSTEM.misuse(function, format_args!("bad cache: {fault}"));
}

/// The cache of a handle, or a report.
///
/// # Safety
///
/// As [`Handles::get`].
unsafe fn cache<'a>(function: &'static str, handle: *const Cache) -> Option<&'a UmemCache> {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { CACHES.get(handle) }.map_err(|fault| bad(function, fault)).ok()
}

fn set_errno(number: c_int) {
    // SAFETY: it is this thread's own.
    unsafe { libc::__errno_location().write(number) };
}

/// Memory, or null and an error number.
fn or_errno(size: usize, at: *mut c_void) -> *mut c_void {
    if at.is_null() && size != 0 {
        set_errno(libc::ENOMEM);
    }
    at
}

/// One function under two names.
macro_rules! both {
    ($($own:ident = $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
        /// # Safety
        ///
        /// As the function to which it leads.
        #[unsafe(no_mangle)]
        #[allow(unused_unsafe, reason = "some of them are safe")]
        unsafe extern "C" fn $own($($argument: $type),*) $(-> $result)? {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { $name($($argument),*) }
        }
    )*};
}

both! {
    umem_alloc = uma_umem_alloc(size: usize, flags: c_int) -> *mut c_void;
    umem_zalloc = uma_umem_zalloc(size: usize, flags: c_int) -> *mut c_void;
    umem_free = uma_umem_free(at: *mut c_void, size: usize);
    umem_alloc_align = uma_umem_alloc_align(size: usize, align: usize, flags: c_int) -> *mut c_void;
    umem_free_align = uma_umem_free_align(at: *mut c_void, size: usize);
    umem_alloc_aligned = uma_umem_alloc_align(size: usize, align: usize, flags: c_int) -> *mut c_void;
    umem_free_aligned = uma_umem_free_align(at: *mut c_void, size: usize);
    umem_nofail_callback = uma_umem_nofail_callback(callback: Option<NofailCallback>);
    umem_reap = uma_umem_reap();
    umem_cache_destroy = uma_umem_cache_destroy(handle: *mut Cache);
    umem_cache_alloc = uma_umem_cache_alloc(handle: *mut Cache, flags: c_int) -> *mut c_void;
    umem_cache_free = uma_umem_cache_free(handle: *mut Cache, object: *mut c_void);
    umem_cache_reap_now = uma_umem_cache_reap_now(handle: *mut Cache);
}

/// # Safety
///
/// As [`uma_umem_cache_create`].
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "so many has the original")]
unsafe extern "C" fn umem_cache_create(
    name: *const c_char,
    size: usize,
    align: usize,
    constructor: Option<Constructor>,
    destructor: Option<Destructor>,
    reclaim: Option<ReclaimCallback>,
    private: *mut c_void,
    source: *mut c_void,
    flags: c_int,
) -> *mut Cache {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe {
        uma_umem_cache_create(
            name,
            size,
            align,
            constructor,
            destructor,
            reclaim,
            private,
            source,
            flags,
        )
    }
}

#[unsafe(no_mangle)]
extern "C" fn uma_umem_alloc(size: usize, flags: c_int) -> *mut c_void {
    boundary("umem_alloc", || or_errno(size, alloc::umem_alloc(size, Umem::of(flags))))
}

#[unsafe(no_mangle)]
extern "C" fn uma_umem_zalloc(size: usize, flags: c_int) -> *mut c_void {
    boundary("umem_zalloc", || or_errno(size, alloc::umem_zalloc(size, Umem::of(flags))))
}

#[unsafe(no_mangle)]
extern "C" fn uma_umem_alloc_align(size: usize, align: usize, flags: c_int) -> *mut c_void {
    boundary("umem_alloc_align", || {
        if align != 0 && !align.is_power_of_two() {
            set_errno(libc::EINVAL);
            return ptr::null_mut();
        }
        or_errno(size, alloc::umem_alloc_align(size, align, Umem::of(flags)))
    })
}

/// # Safety
///
/// As [`alloc::umem_free`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_umem_free(at: *mut c_void, size: usize) {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("umem_free", || unsafe { alloc::umem_free(at, size) });
}

/// # Safety
///
/// As [`alloc::umem_free`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_umem_free_align(at: *mut c_void, size: usize) {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("umem_free_align", || unsafe { alloc::umem_free_align(at, size) });
}

/// # Safety
///
/// The function may be called on any thread.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_umem_nofail_callback(callback: Option<NofailCallback>) {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("umem_nofail_callback", || unsafe { super::umem_nofail_callback(callback) });
}

#[unsafe(no_mangle)]
extern "C" fn uma_umem_reap() {
    boundary("umem_reap", super::umem_reap);
}

/// Pieces of memory of `umem_alloc` in use.
#[unsafe(no_mangle)]
extern "C" fn uma_umem_alloc_active() -> u64 {
    boundary("uma_umem_alloc_active", alloc::used)
}

/// # Safety
///
/// The name is null or a string that ends in a zero; the callbacks suit objects of that size.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "so many has the original")]
unsafe extern "C" fn uma_umem_cache_create(
    name: *const c_char,
    size: usize,
    align: usize,
    constructor: Option<Constructor>,
    destructor: Option<Destructor>,
    reclaim: Option<ReclaimCallback>,
    private: *mut c_void,
    source: *mut c_void,
    flags: c_int,
) -> *mut Cache {
    const NAME: &str = "umem_cache_create";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let name = unsafe { text(name) };
        let callbacks = Callbacks { constructor, destructor, reclaim, private };
        let made = match &name {
            None => Err(CreateError::NoName),
            Some(_) if !source.is_null() => Err(CreateError::Source),
            // SAFETY: the caller vouches for the callbacks.
            Some(name) => unsafe {
                UmemCache::create_with(name, size, align, callbacks, Umc::of(flags))
            },
        };
        let made = made.and_then(|cache| {
            let no_memory = |NoMemory| no_zone(name.as_deref().unwrap_or(""), size, align).into();
            let align = cache.align();
            CACHES.insert_aligned(cache, align).map_err(no_memory)
        });
        match made {
            Ok(handle) => handle,
            Err(error) => {
                set_errno(error.errno());
                ptr::null_mut()
            }
        }
    })
}

/// # Safety
///
/// As [`Handles::remove`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_umem_cache_destroy(handle: *mut Cache) {
    const NAME: &str = "umem_cache_destroy";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on; nobody else uses the cache.
        match unsafe { CACHES.remove(handle) } {
            Ok(cache) => {
                if let Err(Leaked { cache: Some(cache), .. }) = cache.destroy() {
                    let align = cache.align();
                    // SAFETY: `insert_aligned` returned the handle, and nobody else uses it.
                    unsafe { CACHES.restore(handle, cache, align) };
                }
            }
            Err(fault) => bad(NAME, fault),
        }
    });
}

/// # Safety
///
/// As [`Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_umem_cache_alloc(handle: *mut Cache, flags: c_int) -> *mut c_void {
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
/// As [`Handles::get`].
#[cold]
#[inline(never)]
unsafe extern "C" fn alloc_slow(handle: *mut Cache, flags: c_int) -> *mut c_void {
    const NAME: &str = "umem_cache_alloc";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(cache) = (unsafe { cache(NAME, handle) }) else { return ptr::null_mut() };
        let object = cache.alloc_slow(Umem::of(flags));
        // SAFETY: the handle is live, and the front goes with it.
        unsafe { CACHES.shorten(handle, |front| cache.lend_front(front)) };
        or_errno(1, or_null(object.ok_or(())).cast())
    })
}

/// # Safety
///
/// As [`Handles::get`]; the object came from the cache, and is used no more.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_umem_cache_free(handle: *mut Cache, object: *mut c_void) {
    // SAFETY: the caller's duty is passed on unchanged.
    if !unsafe { CACHES.push(handle, object) } {
        // SAFETY: as above; nobody has taken the object.
        unsafe { free_slow(handle, object) }
    }
}

/// # Safety
///
/// As [`uma_umem_cache_free`].
#[cold]
#[inline(never)]
unsafe extern "C" fn free_slow(handle: *mut Cache, object: *mut c_void) {
    const NAME: &str = "umem_cache_free";
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
/// As [`Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_umem_cache_reap_now(handle: *mut Cache) {
    boundary("umem_cache_reap_now", || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(cache) = unsafe { cache("umem_cache_reap_now", handle) } {
            cache.reap_now();
        }
    });
}

/// Objects of a cache in use.
///
/// # Safety
///
/// As [`Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_umem_cache_active(handle: *mut Cache) -> u64 {
    boundary("uma_umem_cache_active", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let cache = unsafe { cache("uma_umem_cache_active", handle) };
        cache.map_or(0, |cache| cache.stats().used())
    })
}
