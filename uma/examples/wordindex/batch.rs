//! The words of one stretch of text, each once, with how often it came.
//!
//! A worker gathers words here and takes them to the index together, shard by shard: a lock is taken
//! once for many words, and a word that comes often goes to the index once.
//!
//! ```text
//!   table (by hash)        entries                              text
//!   +---+                  +------------------------------+     +-----------------
//!   | 2 |--------------.   | 1: hash, place, count, next -|---> |theofand...
//!   | 0 |               `->| 2: hash, place, count, next  |     +-----------------
//!   | 1 |                  +------------------------------+
//!   +---+   0: nothing       ^ first[shard] -> next -> next: the words of one shard
//! ```

use crate::index::{SHARDS, hash, shard_of};

/// Distinct words that a batch has room for.
const WORDS: usize = 2048;
/// Bytes of words, above which it is full. A single word may be longer.
const TEXT: usize = 1 << 14;
/// Slots of the table: twice as many as words, so that there are always empty ones.
const SLOTS: usize = 2 * WORDS;

const _: () = assert!(SLOTS.is_power_of_two() && WORDS < u16::MAX as usize);

struct Entry {
    hash: u64,
    start: usize,
    len: usize,
    count: u64,
    /// The next entry of the same shard, as in `Batch::first`.
    next: u16,
}

/// A word of a batch.
pub(crate) struct Counted<'a> {
    pub(crate) word: &'a [u8],
    pub(crate) hash: u64,
    pub(crate) count: u64,
}

/// Words, each once. All numbers of entries count from one; zero is none.
pub(crate) struct Batch {
    table: [u16; SLOTS],
    first: [u16; SHARDS],
    entries: Vec<Entry>,
    text: Vec<u8>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            table: [0; SLOTS],
            first: [0; SHARDS],
            entries: Vec::with_capacity(WORDS),
            text: Vec::with_capacity(TEXT),
        }
    }

    /// Counts a word. The batch must not be [full](Self::is_full).
    pub(crate) fn add(&mut self, word: &[u8]) {
        let hash = hash(word);
        let mut slot = hash as usize % SLOTS;
        while let Some(at) = usize::from(self.table[slot]).checked_sub(1) {
            let entry = &mut self.entries[at];
            if entry.hash == hash && self.text[entry.start..][..entry.len] == *word {
                entry.count += 1;
                return;
            }
            slot = (slot + 1) % SLOTS;
        }
        let first = &mut self.first[shard_of(hash)];
        let (start, len) = (self.text.len(), word.len());
        self.entries.push(Entry { hash, start, len, count: 1, next: *first });
        self.text.extend_from_slice(word);
        // At most `WORDS`, which fits.
        *first = self.entries.len() as u16;
        self.table[slot] = *first;
    }

    /// Whether it must be emptied before the next word.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() == WORDS || self.text.len() >= TEXT
    }

    /// The words of a shard.
    pub(crate) fn shard(&self, shard: usize) -> impl Iterator<Item = Counted<'_>> {
        let mut next = self.first[shard];
        std::iter::from_fn(move || {
            let entry = &self.entries[usize::from(next).checked_sub(1)?];
            next = entry.next;
            let word = &self.text[entry.start..][..entry.len];
            Some(Counted { word, hash: entry.hash, count: entry.count })
        })
    }

    /// Makes it as it was when new. What a huge word made it grow to is given up.
    pub(crate) fn clear(&mut self) {
        if !self.entries.is_empty() {
            self.table.fill(0);
            self.first.fill(0);
            self.entries.clear();
            self.text.clear();
            self.text.shrink_to(2 * TEXT);
        }
    }
}
