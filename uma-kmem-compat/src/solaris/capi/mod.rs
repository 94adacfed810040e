//! The C functions: `uma/solaris/kmem.h` and `uma/solaris/vmem.h`.

mod alloc;
mod cache;
mod vmem;

use super::vmem::Vmem;
use super::{KmemCache, SYSTEM};
use crate::common::memory::Counted;
use crate::common::{BadHandle, Handle, Handles};

/// `kmem_cache_t`, as C has it.
type Cache = Handle<KmemCache>;
/// `vmem_t`.
type VmemHandle = Handle<Counted<Vmem>>;

static CACHES: Handles<KmemCache, { u16::from_le_bytes(*b"sc") }> = Handles::new();
static ARENAS: Handles<Counted<Vmem>, { u16::from_le_bytes(*b"sv") }> = Handles::new();

/// [`boundary`](crate::common::boundary) of this face.
#[inline(always)]
fn boundary<R>(function: &'static str, body: impl FnOnce() -> R) -> R {
    crate::common::boundary(Some(&SYSTEM), function, body)
}

/// Something is wrong with a handle that was given to `function`.
#[cold]
fn bad(function: &'static str, what: &'static str, fault: BadHandle) {
    SYSTEM.misuse(function, format_args!("bad {what}: {fault}"));
}

/// The cache of a handle, or a report.
///
/// # Safety
///
/// As [`Handles::get`].
unsafe fn cache<'a>(function: &'static str, handle: *const Cache) -> Option<&'a KmemCache> {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { CACHES.get(handle) }.map_err(|fault| bad(function, "cache", fault)).ok()
}

/// The arena of a handle, or a report.
///
/// # Safety
///
/// As [`Handles::get`].
unsafe fn arena<'a>(
    function: &'static str,
    handle: *const VmemHandle,
) -> Option<&'a Counted<Vmem>> {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { ARENAS.get(handle) }.map_err(|fault| bad(function, "arena", fault)).ok()
}
