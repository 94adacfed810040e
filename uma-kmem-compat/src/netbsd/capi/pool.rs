//! `pool_*`.

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::fmt;
use core::ptr;
use std::time::Duration;

use uma::core::{PageRun, PageSupplier, Request};
use uma::{Host, Platform};

use super::boundary;
use super::{
    CPool, NO_MEMORY, Wish, bound, destroy, get_slow, is_clear, list, live, pool, put_slow,
};
use crate::common::memory::owned;
use crate::common::{Line, text};
use crate::netbsd::{
    DrainHook, HardLimitWarning, PageAllocator, PassiveSerialize, Pool, PoolFlags, PoolStats,
    SYSTEM, set_pserialize,
};

/// Prints, as `printf`.
type Print = unsafe extern "C-unwind" fn(*const c_char, ...);

/// The size of the pages of [`uma_netbsd_pool_page_alloc`].
const PAGE: usize = 4096;

/// Whether pages come from the system, in runs of whatever size suits.
pub(super) fn is_built_in(pages: &PageAllocator) -> bool {
    let own = uma_netbsd_pool_page_alloc as unsafe extern "C-unwind" fn(_, _) -> _;
    pages.alloc.is_some_and(|alloc| ptr::fn_addr_eq(alloc, own))
}

/// `pool_allocator_kmem`, `pool_allocator_nointr`, `pool_allocator_meta`: the same, here.
macro_rules! built_in {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        static $name: PageAllocator = PageAllocator {
            alloc: Some(uma_netbsd_pool_page_alloc),
            free: Some(uma_netbsd_pool_page_free),
            page_size: PAGE as c_uint,
        };
    )*};
}

built_in! {
    uma_netbsd_pool_allocator_kmem
    uma_netbsd_pool_allocator_nointr
    uma_netbsd_pool_allocator_meta
}

fn page_layout() -> core::alloc::Layout {
    const LAYOUT: core::alloc::Layout = match core::alloc::Layout::from_size_align(PAGE, PAGE) {
        Ok(layout) => layout,
        Err(_) => panic!("a power of two"),
    };
    LAYOUT
}

/// A page of the system's, or null, for allocators of the program to stand on. Of the type of their functions; it does
/// not unwind.
#[unsafe(no_mangle)]
extern "C-unwind" fn uma_netbsd_pool_page_alloc(_: *mut c_void, _flags: c_int) -> *mut c_void {
    boundary("pool_page_alloc", || {
        let run = Host.pages().alloc_pages(page_layout(), Request::NOWAIT);
        run.map_or(ptr::null_mut(), |run| run.base().as_ptr().cast())
    })
}

/// # Safety
///
/// The page came from [`uma_netbsd_pool_page_alloc`] and is used no more.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn uma_netbsd_pool_page_free(_: *mut c_void, page: *mut c_void) {
    boundary("pool_page_free", || match ptr::NonNull::new(page.cast::<u8>()) {
        // SAFETY: it came from there with this layout and the flag of a run of one page, which is 0.
        Some(base) => unsafe {
            Host.pages().free_pages(PageRun::from_parts(base, page_layout(), false, 0));
        },
        None => SYSTEM.misuse("pool_page_free", format_args!("the page is null")),
    });
}

/// # Safety
///
/// As [`Wish::make`]; `at` can be written, and is the pool's until it is destroyed.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_init(
    at: *mut CPool,
    size: usize,
    align: c_uint,
    offset: c_uint,
    flags: c_int,
    name: *const c_char,
    pages: *const PageAllocator,
    _level: c_int,
) {
    const NAME: &str = "pool_init";
    boundary(NAME, || {
        if at.is_null() || !at.is_aligned() {
            let why = if at.is_null() { "null" } else { "misaligned" };
            SYSTEM.misuse(NAME, format_args!("the pool is {why}"));
            return;
        }
        let wish = Wish { function: NAME, name, size, align, offset, flags, pages, cache: None };
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            if wish.make(at).is_null() && !list::contains(at) {
                at.write(CPool { handle: ptr::null_mut() });
            }
        }
    });
}

/// # Safety
///
/// As [`destroy`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_destroy(at: *mut CPool) {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("pool_destroy", || unsafe { destroy("pool_destroy", at) });
}

