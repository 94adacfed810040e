//! The keg, as its users see it: items out of slabs, and back.
//!
//! An import takes what is free, and grows the keg by a slab at a time where that is not enough
//! ([`crate::supply`]). A release only sets bits; nothing goes back to the supplier before
//! [`reclaim`](ItemSource::reclaim), because whoever frees much often allocates much again. What a drain does
//! with partly used slabs is in [`crate::walk`].
//!
//! Lock order: the keg's lock is a leaf. Suppliers, metadata and users' closures run without it.

use core::alloc::Layout;
use core::mem::MaybeUninit;

use uma_core::{
    AllocError, ConfigFault, Item, ItemSource, Metadata, PageError, PageSupplier, Process,
    RawMutex, Reclaim, Request, Stats,
};

use crate::layout::{SlabConfig, SlabLayout};
use crate::no_metadata::NoMetadata;
use crate::state::State;
use crate::sync::{AtomicU64, Mutex, Ordering};

/// Items of one layout, cut from slabs of pages (`uma_keg`).
///
/// `P` supplies pages, `L` is the lock, and `M` is where headers outside their slabs come from; with
/// [`NoMetadata`] all headers lie inside.
///
/// # Example
///
/// ```
/// use core::alloc::Layout;
/// use uma_core::{ItemSource, PageSupplier, RawMutex, Reclaim, Request};
/// use uma_keg::{Keg, SlabConfig};
///
/// fn demo<P: PageSupplier, L: RawMutex>(pages: P) -> Result<(), Box<dyn core::error::Error>> {
///     let keg = Keg::<P, L>::new(pages, Layout::new::<[u64; 5]>(), SlabConfig::new())?;
///     let item = keg.alloc(Request::NOWAIT)?;
///     // SAFETY: the item came from this keg and is used no more.
///     unsafe { keg.free(item) };
///     keg.reclaim(Reclaim::Trim);
///     Ok(())
/// }
/// ```
///
/// # Misuse
///
/// Giving back what is no item of the keg, points into the middle of one, or is free already, breaks
/// the contract of [`release`](ItemSource::release). The keg checks for it and panics with a message
/// that names the address, after it has taken the other items of the batch back; it stays usable. With
/// headers inside, the check reads memory where the header of a foreign pointer's slab would be, and
/// that may not be mapped; with the look-up of outside headers it is exact.
///
/// # Dropping
///
/// A keg that is dropped gives back every slab without items in use. Slabs with items in use keep
/// their pages for ever, so that their users do not crash. [`destroy`](Self::destroy) says how
/// many there were.
pub struct Keg<P: PageSupplier, L: RawMutex, M: Metadata = NoMetadata> {
    pub(crate) state: Mutex<L, State<M>>,
    pub(crate) layout: SlabLayout,
    pub(crate) pages: P,
    pub(crate) meta: M,
    /// Slabs made of which nobody has been told.
    pub(crate) grown: AtomicU64,
}

impl<P: PageSupplier, L: RawMutex> Keg<P, L> {
    /// A keg of items of layout `item`, with all headers inside. It takes no memory before the first
    /// allocation.
    ///
    /// This is for kegs made at run time; for a `static` see [`with_layout`](Keg::with_layout).
    ///
    /// # Errors
    ///
    /// As [`SlabLayout::new`].
    pub fn new(pages: P, item: Layout, config: SlabConfig) -> Result<Self, ConfigFault> {
        let layout = SlabLayout::new(item, config.inside_headers())?;
        Ok(Self::with_layout(pages, NoMetadata, layout))
    }
}

impl<P: PageSupplier, L: RawMutex, M: Metadata> Keg<P, L, M> {
    /// A keg of items of layout `item`, with headers outside where that wastes less (and the feature
    /// `hashbrown` is on).
    ///
    /// # Errors
    ///
    /// As [`SlabLayout::new`].
    pub fn with_metadata(
        pages: P,
        meta: M,
        item: Layout,
        config: SlabConfig,
    ) -> Result<Self, ConfigFault> {
        let layout = SlabLayout::new(item, config.outside_headers())?;
        Ok(Self::with_layout(pages, meta, layout))
    }

