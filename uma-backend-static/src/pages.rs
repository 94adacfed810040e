//! The supplier.

use core::alloc::Layout;
use core::ptr::NonNull;

use uma_core::{PageError, PageRun, PageSupplier, RawMutex, Region, Regions, Request};

use crate::free::Marks;
use crate::part::{Book, Books, Part};
use crate::region::{Extent, Plan, StaticMemory};
use crate::sync::{AtomicUsize, Mutex, Ordering};
use crate::{AddError, StaticStats};

/// Supplies runs of pages from regions of memory that it is given.
///
/// `L` is the lock, `PAGE` the page size. The lowest run that fits is taken, aligned to any power of
/// two, of the first region that has one; freed runs coalesce. When nothing fits it says
/// [`PageError::Exhausted`], and [`PageError::BadAlign`] if no page of any region is aligned as asked.
///
/// Nothing is written before the first call, which sets up the bitmap under the lock.
///
/// ```
/// use core::alloc::Layout;
/// use uma_backend_static::{StaticMemory, StaticPages};
/// use uma_core::{PageSupplier, Request};
///
/// static MEMORY: StaticMemory<{ 65 * 4096 }> = StaticMemory::new();
/// static MORE: StaticMemory<{ 17 * 4096 }> = StaticMemory::new();
/// static PAGES: StaticPages<spin::Mutex<()>> = StaticPages::new(&MEMORY);
///
/// let run = PAGES.alloc_pages(Layout::from_size_align(8192, 8192)?, Request::NOWAIT)?;
/// // SAFETY: the run is whole and was not used.
/// unsafe { PAGES.free_pages(run) };
/// assert_eq!(PAGES.stats().free, 64);
/// PAGES.add(&MORE)?;
/// assert_eq!(PAGES.stats().free, 80);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A zone that begins on boot memory and goes on without:
///
/// ```
/// use core::alloc::Layout;
/// use uma_backend_static::{StaticMemory, StaticPages};
/// use uma_core::{Handover, ItemSource, PageSupplier, Request};
/// use uma_keg::{Keg, SlabConfig};
///
/// type Lock = spin::Mutex<()>;
/// type Boot = StaticPages<Lock>;
/// static MEMORY: StaticMemory<{ 9 * 4096 }> = StaticMemory::new();
/// # static LATER: StaticMemory<{ 9 * 4096 }> = StaticMemory::new();
/// # let system: Boot = StaticPages::new(&LATER);
/// static PAGES: Handover<Boot, Boot> = Handover::new(StaticPages::new(&MEMORY));
///
/// let keg = Keg::<_, Lock>::new(&PAGES, Layout::new::<[u64; 4]>(), SlabConfig::new())?;
/// let early = keg.alloc(Request::NOWAIT)?;
/// assert!(PAGES.first().contains(early.as_ptr()));
/// // The system's own pages are there. SAFETY: they share no memory with the array.
/// unsafe { PAGES.hand_over(system) }?;
/// keg.prealloc(1)?;
/// assert_eq!(PAGES.later().unwrap().stats().free, 4, "the next slab comes from there");
/// // SAFETY: the item came from this keg and is used no more.
/// unsafe { keg.free(early) };
/// drop(keg);
/// assert_eq!(PAGES.first().stats().free, 8, "and the first one goes back where it came from");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StaticPages<L: RawMutex, const PAGE: usize = 4096> {
    /// The first region; of length 0 if there was none to begin with.
    region: Extent,
    /// Whether the memory is one that another supplier may claim, and zero where never handed out.
    shared: bool,
    /// [`UNTOUCHED`], until it is [`OURS`] or [`NOTHING`] for ever.
    found: AtomicUsize,
    added: Books,
    /// Of the first region, once it is ours.
    state: Mutex<L, Option<(Plan, Marks)>>,
}

/// Nobody has looked at the first region.
const UNTOUCHED: usize = 0;
/// The first region is set up.
const OURS: usize = 1;
/// It is too small for a page, or claimed by another supplier.
const NOTHING: usize = 2;

