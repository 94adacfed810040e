//! `kmem`: memory of any size, freed with that size.

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use std::time::Duration;

use uma::Reclaim;
use uma::core::Request;
use uma_malloc::{Malloc, MallocError, MallocFault, MallocStats, SizeClasses};

use super::{DIAGNOSTIC, KmFlags, SYSTEM, WAITOK};
use crate::common::Patience;
use crate::common::fork::{Guard, Lock};
use crate::common::memory::{Table, enter, table};
use crate::sync::{AtomicBool, Ordering};

/// All memory of `kmem`.
static HEAP: Malloc = Malloc::new("kmem", SizeClasses::NETBSD_KMEM);

/// With diagnostics, the sizes that were asked for, by address. A leaf lock.
static SIZES: Lock<Table<usize, usize>> = Lock::new(table());

/// So much is always waited for; more, only if as much could come free.
const MODEST: usize = 1 << 20;

fn sizes() -> Guard<'static, Table<usize, usize>> {
    SIZES.lock()
}

fn diagnostic() -> bool {
    DIAGNOSTIC.get() == "on"
}

/// Memory of `size` bytes, or null (`kmem_alloc`). With [`KmFlags::SLEEP`] it waits for memory as long as it
/// takes, unless `netbsd.waitok` says otherwise or there can never be so much.
///
/// A size of 0 is misuse, and so is not to say exactly one of `SLEEP` and `NOSLEEP`.
#[inline]
pub fn kmem_alloc(size: usize, flags: KmFlags) -> *mut c_void {
    alloc("kmem_alloc", size, flags, Request::NOWAIT)
}

/// The same, of zeros (`kmem_zalloc`).
#[inline]
pub fn kmem_zalloc(size: usize, flags: KmFlags) -> *mut c_void {
    alloc("kmem_zalloc", size, flags, Request::NOWAIT.zeroed())
}

pub(super) fn alloc(
    function: &'static str,
    size: usize,
    flags: KmFlags,
    request: Request,
) -> *mut c_void {
    let sleeps = flags.contains(KmFlags::SLEEP);
    if size == 0 || sleeps == flags.contains(KmFlags::NOSLEEP) {
        return refuse(function, size, flags);
    }
    loop {
        let got = match HEAP.alloc(size, request) {
            Ok(at) => Some(at),
            Err(error) if sleeps => insist(size, request, error),
            Err(_) => None,
        };
        let Some(at) = got else { return ptr::null_mut() };
        if !diagnostic() || enter(&mut sizes(), at.addr().get(), size).is_ok() {
            return at.as_ptr().cast();
        }
        // Nobody has it yet. A caller who sleeps tries again, as for the memory itself.
        // SAFETY: it came just now.
        let _ = unsafe { HEAP.try_free(at) };
        if !sleeps || WAITOK.get() == "fail" {
            return ptr::null_mut();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cold]
fn refuse(function: &'static str, size: usize, flags: KmFlags) -> *mut c_void {
    if size == 0 {
        SYSTEM.misuse(function, format_args!("a size of 0"));
    } else {
        let flags = flags.bits();
        SYSTEM.misuse(
            function,
            format_args!("flags {flags:#x}: exactly one of KM_SLEEP and KM_NOSLEEP is to be said"),
        );
    }
    ptr::null_mut()
}

/// Waits for memory.
#[cold]
fn insist(size: usize, request: Request, first: MallocError) -> Option<NonNull<u8>> {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let mut error = first;
    let mut drained = false;
    let mut patience = Patience::new();
    loop {
        let MallocFault::Alloc(reason) = error.fault else { return None };
        if !reason.is_shortage() {
            return None;
        }
        if !drained {
            uma::reclaim(Reclaim::DrainCpu);
            drained = true;
        } else {
            let hopeless = size > MODEST && size as u64 > HEAP.stats().bytes;
            if hopeless || WAITOK.get() == "fail" {
                return None;
            }
            if !TOLD.swap(true, Ordering::Relaxed) {
                SYSTEM.report("KM_SLEEP", format_args!("no memory for {size} bytes; waiting"));
            }
            if patience.wait() {
                uma::reclaim(Reclaim::DrainCpu);
            }
        }
        match HEAP.alloc(size, request) {
            Ok(at) => return Some(at),
            Err(other) => error = other,
        }
    }
}

/// Frees memory, with the size that was asked for (`kmem_free`). What is no memory of `kmem` in use, or of another
/// size class, is misuse, and nothing is done to it; with `netbsd.diagnostic` any other size is.
///
/// # Safety
///
/// If it is memory of [`kmem_alloc`] in use, it is used no more.
#[inline]
pub unsafe fn kmem_free(at: *mut c_void, size: usize) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { free("kmem_free", at, size) }
}

/// [`kmem_free`], as which function of C.
///
/// # Safety
///
/// As [`kmem_free`].
pub(super) unsafe fn free(function: &'static str, at: *mut c_void, size: usize) {
    let Some(item) = NonNull::new(at.cast::<u8>()) else {
        SYSTEM.misuse(function, format_args!("the pointer is null"));
        return;
    };
    if size == 0 {
        SYSTEM.misuse(function, format_args!("a size of 0 for {:#x}", at.addr()));
        return;
    }
    if diagnostic() {
        let known = sizes().get(&at.addr()).copied();
        if let Some(known) = known.filter(|known| *known != size) {
            SYSTEM.misuse(
                function,
                format_args!("{:#x} was allocated with a size of {known}, not {size}", at.addr()),
            );
            return;
        }
        // Before it is free: the address may be somebody else's at once.
        sizes().remove(&at.addr());
    }
    // SAFETY: the caller's duty is passed on unchanged.
    if let Err(misuse) = unsafe { HEAP.try_free_sized(item, size) } {
        SYSTEM.misuse(function, format_args!("{misuse}"));
    }
}

/// How many bytes a request for so many takes (`kmem_roundup_size`).
pub fn kmem_roundup_size(size: usize) -> usize {
    let classes = SizeClasses::NETBSD_KMEM;
    match classes.class_of(size) {
        Some(class) => classes.size(class),
        // Whole pages; what cannot be stays as it is.
        None => size.checked_next_multiple_of(4096).unwrap_or(size),
    }
}

/// Figures of all memory of `kmem`.
pub fn kmem_stats() -> MallocStats {
    HEAP.stats()
}
