//! `vmem_*`.

use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use std::sync::OnceLock;

use uma_vmem::{Constraints, SegmentKind, VmemError, VmemFault};

use super::boundary;
use super::{ARENAS, VmemHandle, arena, bad};
use crate::common::fork::once_made;
use crate::common::memory::{Counted, NoMemory};
use crate::common::text;
use crate::solaris::SYSTEM;
use crate::solaris::vmem::{
    Alloc, AllocMore, Free, Importer, Parent, Vmem, imports_more, no_arena,
};

/// `VMEM_ALLOC` and `VMEM_FREE`.
const ALLOCATED: c_int = 1;
const FREE: c_int = 2;

fn address(at: Option<usize>) -> *mut c_void {
    at.map_or(ptr::null_mut(), ptr::with_exposed_provenance_mut)
}

/// # Safety
///
/// The name is null or a string that ends in a zero; what the parent holds is as C says.
#[allow(clippy::too_many_arguments, reason = "so many has the original")]
unsafe fn create(
    function: &'static str,
    name: *const c_char,
    base: *mut c_void,
    size: usize,
    quantum: usize,
    parent: Parent,
    qcache_max: usize,
    flags: c_int,
) -> *mut VmemHandle {
    // SAFETY: the caller's duty is passed on unchanged.
    let Some(name) = (unsafe { text(name) }) else {
        SYSTEM.misuse(function, format_args!("the arena has no name"));
        return ptr::null_mut();
    };
    let made = Vmem::new(&name, quantum, parent, qcache_max, flags);
    let made = made.and_then(|arena| {
        if !base.is_null() || size != 0 {
            arena.add(base.expose_provenance(), size)?;
        }
        Ok(arena)
    });
    let made = made.and_then(|arena| {
        let handle = Counted::new(arena).and_then(|arena| ARENAS.insert(arena));
        handle.map_err(|NoMemory| no_arena(&name))
    });
    match made {
        Ok(handle) => handle,
        Err(error @ VmemError { fault: VmemFault::Metadata, .. }) => {
            SYSTEM.report(function, format_args!("{error}"));
            ptr::null_mut()
        }
        Err(error) => {
            SYSTEM.misuse(function, format_args!("{error}"));
            ptr::null_mut()
        }
    }
}

/// # Safety
///
/// The name is null or a string that ends in a zero; the functions take the source and what one of them gave,
/// on any thread.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "so many has the original")]
unsafe extern "C" fn uma_solaris_vmem_create(
    name: *const c_char,
    base: *mut c_void,
    size: usize,
    quantum: usize,
    alloc: Option<Alloc>,
    free: Option<Free>,
    source: *mut c_void,
    qcache_max: usize,
    flags: c_int,
) -> *mut VmemHandle {
    const NAME: &str = "vmem_create";
    boundary(NAME, || {
        let parent = match (alloc, free) {
            (Some(alloc), Some(free)) if imports_more(flags) => {
                // SAFETY: the flag says that it is of that type.
                let alloc = unsafe { core::mem::transmute::<Alloc, AllocMore>(alloc) };
                Parent::Functions { alloc: Importer::More(alloc), free, source }
            }
            (Some(alloc), Some(free)) => {
                Parent::Functions { alloc: Importer::Exact(alloc), free, source }
            }
            (None, None) => Parent::None,
            _ => {
                SYSTEM.misuse(
                    NAME,
                    format_args!("one function to import or release without the other"),
                );
                return ptr::null_mut();
            }
        };
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { create(NAME, name, base, size, quantum, parent, qcache_max, flags) }
    })
}

/// # Safety
///
/// As [`uma_solaris_vmem_create`].
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "so many has the original")]
unsafe extern "C" fn uma_solaris_vmem_xcreate(
    name: *const c_char,
    base: *mut c_void,
    size: usize,
    quantum: usize,
    alloc: Option<AllocMore>,
    free: Option<Free>,
    source: *mut c_void,
    qcache_max: usize,
    flags: c_int,
) -> *mut VmemHandle {
    const NAME: &str = "vmem_xcreate";
    boundary(NAME, || {
        let (Some(alloc), Some(free)) = (alloc, free) else {
            SYSTEM.misuse(NAME, format_args!("no function to import or release"));
            return ptr::null_mut();
        };
        let parent = Parent::Functions { alloc: Importer::More(alloc), free, source };
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { create(NAME, name, base, size, quantum, parent, qcache_max, flags) }
    })
}

