//! Allocating and freeing.

use core::ffi::{c_int, c_void};
use core::ptr::{self, NonNull};

use super::boundary;
use super::{ZONES, ZoneHandle, zone};
use crate::freebsd::{M, SYSTEM, Zone};

fn or_null(item: Option<NonNull<u8>>) -> *mut c_void {
    item.map_or(ptr::null_mut(), |item| item.as_ptr().cast())
}

fn flags(flags: c_int) -> M {
    M::from_bits_retain(flags as u32)
}

/// What is given back to a zone: nothing for null, and for what cannot be an item of it, which is reported.
#[inline]
fn taken(function: &'static str, zone: &Zone, item: *mut c_void) -> Option<NonNull<u8>> {
    let item = NonNull::new(item.cast())?;
    if zone.is_aligned(item) {
        return Some(item);
    }
    misaligned(function, zone, item);
    None
}

#[cold]
fn misaligned(function: &'static str, zone: &Zone, item: NonNull<u8>) {
    let (name, align) = (zone.name(), zone.stats().align);
    SYSTEM.misuse(
        function,
        format_args!(
            "zone \"{name}\": {item:p} is not aligned to {align} bytes, so it is no item of it"
        ),
    );
}

/// # Safety
///
/// As [`crate::common::Handles::get`]; the argument is what the zone's ctor expects.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zalloc_arg(
    handle: *mut ZoneHandle,
    arg: *mut c_void,
    wait: c_int,
) -> *mut c_void {
    if flags(wait).is_plain() {
        // SAFETY: the caller's duty is passed on unchanged.
        let item = unsafe { ZONES.pop(handle) };
        if !item.is_null() {
            return item;
        }
    }
    // SAFETY: as above.
    unsafe { alloc_slow(handle, arg, wait) }
}

/// # Safety
///
/// As [`uma_freebsd_zalloc_arg`].
#[inline(never)]
unsafe extern "C" fn alloc_slow(
    handle: *mut ZoneHandle,
    arg: *mut c_void,
    wait: c_int,
) -> *mut c_void {
    const NAME: &str = "uma_zalloc_arg";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(zone) = (unsafe { zone(NAME, handle) }) else { return ptr::null_mut() };
        // SAFETY: as above.
        let item = unsafe { zone.alloc_arg(arg, flags(wait)) };
        // SAFETY: the handle is live, and the front goes with it.
        unsafe { ZONES.shorten(handle, |front| zone.lend_front(front)) };
        or_null(item)
    })
}

/// Null is nothing.
///
/// # Safety
///
/// As [`crate::common::Handles::get`]; the item is one of the zone, and used no more; the argument is what the zone's
/// dtor expects.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zfree_arg(
    handle: *mut ZoneHandle,
    item: *mut c_void,
    arg: *mut c_void,
) {
    // SAFETY: the caller's duty is passed on unchanged; a ctor there is none.
    if !unsafe { ZONES.push(handle, item) } {
        // SAFETY: as above; nobody has taken the item.
        unsafe { free_slow(handle, item, arg) };
    }
}

/// # Safety
///
/// As [`uma_freebsd_zfree_arg`].
#[inline(never)]
unsafe extern "C" fn free_slow(handle: *mut ZoneHandle, item: *mut c_void, arg: *mut c_void) {
    const NAME: &str = "uma_zfree_arg";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(zone) = unsafe { zone(NAME, handle) }
            && let Some(item) = taken(NAME, zone, item)
        {
            // SAFETY: as above.
            unsafe { zone.free_arg(item, arg) };
        }
    });
}

/// # Safety
///
/// As [`uma_freebsd_zalloc_arg`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zalloc_domain(
    handle: *mut ZoneHandle,
    arg: *mut c_void,
    domain: c_int,
    wait: c_int,
) -> *mut c_void {
    const NAME: &str = "uma_zalloc_domain";
    boundary(NAME, || {
        if !(-1..=0).contains(&domain) {
            SYSTEM.misuse(NAME, format_args!("there is no domain {domain}, but one, 0"));
        }
        // SAFETY: the caller's duty is passed on unchanged.
        or_null(unsafe { zone(NAME, handle).and_then(|zone| zone.alloc_arg(arg, flags(wait))) })
    })
}

/// # Safety
///
/// As [`uma_freebsd_zalloc_arg`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zalloc_pcpu_arg(
    handle: *mut ZoneHandle,
    arg: *mut c_void,
    wait: c_int,
) -> *mut c_void {
    const NAME: &str = "uma_zalloc_pcpu_arg";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let zone = unsafe { zone(NAME, handle) };
        // SAFETY: as above.
        or_null(zone.and_then(|zone| unsafe { zone.alloc_pcpu_arg(arg, flags(wait)) }))
    })
}

/// The copy of an item for a CPU, or null if there is none.
///
/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_pcpu_copy(
    handle: *mut ZoneHandle,
    item: *mut c_void,
    cpu: c_int,
) -> *mut c_void {
    const NAME: &str = "uma_freebsd_pcpu_copy";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(zone) = (unsafe { zone(NAME, handle) }) else { return ptr::null_mut() };
        let (Some(item), Ok(cpu)) = (NonNull::new(item.cast()), usize::try_from(cpu)) else {
            return ptr::null_mut();
        };
        or_null(zone.pcpu_copy(item, cpu))
    })
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zalloc_smr(handle: *mut ZoneHandle, wait: c_int) -> *mut c_void {
    const NAME: &str = "uma_zalloc_smr";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let zone = unsafe { zone(NAME, handle) };
        or_null(zone.and_then(|zone| zone.alloc_smr(flags(wait))))
    })
}

/// # Safety
///
/// As [`uma_freebsd_zfree_arg`], but for readers.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zfree_smr(handle: *mut ZoneHandle, item: *mut c_void) {
    const NAME: &str = "uma_zfree_smr";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(zone) = unsafe { zone(NAME, handle) }
            && let Some(item) = taken(NAME, zone, item)
        {
            // SAFETY: as above.
            unsafe { zone.free_smr(item) };
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zwait(handle: *mut ZoneHandle) {
    boundary("uma_zwait", || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(zone) = unsafe { zone("uma_zwait", handle) } {
            zone.wait();
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_prealloc(handle: *mut ZoneHandle, items: c_int) {
    const NAME: &str = "uma_prealloc";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(zone) = (unsafe { zone(NAME, handle) }) else { return };
        let Ok(items) = u64::try_from(items) else {
            SYSTEM.misuse(NAME, format_args!("{items} items of zone \"{}\"", zone.name()));
            return;
        };
        if let Err(error) = zone.prealloc(items) {
            SYSTEM.misuse(NAME, format_args!("{items} items: {error}"));
        }
    });
}
