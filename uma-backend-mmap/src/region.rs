//! The memory: one mapping with the bookkeeping of its pages at its head.

use std::ops::Range;
use std::ptr::NonNull;
use std::slice;

use crate::HugePages;
use crate::free::{BLOCK, Block, Group, PageMap, Room, Sums, room_for};
use crate::sys::{Errno, System};

/// A mapping, and what is known of its pages.
///
/// ```text
///   start                          data, a multiple of 2 MiB if there is as much
///    | Chunk | used | dirty | groups | blocks | ... | wall | page 0 | page 1 | ... | page n-1 | ... |
///    `------ bookkeeping ---------------------'       |     `---------- the region ----------'
///                                    inaccessible
/// ```
///
/// It lies in the mapping itself, and is reached by its address. What it holds may be touched only
/// under the lock of the supplier, but for the fields that never change.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Chunk {
    /// Of the whole mapping.
    mapped: usize,
    data: NonNull<u8>,
    page: usize,
    /// Chunks are numbered as they come.
    pub(crate) serial: u64,
    /// Where the directory has it by age.
    pub(crate) age: usize,
    /// The next in a list of chunks that the directory does not have.
    pub(crate) next: Option<NonNull<Chunk>>,
    /// What the system was told of it.
    pub(crate) huge: HugePages,
    /// Whether somebody is telling it so. Until he has, the chunk stays.
    pub(crate) telling: bool,
    words: NonNull<u64>,
    blocks: NonNull<Block>,
    groups: NonNull<Group>,
    sums: Sums,
}

/// Bytes of the bookkeeping for so many pages.
fn head(pages: usize) -> Option<usize> {
    let Room { words, blocks, groups } = room_for(pages);
    let bytes = words.checked_mul(2 * size_of::<u64>())?;
    let summaries = blocks * size_of::<Block>() + groups * size_of::<Group>();
    bytes.checked_add(summaries)?.checked_add(size_of::<Chunk>())
}

/// What a chunk's region is aligned to: so that its blocks can be huge pages, if there is a whole one.
fn align(pages: usize, page: usize) -> usize {
    if pages >= BLOCK { BLOCK * page } else { page }
}

impl Chunk {
    /// Bytes to map for so many pages, if that is a number.
    pub(crate) fn bytes_for(pages: usize, page: usize) -> Option<usize> {
        let head = head(pages)?.checked_next_multiple_of(page)?;
        let slack = align(pages, page) - page;
        pages.checked_mul(page)?.checked_add(head)?.checked_add(page)?.checked_add(slack)
    }

    /// Maps a chunk of so many pages, all free and clean. Its wall has yet to be made.
    pub(crate) fn map(
        system: &impl System,
        pages: usize,
        page: usize,
    ) -> Result<NonNull<Self>, Errno> {
        let (mapped, head) = Self::bytes_for(pages, page).zip(head(pages)).ok_or(libc::ENOMEM)?;
        let base = system.map(mapped)?;
        let start = base.addr().get();
        let data = (start + head).next_multiple_of(page) + page;
        let data = data.next_multiple_of(align(pages, page));
        debug_assert!(data + pages * page <= start + mapped);
        let Room { words, groups, .. } = room_for(pages);
        // SAFETY: all within the mapping, see `bytes_for`, which is ours and page-aligned. The words begin
        // at a multiple of 8, since the size of a `Chunk` is one, the groups behind them do too, and the blocks at
        // one of 4. New memory is zero, of which all of them may be made.
        unsafe {
            let chunk = base.cast::<Self>();
            let bitmaps = chunk.add(1).cast::<u64>();
            let groups_at = bitmaps.add(2 * words).cast::<Group>();
            chunk.write(Self {
                mapped,
                data: base.add(data - start),
                page,
                serial: 0,
                age: 0,
                next: None,
                huge: HugePages::System,
                telling: false,
                words: bitmaps,
                blocks: groups_at.add(groups).cast(),
                groups: groups_at,
                sums: Sums { pages, ..Sums::default() },
            });
            (*chunk.as_ptr()).pages().begin();
            Ok(chunk)
        }
    }

    /// The whole mapping: its start and length.
    pub(crate) fn mapping(chunk: NonNull<Self>) -> (NonNull<u8>, usize) {
        // SAFETY: a chunk that somebody has the address of is mapped; this field never changes.
        (chunk.cast(), unsafe { (*chunk.as_ptr()).mapped })
    }

    /// The page before the region, which nobody is to touch.
    pub(crate) fn wall(chunk: NonNull<Self>) -> (NonNull<u8>, usize) {
        // SAFETY: as in `mapping`; there is a page before the region, see `map`.
        unsafe {
            let (data, page) = ((*chunk.as_ptr()).data, (*chunk.as_ptr()).page);
            (data.sub(page), page)
        }
    }

    /// The region: where it starts, and its length.
    pub(crate) fn region(&self) -> (NonNull<u8>, usize) {
        (self.data, self.sums.pages * self.page)
    }

    /// Its addresses.
    pub(crate) fn bounds(&self) -> Range<usize> {
        let start = self.data.addr().get();
        start..start + self.sums.pages * self.page
    }

    /// Bytes of the mapping that are not of the region.
    pub(crate) fn beside(&self) -> usize {
        self.mapped - self.sums.pages * self.page
    }

    /// The pages.
    pub(crate) fn pages(&mut self) -> PageMap<'_> {
        let Room { words, blocks, groups } = room_for(self.sums.pages);
        // SAFETY: there are two bitmaps of so many words, and so many blocks and groups, see `map`; they are
        // borrowed as `self` is, which stands for them.
        unsafe {
            PageMap {
                used: slice::from_raw_parts_mut(self.words.as_ptr(), words),
                dirty: slice::from_raw_parts_mut(self.words.add(words).as_ptr(), words),
                blocks: slice::from_raw_parts_mut(self.blocks.as_ptr(), blocks),
                groups: slice::from_raw_parts_mut(self.groups.as_ptr(), groups),
                sums: &mut self.sums,
            }
        }
    }

    /// The number of the page at an address in the region.
    pub(crate) fn page_at(&self, address: usize) -> usize {
        (address - self.data.addr().get()) / self.page
    }

    /// The pointer to a page.
    pub(crate) fn at(&self, number: usize) -> NonNull<u8> {
        debug_assert!(number < self.sums.pages);
        // SAFETY: the page lies in the region.
        unsafe { self.data.add(number * self.page) }
    }

    /// The lowest place for a run.
    pub(crate) fn find(&mut self, pages: usize, align: usize) -> Option<usize> {
        let first = self.data.addr().get() / self.page;
        self.pages().find(pages, align, first.wrapping_neg() & (align - 1))
    }

    pub(crate) fn sums(&self) -> Sums {
        self.sums
    }
}
