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

/// The size of a huge page: what one table of pages is about, as on all processors that have them. With pages of 4 KiB
/// it is a block, with larger ones it is several.
pub(crate) const fn huge_page(page: usize) -> usize {
    page * (page / size_of::<u64>())
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

    /// Notes that pages are written to, and all others that lie on the same huge pages may get memory by it.
    pub(crate) fn touch(&mut self, range: Range<usize>) {
        let (huge, first) = (huge_page(self.page) / self.page, self.data.addr().get() / self.page);
        let start = ((first + range.start) / huge * huge).saturating_sub(first);
        let end = (first + range.end).next_multiple_of(huge) - first;
        let end = end.min(self.sums.pages);
        self.pages().touch(start..end);
    }

    pub(crate) fn sums(&self) -> Sums {
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Kernel;

    /// As with pages of 16 KiB, whatever those of this system are.
    #[test]
    fn who_touches_a_page_touches_all_blocks_of_a_huge_page() {
        let page = 16 << 10;
        assert_eq!((huge_page(4 << 10), huge_page(page)), (2 << 20, 32 << 20));
        let chunk = Chunk::map(&Kernel, 10 * BLOCK, page).unwrap();
        // SAFETY: the chunk is ours alone.
        let books = unsafe { &mut *chunk.as_ptr() };
        let start = books.data.addr().get();
        // The page before the first whole huge page of the region, if there is one, and that page.
        let at = (start.next_multiple_of(32 << 20) - start) / page;
        let blocks = at / BLOCK;
        for (page, touched) in
            [(at, 4), (at + 4 * BLOCK - 1, 4), (at + 4 * BLOCK, 8.min(10 - blocks))]
        {
            books.touch(page..page + 1);
            assert_eq!(books.sums.touched, touched, "page {page}");
        }
        books.touch(10 * BLOCK - 1..10 * BLOCK);
        if blocks > 0 {
            books.touch(0..1);
        }
        assert_eq!(books.sums.touched, 10);
        let (at, len) = Chunk::mapping(chunk);
        // SAFETY: the whole mapping, of which nothing is used any more.
        unsafe { Kernel.unmap(at, len).unwrap() };
    }
}
