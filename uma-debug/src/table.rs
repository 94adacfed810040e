//! What is known of each item, beside the items: no write through a wild pointer into items reaches it
//! easily, and a look at it never touches memory that somebody claims to be an item.
//!
//! ```text
//!   root: [ 8 links ] --> chunk: key | 8 links | word word word ...  | record record ...
//!                                              one per item that can begin in these 64 KiB of addresses
//! ```
//!
//! The chunks make a tree by the bits of a hash of their key, which is the address without its low 16 bits.
//! Chunks only come; so looking and adding need no lock, and all go at once with the table.
//!
//! A word says where in its chunk the item begins, and two things about it. Items do not overlap, so no
//! two of them share `offset / size`.
//!
//! ```text
//!   | offset + 1, or 0 if no item was seen here | RESTING | LIVE |
//! ```

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use uma_core::Metadata;

use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::witness::{Kept, Trace};

const CHUNK: usize = 64 << 10;
const WAYS: usize = 8;

/// The item is in use.
pub(crate) const LIVE: u32 = 1;
/// The item is free, and its contents are those that it was laid to rest with.
pub(crate) const RESTING: u32 = 2;
const START: u32 = 2;

/// What is kept of an item beside its word.
pub(crate) struct Record {
    pub(crate) sum: AtomicU64,
    pub(crate) allocated: Kept,
    pub(crate) freed: Kept,
}

pub(crate) struct Chunk {
    key: usize,
    ways: [AtomicPtr<Chunk>; WAYS],
    words: NonNull<AtomicU32>,
    /// None if no records are kept.
    records: Option<NonNull<Record>>,
}

/// One item's place in the table.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) word: &'a AtomicU32,
    pub(crate) record: Option<&'a Record>,
    /// The upper part of the word of an item that begins here.
    start: u32,
}

impl Place<'_> {
    /// The word of an item that begins here, with these marks.
    pub(crate) const fn marked(&self, marks: u32) -> u32 {
        self.start | marks
    }

    /// Whether an item was seen to begin here, and if so with which marks.
    pub(crate) fn marks(&self) -> Option<u32> {
        let word = self.word.load(Ordering::Acquire);
        (word >> START == self.start >> START).then_some(word & (LIVE | RESTING))
    }
}

/// An item that was found near an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Near {
    pub(crate) item: usize,
    pub(crate) live: bool,
}

pub(crate) struct Table {
    root: [AtomicPtr<Chunk>; WAYS],
    /// No two items begin closer to each other.
    size: usize,
    records: bool,
}

const fn links() -> [AtomicPtr<Chunk>; WAYS] {
    [const { AtomicPtr::new(ptr::null_mut()) }; WAYS]
}

impl Table {
    pub(crate) const fn new(size: usize, records: bool) -> Self {
        // Items without a size are identifiers, each at an address of its own.
        let size = if size == 0 { 1 } else { size };
        Self { root: links(), size, records }
    }

    const fn slots(&self) -> usize {
        (CHUNK - 1) / self.size + 1
    }

    /// The layout of a chunk, and the offsets of its words and records.
    fn layout(&self) -> Option<(Layout, usize, usize)> {
        let words = Layout::array::<AtomicU32>(self.slots()).ok()?;
        let (layout, words) = Layout::new::<Chunk>().extend(words).ok()?;
        let records = if self.records { self.slots() } else { 0 };
        let (layout, records) = layout.extend(Layout::array::<Record>(records).ok()?).ok()?;
        Some((layout.pad_to_align(), words, records))
    }