    /// A keg of slabs of this layout, also as a `static`. With [`NoMetadata`] and headers outside,
    /// every import fails with [`AllocError::Metadata`].
    ///
    /// ```
    /// use core::alloc::Layout;
    /// use uma_keg::{Keg, NoMetadata, SlabConfig, SlabLayout};
    /// # use uma_core::{PageError, PageRun, PageSupplier, RawMutex, Request};
    /// # #[derive(Clone, Copy)] struct Pages;
    /// # // SAFETY: it supplies nothing.
    /// # unsafe impl PageSupplier for Pages {
    /// #     fn page_size(&self) -> usize { 4096 }
    /// #     fn alloc_pages(&self, _: Layout, _: Request) -> Result<PageRun, PageError> {
    /// #         Err(PageError::Exhausted)
    /// #     }
    /// #     unsafe fn free_pages(&self, _: PageRun) {}
    /// # }
    /// # struct Lock;
    /// # // SAFETY: there is one thread here.
    /// # unsafe impl RawMutex for Lock {
    /// #     const INIT: Self = Self;
    /// #     type GuardMarker = *mut ();
    /// #     fn lock(&self) {}
    /// #     fn try_lock(&self) -> bool { true }
    /// #     unsafe fn unlock(&self) {}
    /// # }
    ///
    /// const NODE: SlabLayout = match SlabLayout::new(Layout::new::<[u64; 4]>(), SlabConfig::new()) {
    ///     Ok(layout) => layout,
    ///     Err(_) => panic!("no such slab"),
    /// };
    /// static NODES: Keg<Pages, Lock> = Keg::with_layout(Pages, NoMetadata, NODE);
    /// assert_eq!(NODES.live(), 0);
    /// ```
    pub const fn with_layout(pages: P, meta: M, layout: SlabLayout) -> Self {
        let state = Mutex::const_new(L::INIT, State::new());
        Self { state, layout, pages, meta, grown: AtomicU64::new(0) }
    }

    /// How items lie in slabs.
    pub const fn slab_layout(&self) -> &SlabLayout {
        &self.layout
    }

    /// The page supplier.
    pub const fn pages(&self) -> &P {
        &self.pages
    }

    /// Where outside headers come from.
    pub const fn metadata(&self) -> &M {
        &self.meta
    }

    /// Items that are out.
    pub fn live(&self) -> u64 {
        self.state.lock().live()
    }

    /// Keeps the last `items` free items for requests that
    /// [may use the reserve](Request::may_use_reserve) (`uma_zone_reserve`).
    ///
    /// It takes no items by itself: use [`prealloc`](Self::prealloc) to have them at once, else the
    /// next ordinary allocation fills the reserve first. A reclaim leaves it: with a reserve, a drain
    /// gives back only slabs that are wholly free.
    pub fn set_reserve(&self, items: u64) {
        self.state.lock().reserve = items;
    }

    /// How many free items are kept in reserve.
    pub fn reserve(&self) -> u64 {
        self.state.lock().reserve
    }

    /// From now on makes no more slabs: those there are must do, and whoever finds nothing free in them is
    /// told that pages are exhausted.
    pub fn seal(&self) {
        self.state.lock().sealed = true;
    }

    /// Adds slabs for `items` items, beside those there are (`uma_prealloc`).
    ///
    /// # Errors
    ///
    /// As [`import`](ItemSource::import). Slabs that were made before the error stay.
    pub fn prealloc(&self, items: u64) -> Result<(), AllocError> {
        if self.state.lock().sealed {
            return Err(AllocError::Pages(PageError::Exhausted));
        }
        for _ in 0..items.div_ceil(self.layout.items() as u64) {
            drop(self.grow(Request::NOWAIT)?);
        }
        Ok(())
    }

    /// Calls `visit` for every item that is out, in the order of addresses, for reports of leaks.
    ///
    /// The lock is not held during a call, so `visit` may use the keg. An item that is out all the
    /// time is visited once; one that is taken or given back meanwhile may be visited or not. The time
    /// it takes grows with the square of the number of slabs in use.
    pub fn for_each_live(&self, mut visit: impl FnMut(Item)) {
        let mut batch = [MaybeUninit::uninit(); 64];
        let mut from = Some(0);
        while let Some(address) = from {
            let state = self.state.lock();
            let (count, next) = state.live_from(&self.layout, address, &mut batch);
            drop(state);
            // SAFETY: so many have been written.
            for &item in unsafe { batch[..count].assume_init_ref() } {
                visit(item);
            }
            from = next;
        }
    }

