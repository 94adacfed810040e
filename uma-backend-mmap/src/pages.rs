//! The supplier.

use std::alloc::Layout;
use std::ptr::NonNull;

use uma_core::{
    Decommit, PageError, PageRun, PageSupplier, Protect, RawMutex, Region, Regions, Request,
};

use crate::directory::Table;
use crate::huge::Seen;
use crate::region::Chunk;
use crate::state::{Batch, State, Sweep};
use crate::stats::AllCalls;
use crate::sync::{AtomicU8, DefaultLock, Mutex, MutexGuard};
use crate::sys::{DECOMMITS, Kernel, System, page_size};
use crate::{Config, MmapStats};

/// The flag of a run that is left out of core dumps.
const HIDDEN: u8 = 1;

/// Supplies runs of pages from memory mapped in large chunks.
///
/// It honours any alignment for which the system has address space. Runs from memory that was never
/// used, or decommitted since, are flagged as zeroed. It maps nothing before the first allocation,
/// uses no other allocator, and can be a `static`:
///
/// ```
/// use std::alloc::Layout;
/// use uma_backend_mmap::MmapPages;
/// use uma_core::{PageSupplier, Request};
///
/// static PAGES: MmapPages = MmapPages::new();
///
/// let run = PAGES.alloc_pages(Layout::from_size_align(65536, 65536)?, Request::NOWAIT)?;
/// assert!(run.is_zeroed());
/// // SAFETY: the run is whole and not used any more.
/// unsafe { PAGES.free_pages(run) };
/// PAGES.trim();
/// assert_eq!(PAGES.stats().dirty, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A run for a request [without dump](Request::without_dump) is left out of core dumps where the system can
/// do that, as Linux can. It costs up to two mappings while it lives, of about 65,000 that a process may have.
///
/// If it is dropped, chunks that still have live runs stay mapped.
///
/// `L` locks the bookkeeping: the lock of `parking_lot` unless you name another. (`parking_lot` may
/// allocate when a thread first waits; under a global allocator name a lock that does not.) `S` stands for
/// the system, and is another only in tests.
///
/// # Errors
///
/// When the system has no address space left (`RLIMIT_AS`, a limit of mappings, or nothing that is
/// large enough), a chunk is asked for that is half as large, down to what the run needs; then all chunks
/// that are wholly free are given back, and it is asked once more. If that fails,
/// [`alloc_pages`](PageSupplier::alloc_pages) returns [`PageError::System`] with the system's number;
/// nothing has changed, and later it may succeed.
pub struct MmapPages<L: RawMutex = DefaultLock, S: System = Kernel> {
    pub(crate) config: Config,
    pub(crate) system: S,
    pub(crate) state: Mutex<L, State>,
    /// What is wanted now: a [`HugePages`](crate::HugePages).
    pub(crate) huge: AtomicU8,
    /// What the system was told of some memory: a bit for each.
    pub(crate) told: AtomicU8,
    pub(crate) calls: AllCalls,
}

impl MmapPages {
    /// A supplier with [`Config::DEFAULT`].
    pub const fn new() -> Self {
        Self::with_config(Config::DEFAULT)
    }

    /// A supplier with settings of your own.
    pub const fn with_config(config: Config) -> Self {
        Self::with_lock(config)
    }
}

impl<L: RawMutex> MmapPages<L> {
    /// A supplier with settings and a lock of your own.
    pub const fn with_lock(config: Config) -> Self {
        Self::with_system(config, Kernel)
    }
}

impl<L: RawMutex, S: System> MmapPages<L, S> {
    /// A supplier over another system: for tests.
    #[doc(hidden)]
    pub const fn with_system(config: Config, system: S) -> Self {
        let state = Mutex::const_new(L::INIT, State::new(config.dirty_max));
        let huge = AtomicU8::new(config.huge_pages as u8);
        Self { config, system, state, huge, told: AtomicU8::new(0), calls: AllCalls::new() }
    }

    /// Figures of the moment.
    pub fn stats(&self) -> MmapStats {
        let AllCalls { map, unmap, discard, protect, hint } = &self.calls;
        let state = self.state.lock();
        MmapStats {
            reserved: state.reserved,
            in_use: state.in_use,
            dirty: state.dirty,
            clean: state.reserved - state.taken - state.dirty,
            beside: state.beside + state.directory.table().map_or(0, |table| table.len),
            chunks: state.directory.count(),
            maps: map.made() - map.refused(),
            maps_refused: map.refused(),
            unmaps: unmap.made() - unmap.refused(),
            unmaps_refused: unmap.refused(),
            advises: discard.made(),
            refused: discard.refused(),
            protects: protect.made(),
            protects_refused: protect.refused(),
            hints: hint.made(),
            hints_refused: hint.refused(),
        }
    }

    /// Takes the lock and keeps it, for fork(2): then nothing is half done in the copy. Waits until the system
    /// calls of other threads are over, since what they have in hand would be lost to the copy. Meanwhile nobody
    /// begins to decommit.
    pub fn prefork(&self) {
        loop {
            let mut state = self.state.lock();
            // Again each time, because others who wanted the same may have taken it back.
            state.forking = true;
            if state.outside == 0 {
                return std::mem::forget(state);
            }
            drop(state);
            std::thread::yield_now();
        }
    }

