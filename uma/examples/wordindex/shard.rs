//! A shard: some of the words, each with its postings.
//!
//! ```text
//!   +---------------------------------------------------------+
//!   | heads:  [ . ][ . ][   ][ . ]                            |
//!   |           |    |         `--> node -> node     chain    |
//!   |           |    `-> node                                 |
//!   |           `-> node -> node -> node                      |
//!   |                                                         |
//!   | words ----> node ==> node ==> ... ==> node       stack  |
//!   | postings -> posting ==> posting ==> ...          stack  |
//!   +---------------------------------------------------------+
//!
//!   node "zone" --> text, in an item of its own
//!               `-> posting of file 9 -> of file 4 -> of file 0
//! ```
//!
//! The stacks have everything in the order in which it was made, for freeing.
//!
//! # Why postings are sorted
//!
//! Workers take files in order, so a new posting nearly always belongs at or near the front of a list
//! that runs from the last file to the first. To see that a file has no posting yet, it is enough to
//! look at the few that are in front of its place.

use std::ptr::NonNull;

use uma::ZoneError;

use crate::batch::Counted;
use crate::stack::{Stack, Stacked};
use crate::store::Store;

/// Chains that a shard begins with. They become four times as many when there are fewer than words.
const CHAINS: usize = 64;

/// The beginning of a chain.
pub(crate) type Head = Option<NonNull<Node>>;

/// A word.
pub(crate) struct Node {
    hash: u64,
    pub(crate) text: NonNull<[u8]>,
    pub(crate) count: u64,
    pub(crate) postings: Option<NonNull<Posting>>,
    /// The next of the same chain.
    chain: Head,
    /// The one made before it in its shard.
    pub(crate) older: Option<NonNull<Node>>,
}

/// How often a word is in a file.
pub(crate) struct Posting {
    pub(crate) file: usize,
    pub(crate) count: u64,
    /// The next of the same word, of an earlier file.
    pub(crate) next: Option<NonNull<Posting>>,
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

/// Some of the words. What its pointers lead to is live, from one store, and of this shard alone.
pub(crate) struct Shard {
    /// A power of two of them, or none.
    heads: NonNull<[Head]>,
    pub(crate) words: Stack<Node>,
    pub(crate) postings: Stack<Posting>,
}

// SAFETY: whoever has the shard has all that it leads to.
unsafe impl Send for Shard {}

impl Shard {
    pub(crate) const fn new() -> Self {
        let heads = NonNull::slice_from_raw_parts(NonNull::dangling(), 0);
        Self { heads, words: Stack::new(), postings: Stack::new() }
    }

    /// The head of the chain that words with this hash are in, if there are chains.
    fn head(&mut self, hash: u64) -> Option<&mut Head> {
        // SAFETY: the heads are live and ours, or none.
        let heads = unsafe { self.heads.as_mut() };
        heads.get_mut(hash as usize & heads.len().wrapping_sub(1))
    }

    /// Counts a word of a file.
    pub(crate) fn add(
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

    fn find(&mut self, word: &[u8], hash: u64) -> Option<NonNull<Node>> {
        let mut next = *self.head(hash)?;
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
            self.grow(store)?;
        }
        let text = store.put_text(word)?;
        let node = Node { hash, text, count: 0, postings: None, chain: None, older: None };
        let node = store.put_node(node).inspect_err(|_| {
            // SAFETY: the text came from this store just now, and no node has it.
            unsafe { store.free_text(text) };
        })?;
        // SAFETY: it is new, and lives until it is taken from the stack.
        unsafe { self.words.push(node) };
        self.link(node, hash);
        Ok(node)
    }

    /// Puts a node into its chain.
    fn link(&mut self, mut node: NonNull<Node>, hash: u64) {
        if let Some(head) = self.head(hash) {
            // SAFETY: the shard's nodes are live and ours.
            unsafe { node.as_mut() }.chain = head.replace(node);
        }
    }

    /// Makes more chains.
    fn grow(&mut self, store: &impl Store) -> Result<(), ZoneError> {
        let heads = store.put_heads((4 * self.heads.len()).max(CHAINS))?;
        self.free_chains(store);
        self.heads = heads;
        let mut next = self.words.top();
        while let Some(at) = next {
            // SAFETY: the shard's nodes are live.
            let node = unsafe { at.as_ref() };
            next = node.older;
            self.link(at, node.hash);
        }
        Ok(())
    }

    /// Frees the chains, but not what is in them.
    pub(crate) fn free_chains(&mut self, store: &impl Store) {
        let heads = std::mem::replace(&mut self.heads, Self::new().heads);
        if !heads.is_empty() {
            // SAFETY: they came from this store, and nothing leads to them any more.
            unsafe { store.free_heads(heads) };
        }
    }

    /// Frees the youngest postings until `keep` are left. The words' lists are not kept up: a shard
    /// whose freeing has begun is freed to its end.
    pub(crate) fn free_postings(&mut self, keep: usize, store: &impl Store) {
        while let Some(posting) = self.postings.pop_above(keep) {
            // SAFETY: it came from this store, and the lists that lead to it are not followed again.
            unsafe { store.free_posting(posting) };
        }
    }

    /// Frees the youngest words until `keep` are left, after the chains.
    pub(crate) fn free_words(&mut self, keep: usize, store: &impl Store) {
        while let Some(node) = self.words.pop_above(keep) {
            // SAFETY: a node is live until it is freed.
            let text = unsafe { node.as_ref() }.text;
            // SAFETY: both came from this store, and the chains that led to them are gone.
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
