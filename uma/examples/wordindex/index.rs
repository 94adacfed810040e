//! The index: all words, in shards that each have a lock. The upper bits of a word's hash choose its
//! shard, the lower ones its chain there.
//!
//! # The order of freeing
//!
//! Values that were made together lie together in memory. So everything a shard has made is also on
//! two stacks, and is freed from there: the last first, and in all shards equally far, so that what is
//! freed at the same time was made at about the same time.
//!
//! That decides how much memory can be given back. An allocator keeps the last freed items in caches
//! (zones and malloc both do), and each pins the slab that it lies in. Freed in this order, the last
//! ones are those that were made first, in a few slabs side by side. Freed word by word with all
//! postings of each, a thousand cached postings lay in six hundred slabs.

use std::thread;

use parking_lot::Mutex;
use uma::ZoneError;

use crate::batch::Batch;
use crate::shard::{Node, Posting, Shard};
use crate::store::Store;

/// How many shards there are.
pub(crate) const SHARDS: usize = 128;

/// How many values are freed of one shard before it is the next one's turn.
const TURN: usize = 16;

/// FNV-1a, and a product that carries its lower bits to the upper ones.
pub(crate) fn hash(word: &[u8]) -> u64 {
    let fnv = word.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (fnv ^ (fnv >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The shard of a word with this hash.
pub(crate) const fn shard_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARDS.ilog2())) as usize
}

/// All words of some files, in a store.
pub(crate) struct Index<'s, S: Store> {
    store: &'s S,
    shards: Vec<Mutex<Shard>>,
}

/// A word of an index.
pub(crate) struct Word<'a> {
    node: &'a Node,
}

impl<'s, S: Store> Index<'s, S> {
    pub(crate) fn new(store: &'s S) -> Self {
        Self { store, shards: (0..SHARDS).map(|_| Mutex::new(Shard::new())).collect() }
    }

    /// Adds words of a file.
    pub(crate) fn add(&self, file: usize, batch: &Batch) -> Result<(), ZoneError> {
        for (number, shard) in self.shards.iter().enumerate() {
            let mut words = batch.shard(number).peekable();
            if words.peek().is_some() {
                let mut shard = shard.lock();
                words.try_for_each(|word| shard.add(&word, file, self.store))?;
            }
        }
        Ok(())
    }

    /// All words, shard by shard, the last first.
    pub(crate) fn words(&mut self) -> impl Iterator<Item = Word<'_>> {
        self.shards.iter_mut().flat_map(|shard| {
            let mut next = shard.get_mut().words.top();
            std::iter::from_fn(move || {
                // SAFETY: a shard's nodes live until it is freed, and the index is borrowed as
                // mutable for as long as the word is in use.
                let node = unsafe { next?.as_ref() };
                next = node.older;
                Some(Word { node })
            })
        })
    }

    /// Frees everything with so many threads, each its own shards.
    pub(crate) fn tear_down(&mut self, threads: usize) {
        let store = self.store;
        let share = SHARDS.div_ceil(threads.clamp(1, SHARDS));
        thread::scope(|scope| {
            for shards in self.shards.chunks_mut(share) {
                scope.spawn(move || free_all(shards, store));
            }
        });
    }
}

/// Frees all that some shards have, as the module's head says.
fn free_all(shards: &mut [Mutex<Shard>], store: &impl Store) {
    let mut longest = |len: fn(&Shard) -> usize| {
        shards.iter_mut().map(|shard| len(shard.get_mut())).max().unwrap_or(0)
    };
    let postings = longest(|shard| shard.postings.len());
    let words = longest(|shard| shard.words.len());
    shards.iter_mut().for_each(|shard| shard.get_mut().free_chains(store));
    for keep in (0..postings).rev().step_by(TURN).chain([0]) {
        shards.iter_mut().for_each(|shard| shard.get_mut().free_postings(keep, store));
    }
    for keep in (0..words).rev().step_by(TURN).chain([0]) {
        shards.iter_mut().for_each(|shard| shard.get_mut().free_words(keep, store));
    }
}

impl<S: Store> Drop for Index<'_, S> {
    fn drop(&mut self) {
        free_all(&mut self.shards, self.store);
    }
}

impl<'a> Word<'a> {
    pub(crate) fn text(&self) -> &'a [u8] {
        // SAFETY: a live node's text is live, and nothing writes to it.
        unsafe { self.node.text.as_ref() }
    }

    /// How often it came.
    pub(crate) fn count(&self) -> u64 {
        self.node.count
    }

    /// The files it is in, from the last to the first, and how often.
    pub(crate) fn files(&self) -> impl Iterator<Item = (usize, u64)> + use<'a> {
        let mut next = self.node.postings;
        std::iter::from_fn(move || {
            // SAFETY: a live node's postings are live, and nothing writes to them.
            let posting: &'a Posting = unsafe { next?.as_ref() };
            next = posting.next;
            Some((posting.file, posting.count))
        })
    }
}
