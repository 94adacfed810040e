//! The supplier.

use std::alloc::Layout;
use std::ops::Range;
use std::ptr::NonNull;

use uma_core::{Decommit, PageError, PageRun, PageSupplier, RawMutex, Request};

use crate::free::{FreeMap, Taken};
use crate::region::{Chunk, DECOMMITS, page_size};
use crate::stats::{Calls, count, figure};
use crate::sync::{Arc, DefaultLock, Mutex};
use crate::{Config, MmapStats};

/// Supplies runs of pages from memory mapped in large chunks.
///
/// It honours any alignment for which the system has address space. Runs from memory that was never
/// used, or decommitted since, are flagged as zeroed. It maps nothing before the first allocation,
/// and can be a `static`:
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
/// If it is dropped, chunks that still have live runs stay mapped.
///
/// `L` locks the bookkeeping: the lock of `parking_lot` unless you name another.
pub struct MmapPages<L: RawMutex = DefaultLock> {
    config: Config,
    state: Mutex<L, State>,
    calls: Calls,
}

#[derive(Debug)]
struct State {
    free: FreeMap,
    /// By address.
    chunks: Vec<Arc<Chunk>>,
    reserved: usize,
    in_use: usize,
    /// Dirty bytes above which to decommit. Above `dirty_max` only after the system refused.
    trigger: usize,
}

impl State {
    /// The chunk that `address` lies in.
    fn chunk(&self, address: usize) -> Option<&Arc<Chunk>> {
        let after = self.chunks.partition_point(|chunk| chunk.start() <= address);
        self.chunks[..after].last()
    }

    fn carve(&mut self, layout: Layout, page: usize) -> Option<PageRun> {
        let Taken { start, clean } =
            self.free.take(layout.size(), layout.align().max(page), page)?;
        self.in_use += layout.size();
        let base = self.chunk(start)?.at(start);
        // SAFETY: these pages were free and are so no more, so they are ours; they lie in one chunk,
        // since spans do, are aligned by `take`, and if clean they read as zero.
        Some(unsafe { PageRun::from_parts(base, layout, clean, 0) })
    }

    fn add(&mut self, chunk: Chunk) {
        let bounds = chunk.bounds();
        self.reserved += chunk.len();
        let index = self.chunks.partition_point(|other| other.start() < bounds.start);
        self.chunks.insert(index, Arc::new(chunk));
        self.free.give(bounds.clone(), false, &bounds);
    }

    /// Takes out dirty memory until at most `keep` bytes are left.
    fn take_dirty(&mut self, keep: usize) -> Vec<Outgoing> {
        let ranges = self.free.take_dirty(keep);
        let with_chunk = |range: Range<usize>| {
            Some(Outgoing { chunk: Arc::clone(self.chunk(range.start)?), range })
        };
        ranges.into_iter().filter_map(with_chunk).collect()
    }

    /// Takes out the chunks that are wholly free, all but the smallest of them.
    fn take_chunks(&mut self) -> Vec<Arc<Chunk>> {
        let whole = |free: &FreeMap, chunk: &Chunk| free.is_span(&chunk.bounds());
        let spare = self
            .chunks
            .iter()
            .filter(|chunk| whole(&self.free, chunk))
            .min_by_key(|chunk| chunk.len())
            .map(|chunk| chunk.start());
        let Self { free, chunks, reserved, .. } = self;
        chunks
            .extract_if(.., |chunk| {
                let out = Some(chunk.start()) != spare && whole(free, chunk);
                if out {
                    free.remove(chunk.bounds());
                    *reserved -= chunk.len();
                }
                out
            })
            .collect()
    }
}