impl<L: RawMutex, const PAGE: usize> StaticPages<L, PAGE> {
    const CHECK: () = assert!(
        PAGE.is_power_of_two() && PAGE >= align_of::<u64>(),
        "the page size must be a power of two of at least 8 bytes"
    );

    /// A supplier over a `static` array.
    ///
    /// If two are made over the same array, the first to be used has it all, and the other has
    /// nothing.
    pub const fn new<const N: usize>(memory: &'static StaticMemory<N>) -> Self {
        Self::over(Extent { base: memory.base(), len: N }, true)
    }

    /// A supplier over the `len` bytes from `base`, at any alignment.
    ///
    /// # Safety
    ///
    /// The memory is valid for reads and writes, and nothing else uses it, for as long as the
    /// supplier or a run of it exists; and `base` may be used for all of it (it has the provenance).
    pub const unsafe fn from_raw(base: NonNull<u8>, len: usize) -> Self {
        Self::over(Extent { base, len }, false)
    }

    /// A supplier without memory: [`add`](Self::add) some.
    pub const fn empty() -> Self {
        Self::over(Extent { base: NonNull::dangling(), len: 0 }, false)
    }

    const fn over(region: Extent, shared: bool) -> Self {
        const { Self::CHECK }
        let found = AtomicUsize::new(UNTOUCHED);
        Self { region, shared, found, added: Books::new(), state: Mutex::new(None) }
    }

    /// Adds a `static` array, which is used when those before it have no run that fits. It takes about
    /// a hundred bytes more for bookkeeping than the first one, and stays for ever.
    ///
    /// # Errors
    ///
    /// If it is too small, or there already, or another supplier has it.
    pub fn add<const N: usize>(&self, memory: &'static StaticMemory<N>) -> Result<(), AddError> {
        // SAFETY: a `StaticMemory` is there for ever, and is used only by who claims it.
        unsafe { self.add_extent(Extent { base: memory.base(), len: N }, true) }
    }

    /// Adds the `len` bytes from `base`, as [`add`](Self::add) does: what else the firmware found.
    ///
    /// # Errors
    ///
    /// If there is no room for a page, or a byte of it belongs to a region that is there; nothing was
    /// written then.
    ///
    /// # Safety
    ///
    /// As for [`from_raw`](Self::from_raw).
    pub unsafe fn add_raw(&self, base: NonNull<u8>, len: usize) -> Result<(), AddError> {
        // SAFETY: passed on to the caller.
        unsafe { self.add_extent(Extent { base, len }, false) }
    }

    /// # Safety
    ///
    /// The memory may be used as [`from_raw`](Self::from_raw) says; if `shared`, by who claims it.
    unsafe fn add_extent(&self, extent: Extent, shared: bool) -> Result<(), AddError> {
        let plan = extent.plan(PAGE, size_of::<Book>()).ok_or(AddError::TooSmall)?;
        let mut there = self.added.iter().map(|book| book.extent).chain([self.region]);
        if there.any(|other| other.overlaps(extent)) {
            return Err(AddError::Overlaps);
        }
        if shared && !extent.claim(plan) {
            return Err(AddError::Claimed);
        }
        // SAFETY: the memory is ours, by the claim or by the caller's promise; `plan` left room for a
        // book.
        let book = unsafe { Book::write(extent, plan, shared) };
        let _lock = self.state.lock();
        // SAFETY: it was written just now, and the lock is held.
        unsafe { self.added.append(book) };
        Ok(())
    }

    /// Whether `at` lies in one of the regions, their bookkeeping and trimmed ends included. Takes no
    /// lock, but at the first use.
    pub fn contains(&self, at: *const u8) -> bool {
        (self.region.contains(at) && self.has_first())
            || self.added.iter().any(|book| book.extent.contains(at))
    }

    /// Figures of the moment. Searches all bitmaps for the longest free run.
    pub fn stats(&self) -> StaticStats {
        let mut stats = StaticStats::default();
        self.find(|part| {
            stats.total += part.map.marks.total;
            stats.free += part.map.marks.free;
            stats.largest = stats.largest.max(part.map.largest());
            stats.regions += 1;
            None::<()>
        });
        stats
    }