/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_get(at: *mut CPool, flags: c_int) -> *mut c_void {
    boundary("pool_get", || {
        // SAFETY: the caller's duty is passed on unchanged.
        match unsafe { live(at) } {
            Some(found) if is_clear(flags) => {
                found.pool.get_slow(PoolFlags::from_bits_retain(flags)).cast()
            }
            // SAFETY: as above.
            _ => unsafe { get_slow("pool_get", at, flags) },
        }
    })
}

/// # Safety
///
/// As [`live`]; the item came from the pool, and is used no more.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_put(at: *mut CPool, item: *mut c_void) {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("pool_put", || unsafe { put_slow("pool_put", at, item, |pool, item| pool.put(item)) });
}

/// 0, or `ENOMEM`.
///
/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn uma_netbsd_pool_prime(at: *mut CPool, count: c_int) -> c_int {
    const NAME: &str = "pool_prime";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(pool) = (unsafe { pool(NAME, at) }) else { return NO_MEMORY };
        let count = u64::try_from(count).unwrap_or(0);
        pool.prime(count).map_or(NO_MEMORY, |()| 0)
    })
}

/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn uma_netbsd_pool_setlowat(at: *mut CPool, count: c_int) {
    const NAME: &str = "pool_setlowat";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(pool) = unsafe { pool(NAME, at) } {
            pool.set_low_water(u64::try_from(count).unwrap_or(0));
        }
    });
}

/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn uma_netbsd_pool_sethiwat(at: *mut CPool, count: c_int) {
    const NAME: &str = "pool_sethiwat";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(pool) = unsafe { pool(NAME, at) } {
            pool.set_high_water(u64::try_from(count).unwrap_or(u64::MAX));
        }
    });
}

/// # Safety
///
/// As [`live`]; the warning is null or a string.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn uma_netbsd_pool_sethardlimit(
    at: *mut CPool,
    count: c_int,
    warning: *const c_char,
    ratecap: c_int,
) {
    const NAME: &str = "pool_sethardlimit";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let (pool, warning) = unsafe { (pool(NAME, at), text(warning)) };
        let Some(pool) = pool else { return };
        let ratecap = Duration::from_secs(u64::try_from(ratecap).unwrap_or(0));
        let wanted = warning.is_some();
        let text = warning.and_then(|text| owned(&text).ok());
        let warning = text.map(|text| HardLimitWarning { text, ratecap });
        let kept = wanted == warning.is_some();
        // The count is unsigned in there, so what is negative is more than there can ever be.
        if !pool.set_hard_limit(u64::try_from(count).ok(), warning) || !kept {
            SYSTEM.report(NAME, format_args!("{pool}: no memory for the warning"));
        }
    });
}

/// # Safety
///
/// As [`live`] and [`Pool::set_drain_hook`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn uma_netbsd_pool_set_drain_hook(
    at: *mut CPool,
    hook: Option<DrainHook>,
    argument: *mut c_void,
) {
    const NAME: &str = "pool_set_drain_hook";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(pool) = unsafe { pool(NAME, at) } {
            // SAFETY: as above.
            unsafe { pool.set_drain_hook(hook, argument) };
        }
    });
}

/// 1 if any page went, else 0.
///
/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn uma_netbsd_pool_reclaim(at: *mut CPool) -> c_int {
    boundary("pool_reclaim", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let pool = unsafe { pool("pool_reclaim", at) };
        pool.is_some_and(Pool::reclaim).into()
    })
}

/// Reclaims the next pool that has pages, and says which it was. Whether any page went.
///
/// # Safety
///
/// `which` is null or can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_drain(which: *mut *mut CPool) -> bool {
    boundary("pool_drain", || {
        let drained = list::in_turn(|at, bound| (at, bound.pool.reclaim()));
        let (at, went) = drained.unwrap_or((ptr::null_mut(), false));
        if !which.is_null() {
            // SAFETY: the caller says that it can be written.
            unsafe { which.write(at) };
        }
        went
    })
}

/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn uma_netbsd_pool_nget(at: *mut CPool) -> c_uint {
    boundary("pool_nget", || {
        // SAFETY: the caller's duty is passed on unchanged. The figure is one of 32 bits, which wrap.
        unsafe { pool("pool_nget", at) }.map_or(0, |pool| pool.stats().gets as c_uint)
    })
}

/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn uma_netbsd_pool_nput(at: *mut CPool) -> c_uint {
    boundary("pool_nput", || {
        // SAFETY: the caller's duty is passed on unchanged. The figure is one of 32 bits, which wrap.
        unsafe { pool("pool_nput", at) }.map_or(0, |pool| pool.stats().puts as c_uint)
    })
}