/// Memory that is in no span and no run while the system is asked to take it.
struct Outgoing {
    chunk: Arc<Chunk>,
    range: Range<usize>,
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
        let state = State {
            free: FreeMap::new(),
            chunks: Vec::new(),
            reserved: 0,
            in_use: 0,
            trigger: config.dirty_max,
        };
        Self { config, state: Mutex::const_new(L::INIT, state), calls: Calls::new() }
    }

    /// Figures of the moment.
    pub fn stats(&self) -> MmapStats {
        let state = self.state.lock();
        let dirty = state.free.dirty_bytes();
        MmapStats {
            reserved: state.reserved,
            in_use: state.in_use,
            dirty,
            clean: state.free.free_bytes() - dirty,
            chunks: state.chunks.len(),
            maps: figure(&self.calls.maps),
            unmaps: figure(&self.calls.unmaps),
            advises: figure(&self.calls.advises),
            refused: figure(&self.calls.refused),
        }
    }

    /// Takes the lock and keeps it, for fork(2): then nothing is half done in the copy.
    pub fn prefork(&self) {
        std::mem::forget(self.state.lock());
    }

    /// Lets go of the lock, in the process or in its copy.
    ///
    /// # Safety
    ///
    /// This thread, or the one that it is the copy of, called [`prefork`](Self::prefork), and this was
    /// not called since.
    pub unsafe fn postfork(&self) {
        // SAFETY: the caller called `prefork`, which forgot the guard.
        unsafe { self.state.force_unlock() }
    }

    /// Whether `at` lies in one of the chunks.
    pub fn contains(&self, at: *const u8) -> bool {
        let state = self.state.lock();
        state.chunk(at.addr()).is_some_and(|chunk| chunk.bounds().contains(&at.addr()))
    }

    /// Decommits all free memory. Address space stays reserved.
    pub fn decommit_all(&self) {
        if DECOMMITS {
            let outgoing = self.state.lock().take_dirty(0);
            self.send(outgoing);
        }
    }

    /// Gives back all that is free: unmaps the chunks that are wholly free, all but the smallest,
    /// and decommits the rest.
    pub fn trim(&self) {
        let chunks = self.state.lock().take_chunks();
        count(&self.calls.unmaps, chunks.len());
        drop(chunks);
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
    /// supplier, which the caller owns.
    pub unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: passed on to the caller.
        if len != 0 && !unsafe { self.discard_part(at, len) } {
            // SAFETY: the caller owns the range.
            unsafe { at.write_bytes(0, len) };
        }
    }

    /// Asks the system to take the memory of part of a live run. Returns whether it did.
    ///
    /// # Safety
    ///
    /// As [`decommit`](Self::decommit); and `len` is not 0.
    unsafe fn discard_part(&self, at: NonNull<u8>, len: usize) -> bool {
        let start = at.addr().get();
        let chunk = self.state.lock().chunk(start).map(Arc::clone);
        // SAFETY: the caller owns these pages, which are whole and in this chunk, and gives up their
        // contents.
        chunk.is_some_and(|chunk| unsafe { self.discard(&chunk, start..start + len) })
    }

    /// # Safety
    ///
    /// As [`Chunk::discard`].
    unsafe fn discard(&self, chunk: &Chunk, range: Range<usize>) -> bool {
        count(&self.calls.advises, 1);
        // SAFETY: the caller's duty is passed on unchanged.
        let done = unsafe { chunk.discard(range) };
        count(&self.calls.refused, usize::from(!done));
        done
    }

    /// Decommits memory that was taken out of the spans and puts it back.
    fn send(&self, outgoing: Vec<Outgoing>) {
        if outgoing.is_empty() {
            return;
        }
        let send = |Outgoing { chunk, range }| {
            // SAFETY: whole pages of this chunk, which were free and have been taken out, so they are
            // ours, and nothing is in them.
            let done = unsafe { self.discard(&chunk, Range::clone(&range)) };
            (chunk, range, done)
        };
        let returning: Vec<(Arc<Chunk>, Range<usize>, bool)> =
            outgoing.into_iter().map(send).collect();
        let mut state = self.state.lock();
        let mut refused = false;
        for (chunk, range, done) in &returning {
            refused |= !done;
            state.free.give(range.clone(), !done, &chunk.bounds());
        }
        // What was refused now will be refused again: wait for as much more to become free.
        let refused = if refused { state.free.dirty_bytes() } else { 0 };
        state.trigger =
            self.config.dirty_max.max(refused.saturating_add(self.config.dirty_max / 2));
        // The last hold on a chunk that another thread has trimmed meanwhile unmaps it: not here.
        drop(state);
    }

    /// Maps a chunk that has room for `layout`, larger if the system lets it.
    fn map(&self, layout: Layout, page: usize) -> Result<Chunk, PageError> {
        let slack = layout.align().max(page) - page;
        let need = layout.size().checked_add(slack).ok_or(PageError::Exhausted)?;
        let reserved = self.state.lock().reserved;
        let Config { chunk_min, chunk_max, .. } = self.config;
        let mut len = reserved.min(chunk_max).max(chunk_min).max(need);
        loop {
            let rounded = len.checked_next_multiple_of(page).ok_or(PageError::Exhausted)?;
            match Chunk::map(rounded) {
                Ok(chunk) => {
                    count(&self.calls.maps, 1);
                    return Ok(chunk);
                }
                Err(error) if len == need => return Err(error),
                Err(_) => len = (len / 2).max(need),
            }
        }
    }

    #[cold]
    fn grow(&self, layout: Layout, page: usize) -> Result<PageRun, PageError> {
        let chunk = self.map(layout, page)?;
        let mut state = self.state.lock();
        // Another thread may have brought what is needed in the meantime.
        if let Some(run) = state.carve(layout, page) {
            drop(state);
            count(&self.calls.unmaps, 1);
            drop(chunk);
            return Ok(run);
        }
        state.add(chunk);
        state.carve(layout, page).ok_or(PageError::Exhausted)
    }
}

