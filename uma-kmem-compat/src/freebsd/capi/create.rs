//! Making and ending zones.

use core::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use core::ptr::{self, NonNull};
use std::sync::OnceLock;

use uma::core::{ConfigFault, Deadline, Reclaim};

use super::boundary;
use super::{OwnSmr, SMRS, ZONES, ZoneHandle, bad, zone};
use crate::common::fork::once_made;
use crate::common::memory::{Counted, NoMemory, no_zone};
use crate::common::text;
use crate::freebsd::{
    Callbacks, Callbacks2002, CreateError, Ctor, Ctor2002, Dtor, Fini, Import, Init, Init2002, M,
    Release, SYSTEM, ZDESTROY_2002, Zone, ZoneFlags, ZoneFlags2002, startup, startup2,
};
use crate::sync::Ordering;

/// `EWOULDBLOCK` of Linux, and of FreeBSD.
const WOULD_BLOCK: c_int = if cfg!(target_os = "linux") { 11 } else { 35 };
/// `UMA_SLAB_SIZE`.
const SLAB_SIZE: usize = 4096;

/// Makes a handle of a zone, and of its SMR; or reports.
fn insert(
    function: &'static str,
    name: *const c_char,
    make: impl FnOnce(&str) -> Result<Zone, CreateError>,
) -> *mut ZoneHandle {
    // SAFETY: a name is null or a string, as every caller says.
    let Some(name) = (unsafe { text(name) }) else {
        SYSTEM.misuse(function, format_args!("the name is null"));
        return ptr::null_mut();
    };
    let made = make(&name).and_then(|zone| {
        let stats = zone.stats();
        handles(zone).map_err(|NoMemory| no_zone(&name, stats.size, stats.align).into())
    });
    match made {
        Ok(handle) => {
            // SAFETY: it was made just now, and nobody else knows it.
            if let Ok(zone) = unsafe { ZONES.get(handle) } {
                zone.shared().handle.store(handle.cast(), Ordering::Release);
            }
            handle
        }
        Err(CreateError::Config(error)) if error.fault == ConfigFault::NoMemory => {
            // Not the caller's fault.
            SYSTEM.report(function, format_args!("no zone \"{name}\": {error}"));
            ptr::null_mut()
        }
        Err(error) => {
            SYSTEM.misuse(function, format_args!("no zone \"{name}\": {error}"));
            ptr::null_mut()
        }
    }
}

/// The handles of a zone, and of the SMR that it made, if any. Without memory the zone ends.
fn handles(zone: Zone) -> Result<*mut ZoneHandle, NoMemory> {
    let shared = zone.shared();
    if shared.smr.load(Ordering::Relaxed).is_null()
        && let Some(smr) = zone.smr()
    {
        let smr = SMRS.insert(smr.clone())?;
        // Without memory the handle ends here, too.
        let own = Counted::new(OwnSmr(smr))?;
        shared.smr.store(smr.cast(), Ordering::Release);
        // There is none yet.
        let _ = shared.own_smr.set(own);
    }
    let align = zone.mask() + 1;
    ZONES.insert_aligned(zone, align)
}

/// An alignment mask: -1 was that of cache lines.
fn mask(align: c_int) -> usize {
    // As an unsigned number, so that every other negative one is refused.
    align as u32 as usize
}

/// # Safety
///
/// The name is null or a string that ends in a zero; the callbacks suit items of that size, on any thread.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zcreate(
    name: *const c_char,
    size: usize,
    ctor: Option<Ctor>,
    dtor: Option<Dtor>,
    init: Option<Init>,
    fini: Option<Fini>,
    align: c_int,
    flags: u32,
) -> *mut ZoneHandle {
    boundary("uma_zcreate", || {
        insert("uma_zcreate", name, |name| {
            let callbacks = Callbacks { ctor, dtor, init, fini };
            let flags = ZoneFlags::from_bits_retain(flags);
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { Zone::create_with(name, size, callbacks, mask(align), flags) }
        })
    })
}

/// # Safety
///
/// As [`uma_freebsd_zcreate`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_2002_zcreate(
    name: *const c_char,
    size: c_int,
    ctor: Option<Ctor2002>,
    dtor: Option<Dtor>,
    init: Option<Init2002>,
    fini: Option<Fini>,
    align: c_int,
    flags: u16,
) -> *mut ZoneHandle {
    boundary("uma_zcreate", || {
        insert("uma_zcreate", name, |name| {
            let callbacks = Callbacks2002 { ctor, dtor, init, fini };
            let flags = ZoneFlags2002::from_bits_retain(u32::from(flags));
            // A size below 0 is none.
            let size = usize::try_from(size).unwrap_or(0);
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { Zone::create_2002(name, size, callbacks, mask(align), flags) }
        })
    })
}

