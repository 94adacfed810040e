//! Bookkeeping memory from kegs.
//!
//! ```text
//!   buckets, slot arrays, outside headers, tables
//!        |  <= 4096 bytes: class 16, 32, 64, ... 4096      | more
//!        v                                                 v
//!   Keg<P, L, NoMetadata> (headers inside)            runs of whole pages
//!        `------------------------> P <--------------------'
//! ```
//!
//! Pieces of 256 bytes and more lie a cache line further apart than their class, so that slots and the headers of
//! buckets, which every hit touches, are spread over all sets of a CPU's caches.
//!
//! The kegs have headers inside and nothing in front of them, so whatever needs memory here leads
//! straight to the page supplier and never back.
//!
//! A large run ends with the byte that the supplier wants back:
//!
//! ```text
//!   | memory handed out                      | pad | flag |
//!   ^ base                                          ^ last byte of the run
//! ```
//!
//! Lock order: each keg's lock is a leaf. Nothing is held while pages are got or given back.

use core::alloc::Layout;
use core::ptr::NonNull;

use uma_core::{
    ItemSource, Metadata, PageRun, PageSupplier, Process, RawMutex, Reclaim, Request, Stats,
};

use crate::Keg;
use crate::layout::{SlabConfig, SlabLayout};
use crate::no_metadata::NoMetadata;
use crate::sync::{AtomicU64, Ordering};

const SMALLEST: usize = 16;
const LARGEST: usize = 4096;
/// A cache line. More would leave most of a small slab unused.
const MOST_ALIGN: usize = 64;
/// Classes from here on are spread over the sets of caches.
const COLOURED: usize = 256;
const CLASSES: usize = (LARGEST.ilog2() - SMALLEST.ilog2()) as usize + 1;

/// [`Metadata`] by kegs without caches, one per power of two from 16 to 4096 bytes; larger pieces are
/// runs of whole pages.
///
/// It is where buckets, slot arrays and outside headers come from (UMA's bucket zones and slab
/// zones). Dropped while memory is out, it leaves that memory alone.
pub struct MetaKegs<P: PageSupplier + Copy, L: RawMutex> {
    classes: [Keg<P, L>; CLASSES],
    pages: P,
    page_size: usize,
    large: AtomicU64,
}

impl<P: PageSupplier + Copy, L: RawMutex> MetaKegs<P, L> {
    /// Over pages of 4096 bytes or fewer. `P` is mostly a reference to a supplier.
    pub const fn new(pages: P) -> Self {
        Self::with_page_size(pages, 4096)
    }

    /// Over pages of `page_size` bytes: the supplier's own size or a multiple of it. It must be known before the
    /// supplier is asked, since this can be a `static`: where it is not, give the largest that can be. Of a
    /// supplier whose pages are larger still no memory can be had.
    ///
    /// # Panics
    ///
    /// If that is not a power of two from 64 bytes to 2 MiB.
    pub const fn with_page_size(pages: P, page_size: usize) -> Self {
        Self::with_slabs(pages, page_size, 64 << 10)
    }

    /// The same, with slabs of no more than `largest_slab` bytes, for suppliers of little memory (see
    /// [`SlabConfig::largest_slab`]).
    ///
    /// # Panics
    ///
    /// As [`with_page_size`](Self::with_page_size).
    pub const fn with_slabs(pages: P, page_size: usize, largest_slab: usize) -> Self {
        let slabs = SlabConfig::new().page_size(page_size).largest_slab(largest_slab);
        Self {
            classes: [
                Self::class(pages, slabs, 0),
                Self::class(pages, slabs, 1),
                Self::class(pages, slabs, 2),
                Self::class(pages, slabs, 3),
                Self::class(pages, slabs, 4),
                Self::class(pages, slabs, 5),
                Self::class(pages, slabs, 6),
                Self::class(pages, slabs, 7),
                Self::class(pages, slabs, 8),
            ],
            pages,
            page_size,
            large: AtomicU64::new(0),
        }
    }

    /// How far pieces of a class are apart. From [`COLOURED`] on, a cache line more than the class: else one CPU's
    /// slots, and the headers of all buckets, would lie in few sets of its caches, and often in those that the
    /// first words of items lie in.
    const fn stride(class: usize) -> usize {
        if class < COLOURED { class } else { class + MOST_ALIGN }
    }

