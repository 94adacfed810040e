//! The slabs of a keg, sorted by how full they are.
//!
//! ```text
//!   list   0      1     ...    15      16      17
//!        +------+------+-----+------+-------+------+
//!        | up to| up to| ... | up to| wholly| full |
//!        | 1/16 | 2/16 |     | 16/16| free  |      |
//!        +------+------+-----+------+-------+------+
//!          |                                            a mask has a bit for each of 0..=15 that
//!        slab <-> slab <-> slab                         is not empty
//! ```
//!
//! Items are taken from the highest of the first sixteen that has a slab, so that full slabs stay full
//! and sparse ones get the time to drain; a wholly free slab is begun only when there is no other.

use crate::slab::{BINS, SlabPtr};

/// The list of slabs without items in use.
pub(crate) const WHOLLY_FREE: usize = BINS;
/// The list of slabs without free items.
pub(crate) const FULL: usize = BINS + 1;
/// How many lists there are.
pub(crate) const LISTS: usize = BINS + 2;

/// Every slab of a keg is in exactly one of these; the keg owns them all (see [`crate::slab`]).
pub(crate) struct Lists {
    first: [Option<SlabPtr>; LISTS],
    partial: u32,
}

impl Lists {
    pub(crate) const fn new() -> Self {
        Self { first: [None; LISTS], partial: 0 }
    }

    /// The first slab of a list.
    pub(crate) const fn first(&self, list: usize) -> Option<SlabPtr> {
        self.first[list]
    }

    /// The slab to take items from.
    #[inline]
    pub(crate) fn fullest(&self) -> Option<SlabPtr> {
        let list = if self.partial == 0 { WHOLLY_FREE } else { self.partial.ilog2() as usize };
        self.first[list]
    }

    /// Puts a slab at the front of a list.
    ///
    /// # Safety
    ///
    /// The slab is alive, is in no list, and stays alive until [`remove`](Self::remove); from here on
    /// these lists own it.
    #[inline]
    pub(crate) unsafe fn push(&mut self, slab: SlabPtr, list: usize) {
        let next = self.first[list].replace(slab);
        // SAFETY: the slab is the caller's to give, and its new neighbour is in the list.
        unsafe {
            let header = slab.header();
            header.prev.set(None);
            header.next.set(next);
            // There are 18 lists.
            header.list.set(list as u8);
            if let Some(next) = next {
                next.header().prev.set(Some(slab));
            }
        }
        if list < BINS {
            self.partial |= 1 << list;
        }
    }

    /// Takes a slab out; it is then the caller's.
    ///
    /// # Safety
    ///
    /// The slab is in one of these lists.
    #[inline]
    pub(crate) unsafe fn remove(&mut self, slab: SlabPtr) {
        // SAFETY: the slab is in a list, and so are its neighbours.
        let (list, next, prev) = unsafe {
            let header = slab.header();
            (usize::from(header.list.get()), header.next.take(), header.prev.take())
        };
        if let Some(next) = next {
            // SAFETY: as above.
            unsafe { next.header() }.prev.set(prev);
        }
        match prev {
            // SAFETY: as above.
            Some(prev) => unsafe { prev.header() }.next.set(next),
            None => self.first[list] = next,
        }
        if list < BINS && self.first[list].is_none() {
            self.partial &= !(1 << list);
        }
    }

    /// All slabs of some of the lists.
    pub(crate) fn iter(
        &self,
        lists: core::ops::Range<usize>,
    ) -> impl Iterator<Item = SlabPtr> + '_ {
        self.first[lists].iter().flat_map(|&first| {
            core::iter::successors(first, |slab| {
                // SAFETY: the slab is in a list, and stays there while `self` is borrowed.
                unsafe { slab.header() }.next.get()
            })
        })
    }
}
