//! Leaves by their keys: a hash table that is read and filled without a lock, and replaced when it is half full.
//!
//! ```text
//!   | Table: shift, slots, used, previous | slot 0 | slot 1 | ... |
//!                                             `- EMPTY, a leaf, or FROZEN: it changes once
//! ```
//!
//! A key is looked for from the slot that its hash says, to the first that has no leaf. At most half of the slots have one,
//! so there is such a slot. What stays and who may free what is the map's affair; see there.

use core::alloc::Layout;

use uma::core::Metadata;

use crate::map::Leaf;
use crate::sync::{AtomicPtr, AtomicUsize, Ordering};

/// No address has this key: it would take more bits than there are.
static EMPTY: Leaf = Leaf::new(usize::MAX);
static FROZEN: Leaf = Leaf::new(usize::MAX);

pub(super) fn empty() -> *mut Leaf {
    (&raw const EMPTY).cast_mut()
}

pub(super) fn frozen() -> *mut Leaf {
    (&raw const FROZEN).cast_mut()
}

/// A table of leaves: this header, and then the slots.
#[repr(C)]
pub(super) struct Table {
    /// Bits that the hash is shifted by.
    shift: u32,
    pub(super) slots: usize,
    /// Slots that are taken, or about to be. At most half of them.
    used: AtomicUsize,
    /// The table before this one.
    pub(super) previous: *mut Table,
    first: [AtomicPtr<Leaf>; 0],
}

/// What became of a leaf that was to be put in.
pub(super) enum Inserted {
    Ours,
    /// There is one of this key already.
    Other(*mut Leaf),
    /// Needs a larger table.
    Full,
}

impl Table {
    pub(super) fn layout(slots: usize) -> Option<Layout> {
        let all = Layout::array::<AtomicPtr<Leaf>>(slots).ok()?;
        Some(Layout::new::<Self>().extend(all).ok()?.0)
    }

    /// A table without leaves.
    pub(super) fn make<M: Metadata>(
        meta: &M,
        slots: usize,
        previous: *mut Self,
    ) -> Option<*mut Self> {
        let table = meta.alloc_meta(Self::layout(slots)?)?.cast::<Self>().as_ptr();
        let shift = usize::BITS - slots.ilog2();
        let used = AtomicUsize::new(0);
        // SAFETY: the memory is ours and has the layout of a table of so many slots.
        unsafe {
            table.write(Self { shift, slots, used, previous, first: [] });
            for at in 0..slots {
                Self::slot_at(table, at).cast_mut().write(AtomicPtr::new(empty()));
            }
        }
        Some(table)
    }

    /// One of the slots.
    ///
    /// # Safety
    ///
    /// `table` leads to a table of more than `at` slots.
    #[inline(always)]
    pub(super) unsafe fn slot_at(table: *const Self, at: usize) -> *const AtomicPtr<Leaf> {
        // SAFETY: the slots follow the header, see `layout`.
        unsafe { (&raw const (*table).first).cast::<AtomicPtr<Leaf>>().add(at) }
    }

    /// The leaf of a key.
    ///
    /// # Safety
    ///
    /// `table` leads to a table that stays.
    #[inline(always)]
    pub(super) unsafe fn find(table: *const Self, key: usize) -> Option<*mut Leaf> {
        // SAFETY: passed on to the caller.
        let (shift, mask) = unsafe { ((*table).shift, (*table).slots - 1) };
        let mut at = hash(key) >> shift;
        loop {
            // SAFETY: the hash is shifted to so many bits as there are slots. Slots lead to leaves, which
            // stay as long as the map.
            let leaf = unsafe { (*Self::slot_at(table, at)).load(Ordering::Acquire) };
            // SAFETY: as above.
            if unsafe { (*leaf).key } == key {
                return Some(leaf);
            }
            if leaf == empty() || leaf == frozen() {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    /// Puts a leaf in, unless there is one of its key.
    ///
    /// # Safety
    ///
    /// `table` leads to a table that stays, `leaf` to a leaf of this key.
    pub(super) unsafe fn insert(table: *const Self, key: usize, leaf: *mut Leaf) -> Inserted {
        // SAFETY: passed on to the caller.
        let this = unsafe { &*table };
        // Half of the slots stay empty, or searches would not end.
        if this.used.fetch_add(1, Ordering::Relaxed) >= this.slots / 2 {
            this.used.fetch_sub(1, Ordering::Relaxed);
            return Inserted::Full;
        }
        let mut at = hash(key) >> this.shift;
        let result = loop {
            // SAFETY: as in `find`.
            let slot = unsafe { &*Self::slot_at(table, at) };
            // Release: whoever finds the leaf finds it written.
            let put = slot.compare_exchange(empty(), leaf, Ordering::AcqRel, Ordering::Acquire);
            let Err(other) = put else { return Inserted::Ours };
            if other == frozen() {
                break Inserted::Full;
            }
            // SAFETY: as in `find`.
            if unsafe { (*other).key } == key {
                break Inserted::Other(other);
            }
            at = (at + 1) & (this.slots - 1);
        };
        this.used.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// Sees to it that nothing is put into the table any more, and puts all that was into another.
    ///
    /// # Safety
    ///
    /// Both lead to tables; the larger one is the caller's alone and has at least twice the slots.
    pub(super) unsafe fn copy_into(table: *const Self, larger: *const Self) {
        // SAFETY: passed on to the caller.
        let slots = unsafe { (*table).slots };
        for at in 0..slots {
            // SAFETY: as in `find`.
            let slot = unsafe { &*Self::slot_at(table, at) };
            let (empty, frozen) = (empty(), frozen());
            let put = slot.compare_exchange(empty, frozen, Ordering::AcqRel, Ordering::Acquire);
            if let Err(leaf) = put
                && leaf != frozen
            {
                // SAFETY: passed on to the caller; slots lead to leaves. There is room.
                unsafe { Self::insert(larger, (*leaf).key, leaf) };
            }
        }
    }
}

/// Spreads neighbouring regions and far ones alike; the upper bits count.
#[inline(always)]
const fn hash(key: usize) -> usize {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize)
}
