//! Chunks come and go.

use std::alloc::Layout;
use std::ptr::NonNull;

use uma_core::{PageError, PageRun, RawMutex};

use crate::directory::Table;
use crate::region::Chunk;
use crate::sys::{DECOMMITS, Errno, System, page_size};
use crate::{Config, HugePages, MmapPages};

impl<L: RawMutex, S: System> MmapPages<L, S> {
    /// Unmaps the chunks that are wholly free, but the smallest if `spare`. Returns how many.
    pub(crate) fn unmap_free_chunks(&self, spare: bool) -> usize {
        let page = page_size();
        let list = {
            let mut state = self.lock(page);
            // What is wanted for an allocation, which is out already, does not wait.
            if state.forking && spare {
                return 0;
            }
            state.outside += 1;
            state.take_free_chunks(spare)
        };
        // SAFETY: these have been taken out, with places promised.
        let gone = unsafe { self.unmap(list) };
        self.lock(page).outside -= 1;
        gone
    }

    /// Unmaps a list of chunks. What the system refuses to unmap is put in again. Returns how many are
    /// gone.
    ///
    /// # Safety
    ///
    /// They are the caller's and wholly free, and there is a place promised for each.
    unsafe fn unmap(&self, mut list: Option<NonNull<Chunk>>) -> usize {
        let (mut kept, mut gone) = (None, 0);
        while let Some(chunk) = list {
            // SAFETY: the chunk is the caller's, and mapped still.
            list = unsafe { (*chunk.as_ptr()).next };
            let (at, len) = Chunk::mapping(chunk);
            // SAFETY: the whole mapping; no run is in it, nor anything else that is used.
            if self.calls.unmap.count(unsafe { self.system.unmap(at, len) }).is_ok() {
                gone += 1;
            } else {
                // SAFETY: it is still there.
                unsafe { (*chunk.as_ptr()).next = kept };
                kept = Some(chunk);
            }
        }
        if kept.is_none() && gone == 0 {
            return 0;
        }
        let mut state = self.lock(page_size());
        (0..gone).for_each(|_| state.directory.release());
        while let Some(chunk) = kept {
            // SAFETY: the chunk is the caller's, see above.
            unsafe {
                kept = (*chunk.as_ptr()).next;
                state.add(chunk);
            }
        }
        gone
    }

    /// Sees to it that there is a place for one more chunk.
    fn promise(&self, page: usize) -> Result<(), Errno> {
        loop {
            let Err(len) = self.lock(page).directory.promise(page) else { return Ok(()) };
            let at = match self.system.map(len) {
                Ok(at) => at,
                refused => return self.calls.map.count(refused).map(drop),
            };
            // SAFETY: new memory, and ours.
            let old = unsafe { self.lock(page).directory.adopt(Table { at, len }) };
            if let Some(Table { at, len }) = old {
                // SAFETY: nothing is in this table any more.
                let unmapped = unsafe { self.system.unmap(at, len) };
                if unmapped.is_err() {
                    // Some pages of address space are lost.
                    let _ = self.calls.unmap.count(unmapped);
                }
            }
        }
    }

    /// Maps a chunk that has room for `layout`, larger if the system lets it.
    fn map(&self, layout: Layout, page: usize) -> Result<NonNull<Chunk>, Errno> {
        let slack = layout.align().max(page) - page;
        let need = layout.size().checked_add(slack).ok_or(libc::ENOMEM)? / page;
        let Config { chunk_min, chunk_max, .. } = self.config;
        let wish = self.state.lock().reserved.min(chunk_max).max(chunk_min).div_ceil(page);
        let (mut pages, mut last) = (wish.max(need), false);
        loop {
            match self.calls.map.count(Chunk::map(&self.system, pages, page)) {
                Ok(chunk) => {
                    self.set_up(chunk);
                    return Ok(chunk);
                }
                Err(_) if pages > need => pages = (pages / 2).max(need),
                Err(error) if last || self.unmap_free_chunks(false) == 0 => return Err(error),
                Err(_) => last = true,
            }
        }
    }

    /// Tells the system what a new chunk is. It may refuse everything.
    fn set_up(&self, chunk: NonNull<Chunk>) {
        let ((start, mapped), (wall, page)) = (Chunk::mapping(chunk), Chunk::wall(chunk));
        let huge = self.huge_pages();
        self.told(huge);
        // SAFETY: the chunk is new and ours.
        let (region, len) = unsafe { (*chunk.as_ptr()).region() };
        // SAFETY: the chunk is ours; the ranges lie in the mapping; nothing is in the wall's page, and nobody will
        // touch it.
        unsafe {
            if DECOMMITS {
                let _ = self.calls.hint.count(self.system.name(start, mapped, self.config.name));
                if huge != HugePages::System {
                    let _ = self.calls.hint.count(self.system.huge(region, len, huge));
                }
            }
            (*chunk.as_ptr()).huge = huge;
            let _ = self.calls.protect.count(self.system.wall(wall, page));
        }
    }

    #[cold]
    pub(crate) fn grow(&self, layout: Layout, page: usize) -> Result<PageRun, PageError> {
        self.lock(page).outside += 1;
        let run = self.carve_new(layout, page);
        self.lock(page).outside -= 1;
        run
    }

    fn carve_new(&self, layout: Layout, page: usize) -> Result<PageRun, PageError> {
        self.promise(page).map_err(PageError::System)?;
        let chunk = match self.map(layout, page) {
            Ok(chunk) => chunk,
            Err(error) => {
                self.lock(page).directory.release();
                return Err(PageError::System(error));
            }
        };
        let mut state = self.lock(page);
        // Another thread may have brought what is needed in the meantime.
        if let Some(run) = state.carve(layout, page) {
            drop(state);
            // SAFETY: the chunk is new and ours, in no list, and its place is promised.
            unsafe { self.unmap(Some(chunk)) };
            return Ok(run);
        }
        // SAFETY: as above.
        unsafe { state.add(chunk) };
        let run = state.carve(layout, page).ok_or(PageError::Exhausted);
        let changed_mind = state.has_untold(self.huge_pages());
        drop(state);
        if changed_mind {
            self.tell();
        }
        run
    }
}
