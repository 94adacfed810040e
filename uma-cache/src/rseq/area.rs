//! Finding the rseq area that glibc registers for every thread.

use core::ffi::CStr;
use core::num::NonZeroIsize;

/// The size that the first version of the area had; `__rseq_size` is at least this, or 0 if glibc did
/// not register (an old kernel, or the tunable `glibc.pthread.rseq=0`).
const FIRST_SIZE: u32 = 20;

/// The offset of the area from the thread pointer, the same in all threads, or `None` if the C
/// library has registered none.
pub(super) fn offset() -> Option<NonZeroIsize> {
    let size = symbol::<u32>(c"__rseq_size")?;
    let offset = symbol::<isize>(c"__rseq_offset")?;
    NonZeroIsize::new(offset).filter(|_| size >= FIRST_SIZE)
}

/// The value of a constant that the C library exports, if it does.
fn symbol<T: Copy>(name: &CStr) -> Option<T> {
    // SAFETY: the name is a C string; `RTLD_DEFAULT` searches the libraries that are loaded.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: glibc documents these two symbols as constants of type `unsigned int` and `ptrdiff_t`,
    // which `offset` asks for; the library stays loaded.
    unsafe { address.cast::<T>().as_ref().copied() }
}
