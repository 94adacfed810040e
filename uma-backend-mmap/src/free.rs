//! Which pages of a chunk are free, and which of these are dirty. Numbers only: it knows no pointers.
//!
//! ```text
//!   used     one bit for each page    1 0 0 0 1 1 1 1 | 1 1 0 0 ...
//!   dirty    one bit for each page    0 1 1 0 0 0 0 0 | 0 0 0 0 ...     free, and may not read as zero
//!   blocks   one summary for every 512 pages: 2 MiB, a huge page
//!              head, longest, tail: free pages in one piece at its start, anywhere, at its end
//!              dirty: how many
//!              touched: some of it was carved or freed since all that is free of it was decommitted
//!   groups   the same without the last two for every 16 blocks
//! ```
//!
//! Who touches the first page of a block may get all 512, if the system has huge pages. Then clean pages, which
//! read as zero, are resident like dirty ones. Nobody says so, so a block remembers that it was touched.
//!
//! It is the page allocator of Go's runtime in the small: address-ordered first fit by summaries over
//! a bitmap. The memory is the caller's, so nothing is ever allocated; two bits a page and some eleven
//! bytes a block are all there is, however the free pages are scattered, and neighbours coalesce by
//! themselves.
//!
//! # Invariants
//!
//! - A dirty page is not used. Pages behind the last one are used.
//! - A free page of a block that is not touched is dirty, or not resident, or a sweep is on its way to it. Or
//!   a run beside it was first written to, or all of it decommitted and written to again, after the last sweep
//!   came by: until that run is freed, which touches the block, or another is carved.
//! - The summaries say what the bits say.
//!
//! A search looks at the summary of each group in the worst case (32 in a GiB of 4 KiB pages), at those of
//! the blocks of groups that have a piece long enough, and at the bits of such blocks: at one of each, but
//! for alignments that pieces have the wrong phase for.

use std::ops::Range;

/// Pages of a block.
pub(crate) const BLOCK: usize = 512;
const BITS: usize = 64;
const WORDS: usize = BLOCK / BITS;
/// Blocks of a group.
const GROUP: usize = 16;
const GROUP_PAGES: usize = GROUP * BLOCK;

/// The summary of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    head: u16,
    longest: u16,
    tail: u16,
    dirty: u16,
    touched: bool,
}

impl Block {
    /// All of it free and clean.
    const FREE: Self = Self {
        head: BLOCK as u16,
        longest: BLOCK as u16,
        tail: BLOCK as u16,
        dirty: 0,
        touched: false,
    };

    fn is_free(&self) -> bool {
        usize::from(self.longest) == BLOCK
    }
}

/// The summary of a group, or of anything else: free pages in one piece at its start, anywhere, at its
/// end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    head: u32,
    longest: u32,
    tail: u32,
}

/// What a summary is of.
#[derive(Clone, Copy, Debug)]
struct Extent {
    len: usize,
    head: usize,
    longest: usize,
    tail: usize,
}

impl Extent {
    const NOTHING: Self = Self { len: 0, head: 0, longest: 0, tail: 0 };

    fn of_block(block: &Block) -> Self {
        let [head, longest, tail] = [block.head, block.longest, block.tail].map(usize::from);
        Self { len: BLOCK, head, longest, tail }
    }

    fn of_group(group: &Group, len: usize) -> Self {
        let [head, longest, tail] = [group.head, group.longest, group.tail].map(|n| n as usize);
        Self { len, head, longest, tail }
    }

    /// Of both, `next` being what follows.
    fn then(self, next: Self) -> Self {
        Self {
            len: self.len + next.len,
            head: if self.head == self.len { self.len + next.head } else { self.head },
            longest: self.longest.max(next.longest).max(self.tail + next.head),
            tail: if next.tail == next.len { next.len + self.tail } else { next.tail },
        }
    }
}

