//! Finds the outside header of a slab by the slab's base address.
//!
//! The table lives under the keg's lock but never allocates there. It holds no reference to the
//! keg's `Metadata` either, because a keg may be moved; its allocator is *lent* one for as long as a
//! table is being made or freed, without the lock, and has nothing to give at any other time:
//!
//! ```text
//!   lock:     has_room? no
//!   no lock:  larger = Map::with_room_for(meta, ..)      (allocates)
//!   lock:     retired = map.adopt(larger)                (moves the entries)
//!   no lock:  retired.free(meta)                         (frees)
//! ```

use core::alloc::Layout;
use core::ptr::NonNull;

use allocator_api2::alloc::{AllocError, Allocator};
use hashbrown::HashTable;
use uma_core::Metadata;

use crate::slab::SlabPtr;
use crate::sync::Cell;

/// An allocator that has memory only while a `Metadata` is lent to it.
struct Lent<M>(Cell<Option<NonNull<M>>>);

impl<M> Lent<M> {
    const fn nothing() -> Self {
        Self(Cell::new(None))
    }
}

// SAFETY: memory comes from a `Metadata`, which promises what an `Allocator` must, also when this
// value is moved. It is never cloned.
unsafe impl<M: Metadata> Allocator for Lent<M> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let meta = self.0.get().ok_or(AllocError)?;
        // SAFETY: what is lent is alive until it is taken away again (`Map::with`).
        let at = unsafe { meta.as_ref() }.alloc_meta(layout).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(at, layout.size()))
    }

    unsafe fn deallocate(&self, at: NonNull<u8>, layout: Layout) {
        match self.0.get() {
            // SAFETY: what is lent is alive, and the memory came from it, because a map is only ever
            // used with one `Metadata`; the rest is the caller's duty.
            Some(meta) => unsafe { meta.as_ref().free_meta(at, layout) },
            // To free under the lock would break the rule; the memory is leaked instead.
            None => debug_assert!(false, "a table was freed without its metadata"),
        }
    }
}

#[derive(Clone, Copy)]
struct Entry {
    base: usize,
    slab: SlabPtr,
}

/// Slab bases and headers. See the module.
pub(crate) struct Map<M: Metadata> {
    table: HashTable<Entry, Lent<M>>,
}

/// Spreads an address whose low bits are all zero. `hashbrown` uses the low bits and the top seven.
#[inline]
const fn hash(base: usize) -> u64 {
    let product = (base as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

impl<M: Metadata> Map<M> {
    pub(crate) const fn new() -> Self {
        Self { table: HashTable::new_in(Lent::nothing()) }
    }

    /// An empty map that has room for twice `entries`, or for a few, or `None` for want of memory.
    /// Allocates: not under the lock.
    pub(crate) fn with_room_for(meta: &M, entries: usize) -> Option<Self> {
        let mut map = Self::new();
        map.table.allocator().0.set(Some(NonNull::from(meta)));
        let made = map.table.try_reserve((entries * 2).max(14), |entry| hash(entry.base));
        map.table.allocator().0.set(None);
        made.ok().map(|()| map)
    }

    /// Frees the table, whatever is in it. Not under the lock.
    pub(crate) fn free(self, meta: &M) {
        self.table.allocator().0.set(Some(NonNull::from(meta)));
        drop(self);
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether [`insert`](Self::insert) may be called.
    pub(crate) fn has_room(&self) -> bool {
        // The capacity is what is in the table and what can go in before it would allocate.
        self.table.capacity() > self.table.len()
    }

    /// Moves into `larger`, and returns the table that is now empty and to be freed: `larger` itself
    /// if there was no need any more, or if it has meanwhile become too small.
    pub(crate) fn adopt(&mut self, mut larger: Self) -> Self {
        if self.has_room() || larger.table.capacity() <= self.len() {
            return larger;
        }
        for &entry in &self.table {
            larger.table.insert_unique(hash(entry.base), entry, |entry| hash(entry.base));
        }
        core::mem::replace(self, larger)
    }

    /// If the map is empty, takes its table away for [`free`](Self::free).
    pub(crate) fn retire_if_empty(&mut self) -> Self {
        if self.len() == 0 { core::mem::replace(self, Self::new()) } else { Self::new() }
    }

    /// Adds a slab. There must be room.
    pub(crate) fn insert(&mut self, base: usize, slab: SlabPtr) {
        debug_assert!(self.has_room());
        self.table.insert_unique(hash(base), Entry { base, slab }, |entry| hash(entry.base));
    }

    pub(crate) fn remove(&mut self, base: usize) {
        if let Ok(entry) = self.table.find_entry(hash(base), |entry| entry.base == base) {
            entry.remove();
        }
    }

    #[inline]
    pub(crate) fn find(&self, base: usize) -> Option<SlabPtr> {
        self.table.find(hash(base), |entry| entry.base == base).map(|entry| entry.slab)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{AtomicUsize, Ordering};

    /// Memory from the heap, counted.
    struct Heap(AtomicUsize);

    // SAFETY: the global allocator keeps the same promises; tables are never of size zero.
    unsafe impl Metadata for Heap {
        fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            // SAFETY: not of size zero.
            NonNull::new(unsafe { std::alloc::alloc(layout) })
        }

        unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
            self.0.fetch_sub(1, Ordering::Relaxed);
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { std::alloc::dealloc(at.as_ptr(), layout) }
        }
    }

    #[test]
    fn grows_only_by_adoption() {
        let heap = Heap(AtomicUsize::new(0));
        let mut map = Map::<Heap>::new();
        // Never looked at, only kept.
        let slab = SlabPtr::suspected(NonNull::dangling());
        let bases = || (1..3000_usize).map(|n| n << 16);
        for base in bases() {
            while !map.has_room() {
                let larger = Map::with_room_for(&heap, map.len()).unwrap();
                map.adopt(larger).free(&heap);
                assert_eq!(heap.0.load(Ordering::Relaxed), 1, "one table at a time");
            }
            map.insert(base, slab);
        }
        assert!(bases().all(|base| map.find(base) == Some(slab)));
        assert!(map.find(3000 << 16).is_none() && map.find(1).is_none());
        // Removal and insertion at a constant size must not fill the table up with tombstones
        // unnoticed.
        for round in 0..20_000_usize {
            map.remove((1 + round) << 16);
            while !map.has_room() {
                let larger = Map::with_room_for(&heap, map.len()).unwrap();
                map.adopt(larger).free(&heap);
            }
            map.insert((3000 + round) << 16, slab);
        }
        assert_eq!(map.len(), 2999);
        // A table that was made for fewer entries than there are now is of no use, nor is one that
        // somebody else has made unnecessary.
        let before = map.table.capacity();
        let unneeded = Map::with_room_for(&heap, 2 * map.len()).unwrap();
        assert!(map.has_room());
        map.adopt(unneeded).free(&heap);
        assert_eq!(map.table.capacity(), before);
        while map.has_room() {
            map.insert((1_000_000 + map.len()) << 16, slab);
        }
        let small = Map::with_room_for(&heap, 0).unwrap();
        map.adopt(small).free(&heap);
        assert!(map.table.capacity() == before && map.find(22_000 << 16) == Some(slab));
        map.free(&heap);
        assert_eq!(heap.0.load(Ordering::Relaxed), 0);
    }
}
