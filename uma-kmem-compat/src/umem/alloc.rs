//! `umem_alloc`: memory of any size, freed with its size.

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use std::sync::OnceLock;

use uma::Reclaim;
use uma::core::{AllocError, Request};
use uma_malloc::SizeClasses;

use super::SYSTEM;
use super::cache::{Umem, insist};
use super::env::Settings;
use crate::common::fork::once;
use crate::common::heap::Heap;
use crate::common::objects::{self, Shared};

static PAGES: Shared = Shared::new(None);

/// All memory of `umem_alloc`.
static HEAP: Heap = Heap::new("umem_alloc", SizeClasses::UMEM_ALLOC, &PAGES, &SYSTEM);

fn alloc(
    function: &'static str,
    size: usize,
    align: usize,
    flags: Umem,
    request: Request,
) -> *mut c_void {
    static FIRST: OnceLock<()> = OnceLock::new();
    if FIRST.get().is_none() {
        once(&FIRST, || {
            objects::look_after(objects::Heap {
                traffic: || HEAP.traffic(),
                reclaim: |mode| HEAP.reclaim(mode),
            });
            objects::start(Settings::get().interval());
            if Settings::get().guards {
                HEAP.guard();
            }
        });
    }
    if size == 0 {
        return ptr::null_mut();
    }
    let attempt = || -> Result<NonNull<u8>, AllocError> { HEAP.alloc(size, align, request) };
    let got = insist(flags, function, format_args!("{size} bytes"), attempt);
    objects::or_null(got.ok_or(())).cast()
}

/// Memory of `size` bytes, or null (`umem_alloc`): for 0 bytes, and without [`Umem::NOFAIL`] if there is none.
/// Aligned to 16 bytes; up to 8, to 8.
pub fn umem_alloc(size: usize, flags: Umem) -> *mut c_void {
    alloc("umem_alloc", size, 0, flags, Request::NOWAIT)
}

/// The same, filled with zeros (`umem_zalloc`).
pub fn umem_zalloc(size: usize, flags: Umem) -> *mut c_void {
    alloc("umem_zalloc", size, 0, flags, Request::NOWAIT.zeroed())
}

/// The same, aligned (`umem_alloc_align`). `align` is in bytes, a power of two, or 0 for whatever is natural; for
/// another it is null, whatever the flags.
pub fn umem_alloc_align(size: usize, align: usize, flags: Umem) -> *mut c_void {
    if align != 0 && !align.is_power_of_two() {
        return ptr::null_mut();
    }
    alloc("umem_alloc_align", size, align, flags, Request::NOWAIT)
}

/// Frees memory with the size that it was allocated with (`umem_free`). Null with 0 bytes is nothing. Another
/// size, and what is no memory of [`umem_alloc`] in use, is misuse.
///
/// # Safety
///
/// If it is memory of `umem_alloc`, nobody uses it any more.
pub unsafe fn umem_free(at: *mut c_void, size: usize) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { free("umem_free", at, size) };
}

/// The same for memory of [`umem_alloc_align`] (`umem_free_align`).
///
/// # Safety
///
/// As [`umem_free`].
pub unsafe fn umem_free_align(at: *mut c_void, size: usize) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { free("umem_free_align", at, size) };
}

/// # Safety
///
/// As [`umem_free`].
unsafe fn free(function: &'static str, at: *mut c_void, size: usize) {
    match NonNull::new(at.cast::<u8>()) {
        // SAFETY: the caller's duty is passed on unchanged.
        Some(at) => unsafe { HEAP.free(function, at, size) },
        None if size == 0 => {}
        None => SYSTEM.misuse(function, format_args!("null with {size} bytes")),
    }
}

/// Gives back what is free.
pub(super) fn reclaim() {
    HEAP.reclaim(Reclaim::DrainCpu);
}

/// Memory in use: how many pieces.
#[cfg(feature = "capi")]
pub(super) fn used() -> u64 {
    HEAP.used()
}
