//! malloc(9).

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;

use super::boundary;
use crate::common::memory::{NoMemory, boxed};
use crate::common::{text, unusable};
use crate::freebsd::malloc::{WAITS, malloc_aligned, zfree};
use crate::freebsd::waitok::{self, Want};
use crate::freebsd::{M, SYSTEM, Type, free, malloc, malloc_usable_size, realloc, reallocf};
use crate::sync::{AtomicPtr, Ordering};

/// `struct malloc_type`.
#[repr(C)]
struct MallocType {
    short: *const c_char,
    long: *const c_char,
    /// Null until it is used.
    handle: AtomicPtr<Type>,
}

// SAFETY: the strings are constants of the program, and the handle is set atomically.
unsafe impl Sync for MallocType {}

impl MallocType {
    const fn new(short: &'static CStr, long: &'static CStr) -> Self {
        let handle = AtomicPtr::new(ptr::null_mut());
        Self { short: short.as_ptr(), long: long.as_ptr(), handle }
    }

    fn get(&self) -> Result<&Type, NoMemory> {
        let mut at = self.handle.load(Ordering::Acquire);
        if at.is_null() {
            // SAFETY: they are null or constants of the program.
            let (short, long) = unsafe { (text(self.short), text(self.long)) };
            let (short, long) = (short.as_deref().unwrap_or("?"), long.as_deref().unwrap_or(""));
            let new = Type::try_new(short, long)?;
            // Clones are the same.
            let new = Box::into_raw(boxed(new.clone()).inspect_err(|_| new.end())?);
            let null = ptr::null_mut();
            match self.handle.compare_exchange(null, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => at = new,
                Err(other) => {
                    // SAFETY: it is from a box, and nobody has seen it.
                    unsafe { Box::from_raw(new) }.end();
                    at = other;
                }
            }
        }
        // SAFETY: it stays until `malloc_uninit`, after which the caller uses the type no more.
        Ok(unsafe { &*at })
    }
}

#[unsafe(no_mangle)]
static uma_freebsd_M_TEMP: MallocType = MallocType::new(c"temp", c"misc temporary data buffers");
#[unsafe(no_mangle)]
static uma_freebsd_M_CACHE: MallocType =
    MallocType::new(c"cache", c"Various Dynamically allocated caches");
#[unsafe(no_mangle)]
static uma_freebsd_M_DEVBUF: MallocType = MallocType::new(c"devbuf", c"device driver memory");

/// Runs `body` with the type, or reports that there is none. `waits` says whether the memory for it is waited for.
///
/// # Safety
///
/// The type is null, or one of `MALLOC_DEFINE`.
unsafe fn with<R>(
    function: &'static str,
    of: *const MallocType,
    waits: bool,
    otherwise: R,
    body: impl FnOnce(&Type) -> R,
) -> R {
    boundary(function, || {
        if !of.is_aligned() {
            SYSTEM.misuse(function, format_args!("the type is misaligned"));
            return otherwise;
        }
        // SAFETY: the caller says so.
        let Some(of) = (unsafe { of.as_ref() }) else {
            SYSTEM.misuse(function, format_args!("the type is null"));
            return otherwise;
        };
        let found = match of.get() {
            Err(error) if waits => {
                waitok::insist(function, error, |_| Want::Memory, &WAITS, || of.get()).ok_or(error)
            }
            found => found,
        };
        match found {
            Ok(of) => body(of),
            Err(error) => {
                SYSTEM.report(function, format_args!("a type: {error}"));
                otherwise
            }
        }
    })
}

/// The same for an allocation with these flags.
///
/// # Safety
///
/// As [`with`].
unsafe fn with_flags(
    function: &'static str,
    of: *const MallocType,
    flags: c_int,
    body: impl FnOnce(&Type, M) -> *mut c_void,
) -> *mut c_void {
    let flags = M::from_bits_retain(flags as u32);
    let waits = flags.contains(M::WAITOK);
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with(function, of, waits, ptr::null_mut(), |of| body(of, flags)) }
}