/// System pages that all pools have.
#[unsafe(no_mangle)]
extern "C" fn uma_netbsd_pool_totalpages() -> c_int {
    boundary("pool_totalpages", || {
        let mut bytes = 0;
        list::for_each(|_, bound| bytes += bound.pool.bytes());
        c_int::try_from(bytes / PAGE as u64).unwrap_or(c_int::MAX)
    })
}

/// Fills in the figures of a pool. 0, or -1.
///
/// # Safety
///
/// As [`live`]; `stats` can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_get_stats(at: *mut CPool, stats: *mut PoolStats) -> c_int {
    boundary("uma_netbsd_pool_get_stats", || {
        // SAFETY: the caller's duty is passed on unchanged.
        match unsafe { pool("uma_netbsd_pool_get_stats", at) } {
            Some(pool) if !stats.is_null() => {
                // SAFETY: the caller says that it can be written.
                unsafe { stats.write(pool.stats()) };
                0
            }
            _ => -1,
        }
    })
}

/// 0 if counts and pages agree, else 1 after a report.
///
/// # Safety
///
/// As [`live`]; the label is null or a string.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_chk(at: *mut CPool, label: *const c_char) -> c_int {
    boundary("pool_chk", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let (pool, label) = unsafe { (pool("pool_chk", at), text(label)) };
        let Some(pool) = pool else { return 1 };
        if pool.is_consistent() {
            return 0;
        }
        let label = label.as_deref().unwrap_or("");
        SYSTEM.report("pool_chk", format_args!("{label}: {pool}: counts and pages do not agree"));
        1
    })
}

/// Prints a line by `print`, or on the standard output.
fn print_line(print: Option<Print>, line: fmt::Arguments<'_>) {
    match print {
        None => println!("{line}"),
        Some(print) => {
            let line = Line::of(format_args!("{line}\n"));
            const FORMAT: &CStr = c"%s";
            // SAFETY: it is one like printf, and gets a format and what that asks for.
            unsafe { print(FORMAT.as_ptr(), line.as_c_str().as_ptr()) };
        }
    }
}

/// One line, in the order of the kernel's debugger.
fn print_pool(print: Option<Print>, pool: &Pool) {
    let stats = pool.stats();
    print_line(
        print,
        format_args!(
            "{pool}: size {}, align {}, npages {}, nitems {}, nout {}, nget {}, nput {}, npagealloc {}, \
         npagefree {}, nidle {}",
            stats.size,
            stats.align,
            stats.pages,
            stats.free,
            stats.out,
            stats.gets,
            stats.puts,
            stats.page_allocs,
            stats.page_frees,
            stats.idle
        ),
    );
}

/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_printit(
    at: *mut CPool,
    _modifiers: *const c_char,
    print: Option<Print>,
) {
    boundary("pool_printit", || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(pool) = unsafe { pool("pool_printit", at) } {
            print_pool(print, pool);
        }
    });
}

/// # Safety
///
/// `print` is like printf.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_printall(_modifiers: *const c_char, print: Option<Print>) {
    boundary("pool_printall", || {
        list::for_each(|_, bound| print_pool(print, &bound.pool));
    });
}

/// Prints in which items in use an address lies.
///
/// # Safety
///
/// `print` is like printf.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_whatis(address: usize, print: Option<Print>) {
    boundary("pool_whatis", || {
        list::for_each(|_, bound| {
            let mut found = None;
            bound.pool.for_each_out(|item| {
                let start = item.addr().get();
                if (start..start + bound.pool.size()).contains(&address) {
                    found = Some(start);
                }
            });
            if let Some(start) = found {
                let (pool, offset) = (&bound.pool, address - start);
                print_line(
                    print,
                    format_args!("{address:#x} is {start:#x}+{offset} in {pool} (allocated)"),
                );
            }
        });
    });
}

/// # Safety
///
/// The function may be called from any thread.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_set_pserialize(perform: Option<PassiveSerialize>) {
    boundary("uma_netbsd_set_pserialize", || set_pserialize(perform));
}

/// Items in use, exactly.
///
/// # Safety
///
/// As [`live`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_netbsd_pool_nout(at: *mut CPool) -> u64 {
    boundary("uma_netbsd_pool_nout", || {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { bound("uma_netbsd_pool_nout", at) }.map_or(0, |bound| bound.pool.out())
    })
}