    /// Slabs made since this was last asked, by anybody: for those who tell of it where no lock is held.
    pub fn take_grown(&self) -> u64 {
        // Mostly there is no news, which costs no more than to look.
        match self.grown.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.grown.swap(0, Ordering::Relaxed),
        }
    }

    /// Whether `item` is one of this keg's that is out just now. Never touches what `item` points to;
    /// with headers inside it looks through all slabs.
    pub fn contains(&self, item: Item) -> bool {
        self.state.lock().is_live(&self.layout, item)
    }

    /// Ends the keg, and says whether items were still in use.
    ///
    /// # Errors
    ///
    /// [`Leak`] if there were; the slabs that they lie in stay allocated for ever.
    pub fn destroy(self) -> Result<(), Leak> {
        match self.live() {
            0 => Ok(()),
            items => Err(Leak { items, layout: self.layout.item() }),
        }
    }

    /// Whether the rest of a batch is worth another slab: if it is a slab full or a quarter of the
    /// batch, or there is nothing yet.
    fn worth_a_slab(&self, wanted: usize, got: usize) -> bool {
        let rest = wanted - got;
        rest != 0 && (got == 0 || rest >= self.layout.items().min(wanted.div_ceil(4)))
    }
}

// SAFETY: items are disjoint parts of runs that the supplier keeps valid, of the stride's size and
// aligned, as `SlabLayout` computes them; a bit in the header, changed only under the lock, says which
// are out. No memory of an item is touched. `release` panics, on misuse, only after it took the other
// items back.
unsafe impl<P: PageSupplier, L: RawMutex, M: Metadata> ItemSource for Keg<P, L, M> {
    fn layout(&self) -> Layout {
        self.layout.item()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        let wanted = into.len();
        let all = request.may_use_reserve();
        let mut state = self.state.lock();
        let mut got = 0;
        loop {
            got += state.take(&self.layout, &mut into[got..], all);
            let may_grow = request.may_take_pages() && !state.sealed;
            if !self.worth_a_slab(wanted, got) || (got != 0 && !may_grow) {
                return Ok(got);
            }
            drop(state);
            if !may_grow {
                return self
                    .take_what_came_back(into, request)
                    .ok_or(AllocError::Pages(PageError::Exhausted));
            }
            // With something in hand there is nothing to wait for.
            let request = if got == 0 { request } else { request.without_waiting() };
            state = match self.grow(request) {
                Ok(state) => state,
                Err(_) if got != 0 => return Ok(got),
                Err(error) => return self.take_what_came_back(into, request).ok_or(error),
            };
        }
    }

    unsafe fn release(&self, items: &[Item]) {
        let mut state = self.state.lock();
        // SAFETY: the caller owns the items and they came from this keg, so their slabs are there.
        let misuse = unsafe { state.put(&self.layout, items) };
        drop(state);
        if let Some(misuse) = misuse {
            misuse.report(self.layout.item().size());
        }
    }

    /// [`Reclaim::Idle`] gives nothing back: free slabs are what the caches above say is idle, and they ask
    /// for a trim then.
    fn reclaim(&self, mode: Reclaim) {
        if mode == Reclaim::Idle {
            return;
        }
        // First, so that slabs whose last items come back meanwhile go with the others.
        if mode != Reclaim::Trim {
            self.drain_pages();
        }
        if !self.layout.upkeep().kept {
            self.drain_slabs();
        }
    }

    fn visit_stats(&self, stats: &mut Stats) {
        let state = self.state.lock();
        stats.size = self.layout.item().size();
        stats.align = self.layout.item().align();
        stats.allocs = state.allocs;
        stats.frees = state.frees;
        stats.keg_free = state.all_free();
        stats.stride = self.layout.stride();
        stats.slab_bytes = self.layout.slab_size();
        stats.per_slab = u32::try_from(self.layout.items()).unwrap_or(u32::MAX);
        stats.reserve = state.reserve;
        stats.slabs = state.slabs;
        stats.bytes = state.slabs * self.layout.slab_size() as u64;
    }

    fn prefork(&self) {
        core::mem::forget(self.lock_with_none_away());
    }

    unsafe fn postfork(&self, _: Process) {
        // SAFETY: the caller called `prefork`, which forgot the guard, so the state is ours until the
        // lock is free. In the copy, those who wanted to fork too are gone; in the original they say
        // so again.
        unsafe {
            (*self.state.data_ptr()).forking = false;
            self.state.force_unlock();
        }
    }
}

impl<P: PageSupplier, L: RawMutex, M: Metadata> core::fmt::Debug for Keg<P, L, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let state = self.state.lock();
        let (slabs, live, free) = (state.slabs, state.live(), state.all_free());
        drop(state);
        f.debug_struct("Keg")
            .field("item", &self.layout.item())
            .field("slabs", &slabs)
            .field("live", &live)
            .field("free", &free)
            .finish_non_exhaustive()
    }
}

/// Items were in use when their keg was destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leak {
    /// How many.
    pub items: u64,
    /// Their layout.
    pub layout: Layout,
}

impl core::fmt::Display for Leak {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { items, layout } = self;
        write!(f, "{items} items of {} bytes were in use when their keg ended", layout.size())
    }
}

impl core::error::Error for Leak {}
