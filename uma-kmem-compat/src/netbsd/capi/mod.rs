//! The C functions: `uma/netbsd/pool.h`, `uma/netbsd/kmem.h`, `uma/netbsd/vmem.h` and `uma/netbsd/uvm.h`.
//!
//! A `struct pool` lies in the program's memory and is one word, which leads to the pool. A `struct pool_cache` is a
//! `struct pool`; that of `pool_cache_init` lies in the handle itself.

mod cache;
mod kmem;
mod list;
mod pool;
mod uvm;
mod vmem;

use core::ffi::{c_char, c_int, c_uint, c_void};
use core::num::NonZeroUsize;
use core::ptr::{self, NonNull};
use std::panic::{AssertUnwindSafe, catch_unwind};

use uma::core::ConfigFault;

use super::{Callbacks, PageAllocator, Pool, PoolArgs, PoolFlags, SYSTEM, text_of};
use crate::common::memory::NoMemory;
use crate::common::{BadHandle, Handle, Handles, Sample, text};
use crate::sync::{AtomicUsize, Ordering};

/// `struct pool` and `struct pool_cache`.
#[repr(C)]
struct CPool {
    handle: *mut Handle<Bound>,
}

/// A pool that C has.
#[repr(C)]
struct Bound {
    pool: Pool,
    /// Used by caches of `pool_cache_init`.
    own: CPool,
    /// Who looks at it through the list of all pools.
    visitors: AtomicUsize,
}

// SAFETY: the pointer is only compared and handed out.
unsafe impl Send for Bound {}
// SAFETY: as above.
unsafe impl Sync for Bound {}

static POOLS: Handles<Bound, { u16::from_le_bytes(*b"np") }> = Handles::new();

/// `ENOMEM`.
const NO_MEMORY: c_int = 12;

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

/// The handle of a `struct pool`, or null.
///
/// # Safety
///
/// It is null, or can be read, and leads nowhere or to a handle.
#[inline(always)]
unsafe fn handle(at: *const CPool) -> *mut Handle<Bound> {
    if at.is_null() || !at.is_aligned() {
        return ptr::null_mut();
    }
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { (*at).handle }
}

/// The pool of a `struct pool`, if it has one.
///
/// # Safety
///
/// As [`handle`].
unsafe fn live<'a>(at: *const CPool) -> Option<&'a Bound> {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { POOLS.get(handle(at)) }.ok()
}

/// The same, or a report.
///
/// # Safety
///
/// As [`live`].
unsafe fn bound<'a>(function: &'static str, at: *const CPool) -> Option<&'a Bound> {
    let fault = if at.is_null() {
        BadHandle::Null
    } else if !at.is_aligned() {
        BadHandle::Misaligned
    } else {
        // SAFETY: the caller's duty is passed on unchanged.
        match unsafe { POOLS.get((*at).handle) } {
            Ok(bound) => return Some(bound),
            Err(BadHandle::Null) => BadHandle::Destroyed,
            Err(fault) => fault,
        }
    };
    bad(function, "pool", fault);
    None
}

/// The same, as a pool.
///
/// # Safety
///
/// As [`live`].
unsafe fn pool<'a>(function: &'static str, at: *const CPool) -> Option<&'a Pool> {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { bound(function, at) }.map(|bound| &bound.pool)
}

/// What `pool_init` and `pool_cache_init` are told.
struct Wish {
    function: &'static str,
    name: *const c_char,
    size: usize,
    align: c_uint,
    offset: c_uint,
    flags: c_int,
    pages: *const PageAllocator,
    cache: Option<Callbacks>,
}

impl Wish {
    /// Makes a pool, which lies at `at`, or in its handle if that is null. Null after a report.
    ///
    /// # Safety
    ///
    /// The name is null or a string; the allocator is null or can be read, its functions and the callbacks are
    /// such as [`Pool::create_on`] and `PoolCache::create` say.
    unsafe fn make(self, at: *mut CPool) -> *mut CPool {
        let Self { function, name, size, align, offset, flags, pages, cache } = self;
        // SAFETY: the caller's duty is passed on unchanged.
        let name = unsafe { text(name) };
        let Some(name) = name else {
            SYSTEM.misuse(function, format_args!("the name is null"));
            return ptr::null_mut();
        };
        if offset != 0 {
            SYSTEM.misuse(
                function,
                format_args!("pool \"{name}\": an item offset of {offset}, which must be 0"),
            );
            return ptr::null_mut();
        }
        if !at.is_null() && list::contains(at) {
            SYSTEM.misuse(function, format_args!("pool \"{name}\": it is initialised already"));
            return ptr::null_mut();
        }
        // SAFETY: the caller's duty is passed on unchanged.
        let pages = unsafe { pages.as_ref() }.copied().filter(|pages| !pool::is_built_in(pages));
        let args = PoolArgs { align: align as usize, flags: PoolFlags::from_bits_retain(flags) };
        // SAFETY: as above.
        let made = unsafe { Pool::make(&name, size, args, pages, cache) };
        let fault = match made.map_err(|error| error.fault) {
            // SAFETY: the storage can be written.
            Ok(pool) => match unsafe { Self::bind(pool, at) } {
                Ok(at) => return at,
                Err(NoMemory) => ConfigFault::NoMemory,
            },
            Err(fault) => fault,
        };
        let what = format_args!("no pool \"{name}\": {fault}");
        if fault == ConfigFault::NoMemory {
            // Not the caller's fault.
            SYSTEM.report(function, what);
        } else {
            SYSTEM.misuse(function, what);
        }
        ptr::null_mut()
    }