    /// Lets go of the lock, in the process or in its copy.
    ///
    /// # Safety
    ///
    /// This thread, or the one that it is the copy of, called [`prefork`](Self::prefork), and this was
    /// not called since.
    pub unsafe fn postfork(&self) {
        // SAFETY: the caller called `prefork`, which forgot the guard, so the state is ours until the lock is free.
        unsafe {
            (*self.state.data_ptr()).forking = false;
            self.state.force_unlock();
        }
    }

    /// Whether `at` lies in one of the regions.
    pub fn contains(&self, at: *const u8) -> bool {
        self.state.lock().directory.find(at.addr()).is_some()
    }

    /// Decommits all free memory, and where huge pages were asked for, or the system gives them to everybody, what
    /// they brought beside it. Address space stays reserved. While the process is being copied it does nothing.
    ///
    /// Unless huge pages were asked for, it opens and reads `/sys/kernel/mm/transparent_hugepage/enabled` for that,
    /// if there is such a file and it may.
    pub fn decommit_all(&self) {
        let all = self.may_have_huge_pages();
        self.decommit_by(if all { Sweep::of_all() } else { Sweep::down_to(0) });
    }

    /// Decommits as much free memory as nobody needed since the last call of this: the least that was
    /// free and committed at any moment since. To be called from time to time; a spike is forgotten
    /// after two calls, and what is taken and freed all the time stays.
    pub fn maintain(&self) {
        let keep = {
            let state = self.state.lock();
            state.dirty - state.idle
        };
        self.decommit_by(Sweep::down_to(keep));
        let mut state = self.state.lock();
        state.idle = state.dirty;
    }

    /// Gives back all that is free: unmaps the chunks that are wholly free, all but the smallest,
    /// and decommits the rest.
    pub fn trim(&self) {
        self.unmap_free_chunks(true);
        self.decommit_all();
    }

    /// Gives back the memory behind part of a live run. Its contents become zero; it is committed
    /// again as it is written.
    ///
    /// If the system refuses, the memory stays committed and zeros are written.
    ///
    /// # Safety
    ///
    /// `at` and `len` are multiples of the page size, and the range lies inside one live run of this
    /// supplier, which the caller owns, and no part of which is protected.
    pub unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: passed on to the caller.
        if len != 0 && !unsafe { self.discard(at, len, self.has_asked()) } {
            // SAFETY: the caller owns the range.
            unsafe { at.write_bytes(0, len) };
        }
    }

    /// Makes pages of a live run inaccessible, as [`Protect::protect`] does, but what they held is lost.
    /// From Linux 6.13 on this costs no mapping, so a process can have any number of such guards.
    /// [`Protect::unprotect`] ends it; the contents are unspecified then.
    ///
    /// # Errors
    ///
    /// As [`Protect::protect`].
    ///
    /// # Safety
    ///
    /// As [`Protect::protect`].
    pub unsafe fn guard(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the range is inside a live run, which the caller owns, and not used from now on.
        let walled = unsafe { self.system.wall(at, len) };
        self.calls.protect.count(walled).map_err(PageError::System)
    }

    /// Leaves a run out of core dumps, if the system can do that, and notes it in the run.
    fn hide(&self, run: PageRun) -> PageRun {
        let (base, layout, zeroed) = (run.base(), run.layout(), run.is_zeroed());
        // SAFETY: the run is ours, and lies in a mapping.
        let hidden = unsafe { self.system.dump(base, layout.size(), false) };
        match self.calls.hint.count(hidden) {
            // SAFETY: these are the parts of the run.
            Ok(()) => unsafe { PageRun::from_parts(base, layout, zeroed, HIDDEN) },
            Err(_) => run,
        }
    }

    pub(crate) fn lock(&self, page: usize) -> MutexGuard<'_, L, State> {
        let mut state = self.state.lock();
        state.page = page;
        state
    }

    /// Asks the system to take the memory of some pages, and to take huge pages apart for it if `tear`. Returns
    /// whether it did.
    ///
    /// # Safety
    ///
    /// As [`System::discard`], and there are such pages.
    unsafe fn discard(&self, at: NonNull<u8>, len: usize, tear: bool) -> bool {
        if tear {
            // SAFETY: passed on to the caller.
            unsafe { self.tear(at, len) };
        }
        // SAFETY: as above.
        self.calls.discard.count(unsafe { self.system.discard(at, len) }).is_ok()
    }

    /// Decommits free memory, as far as a sweep goes.
    fn decommit_by(&self, mut sweep: Sweep) {
        if !DECOMMITS {
            return;
        }
        let page = page_size();
        let tear = sweep.all || self.has_asked();
        let (mut batch, mut seen) = (Batch::new(), Seen::new());
        let mut state = self.lock(page);
        if state.forking {
            return;
        }
        state.outside += 1;
        loop {
            state.take_dirty(&mut sweep, &mut batch);
            if batch.is_empty() {
                break;
            }
            drop(state);
            for piece in batch.pieces() {
                // SAFETY: whole pages that were free and have been taken out, so they are ours, and
                // nothing is in them. Their chunk is not unmapped, since they are not free in it.
                piece.done = self.is_gone(piece, &mut seen)
                    || unsafe { self.discard(piece.at, piece.len, tear) };
            }
            state = self.lock(page);
            state.put_back(&mut sweep, &mut batch);
            if state.forking {
                state.leave(&sweep);
                break;
            }
        }
        state.outside -= 1;
        // What was refused now will be refused again: wait for as much more to become free.
        let refused = if sweep.refused { state.dirty } else { 0 };
        let dirty_max = self.config.dirty_max;
        state.trigger = dirty_max.max(refused.saturating_add(dirty_max / 2));
    }
}

