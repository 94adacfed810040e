//! Where the parts of an index live: in zones, or on the heap.
//!
//! The index is written against [`Store`], so that one program runs on both.

use std::alloc::Layout;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use uma::core::{ConfigError, Item, NoHooks, Request};
use uma::{Host, RawZone, Zone, ZoneBox, ZoneError};

use crate::shard::{Head, Node, Posting};

/// An allocation strategy.
///
/// # Safety
///
/// What `put_*` returns holds the value that was put, is aligned, and is the caller's alone until it
/// goes to the `free_*` of the same name.
pub(crate) unsafe trait Store: Sync {
    /// What it is called in the report.
    const NAME: &str;

    fn put_node(&self, node: Node) -> Result<NonNull<Node>, ZoneError>;
    fn put_posting(&self, posting: Posting) -> Result<NonNull<Posting>, ZoneError>;
    /// Copies a text.
    fn put_text(&self, text: &[u8]) -> Result<NonNull<[u8]>, ZoneError>;
    /// So many heads of chains, each of an empty one.
    fn put_heads(&self, count: usize) -> Result<NonNull<[Head]>, ZoneError>;

    /// # Safety
    ///
    /// `node` came from this store's `put_node` and is not used any more.
    unsafe fn free_node(&self, node: NonNull<Node>);
    /// # Safety
    ///
    /// `posting` came from this store's `put_posting` and is not used any more.
    unsafe fn free_posting(&self, posting: NonNull<Posting>);
    /// # Safety
    ///
    /// `text` came from this store's `put_text` and is not used any more.
    unsafe fn free_text(&self, text: NonNull<[u8]>);
    /// # Safety
    ///
    /// `heads` came from this store's `put_heads` and are not used any more.
    unsafe fn free_heads(&self, heads: NonNull<[Head]>);
}

/// The smallest item of a [`Classes`], as a power of two, and the alignment of all.
const SMALLEST: u32 = 3;
/// The largest, which is the largest item that a zone can have.
const LARGEST: u32 = 20;
const CLASSES: usize = (LARGEST - SMALLEST + 1) as usize;

type BytesZone = RawZone<Host, NoHooks>;

/// Zones for what has no fixed size: of 8 bytes, 16, 32 and so on. Each is made when it is first
/// needed.
struct Classes {
    name: &'static str,
    /// Items in a bucket, if not as the zone has it.
    bucket: Option<u16>,
    zones: [OnceLock<BytesZone>; CLASSES],
}

impl Classes {
    const fn new(name: &'static str, bucket: Option<u16>) -> Self {
        Self { name, bucket, zones: [const { OnceLock::new() }; CLASSES] }
    }

    /// The zone for `size` bytes, if there are items so large. Always the same for the same size.
    fn zone(&self, size: usize) -> Option<&BytesZone> {
        let power = size.next_power_of_two().ilog2().max(SMALLEST);
        let zone = self.zones.get((power - SMALLEST) as usize)?;
        Some(zone.get_or_init(|| {
            let (name, size) = (format!("{} {}", self.name, 1 << power), 1 << power);
            let item = Layout::from_size_align(size, 1 << SMALLEST).expect("at most a mebibyte");
            let mut zone = RawZone::builder(&name, item);
            if let Some(bucket) = self.bucket {
                zone = zone.bucket(bucket);
            }
            zone.build().expect("a zone of such items, and memory for its description")
        }))
    }
}

/// Everything in zones.
pub(crate) struct Zones {
    nodes: Zone<Node>,
    postings: Zone<Posting>,
    texts: Classes,
    heads: Classes,
    /// For what is larger than an item can be: a word, or a shard's heads, of more than a mebibyte.
    beyond: Heap,
}

impl Zones {
    pub(crate) fn new() -> Result<Self, ConfigError> {
        Ok(Self {
            nodes: Zone::builder("word node").build()?,
            postings: Zone::builder("posting").build()?,
            texts: Classes::new("text", None),
            // Large, and rarely taken: caches would hold much and save little.
            heads: Classes::new("heads", Some(0)),
            beyond: Heap,
        })
    }
}

// SAFETY: a zone's items hold one value each and are nobody else's until they are freed. Items of a
// class are at least as large as what is asked for, and aligned for heads; the class is found again
// from the same size.
unsafe impl Store for Zones {
    const NAME: &str = "zones";

    fn put_node(&self, node: Node) -> Result<NonNull<Node>, ZoneError> {
        Ok(ZoneBox::into_raw(self.nodes.alloc(node)?))
    }

