//! `uvm_km_*`, over the maps of `uma-backend-mmap`.
//!
//! A `struct vm_map` is one word, which leads to the map; that of a map of ours, or of a submap without memory of the
//! program's, lies in the handle itself.

use core::ffi::{c_char, c_int, c_uint};
use core::num::NonZeroUsize;
use core::ptr::{self, NonNull};
use std::sync::OnceLock;

use uma::HostLock;
use uma::core::Process;
use uma_backend_mmap::map::{KmFlags, Map, MapConfig, MapError, MapFault, MapFlags};

use super::bad;
use super::boundary;
use crate::common::fork::{Forks, Listed, once_made};
use crate::common::memory::NoMemory;
use crate::common::{BadHandle, Handle, Handles, text, unusable};
use crate::netbsd::SYSTEM;

/// `struct vm_map`.
#[repr(C)]
struct CMap {
    handle: *mut Handle<BoundMap>,
}

/// A map that C has.
#[repr(C)]
struct BoundMap {
    map: Listed<Map<HostLock>>,
    own: CMap,
}

// SAFETY: the pointer is only compared and handed out.
unsafe impl Send for BoundMap {}
// SAFETY: as above.
unsafe impl Sync for BoundMap {}

static MAPS: Handles<BoundMap, { u16::from_le_bytes(*b"nm") }> = Handles::new();

/// `EFAULT`.
const FAULT: c_int = 14;

/// `UVM_KMF_*` of C, and what they are. The types, `CANFAIL` and `ZERO` are the same.
const SAME: c_uint = 0x1f;
const EXEC: c_uint = 0x20;
const OTHERS: [(c_uint, KmFlags); 4] = [
    (0x0020_0000, KmFlags::TRYLOCK),
    (0x0040_0000, KmFlags::NOWAIT),
    (0x0080_0000, KmFlags::WAITVA),
    (0x0200_0000, KmFlags::COLORMATCH),
];
const _: () = assert!(KmFlags::ZERO.bits() == 0x10 && KmFlags::CANFAIL.bits() == 8);

/// Bytes of the map of the kernel: tried one after the other.
const KERNEL: [usize; 3] = [1 << 36, 1 << 32, 1 << 28];

fn flags_of(flags: c_uint) -> KmFlags {
    let mut all = KmFlags::from_bits_truncate(flags & SAME);
    for (bit, flag) in OTHERS {
        all.set(flag, flags & bit != 0);
    }
    all
}

fn config(name: &str, flags: c_int) -> MapConfig {
    let mut all = MapFlags::empty();
    all.set(MapFlags::PAGEABLE, flags & 1 != 0);
    all.set(MapFlags::INTRSAFE, flags & 2 != 0);
    all.set(MapFlags::TOPDOWN, flags & 0x40 != 0);
    MapConfig::new(name).flags(all)
}

impl Forks for Map<HostLock> {
    fn prefork(&self) {
        self.prefork();
    }

    unsafe fn postfork(&self, process: Process) {
        // SAFETY: passed on from the caller.
        unsafe { self.postfork(process) }
    }
}

/// The map of a `struct vm_map`, or a report.
///
/// # Safety
///
/// It is null, or can be read, and leads nowhere or to a handle.
unsafe fn map<'a>(function: &'static str, at: *const CMap) -> Option<&'a BoundMap> {
    let fault = if at.is_null() {
        BadHandle::Null
    } else if !at.is_aligned() {
        BadHandle::Misaligned
    } else {
        // SAFETY: the caller's duty is passed on unchanged.
        match unsafe { MAPS.get((*at).handle) } {
            Ok(map) => return Some(map),
            Err(BadHandle::Null) => BadHandle::Destroyed,
            Err(fault) => fault,
        }
    };
    bad(function, "map", fault);
    None
}

/// Lets C have a map, at `at`, or in its handle if that is null.
///
/// # Safety
///
/// It is null, or can be written.
unsafe fn insert(map: Map<HostLock>, at: *mut CMap) -> Result<*mut CMap, NoMemory> {
    let own = CMap { handle: ptr::null_mut() };
    let handle = MAPS.insert(BoundMap { map: Listed::new(map)?, own })?;
    // SAFETY: the handle is new, so nobody else has the map yet; the storage can be written.
    unsafe {
        let at = if at.is_null() { &raw mut (*MAPS.value(handle)).own } else { at };
        (*at).handle = handle;
        Ok(at)
    }
}

/// Whether it is a matter of memory, and not of what was asked.
fn is_shortage(error: &MapError) -> bool {
    use MapFault::{Busy, Exhausted, Metadata, System, TooLarge};
    matches!(error.fault, Exhausted { .. } | Busy | Metadata | System { .. } | TooLarge { .. })
}