    /// Lets C have a pool, which ends if there is no memory for that.
    ///
    /// # Safety
    ///
    /// The storage is null or can be written.
    unsafe fn bind(pool: Pool, at: *mut CPool) -> Result<*mut CPool, NoMemory> {
        let own = CPool { handle: ptr::null_mut() };
        let align = pool.align();
        let handle =
            POOLS.insert_aligned(Bound { pool, own, visitors: AtomicUsize::new(0) }, align)?;
        // SAFETY: the handle is new, so nobody else has the pool yet; the storage can be written.
        unsafe {
            let bound = POOLS.value(handle);
            let at = if at.is_null() { &raw mut (*bound).own } else { at };
            (*bound).pool.set_owner(at.cast());
            if let Err(error) = list::add(at, handle) {
                drop(POOLS.remove(handle));
                return Err(error);
            }
            (*at).handle = handle;
            Ok(at)
        }
    }
}

/// Ends a pool. Does nothing but report if items are out.
///
/// # Safety
///
/// As [`live`], and nobody uses the pool any more.
unsafe fn destroy(function: &'static str, at: *mut CPool) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe {
        let Some(found) = bound(function, at) else { return };
        let out = found.pool.out();
        if out != 0 {
            let mut some = Sample::default();
            found.pool.for_each_out(|item| some.add(item));
            let pool = &found.pool;
            SYSTEM.misuse(function, format_args!("{pool} busy: still out: {out}; it stays:{some}"));
            return;
        }
        list::remove(at);
        while found.visitors.load(Ordering::Acquire) != 0 {
            std::thread::yield_now();
        }
        let handle = (*at).handle;
        // That of `pool_cache_init` stays, so that it is known to be dead.
        if !ptr::eq(&raw const found.own, at) {
            (*at).handle = ptr::null_mut();
        }
        match POOLS.remove(handle) {
            Ok(bound) => drop(bound),
            Err(fault) => bad(function, "pool", fault),
        }
    }
}

/// Whether the flags of a get say exactly one of `PR_WAITOK` and `PR_NOWAIT`, and not `PR_ZERO`.
#[inline(always)]
const fn is_plain(flags: c_int) -> bool {
    is_clear(flags) && flags & PoolFlags::ZERO.bits() == 0
}

/// Whether the flags of a get say exactly one of `PR_WAITOK` and `PR_NOWAIT`.
#[inline(always)]
const fn is_clear(flags: c_int) -> bool {
    let ways = PoolFlags::WAITOK.bits() | PoolFlags::NOWAIT.bits();
    (flags & ways).count_ones() == 1
}

/// Gets an item.
///
/// # Safety
///
/// As [`live`].
#[cold]
#[inline(never)]
unsafe fn get_slow(function: &'static str, at: *mut CPool, flags: c_int) -> *mut c_void {
    // SAFETY: the caller's duty is passed on unchanged.
    let Some(pool) = (unsafe { pool(function, at) }) else { return ptr::null_mut() };
    if !is_clear(flags) {
        SYSTEM.misuse(
            function,
            format_args!(
                "{pool}: flags {flags:#x}: exactly one of PR_WAITOK and PR_NOWAIT is to be said"
            ),
        );
        return ptr::null_mut();
    }
    pool.get_or_null(PoolFlags::from_bits_retain(flags)).cast()
}

/// Puts an item after a look at it, by `how`; reports it if it is none.
///
/// # Safety
///
/// As [`live`]; if the item is one of the pool in use, it is used no more.
#[inline(never)]
unsafe fn put_slow(
    function: &'static str,
    at: *mut CPool,
    item: *mut c_void,
    how: unsafe fn(&Pool, NonNull<u8>),
) {
    // SAFETY: the caller's duty is passed on unchanged.
    let Some(pool) = (unsafe { pool(function, at) }) else { return };
    let Some(item) = NonNull::new(item.cast::<u8>()) else {
        SYSTEM.misuse(function, format_args!("{pool}: the item is null"));
        return;
    };
    let address: NonZeroUsize = item.addr();
    if !address.get().is_multiple_of(pool.align()) {
        let align = pool.align();
        SYSTEM.misuse(
            function,
            format_args!(
                "{pool}: {address:#x} is not aligned to {align} bytes, so it is no item of it"
            ),
        );
        return;
    }
    // The slabs panic at what is no item in use, and leave it alone.
    // SAFETY: the caller's duty is passed on unchanged.
    let put = catch_unwind(AssertUnwindSafe(|| unsafe { how(pool, item) }));
    if let Err(panic) = put {
        SYSTEM.misuse(function, format_args!("{pool}: {}", text_of(&*panic)));
    }
}