    /// Runs `f` on one region after the other under the lock, until it has found what it looks for.
    fn find<R>(&self, mut f: impl FnMut(&mut Part<'_>) -> Option<R>) -> Option<R> {
        let mut state = self.state.lock();
        if self.found.load(Ordering::Relaxed) == UNTOUCHED {
            self.begin(&mut state);
        }
        if let Some((plan, marks)) = &mut *state {
            // SAFETY: `begin` has set the region up, which is this supplier's alone: by the claim, or by
            // the duty of the caller of `from_raw`. The lock keeps other threads out.
            let mut part = unsafe { Part::new(self.region, *plan, self.shared, marks) };
            if let Some(found) = f(&mut part) {
                return Some(found);
            }
        }
        // SAFETY: the lock is held, and there is one part at a time.
        self.added.iter().find_map(|book| f(&mut unsafe { book.part() }))
    }

    /// Sets the first region up, under the lock.
    #[cold]
    fn begin(&self, state: &mut Option<(Plan, Marks)>) {
        let plan = self.region.plan(PAGE, 0);
        let plan = plan.filter(|&plan| !self.shared || self.region.claim(plan));
        // SAFETY: the region is this supplier's alone: by the claim, or by the duty of the caller of
        // `from_raw`.
        *state = plan.map(|plan| (plan, unsafe { Part::begin(self.region, plan) }));
        let found = if state.is_some() { OURS } else { NOTHING };
        // Relaxed: who reads it without the lock looks at the region's bounds alone.
        self.found.store(found, Ordering::Relaxed);
    }

    /// Whether the first region is this supplier's, and has pages. Sets it up if need be.
    fn has_first(&self) -> bool {
        if self.found.load(Ordering::Relaxed) == UNTOUCHED {
            self.find(|_| Some(()));
        }
        self.found.load(Ordering::Relaxed) == OURS
    }
}

// SAFETY: the bitmap of a region hands out each page at most once until it is given back, and only pages
// that its plan puts inside the region and clear of the bookkeeping. Regions belong to this supplier
// alone, do not overlap, outlive it, and stay where they are when it moves. `Part::take` honours the
// alignment. Nothing here panics or allocates.
unsafe impl<L: RawMutex, const PAGE: usize> PageSupplier for StaticPages<L, PAGE> {
    fn page_size(&self) -> usize {
        PAGE
    }

    fn alloc_pages(&self, layout: Layout, _: Request) -> Result<PageRun, PageError> {
        PageError::check(layout, PAGE)?;
        let mut why = None;
        let run = self.find(|part| match part.take(layout, PAGE) {
            Ok(run) => Some(run),
            Err(error) => {
                // What may pass outweighs what may not.
                if why != Some(PageError::Exhausted) {
                    why = Some(error);
                }
                None
            }
        });
        run.ok_or(why.unwrap_or(PageError::Exhausted))
    }

    unsafe fn free_pages(&self, run: PageRun) {
        let base = run.base().as_ptr();
        self.find(|part| part.extent.contains(base).then(|| part.give(&run, PAGE)));
    }

    fn regions(&self) -> Option<&dyn Regions> {
        Some(self)
    }
}

// SAFETY: all runs lie in regions that only come, and each makes the list longer.
unsafe impl<L: RawMutex, const PAGE: usize> Regions for StaticPages<L, PAGE> {
    fn generation(&self) -> u64 {
        u64::from(self.has_first()) + self.added.iter().count() as u64
    }

    fn visit_regions(&self, visit: &mut dyn FnMut(Region)) {
        let first = self.has_first().then_some(self.region);
        for Extent { base, len } in first.into_iter().chain(self.added.iter().map(|b| b.extent)) {
            visit(Region { base, len });
        }
    }

    fn holds(&self, at: *const u8) -> bool {
        self.contains(at)
    }
}

impl<L: RawMutex, const PAGE: usize> core::fmt::Debug for StaticPages<L, PAGE> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StaticPages")
            .field("base", &self.region.base)
            .field("len", &self.region.len)
            .field("added", &self.added.iter().count())
            .field("page", &PAGE)
            .finish_non_exhaustive()
    }
}