/// Sums over a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Pages that it has.
    pub(crate) pages: usize,
    /// Pages that are not free.
    pub(crate) used: usize,
    /// Pages that are dirty.
    pub(crate) dirty: usize,
    /// Blocks that are touched.
    pub(crate) touched: usize,
}

/// How much of everything so many pages need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Words of each bitmap.
    pub(crate) words: usize,
    pub(crate) blocks: usize,
    pub(crate) groups: usize,
}

pub(crate) const fn room_for(pages: usize) -> Room {
    let blocks = pages.div_ceil(BLOCK);
    Room { words: blocks * WORDS, blocks, groups: blocks.div_ceil(GROUP) }
}

/// The bookkeeping of one chunk.
#[derive(Debug)]
pub(crate) struct PageMap<'a> {
    pub(crate) used: &'a mut [u64],
    pub(crate) dirty: &'a mut [u64],
    pub(crate) blocks: &'a mut [Block],
    pub(crate) groups: &'a mut [Group],
    pub(crate) sums: &'a mut Sums,
}

/// A run of pages to be decommitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) pages: Range<usize>,
    /// How many of them are dirty.
    pub(crate) dirty: usize,
    /// Where to go on looking: all before this.
    pub(crate) next: usize,
}

impl PageMap<'_> {
    /// Makes all pages free and clean. The bitmaps are all zero.
    pub(crate) fn begin(&mut self) {
        let pages = self.sums.pages;
        self.blocks.fill(Block::FREE);
        let end = self.used.len() * BITS;
        if pages < end {
            mark(self.used, pages..end);
        }
        self.summarise(end - 1..end);
        for index in 0..self.groups.len() {
            self.summarise_group(index);
        }
    }

    /// The lowest place for `size` pages. Its number is `phase`, or more by a multiple of `align`,
    /// which is a power of two.
    pub(crate) fn find(&self, size: usize, align: usize, phase: usize) -> Option<usize> {
        let fit = |start: usize, end: usize| {
            let at = start + (phase.wrapping_sub(start) & (align - 1));
            (at + size <= end).then_some(at)
        };
        let groups = self.extents_of_groups();
        first_fit(0, groups, size, fit, |from, len| {
            let blocks = &self.blocks[from / BLOCK..(from + len) / BLOCK];
            first_fit(from, blocks.iter().map(Extent::of_block), size, fit, |from, len| {
                self.find_inside(from..from + len, fit)
            })
        })
    }

    /// The length of the longest piece of free pages.
    pub(crate) fn longest(&self) -> usize {
        self.extents_of_groups().fold(Extent::NOTHING, Extent::then).longest
    }

    fn extents_of_groups(&self) -> impl Iterator<Item = Extent> {
        let blocks = self.blocks.len();
        self.groups.iter().enumerate().map(move |(index, group)| {
            Extent::of_group(group, (blocks - index * GROUP).min(GROUP) * BLOCK)
        })
    }

    fn find_inside(
        &self,
        block: Range<usize>,
        fit: impl Fn(usize, usize) -> Option<usize>,
    ) -> Option<usize> {
        let mut at = block.start;
        while at < block.end {
            let start = at + ones_after(self.used, at, block.end - at);
            let end = start + zeros_after(self.used, start, block.end - start);
            if let Some(found) = fit(start, end) {
                return Some(found);
            }
            at = end;
        }
        None
    }

    /// Takes free pages. Returns how many of them were dirty.
    pub(crate) fn take(&mut self, range: Range<usize>) -> usize {
        debug_assert!(self.is_free(&range), "pages {range:?} are not free");
        self.sums.used += range.len();
        mark(self.used, range.clone());
        let mut dirty = 0;
        if self.sums.dirty > 0 {
            for (word, mask) in masks(range.clone()) {
                let count = (self.dirty[word] & mask).count_ones();
                self.dirty[word] &= !mask;
                self.blocks[word / WORDS].dirty -= count as u16;
                dirty += count as usize;
            }
            self.sums.dirty -= dirty;
        }
        self.summarise(range);
        dirty
    }

    /// Notes that somebody is about to write to these pages.
    pub(crate) fn touch(&mut self, range: Range<usize>) {
        for block in &mut self.blocks[range.start / BLOCK..=(range.end - 1) / BLOCK] {
            self.sums.touched += usize::from(!block.touched);
            block.touched = true;
        }
    }

    /// Notes that all that is free of these blocks is on its way to the system. Returns whether one of them was
    /// touched.
    fn settle(&mut self, blocks: Range<usize>) -> bool {
        let touched = self.blocks[blocks].iter_mut().filter(|block| block.touched);
        let count = touched.map(|block| block.touched = false).count();
        self.sums.touched -= count;
        count > 0
    }

    /// Makes pages free that were taken.
    pub(crate) fn give(&mut self, range: Range<usize>, dirty: bool) {
        debug_assert!(
            ones_after(self.used, range.start, range.len()) == range.len(),
            "some of pages {range:?} are free already"
        );
        self.sums.used -= range.len();
        for (word, mask) in masks(range.clone()) {
            self.used[word] &= !mask;
        }
        if dirty {
            self.sums.dirty += range.len();
            for (word, mask) in masks(range.clone()) {
                self.dirty[word] |= mask;
                self.blocks[word / WORDS].dirty += mask.count_ones() as u16;
            }
        }
        self.summarise(range);
    }

    /// Whether there is a piece of more than `limit` free pages around those of `range`, which are free.
    pub(crate) fn exceeds(&self, range: &Range<usize>, limit: usize) -> bool {
        let before = zeros_before(self.used, range.start, limit);
        let after = zeros_after(
            self.used,
            range.end,
            (self.sums.pages - range.end).min(limit.saturating_add(1)),
        );
        before + range.len() + after > limit
    }

    fn is_free(&self, range: &Range<usize>) -> bool {
        zeros_after(self.used, range.start, range.len()) == range.len()
    }

    /// A piece of blocks that are wholly free, the highest that begins before the page `before`, with
    /// about `excess` dirty pages if there are so many, and what is dirty beside them if there are not. Blocks
    /// go whole, clean pages too, and are settled.
    pub(crate) fn dirty_blocks(&mut self, before: usize, excess: usize) -> Option<Piece> {
        let before = before.min(self.blocks.len() * BLOCK) / BLOCK;
        let is_dirty = |block: &Block| block.is_free() && block.dirty > 0;
        let last = self.blocks[..before].iter().rposition(is_dirty)?;
        let (mut first, mut dirty) = (last, 0);
        for at in (0..=last).rev() {
            let block = &self.blocks[at];
            if !block.is_free() || dirty >= excess {
                break;
            }
            dirty += usize::from(block.dirty);
            if block.dirty > 0 {
                first = at;
            }
        }
        self.settle(first..last + 1);
        let mut pages = first * BLOCK..(last + 1) * BLOCK;
        if dirty < excess {
            // What is beside them goes by the same call.
            let before = zeros_before(self.used, pages.start, BLOCK);
            let after =
                zeros_after(self.used, pages.end, (self.used.len() * BITS - pages.end).min(BLOCK));
            pages.start -= before - zeros_after(self.dirty, pages.start - before, before);
            pages.end += after - zeros_before(self.dirty, pages.end + after, after);
        }
        Some(Piece { dirty: self.dirty_in(&pages), next: pages.start, pages })
    }

    /// The highest piece of free pages that ends before the page `before`, with at least `least` dirty
    /// pages, or with `excess`. First and last page are dirty. A piece lies in one block.
    pub(crate) fn dirty_piece(&self, before: usize, least: usize, excess: usize) -> Option<Piece> {
        let mut end = before.min(self.used.len() * BITS);
        while end > 0 {
            let index = (end - 1) / BLOCK;
            let from = index * BLOCK;
            if usize::from(self.blocks[index].dirty) < least {
                end = from;
                continue;
            }
            while let Some(range) = self.free_before(from..end) {
                end = range.start;
                let Some(mut piece) = self.trimmed(range, end) else { continue };
                if piece.dirty < least {
                    continue;
                }
                if piece.dirty > excess {
                    piece.pages.start = self.dirty_tail(&piece.pages, excess);
                    piece.dirty = excess;
                    piece.next = piece.pages.start;
                }
                return Some(piece);
            }
            end = from;
        }
        None
    }

    /// The highest piece of free pages that ends before the page `before` and may be resident: one with dirty
    /// pages, or any in a block that was touched. `open` says the latter of the block that `before` lies
    /// inside of. A block is settled as it is entered.
    pub(crate) fn resident_piece(&mut self, before: usize, open: &mut bool) -> Option<Piece> {
        let mut end = before.min(self.used.len() * BITS);
        while end > 0 {
            let index = (end - 1) / BLOCK;
            let from = index * BLOCK;
            if end == from + BLOCK {
                *open = self.settle(index..index + 1);
            }
            if *open || self.blocks[index].dirty > 0 {
                while let Some(range) = self.free_before(from..end) {
                    end = range.start;
                    if *open {
                        return Some(Piece {
                            dirty: self.dirty_in(&range),
                            next: end,
                            pages: range,
                        });
                    }
                    if let Some(piece) = self.trimmed(range, end) {
                        return Some(piece);
                    }
                }
            }
            end = from;
        }
        None
    }

    /// The last piece of free pages in a range.
    fn free_before(&self, range: Range<usize>) -> Option<Range<usize>> {
        let stop = range.end - ones_before(self.used, range.end, range.len());
        let start = stop - zeros_before(self.used, stop, stop - range.start);
        (start < stop).then_some(start..stop)
    }

    /// Where to cut `range`, so that the end of it has `count` dirty pages. Low addresses are used
    /// again first, so they stay.
    fn dirty_tail(&self, range: &Range<usize>, mut count: usize) -> usize {
        let mut at = range.end;
        while count > 0 && at > range.start {
            at -= 1;
            count -= usize::from(is_set(self.dirty, at));
        }
        at
    }

    /// The range without the clean pages at its ends, if it has a dirty page.
    fn trimmed(&self, range: Range<usize>, next: usize) -> Option<Piece> {
        let start = range.start + zeros_after(self.dirty, range.start, range.len());
        if start == range.end {
            return None;
        }
        let end = range.end - zeros_before(self.dirty, range.end, range.len());
        let pages = start..end;
        Some(Piece { dirty: self.dirty_in(&pages), next: next.min(start), pages })
    }

    fn dirty_in(&self, range: &Range<usize>) -> usize {
        let count = |(word, mask): (usize, u64)| (self.dirty[word] & mask).count_ones() as usize;
        masks(range.clone()).map(count).sum()
    }

    /// Brings the summaries up to date of what has a page of `range`.
    fn summarise(&mut self, range: Range<usize>) {
        for index in range.start / BLOCK..=(range.end - 1) / BLOCK {
            let words = index * WORDS..(index + 1) * WORDS;
            let Block { dirty, touched, .. } = self.blocks[index];
            self.blocks[index] = Block { dirty, touched, ..summary(&self.used[words]) };
        }
        for index in range.start / GROUP_PAGES..=(range.end - 1) / GROUP_PAGES {
            self.summarise_group(index);
        }
    }

    fn summarise_group(&mut self, index: usize) {
        let blocks = &self.blocks[index * GROUP..self.blocks.len().min((index + 1) * GROUP)];
        let all = blocks.iter().map(Extent::of_block).fold(Extent::NOTHING, Extent::then);
        let [head, longest, tail] = [all.head, all.longest, all.tail].map(|n| n as u32);
        self.groups[index] = Group { head, longest, tail };
    }
}

