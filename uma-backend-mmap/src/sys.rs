//! The system calls of this crate, all of them, behind one trait, so that a test can refuse each.
//!
//! Not part of the interface: names here may change at any time.

use std::ffi::CStr;
use std::io;
use std::ptr::NonNull;

use crate::config::HugePages;
use crate::sync::{AtomicUsize, Ordering};

/// Whether decommitted memory reads as zero, which only Linux promises. Elsewhere nothing is
/// decommitted.
pub const DECOMMITS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The number of an error, as `errno` has it.
pub type Errno = i32;

/// What the crate asks of the system.
///
/// # Safety
///
/// `map` returns new memory that is readable, writable, zero, and nobody else's. A call that fails has
/// changed nothing, but that `wall` may have cleared what was there. `discard` leaves zeros behind.
/// Nothing unwinds.
pub unsafe trait System: Sync {
    /// Reserves `len` bytes of address space, which read as zero and get memory as they are written.
    ///
    /// # Errors
    ///
    /// There is no room, or no more mappings are allowed.
    fn map(&self, len: usize) -> Result<NonNull<u8>, Errno>;

    /// Reserves `len` bytes of address space that are inaccessible until `unwall`, and read as zero from
    /// then on. A mapping as from `map` in all else. Nothing is counted against what the system
    /// promises, also where it promises no more than it has.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    fn reserve(&self, len: usize) -> Result<NonNull<u8>, Errno>;

