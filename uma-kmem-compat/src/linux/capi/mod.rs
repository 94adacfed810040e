//! The C functions: `uma/linux/slab.h` and `uma/linux/mempool.h`.

mod cache;
mod kmalloc;
mod mempool;
mod sheaf;

use core::fmt;

use super::{KmemCache, SYSTEM};
use crate::common::{BadHandle, Handle, Handles};

/// `struct kmem_cache`, as C has it.
type Cache = Handle<KmemCache>;

static CACHES: Handles<KmemCache, { u16::from_le_bytes(*b"lc") }> = Handles::new();

/// `-ENOMEM`.
const NO_MEMORY: core::ffi::c_int = -12;

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

/// Whether there can be an array of so many pointers, or a report. `whose` it is stands before that.
fn can_be(function: &'static str, whose: fmt::Arguments<'_>, count: usize) -> bool {
    let can = count <= isize::MAX as usize / size_of::<*mut core::ffi::c_void>();
    if !can {
        SYSTEM.misuse(function, format_args!("{whose}no array holds {count} pointers"));
    }
    can
}

/// An address, for reports.
struct At(*const core::ffi::c_void);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0.addr())
    }
}
