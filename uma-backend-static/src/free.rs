//! Which pages are free: a bitmap, first fit.
//!
//! ```text
//!   words[0]  bit 0 = page 0 ... bit 63 = page 63      1: free
//!   words[1]  bit 0 = page 64 ...                      0: in use, or past the last page
//! ```
//!
//! Plain data over plain data: it knows page numbers and no addresses.

const BITS: usize = u64::BITS as usize;

/// Words needed for the bits of `pages` pages.
pub(crate) const fn words_for(pages: usize) -> usize {
    pages.div_ceil(BITS)
}

/// The pages that are aligned: those whose number is `phase` modulo `step`.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    /// A power of two.
    pub(crate) step: usize,
    /// Less than `step`.
    pub(crate) phase: usize,
}

impl Grid {
    /// The first aligned page that is not before `page`.
    fn from(self, page: usize) -> Option<usize> {
        let ahead = self.phase.wrapping_sub(page) & (self.step - 1);
        page.checked_add(ahead)
    }
}

/// Counters that belong to a bitmap and are kept beside it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Marks {
    pub(crate) total: usize,
    pub(crate) free: usize,
    /// All pages before this one are in use.
    pub(crate) first: usize,
    /// All pages from this one on were never handed out.
    pub(crate) fresh: usize,
}

/// Pages taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) page: usize,
    /// Whether none of them was ever handed out before.
    pub(crate) fresh: bool,
}

/// The bitmap, for as long as the lock is held.
pub(crate) struct FreeMap<'a> {
    pub(crate) words: &'a mut [u64],
    pub(crate) marks: &'a mut Marks,
}

impl FreeMap<'_> {
    /// Sets all up with `total` free pages. There are [`words_for`] that many words, all zero.
    pub(crate) fn reset(&mut self, total: usize) {
        self.mark(0, total, true);
        *self.marks = Marks { total, free: total, first: 0, fresh: 0 };
    }

    /// Takes the first run of `count` pages on `grid`.
    pub(crate) fn take(&mut self, count: usize, grid: Grid) -> Option<Taken> {
        if count > self.marks.free {
            return None;
        }
        let first = self.next(self.marks.first, true)?;
        self.marks.first = first;
        let page = self.find(first, count, grid)?;
        let end = page + count;
        self.mark(page, end, false);
        self.marks.free -= count;
        if page == first {
            self.marks.first = end;
        }
        let fresh = page >= self.marks.fresh;
        self.marks.fresh = self.marks.fresh.max(end);
        Some(Taken { page, fresh })
    }

    /// Gives back a run of pages that was taken.
    pub(crate) fn give(&mut self, page: usize, count: usize) {
        self.mark(page, page + count, true);
        self.marks.free += count;
        self.marks.first = self.marks.first.min(page);
    }

    /// Pages in the longest free run.
    pub(crate) fn largest(&self) -> usize {
        let mut largest = 0;
        let mut page = self.marks.first;
        while let Some(start) = self.next(page, true) {
            let end = self.next(start, false).unwrap_or(self.marks.total);
            largest = largest.max(end - start);
            page = end;
        }
        largest
    }

    fn find(&self, from: usize, count: usize, grid: Grid) -> Option<usize> {
        let mut page = grid.from(from)?;
        loop {
            let end = page.checked_add(count).filter(|&end| end <= self.marks.total)?;
            match self.last_used(page, end) {
                None => return Some(page),
                Some(used) => page = grid.from(self.next(used + 1, true)?)?,
            }
        }
    }

    /// The first page that is not before `page` and free, or in use.
    fn next(&self, page: usize, free: bool) -> Option<usize> {
        let total = self.marks.total;
        if page >= total {
            return None;
        }
        let flip = if free { 0 } else { u64::MAX };
        let mut index = page / BITS;
        let mut word = (self.words[index] ^ flip) & (u64::MAX << (page % BITS));
        while word == 0 {
            index += 1;
            word = self.words.get(index)? ^ flip;
        }
        let found = index * BITS + word.trailing_zeros() as usize;
        (found < total).then_some(found)
    }

    /// The last page in use of those from `page` up to `end`.
    fn last_used(&self, page: usize, end: usize) -> Option<usize> {
        for index in (page / BITS..words_for(end)).rev() {
            let used = !self.words[index] & mask(index, page, end);
            if used != 0 {
                return Some(index * BITS + used.ilog2() as usize);
            }
        }
        None
    }

    fn mark(&mut self, page: usize, end: usize, free: bool) {
        for index in page / BITS..words_for(end) {
            let bits = mask(index, page, end);
            if free {
                self.words[index] |= bits;
            } else {
                self.words[index] &= !bits;
            }
        }
    }
}

/// The bits of word `index` whose pages lie from `page` up to `end`.
fn mask(index: usize, page: usize, end: usize) -> u64 {
    let start = index * BITS;
    let low = page.saturating_sub(start).min(BITS);
    let high = end.saturating_sub(start).min(BITS);
    if low >= high {
        return 0;
    }
    (u64::MAX >> (BITS - (high - low))) << low
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn masks_cover_each_page_once() {
        for (page, end) in [(0, 1), (0, 64), (3, 64), (3, 65), (63, 64), (64, 128), (5, 200)] {
            let bits: Vec<usize> = (0..words_for(end))
                .flat_map(|i| {
                    (0..BITS)
                        .filter(move |b| mask(i, page, end) >> b & 1 == 1)
                        .map(move |b| i * BITS + b)
                })
                .collect();
            assert_eq!(bits, (page..end).collect::<Vec<_>>());
        }
    }

    #[test]
    fn against_a_plain_array() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 11) as usize % below
        };
        for total in [1, 63, 64, 65, 130, 1000] {
            let mut words = vec![0; words_for(total)];
            let mut marks = Marks::default();
            let mut map = FreeMap { words: &mut words, marks: &mut marks };
            map.reset(total);
            let mut model = vec![true; total];
            let mut used_ever = vec![false; total];
            let mut held: Vec<(usize, usize)> = Vec::new();
            for _ in 0..3000 {
                if random(5) < 3 {
                    let count = 1 + random(total.min(70));
                    let step = 1 << random(7);
                    let grid = Grid { step, phase: random(step) };
                    let expected = (0..total)
                        .find(|&p| {
                            p % step == grid.phase
                                && p + count <= total
                                && model[p..p + count].iter().all(|&f| f)
                        })
                        .map(|page| Taken { page, fresh: !used_ever[page..].iter().any(|&u| u) });
                    let taken = map.take(count, grid);
                    assert_eq!(taken, expected);
                    if let Some(Taken { page, .. }) = taken {
                        model[page..page + count].fill(false);
                        used_ever[page..page + count].fill(true);
                        held.push((page, count));
                    }
                } else if !held.is_empty() {
                    let (page, count) = held.swap_remove(random(held.len()));
                    map.give(page, count);
                    model[page..page + count].fill(true);
                }
                assert_eq!(map.marks.free, model.iter().filter(|&&f| f).count());
                let longest = model.split(|&f| !f).map(<[bool]>::len).max().unwrap_or(0);
                assert_eq!(map.largest(), longest);
            }
        }
    }
}