/// # Safety
///
/// As [`crate::common::Handles::remove`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_vmem_destroy(handle: *mut VmemHandle) {
    const NAME: &str = "vmem_destroy";
    boundary(NAME, || {
        if HEAP.get().is_some_and(|heap| heap.0 == handle) {
            SYSTEM.misuse(NAME, format_args!("the heap cannot end"));
            return;
        }
        // SAFETY: the caller's duty is passed on unchanged.
        match unsafe { ARENAS.remove(handle) } {
            Ok(arena) => match arena.alone() {
                Ok(arena) => arena.into_inner().destroy(),
                Err(arena) => SYSTEM.report(
                    NAME,
                    format_args!("{arena}: caches have memory of it; it stays for them"),
                ),
            },
            Err(fault) => bad(NAME, "arena", fault),
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_vmem_alloc(
    handle: *mut VmemHandle,
    size: usize,
    flags: c_int,
) -> *mut c_void {
    const NAME: &str = "vmem_alloc";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let arena = unsafe { arena(NAME, handle) };
        address(arena.and_then(|arena| arena.alloc(NAME, size, Constraints::new(), flags)))
    })
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "so many has the original")]
unsafe extern "C" fn uma_solaris_vmem_xalloc(
    handle: *mut VmemHandle,
    size: usize,
    align: usize,
    phase: usize,
    nocross: usize,
    min: *mut c_void,
    max: *mut c_void,
    flags: c_int,
) -> *mut c_void {
    const NAME: &str = "vmem_xalloc";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(arena) = (unsafe { arena(NAME, handle) }) else { return ptr::null_mut() };
        // The upper bound is exclusive, and null is none.
        let last = max.addr().wrapping_sub(1);
        let constraints =
            Constraints::new().align(align).phase(phase).nocross(nocross).range(min.addr(), last);
        address(arena.alloc(NAME, size, constraints, flags))
    })
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_vmem_free(handle: *mut VmemHandle, at: *mut c_void, size: usize) {
    const NAME: &str = "vmem_free";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(arena) = unsafe { arena(NAME, handle) } {
            arena.free(NAME, at.addr(), size);
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_vmem_xfree(handle: *mut VmemHandle, at: *mut c_void, size: usize) {
    const NAME: &str = "vmem_xfree";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(arena) = unsafe { arena(NAME, handle) } {
            arena.free(NAME, at.addr(), size);
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_vmem_add(
    handle: *mut VmemHandle,
    base: *mut c_void,
    size: usize,
    _flags: c_int,
) -> *mut c_void {
    const NAME: &str = "vmem_add";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(arena) = (unsafe { arena(NAME, handle) }) else { return ptr::null_mut() };
        if base.is_null() {
            SYSTEM.misuse(NAME, format_args!("{arena}: a span that begins at null"));
            return ptr::null_mut();
        }
        match arena.add(base.expose_provenance(), size) {
            Ok(()) => base,
            Err(error) => {
                SYSTEM.misuse(NAME, format_args!("{error}"));
                ptr::null_mut()
            }
        }
    })
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_vmem_contains(
    handle: *mut VmemHandle,
    at: *mut c_void,
    size: usize,
) -> c_int {
    const NAME: &str = "vmem_contains";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let arena = unsafe { arena(NAME, handle) };
        c_int::from(arena.is_some_and(|arena| arena.contains(at.addr(), size)))
    })
}

/// # Safety
///
/// As [`crate::common::Handles::get`]; the function takes the argument, and an address and a size.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_vmem_walk(
    handle: *mut VmemHandle,
    kinds: c_int,
    visit: Option<unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, usize)>,
    arg: *mut c_void,
) {
    const NAME: &str = "vmem_walk";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let (Some(arena), Some(visit)) = (unsafe { arena(NAME, handle) }, visit) else { return };
        let walked = arena.walk(|segment| {
            let kind = match segment.kind {
                SegmentKind::Allocated => ALLOCATED,
                SegmentKind::Free => FREE,
            };
            if kinds & kind != 0 {
                // SAFETY: the caller says so.
                unsafe { visit(arg, address(Some(segment.addr)), segment.size) };
            }
        });
        if let Err(error) = walked {
            SYSTEM.misuse(NAME, format_args!("{error}"));
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_vmem_size(handle: *mut VmemHandle, kinds: c_int) -> usize {
    const NAME: &str = "vmem_size";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(arena) = (unsafe { arena(NAME, handle) }) else { return 0 };
        let stats = arena.stats();
        let allocated = if kinds & ALLOCATED != 0 { stats.in_use } else { 0 };
        allocated + if kinds & FREE != 0 { stats.free() } else { 0 }
    })
}

/// Nothing is cached in front of arenas.
///
/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_vmem_qcache_reap(handle: *mut VmemHandle) {
    boundary("vmem_qcache_reap", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let _ = unsafe { arena("vmem_qcache_reap", handle) };
    });
}

/// A figure of the arena's kstat.
///
/// # Safety
///
/// As [`crate::common::Handles::get`]; the field is null or a string that ends in a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_solaris_vmem_stat(handle: *mut VmemHandle, field: *const c_char) -> u64 {
    const NAME: &str = "uma_solaris_vmem_stat";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let (arena, field) = unsafe { (arena(NAME, handle), text(field)) };
        let Some(arena) = arena else { return 0 };
        let stats = arena.stats();
        match field.as_deref().unwrap_or("") {
            "mem_inuse" => stats.in_use as u64,
            "mem_import" => stats.imported as u64,
            "mem_total" => stats.size as u64,
            "alloc" => stats.allocs,
            "free" => stats.frees,
            "wait" => stats.waits,
            "fail" => stats.fails,
            "vmem_source" | "lookup" | "search" | "populate_wait" | "populate_fail"
            | "contains" | "contains_search" => 0,
            field => {
                SYSTEM.misuse(NAME, format_args!("{arena}: there is no figure \"{field}\""));
                0
            }
        }
    })
}

struct Whole(*mut VmemHandle);

// SAFETY: handles may be used from any thread.
unsafe impl Send for Whole {}
// SAFETY: as above.
unsafe impl Sync for Whole {}

static HEAP: OnceLock<Whole> = OnceLock::new();

/// The arena of all memory: it takes what it gives from the system, in pages.
#[unsafe(no_mangle)]
extern "C" fn uma_solaris_heap_arena() -> *mut VmemHandle {
    boundary("heap_arena", || {
        let made = once_made(&HEAP, || {
            let arena = Vmem::new("heap", 4096, Parent::Heap, 0, 0).ok()?;
            Some(Whole(ARENAS.insert(Counted::new(arena).ok()?).ok()?))
        });
        made.map_or(ptr::null_mut(), |heap| heap.0)
    })
}