/// # Safety
///
/// As [`uma_freebsd_zcreate`], and the primary zone as in [`Handles::get`](crate::common::Handles::get).
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zsecond_create(
    name: *const c_char,
    ctor: Option<Ctor>,
    dtor: Option<Dtor>,
    zinit: Option<Init>,
    zfini: Option<Fini>,
    primary: *mut ZoneHandle,
) -> *mut ZoneHandle {
    const NAME: &str = "uma_zsecond_create";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(primary) = (unsafe { zone(NAME, primary) }) else { return ptr::null_mut() };
        insert(NAME, name, |name| {
            let callbacks = Callbacks { ctor, dtor, init: zinit, fini: zfini };
            // SAFETY: as above.
            let zone = unsafe { primary.second_create(name, callbacks) }?;
            let smr = primary.shared().smr.load(Ordering::Acquire);
            zone.shared().smr.store(smr, Ordering::Release);
            if let Some(own) = primary.shared().own_smr.get() {
                // There is none yet.
                let _ = zone.shared().own_smr.set(own.clone());
            }
            Ok(zone)
        })
    })
}

/// # Safety
///
/// As [`Zone::cache_create`]; the name is null or a string that ends in a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zcache_create(
    name: *const c_char,
    size: c_int,
    ctor: Option<Ctor>,
    dtor: Option<Dtor>,
    zinit: Option<Init>,
    zfini: Option<Fini>,
    import: Option<Import>,
    release: Option<Release>,
    arg: *mut c_void,
    flags: c_int,
) -> *mut ZoneHandle {
    const NAME: &str = "uma_zcache_create";
    boundary(NAME, || {
        let (Some(import), Some(release)) = (import, release) else {
            SYSTEM.misuse(NAME, format_args!("import or release is null"));
            return ptr::null_mut();
        };
        insert(NAME, name, |name| {
            let callbacks = Callbacks { ctor, dtor, init: zinit, fini: zfini };
            // A size of -1 says that there is none to speak of.
            let size = usize::try_from(size).unwrap_or(0);
            let flags = ZoneFlags::from_bits_retain(flags as u32);
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { Zone::cache_create(name, size, callbacks, (import, release), arg, flags) }
        })
    })
}

/// # Safety
///
/// As [`crate::common::Handles::remove`].
unsafe fn destroy(function: &'static str, handle: *mut ZoneHandle) {
    // While callbacks can still use the zone.
    // SAFETY: the caller's duty is passed on unchanged.
    if let Ok(zone) = unsafe { ZONES.get(handle) } {
        zone.reclaim(Reclaim::DrainCpu);
        // Readers leave by its handle, which may go with the zone.
        if zone.shared().own_smr.get().is_some()
            && let Some(smr) = zone.smr()
        {
            smr.synchronize();
        }
    }
    // SAFETY: the caller's duty is passed on unchanged.
    match unsafe { ZONES.remove(handle) } {
        Ok(zone) => zone.destroy(),
        Err(fault) => bad(function, "zone", fault),
    }
}

/// # Safety
///
/// As [`crate::common::Handles::remove`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zdestroy(handle: *mut ZoneHandle) {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("uma_zdestroy", || unsafe { destroy("uma_zdestroy", handle) });
}

/// 0, or `EWOULDBLOCK` if items are in use and it may not wait.
///
/// # Safety
///
/// As [`crate::common::Handles::remove`], if it returns 0.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_2002_zdestroy(handle: *mut ZoneHandle, wait: c_int) -> c_int {
    const NAME: &str = "uma_zdestroy";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(zone) = (unsafe { zone(NAME, handle) }) else { return WOULD_BLOCK };
        if ZDESTROY_2002.get() == "header" {
            let flags = M::from_bits_retain(wait as u32);
            let until = if flags.contains(M::NOWAIT) { Deadline::at(0) } else { Deadline::NEVER };
            if !zone.wait_unused(until) {
                return WOULD_BLOCK;
            }
        }
        // SAFETY: as above.
        unsafe { destroy(NAME, handle) };
        0
    })
}

