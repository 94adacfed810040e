//! malloc(9): memory of any size, of a type.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use uma::core::Request;
use uma_malloc::{Malloc, MallocError, MallocType, Misuse, SizeClasses, TypeStats};

use super::pages::Surroundings;
use super::shared::Seldom;
use super::{M, SYSTEM, waitok};
use crate::common::fork::Lock;
use crate::common::memory::{Counted, NoMemory, owned, push};

/// All memory of malloc(9).
static HEAP: Malloc<Surroundings> =
    Malloc::new_in("malloc", SizeClasses::MALLOC9, Surroundings::COMMON);

/// The types there are, for `vmstat -m`.
static TYPES: Lock<Vec<Type>> = Lock::new(Vec::new());

/// A type of memory (`struct malloc_type`). Clones are the same.
#[derive(Clone, Debug)]
pub struct Type(Counted<Described>);

#[derive(Debug)]
struct Described {
    counters: MallocType,
    description: String,
}

impl Type {
    /// Lists a type (`MALLOC_DEFINE`, `malloc_init`) until it is [ended](Self::end).
    ///
    /// # Panics
    ///
    /// If there is no memory for it.
    pub fn new(name: &str, description: &str) -> Self {
        Self::try_new(name, description).expect("memory for a type of memory")
    }

    /// The same, or [`NoMemory`].
    pub(super) fn try_new(name: &str, description: &str) -> Result<Self, NoMemory> {
        let counters = MallocType::new(name, "");
        let new = Self(Counted::new(Described { counters, description: owned(description)? })?);
        push(&mut TYPES.lock(), new.clone())?;
        Ok(new)
    }

    /// Its name, as far as it fits into 31 bytes.
    pub fn name(&self) -> &str {
        self.0.counters.name().as_str()
    }

    /// What it is for.
    pub fn description(&self) -> &str {
        &self.0.description
    }

    /// Its figures.
    pub fn stats(&self) -> TypeStats {
        self.0.counters.stats()
    }

    /// Takes it off the list (`malloc_uninit`). Memory of it that is in use is reported, and stays.
    pub fn end(&self) {
        let mut types = TYPES.lock();
        types.retain(|other| !other.0.same(&self.0));
        drop(types);
        let stats = self.stats();
        if stats.used() != 0 {
            let (name, used, bytes) = (self.name(), stats.used(), stats.bytes);
            SYSTEM.report(
                "malloc_uninit",
                format_args!("type \"{name}\" leaked {used} allocations of {bytes} bytes"),
            );
        }
    }
}

/// The types that are listed, in the order in which they were.
pub fn types() -> Vec<Type> {
    TYPES.lock().clone()
}

/// The type at a place of that list.
#[cfg(feature = "capi")]
pub(super) fn nth(place: usize) -> Option<Type> {
    TYPES.lock().get(place).cloned()
}

/// That somebody waits for memory, of whatever type.
pub(super) static WAITS: Seldom = Seldom::new();

fn insist(
    function: &str,
    request: Request,
    attempt: impl Fn() -> Result<NonNull<u8>, MallocError>,
) -> *mut c_void {
    let got = match attempt() {
        Ok(at) => Some(at),
        Err(_) if !request.may_wait() || !request.may_take_pages() => None,
        Err(error) => waitok::insist(function, error, |error| error.into(), &WAITS, attempt),
    };
    got.map_or(ptr::null_mut(), |at| at.as_ptr().cast())
}

/// Memory of `size` bytes (malloc(9)), or null. With [`M::WAITOK`] it waits for memory as long as it takes, and what no
/// address space holds is misuse; see `freebsd.waitok`. It is aligned to its size class up to a page if that is a power
/// of two, else to 8 bytes. 0 bytes are as good as 16.
pub fn malloc(size: usize, of: &Type, flags: M) -> *mut c_void {
    let request = flags.request();
    insist("malloc", request, || HEAP.alloc_type(size, &of.0.counters, request))
}

