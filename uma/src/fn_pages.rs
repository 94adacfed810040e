//! A page supplier made of functions.

use core::alloc::Layout;
use core::ptr::NonNull;

use uma_core::{PageError, PageRun, PageSupplier, Request};

/// Supplies a run (`uma_alloc` of zone(9)): memory of this layout, or null. It may set the flag byte, which
/// comes back with the run.
pub type AllocPages =
    unsafe fn(context: *mut (), layout: Layout, flag: &mut u8, request: Request) -> *mut u8;

/// Takes a run back (`uma_free` of zone(9)), with its layout and its flag byte.
pub type FreePages = unsafe fn(context: *mut (), run: *mut u8, layout: Layout, flag: u8);

/// Pages by two functions and a context: what `uma_zone_set_allocf` and `uma_zone_set_freef` name. Where a
/// type can do it, implement [`PageSupplier`] instead.
///
/// The originals take a size and expect memory aligned to a page. A slab of several small items is aligned
/// to its size here; a supplier that aligns to pages only goes with
/// [`WithPages::largest_slab`](crate::WithPages::largest_slab), of one page. What comes unaligned goes back
/// at once.
///
/// ```
/// use std::alloc::Layout;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use uma::{FnPages, Host, RawZone, WithPages, core::Request};
///
/// static OUT: AtomicUsize = AtomicUsize::new(0);
///
/// unsafe fn allocf(context: *mut (), layout: Layout, flag: &mut u8, _: Request) -> *mut u8 {
///     *flag = 7;
///     // SAFETY: the context is the counter below, and a run has a size.
///     unsafe {
///         (*context.cast::<AtomicUsize>()).fetch_add(1, Ordering::Relaxed);
///         std::alloc::alloc(layout)
///     }
/// }
///
/// unsafe fn freef(context: *mut (), run: *mut u8, layout: Layout, flag: u8) {
///     assert_eq!(flag, 7);
///     // SAFETY: as above, and the run came from there with this layout.
///     unsafe {
///         (*context.cast::<AtomicUsize>()).fetch_sub(1, Ordering::Relaxed);
///         std::alloc::dealloc(run, layout);
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let context = (&raw const OUT).cast_mut().cast();
/// // SAFETY: the heap supplies what is asked for, on any thread, and the counter is static.
/// let pages = unsafe { FnPages::new(4096, context, allocf, freef) };
/// // SAFETY: all copies lead to the same heap, which is always there.
/// let platform = unsafe { WithPages::from_parts(Host, pages) };
/// let zone = RawZone::builder_in("frame", Layout::new::<[u8; 1500]>(), platform).build()?;
/// let frame = zone.alloc(Request::WAIT)?;
/// assert_eq!(OUT.load(Ordering::Relaxed), 1);
/// // SAFETY: the item came from this zone and is not used any more.
/// unsafe { zone.free(frame) };
/// drop(zone);
/// assert_eq!(OUT.load(Ordering::Relaxed), 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FnPages {
    page_size: usize,
    context: *mut (),
    alloc: AllocPages,
    free: FreePages,
}

// SAFETY: the caller of `new` promised that the functions may be called on any thread, with the context.
unsafe impl Send for FnPages {}
// SAFETY: as above, by several at a time.
unsafe impl Sync for FnPages {}

impl FnPages {
    /// Pages of `page_size` bytes by these functions.
    ///
    /// # Panics
    ///
    /// If `page_size` is no power of two.
    ///
    /// # Safety
    ///
    /// - `alloc` returns null, or memory that keeps the promises of [`PageSupplier`] for the layout, but that
    ///   it may be aligned to less; what it returned it accepts in `free`, with that layout and the flag byte
    ///   that it set (0 if it set none).
    /// - Both may be called with this context from any thread, by several at a time, for as long as the value
    ///   or a copy of it exists. They do not unwind, and call no zone that stands on this supplier.
    pub const unsafe fn new(
        page_size: usize,
        context: *mut (),
        alloc: AllocPages,
        free: FreePages,
    ) -> Self {
        assert!(page_size.is_power_of_two(), "the page size must be a power of two");
        Self { page_size, context, alloc, free }
    }
}

// SAFETY: runs are what `alloc` returns, which keeps the promises, as the caller of `new` says; and if it
// is aligned to less than was asked for, it is not handed out.
unsafe impl PageSupplier for FnPages {
    fn page_size(&self) -> usize {
        self.page_size
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        PageError::check(layout, self.page_size)?;
        let mut flag = 0;
        // SAFETY: the caller of `new` allows the call.
        let at = unsafe { (self.alloc)(self.context, layout, &mut flag, request) };
        let base = NonNull::new(at).ok_or(PageError::Exhausted)?;
        if !base.addr().get().is_multiple_of(layout.align()) {
            // SAFETY: it came from there just now, with this layout and flag.
            unsafe { (self.free)(self.context, at, layout, flag) };
            return Err(PageError::BadAlign);
        }
        // SAFETY: it is ours and has this layout.
        Ok(unsafe { PageRun::from_parts(base, layout, false, flag) })
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: the run came from `alloc`, with this layout and flag, and is given up.
        unsafe { (self.free)(self.context, run.base().as_ptr(), run.layout(), run.flag()) }
    }
}