/// # Safety
///
/// As [`startup`], for so many pages of 4096 bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_startup(memory: *mut c_void, pages: c_int) {
    const NAME: &str = "uma_startup";
    boundary(NAME, || {
        let bytes = usize::try_from(pages).unwrap_or(0).saturating_mul(SLAB_SIZE);
        let Some(memory) = NonNull::new(memory.cast::<u8>()) else {
            SYSTEM.misuse(NAME, format_args!("the boot memory is null"));
            return;
        };
        // SAFETY: the caller's duty is passed on unchanged.
        if !unsafe { startup(memory, bytes) } {
            SYSTEM.misuse(NAME, format_args!("there was boot memory before"));
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn uma_freebsd_startup2() {
    boundary("uma_startup2", startup2);
}

/// `UMA_RECLAIM_*`.
pub(super) fn mode(function: &'static str, request: c_int) -> Option<Reclaim> {
    match request {
        1 => Some(Reclaim::Drain),
        2 => Some(Reclaim::DrainCpu),
        3 => Some(Reclaim::Trim),
        other => {
            SYSTEM.misuse(function, format_args!("there is no way {other} to reclaim"));
            None
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn uma_freebsd_reclaim(request: c_int) {
    boundary("uma_reclaim", || {
        if let Some(mode) = mode("uma_reclaim", request) {
            crate::freebsd::reclaim(mode);
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn uma_freebsd_reclaim_wakeup() {
    boundary("uma_reclaim_wakeup", crate::freebsd::deferred::wake_worker);
}

#[unsafe(no_mangle)]
extern "C" fn uma_freebsd_reclaim_worker() -> ! {
    boundary("uma_reclaim_worker", || {
        crate::freebsd::deferred::worker(|| crate::freebsd::reclaim(Reclaim::DrainCpu))
    })
}

/// The ready-made zone of items of so many bytes for each CPU.
#[unsafe(no_mangle)]
extern "C" fn uma_freebsd_pcpu_zone(size: c_uint) -> *mut ZoneHandle {
    /// A handle, which may be shared.
    struct Made(*mut ZoneHandle);
    // SAFETY: handles are used from any thread.
    unsafe impl Send for Made {}
    // SAFETY: as above.
    unsafe impl Sync for Made {}

    static MADE: [OnceLock<Made>; 5] = [const { OnceLock::new() }; 5];
    boundary("pcpu_zone", || {
        let at = match size {
            4 | 8 | 16 | 32 | 64 => size.ilog2() as usize - 2,
            _ => {
                SYSTEM.misuse("pcpu_zone", format_args!("there is none of {size} bytes"));
                return ptr::null_mut();
            }
        };
        const NAMES: [&CStr; 5] = [c"pcpu-4", c"pcpu-8", c"pcpu-16", c"pcpu-32", c"pcpu-64"];
        let made = once_made(&MADE[at], || {
            let handle = insert("pcpu_zone", NAMES[at].as_ptr(), |name| {
                Zone::create(name, size as usize, size as usize - 1, ZoneFlags::PCPU)
            });
            (!handle.is_null()).then_some(Made(handle))
        });
        made.map_or(ptr::null_mut(), |made| made.0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn uma_freebsd_limit() -> c_ulong {
    boundary("uma_limit", || crate::freebsd::kmem_limit() as c_ulong)
}

#[unsafe(no_mangle)]
extern "C" fn uma_freebsd_set_limit(bytes: c_ulong) {
    boundary("uma_set_limit", || {
        crate::freebsd::set_kmem_limit(usize::try_from(bytes).unwrap_or(usize::MAX));
    });
}

#[unsafe(no_mangle)]
extern "C" fn uma_freebsd_size() -> usize {
    boundary("uma_size", crate::freebsd::kmem_total)
}

/// Below 0 if the limit was passed.
#[unsafe(no_mangle)]
extern "C" fn uma_freebsd_avail() -> core::ffi::c_long {
    boundary("uma_avail", || {
        let most = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        let left = most(crate::freebsd::kmem_limit()) - most(crate::freebsd::kmem_total());
        left as core::ffi::c_long
    })
}

#[unsafe(no_mangle)]
extern "C" fn uma_freebsd_get_cache_align_mask() -> c_uint {
    // It came as one, or is 63.
    boundary("uma_get_cache_align_mask", || crate::freebsd::cache_align_mask() as c_uint)
}

#[unsafe(no_mangle)]
extern "C" fn uma_freebsd_set_cache_align_mask(mask: c_uint) {
    const NAME: &str = "uma_set_cache_align_mask";
    boundary(NAME, || {
        if let Err(fault) = crate::freebsd::set_cache_align_mask(mask as usize) {
            SYSTEM.misuse(NAME, format_args!("mask {mask:#x}: {fault}"));
        }
    });
}