    /// The chunk of a key, or the link at which it is missing.
    fn find(&self, key: usize) -> Result<&Chunk, &AtomicPtr<Chunk>> {
        let mut hash = (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut ways = &self.root;
        loop {
            let link = &ways[(hash >> 61) as usize];
            // SAFETY: a link is null or leads to a chunk that stays until the table is freed.
            let Some(chunk) = (unsafe { link.load(Ordering::Acquire).as_ref() }) else {
                return Err(link);
            };
            if chunk.key == key {
                return Ok(chunk);
            }
            ways = &chunk.ways;
            // Different keys part after 64 bits at the latest: the hash maps them one to one.
            hash = hash.rotate_left(3);
        }
    }

    fn place<'a>(&self, chunk: &'a Chunk, address: usize) -> Place<'a> {
        let offset = address % CHUNK;
        self.slot(chunk, offset / self.size, offset)
    }

    fn slot<'a>(&self, chunk: &'a Chunk, slot: usize, offset: usize) -> Place<'a> {
        debug_assert!(slot < self.slots());
        // SAFETY: a chunk has so many words, and records if it has any.
        unsafe {
            Place {
                word: chunk.words.add(slot).as_ref(),
                record: chunk.records.map(|records| records.add(slot).as_ref()),
                // An offset is below 2^16.
                start: (offset as u32 + 1) << START,
            }
        }
    }

    /// The place of the item at an address, if there is a chunk for it.
    pub(crate) fn get(&self, address: usize) -> Option<Place<'_>> {
        Some(self.place(self.find(address / CHUNK).ok()?, address))
    }

    /// The place of the item at an address; makes its chunk if need be. `None` if there is no memory.
    pub(crate) fn get_or_make(&self, address: usize, meta: &impl Metadata) -> Option<Place<'_>> {
        let key = address / CHUNK;
        if let Ok(chunk) = self.find(key) {
            return Some(self.place(chunk, address));
        }
        let (layout, words, records) = self.layout()?;
        let memory = meta.alloc_meta(layout)?;
        // SAFETY: the memory is ours and has this layout, with the words and records at these offsets.
        let new = unsafe {
            let (words, records) = (memory.add(words).cast(), memory.add(records).cast());
            for slot in 0..self.slots() {
                words.add(slot).write(AtomicU32::new(0));
                if self.records {
                    records.add(slot).write(Record {
                        sum: AtomicU64::new(0),
                        allocated: Kept::new(),
                        freed: Kept::new(),
                    });
                }
            }
            let records = self.records.then_some(records);
            memory.cast::<Chunk>().write(Chunk { key, ways: links(), words, records });
            memory.cast::<Chunk>().as_ptr()
        };
        loop {
            match self.find(key) {
                Ok(chunk) => {
                    // Somebody else was first.
                    // SAFETY: nobody has seen our chunk, whose memory came from there with this layout.
                    unsafe { meta.free_meta(memory, layout) };
                    return Some(self.place(chunk, address));
                }
                Err(link) => {
                    let null = ptr::null_mut();
                    let put = link.compare_exchange(null, new, Ordering::AcqRel, Ordering::Relaxed);
                    if put.is_ok() {
                        // SAFETY: written above, and there until the table is freed.
                        return Some(self.place(unsafe { &*new }, address));
                    }
                }
            }
        }
    }

    /// The item that an address lies in, one in use rather than a free one. An item that begins at the
    /// address itself counts, too.
    pub(crate) fn around(&self, address: usize) -> Option<Near> {
        let lowest = address.saturating_sub(self.size - 1);
        let mut found = None;
        for key in (lowest / CHUNK..=address / CHUNK).rev() {
            let Ok(chunk) = self.find(key) else { continue };
            let base = key * CHUNK;
            let from = lowest.saturating_sub(base).min(CHUNK - 1) / self.size;
            let to = (address - base).min(CHUNK - 1) / self.size;
            for slot in (from..=to).rev() {
                let word = self.slot(chunk, slot, 0).word.load(Ordering::Acquire);
                let Some(offset) = (word >> START).checked_sub(1) else { continue };
                let item = base + offset as usize;
                if (lowest..=address).contains(&item) {
                    let near = Near { item, live: word & LIVE != 0 };
                    if near.live {
                        return Some(near);
                    }
                    found = found.or(Some(near));
                }
            }
        }
        found
    }

    /// Shows every item in use.
    pub(crate) fn for_each_live(&self, visit: &mut dyn FnMut(usize, Option<(Trace, Trace)>)) {
        self.root.iter().for_each(|link| self.visit_live(link, visit));
    }

    fn visit_live(
        &self,
        link: &AtomicPtr<Chunk>,
        visit: &mut dyn FnMut(usize, Option<(Trace, Trace)>),
    ) {
        // SAFETY: as in `find`.
        let Some(chunk) = (unsafe { link.load(Ordering::Acquire).as_ref() }) else { return };
        for slot in 0..self.slots() {
            let place = self.slot(chunk, slot, 0);
            let word = place.word.load(Ordering::Acquire);
            if word & LIVE != 0 {
                let item = chunk.key * CHUNK + (word >> START) as usize - 1;
                let traces =
                    place.record.map(|record| (record.allocated.get(), record.freed.get()));
                visit(item, traces);
            }
        }
        chunk.ways.iter().for_each(|link| self.visit_live(link, visit));
    }

    /// Gives the memory of all chunks back.
    pub(crate) fn free(&mut self, meta: &impl Metadata) {
        if let Some((layout, ..)) = self.layout() {
            free_below(&mut self.root, layout, meta);
        }
    }
}

/// The tree is no deeper than the hash has bits for, twenty-two levels.
fn free_below(ways: &mut [AtomicPtr<Chunk>; WAYS], layout: Layout, meta: &impl Metadata) {
    for link in ways {
        if let Some(chunk) = NonNull::new(core::mem::replace(link.get_mut(), ptr::null_mut())) {
            // SAFETY: the table is the caller's alone, and so are its chunks, which were made with this
            // layout.
            unsafe {
                free_below(&mut (*chunk.as_ptr()).ways, layout, meta);
                meta.free_meta(chunk.cast(), layout);
            }
        }
    }
}