/// `kernel_map`: made at the first call. Null if there are no addresses.
#[unsafe(no_mangle)]
extern "C" fn uma_netbsd_kernel_map() -> *mut CMap {
    struct Shared(*mut CMap);
    // SAFETY: what it leads to may be used from any thread.
    unsafe impl Send for Shared {}
    // SAFETY: as above.
    unsafe impl Sync for Shared {}
    static KERNEL_MAP: OnceLock<Shared> = OnceLock::new();
    boundary("kernel_map", || {
        let made = once_made(&KERNEL_MAP, || {
            let new = |size| Map::with_lock(config("kernel", 1), size).ok();
            let map = KERNEL.into_iter().find_map(new)?;
            // SAFETY: null is allowed.
            unsafe { insert(map, ptr::null_mut()) }.map(Shared).ok()
        });
        if made.is_none() {
            SYSTEM.report("kernel_map", format_args!("there is no memory for it"));
        }
        made.map_or(ptr::null_mut(), |map| map.0)
    })
}

/// A map of so many bytes, with `VM_MAP_*` flags. Null if there is none.
///
/// # Safety
///
/// The name is null or a string.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vm_map_create(
    name: *const c_char,
    size: usize,
    flags: c_int,
) -> *mut CMap {
    const NAME: &str = "uma_netbsd_vm_map_create";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let name = unsafe { text(name) };
        match Map::with_lock(config(name.as_deref().unwrap_or(""), flags), size) {
            // SAFETY: null is allowed.
            Ok(map) => unsafe { insert(map, ptr::null_mut()) }.unwrap_or_else(|error| {
                SYSTEM.report(NAME, format_args!("{error}"));
                ptr::null_mut()
            }),
            Err(error) => {
                if !is_shortage(&error) {
                    SYSTEM.misuse(NAME, format_args!("{error}"));
                } else if error.fault == MapFault::Metadata {
                    SYSTEM.report(NAME, format_args!("{error}"));
                }
                ptr::null_mut()
            }
        }
    })
}

/// # Safety
///
/// As [`map`], and nobody uses the map any more.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vm_map_destroy(at: *mut CMap) {
    const NAME: &str = "uma_netbsd_vm_map_destroy";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            let Some(found) = map(NAME, at) else { return };
            let mut left = 0;
            let walked = found.map.walk(|_| left += 1);
            if left != 0 || walked.is_err() {
                let name = found.map.name();
                SYSTEM.misuse(
                    NAME,
                    format_args!("map \"{name}\" has {left} ranges in use; it stays"),
                );
                return;
            }
            let handle = (*at).handle;
            if !ptr::eq(&raw const found.own, at) {
                (*at).handle = ptr::null_mut();
            }
            match MAPS.remove(handle) {
                Ok(map) => drop(map),
                Err(fault) => bad(NAME, "map", fault),
            }
        }
    });
}

/// An address, or 0.
///
/// # Safety
///
/// As [`map`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_uvm_km_alloc(
    at: *mut CMap,
    size: usize,
    align: usize,
    flags: c_uint,
) -> usize {
    const NAME: &str = "uvm_km_alloc";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(found) = (unsafe { map(NAME, at) }) else { return 0 };
        if flags & EXEC != 0 {
            SYSTEM.report(NAME, format_args!("UVM_KMF_EXEC: there is no executable memory"));
            return 0;
        }
        match found.map.alloc(size, align, flags_of(flags)) {
            Ok(memory) => memory.as_ptr().expose_provenance(),
            Err(error) => {
                if !is_shortage(&error) {
                    SYSTEM.misuse(NAME, format_args!("{error}"));
                }
                0
            }
        }
    })
}

/// # Safety
///
/// As [`map`], and nobody uses the range any more.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_uvm_km_free(
    at: *mut CMap,
    address: usize,
    size: usize,
    of_type: c_uint,
) {
    const NAME: &str = "uvm_km_free";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(found) = (unsafe { map(NAME, at) }) else { return };
        let Some(address) = NonZeroUsize::new(address) else {
            SYSTEM.misuse(NAME, format_args!("the address is 0"));
            return;
        };
        let range = NonNull::without_provenance(address);
        // SAFETY: the caller's duty is passed on unchanged.
        if let Err(error) = unsafe { found.map.free(range, size, flags_of(of_type)) } {
            SYSTEM.misuse(NAME, format_args!("{error}"));
        }
    });
}

