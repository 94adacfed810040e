//! `vmem_*`.

use core::ffi::{c_char, c_int, c_uint, c_void};
use core::ptr;

use uma_vmem::{Constraints, SegmentKind, VmemError, VmemFault};

use super::boundary;
use super::{NO_MEMORY, bad};
use crate::common::{Handle, Handles, text};
use crate::netbsd::{
    CreateVmem, ImportFn, ReleaseFn, SYSTEM, VmFlags, Vmem, VmemSource, XimportFn,
};

type CVmem = Handle<Vmem>;

static ARENAS: Handles<Vmem, { u16::from_le_bytes(*b"nv") }> = Handles::new();

/// `VMEM_ALLOC` and `VMEM_FREE`.
const ALLOCATED: c_int = 1;
const FREE: c_int = 2;

/// The arena of a handle, or a report.
///
/// # Safety
///
/// As [`Handles::get`].
unsafe fn arena<'a>(function: &'static str, handle: *const CVmem) -> Option<&'a Vmem> {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { ARENAS.get(handle) }.map_err(|fault| bad(function, "arena", fault)).ok()
}

/// # Safety
///
/// The name is null or a string; the functions of the source suit it.
unsafe fn create(function: &'static str, name: *const c_char, args: CreateVmem) -> *mut CVmem {
    // SAFETY: the caller's duty is passed on unchanged.
    let Some(name) = (unsafe { text(name) }) else {
        SYSTEM.misuse(function, format_args!("the name is null"));
        return ptr::null_mut();
    };
    match Vmem::create(&name, args) {
        Ok(arena) => ARENAS.insert(arena).unwrap_or_default(),
        Err(error) if error.fault == VmemFault::Metadata => ptr::null_mut(),
        Err(error) => {
            SYSTEM.misuse(function, format_args!("{error}"));
            ptr::null_mut()
        }
    }
}

/// # Safety
///
/// As [`create`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vmem_create(
    name: *const c_char,
    base: usize,
    size: usize,
    quantum: usize,
    import: Option<ImportFn>,
    release: Option<ReleaseFn>,
    source: *mut c_void,
    _most_cached: usize,
    flags: c_uint,
    _level: c_int,
) -> *mut CVmem {
    boundary("vmem_create", || {
        let source = match import {
            // SAFETY: the caller says that the functions suit the source.
            Some(import) => unsafe { VmemSource::new(import, release, source) },
            None => VmemSource::NONE,
        };
        let flags = VmFlags::from_bits_retain(flags);
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { create("vmem_create", name, CreateVmem { base, size, quantum, source, flags }) }
    })
}

/// # Safety
///
/// As [`create`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vmem_xcreate(
    name: *const c_char,
    base: usize,
    size: usize,
    quantum: usize,
    import: Option<XimportFn>,
    release: Option<ReleaseFn>,
    source: *mut c_void,
    _most_cached: usize,
    flags: c_uint,
    _level: c_int,
) -> *mut CVmem {
    boundary("vmem_xcreate", || {
        let source = match import {
            // SAFETY: the caller says that the functions suit the source.
            Some(import) => unsafe { VmemSource::larger(import, release, source) },
            None => VmemSource::NONE,
        };
        let flags = VmFlags::from_bits_retain(flags);
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { create("vmem_xcreate", name, CreateVmem { base, size, quantum, source, flags }) }
    })
}

/// # Safety
///
/// As [`Handles::remove`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vmem_destroy(handle: *mut CVmem) {
    const NAME: &str = "vmem_destroy";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            let Some(found) = arena(NAME, handle) else { return };
            let stats = found.stats();
            if stats.segments != 0 {
                let (name, segments, size) = (found.name(), stats.segments, stats.in_use);
                SYSTEM.misuse(
                    NAME,
                    format_args!(
                        "arena \"{name}\" has {segments} segments of {size:#x} in all allocated; it stays"
                    ),
                );
                return;
            }
            match ARENAS.remove(handle) {
                Ok(arena) => drop(arena),
                Err(fault) => bad(NAME, "arena", fault),
            }
        }
    });
}

/// Whether exactly one of each pair is said.
fn is_clear(flags: VmFlags) -> bool {
    flags.contains(VmFlags::SLEEP) != flags.contains(VmFlags::NOSLEEP)
        && flags.contains(VmFlags::INSTANTFIT) != flags.contains(VmFlags::BESTFIT)
}

/// 0, or `ENOMEM`; what makes no sense is reported.
fn answer(function: &'static str, result: Result<usize, VmemError>, into: *mut usize) -> c_int {
    match result {
        Ok(at) => {
            if !into.is_null() {
                // SAFETY: the caller of the C function says that it can be written.
                unsafe { into.write(at) };
            }
            0
        }
        Err(error) => {
            use VmemFault::{BadImport, Exhausted, Metadata, Overflow, TimedOut};
            if !matches!(
                error.fault,
                Exhausted { .. } | TimedOut { .. } | Metadata | Overflow(_) | BadImport { .. }
            ) {
                SYSTEM.misuse(function, format_args!("{error}"));
            }
            NO_MEMORY
        }
    }
}

