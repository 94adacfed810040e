//! Prefilled sheaves.

use core::ffi::{c_int, c_uint, c_void};
use core::ptr::{self, NonNull};

use super::boundary;
use super::{Cache, NO_MEMORY, bad};
use crate::common::{Handle, Handles, unusable};
use crate::linux::{Gfp, KmemCache, SYSTEM, Sheaf};

/// `struct slab_sheaf`. The caller sees to it that the cache outlives it: it has objects of the cache in use,
/// with which no cache is destroyed.
type CSheaf = Handle<Held>;

struct Held {
    sheaf: crate::sync::UnsafeCell<Sheaf<'static>>,
}

// SAFETY: a sheaf has one user at a time, as in Linux; its functions say so.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

static SHEAVES: Handles<Held, { u16::from_le_bytes(*b"ls") }> = Handles::new();

/// The sheaf of a handle and the cache of another, if they belong together, or a report.
///
/// # Safety
///
/// As [`Handles::get`], for both; nobody else uses the sheaf.
unsafe fn both<'a>(
    function: &'static str,
    handle: *mut Cache,
    sheaf: *mut CSheaf,
) -> Option<(&'a KmemCache, &'a mut Sheaf<'static>)> {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe {
        let cache = super::cache(function, handle)?;
        let held = SHEAVES.get(sheaf).map_err(|fault| bad(function, "sheaf", fault)).ok()?;
        let sheaf = &mut *held.sheaf.get();
        if !ptr::eq(sheaf.cache(), cache) {
            SYSTEM.misuse(function, format_args!("{cache}: the sheaf is one of another cache"));
            return None;
        }
        Some((cache, sheaf))
    }
}

/// # Safety
///
/// As [`Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_prefill_sheaf(
    handle: *mut Cache,
    gfp: c_uint,
    count: c_uint,
) -> *mut CSheaf {
    const NAME: &str = "kmem_cache_prefill_sheaf";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on; a cache stays where it is until it is destroyed, which it
        // is not while the sheaf has an object.
        let cache: Option<&'static KmemCache> = unsafe { super::cache(NAME, handle) };
        let sheaf =
            cache.and_then(|cache| cache.prefill_sheaf(Gfp::from_bits_retain(gfp), count as usize));
        // A sheaf without a handle gives its objects back.
        let handle = sheaf.map(|sheaf| SHEAVES.insert(Held { sheaf: sheaf.into() }));
        handle.and_then(Result::ok).unwrap_or_default()
    })
}

/// # Safety
///
/// As [`Handles::get`]; nobody else uses the sheaf.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_alloc_from_sheaf(
    handle: *mut Cache,
    gfp: c_uint,
    sheaf: *mut CSheaf,
) -> *mut c_void {
    boundary("kmem_cache_alloc_from_sheaf", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let both = unsafe { both("kmem_cache_alloc_from_sheaf", handle, sheaf) };
        let object = both.and_then(|(_, sheaf)| sheaf.alloc(Gfp::from_bits_retain(gfp)));
        object.map_or(ptr::null_mut(), NonNull::as_ptr).cast()
    })
}

/// 0, or `-ENOMEM`.
///
/// # Safety
///
/// As [`Handles::get`]; `sheaf` leads to a sheaf that nobody else uses.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_refill_sheaf(
    handle: *mut Cache,
    gfp: c_uint,
    sheaf: *mut *mut CSheaf,
    count: c_uint,
) -> c_int {
    const NAME: &str = "kmem_cache_refill_sheaf";
    boundary(NAME, || {
        if let Some(why) = unusable(sheaf) {
            SYSTEM.misuse(NAME, format_args!("the pointer to the sheaf is {why}"));
            return NO_MEMORY;
        }
        // SAFETY: the caller's duty is passed on unchanged.
        let both = unsafe { both(NAME, handle, *sheaf) };
        let refill =
            |sheaf: &mut Sheaf<'_>| sheaf.refill(Gfp::from_bits_retain(gfp), count as usize);
        if both.is_some_and(|(_, sheaf)| refill(sheaf)) { 0 } else { NO_MEMORY }
    })
}

/// # Safety
///
/// As [`Handles::get`]; nobody uses the sheaf, now or later.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_return_sheaf(
    handle: *mut Cache,
    _gfp: c_uint,
    sheaf: *mut CSheaf,
) {
    const NAME: &str = "kmem_cache_return_sheaf";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        if unsafe { both(NAME, handle, sheaf) }.is_none() {
            return;
        }
        // SAFETY: as above.
        match unsafe { SHEAVES.remove(sheaf) } {
            Ok(sheaf) => drop(sheaf),
            Err(fault) => bad(NAME, "sheaf", fault),
        }
    });
}

/// # Safety
///
/// As [`Handles::get`]; nobody else uses the sheaf.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_linux_kmem_cache_sheaf_size(sheaf: *mut CSheaf) -> c_uint {
    boundary("kmem_cache_sheaf_size", || {
        // SAFETY: the caller's duty is passed on unchanged.
        match unsafe { SHEAVES.get(sheaf) } {
            // SAFETY: as above. It was filled to a number that is an unsigned int.
            Ok(held) => unsafe { (*held.sheaf.get()).size() as c_uint },
            Err(fault) => {
                bad("kmem_cache_sheaf_size", "sheaf", fault);
                0
            }
        }
    })
}
