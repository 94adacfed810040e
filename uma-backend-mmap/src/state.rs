//! What the lock of the supplier guards: which chunks there are, and the sums over them.

use std::alloc::Layout;
use std::ptr::NonNull;

use uma_core::PageRun;

use crate::directory::Directory;
use crate::free::BLOCK;
use crate::region::Chunk;

/// Dirty pages that a piece must have to be decommitted, pass by pass: first whole blocks go, which keeps
/// huge pages whole, and a call is never made for little while there is much more elsewhere.
const PASSES: [usize; 3] = [BLOCK, 16, 1];

/// The pass for all that may be resident, which takes the place of the later ones where all is to go.
const LAST: usize = PASSES.len();

/// Pieces decommitted between one lock of the supplier and the next.
const BATCH: usize = 32;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) directory: Directory,
    pub(crate) page: usize,
    /// Bytes in regions.
    pub(crate) reserved: usize,
    /// Bytes mapped beside them.
    pub(crate) beside: usize,
    /// Bytes in live runs.
    pub(crate) in_use: usize,
    /// Bytes in live runs, or on their way to be decommitted.
    pub(crate) taken: usize,
    /// Dirty bytes.
    pub(crate) dirty: usize,
    /// The fewest there were since [`MmapPages::maintain`](crate::MmapPages::maintain).
    pub(crate) idle: usize,
    /// Dirty bytes above which to decommit. Above `dirty_max` only after the system refused.
    pub(crate) trigger: usize,
    /// Callers who have taken something out, or promised a place, and go on without the lock.
    pub(crate) outside: usize,
    /// Somebody waits until there are none, to make a copy of the process: nobody goes out to give memory back.
    pub(crate) forking: bool,
}

/// Memory that is in no run and not free while the system is asked to take it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) at: NonNull<u8>,
    pub(crate) len: usize,
    /// Where its block begins, if none of it is dirty: then it need not be resident, and lies in one block.
    pub(crate) clean_in: Option<NonNull<u8>>,
    /// Whether the system has taken it.
    pub(crate) done: bool,
}

/// Some of that.
#[derive(Debug)]
pub(crate) struct Batch {
    pieces: [Option<Outgoing>; BATCH],
    count: usize,
}

impl Batch {
    pub(crate) const fn new() -> Self {
        Self { pieces: [None; BATCH], count: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn pieces(&mut self) -> impl Iterator<Item = &mut Outgoing> {
        self.pieces[..self.count].iter_mut().flatten()
    }

    fn push(&mut self, piece: Outgoing) {
        self.pieces[self.count] = Some(piece);
        self.count += 1;
    }
}

/// How far looking for dirty memory has come: through all chunks from the youngest, in each from the
/// highest page, in one pass after the other. It never goes back, so it ends although what the system
/// refused to take is dirty again.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// Bytes that may stay dirty: what was wished, and what was refused.
    keep: usize,
    /// Whether all that may be resident goes, dirty or not.
    pub(crate) all: bool,
    pub(crate) refused: bool,
    pass: usize,
    /// Chunks that are older than this are left.
    serial: u64,
    /// The chunk that `before` is about.
    at: u64,
    before: usize,
    /// Of the block that `before` lies inside of, all goes.
    open: bool,
}

impl Sweep {
    /// Until at most `keep` bytes are dirty.
    pub(crate) const fn down_to(keep: usize) -> Self {
        let (serial, all) = (u64::MAX, false);
        Self { keep, all, refused: false, pass: 0, serial, at: 0, before: 0, open: false }
    }

    /// Until nothing that is free is resident, though nobody wrote to it.
    pub(crate) const fn of_all() -> Self {
        Self { all: true, ..Self::down_to(0) }
    }

    fn is_over(&self, dirty: usize) -> bool {
        self.pass > LAST || !self.all && (dirty <= self.keep || self.pass == LAST)
    }

    fn next_pass(&mut self) {
        self.pass = match self.pass {
            0 if self.all => LAST,
            // Where all that is dirty has to go there is nothing to choose.
            0 if self.keep == 0 => PASSES.len() - 1,
            pass => pass + 1,
        };
        (self.serial, self.at) = (u64::MAX, 0);
    }
}

impl State {
    pub(crate) const fn new(trigger: usize) -> Self {
        Self {
            directory: Directory::new(),
            page: 0,
            reserved: 0,
            beside: 0,
            in_use: 0,
            taken: 0,
            dirty: 0,
            idle: 0,
            trigger,
            outside: 0,
            forking: false,
        }
    }

    /// Takes a run: from the oldest chunk that has room, at the lowest address.
    pub(crate) fn carve(&mut self, layout: Layout, page: usize) -> Option<PageRun> {
        let (pages, align) = (layout.size() / page, layout.align().max(page) / page);
        let mut age = 0;
        while let Some(at) = self.directory.with_room(age, pages) {
            let chunk = self.directory.chunk(at);
            if let Some(first) = chunk.find(pages, align) {
                let dirty = chunk.pages().take(first..first + pages) * page;
                chunk.touch(first..first + pages);
                let base = chunk.at(first);
                self.dirty -= dirty;
                self.idle = self.idle.min(self.dirty);
                self.taken += layout.size();
                self.in_use += layout.size();
                // SAFETY: these pages were free and are so no more, so they are ours; they lie in one
                // chunk, are aligned by `find`, and if none was dirty they read as zero.
                return Some(unsafe { PageRun::from_parts(base, layout, dirty == 0, 0) });
            }
            *self.directory.room(at) = self.directory.chunk(at).pages().longest();
            age = at + 1;
        }
        None
    }