    /// Keeps whole pages in memory, and gets memory for them now.
    ///
    /// # Safety
    ///
    /// They lie in a mapping of `map` or `reserve`, and are accessible.
    ///
    /// # Errors
    ///
    /// More would be locked than the process may (`RLIMIT_MEMLOCK`), there is not so much memory, or there
    /// would be too many mappings.
    unsafe fn lock(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno>;

    /// Ends that.
    ///
    /// # Safety
    ///
    /// They lie in a mapping of `map` or `reserve`.
    ///
    /// # Errors
    ///
    /// There would be too many mappings.
    unsafe fn unlock(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno>;

    /// Takes a mapping away.
    ///
    /// # Safety
    ///
    /// It came from `map` or `reserve`, whole, and nobody uses it any more.
    ///
    /// # Errors
    ///
    /// There would be too many mappings: this one had been joined with its neighbours.
    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno>;

    /// Takes the memory of whole pages, which read as zero afterwards.
    ///
    /// # Safety
    ///
    /// They lie in a mapping of `map` or `reserve`, and nobody misses what is in them.
    ///
    /// # Errors
    ///
    /// They are locked in memory, or the system cannot.
    unsafe fn discard(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno>;

    /// Makes whole pages inaccessible. What was in them may be lost.
    ///
    /// # Safety
    ///
    /// As [`discard`](Self::discard); and nobody touches them until `unwall`.
    ///
    /// # Errors
    ///
    /// There would be too many mappings.
    unsafe fn wall(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno>;

    /// Makes whole pages inaccessible. What is in them is kept.
    ///
    /// # Safety
    ///
    /// They lie in a mapping of `map` or `reserve`, and nobody touches them until `unwall`.
    ///
    /// # Errors
    ///
    /// There would be too many mappings. Some pages may be inaccessible already.
    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno>;

    /// Makes pages accessible again, whichever of the two made them inaccessible.
    ///
    /// # Safety
    ///
    /// They lie in a mapping of `map` or `reserve`.
    ///
    /// # Errors
    ///
    /// There would be too many mappings, or not enough memory.
    unsafe fn unwall(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno>;

    /// Says whether huge pages are wanted here.
    ///
    /// # Safety
    ///
    /// The range lies in a mapping of `map`.
    ///
    /// # Errors
    ///
    /// The system has no huge pages.
    unsafe fn huge(&self, at: NonNull<u8>, len: usize, huge: HugePages) -> Result<(), Errno>;

    /// Whether the system gives huge pages to who never said a word about them. It may change its mind at any time.
    fn huge_unasked(&self) -> bool {
        false
    }

    /// Says of each page whether there is memory for it: the lowest bit of its byte is 1 then. There are as many bytes as
    /// pages. A page of which nothing is resident may be swapped out.
    ///
    /// # Safety
    ///
    /// They lie in a mapping of `map` or `reserve`.
    ///
    /// # Errors
    ///
    /// The system does not say.
    unsafe fn resident(&self, at: NonNull<u8>, len: usize, there: &mut [u8]) -> Result<(), Errno> {
        let _ = (at, len, there);
        Err(libc::ENOSYS)
    }

    /// Takes the huge page apart that a page belongs to. What is in it is kept.
    ///
    /// # Safety
    ///
    /// The page lies in a mapping of `map` or `reserve`.
    ///
    /// # Errors
    ///
    /// The system cannot.
    unsafe fn tear(&self, at: NonNull<u8>, page: usize) -> Result<(), Errno> {
        let _ = (at, page);
        Err(libc::ENOSYS)
    }

    /// Says whether pages belong into core dumps.
    ///
    /// # Safety
    ///
    /// They lie in a mapping of `map`.
    ///
    /// # Errors
    ///
    /// There would be too many mappings, or the system has no such thing.
    unsafe fn dump(&self, at: NonNull<u8>, len: usize, yes: bool) -> Result<(), Errno>;

    /// Gives a mapping a name, for `/proc/self/maps`.
    ///
    /// # Safety
    ///
    /// The range lies in a mapping of `map`.
    ///
    /// # Errors
    ///
    /// The system knows no names.
    unsafe fn name(&self, at: NonNull<u8>, len: usize, name: &CStr) -> Result<(), Errno>;
}

/// The system itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

/// The number of the error that has just happened.
fn errno() -> Errno {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn done(result: libc::c_int) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(errno()) }
}

/// What systems call memory that has no room to be kept for it beforehand.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNRESERVED: libc::c_int = libc::MAP_NORESERVE;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const UNRESERVED: libc::c_int = 0;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    /// Guard pages that are page table entries and not mappings of their own, since Linux 6.13.
    pub(super) const GUARD_INSTALL: libc::c_int = 102;
    pub(super) const GUARD_REMOVE: libc::c_int = 103;
    pub(super) const PR_SET_VMA: libc::c_int = 0x53_56_4d_41;
    pub(super) const PR_SET_VMA_ANON_NAME: libc::c_ulong = 0;
}

impl Kernel {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn advise(at: NonNull<u8>, len: usize, advice: libc::c_int) -> Result<(), Errno> {
        // SAFETY: the caller may have the range so advised.
        done(unsafe { libc::madvise(at.as_ptr().cast(), len, advice) })
    }
}

/// A new mapping, at a place that the system chooses.
fn mmap(len: usize, access: libc::c_int) -> Result<NonNull<u8>, Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | UNRESERVED;
    // SAFETY: it takes nobody's place.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(errno());
    }
    NonNull::new(at.cast()).ok_or(libc::ENOMEM)
}

// SAFETY: the calls do what their manual pages say.
unsafe impl System for Kernel {
    fn map(&self, len: usize) -> Result<NonNull<u8>, Errno> {
        mmap(len, libc::PROT_READ | libc::PROT_WRITE)
    }

    fn reserve(&self, len: usize) -> Result<NonNull<u8>, Errno> {
        mmap(len, libc::PROT_NONE)
    }

    unsafe fn lock(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: it changes no contents.
        done(unsafe { libc::mlock(at.as_ptr().cast(), len) })
    }

    unsafe fn unlock(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: as above.
        done(unsafe { libc::munlock(at.as_ptr().cast(), len) })
    }

    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: the caller gives the mapping up.
        done(unsafe { libc::munmap(at.as_ptr().cast(), len) })
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn discard(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: the caller gives up what is in these pages.
        unsafe { Self::advise(at, len, libc::MADV_DONTNEED) }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    unsafe fn discard(&self, _: NonNull<u8>, _: usize) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn wall(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        // SAFETY: the caller gives up what is in these pages, and nobody touches them.
        if unsafe { Self::advise(at, len, linux::GUARD_INSTALL) }.is_ok() {
            return Ok(());
        }
        // SAFETY: passed on to the caller.
        unsafe { self.protect(at, len) }
    }

    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: the caller's promise that nobody touches them.
        done(unsafe { libc::mprotect(at.as_ptr().cast(), len, libc::PROT_NONE) })
    }

