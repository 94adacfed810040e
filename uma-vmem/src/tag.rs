//! Boundary tags, and the memory that they lie in.
//!
//! A tag describes a span or a segment; it never lies in what it describes. Tags come in blocks from
//! `Metadata`:
//!
//! ```text
//!   block (512 to 4096 bytes)
//!   +--------+-------+-------+-------+-----+-------+
//!   | header | tag 0 | tag 1 | tag 2 | ... | tag n |
//!   +--------+-------+-------+-------+-----+-------+
//!                        ^ a tag knows its index, and so its block
//! ```
//!
//! Whoever is going to need tags makes sure, before anything changes, that enough are spare
//! ([`Pool::short_of`]), and gets a block *without* the arena's lock if there are not. So no operation
//! stops half way for want of a tag, and bookkeeping never calls into an arena that is locked. Some of
//! the spare ones may be promised to callers that wait ([`Pool::reserve`]).
//!
//! A block whose tags are all spare goes back once there is another one's worth of them.

use core::alloc::Layout;
use core::ops::Deref;
use core::ptr::NonNull;

use crate::sync::Cell;

/// What a tag stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Spare,
    /// A span: it precedes its segments in the address list.
    Span,
    /// A segment that is free.
    Free,
    /// A segment that is allocated.
    Allocated,
}

/// A boundary tag.
pub(crate) struct Tag {
    /// The first address.
    pub(crate) start: Cell<usize>,
    /// How many addresses; of an allocated segment the size that was asked for, not rounded up.
    pub(crate) size: Cell<usize>,
    /// The neighbours in the address list.
    pub(crate) before: Cell<Option<Seg>>,
    pub(crate) after: Cell<Option<Seg>>,
    /// The neighbours in a free list, or the children in the tree of spans; of an allocated segment
    /// `right` is the next one in its hash chain, of a spare tag the next spare one in its block.
    pub(crate) left: Cell<Option<Seg>>,
    pub(crate) right: Cell<Option<Seg>>,
    pub(crate) kind: Cell<Kind>,
    /// Of a span: whether it came from the parent.
    pub(crate) imported: Cell<bool>,
    index: u16,
}

impl Tag {
    /// The last address of a span or a free segment.
    pub(crate) fn last(&self) -> usize {
        self.start.get() + (self.size.get() - 1)
    }
}

/// A tag in use, by its place in its block.
///
/// It is valid from [`Pool::take`] until [`Pool::give`]. Nothing outside of the arena's lock has one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seg(NonNull<Tag>);

impl Deref for Seg {
    type Target = Tag;

    #[inline]
    fn deref(&self) -> &Tag {
        // SAFETY: only a `Pool` makes a `Seg`, of an initialised tag in one of its blocks. A block
        // leaves the pool only when no tag of it is in use, and by the contract of `Pool::give`
        // nobody has a `Seg` of a tag that is not. Tags are changed through their cells alone, by
        // whoever has the arena's lock.
        unsafe { self.0.as_ref() }
    }
}

/// The header of a block.
struct Block {
    before: Cell<Option<NonNull<Block>>>,
    after: Cell<Option<NonNull<Block>>>,
    spare: Cell<Option<Seg>>,
    used: Cell<u16>,
    capacity: u16,
    bytes: u32,
}

const SMALLEST: usize = 512;
const LARGEST: usize = 4096;
const HEADER: usize = size_of::<Block>();
const ALIGN: usize = align_of::<Block>();
/// Tags in the largest block; so many stay spare before one goes back.
const MOST: usize = (LARGEST - HEADER) / size_of::<Tag>();

const _: () = assert!(align_of::<Tag>() <= ALIGN && HEADER.is_multiple_of(align_of::<Tag>()));
const _: () = assert!((SMALLEST - HEADER) / size_of::<Tag>() >= crate::segments::MOST_TAGS);

fn block_layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, ALIGN).ok()
}

