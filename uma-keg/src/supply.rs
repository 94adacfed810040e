//! Slabs come and go: the calls to page suppliers and metadata, which happen without the keg's lock.
//!
//! ```text
//!   import                              lock
//!     take what is free ................. |
//!   enough? return
//!                                       unlock
//!     header from Metadata (if outside)
//!     run from PageSupplier
//!     larger table (if outside, and full)
//!                                       lock
//!     insert the slab, take from it ..... |
//! ```
//!
//! Two callers that find nothing at the same time may both grow the keg; the slab that was not needed
//! stays, wholly free, until a reclaim.
//!
//! A slab belongs to the call that makes it until [`State::insert`], and to the call that gives it back from
//! [`State::detach_free`] on. So what fails half way gives back what it has, and nothing else knows of it.
//!
//! Lock order: the keg's lock is a leaf, and is held here only between those calls.

use core::alloc::Layout;

use uma_core::{AllocError, Metadata, PageRun, PageSupplier, Protect, RawMutex, Request};

use crate::keg::Keg;
use crate::map::Map;
use crate::slab::SlabPtr;
use crate::state::State;
use crate::sync::{MutexGuard, Ordering};

/// A chain of slabs that are in no keg's lists, linked by `next`.
struct Chain(Option<SlabPtr>);

impl Iterator for Chain {
    type Item = SlabPtr;

    fn next(&mut self) -> Option<SlabPtr> {
        let slab = self.0?;
        // SAFETY: whoever has the chain owns its slabs, and those not yet returned are alive.
        self.0 = unsafe { slab.header() }.next.take();
        Some(slab)
    }
}