/// Finds the lowest place in extents that follow each other from `from` on: `fit` looks at a piece from
/// start to end, `inside` into an extent of which the start and length are given.
fn first_fit(
    mut from: usize,
    extents: impl Iterator<Item = Extent>,
    size: usize,
    fit: impl Fn(usize, usize) -> Option<usize>,
    inside: impl Fn(usize, usize) -> Option<usize>,
) -> Option<usize> {
    // All from here to the extent that is looked at is free.
    let mut start = from;
    for Extent { len, head, longest, tail } in extents {
        if let Some(at) = fit(start, from + head) {
            return Some(at);
        }
        if longest == len {
            from += len;
            continue;
        }
        if longest >= size
            && let Some(at) = inside(from, len)
        {
            return Some(at);
        }
        from += len;
        start = from - tail;
    }
    None
}

/// The summary of the bits of a block, without what is dirty or touched.
fn summary(words: &[u64]) -> Block {
    let (mut longest, mut run) = (0, 0);
    let mut head = None;
    for &word in words {
        if word == 0 {
            run += BITS;
            continue;
        }
        run += word.trailing_zeros() as usize;
        head.get_or_insert(run);
        longest = longest.max(run).max(longest_inside(word, longest));
        run = word.leading_zeros() as usize;
    }
    let Some(head) = head else { return Block::FREE };
    Block { head: head as u16, longest: longest.max(run) as u16, tail: run as u16, ..Block::FREE }
}

