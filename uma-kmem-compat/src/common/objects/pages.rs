//! Where the memory of an object cache comes from: the host, or an arena of the user's, with a reserve and with
//! a stop on the way back.
//!
//! ```text
//!   cache --frees a slab--> held while objects are moved --> reserve, if it lacks one --> host or arena
//!         <--needs a slab-- host or arena; failing that, for those who may, the reserve
//! ```
//!
//! - *Reserve.* From the first request on that may push pages (`KM_PUSHPAGE`), one run is set aside for each
//!   layout that such requests have needed. It goes to a request that may use it when there are no pages, and
//!   the next run that comes back takes its place.
//! - *Held.* While objects are offered for moving, somebody looks at memory that its owner may free. So runs
//!   that come back meanwhile stay where they are until that is over, and no memory inside of slabs is given
//!   back as long as the cache may be asked to move.
//!
//! Both lists are [`Runs`], which are whole in a child of fork(2).

use core::alloc::Layout;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use uma::core::{
    AllocError, Decommit, Item, ItemSource, Name, PageError, PageRun, PageSupplier, Protect,
    Regions, Request,
};
use uma::debug::{Report, Verdict};
use uma::{Hardening, Host, Platform};

use super::lock::Guarded;
use super::underway::Underway;
use crate::common::memory::{Counted, NoMemory};
use crate::common::{Runs, System, as_the_host};
use crate::sync::{AtomicBool, Ordering};

/// Memory that somebody else hands out, as an arena.
pub(crate) trait Backing: Send + Sync {
    /// Memory of this layout, which stays valid until it is given back, or `None`. It never waits, and does not
    /// unwind.
    fn take(&self, layout: Layout) -> Option<NonNull<u8>>;

    /// Takes it back, and does not unwind.
    ///
    /// # Safety
    ///
    /// `take` of this backing returned it for this layout, and nobody uses it any more.
    unsafe fn give(&self, at: NonNull<u8>, layout: Layout);
}

/// What the clones of a supplier share.
pub(crate) struct Shared {
    backing: Option<Counted<dyn Backing>>,
    reserve: Runs,
    /// Whether somebody has asked who may use the reserve.
    reserving: AtomicBool,
    held: Runs,
    /// Whether runs are to be held.
    holding: Underway,
    /// Whether the runs in use are written down, in `runs`: base and bytes, in order.
    movable: AtomicBool,
    runs: Guarded<Vec<(usize, usize)>>,
}

impl Shared {
    pub(crate) const fn new(backing: Option<Counted<dyn Backing>>) -> Self {
        Self {
            backing,
            reserve: Runs::new(),
            reserving: AtomicBool::new(false),
            held: Runs::new(),
            holding: Underway::new(),
            movable: AtomicBool::new(false),
            runs: Guarded::new(Vec::new()),
        }
    }

    /// From now on, runs are written down, and nothing inside of them is given back.
    pub(super) fn track(&self) {
        self.movable.store(true, Ordering::SeqCst);
    }

    fn tracks(&self) -> bool {
        self.movable.load(Ordering::SeqCst)
    }

    /// The run in which an address lies, by its base, if it was written down.
    pub(super) fn run_of(&self, address: usize) -> Option<usize> {
        let runs = self.runs.lock();
        let behind = runs.partition_point(|(base, _)| *base <= address);
        let (base, bytes) = runs[behind.checked_sub(1)?];
        (address - base < bytes).then_some(base)
    }