/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_malloc_init(of: *mut MallocType) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with("malloc_init", of, false, (), |_| ()) }
}

/// # Safety
///
/// As [`with`]; the type is used no more.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_malloc_uninit(of: *mut MallocType) {
    boundary("malloc_uninit", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(of) = (unsafe { of.as_ref() }) else { return };
        let at = of.handle.swap(ptr::null_mut(), Ordering::AcqRel);
        if !at.is_null() {
            // SAFETY: it is from a box in `get`, and the caller uses it no more.
            unsafe { Box::from_raw(at) }.end();
        }
    });
}

/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_malloc(
    size: usize,
    of: *mut MallocType,
    wait: c_int,
) -> *mut c_void {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with_flags("malloc", of, wait, |of, flags| malloc(size, of, flags)) }
}

/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_malloc_aligned(
    size: usize,
    align: usize,
    of: *mut MallocType,
    wait: c_int,
) -> *mut c_void {
    let body = |of: &Type, flags| malloc_aligned(size, align, of, flags);
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with_flags("malloc_aligned", of, wait, body) }
}

/// Null, or a report with `M_WAITOK`, if the product overflows.
///
/// # Safety
///
/// As [`with`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_mallocarray(
    count: usize,
    size: usize,
    of: *mut MallocType,
    wait: c_int,
) -> *mut c_void {
    const NAME: &str = "mallocarray";
    let body = |of: &Type, flags| match count.checked_mul(size) {
        Some(bytes) => malloc(bytes, of, flags),
        None => {
            SYSTEM.misuse(NAME, format_args!("{count} times {size} bytes overflow"));
            ptr::null_mut()
        }
    };
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with_flags(NAME, of, wait, body) }
}

/// # Safety
///
/// As [`with`] and [`free`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_free(at: *mut c_void, of: *mut MallocType) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with("free", of, false, (), |of| free(at, of)) }
}

/// # Safety
///
/// As [`uma_freebsd_free`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_zfree(at: *mut c_void, of: *mut MallocType) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with("zfree", of, false, (), |of| zfree(at, of)) }
}

/// # Safety
///
/// As [`with`] and [`realloc`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_realloc(
    at: *mut c_void,
    size: usize,
    of: *mut MallocType,
    wait: c_int,
) -> *mut c_void {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with_flags("realloc", of, wait, |of, flags| realloc(at, size, of, flags)) }
}

/// # Safety
///
/// As [`with`] and [`reallocf`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_reallocf(
    at: *mut c_void,
    size: usize,
    of: *mut MallocType,
    wait: c_int,
) -> *mut c_void {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with_flags("reallocf", of, wait, |of, flags| reallocf(at, size, of, flags)) }
}

#[unsafe(no_mangle)]
extern "C" fn uma_freebsd_malloc_usable_size(at: *const c_void) -> usize {
    boundary("malloc_usable_size", || malloc_usable_size(at))
}

/// `struct uma_freebsd_malloc_stats`.
#[repr(C)]
struct Stats {
    allocs: u64,
    frees: u64,
    bytes: u64,
    high: u64,
    sizes: u64,
}

/// # Safety
///
/// As [`with`]; there is room for the figures.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_malloc_type_stats(of: *mut MallocType, into: *mut Stats) {
    const NAME: &str = "uma_freebsd_malloc_type_stats";
    let body = |of: &Type| {
        if let Some(why) = unusable(into) {
            SYSTEM.misuse(NAME, format_args!("the room for the figures is {why}"));
            return;
        }
        let stats = of.stats();
        let (allocs, frees, bytes) = (stats.allocs, stats.frees, stats.bytes);
        let (high, sizes) = (stats.high, stats.sizes);
        // SAFETY: the caller says that there is room.
        unsafe { into.write(Stats { allocs, frees, bytes, high, sizes }) };
    };
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { with(NAME, of, false, (), body) }
}