/// The length of the longest run of zeros, if it is more than `least`.
fn longest_inside(word: u64, least: usize) -> usize {
    let mut free = !word;
    if free.count_ones() as usize <= least {
        return 0;
    }
    let mut length = 0;
    while free != 0 {
        free &= free << 1;
        length += 1;
    }
    length
}

/// The words that have bits of a range, and which.
fn masks(range: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let words = range.start / BITS..range.end.div_ceil(BITS);
    words.map(move |word| {
        let from = range.start.saturating_sub(word * BITS);
        let to = (range.end - word * BITS).min(BITS);
        (word, (!0 << from) & (!0 >> (BITS - to)))
    })
}

fn mark(words: &mut [u64], range: Range<usize>) {
    for (word, mask) in masks(range) {
        words[word] |= mask;
    }
}

fn is_set(words: &[u64], at: usize) -> bool {
    words[at / BITS] >> (at % BITS) & 1 == 1
}

/// How many bits from `at` on are alike and zero once they are changed by `flip`: at most `limit`.
fn count_after(words: &[u64], at: usize, limit: usize, flip: u64) -> usize {
    let mut count = 0;
    while count < limit {
        let (word, bit) = ((at + count) / BITS, (at + count) % BITS);
        let zeros = (((words[word] ^ flip) >> bit).trailing_zeros() as usize).min(BITS - bit);
        count += zeros;
        if zeros < BITS - bit {
            break;
        }
    }
    count.min(limit)
}

/// The same for the bits before `at`; it stops at the first bit.
fn count_before(words: &[u64], at: usize, limit: usize, flip: u64) -> usize {
    let (mut count, limit) = (0, limit.min(at));
    while count < limit {
        let last = at - count - 1;
        let (word, bits) = (last / BITS, last % BITS + 1);
        let zeros = (((words[word] ^ flip) << (BITS - bits)).leading_zeros() as usize).min(bits);
        count += zeros;
        if zeros < bits {
            break;
        }
    }
    count.min(limit)
}

fn zeros_after(words: &[u64], at: usize, limit: usize) -> usize {
    count_after(words, at, limit, 0)
}

fn ones_after(words: &[u64], at: usize, limit: usize) -> usize {
    count_after(words, at, limit, !0)
}

fn zeros_before(words: &[u64], at: usize, limit: usize) -> usize {
    count_before(words, at, limit, 0)
}

fn ones_before(words: &[u64], at: usize, limit: usize) -> usize {
    count_before(words, at, limit, !0)
}

#[cfg(test)]
mod tests;
