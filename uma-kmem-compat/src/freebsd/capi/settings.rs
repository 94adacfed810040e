//! What can be set on a zone, and asked of it.

use core::ffi::{c_char, c_int, c_void};
use core::ptr;

use super::super::callbacks::Era;
use super::boundary;
use super::create::mode;
use super::{SmrHandle, ZoneHandle, cold, smr, zone};
use crate::common::{Line, text};
use crate::freebsd::{
    AllocPages, AllocPages2002, Fini, FreePages, FreePages2002, Init, Maxaction, SYSTEM, Zone,
};
use crate::sync::Ordering;

/// Runs `body` on the zone of a handle.
///
/// # Safety
///
/// As [`crate::common::Handles::get`].
unsafe fn with<R>(
    function: &'static str,
    handle: *mut ZoneHandle,
    body: impl FnOnce(&Zone) -> R,
) -> Option<R> {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary(function, || unsafe { zone(function, handle) }.map(body))
}

/// Runs `body` on the zone of a handle if it is cold.
///
/// # Safety
///
/// As [`crate::common::Handles::get`].
unsafe fn with_cold(function: &'static str, handle: *mut ZoneHandle, body: impl FnOnce(&Zone)) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe {
        with(function, handle, |zone| {
            if cold(function, zone) {
                body(zone);
            }
        });
    }
}

/// A number of items, or a report.
fn number(function: &'static str, zone: &Zone, items: c_int) -> Option<u64> {
    let number = u64::try_from(items).ok();
    if number.is_none() {
        SYSTEM.misuse(function, format_args!("{items} items of zone \"{}\"", zone.name()));
    }
    number
}

/// As a C number.
fn int(number: u64) -> c_int {
    c_int::try_from(number).unwrap_or(c_int::MAX)
}

/// # Safety
///
/// As [`with`]; the function suits the zone's items, on any thread.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_set_init(handle: *mut ZoneHandle, init: Option<Init>) {
    // SAFETY: the caller's duty is passed on unchanged; it is a function.
    unsafe {
        with_cold("uma_zone_set_init", handle, |zone| {
            zone.shared().init.set(init.map(Era::Today));
        });
    }
}

/// # Safety
///
/// As [`uma_freebsd_zone_set_init`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_set_fini(handle: *mut ZoneHandle, fini: Option<Fini>) {
    // SAFETY: as above.
    unsafe {
        with_cold("uma_zone_set_fini", handle, |zone| {
            zone.shared().fini.set(fini.map(Era::Today));
        });
    }
}

/// # Safety
///
/// As [`with`]; the function keeps to what [`Zone::set_pages`] says.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_set_allocf(
    handle: *mut ZoneHandle,
    allocf: Option<AllocPages>,
) {
    // SAFETY: as above.
    unsafe {
        with_cold("uma_zone_set_allocf", handle, |zone| {
            zone.shared().allocf.set(allocf.map(Era::Today));
        });
    }
}

/// # Safety
///
/// As [`uma_freebsd_zone_set_allocf`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_set_freef(handle: *mut ZoneHandle, freef: Option<FreePages>) {
    // SAFETY: as above.
    unsafe {
        with_cold("uma_zone_set_freef", handle, |zone| {
            zone.shared().freef.set(freef.map(Era::Today));
        });
    }
}

/// # Safety
///
/// As [`uma_freebsd_zone_set_allocf`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_2002_zone_set_allocf(
    handle: *mut ZoneHandle,
    allocf: Option<AllocPages2002>,
) {
    // SAFETY: as above.
    unsafe {
        with_cold("uma_zone_set_allocf", handle, |zone| {
            zone.shared().allocf.set(allocf.map(Era::Old));
        });
    }
}

/// # Safety
///
/// As [`uma_freebsd_zone_set_allocf`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_2002_zone_set_freef(
    handle: *mut ZoneHandle,
    freef: Option<FreePages2002>,
) {
    // SAFETY: as above.
    unsafe {
        with_cold("uma_zone_set_freef", handle, |zone| {
            zone.shared().freef.set(freef.map(Era::Old));
        });
    }
}

/// 1, or 0 if there is no address space.
///
/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_reserve_kva(handle: *mut ZoneHandle, items: c_int) -> c_int {
    const NAME: &str = "uma_zone_reserve_kva";
    let body = |zone: &Zone| {
        cold(NAME, zone) && number(NAME, zone, items).is_some_and(|items| zone.reserve_kva(items))
    };
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with(NAME, handle, body) }.is_some_and(|done| done).into()
}

/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_reserve(handle: *mut ZoneHandle, items: c_int) {
    const NAME: &str = "uma_zone_reserve";
    let body = |zone: &Zone| {
        if let Some(items) = number(NAME, zone, items)
            && !zone.reserve(items)
        {
            SYSTEM.misuse(NAME, format_args!("zone \"{}\" has no slabs", zone.name()));
        }
    };
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with(NAME, handle, body) };
}