/// A map out of another.
///
/// # Safety
///
/// As [`map`]; the bounds can be read and written; `into` is null or can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_uvm_km_suballoc(
    at: *mut CMap,
    min: *mut usize,
    max: *mut usize,
    size: usize,
    flags: c_int,
    fixed: bool,
    into: *mut CMap,
) -> *mut CMap {
    const NAME: &str = "uvm_km_suballoc";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(found) = (unsafe { map(NAME, at) }) else { return ptr::null_mut() };
        if let Some(why) = unusable(min).or_else(|| unusable(max)) {
            SYSTEM.misuse(NAME, format_args!("a pointer to a bound is {why}"));
            return ptr::null_mut();
        }
        if !into.is_aligned() {
            SYSTEM.misuse(NAME, format_args!("the map is misaligned"));
            return ptr::null_mut();
        }
        // SAFETY: the caller says that it can be read.
        let place = fixed.then(|| unsafe { min.read() });
        match found.map.suballoc(place, size, config("submap", flags)) {
            // SAFETY: the caller says that all can be written.
            Ok(submap) => unsafe {
                let bounds = (submap.min(), submap.max());
                match insert(submap, into) {
                    Ok(at) => {
                        min.write(bounds.0);
                        max.write(bounds.1);
                        at
                    }
                    Err(error) => {
                        SYSTEM.report(NAME, format_args!("{error}"));
                        ptr::null_mut()
                    }
                }
            },
            Err(error) if error.fault == MapFault::Metadata => {
                SYSTEM.report(NAME, format_args!("{error}"));
                ptr::null_mut()
            }
            Err(error) => {
                SYSTEM.misuse(NAME, format_args!("{error}"));
                ptr::null_mut()
            }
        }
    })
}

/// Whether less than a tenth of the addresses of `kernel_map` is free.
#[unsafe(no_mangle)]
extern "C" fn uma_netbsd_uvm_km_va_starved_p() -> bool {
    // SAFETY: it is null or a map.
    boundary("uvm_km_va_starved_p", || unsafe {
        uma_netbsd_vm_map_starved(uma_netbsd_kernel_map())
    })
}

/// The same of any map.
///
/// # Safety
///
/// As [`map`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vm_map_starved(at: *mut CMap) -> bool {
    const NAME: &str = "uma_netbsd_vm_map_starved";
    // SAFETY: the caller's duty is passed on unchanged.
    boundary(NAME, || unsafe { map(NAME, at) }.is_some_and(|found| found.map.starved()))
}

/// 0, or `EFAULT`.
///
/// # Safety
///
/// As [`map`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_uvm_map_pageable(
    at: *mut CMap,
    start: usize,
    end: usize,
    pageable: bool,
    _lock: c_int,
) -> c_int {
    const NAME: &str = "uvm_map_pageable";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(found) = (unsafe { map(NAME, at) }) else { return FAULT };
        let Some(first) = NonZeroUsize::new(start) else { return FAULT };
        let range = NonNull::without_provenance(first);
        match found.map.set_pageable(range, end.saturating_sub(start), pageable) {
            Ok(()) => 0,
            Err(error) => {
                if !is_shortage(&error) {
                    SYSTEM.misuse(NAME, format_args!("{error}"));
                }
                FAULT
            }
        }
    })
}

/// Puts memory behind a part of a range of addresses, or takes it away. 0, or `EFAULT`.
///
/// # Safety
///
/// As [`map`]; the caller has the range, and uses no memory there that is taken away.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vm_map_back(
    at: *mut CMap,
    range: usize,
    offset: usize,
    length: usize,
    there: bool,
) -> c_int {
    const NAME: &str = "uma_netbsd_vm_map_back";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(found) = (unsafe { map(NAME, at) }) else { return FAULT };
        let Some(first) = NonZeroUsize::new(range) else { return FAULT };
        let range = NonNull::without_provenance(first);
        // SAFETY: as above.
        let result = unsafe {
            if there {
                found.map.enter(range, offset, length).map(|memory| {
                    memory.as_ptr().expose_provenance();
                })
            } else {
                found.map.remove(range, offset, length)
            }
        };
        match result {
            Ok(()) => 0,
            Err(error) => {
                if !is_shortage(&error) {
                    SYSTEM.misuse(NAME, format_args!("{error}"));
                }
                FAULT
            }
        }
    })
}

/// # Safety
///
/// As [`map`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vm_map_min(at: *mut CMap) -> usize {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("vm_map_min", || unsafe { map("vm_map_min", at) }.map_or(0, |found| found.map.min()))
}

/// # Safety
///
/// As [`map`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vm_map_max(at: *mut CMap) -> usize {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("vm_map_max", || unsafe { map("vm_map_max", at) }.map_or(0, |found| found.map.max()))
}
