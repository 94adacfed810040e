//! The supplier.

use core::alloc::Layout;
use core::ptr::NonNull;

use uma_core::{PageError, PageRun, PageSupplier, RawMutex, Region, Regions, Request};

use crate::StaticStats;
use crate::free::{FreeMap, Grid, Marks, words_for};
use crate::region::{Extent, Plan, StaticMemory};
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Supplies runs of pages from one region of memory that it is given.
///
/// `L` is the lock, `PAGE` the page size. The lowest run that fits is taken, aligned to any power of
/// two; freed runs coalesce. When nothing fits it says [`PageError::Exhausted`], and
/// [`PageError::BadAlign`] if no page of the region is aligned as asked.
///
/// Nothing is written before the first call, which sets up the bitmap under the lock.
///
/// ```
/// use core::alloc::Layout;
/// use uma_backend_static::{StaticMemory, StaticPages};
/// use uma_core::{PageSupplier, Request};
///
/// static MEMORY: StaticMemory<{ 65 * 4096 }> = StaticMemory::new();
/// static PAGES: StaticPages<spin::Mutex<()>> = StaticPages::new(&MEMORY);
///
/// let run = PAGES.alloc_pages(Layout::from_size_align(8192, 8192)?, Request::NOWAIT)?;
/// // SAFETY: the run is whole and was not used.
/// unsafe { PAGES.free_pages(run) };
/// assert_eq!(PAGES.stats().free, 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StaticPages<L: RawMutex, const PAGE: usize = 4096> {
    region: Extent,
    /// Whether the memory is one that another supplier may claim, and zero where never handed out.
    shared: bool,
    state: Mutex<L, State>,
}

enum State {
    Untouched,
    Ready {
        plan: Plan,
        marks: Marks,
    },
    /// Too small for a page, or claimed by another supplier.
    Nothing,
}

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

    const fn over(region: Extent, shared: bool) -> Self {
        const { Self::CHECK }
        Self { region, shared, state: Mutex::new(State::Untouched) }
    }

    /// Whether `at` lies in the region given, its bookkeeping and trimmed ends included. Takes no
    /// lock.
    pub fn contains(&self, at: *const u8) -> bool {
        self.region.contains(at)
    }

    /// Figures of the moment. Searches the whole bitmap for the longest free run.
    pub fn stats(&self) -> StaticStats {
        self.with(|_, map| StaticStats {
            total: map.marks.total,
            free: map.marks.free,
            largest: map.largest(),
        })
        .unwrap_or_default()
    }

    /// Runs `f` on the bitmap under the lock, after setting it up if this is the first call. `None`
    /// if there are no pages.
    fn with<R>(&self, f: impl FnOnce(Plan, FreeMap<'_>) -> R) -> Option<R> {
        let mut state = self.state.lock();
        if matches!(*state, State::Untouched) {
            *state = self.begin();
        }
        let State::Ready { plan, marks } = &mut *state else { return None };
        Some(f(*plan, self.map(*plan, marks)))
    }

    #[cold]
    fn begin(&self) -> State {
        let Some(plan) = self.region.plan(PAGE) else { return State::Nothing };
        if self.shared && !self.claim(plan) {
            return State::Nothing;
        }
        // SAFETY: `plan` puts the bitmap here, inside the region, which is this supplier's alone: by
        // the claim, or by the duty of the caller of `from_raw`.
        unsafe {
            let bitmap = self.region.base.add(plan.bitmap).cast::<u64>();
            bitmap.write_bytes(0, words_for(plan.count));
        }
        let mut marks = Marks::default();
        self.map(plan, &mut marks).reset(plan.count);
        State::Ready { plan, marks }
    }

    /// Whether this is the first supplier to want the memory.
    fn claim(&self, plan: Plan) -> bool {
        // SAFETY: `plan` puts an aligned word here, inside the region. It is zero at first, being
        // part of a `StaticMemory`, and all suppliers that know it reach it by this exchange only.
        let claim =
            unsafe { AtomicUsize::from_ptr(self.region.base.add(plan.claim).cast().as_ptr()) };
        claim.swap(1, Ordering::AcqRel) == 0
    }

    /// The bitmap. `marks` stands for the lock, which it lies under.
    fn map<'a>(&'a self, plan: Plan, marks: &'a mut Marks) -> FreeMap<'a> {
        // SAFETY: `plan` puts this many aligned words here, clear of pages and claim; `begin` has
        // written them. The region is this supplier's alone (by the claim, or by the duty of the
        // caller of `from_raw`), and the lock, which the caller holds, keeps other threads out.
        let words = unsafe {
            let at = self.region.base.add(plan.bitmap).cast::<u64>();
            core::slice::from_raw_parts_mut(at.as_ptr(), words_for(plan.count))
        };
        FreeMap { words, marks }
    }

    fn address(&self, plan: Plan) -> usize {
        self.region.base.addr().get() + plan.pages
    }
}

// SAFETY: the bitmap hands out each page at most once until it is given back, and only pages that
// `plan` puts inside the region and clear of the bookkeeping. The region belongs to this supplier and
// outlives it, and stays where it is when the supplier moves. `grid` honours the alignment. Nothing
// here panics or allocates.
unsafe impl<L: RawMutex, const PAGE: usize> PageSupplier for StaticPages<L, PAGE> {
    fn page_size(&self) -> usize {
        PAGE
    }

    fn alloc_pages(&self, layout: Layout, _: Request) -> Result<PageRun, PageError> {
        PageError::check(layout, PAGE)?;
        let step = (layout.align() / PAGE).max(1);
        let taken = self.with(|plan, mut map| {
            let number = self.address(plan) / PAGE;
            let phase = number.wrapping_neg() & (step - 1);
            if phase >= plan.count {
                return Err(PageError::BadAlign);
            }
            let taken = map.take(layout.size() / PAGE, Grid { step, phase });
            let taken = taken.ok_or(PageError::Exhausted)?;
            Ok((plan.pages + taken.page * PAGE, taken.fresh))
        });
        let (offset, fresh) = taken.unwrap_or(Err(PageError::Exhausted))?;
        // SAFETY: the bitmap took these pages for us: they lie in the region, from `offset` on, are
        // aligned, and are nobody else's. Pages of a `StaticMemory` are zero until handed out.
        Ok(unsafe {
            let base = self.region.base.add(offset);
            PageRun::from_parts(base, layout, fresh && self.shared, 0)
        })
    }

    unsafe fn free_pages(&self, run: PageRun) {
        let pages = run.layout().size() / PAGE;
        self.with(|plan, mut map| {
            let first = (run.base().addr().get() - self.address(plan)) / PAGE;
            map.give(first, pages);
        });
    }

    fn regions(&self) -> Option<&dyn Regions> {
        Some(self)
    }
}

// SAFETY: all runs lie in the one region, which never changes.
unsafe impl<L: RawMutex, const PAGE: usize> Regions for StaticPages<L, PAGE> {
    fn generation(&self) -> u64 {
        0
    }

    fn visit_regions(&self, visit: &mut dyn FnMut(Region)) {
        visit(Region { base: self.region.base, len: self.region.len });
    }
}

impl<L: RawMutex, const PAGE: usize> core::fmt::Debug for StaticPages<L, PAGE> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StaticPages")
            .field("base", &self.region.base)
            .field("len", &self.region.len)
            .field("page", &PAGE)
            .finish_non_exhaustive()
    }
}