/// The limit.
///
/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_set_max(handle: *mut ZoneHandle, items: c_int) -> c_int {
    const NAME: &str = "uma_zone_set_max";
    let body = |zone: &Zone| {
        if items <= 0 {
            SYSTEM.misuse(
                NAME,
                format_args!(
                    "a limit of {items} items of zone \"{}\" would allow none",
                    zone.name()
                ),
            );
            return zone.max();
        }
        zone.set_max(number(NAME, zone, items).unwrap_or(0))
    };
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with(NAME, handle, body) }.map_or(0, int)
}

/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_get_max(handle: *mut ZoneHandle) -> c_int {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with("uma_zone_get_max", handle, Zone::max) }.map_or(0, int)
}

/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_get_cur(handle: *mut ZoneHandle) -> c_int {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with("uma_zone_get_cur", handle, Zone::cur) }.map_or(0, int)
}

/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_set_maxcache(handle: *mut ZoneHandle, items: c_int) {
    const NAME: &str = "uma_zone_set_maxcache";
    let body = |zone: &Zone| {
        if let Some(items) = number(NAME, zone, items) {
            zone.set_max_cached(items);
        }
    };
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with(NAME, handle, body) };
}

/// # Safety
///
/// As [`with`]; the text is null or a string that ends in a zero. It is copied.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_set_warning(handle: *mut ZoneHandle, said: *const c_char) {
    const NAME: &str = "uma_zone_set_warning";
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe {
        with(NAME, handle, |zone| match text(said) {
            Some(said) if zone.set_warning(&said) => {}
            Some(_) => {
                let name = zone.name();
                SYSTEM.report(NAME, format_args!("zone \"{name}\": no memory for the text"));
            }
            None => SYSTEM.misuse(NAME, format_args!("the text is null")),
        });
    }
}

/// # Safety
///
/// As [`with`]; the function may be called on any thread.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_set_maxaction(
    handle: *mut ZoneHandle,
    action: Option<Maxaction>,
) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with("uma_zone_set_maxaction", handle, |zone| zone.set_maxaction(action)) };
}

/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_exhausted(handle: *mut ZoneHandle) -> c_int {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with("uma_zone_exhausted", handle, Zone::exhausted) }.is_some_and(|is| is).into()
}

/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_memory(handle: *mut ZoneHandle) -> usize {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with("uma_zone_memory", handle, Zone::memory) }.unwrap_or(0)
}

/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_reclaim(handle: *mut ZoneHandle, request: c_int) {
    const NAME: &str = "uma_zone_reclaim";
    let body = |zone: &Zone| {
        if let Some(mode) = mode(NAME, request) {
            zone.reclaim(mode);
        }
    };
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with(NAME, handle, body) };
}

/// # Safety
///
/// As [`with`], for both handles.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_set_smr(handle: *mut ZoneHandle, with_smr: *mut SmrHandle) {
    const NAME: &str = "uma_zone_set_smr";
    let body = |zone: &Zone| {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(shared) = (unsafe { smr(NAME, with_smr) }) else { return };
        if zone.set_smr(shared) {
            zone.shared().smr.store(with_smr.cast(), Ordering::Release);
        } else {
            SYSTEM.misuse(
                NAME,
                format_args!("zone \"{}\" was used already, or has an SMR", zone.name()),
            );
        }
    };
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with(NAME, handle, body) };
}

/// Null if it has none.
///
/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_get_smr(handle: *mut ZoneHandle) -> *mut SmrHandle {
    let body = |zone: &Zone| {
        // Null or one of ours. A stale one is told by the functions of smr(9).
        zone.shared().smr.load(Ordering::Acquire).cast()
    };
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with("uma_zone_get_smr", handle, body) }.unwrap_or(ptr::null_mut())
}

/// The engine's flags by name, into a buffer; returns the length of the text, as snprintf does.
///
/// # Safety
///
/// As [`with`]; there is so much room.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zone_flags(
    handle: *mut ZoneHandle,
    into: *mut c_char,
    room: usize,
) -> c_int {
    let body = |zone: &Zone| {
        let text = Line::of(format_args!("{}", zone.flags()));
        let text = text.as_c_str().to_bytes();
        if !into.is_null() && room != 0 {
            let length = text.len().min(room - 1);
            // SAFETY: the caller says that there is room.
            unsafe {
                into.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), length);
                into.add(length).write(0);
            }
        }
        c_int::try_from(text.len()).unwrap_or(c_int::MAX)
    };
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with("uma_freebsd_zone_flags", handle, body) }.unwrap_or(-1)
}

/// What the opaque argument of `uma_zone_set_obj` is.
type VmObject = c_void;

/// # Safety
///
/// As [`with`]. The object is not looked at.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_2002_zone_set_obj(
    handle: *mut ZoneHandle,
    _object: *mut VmObject,
    items: c_int,
) -> c_int {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { uma_freebsd_zone_reserve_kva(handle, items) }
}