    /// Until the result is dropped, no memory that is given back goes anywhere. For one at a time.
    pub(super) fn hold(&self) -> Hold<'_> {
        let begins = self.holding.begin();
        debug_assert!(begins, "there are two who want runs to be held");
        Hold(self)
    }

    fn fetch(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        match &self.backing {
            None => Host.pages().alloc_pages(layout, request),
            Some(backing) => {
                PageError::check(layout, Host.pages().page_size())?;
                let base = backing.take(layout).ok_or(PageError::Exhausted)?;
                // SAFETY: the backing says that it is memory of this layout.
                Ok(unsafe { PageRun::from_parts(base, layout, false, 0) })
            }
        }
    }

    /// # Safety
    ///
    /// The run came from `fetch`, and nobody uses it.
    unsafe fn give_back(&self, run: PageRun) {
        match &self.backing {
            // SAFETY: the caller's duty is passed on unchanged.
            None => unsafe { Host.pages().free_pages(run) },
            // SAFETY: as above.
            Some(backing) => unsafe { backing.give(run.base(), run.layout()) },
        }
    }

    fn alloc(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        let run = match self.fetch(layout, request) {
            Ok(run) => {
                if request.may_use_reserve() {
                    self.reserving.store(true, Ordering::Relaxed);
                    if !self.reserve.has(layout)
                        && let Ok(second) = self.fetch(layout, request)
                        && let Err(second) = self.reserve.offer(second)
                    {
                        // SAFETY: it came just now.
                        unsafe { self.give_back(second) };
                    }
                }
                run
            }
            Err(error) if request.may_use_reserve() => {
                let run = self.reserve.find(layout).ok_or(error)?;
                // It is not as fresh as it may have been.
                // SAFETY: base, layout and flag are those of a run that is ours.
                unsafe { PageRun::from_parts(run.base(), run.layout(), false, run.flag()) }
            }
            Err(error) => return Err(error),
        };
        if self.tracks() && self.write_down(&run).is_err() {
            // SAFETY: nobody has it yet.
            unsafe { self.keep_or_give_back(run) };
            return Err(PageError::Exhausted);
        }
        Ok(run)
    }

    /// # Safety
    ///
    /// As [`PageSupplier::free_pages`].
    unsafe fn free(&self, run: PageRun) {
        // One from before is in no book, so nobody who holds runs knows of it.
        let known = self.tracks() && self.strike(&run);
        if known && self.holding.is() {
            self.held.push(run);
            // If that has ended meanwhile, nobody else would see to it.
            if !self.holding.is() {
                self.let_go();
            }
            return;
        }
        if known {
            self.held.release();
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.keep_or_give_back(run) };
    }

    /// # Safety
    ///
    /// As [`PageSupplier::free_pages`].
    unsafe fn keep_or_give_back(&self, run: PageRun) {
        if self.reserving.load(Ordering::Relaxed) && !self.reserve.has(run.layout()) {
            if let Err(run) = self.reserve.offer(run) {
                // SAFETY: the caller's duty is passed on unchanged.
                unsafe { self.give_back(run) };
            }
        } else {
            // SAFETY: as above.
            unsafe { self.give_back(run) };
        }
    }

    /// Writes down a run, and sees to it that it can be held when it comes back.
    fn write_down(&self, run: &PageRun) -> Result<(), NoMemory> {
        self.held.promise()?;
        let base = run.base().addr().get();
        let mut runs = self.runs.lock();
        if runs.try_reserve(1).is_err() {
            drop(runs);
            self.held.release();
            return Err(NoMemory);
        }
        let place = runs.partition_point(|(other, _)| *other < base);
        runs.insert(place, (base, run.layout().size()));
        Ok(())
    }

    /// Strikes a run out. Returns whether it was written down.
    fn strike(&self, run: &PageRun) -> bool {
        let base = run.base().addr().get();
        let mut runs = self.runs.lock();
        let place = runs.binary_search_by_key(&base, |(base, _)| *base);
        place.map(|place| runs.remove(place)).is_ok()
    }

    fn let_go(&self) {
        while let Some(run) = self.held.pop() {
            // SAFETY: it was given back, and nobody looks at it any more.
            unsafe { self.keep_or_give_back(run) };
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        while let Some(run) = self.held.pop().or_else(|| self.reserve.pop()) {
            // SAFETY: it was given back, and nobody uses it.
            unsafe { self.give_back(run) };
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Somebody who wants runs to be held.
pub(super) struct Hold<'a>(&'a Shared);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.holding.end();
        self.0.let_go();
    }
}