    fn put_posting(&self, posting: Posting) -> Result<NonNull<Posting>, ZoneError> {
        Ok(ZoneBox::into_raw(self.postings.alloc(posting)?))
    }

    fn put_text(&self, text: &[u8]) -> Result<NonNull<[u8]>, ZoneError> {
        let Some(zone) = self.texts.zone(text.len()) else { return self.beyond.put_text(text) };
        let item = zone.alloc(Request::WAIT)?;
        // SAFETY: the item is ours, has room for `text`, and lies outside it.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), item.as_ptr(), text.len()) };
        Ok(NonNull::slice_from_raw_parts(item.as_non_null(), text.len()))
    }

    fn put_heads(&self, count: usize) -> Result<NonNull<[Head]>, ZoneError> {
        let Some(zone) = self.heads.zone(count * size_of::<Head>()) else {
            return self.beyond.put_heads(count);
        };
        let heads = zone.alloc(Request::WAIT)?.cast::<Head>();
        for at in 0..count {
            // SAFETY: the item is ours, aligned, and has room for so many heads.
            unsafe { heads.add(at).write(None) };
        }
        Ok(NonNull::slice_from_raw_parts(heads, count))
    }

    unsafe fn free_node(&self, node: NonNull<Node>) {
        // SAFETY: it came from `into_raw` in `put_node`, and the caller gives it up.
        drop(unsafe { self.nodes.box_from_raw(node) });
    }

    unsafe fn free_posting(&self, posting: NonNull<Posting>) {
        // SAFETY: it came from `into_raw` in `put_posting`, and the caller gives it up.
        drop(unsafe { self.postings.box_from_raw(posting) });
    }

    unsafe fn free_text(&self, text: NonNull<[u8]>) {
        match self.texts.zone(text.len()) {
            // SAFETY: `put_text` took the item from the zone of this length, and the pointer is the
            // one to its beginning; the caller gives it up.
            Some(zone) => unsafe { zone.free(Item::new(text.cast())) },
            // SAFETY: `put_text` boxes texts of this length; the caller gives it up.
            None => unsafe { self.beyond.free_text(text) },
        }
    }

    unsafe fn free_heads(&self, heads: NonNull<[Head]>) {
        match self.heads.zone(heads.len() * size_of::<Head>()) {
            // SAFETY: as in `free_text`.
            Some(zone) => unsafe { zone.free(Item::new(heads.cast())) },
            // SAFETY: as in `free_text`.
            None => unsafe { self.beyond.free_heads(heads) },
        }
    }
}

/// Everything in boxes of exactly its size, from the global allocator.
pub(crate) struct Heap;

fn leak<T: ?Sized>(value: Box<T>) -> NonNull<T> {
    NonNull::from(Box::leak(value))
}

// SAFETY: a leaked box is valid and nobody else's until it is boxed again.
unsafe impl Store for Heap {
    const NAME: &str = "Box";

    fn put_node(&self, node: Node) -> Result<NonNull<Node>, ZoneError> {
        Ok(leak(Box::new(node)))
    }

    fn put_posting(&self, posting: Posting) -> Result<NonNull<Posting>, ZoneError> {
        Ok(leak(Box::new(posting)))
    }

    fn put_text(&self, text: &[u8]) -> Result<NonNull<[u8]>, ZoneError> {
        Ok(leak(Box::from(text)))
    }

    fn put_heads(&self, count: usize) -> Result<NonNull<[Head]>, ZoneError> {
        Ok(leak(vec![None; count].into_boxed_slice()))
    }

    unsafe fn free_node(&self, node: NonNull<Node>) {
        // SAFETY: `put_node` leaked it, and the caller gives it up.
        drop(unsafe { Box::from_raw(node.as_ptr()) });
    }

    unsafe fn free_posting(&self, posting: NonNull<Posting>) {
        // SAFETY: `put_posting` leaked it, and the caller gives it up.
        drop(unsafe { Box::from_raw(posting.as_ptr()) });
    }

    unsafe fn free_text(&self, text: NonNull<[u8]>) {
        // SAFETY: `put_text` leaked it, with this length, and the caller gives it up.
        drop(unsafe { Box::from_raw(text.as_ptr()) });
    }

    unsafe fn free_heads(&self, heads: NonNull<[Head]>) {
        // SAFETY: `put_heads` leaked them, so many, and the caller gives them up.
        drop(unsafe { Box::from_raw(heads.as_ptr()) });
    }
}
