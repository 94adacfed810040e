//! Runs of pages, and who supplies them.

use core::alloc::Layout;
use core::ptr::NonNull;

use crate::{Decommit, PageError, Protect, Regions, Request};

/// A run of pages, owned by whoever holds the value.
///
/// ```text
///   base                                     base + layout.size()
///    |  page  |  page  |  page  |  page  |  page  |
///    `- a multiple of layout.align()
/// ```
///
/// It is not `Clone`: the value stands for the memory. Take it apart with the accessors and put it
/// together with [`PageRun::from_parts`] where it must be kept in a smaller form.
#[derive(Debug)]
#[must_use = "dropping a page run leaks its pages: give it back with `free_pages`"]
pub struct PageRun {
    base: NonNull<u8>,
    layout: Layout,
    zeroed: bool,
    flag: u8,
}

// SAFETY: a run is exclusively owned memory; nothing about it belongs to a thread.
unsafe impl Send for PageRun {}

impl PageRun {
    /// Puts a run together.
    ///
    /// # Safety
    ///
    /// `base` must be the start of memory that satisfies the contract of [`PageSupplier`] for
    /// `layout`, the caller must own it, and if `zeroed` is set every byte of it must be zero.
    pub const unsafe fn from_parts(
        base: NonNull<u8>,
        layout: Layout,
        zeroed: bool,
        flag: u8,
    ) -> Self {
        Self { base, layout, zeroed, flag }
    }

    /// The first byte.
    pub const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The layout that was asked for.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Whether every byte is known to be zero.
    pub const fn is_zeroed(&self) -> bool {
        self.zeroed
    }

    /// A byte that belongs to the supplier: it sets it on allocation and finds it again on free,
    /// as `pflag` of `uma_alloc` and `uma_free` in zone(9).
    pub const fn flag(&self) -> u8 {
        self.flag
    }
}

/// Supplies runs of pages: the one thing a zone needs from the system.
///
/// It is `uma_alloc` and `uma_free` of zone(9), or the page level of a kernel. Three methods and an
/// implementation is done; extra powers are extension traits, and a supplier that has one says so by
/// a provided method: [`decommits`](Self::decommits), [`protects`](Self::protects),
/// [`regions`](Self::regions).
///
/// # Safety
///
/// An implementation promises that a run returned by [`alloc_pages`](Self::alloc_pages)
///
/// - is valid for reads and writes of `layout.size()` bytes and aligned to `layout.align()`,
/// - overlaps no other live run and no memory that anything else uses, and
/// - stays so until it is given to [`free_pages`](Self::free_pages), also if the supplier is moved;
///
/// that [`page_size`](Self::page_size) always returns the same power of two; and that no method
/// unwinds, or allocates from a zone that stands on this supplier.
///
/// # Example
///
/// A whole supplier, over the global allocator:
///
/// ```
/// use core::alloc::Layout;
/// use core::ptr::NonNull;
/// use uma_core::{PageError, PageRun, PageSupplier, Request};
///
/// struct Heap;
///
/// // SAFETY: the global allocator keeps the same promises for non-zero layouts.
/// unsafe impl PageSupplier for Heap {
///     fn page_size(&self) -> usize {
///         4096
///     }
///     fn alloc_pages(&self, layout: Layout, _: Request) -> Result<PageRun, PageError> {
///         PageError::check(layout, self.page_size())?;
///         // SAFETY: `check` refused a size of zero.
///         let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) });
///         let base = base.ok_or(PageError::Exhausted)?;
///         // SAFETY: the memory is ours, has this layout, and is zeroed.
///         Ok(unsafe { PageRun::from_parts(base, layout, true, 0) })
///     }
///     unsafe fn free_pages(&self, run: PageRun) {
///         // SAFETY: the run came from `alloc_pages` above, with this layout.
///         unsafe { std::alloc::dealloc(run.base().as_ptr(), run.layout()) }
///     }
/// }
/// # let run = Heap.alloc_pages(Layout::from_size_align(8192, 8192).unwrap(), Request::NOWAIT).unwrap();
/// # unsafe { Heap.free_pages(run) };
/// ```
pub unsafe trait PageSupplier {
    /// The size of a page in bytes, a power of two.
    fn page_size(&self) -> usize;

    /// A run of pages of exactly `layout`.
    ///
    /// The size must be a positive multiple of [`page_size`](Self::page_size); the alignment is
    /// honoured exactly, also above the page size. Contents are unspecified unless the run says that
    /// it is zeroed. May block only if `request` may wait.
    ///
    /// # Errors
    ///
    /// [`PageError`] says whether the request could never be met or there is nothing left just now.
    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError>;

    /// Takes a run back.
    ///
    /// # Safety
    ///
    /// `run` came from `alloc_pages` of this supplier, whole, nothing uses its memory any more, and
    /// none of its pages is [protected](Protect).
    unsafe fn free_pages(&self, run: PageRun);

    /// The power to give back the memory behind part of a live run of this supplier, if it has that.
    ///
    /// Who implements [`Decommit`] says so here: `Some(self)`. An adaptor that passes runs through
    /// unchanged passes on what the supplier below it says.
    fn decommits(&self) -> Option<&dyn Decommit> {
        None
    }

    /// The power to make pages of a live run of this supplier inaccessible, if it has that.
    ///
    /// Said as [`decommits`](Self::decommits) is.
    fn protects(&self) -> Option<&dyn Protect> {
        None
    }

    /// The memory that runs of this supplier lie in, if it can tell.
    ///
    /// Said as [`decommits`](Self::decommits) is.
    fn regions(&self) -> Option<&dyn Regions> {
        None
    }
}

// SAFETY: forwards to an implementation that keeps the contract.
unsafe impl<P: PageSupplier + ?Sized> PageSupplier for &P {
    fn page_size(&self) -> usize {
        (**self).page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        (**self).alloc_pages(layout, request)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).free_pages(run) }
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        (**self).decommits()
    }

    fn protects(&self) -> Option<&dyn Protect> {
        (**self).protects()
    }

    fn regions(&self) -> Option<&dyn Regions> {
        (**self).regions()
    }
}