/// The pages of a cache, or of a heap.
#[derive(Clone, Debug)]
pub(crate) enum Pages {
    Cache(Counted<Shared>),
    Heap(&'static Shared),
}

impl Pages {
    pub(super) fn shared(&self) -> &Shared {
        match self {
            Self::Cache(shared) => shared,
            Self::Heap(shared) => shared,
        }
    }
}

// SAFETY: runs come from the host or a backing, which keep the promises. A run that is held or in reserve was
// given back, so nobody else has it until it is handed out again or goes back where it came from. Nothing
// here unwinds: there is room for what comes back, and a backing does not.
unsafe impl PageSupplier for Pages {
    fn page_size(&self) -> usize {
        Host.pages().page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        self.shared().alloc(layout, request)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.shared().free(run) };
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        let shared = self.shared();
        // Somebody may look at objects that were just freed; and an arena's memory is not the host's.
        if shared.tracks() || shared.backing.is_some() {
            return None;
        }
        Host.pages().decommits()
    }

    fn protects(&self) -> Option<&dyn Protect> {
        if self.shared().backing.is_some() {
            return None;
        }
        Host.pages().protects()
    }

    fn regions(&self) -> Option<&dyn Regions> {
        None
    }
}

/// The platform of a cache, or of a heap: that of the process, but for pages, and for who is told of misuse.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pages: Pages,
    system: &'static System,
}

impl Surroundings {
    pub(crate) const fn new(pages: Pages, system: &'static System) -> Self {
        Self { pages, system }
    }

    pub(super) fn shared(&self) -> &Shared {
        self.pages.shared()
    }
}

// SAFETY: everything but the pages leads where the host's leads; clones share the rest, and a zone that is
// forgotten holds a share of it.
unsafe impl Platform for Surroundings {
    type Pages = Pages;

    as_the_host!();

    fn pages(&self) -> Pages {
        self.pages.clone()
    }

    fn hardening(&self, zone: &Name) -> Hardening {
        Host.hardening(zone)
    }

    fn misuse(&self, report: &Report<'_>) -> Verdict {
        // It ends the process if the policy is so.
        self.system.misuse("checks", format_args!("{report}"));
        Verdict::Ignore
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        self.system.report("destroy", message);
    }
}

/// Objects that are too large for slabs: each is a run of pages of its own.
///
/// ```text
///   | object .......................... | ........ flag |
///   base                                 a byte at least, to the end of the page
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Large {
    object: Layout,
    run: Layout,
    pages: Pages,
}

impl Large {
    /// Objects of this layout, unless no memory could hold one.
    pub(super) fn new(object: Layout, pages: Pages) -> Option<Self> {
        let page = pages.page_size();
        let bytes = object.size().checked_add(1)?.checked_next_multiple_of(page)?;
        let run = Layout::from_size_align(bytes, object.align().max(page)).ok()?;
        Some(Self { object, run, pages })
    }

    /// Where the flag of the run is kept.
    fn flag(&self, base: NonNull<u8>) -> NonNull<u8> {
        // SAFETY: the run has so many bytes.
        unsafe { base.add(self.run.size() - 1) }
    }
}

// SAFETY: an item is the beginning of a run of pages, which is at least as long and as aligned, and is the
// caller's alone until it comes back. One at a time, so nothing is in hand if a supplier unwinds.
unsafe impl ItemSource for Large {
    fn layout(&self) -> Layout {
        self.object
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        let Some(first) = into.first_mut() else { return Ok(0) };
        let run = self.pages.alloc_pages(self.run, request)?;
        // SAFETY: the byte is the run's last, behind the object.
        unsafe { self.flag(run.base()).write(run.flag()) };
        first.write(Item::new(run.base()));
        Ok(1)
    }

    unsafe fn release(&self, items: &[Item]) {
        for item in items {
            let base = item.as_non_null();
            // SAFETY: `import` made the item of a run of this layout, and left its flag there; the caller gives
            // the item up.
            unsafe {
                let flag = self.flag(base).read();
                self.pages.free_pages(PageRun::from_parts(base, self.run, false, flag));
            }
        }
    }
}
