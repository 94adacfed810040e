//! Where the parts of an index live: in zones, or on the heap.
//!
//! The index is written against [`Store`], so that one program runs on both.

use std::alloc::Layout;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use uma::core::{ConfigError, Item, NoHooks, Request};
use uma::{Host, RawZone, Zone, ZoneBox, ZoneError};

use crate::index::{Node, Posting};

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
}

/// The smallest size of a text's item, as a power of two.
const SMALLEST: u32 = 3;
/// The largest, which is the largest item that a zone can have.
const LARGEST: u32 = 20;
const CLASSES: usize = (LARGEST - SMALLEST + 1) as usize;

type TextZone = RawZone<Host, NoHooks>;

/// Everything in zones: one for each kind of node, and for texts one for each power of two.
pub(crate) struct Zones {
    nodes: Zone<Node>,
    postings: Zone<Posting>,
    /// Texts of at most 8, 16, 32... bytes. A zone is made when the first text of its size comes.
    texts: [OnceLock<TextZone>; CLASSES],
    /// What zones have no items for: words of more than a mebibyte.
    beyond: Heap,
}

impl Zones {
    pub(crate) fn new() -> Result<Self, ConfigError> {
        Ok(Self {
            nodes: Zone::builder("word node").build()?,
            postings: Zone::builder("posting").build()?,
            texts: [const { OnceLock::new() }; CLASSES],
            beyond: Heap,
        })
    }

    /// The zone for texts of `len` bytes, if there are items so large.
    fn text_zone(&self, len: usize) -> Option<&TextZone> {
        let power = len.next_power_of_two().ilog2().max(SMALLEST);
        let zone = self.texts.get((power - SMALLEST) as usize)?;
        Some(zone.get_or_init(|| {
            let size = 1 << power;
            let layout = Layout::array::<u8>(size).expect("at most a mebibyte");
            RawZone::builder(&format!("text {size}"), layout)
                .hooks(NoHooks)
                .build()
                .expect("a zone of bytes, and memory for its description")
        }))
    }
}

// SAFETY: a zone's items hold one value each and are nobody else's until they are freed. A text's
// item is at least as large as the text, since its class is; the class is found from the length
// again when it is freed.
unsafe impl Store for Zones {
    const NAME: &str = "zones";

    fn put_node(&self, node: Node) -> Result<NonNull<Node>, ZoneError> {
        Ok(ZoneBox::into_raw(self.nodes.alloc(node)?))
    }

    fn put_posting(&self, posting: Posting) -> Result<NonNull<Posting>, ZoneError> {
        Ok(ZoneBox::into_raw(self.postings.alloc(posting)?))
    }

    fn put_text(&self, text: &[u8]) -> Result<NonNull<[u8]>, ZoneError> {
        let Some(zone) = self.text_zone(text.len()) else { return self.beyond.put_text(text) };
        let item = zone.alloc(Request::WAIT)?;
        // SAFETY: the item is ours, has room for `text`, and lies outside it.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), item.as_ptr(), text.len()) };
        Ok(NonNull::slice_from_raw_parts(item.as_non_null(), text.len()))
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
        match self.text_zone(text.len()) {
            // SAFETY: `put_text` took the item from the zone of this length, and the pointer is the
            // one to its beginning; the caller gives it up.
            Some(zone) => unsafe { zone.free(Item::new(text.cast())) },
            // SAFETY: `put_text` boxes texts of this length; the caller gives it up.
            None => unsafe { self.beyond.free_text(text) },
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
}
