//! `kmalloc`: memory of any size, freed by its pointer alone, in the size classes of Linux.

use core::ffi::c_void;
#[cfg(feature = "capi")]
use core::fmt;
use core::ptr::NonNull;
use std::panic::{AssertUnwindSafe, catch_unwind};

use uma::core::Request;
use uma_malloc::{Malloc, MallocError, MallocFault, Misuse, SizeClasses};

use super::cache::insist;
use super::{Gfp, SYSTEM};

/// All memory of `kmalloc`.
static HEAP: Malloc = Malloc::new("kmalloc", SizeClasses::KMALLOC);

/// What `kmalloc` returns for a size of 0: it is not null, nothing may be done with it, and it may be freed.
const ZERO_SIZE: usize = 16;

/// The largest size that is aligned to itself if it is a power of two (`KMALLOC_MAX_SIZE`).
const MOST_ALIGNED: usize = 4 << 20;

/// Whether a pointer is null or that for a size of 0 (`ZERO_OR_NULL_PTR`).
fn is_nothing(at: *const c_void) -> bool {
    at.addr() <= ZERO_SIZE
}

/// What memory of this size is aligned to beyond what its class is.
fn promised(size: usize) -> usize {
    let large = size > SizeClasses::KMALLOC.max() && size <= MOST_ALIGNED;
    if large && size.is_power_of_two() { size } else { 1 }
}

/// Memory of `size` bytes, or null (`kmalloc`). A power of two is aligned to itself, up to 4 MiB; everything
/// to 8 bytes. A size of 0 is a pointer that is not null and leads nowhere.
#[inline]
pub fn kmalloc(size: usize, gfp: Gfp) -> *mut c_void {
    if size.wrapping_sub(1) < SizeClasses::KMALLOC.max() && !gfp.contains(Gfp::ZERO) {
        let at = HEAP.alloc_or_null(size, Request::NOWAIT);
        if !at.is_null() {
            return at.cast();
        }
    }
    kmalloc_slow(size, gfp)
}

#[cold]
#[inline(never)]
fn kmalloc_slow(size: usize, gfp: Gfp) -> *mut c_void {
    if size == 0 {
        return core::ptr::without_provenance_mut(ZERO_SIZE);
    }
    let zero = gfp.contains(Gfp::ZERO);
    let request = if zero { Request::NOWAIT.zeroed() } else { Request::NOWAIT };
    // Where no memory would help there is nothing to insist on.
    let result = insist(gfp, format_args!("kmalloc of {size} bytes"), || {
        match HEAP.alloc_aligned(size, promised(size), request) {
            Err(MallocError { fault: MallocFault::Alloc(reason), .. }) if reason.is_shortage() => {
                None
            }
            result => Some(result),
        }
    });
    match result {
        Some(Ok(at)) => at.as_ptr().cast(),
        _ => core::ptr::null_mut(),
    }
}

/// Frees memory (`kfree`). Null, and the pointer for a size of 0, are nothing; what is no memory of `kmalloc` in
/// use is reported, and nothing is done to it.
///
/// # Safety
///
/// If it is memory of [`kmalloc`] in use, it is used no more.
#[inline]
pub unsafe fn kfree(at: *const c_void) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { free("kfree", at) }
}

/// [`kfree`], as which function of C.
///
/// # Safety
///
/// As [`kfree`].
#[inline]
pub(super) unsafe fn free(function: &'static str, at: *const c_void) {
    let Some(item) = NonNull::new(at.cast_mut().cast::<u8>()) else { return };
    // SAFETY: the caller's duty is passed on unchanged.
    if let Err(misuse) = unsafe { HEAP.try_free(item) }
        && !is_nothing(at)
    {
        refused(function, misuse);
    }
}

#[cold]
#[inline(never)]
fn refused(function: &'static str, misuse: Misuse) {
    SYSTEM.misuse(function, format_args!("{misuse}"));
}

/// How many bytes of it may be used (`ksize`): those of its class, or whole pages. 0 for nothing, and for what
/// is no memory of `kmalloc`, which is reported.
pub fn ksize(at: *const c_void) -> usize {
    usable("ksize", at).unwrap_or(0)
}

fn usable(function: &'static str, at: *const c_void) -> Option<usize> {
    if is_nothing(at) {
        return None;
    }
    let at = NonNull::new(at.cast_mut().cast::<u8>())?;
    HEAP.usable_size(at).map_err(|misuse| refused(function, misuse)).ok()
}

/// Zeroes memory and frees it (`kfree_sensitive`). What [`kfree`] does not free is not zeroed.
///
/// # Safety
///
/// As [`kfree`].
pub unsafe fn kfree_sensitive(at: *const c_void) {
    let Some(item) = NonNull::new(at.cast_mut().cast::<u8>()) else { return };
    if is_nothing(at) {
        return;
    }
    // SAFETY: the caller's duty is passed on unchanged.
    if let Err(misuse) = unsafe { HEAP.try_free_zeroed(item) } {
        refused("kfree_sensitive", misuse);
    }
}

