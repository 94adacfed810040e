//! `kmem_alloc`: memory of any size, freed with its size.

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use std::sync::OnceLock;

use uma::Reclaim;
use uma::core::{AllocError, Request};
use uma_malloc::SizeClasses;

use super::cache::insist;
use super::{Km, SYSTEM, look_after};
use crate::common::fork::once;
use crate::common::heap::Heap;
use crate::common::objects::{self, Shared};

static PAGES: Shared = Shared::new(None);

/// All memory of `kmem_alloc`.
static HEAP: Heap = Heap::new("kmem_alloc", SizeClasses::KMEM_ALLOC, &PAGES, &SYSTEM);

/// No memory is larger, however long one waits.
const MOST: usize = 1 << 47;

/// What [`kmem_avail`] says at most: 1 GiB.
const PLENTY: usize = 1 << 30;

/// Bytes that are free in the machine, or the address space that the process may have, whichever is less
/// (`kmem_maxavail`).
pub fn kmem_maxavail() -> usize {
    // SAFETY: it reads a number.
    let of = |name| unsafe { libc::sysconf(name) };
    let pages = usize::try_from(of(libc::_SC_AVPHYS_PAGES)).unwrap_or(0);
    let each = usize::try_from(of(libc::_SC_PAGESIZE)).unwrap_or(0);
    let mut bound = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
    // SAFETY: it writes to the structure.
    unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut bound) };
    let space = usize::try_from(bound.rlim_cur).unwrap_or(usize::MAX);
    pages.saturating_mul(each).min(space)
}

/// The same, but 1 GiB at most (`kmem_avail`): what a request may hope for.
pub fn kmem_avail() -> usize {
    kmem_maxavail().min(PLENTY)
}

fn attempt(size: usize, request: Request) -> Result<NonNull<u8>, AllocError> {
    if size >= MOST {
        return Err(AllocError::Unsupported);
    }
    HEAP.alloc(size, 0, request)
}

fn alloc(function: &'static str, size: usize, flags: Km, request: Request) -> *mut c_void {
    static FIRST: OnceLock<()> = OnceLock::new();
    if FIRST.get().is_none() {
        once(&FIRST, || {
            objects::look_after(objects::Heap {
                traffic: || HEAP.traffic(),
                reclaim: |mode| HEAP.reclaim(mode),
            });
            look_after();
        });
    }
    if size == 0 {
        return ptr::null_mut();
    }
    let got = match attempt(size, request) {
        Ok(at) => Some(at),
        Err(_) => insist(flags, function, format_args!("{size} bytes"), || attempt(size, request)),
    };
    objects::or_null(got.ok_or(())).cast()
}

/// Memory of `size` bytes, or null (`kmem_alloc`): for 0 bytes, and with [`Km::NOSLEEP`] if there is none. A
/// multiple of 64 is aligned to 64, a multiple of pages to pages, everything to 8 bytes.
pub fn kmem_alloc(size: usize, flags: Km) -> *mut c_void {
    let request = flags.request();
    let request = if flags.contains(Km::ZERO) { request.zeroed() } else { request };
    alloc("kmem_alloc", size, flags, request)
}

/// The same, filled with zeros (`kmem_zalloc`).
pub fn kmem_zalloc(size: usize, flags: Km) -> *mut c_void {
    alloc("kmem_zalloc", size, flags, flags.request().zeroed())
}

/// Memory of `size` bytes or, if there is none at once, a little more, up to a page; and if there is none either,
/// of `size` bytes as hard as `flags` have it (`kmem_alloc_tryhard`). The second of the results is the size with
/// which it is to be freed.
pub fn kmem_alloc_tryhard(size: usize, flags: Km) -> (*mut c_void, usize) {
    const PAGE: usize = 4096;
    let mut more = size;
    while more != 0 && more <= size.max(PAGE) {
        if let Ok(at) = attempt(more, Request::NOWAIT) {
            // What was at hand is looked after, too.
            return (at.as_ptr().cast(), more);
        }
        let Some(next) = more.checked_add(8) else { break };
        more = next;
    }
    (alloc("kmem_alloc_tryhard", size, flags, flags.request()), size)
}

/// Frees memory with the size that it was allocated with (`kmem_free`). Null with 0 bytes is nothing. Another
/// size, and what is no memory of [`kmem_alloc`] in use, is misuse.
///
/// # Safety
///
/// If it is memory of `kmem_alloc`, nobody uses it any more.
pub unsafe fn kmem_free(at: *mut c_void, size: usize) {
    const NAME: &str = "kmem_free";
    match NonNull::new(at.cast::<u8>()) {
        // SAFETY: the caller's duty is passed on unchanged.
        Some(at) => unsafe { HEAP.free(NAME, at, size) },
        None if size == 0 => {}
        None => SYSTEM.misuse(NAME, format_args!("null with {size} bytes")),
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