/// Memory that goes back to `Metadata` once the arena's lock is dropped.
#[must_use = "memory that is dropped is lost"]
pub(crate) struct Memory {
    pub(crate) at: NonNull<u8>,
    pub(crate) layout: Layout,
}

/// Blocks by how many of their tags are in use.
#[derive(Clone, Copy)]
enum Fill {
    Full,
    Partial,
    Empty,
}

/// All tags of an arena.
pub(crate) struct Pool {
    lists: [Option<NonNull<Block>>; 3],
    /// Tags that are in no use, and how many of them are promised to somebody.
    spare: usize,
    reserved: usize,
    blocks: usize,
    bytes: usize,
}

impl Pool {
    pub(crate) const fn new() -> Self {
        Self { lists: [None; 3], spare: 0, reserved: 0, blocks: 0, bytes: 0 }
    }

    /// Whether there are not `count` tags that are spare and not promised to anybody.
    pub(crate) const fn short_of(&self, count: usize) -> bool {
        self.spare < self.reserved + count
    }

    /// Promises `count` tags. The caller made sure that they are there.
    pub(crate) fn reserve(&mut self, count: usize) {
        debug_assert!(!self.short_of(count));
        self.reserved += count;
    }

    /// Takes a promise back.
    pub(crate) fn unreserve(&mut self, count: usize) {
        self.reserved -= count;
    }

    /// Bytes of all blocks.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The block to get next: small ones first, so that a small arena stays small.
    pub(crate) fn next_block(&self) -> Option<Layout> {
        block_layout((SMALLEST << self.blocks.min(8)).min(LARGEST))
    }

    /// Adds a block.
    ///
    /// # Safety
    ///
    /// The memory is the pool's alone from here on, has the layout that `next_block` returned at some
    /// time, and is valid for writes.
    pub(crate) unsafe fn add_block(&mut self, memory: Memory) {
        let bytes = memory.layout.size();
        let capacity = (bytes - HEADER) / size_of::<Tag>();
        let block = memory.at.cast::<Block>();
        let mut spare = None;
        for index in (0..capacity).rev() {
            let tag = Tag {
                start: Cell::new(0),
                size: Cell::new(0),
                before: Cell::new(None),
                after: Cell::new(None),
                left: Cell::new(None),
                right: Cell::new(spare),
                kind: Cell::new(Kind::Spare),
                imported: Cell::new(false),
                // Below `MOST`, so it fits.
                index: index as u16,
            };
            // SAFETY: `capacity` tags fit after the header, aligned by the assertions above; the
            // caller gave the memory for writing.
            unsafe {
                let at = memory.at.byte_add(HEADER).cast::<Tag>().add(index);
                at.write(tag);
                spare = Some(Seg(at));
            }
        }
        let header = Block {
            before: Cell::new(None),
            after: Cell::new(None),
            spare: Cell::new(spare),
            used: Cell::new(0),
            // At most `MOST` and `LARGEST`, so they fit.
            capacity: capacity as u16,
            bytes: bytes as u32,
        };
        // SAFETY: as above; the layout is aligned for a header.
        unsafe { block.write(header) };
        self.link(block, Fill::Empty);
        self.spare += capacity;
        self.blocks += 1;
        self.bytes += bytes;
    }

    /// A tag, if one is spare. Its fields are as whoever had it left them, but for the kind.
    pub(crate) fn take(&mut self) -> Option<Seg> {
        let partial = self.lists[Fill::Partial as usize];
        let block = partial.or(self.lists[Fill::Empty as usize])?;
        // SAFETY: a block in a list is alive (see `header`).
        let header = unsafe { Self::header(block) };
        let seg = header.spare.get()?;
        header.spare.set(seg.right.get());
        header.used.set(header.used.get() + 1);
        let full = header.used.get() == header.capacity;
        if full || partial.is_none() {
            let from = if partial.is_some() { Fill::Partial } else { Fill::Empty };
            self.unlink(block, from);
            self.link(block, if full { Fill::Full } else { Fill::Partial });
        }
        self.spare -= 1;
        Some(seg)
    }