    /// Makes memory free. Returns whether there is such memory.
    pub(crate) fn give(&mut self, start: usize, len: usize, dirty: bool) -> bool {
        let page = self.page;
        let Some(chunk) = self.directory.find(start) else { return false };
        let first = chunk.page_at(start);
        let range = first..first + len / page;
        let (age, pages) = (chunk.age, chunk.sums().pages);
        chunk.pages().give(range.clone(), dirty);
        if dirty {
            // It may have been written to for the first time after a sweep came by.
            chunk.touch(range.clone());
        }
        self.taken -= len;
        self.dirty += if dirty { len } else { 0 };
        let room = *self.directory.room(age);
        if room < pages && self.directory.chunk(age).pages().exceeds(&range, room) {
            *self.directory.room(age) = pages;
        }
        true
    }

    /// Takes out what a sweep is about, until that is all, or the batch is full.
    pub(crate) fn take_dirty(&mut self, sweep: &mut Sweep, batch: &mut Batch) {
        while batch.count < BATCH && !sweep.is_over(self.dirty) {
            let older = self.directory.older_than(sweep.serial);
            let Some(age) = older.checked_sub(1) else {
                sweep.next_pass();
                continue;
            };
            let excess = self.dirty.saturating_sub(if sweep.all { 0 } else { sweep.keep });
            let excess = excess.div_ceil(self.page);
            let chunk = self.directory.chunk(age);
            if sweep.at != chunk.serial {
                (sweep.at, sweep.before, sweep.open) = (chunk.serial, usize::MAX, false);
            }
            let mut pages = chunk.pages();
            let found = match PASSES.get(sweep.pass) {
                None if !sweep.open && pages.sums.touched == 0 && pages.sums.dirty == 0 => None,
                None => pages.resident_piece(sweep.before, &mut sweep.open),
                _ if pages.sums.dirty == 0 => None,
                Some(&BLOCK) => pages.dirty_blocks(sweep.before, excess),
                Some(&least) => pages.dirty_piece(sweep.before, least, excess),
            };
            let Some(piece) = found else {
                sweep.serial = chunk.serial;
                continue;
            };
            sweep.before = piece.next;
            let len = piece.pages.len() * self.page;
            let (first, at) = (piece.pages.start, chunk.at(piece.pages.start));
            let clean_in = (piece.dirty == 0).then(|| chunk.at(first / BLOCK * BLOCK));
            chunk.pages().take(piece.pages);
            self.taken += len;
            self.dirty -= piece.dirty * self.page;
            batch.push(Outgoing { at, len, clean_in, done: false });
        }
        self.idle = self.idle.min(self.dirty);
    }

    /// Puts in what was taken out. What the system refused is dirty still, and is not wanted again.
    pub(crate) fn put_back(&mut self, sweep: &mut Sweep, batch: &mut Batch) {
        for piece in batch.pieces() {
            if !piece.done {
                sweep.refused = true;
                sweep.keep += piece.len;
            }
            self.give(piece.at.addr().get(), piece.len, !piece.done);
        }
        batch.count = 0;
    }

    /// Notes that a sweep ends before it is over: the rest of the block that it is inside of is still to go.
    pub(crate) fn leave(&mut self, sweep: &Sweep) {
        let age = self.directory.older_than(sweep.at.saturating_add(1)).checked_sub(1);
        let Some(age) = age.filter(|_| sweep.open && !sweep.before.is_multiple_of(BLOCK)) else {
            return;
        };
        let chunk = self.directory.chunk(age);
        if chunk.serial == sweep.at {
            chunk.pages().touch(sweep.before - 1..sweep.before);
        }
    }

    /// Puts a chunk in, at a place that was promised.
    ///
    /// # Safety
    ///
    /// The chunk is mapped, the caller's, and not in the directory.
    pub(crate) unsafe fn add(&mut self, chunk: NonNull<Chunk>) {
        // SAFETY: the caller's promise.
        unsafe {
            let Share { region, beside, dirty } = Share::of(&*chunk.as_ptr(), self.page);
            self.reserved += region;
            self.beside += beside;
            self.dirty += dirty;
            self.directory.insert(chunk);
        }
    }

    /// Takes out the chunks that are wholly free, as a list, and promises a place for each. The smallest
    /// of them stays if `spare`.
    pub(crate) fn take_free_chunks(&mut self, spare: bool) -> Option<NonNull<Chunk>> {
        let mut kept = None;
        for age in 0..self.directory.count() {
            let sums = self.directory.chunk(age).sums();
            if spare && sums.used == 0 && kept.is_none_or(|(pages, _)| sums.pages < pages) {
                kept = Some((sums.pages, age));
            }
        }
        let mut list = None;
        for age in (0..self.directory.count()).rev() {
            let page = self.page;
            let chunk = self.directory.chunk(age);
            if chunk.sums().used > 0 || chunk.telling || kept.is_some_and(|(_, at)| at == age) {
                continue;
            }
            let Share { region, beside, dirty } = Share::of(chunk, page);
            chunk.next = list;
            self.reserved -= region;
            self.beside -= beside;
            self.dirty -= dirty;
            list = Some(self.directory.remove(age));
        }
        self.idle = self.idle.min(self.dirty);
        list
    }
}

/// What a chunk adds to the sums.
struct Share {
    region: usize,
    beside: usize,
    dirty: usize,
}

impl Share {
    fn of(chunk: &Chunk, page: usize) -> Self {
        Self { region: chunk.region().1, beside: chunk.beside(), dirty: chunk.sums().dirty * page }
    }
}
