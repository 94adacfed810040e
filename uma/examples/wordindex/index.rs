//! The index: a hash table of words, each with its postings.
//!
//! ```text
//!   shards[s], each with a lock
//!   +----------------------------------------------------------+
//!   | heads:  [ . ][ . ][   ][ . ]                             |
//!   |           |    |         `--> node -> node      chain    |
//!   |           |    `-> node                                  |
//!   |           `-> node -> node -> node                       |
//!   |                                                          |
//!   | words ----> node ==> node ==> ... ==> node        stack, |
//!   | postings -> posting ==> posting ==> ... ==> posting  ''  |
//!   +-----------------------------------------------------------+
//!
//!   node "zone" --> text in an item of its own
//!               `-> posting of file 9 -> of file 4 -> of file 0
//! ```
//!
//! The upper bits of a word's hash choose the shard, the lower ones the chain.
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
//!
//! # Why postings are sorted
//!
//! Workers take files in order, so a new posting nearly always belongs at or near the front of a list
//! that runs from the last file to the first. To see that a file has no posting yet, it is enough to
//! look at the few that are in front of its place.

use std::ptr::NonNull;
use std::thread;

use parking_lot::Mutex;
use uma::ZoneError;

use crate::batch::{Batch, Counted};
use crate::stack::{Stack, Stacked};
use crate::store::Store;

/// How many shards there are.
pub(crate) const SHARDS: usize = 128;

/// How many values are freed of one shard before it is the next one's turn.
const TURN: usize = 16;

/// A word.
pub(crate) struct Node {
    hash: u64,
    text: NonNull<[u8]>,
    count: u64,
    postings: Option<NonNull<Posting>>,
    /// The next of the same chain.
    chain: Option<NonNull<Node>>,
    /// The one made before it in its shard.
    older: Option<NonNull<Node>>,
}

/// How often a word is in a file.
pub(crate) struct Posting {
    file: usize,
    count: u64,
    /// The next of the same word, of an earlier file.
    next: Option<NonNull<Posting>>,
    /// The one made before it in its shard.
    older: Option<NonNull<Posting>>,
}

impl Stacked for Node {
    fn below(&mut self) -> &mut Option<NonNull<Self>> {
        &mut self.older
    }
}

impl Stacked for Posting {
    fn below(&mut self) -> &mut Option<NonNull<Self>> {
        &mut self.older
    }
}

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

/// Some of the words. What its pointers lead to is live, from one store, and of this shard alone.
struct Shard {
    heads: Vec<Option<NonNull<Node>>>,
    words: Stack<Node>,
    postings: Stack<Posting>,
}

// SAFETY: whoever has the shard has all that it leads to.
unsafe impl Send for Shard {}

impl Shard {
    const fn new() -> Self {
        Self { heads: Vec::new(), words: Stack::new(), postings: Stack::new() }
    }

    const fn chain_of(&self, hash: u64) -> usize {
        hash as usize & (self.heads.len() - 1)
    }

    /// Counts a word of a file.
    fn add(
        &mut self,
        found: &Counted<'_>,
        file: usize,
        store: &impl Store,
    ) -> Result<(), ZoneError> {
        let mut at = match self.find(found.word, found.hash) {
            Some(node) => node,
            None => self.insert(found.word, found.hash, store)?,
        };
        // SAFETY: the shard's nodes are live, and with `&mut self` nobody else looks at them.
        let node = unsafe { at.as_mut() };
        match node.place_for(file) {
            Ok(posting) => posting.count += found.count,
            Err(link) => {
                let posting = Posting { file, count: found.count, next: *link, older: None };
                let posting = store.put_posting(posting)?;
                *link = Some(posting);
                // SAFETY: it is new, and lives until it is taken from the stack.
                unsafe { self.postings.push(posting) };
            }
        }
        node.count += found.count;
        Ok(())
    }

    fn find(&self, word: &[u8], hash: u64) -> Option<NonNull<Node>> {
        if self.heads.is_empty() {
            return None;
        }
        let mut next = self.heads[self.chain_of(hash)];
        while let Some(at) = next {
            // SAFETY: the shard's nodes are live.
            let node = unsafe { at.as_ref() };
            // SAFETY: so are their texts.
            if node.hash == hash && unsafe { node.text.as_ref() } == word {
                return Some(at);
            }
            next = node.chain;
        }
        None
    }

    /// Adds a word that is not there yet.
    fn insert(
        &mut self,
        word: &[u8],
        hash: u64,
        store: &impl Store,
    ) -> Result<NonNull<Node>, ZoneError> {
        if self.words.len() == self.heads.len() {
            self.grow();
        }
        let text = store.put_text(word)?;
        let chain = self.chain_of(hash);
        let node =
            Node { hash, text, count: 0, postings: None, chain: self.heads[chain], older: None };
        let node = store.put_node(node).inspect_err(|_| {
            // SAFETY: the text came from this store just now, and no node has it.
            unsafe { store.free_text(text) };
        })?;
        self.heads[chain] = Some(node);
        // SAFETY: it is new, and lives until it is taken from the stack.
        unsafe { self.words.push(node) };
        Ok(node)
    }

    /// Makes twice as many chains.
    fn grow(&mut self) {
        let len = (2 * self.heads.len()).max(16);
        self.heads = vec![None; len];
        let mut next = self.words.top();
        while let Some(mut at) = next {
            // SAFETY: the shard's nodes are live and ours.
            let node = unsafe { at.as_mut() };
            let chain = self.chain_of(node.hash);
            node.chain = self.heads[chain].replace(at);
            next = node.older;
        }
    }

    /// Frees the youngest postings until `keep` are left. The lists of the words are not kept up: a
    /// shard whose freeing has begun is freed to its end.
    fn free_postings(&mut self, keep: usize, store: &impl Store) {
        while let Some(posting) = self.postings.pop_above(keep) {
            // SAFETY: it came from this store, and the lists that lead to it are not followed again.
            unsafe { store.free_posting(posting) };
        }
    }

    /// Frees the youngest words until `keep` are left. As with postings, chains are not kept up.
    fn free_words(&mut self, keep: usize, store: &impl Store) {
        while let Some(node) = self.words.pop_above(keep) {
            // SAFETY: a node is live until it is freed.
            let text = unsafe { node.as_ref() }.text;
            // SAFETY: both came from this store, and the chains that lead to them are not followed
            // again.
            unsafe {
                store.free_text(text);
                store.free_node(node);
            }
        }
    }
}

impl Node {
    /// The posting of a file, or else the link that a new one belongs in.
    fn place_for(&mut self, file: usize) -> Result<&mut Posting, &mut Option<NonNull<Posting>>> {
        let mut link = &mut self.postings;
        while let Some(mut at) = *link {
            // SAFETY: a node's postings are live, and with `&mut self` nobody else looks at them.
            let posting = unsafe { at.as_mut() };
            if posting.file == file {
                return Ok(posting);
            }
            if posting.file < file {
                break;
            }
            link = &mut posting.next;
        }
        Err(link)
    }
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
    for keep in (0..postings).rev().step_by(TURN).chain([0]) {
        shards.iter_mut().for_each(|shard| shard.get_mut().free_postings(keep, store));
    }
    for keep in (0..words).rev().step_by(TURN).chain([0]) {
        shards.iter_mut().for_each(|shard| shard.get_mut().free_words(keep, store));
    }
    shards.iter_mut().for_each(|shard| *shard.get_mut() = Shard::new());
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