    /// Takes a tag back.
    ///
    /// # Safety
    ///
    /// The tag came from `take` of this pool, was not given back since, and no copy of the `Seg` is
    /// looked at afterwards.
    pub(crate) unsafe fn give(&mut self, seg: Seg) {
        // SAFETY: the tag lies in a block, `index` places after the header; the pointer was derived
        // from that of the whole block and keeps its provenance.
        let block = unsafe { seg.0.sub(usize::from(seg.index)).byte_sub(HEADER).cast::<Block>() };
        // SAFETY: the block of a tag in use is alive (see `header`).
        let header = unsafe { Self::header(block) };
        seg.kind.set(Kind::Spare);
        seg.right.set(header.spare.get());
        header.spare.set(Some(seg));
        let used = header.used.get();
        header.used.set(used - 1);
        let from = if used == header.capacity { Fill::Full } else { Fill::Partial };
        let to = if used == 1 { Fill::Empty } else { Fill::Partial };
        if from as usize != to as usize {
            self.unlink(block, from);
            self.link(block, to);
        }
        self.spare += 1;
    }

    /// A block that is not needed any more, if there is one.
    pub(crate) fn surplus(&mut self) -> Option<Memory> {
        let block = self.lists[Fill::Empty as usize]?;
        // SAFETY: a block in a list is alive (see `header`).
        let capacity = usize::from(unsafe { Self::header(block) }.capacity);
        if self.spare < self.reserved + MOST + capacity {
            return None;
        }
        Some(self.retire(block, Fill::Empty))
    }

    /// Any block, also one that is in use: for the end of the arena.
    ///
    /// # Safety
    ///
    /// No `Seg` of this pool is looked at afterwards, by any of the other methods either.
    pub(crate) unsafe fn dismantle(&mut self) -> Option<Memory> {
        let lists = [Fill::Full, Fill::Partial, Fill::Empty].into_iter();
        let (fill, block) = lists.filter_map(|f| Some((f, self.lists[f as usize]?))).next()?;
        Some(self.retire(block, fill))
    }

    fn retire(&mut self, block: NonNull<Block>, fill: Fill) -> Memory {
        self.unlink(block, fill);
        // SAFETY: a block that was in a list until now is alive (see `header`).
        let header = unsafe { Self::header(block) };
        let (bytes, capacity) = (header.bytes as usize, usize::from(header.capacity));
        self.spare = self.spare.saturating_sub(capacity);
        self.blocks -= 1;
        self.bytes -= bytes;
        // SAFETY: `add_block` was given memory of this very layout.
        let layout = unsafe { Layout::from_size_align_unchecked(bytes, ALIGN) };
        Memory { at: block.cast(), layout }
    }

    /// The header of a block.
    ///
    /// # Safety
    ///
    /// The block was added to this pool and not retired since.
    unsafe fn header<'a>(block: NonNull<Block>) -> &'a Block {
        // SAFETY: `add_block` initialised it, and by the caller's promise its memory is still ours.
        // It is changed through its cells alone.
        unsafe { block.as_ref() }
    }

    fn link(&mut self, block: NonNull<Block>, fill: Fill) {
        let head = &mut self.lists[fill as usize];
        // SAFETY: the callers pass live blocks, and what a list points to is alive.
        unsafe {
            block.as_ref().before.set(None);
            block.as_ref().after.set(*head);
            if let Some(next) = head {
                next.as_ref().before.set(Some(block));
            }
        }
        *head = Some(block);
    }

    fn unlink(&mut self, block: NonNull<Block>, fill: Fill) {
        // SAFETY: as in `link`.
        unsafe {
            let (before, after) = (block.as_ref().before.get(), block.as_ref().after.get());
            match before {
                Some(before) => before.as_ref().after.set(after),
                None => self.lists[fill as usize] = after,
            }
            if let Some(after) = after {
                after.as_ref().before.set(before);
            }
        }
    }
}
