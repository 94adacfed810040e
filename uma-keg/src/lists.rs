//! The slabs of a keg, sorted by how full they are.
//!
//! ```text
//!   list   0      1     ...    15      16      17     18
//!        +------+------+-----+------+-------+------+------+
//!        | up to| up to| ... | up to| wholly| full | away |
//!        | 1/16 | 2/16 |     | 16/16| free  |      |      |
//!        +------+------+-----+------+-------+------+------+
//!          |                                            a mask has a bit for each of 0..=15 that
//!        slab <-> slab <-> slab <-> slab                is not empty
//!        `- changed -----'  `- settled -'
//! ```
//!
//! Items are taken from the highest of the first sixteen that has a slab, so that full slabs stay full
//! and sparse ones get the time to drain; a wholly free slab is begun only when there is no other. No
//! items are taken from a slab that is *away*: somebody is giving its free pages back.
//!
//! # Invariants
//!
//! - In each list the slabs that are [`SETTLED`] come after those that are not. So the next slab whose
//!   pages can be given back is the first of its list, and items come from memory that is there rather
//!   than from pages that were given back.
//! - `next` of the last slab of a list is `None`; `prev` of the first is the last.

use crate::slab::{BINS, SETTLED, SlabPtr};

/// The list of slabs without items in use.
pub(crate) const WHOLLY_FREE: usize = BINS;
/// The list of slabs without free items.
pub(crate) const FULL: usize = BINS + 1;
/// The list of slabs whose free pages are being given back.
pub(crate) const AWAY: usize = BINS + 2;
/// How many lists there are.
pub(crate) const LISTS: usize = BINS + 3;
const _: () = assert!(LISTS < SETTLED as usize);

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

    /// Puts a slab at the front of a list, as one that has changed.
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
            // There are 19 lists.
            header.place.set(list as u8);
            header.next.set(next);
            header.prev.set(match next {
                Some(next) => next.header().prev.replace(Some(slab)),
                None => Some(slab),
            });
        }
        self.mark(list);
    }

    /// Puts a slab at the end of a list, as one that is settled.
    ///
    /// # Safety
    ///
    /// As [`push`](Self::push).
    pub(crate) unsafe fn push_settled(&mut self, slab: SlabPtr, list: usize) {
        let first = *self.first[list].get_or_insert(slab);
        // SAFETY: the slab is the caller's to give; the first and the last are in the list, or are
        // this slab itself.
        unsafe {
            let header = slab.header();
            header.place.set(list as u8 | SETTLED);
            header.next.set(None);
            let last = first.header().prev.replace(Some(slab));
            if first != slab {
                header.prev.set(last);
                if let Some(last) = last {
                    last.header().next.set(Some(slab));
                }
            }
        }
        self.mark(list);
    }

    /// Notes that a list is not empty.
    #[inline]
    fn mark(&mut self, list: usize) {
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
        // SAFETY: the slab is in a list.
        let (list, next, prev) = unsafe {
            let header = slab.header();
            (header.list(), header.next.take(), header.prev.take())
        };
        if self.first[list] == Some(slab) {
            self.first[list] = next;
        } else if let Some(prev) = prev {
            // SAFETY: it is in the list, before the slab.
            unsafe { prev.header() }.next.set(next);
        }
        // What was before the last slab is now the last, which the first one knows.
        if let Some(next) = next.or(self.first[list]) {
            // SAFETY: it is in the list.
            unsafe { next.header() }.prev.set(prev);
        } else if list < BINS {
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

#[cfg(test)]
mod tests {
    use core::alloc::Layout;
    use core::ptr::NonNull;
    use std::collections::VecDeque;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::{SlabConfig, SlabLayout};

    /// Every list holds what a queue beside it holds, in both directions, whatever is done.
    #[test]
    fn lists_are_queues_with_two_ends() {
        let item = Layout::from_size_align(64, 64).unwrap();
        let layout = SlabLayout::new(item, SlabConfig::new()).unwrap();
        let words = layout.header().size() / size_of::<usize>();
        let mut headers = vec![vec![0_usize; words]; 40];
        let mut slabs: Vec<SlabPtr> = Vec::new();
        for header in &mut headers {
            let at = NonNull::new(header.as_mut_ptr()).unwrap().cast();
            // SAFETY: the memory outlives the test; the base is never used.
            slabs.push(unsafe { SlabPtr::build(at, at, 0, &layout) });
        }
        let mut lists = Lists::new();
        let mut queues = vec![VecDeque::new(); LISTS];
        let mut out = slabs;
        let mut random = 1_u64;
        let mut below = |limit: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % limit
        };
        for _ in 0..20_000 {
            // A few lists only, so that they get long.
            let list = [0, 7, WHOLLY_FREE, AWAY][below(4)];
            // SAFETY: what is in `out` is in no list, and what is in a queue is in its list.
            unsafe {
                match below(4) {
                    0 if !out.is_empty() => {
                        let slab = out.swap_remove(below(out.len()));
                        lists.push(slab, list);
                        queues[list].push_front(slab);
                        assert!(slab.header().list() == list && !slab.header().is_settled());
                    }
                    1 if !out.is_empty() => {
                        let slab = out.swap_remove(below(out.len()));
                        lists.push_settled(slab, list);
                        queues[list].push_back(slab);
                        assert!(slab.header().list() == list && slab.header().is_settled());
                    }
                    _ if !queues[list].is_empty() => {
                        let at = below(queues[list].len());
                        let slab = queues[list].remove(at).unwrap();
                        lists.remove(slab);
                        out.push(slab);
                    }
                    _ => {}
                }
            }
            for (list, queue) in queues.iter().enumerate() {
                assert!(lists.iter(list..list + 1).eq(queue.iter().copied()));
                for (at, slab) in queue.iter().enumerate() {
                    let prev = queue[if at == 0 { queue.len() - 1 } else { at - 1 }];
                    // SAFETY: the slab is in the list.
                    assert_eq!(unsafe { slab.header() }.prev.get(), Some(prev));
                }
                assert_eq!(lists.partial & (1 << list) != 0, list < BINS && !queue.is_empty());
            }
        }
    }
}
