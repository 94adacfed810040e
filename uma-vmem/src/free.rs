//! The free segments by size: one list for each power of two, and a word that says which are not empty.
//!
//! List `i` has the segments of 2^i to 2^(i+1) - 1 addresses, the last one that came in first:
//!
//! ```text
//!   map      0 ... 1 0 1 0 0 0 ...
//!                  |   |
//!   lists       [ 12 ] [ 10 ]          largest[i]: no segment of list i is larger
//! ```
//!
//! `largest` is raised by what comes in and set right when somebody has looked at the whole list. A
//! request for more does not look at the list in vain again.

use crate::tag::Seg;

const LISTS: usize = usize::BITS as usize;

pub(crate) struct FreeLists {
    map: usize,
    heads: [Option<Seg>; LISTS],
    largest: [usize; LISTS],
}

/// The list for a size, which is not 0.
pub(crate) const fn list_of(size: usize) -> usize {
    size.ilog2() as usize
}

impl FreeLists {
    pub(crate) const fn new() -> Self {
        Self { map: 0, heads: [None; LISTS], largest: [0; LISTS] }
    }

    pub(crate) fn insert(&mut self, seg: Seg) {
        let size = seg.size.get();
        let list = list_of(size);
        let head = self.heads[list];
        seg.left.set(None);
        seg.right.set(head);
        if let Some(head) = head {
            head.left.set(Some(seg));
        }
        self.heads[list] = Some(seg);
        self.map |= 1 << list;
        self.largest[list] = self.largest[list].max(size);
    }

    pub(crate) fn remove(&mut self, seg: Seg) {
        let list = list_of(seg.size.get());
        let (left, right) = (seg.left.get(), seg.right.get());
        match left {
            Some(left) => left.right.set(right),
            None => self.heads[list] = right,
        }
        if let Some(right) = right {
            right.left.set(left);
        }
        if self.heads[list].is_none() {
            self.map &= !(1 << list);
            self.largest[list] = 0;
        }
    }

    /// Changes the size of a segment that is in a list.
    pub(crate) fn resize(&mut self, seg: Seg, size: usize) {
        let list = list_of(size);
        if list == list_of(seg.size.get()) {
            seg.size.set(size);
            self.largest[list] = self.largest[list].max(size);
        } else {
            self.remove(seg);
            seg.size.set(size);
            self.insert(seg);
        }
    }

    /// The first segment of the first list from `list` on that is not empty.
    pub(crate) fn first_from(&self, list: usize) -> Option<Seg> {
        let map = self.map.checked_shr(list as u32)?;
        if map == 0 {
            return None;
        }
        self.heads[list + map.trailing_zeros() as usize]
    }

    /// The lists that may have a segment of `size` or more, from the smallest on.
    pub(crate) fn candidates(&self, size: usize) -> Lists {
        let mut lists = Lists { map: self.map & (usize::MAX << list_of(size)) };
        if self.largest[list_of(size)] < size {
            lists.map &= !(1 << list_of(size));
        }
        lists
    }

    /// The first segment of a list; the others follow by `right`.
    pub(crate) fn head(&self, list: usize) -> Option<Seg> {
        self.heads[list]
    }

    /// Notes the size of the largest segment of a list, found by looking at all.
    pub(crate) fn note_largest(&mut self, list: usize, size: usize) {
        self.largest[list] = size;
    }
}

/// Some of the lists, in order.
#[derive(Clone, Copy)]
pub(crate) struct Lists {
    map: usize,
}

impl Iterator for Lists {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.map == 0 {
            return None;
        }
        let list = self.map.trailing_zeros() as usize;
        self.map &= self.map - 1;
        Some(list)
    }
}
