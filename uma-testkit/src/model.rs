//! The model: what is out, where it lies, and what is in it.

use std::alloc::Layout;
use std::collections::BTreeMap;

use uma_core::Item;

use crate::token;

/// Address ranges that are out, none of which overlaps another.
#[derive(Debug, Default)]
pub struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    /// Notes what was handed out.
    ///
    /// # Panics
    ///
    /// If it overlaps what is out, or wraps around.
    #[track_caller]
    pub fn insert(&mut self, start: usize, len: usize) {
        let end = start.checked_add(len).expect("memory that wraps around the address space");
        if let Some((&other, &other_end)) = self.0.range(..end).next_back() {
            assert!(
                other_end <= start,
                "{start:#x}..{end:#x} is handed out, and overlaps {other:#x}..{other_end:#x}, which is out"
            );
        }
        self.0.insert(start, end);
    }

    /// Notes that what begins at `start` goes back.
    ///
    /// # Panics
    ///
    /// If nothing that is out begins there.
    #[track_caller]
    pub fn remove(&mut self, start: usize) {
        assert!(self.0.remove(&start).is_some(), "{start:#x} is not out");
    }

    /// Where what is out begins, in the order of addresses.
    pub fn starts(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.keys().copied()
    }

    /// Whether something that is out begins there.
    pub fn contains(&self, start: usize) -> bool {
        self.0.contains_key(&start)
    }
}

/// An item that is out, and the token over all of it that only its owner knows.
#[derive(Clone, Copy, Debug)]
struct Held {
    item: Item,
    token: u64,
}

/// The items of one source that are out.
#[derive(Debug)]
pub struct Model {
    layout: Layout,
    held: Vec<Held>,
    ranges: Ranges,
    /// What items held when they went back, where a source promises not to touch it.
    left: Option<BTreeMap<usize, u64>>,
    /// Items that were handed out, and that went back.
    allocs: u64,
    frees: u64,
}

impl Model {
    /// Nothing is out. `keeps` says that the source promises to touch no free item.
    pub fn new(layout: Layout, keeps: bool) -> Self {
        let left = keeps.then(BTreeMap::new);
        Self { layout, held: Vec::new(), ranges: Ranges::default(), left, allocs: 0, frees: 0 }
    }

    /// Items that are out.
    pub fn live(&self) -> u64 {
        self.held.len() as u64
    }

    /// Items that were handed out so far.
    pub fn allocs(&self) -> u64 {
        self.allocs
    }

    /// Items that went back so far.
    pub fn frees(&self) -> u64 {
        self.frees
    }

    /// Where they lie.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// An item was handed out: checks that it is aligned, overlaps nothing that is out, and has the
    /// contents that it must have, and stamps it with a new token.
    ///
    /// # Panics
    ///
    /// If not.
    #[track_caller]
    pub fn took(&mut self, item: Item, zeroed: bool) {
        let (addr, size) = (item.addr(), self.layout.size());
        assert!(addr.is_multiple_of(self.layout.align()), "{item:?} is not aligned");
        self.ranges.insert(addr, size);
        if zeroed {
            // SAFETY: the item is ours, has this size, and was asked for with all its bytes zero.
            let bytes = unsafe { std::slice::from_raw_parts(item.as_ptr(), size) };
            let dirty = bytes.iter().position(|&byte| byte != 0);
            assert_eq!(dirty, None, "first byte that is not zero in an item asked for with zeros");
        } else if let Some(token) = self.left.as_mut().and_then(|left| left.remove(&addr)) {
            // SAFETY: the item is ours, and was stamped when it was out before.
            let result = unsafe { token::verify(item.as_non_null(), size, token) };
            assert_eq!(result, Ok(()), "offset at which {item:?} changed while it was free");
        }
        self.allocs += 1;
        let token = self.allocs;
        // SAFETY: the item is ours.
        unsafe { token::stamp(item.as_non_null(), size, token) };
        self.held.push(Held { item, token });
    }

    /// Picks an item and checks its contents. It counts as given back from here on, since it is also if
    /// the call that gives it back panics. `None` if nothing is out.
    ///
    /// # Panics
    ///
    /// If somebody wrote to the item.
    #[track_caller]
    pub fn give(&mut self, i: usize) -> Option<Item> {
        let index = i.checked_rem(self.held.len())?;
        let held = self.held.swap_remove(index);
        self.check(&held);
        self.ranges.remove(held.item.addr());
        if let Some(left) = &mut self.left {
            left.insert(held.item.addr(), held.token);
        }
        self.frees += 1;
        Some(held.item)
    }

    /// One of the items that are out, and stays so.
    pub fn peek(&self, i: usize) -> Option<Item> {
        Some(self.held[i.checked_rem(self.held.len())?].item)
    }

    /// Checks the contents of all items.
    ///
    /// # Panics
    ///
    /// If somebody wrote to one.
    #[track_caller]
    pub fn verify(&self) {
        self.held.iter().for_each(|held| self.check(held));
    }

    /// The source may have given memory back: free items may hold anything now.
    pub fn forget_free_items(&mut self) {
        if let Some(left) = &mut self.left {
            left.clear();
        }
    }

    #[track_caller]
    fn check(&self, held: &Held) {
        // SAFETY: the item is ours and was stamped when it was taken.
        let result =
            unsafe { token::verify(held.item.as_non_null(), self.layout.size(), held.token) };
        assert_eq!(result, Ok(()), "offset at which {:?} changed while it was out", held.item);
    }
}