/// Changes the size of memory and returns where it is now, aligned as [`kmalloc`] has it, or null: then it is as it
/// was (`krealloc`). Of null it makes new memory, and a size of 0 frees it. Memory that was allocated with [`Gfp::ZERO`], and with every change
/// of its size, has zeros wherever it grew.
///
/// # Safety
///
/// As [`kfree`], for memory that has moved or was freed.
pub unsafe fn krealloc(at: *mut c_void, size: usize, gfp: Gfp) -> *mut c_void {
    const NAME: &str = "krealloc";
    if is_nothing(at) {
        return kmalloc(size, gfp);
    }
    if size == 0 {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { free(NAME, at) };
        return kmalloc(0, gfp);
    }
    let Some(old) = usable(NAME, at) else { return core::ptr::null_mut() };
    let Some(item) = NonNull::new(at.cast::<u8>()) else { return core::ptr::null_mut() };
    // The heap panics at memory that is free already, and leaves it alone.
    let changed = catch_unwind(AssertUnwindSafe(|| {
        insist(gfp, format_args!("krealloc to {size} bytes"), || {
            // SAFETY: the caller's duty is passed on unchanged.
            match unsafe { HEAP.realloc_aligned(item, size, promised(size), Request::NOWAIT) } {
                Err(MallocError { fault: MallocFault::Alloc(reason), .. })
                    if reason.is_shortage() =>
                {
                    None
                }
                result => Some(result),
            }
        })
    }));
    let new = match changed {
        Ok(Some(Ok(new))) => new,
        Ok(_) => return core::ptr::null_mut(),
        Err(panic) => {
            SYSTEM.misuse(NAME, format_args!("{}", super::text_of(&*panic)));
            return core::ptr::null_mut();
        }
    };
    if gfp.contains(Gfp::ZERO) {
        let now = HEAP.usable_size(new).unwrap_or(size);
        // In place, whatever is behind what may be used from now on, as Linux does: it may grow into it again.
        // Elsewhere, what was not copied.
        let from = if new == item { size } else { old.min(size) };
        // SAFETY: the memory is the caller's from now on, and has so many bytes.
        unsafe { zero(new, from, now) };
    }
    new.as_ptr().cast()
}

/// Zeroes the bytes of memory from `from` on. Whole pages that hold zeros already are only read: behind a run that
/// shrank, or is new, there is no memory, and a write would bring it.
///
/// # Safety
///
/// The memory is the caller's, and has `size` bytes, no less than `from`.
unsafe fn zero(at: NonNull<u8>, from: usize, size: usize) {
    const PAGE: usize = 4096;
    // SAFETY: passed on to the caller: all of it lies between `from` and `size`.
    unsafe {
        if size <= SizeClasses::KMALLOC.max() {
            return at.add(from).write_bytes(0, size - from);
        }
        // A large run begins at a page, and is whole pages.
        let first = from.next_multiple_of(PAGE).min(size);
        at.add(from).write_bytes(0, first - from);
        for page in (first..size).step_by(PAGE) {
            let (page, bytes) = (at.add(page), PAGE.min(size - page));
            // Volatile: nobody here has written what is read.
            let words = bytes / size_of::<u64>();
            if (0..words).any(|word| page.cast::<u64>().add(word).read_volatile() != 0) {
                page.write_bytes(0, bytes);
            }
        }
    }
}

/// The size of the memory that `kmalloc` takes for this size (`kmalloc_size_roundup`).
pub fn kmalloc_size_roundup(size: usize) -> usize {
    let classes = SizeClasses::KMALLOC;
    match classes.class_of(size) {
        _ if size == 0 => 0,
        Some(class) => classes.size(class),
        // Whole pages; what cannot be stays as it is.
        None => size.checked_next_multiple_of(4096).unwrap_or(size),
    }
}

/// Says what is known of a pointer (`kmem_dump_obj`). It is not followed.
#[cfg(feature = "capi")]
pub(super) fn describe(at: *const c_void, say: impl FnOnce(fmt::Arguments<'_>)) {
    let address = at.addr();
    if is_nothing(at) {
        return say(format_args!("{address:#x} is null, or a pointer for a size of 0"));
    }
    let known = NonNull::new(at.cast_mut().cast::<u8>()).map(|at| HEAP.usable_size(at));
    match known {
        Some(Ok(size)) => {
            say(format_args!("{address:#x} begins memory of kmalloc of {size} bytes"));
        }
        Some(Err(misuse)) if misuse.size != 0 => {
            let size = misuse.size;
            say(format_args!("{address:#x} points into memory of kmalloc of {size} bytes"));
        }
        _ => say(format_args!("{address:#x} is no memory of kmalloc")),
    }
}

/// Figures of all memory of `kmalloc`.
pub fn kmalloc_stats() -> uma_malloc::MallocStats {
    HEAP.stats()
}