    unsafe fn unwall(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // The pages may have been walled off in either way. The advice comes first: it fails on no
        // system that could have made such a wall, and changes nothing where there is none.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        // SAFETY: it takes nothing away but guards.
        let _ = unsafe { Self::advise(at, len, linux::GUARD_REMOVE) };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range is the caller's.
        done(unsafe { libc::mprotect(at.as_ptr().cast(), len, access) })
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn huge(&self, at: NonNull<u8>, len: usize, huge: HugePages) -> Result<(), Errno> {
        let advice = match huge {
            HugePages::System => return Ok(()),
            HugePages::Wanted => libc::MADV_HUGEPAGE,
            HugePages::Unwanted => libc::MADV_NOHUGEPAGE,
        };
        // SAFETY: it changes no contents.
        unsafe { Self::advise(at, len, advice) }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    unsafe fn huge(&self, _: NonNull<u8>, _: usize, huge: HugePages) -> Result<(), Errno> {
        if huge == HugePages::System { Ok(()) } else { Err(libc::ENOSYS) }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn huge_unasked(&self) -> bool {
        let mut text = [0_u8; 64];
        // SAFETY: the path ends with a zero; the call writes into `text` and no further; the file is ours to close.
        let len = unsafe {
            let path = c"/sys/kernel/mm/transparent_hugepage/enabled";
            let file = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            if file < 0 {
                return false;
            }
            let len = libc::read(file, text.as_mut_ptr().cast(), text.len());
            libc::close(file);
            len
        };
        // For example: `[always] madvise never`.
        text[..usize::try_from(len).unwrap_or(0)].starts_with(b"[always]")
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn resident(&self, at: NonNull<u8>, len: usize, there: &mut [u8]) -> Result<(), Errno> {
        if there.len() < len.div_ceil(page_size()) {
            return Err(libc::EINVAL);
        }
        // SAFETY: there is a byte for each page, see above.
        done(unsafe { libc::mincore(at.as_ptr().cast(), len, there.as_mut_ptr()) })
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn tear(&self, at: NonNull<u8>, page: usize) -> Result<(), Errno> {
        // There is no call for it. This one does it at once, where only a part of a huge page is meant. So does
        // MADV_FREE, but if the page then cannot be discarded, it may turn to zeros at any later moment.
        // SAFETY: it changes no contents.
        unsafe { Self::advise(at, page, libc::MADV_COLD) }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn dump(&self, at: NonNull<u8>, len: usize, yes: bool) -> Result<(), Errno> {
        let advice = if yes { libc::MADV_DODUMP } else { libc::MADV_DONTDUMP };
        // SAFETY: it changes no contents.
        unsafe { Self::advise(at, len, advice) }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    unsafe fn dump(&self, _: NonNull<u8>, _: usize, _: bool) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn name(&self, at: NonNull<u8>, len: usize, name: &CStr) -> Result<(), Errno> {
        let (at, len) = (at.addr().get() as libc::c_ulong, len as libc::c_ulong);
        let (set, what) = (linux::PR_SET_VMA, linux::PR_SET_VMA_ANON_NAME);
        // SAFETY: the system copies the name, and changes nothing else.
        done(unsafe { libc::prctl(set, what, at, len, name.as_ptr()) })
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    unsafe fn name(&self, _: NonNull<u8>, _: usize, _: &CStr) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }
}

/// The size of a page of this system.
pub fn page_size() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    let known = PAGE.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    // SAFETY: it may be called at any time.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // All systems have it; 4096 divides the page of any.
    let page = usize::try_from(page).unwrap_or(4096);
    PAGE.store(page, Ordering::Relaxed);
    page
}