impl Default for MmapPages {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: RawMutex> std::fmt::Debug for MmapPages<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MmapPages")
            .field("config", &self.config)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl<L: RawMutex> Drop for MmapPages<L> {
    fn drop(&mut self) {
        let State { free, chunks, .. } = self.state.get_mut();
        for chunk in chunks.drain(..) {
            if !free.is_span(&chunk.bounds()) {
                // A live run may be used until it is given back, which it never will be.
                std::mem::forget(chunk);
            }
        }
    }
}

// SAFETY: runs are carved out of spans, so none overlaps another or anything else, inside of private
// mappings that stay where they are while a byte of them is in use, also when the supplier is moved
// or dropped. `take` honours the alignment. The page size is the system's, which is fixed. Nothing
// here panics, and no zone is called.
unsafe impl<L: RawMutex> PageSupplier for MmapPages<L> {
    fn page_size(&self) -> usize {
        page_size()
    }

    fn alloc_pages(&self, layout: Layout, _: Request) -> Result<PageRun, PageError> {
        let page = page_size();
        PageError::check(layout, page)?;
        let run = self.state.lock().carve(layout, page);
        run.map_or_else(|| self.grow(layout, page), Ok)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        let start = run.base().addr().get();
        let range = start..start + run.layout().size();
        let mut state = self.state.lock();
        let Some(bounds) = state.chunk(start).map(|chunk| chunk.bounds()) else { return };
        state.in_use -= range.len();
        state.free.give(range, true, &bounds);
        if DECOMMITS && state.free.dirty_bytes() > state.trigger {
            let half = self.config.dirty_max / 2;
            let outgoing = state.take_dirty(half - half % page_size());
            drop(state);
            self.send(outgoing);
        }
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        if DECOMMITS { Some(self) } else { None }
    }
}

// SAFETY: the mapping stays as it is, so the range is valid all the time; the system changes whole pages
// of it and no others. Memory for it later is no more uncertain than for any page that was never
// written. It does not panic.
unsafe impl<L: RawMutex> Decommit for MmapPages<L> {
    unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        if len != 0 {
            // What the system refuses stays as it is, which is a content like any other.
            // SAFETY: the caller's duty is passed on unchanged.
            let _ = unsafe { self.discard_part(at, len) };
        }
    }
}