/// # Safety
///
/// As [`Handles::get`]; `into` is null or can be written.
unsafe fn allocate(
    function: &'static str,
    handle: *mut CVmem,
    size: usize,
    constraints: Constraints,
    flags: c_uint,
    into: *mut usize,
) -> c_int {
    // SAFETY: the caller's duty is passed on unchanged.
    let Some(arena) = (unsafe { arena(function, handle) }) else { return NO_MEMORY };
    let bits = VmFlags::from_bits_retain(flags);
    if !is_clear(bits) {
        let name = arena.name();
        SYSTEM.misuse(
            function,
            format_args!(
                "arena \"{name}\": flags {flags:#x}: exactly one of VM_SLEEP and VM_NOSLEEP and one of \
                 VM_INSTANTFIT and VM_BESTFIT are to be said"
            ),
        );
        return NO_MEMORY;
    }
    answer(function, arena.xalloc(size, constraints, bits), into)
}

/// 0, or `ENOMEM`.
///
/// # Safety
///
/// As [`allocate`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vmem_alloc(
    handle: *mut CVmem,
    size: usize,
    flags: c_uint,
    into: *mut usize,
) -> c_int {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("vmem_alloc", || unsafe {
        allocate("vmem_alloc", handle, size, Constraints::new(), flags, into)
    })
}

/// 0, or `ENOMEM`.
///
/// # Safety
///
/// As [`allocate`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vmem_xalloc(
    handle: *mut CVmem,
    size: usize,
    align: usize,
    phase: usize,
    nocross: usize,
    least: usize,
    most: usize,
    flags: c_uint,
    into: *mut usize,
) -> c_int {
    const NAME: &str = "vmem_xalloc";
    boundary(NAME, || {
        let constraints =
            Constraints::new().align(align).phase(phase).nocross(nocross).range(least, most);
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { allocate(NAME, handle, size, constraints, flags, into) }
    })
}

/// # Safety
///
/// As [`Handles::get`].
unsafe fn free(function: &'static str, handle: *mut CVmem, addr: usize, size: usize) {
    // SAFETY: the caller's duty is passed on unchanged.
    if let Some(arena) = unsafe { arena(function, handle) }
        && let Err(error) = arena.free(addr, size)
    {
        SYSTEM.misuse(function, format_args!("{error}"));
    }
}

/// # Safety
///
/// As [`Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vmem_free(handle: *mut CVmem, addr: usize, size: usize) {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("vmem_free", || unsafe { free("vmem_free", handle, addr, size) });
}

/// # Safety
///
/// As [`Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vmem_xfree(handle: *mut CVmem, addr: usize, size: usize) {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("vmem_xfree", || unsafe { free("vmem_xfree", handle, addr, size) });
}

/// 0, or `ENOMEM`.
///
/// # Safety
///
/// As [`Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vmem_add(
    handle: *mut CVmem,
    base: usize,
    size: usize,
    _flags: c_uint,
) -> c_int {
    const NAME: &str = "vmem_add";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(arena) = (unsafe { arena(NAME, handle) }) else { return NO_MEMORY };
        answer(NAME, arena.add(base, size).map(|()| base), ptr::null_mut())
    })
}

/// # Safety
///
/// As [`Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vmem_roundup_size(handle: *mut CVmem, size: usize) -> usize {
    boundary("vmem_roundup_size", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let arena = unsafe { arena("vmem_roundup_size", handle) };
        arena.map_or(size, |arena| arena.roundup_size(size))
    })
}

/// # Safety
///
/// As [`Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vmem_size(handle: *mut CVmem, kinds: c_int) -> usize {
    boundary("vmem_size", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(arena) = (unsafe { arena("vmem_size", handle) }) else { return 0 };
        let stats = arena.stats();
        let mut size = 0;
        if kinds & ALLOCATED != 0 {
            size += stats.in_use;
        }
        if kinds & FREE != 0 {
            size += stats.free();
        }
        size
    })
}

/// Calls a function with every segment of the kinds asked for.
///
/// # Safety
///
/// As [`Handles::get`]; the function takes the argument.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_vmem_walk(
    handle: *mut CVmem,
    kinds: c_int,
    visit: Option<unsafe extern "C-unwind" fn(*mut c_void, usize, usize)>,
    argument: *mut c_void,
) {
    const NAME: &str = "vmem_walk";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let (Some(arena), Some(visit)) = (unsafe { arena(NAME, handle) }, visit) else { return };
        let walked = arena.walk(|segment| {
            let kind = if segment.kind == SegmentKind::Free { FREE } else { ALLOCATED };
            if kinds & kind != 0 {
                // SAFETY: as above.
                unsafe { visit(argument, segment.addr, segment.size) };
            }
        });
        if let Err(error) = walked {
            SYSTEM.report(NAME, format_args!("{error}"));
        }
    });
}