impl<P: PageSupplier, L: RawMutex, M: Metadata> Keg<P, L, M> {
    /// Makes a slab and puts it into the lists. Returns with the lock held.
    pub(crate) fn grow(&self, request: Request) -> Result<MutexGuard<'_, L, State<M>>, AllocError> {
        // The layout was made for a page size that the caller stated.
        if !self.layout.slab_size().is_multiple_of(self.pages.page_size()) {
            return Err(AllocError::Unsupported);
        }
        let slab = self.make_slab(request)?;
        let mut state = self.state.lock();
        while self.layout.header_offset().is_none() && !state.map.has_room() {
            let entries = state.map.len();
            drop(state);
            let Some(larger) = Map::with_room_for(&self.meta, entries) else {
                // SAFETY: the slab was made just now and is in no list.
                unsafe { self.free_slab(slab) };
                return Err(AllocError::Metadata);
            };
            state = self.state.lock();
            let retired = state.map.adopt(larger);
            drop(state);
            retired.free(&self.meta);
            state = self.state.lock();
        }
        // SAFETY: we own the slab and give it up; the loop saw to the room in the map.
        unsafe { state.insert(&self.layout, slab) };
        self.grown.fetch_add(1, Ordering::Relaxed);
        Ok(state)
    }

    /// Gets the memory of a slab and builds its header.
    fn make_slab(&self, request: Request) -> Result<SlabPtr, AllocError> {
        let outside = match self.layout.header_offset() {
            None => Some(self.meta.alloc_meta(self.layout.header()).ok_or(AllocError::Metadata)?),
            Some(_) => None,
        };
        let request = self.layout.upkeep().request(request);
        let run = match self.pages.alloc_pages(self.run(), request) {
            Ok(run) => run,
            Err(error) => {
                if let Some(header) = outside {
                    // SAFETY: it came from there just now, with this layout.
                    unsafe { self.meta.free_meta(header, self.layout.header()) };
                }
                return Err(error.into());
            }
        };
        let (base, flag) = (run.base(), run.flag());
        if let Some(protects) = self.guards() {
            // SAFETY: the guard is the last page of the run, and nobody touches it.
            let guard = unsafe { base.add(self.layout.slab_size()) };
            // Where the system refuses, the slab has none.
            // SAFETY: as above.
            let _ = unsafe { protects.protect(guard, self.layout.guard()) };
        }
        if self.layout.upkeep().zeroed && !run.is_zeroed() {
            // SAFETY: the run is ours, and at least so long.
            unsafe { base.write_bytes(0, self.layout.items_size()) };
        }
        // SAFETY: without an outside header the offset is that of the header at the end of the run,
        // and the header is no longer than the rest of it.
        let inside = || unsafe { base.add(self.layout.header_offset().unwrap_or(0)) };
        let at = outside.unwrap_or_else(inside);
        // SAFETY: the run is ours and has the layout of a slab; so is the header's memory, which is
        // aligned because runs and header sizes are multiples of a word. The run's value is taken
        // apart here and put together again in `free_slab`.
        Ok(unsafe { SlabPtr::build(at, base, flag, &self.layout) })
    }

    /// Gives the memory of a slab back.
    ///
    /// # Safety
    ///
    /// The slab was made by `make_slab` of this keg, is in no list, and no item of it is in use.
    unsafe fn free_slab(&self, slab: SlabPtr) {
        // SAFETY: the caller owns the slab.
        let header = unsafe { slab.header() };
        let (base, flag) = (header.base(), header.flag());
        // SAFETY: these are the parts of the run that `make_slab` took apart; nothing uses it.
        let run = unsafe { PageRun::from_parts(base, self.run(), false, flag) };
        // SAFETY: the caller gave the slab up, and this is the last use of its header.
        unsafe { self.free_header(slab) };
        if let Some(protects) = self.guards() {
            // SAFETY: the guard is the last page of the run.
            let guard = unsafe { base.add(self.layout.slab_size()) };
            // SAFETY: as above.
            if unsafe { protects.unprotect(guard, self.layout.guard()) }.is_err() {
                // What is protected may not go back. There is nobody to tell: the pages are lost.
                return;
            }
        }
        // SAFETY: the run came from this supplier, whole.
        unsafe { self.pages.free_pages(run) };
    }

    /// The power to protect guard pages, if there are to be any.
    fn guards(&self) -> Option<&dyn Protect> {
        if self.layout.guard() == 0 { None } else { self.pages.protects() }
    }

    /// The layout of the run of pages of a slab: with its guard page, if it has one.
    fn run(&self) -> Layout {
        if self.guards().is_some() { self.layout.guarded_slab() } else { self.layout.slab() }
    }

    /// Gives the memory of an outside header back, and none of an inside one.
    ///
    /// # Safety
    ///
    /// The slab was made by `make_slab` of this keg, and its header is used no more.
    unsafe fn free_header(&self, slab: SlabPtr) {
        if self.layout.header_offset().is_none() {
            // SAFETY: it came from there, with this layout, and is used no more.
            unsafe { self.meta.free_meta(slab.memory(), self.layout.header()) };
        }
    }

    /// Gives back the slabs that are wholly free, as long as the reserve stays.
    pub(crate) fn drain_slabs(&self) {
        let mut state = self.state.lock();
        let chain = Chain(state.detach_free(&self.layout));
        let table = state.map.retire_if_empty();
        drop(state);
        table.free(&self.meta);
        for slab in chain {
            // SAFETY: it was wholly free, and the chain took it out of the lists.
            unsafe { self.free_slab(slab) };
        }
    }
}

impl<P: PageSupplier, L: RawMutex, M: Metadata> Drop for Keg<P, L, M> {
    fn drop(&mut self) {
        self.set_reserve(0);
        self.drain_slabs();
        let state = self.state.get_mut();
        let chain = Chain(state.detach_live());
        let table = core::mem::replace(&mut state.map, Map::new());
        table.free(&self.meta);
        for slab in chain {
            // SAFETY: nobody looks at a header but the keg, and it ends here; the run stays.
            unsafe { self.free_header(slab) };
        }
    }
}