/// [`malloc`] at an alignment, a power of two (`malloc_aligned`).
#[cfg(feature = "capi")]
pub(super) fn malloc_aligned(size: usize, align: usize, of: &Type, flags: M) -> *mut c_void {
    let request = flags.request();
    insist("malloc_aligned", request, || {
        let at = HEAP.alloc_aligned(size, align, request)?;
        of.0.counters.allocated(HEAP.usable_size(at).unwrap_or(size));
        Ok(at)
    })
}

#[cold]
fn refused(function: &str, misuse: Misuse) {
    SYSTEM.misuse(function, format_args!("{misuse}"));
}

/// Frees memory (free(9)). Null is nothing; what is no memory of [`malloc()`] in use is misuse.
///
/// # Safety
///
/// If it is memory in use, it is used no more.
pub unsafe fn free(at: *mut c_void, of: &Type) {
    let Some(at) = NonNull::new(at.cast::<u8>()) else { return };
    // SAFETY: the caller's duty is passed on unchanged.
    if let Err(misuse) = unsafe { HEAP.try_free_type(at, &of.0.counters) } {
        refused("free", misuse);
    }
}

/// Zeroes memory and frees it (`zfree`). What [`free`] does not free is not zeroed.
///
/// # Safety
///
/// As [`free`].
#[cfg(feature = "capi")]
pub(super) unsafe fn zfree(at: *mut c_void, of: &Type) {
    let Some(item) = NonNull::new(at.cast::<u8>()) else { return };
    let freed = HEAP.usable_size(item).and_then(|size| {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { HEAP.try_free_zeroed(item) }.map(|()| size)
    });
    match freed {
        Ok(size) => of.0.counters.freed(size),
        Err(misuse) => refused("zfree", misuse),
    }
}

/// Changes the size of memory and returns where it is now, or null: then it is as it was (realloc(9)). Of null it
/// makes new memory.
///
/// # Safety
///
/// As [`free`], for memory that has moved.
pub unsafe fn realloc(at: *mut c_void, size: usize, of: &Type, flags: M) -> *mut c_void {
    const NAME: &str = "realloc";
    let Some(item) = NonNull::new(at.cast::<u8>()) else { return malloc(size, of, flags) };
    let old = match HEAP.usable_size(item) {
        Ok(old) => old,
        Err(misuse) => {
            refused(NAME, misuse);
            return ptr::null_mut();
        }
    };
    let request = flags.request();
    // SAFETY: the caller's duty is passed on unchanged.
    let attempt = || unsafe { HEAP.realloc_type(item, size, &of.0.counters, request) };
    let new = insist(NAME, request, attempt);
    if flags.contains(M::ZERO)
        && let Some(new) = NonNull::new(new.cast::<u8>())
        && new != item
    {
        let now = HEAP.usable_size(new).unwrap_or(size);
        if now > old {
            // SAFETY: the memory is the caller's, and has so many bytes.
            unsafe { new.add(old).write_bytes(0, now - old) };
        }
    }
    new
}

/// [`realloc`] that frees the memory if it fails (`reallocf`).
///
/// # Safety
///
/// As [`free`].
pub unsafe fn reallocf(at: *mut c_void, size: usize, of: &Type, flags: M) -> *mut c_void {
    // SAFETY: the caller's duty is passed on unchanged; it is as it was if that fails.
    unsafe {
        let new = realloc(at, size, of, flags);
        if new.is_null() {
            free(at, of);
        }
        new
    }
}

/// How many bytes of it may be used (`malloc_usable_size`). 0 of null, and of what is no memory of [`malloc()`], which
/// is misuse.
pub fn malloc_usable_size(at: *const c_void) -> usize {
    let Some(at) = NonNull::new(at.cast_mut().cast::<u8>()) else { return 0 };
    HEAP.usable_size(at).map_err(|misuse| refused("malloc_usable_size", misuse)).unwrap_or(0)
}