impl Default for MmapPages {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: RawMutex, S: System> std::fmt::Debug for MmapPages<L, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MmapPages")
            .field("config", &self.config)
            .field("huge_pages", &self.huge_pages())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl<L: RawMutex, S: System> Drop for MmapPages<L, S> {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        // A live run may be used until it is given back, which it never will be: its chunk stays.
        let mut list = state.take_free_chunks(false);
        while let Some(chunk) = list {
            let (at, len) = Chunk::mapping(chunk);
            // SAFETY: taken out of the directory and wholly free.
            unsafe {
                list = (*chunk.as_ptr()).next;
                let _ = self.system.unmap(at, len);
            }
        }
        if let Some(Table { at, len }) = state.directory.table() {
            // SAFETY: nobody looks at the directory any more.
            let _ = unsafe { self.system.unmap(at, len) };
        }
    }
}

// SAFETY: runs are carved out of free pages, so none overlaps another or anything else, inside of
// private mappings that stay where they are while a page of them is in use, also when the supplier is
// moved or dropped. `find` honours the alignment. The page size is the system's, which is fixed.
// Nothing here panics, and no zone is called.
unsafe impl<L: RawMutex, S: System> PageSupplier for MmapPages<L, S> {
    fn page_size(&self) -> usize {
        page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        let page = page_size();
        PageError::check(layout, page)?;
        let run = self.lock(page).carve(layout, page);
        let run = run.map_or_else(|| self.grow(layout, page), Ok)?;
        Ok(if request.may_be_dumped() { run } else { self.hide(run) })
    }

    unsafe fn free_pages(&self, run: PageRun) {
        let (start, len) = (run.base().addr().get(), run.layout().size());
        if run.flag() == HIDDEN {
            // If the system refuses, whoever has these pages next is not in dumps either.
            // SAFETY: the run is ours again, and lies in a mapping.
            let _ = self.calls.hint.count(unsafe { self.system.dump(run.base(), len, true) });
        }
        let mut state = self.state.lock();
        if !state.give(start, len, true) {
            return;
        }
        state.in_use -= len;
        if DECOMMITS && state.dirty > state.trigger {
            drop(state);
            let keep = self.config.dirty_max / 2;
            self.decommit_by(Sweep::down_to(keep - keep % page_size()));
        }
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        if DECOMMITS { Some(self) } else { None }
    }

    fn protects(&self) -> Option<&dyn Protect> {
        Some(self)
    }

    fn regions(&self) -> Option<&dyn Regions> {
        Some(self)
    }
}

// SAFETY: the mapping stays as it is, so the range is valid all the time; the system changes whole pages
// of it and no others. Memory for it later is no more uncertain than for any page that was never
// written. It does not panic.
unsafe impl<L: RawMutex, S: System> Decommit for MmapPages<L, S> {
    unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        if len != 0 {
            // What the system refuses stays as it is, which is a content like any other.
            // SAFETY: the caller's duty is passed on unchanged.
            let _ = unsafe { self.discard(at, len, self.has_asked()) };
        }
    }

    fn relax(&self) {
        std::thread::yield_now();
    }
}

// SAFETY: the system changes how the pages of the range may be accessed, and nothing else.
unsafe impl<L: RawMutex, S: System> Protect for MmapPages<L, S> {
    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the range is inside a live run, and the caller does not use it from now on.
        let protected = unsafe { self.system.protect(at, len) };
        self.calls.protect.count(protected).map_err(PageError::System)
    }

    unsafe fn unprotect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the range is inside a live run.
        let accessible = unsafe { self.system.unwall(at, len) };
        self.calls.protect.count(accessible).map_err(PageError::System)
    }
}

// SAFETY: a run lies in the region of one chunk, which is neither moved nor unmapped while the run is
// live; chunks are separate mappings. The generation counts chunks that came or went, in the same step
// that makes them known or unknown.
unsafe impl<L: RawMutex, S: System> Regions for MmapPages<L, S> {
    fn generation(&self) -> u64 {
        self.state.lock().directory.generation()
    }

    fn visit_regions(&self, visit: &mut dyn FnMut(Region)) {
        let mut last = 0;
        loop {
            let next = self.state.lock().directory.after(last).map(Chunk::region);
            let Some((base, len)) = next else { return };
            last = base.addr().get();
            visit(Region { base, len });
        }
    }
}