    const fn class(pages: P, slabs: SlabConfig, class: usize) -> Keg<P, L> {
        let size = Self::stride(SMALLEST << class);
        let align = if size < MOST_ALIGN { size } else { MOST_ALIGN };
        let Ok(item) = Layout::from_size_align(size, align) else {
            panic!("a power of two is a good alignment");
        };
        match SlabLayout::new(item, slabs) {
            Ok(layout) => Keg::with_layout(pages, NoMetadata, layout),
            Err(_) => panic!("the page size must be a power of two from 64 bytes to 2 MiB"),
        }
    }

    /// The keg for a layout, or `None` if that takes pages of its own.
    fn keg(&self, layout: Layout) -> Option<&Keg<P, L>> {
        let size = layout.size().max(layout.align()).max(SMALLEST);
        if size > LARGEST || layout.align() > MOST_ALIGN {
            return None;
        }
        // The bit length of `size - 1` is the power of two to round up to.
        let power = usize::BITS - (size - 1).leading_zeros();
        Some(&self.classes[(power - SMALLEST.ilog2()) as usize])
    }

    /// The run for a layout of its own, with room for the flag byte.
    fn run(&self, layout: Layout) -> Option<Layout> {
        let size = layout.size().checked_add(1)?.checked_next_multiple_of(self.page_size)?;
        Layout::from_size_align(size, layout.align().max(self.page_size)).ok()
    }

    /// Gives slabs back that are wholly free, and free pages of others.
    pub fn reclaim(&self) {
        for keg in &self.classes {
            keg.reclaim(Reclaim::Drain);
        }
    }

    /// Takes every lock and keeps it, for fork(2). See [`ItemSource::prefork`].
    pub fn prefork(&self) {
        self.classes.iter().for_each(ItemSource::prefork);
    }

    /// Lets go of what [`prefork`](Self::prefork) took.
    ///
    /// # Safety
    ///
    /// As [`ItemSource::postfork`].
    pub unsafe fn postfork(&self, process: Process) {
        for keg in &self.classes {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { keg.postfork(process) };
        }
    }

    /// Bytes of pages held.
    pub fn bytes(&self) -> u64 {
        let mut bytes = self.large.load(Ordering::Relaxed);
        for keg in &self.classes {
            let mut stats = Stats::default();
            keg.visit_stats(&mut stats);
            bytes += stats.bytes;
        }
        bytes
    }

    fn alloc_large(&self, layout: Layout) -> Option<NonNull<u8>> {
        let layout = self.run(layout)?;
        let run = self.pages.alloc_pages(layout, Request::NOWAIT).ok()?;
        self.large.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the run is ours, and this is its last byte, which is not handed out.
        unsafe { run.base().add(layout.size() - 1).write(run.flag()) };
        Some(run.base())
    }

    /// Gives a large piece back.
    ///
    /// # Safety
    ///
    /// It came from `alloc_large` with this layout, and is used no more.
    unsafe fn free_large(&self, at: NonNull<u8>, layout: Layout) {
        let Some(layout) = self.run(layout) else {
            debug_assert!(false, "no such run can have been handed out");
            return;
        };
        // SAFETY: the caller's memory is the start of a run of that layout, which ends with the flag.
        let run = unsafe {
            let flag = at.add(layout.size() - 1).read();
            PageRun::from_parts(at, layout, false, flag)
        };
        // SAFETY: the run came from there, whole, and is used no more.
        unsafe { self.pages.free_pages(run) };
        self.large.fetch_sub(layout.size() as u64, Ordering::Relaxed);
    }
}

// SAFETY: memory comes from kegs of items at least as large and as aligned as asked for, or from
// runs of its own. Neither leads to a zone with caches: the kegs take nothing but pages. Giving back
// what did not come from here is the caller's breach; it alone makes a keg panic.
unsafe impl<P: PageSupplier + Copy, L: RawMutex> Metadata for MetaKegs<P, L> {
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.alloc_meta_for(layout, Request::NOWAIT)
    }

    fn alloc_meta_for(&self, layout: Layout, request: Request) -> Option<NonNull<u8>> {
        match self.keg(layout) {
            Some(keg) => keg.alloc(request).ok().map(uma_core::Item::as_non_null),
            None if request.may_take_pages() => self.alloc_large(layout),
            None => None,
        }
    }

    unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
        match self.keg(layout) {
            // SAFETY: the same layout leads to the same keg, of which the caller owns this item.
            Some(keg) => unsafe { keg.free(at.into()) },
            // SAFETY: the caller's duty is passed on unchanged.
            None => unsafe { self.free_large(at, layout) },
        }
    }
}

impl<P: PageSupplier + Copy, L: RawMutex> core::fmt::Debug for MetaKegs<P, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("MetaKegs").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}
