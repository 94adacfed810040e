//! From an address to what lies there: the page map.
//!
//! ```text
//!   address   |        key        |  granule (10 bits)  |  offset (12 bits)  |
//!                      |                    |
//!      table: hash -> slot -> leaf of 4 MiB: one byte for each 4 KiB
//!
//!   byte      0            nothing of ours begins here
//!             1 ..= 120    a slab of the class with this number less one
//!             127          the first granule of a large run
//!             128 + n      a slab of one item of class n - 1, but not its first granule
//! ```
//!
//! A look-up is two loads that depend on one another, whatever the addresses are; it takes no lock,
//! never touches the memory that it is asked about, and so is safe for any pointer. (A radix tree over
//! 48 bits of address would take three, and tables of 32 KiB.)
//!
//! # Without locks
//!
//! Leaves are only ever added, and go when the map does. A slot is one pointer; it changes once, from
//! [`EMPTY`] to a leaf or to [`FROZEN`]. A table that is half full is replaced by one of twice the size:
//! whoever finds it so freezes its empty slots, copies the others and puts the new table in place. Others
//! may do the same at the same time, and the first is taken. An insertion that meets a frozen slot starts again in the new
//! table, so none is lost. Old tables stay until the map goes, since somebody may be reading them;
//! all of them together are no larger than the newest.
//!
//! So a thread that is gone in the copy of a process (fork) leaves nothing locked.
//!
//! Lock order: there are no locks. Metadata is called with nothing held.

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use uma::core::Metadata;

use crate::classes::MAX_CLASSES;
use crate::sync::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};

const GRANULE_SHIFT: u32 = 12;
const REGION_SHIFT: u32 = 22;
/// Bytes that one entry of a leaf stands for.
pub(crate) const GRANULE: usize = 1 << GRANULE_SHIFT;
const GRANULES: usize = 1 << (REGION_SHIFT - GRANULE_SHIFT);

/// Nothing of ours.
pub(crate) const NOTHING: u8 = 0;
/// The first granule of a large run.
pub(crate) const LARGE: u8 = 127;
/// Set in the bytes of a slab of one item but for the first.
pub(crate) const REST: u8 = 128;
const _: () = assert!(MAX_CLASSES < LARGE as usize);

const FIRST_SLOTS: usize = 32;

/// The byte for slabs of a class.
pub(crate) const fn tag_of(class: usize) -> u8 {
    debug_assert!(class < MAX_CLASSES);
    class as u8 + 1
}

/// What is known of a large run, by its first granule. Written before the granule is tagged, by the one
/// that has the run, and read by anybody who looks through the map, to whom the figures may be those of
/// two different runs that followed one another.
pub(crate) struct Record {
    /// Bytes that were asked for.
    pub(crate) size: AtomicUsize,
    /// Bytes of the run, and where it begins.
    pub(crate) run: AtomicUsize,
    pub(crate) base: AtomicPtr<u8>,
    /// Its alignment as a power of two, and the supplier's byte.
    pub(crate) align: AtomicU8,
    pub(crate) flag: AtomicU8,
}

type Records = [MaybeUninit<Record>; GRANULES];

/// 4 MiB of addresses.
struct Leaf {
    key: usize,
    /// Room for a record for each granule, made with the first large run. A record has been written if
    /// its granule was ever tagged [`LARGE`].
    records: AtomicPtr<Records>,
    tags: [AtomicU8; GRANULES],
}

impl Leaf {
    const fn new(key: usize) -> Self {
        Self {
            key,
            records: AtomicPtr::new(ptr::null_mut()),
            tags: [const { AtomicU8::new(NOTHING) }; GRANULES],
        }
    }

    fn record(&self, index: usize) -> Option<&Record> {
        let records = self.records.load(Ordering::Acquire);
        if records.is_null() || self.tags[index].load(Ordering::Acquire) != LARGE {
            return None;
        }
        // SAFETY: the records live as long as the leaf; this one was written before its granule was
        // tagged, which the load above saw.
        Some(unsafe { (*records)[index].assume_init_ref() })
    }
}

/// No address has this key: it would take more bits than there are.
static EMPTY: Leaf = Leaf::new(usize::MAX);
static FROZEN: Leaf = Leaf::new(usize::MAX);

fn empty() -> *mut Leaf {
    (&raw const EMPTY).cast_mut()
}

fn frozen() -> *mut Leaf {
    (&raw const FROZEN).cast_mut()
}

/// A table of leaves: this header, and then the slots.
#[repr(C)]
struct Table {
    /// Bits that the hash is shifted by.
    shift: u32,
    slots: usize,
    /// Slots that are taken, or about to be. At most half of them.
    used: AtomicUsize,
    /// The table before this one.
    previous: *mut Table,
    first: [AtomicPtr<Leaf>; 0],
}

enum Inserted {
    Ours,
    Other(*mut Leaf),
    /// Needs a larger table.
    Full,
}

impl Table {
    fn layout(slots: usize) -> Option<Layout> {
        let all = Layout::array::<AtomicPtr<Leaf>>(slots).ok()?;
        Some(Layout::new::<Self>().extend(all).ok()?.0)
    }

    /// A table without leaves.
    fn make<M: Metadata>(meta: &M, slots: usize, previous: *mut Self) -> Option<*mut Self> {
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

    /// # Safety
    ///
    /// `table` leads to a table of more than `at` slots.
    #[inline(always)]
    unsafe fn slot_at(table: *const Self, at: usize) -> *const AtomicPtr<Leaf> {
        // SAFETY: the slots follow the header, see `layout`.
        unsafe { (&raw const (*table).first).cast::<AtomicPtr<Leaf>>().add(at) }
    }

    /// # Safety
    ///
    /// `table` leads to a table that stays.
    #[inline(always)]
    unsafe fn find(table: *const Self, key: usize) -> Option<*mut Leaf> {
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

    /// # Safety
    ///
    /// `table` leads to a table that stays, `leaf` to a leaf of this key.
    unsafe fn insert(table: *const Self, key: usize, leaf: *mut Leaf) -> Inserted {
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
    unsafe fn copy_into(table: *const Self, larger: *const Self) {
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

const fn index_of(addr: usize) -> usize {
    (addr >> GRANULE_SHIFT) % GRANULES
}

/// What lies where, by granules of 4 KiB.
pub(crate) struct PageMap<M: Metadata> {
    table: AtomicPtr<Table>,
    meta: M,
}

// SAFETY: tables and leaves are owned by the map, are changed by atomic operations only, and belong to no
// thread.
unsafe impl<M: Metadata + Send> Send for PageMap<M> {}
// SAFETY: as above.
unsafe impl<M: Metadata + Sync> Sync for PageMap<M> {}

impl<M: Metadata> PageMap<M> {
    pub(crate) fn new(meta: M) -> Option<Self> {
        let table = Table::make(&meta, FIRST_SLOTS, ptr::null_mut())?;
        Some(Self { table: AtomicPtr::new(table), meta })
    }

    #[inline(always)]
    fn leaf(&self, addr: usize) -> Option<&Leaf> {
        let table = self.table.load(Ordering::Acquire);
        // SAFETY: tables stay until the map goes, and so do leaves.
        unsafe { Table::find(table, addr >> REGION_SHIFT).map(|leaf| &*leaf) }
    }

    /// What lies at an address; any address may be asked for.
    #[inline(always)]
    pub(crate) fn tag(&self, addr: usize) -> u8 {
        match self.leaf(addr) {
            // Relaxed: whoever may use a pointer has got it from somebody who saw the tag.
            Some(leaf) => leaf.tags[index_of(addr)].load(Ordering::Relaxed),
            None => NOTHING,
        }
    }

    /// Makes leaves for all of a range, which is not empty. Returns whether there was memory.
    #[must_use]
    pub(crate) fn cover(&self, start: usize, len: usize) -> bool {
        let (first, last) = (start >> REGION_SHIFT, (start + (len - 1)) >> REGION_SHIFT);
        (first..=last).all(|key| self.leaf_for(key).is_some())
    }

    /// Tags the granules of a range: the first with one byte, the others with another. Leaves are there.
    pub(crate) fn set(&self, start: usize, len: usize, first: u8, rest: u8) {
        let mut at = start;
        let end = start + len;
        while at < end {
            let stop = end.min((at | ((1 << REGION_SHIFT) - 1)).saturating_add(1));
            if let Some(leaf) = self.leaf(at) {
                let granules = index_of(at)..=index_of(stop - 1);
                for tag in &leaf.tags[granules] {
                    tag.store(rest, Ordering::Relaxed);
                }
            }
            at = stop;
        }
        if let Some(leaf) = self.leaf(start) {
            leaf.tags[index_of(start)].store(first, Ordering::Relaxed);
        }
    }

    fn leaf_for(&self, key: usize) -> Option<&Leaf> {
        let mut table = self.table.load(Ordering::Acquire);
        // SAFETY: tables and leaves stay until the map goes, here and below.
        if let Some(leaf) = unsafe { Table::find(table, key) } {
            // SAFETY: as above.
            return Some(unsafe { &*leaf });
        }
        let layout = Layout::new::<Leaf>();
        let memory = self.meta.alloc_meta(layout)?;
        let leaf = memory.cast::<Leaf>().as_ptr();
        // SAFETY: the memory is ours and has the layout of a leaf.
        unsafe { leaf.write(Leaf::new(key)) };
        let found = loop {
            // SAFETY: as above; the leaf has this key.
            match unsafe { Table::insert(table, key, leaf) } {
                // SAFETY: as above.
                Inserted::Ours => return Some(unsafe { &*leaf }),
                Inserted::Other(other) => break Some(other),
                Inserted::Full if self.grow(table) => {}
                Inserted::Full => break None,
            }
            table = self.table.load(Ordering::Acquire);
        };
        // SAFETY: it came from there with this layout, and nobody has seen it.
        unsafe { self.meta.free_meta(memory, layout) };
        // SAFETY: as above.
        found.map(|leaf| unsafe { &*leaf })
    }

    /// Puts a larger table in the place of this one, unless another thread has. Returns whether there was
    /// memory.
    fn grow(&self, table: *mut Table) -> bool {
        // SAFETY: tables stay until the map goes.
        let slots = unsafe { (*table).slots } * 2;
        let Some(larger) = Table::make(&self.meta, slots, table) else {
            return self.table.load(Ordering::Acquire) != table;
        };
        // SAFETY: the larger table was made just now.
        unsafe { Table::copy_into(table, larger) };
        if self.table.compare_exchange(table, larger, Ordering::AcqRel, Ordering::Acquire).is_err()
        {
            // SAFETY: nobody has seen it.
            unsafe { self.free_table(larger) };
        }
        true
    }

    /// # Safety
    ///
    /// The table was made with our metadata, and nobody uses it.
    unsafe fn free_table(&self, table: *mut Table) {
        // SAFETY: passed on to the caller.
        let slots = unsafe { (*table).slots };
        if let (Some(layout), Some(at)) = (Table::layout(slots), NonNull::new(table)) {
            // SAFETY: it came from there with this layout.
            unsafe { self.meta.free_meta(at.cast(), layout) };
        }
    }

    /// Makes room for the record of a large run that begins here. Returns whether there was memory.
    #[must_use]
    pub(crate) fn cover_large(&self, start: usize) -> bool {
        let Some(leaf) = self.leaf_for(start >> REGION_SHIFT) else { return false };
        if !leaf.records.load(Ordering::Acquire).is_null() {
            return true;
        }
        let layout = Layout::new::<Records>();
        let Some(memory) = self.meta.alloc_meta(layout) else { return false };
        let (null, records) = (ptr::null_mut(), memory.cast::<Records>().as_ptr());
        let put = leaf.records.compare_exchange(null, records, Ordering::AcqRel, Ordering::Acquire);
        if put.is_err() {
            // SAFETY: it came from there with this layout, and nobody has seen it.
            unsafe { self.meta.free_meta(memory, layout) };
        }
        true
    }

    /// Enters a large run, for which `cover_large` made room.
    ///
    /// # Safety
    ///
    /// The caller has the memory that begins at `base`, so nobody else enters it.
    pub(crate) unsafe fn enter(&self, base: NonNull<u8>, size: usize, run: Layout, flag: u8) {
        let start = base.addr().get();
        let Some(leaf) = self.leaf(start) else { return };
        let records = leaf.records.load(Ordering::Acquire);
        if records.is_null() {
            return;
        }
        let index = index_of(start);
        // The power of two of an alignment is below 64.
        let align = run.align().ilog2() as u8;
        // SAFETY: the records live as long as the leaf, and atomics may be stored to whatever they hold;
        // those of an earlier run may still be looked at.
        unsafe {
            let record = (&raw mut (*records)[index]).cast::<Record>();
            (*record).size.store(size, Ordering::Relaxed);
            (*record).run.store(run.size(), Ordering::Relaxed);
            (*record).base.store(base.as_ptr(), Ordering::Relaxed);
            (*record).align.store(align, Ordering::Relaxed);
            (*record).flag.store(flag, Ordering::Relaxed);
        }
        // Release: who sees the tag finds the record written.
        leaf.tags[index].store(LARGE, Ordering::Release);
    }

    /// The record of the large run that begins here, if one does.
    pub(crate) fn record(&self, addr: usize) -> Option<&Record> {
        if addr.is_multiple_of(GRANULE) { self.leaf(addr)?.record(index_of(addr)) } else { None }
    }

    /// Takes a large run out of the map: of several that try, one gets it.
    pub(crate) fn remove(&self, addr: usize) -> Option<(Layout, u8)> {
        let record = self.record(addr)?;
        let tag = &self.leaf(addr)?.tags[index_of(addr)];
        tag.compare_exchange(LARGE, NOTHING, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        // Nobody changes the record before the run has been given back.
        let run = record.run.load(Ordering::Relaxed);
        let align = 1 << record.align.load(Ordering::Relaxed);
        Some((Layout::from_size_align(run, align).ok()?, record.flag.load(Ordering::Relaxed)))
    }

    /// Shows the record of every large run.
    pub(crate) fn for_each_large(&self, visit: &mut dyn FnMut(&Record)) {
        let table = self.table.load(Ordering::Acquire);
        // SAFETY: tables stay until the map goes.
        let slots = unsafe { (*table).slots };
        for at in 0..slots {
            // SAFETY: as above; slots lead to leaves, or to the two statics.
            let leaf = unsafe { &*(*Table::slot_at(table, at)).load(Ordering::Acquire) };
            if leaf.records.load(Ordering::Acquire).is_null() {
                continue;
            }
            for index in 0..GRANULES {
                if let Some(record) = leaf.record(index) {
                    visit(record);
                }
            }
        }
    }
}

impl<M: Metadata> Drop for PageMap<M> {
    fn drop(&mut self) {
        let mut table = *self.table.get_mut();
        // The newest table has every leaf.
        // SAFETY: the map goes, so tables and leaves are ours alone; each came from our metadata with the
        // layout of its type.
        unsafe {
            for at in 0..(*table).slots {
                let leaf = (*Table::slot_at(table, at)).load(Ordering::Relaxed);
                let Some(memory) = NonNull::new(leaf) else { continue };
                if leaf == empty() || leaf == frozen() {
                    continue;
                }
                if let Some(records) = NonNull::new((*leaf).records.load(Ordering::Relaxed)) {
                    self.meta.free_meta(records.cast(), Layout::new::<Records>());
                }
                self.meta.free_meta(memory.cast(), Layout::new::<Leaf>());
            }
            while !table.is_null() {
                let previous = (*table).previous;
                self.free_table(table);
                table = previous;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;
    use uma_testkit::{HeapMeta, Rng};

    const REGION: usize = 1 << REGION_SHIFT;

    /// Addresses all over the place: neighbours, far ones, the upper half.
    fn start(number: usize) -> usize {
        match number % 3 {
            0 => (number + 1) * REGION,
            1 => number << 47,
            _ => usize::MAX - (number + 1) * REGION * 5 + 1,
        }
    }

    #[test]
    fn finds_what_was_entered_and_nothing_else() {
        let meta = HeapMeta::new();
        let map = PageMap::new(&meta).unwrap();
        for number in 0..1500 {
            let at = start(number) & !(GRANULE - 1);
            assert_eq!(map.tag(at), NOTHING);
            assert!(map.cover(at, 3 * GRANULE));
            map.set(at, 3 * GRANULE, 5, 6);
            assert_eq!([0, 1, 2, 3].map(|n| map.tag(at + n * GRANULE)), [5, 6, 6, NOTHING]);
            assert_eq!((map.tag(at + GRANULE - 1), map.tag(at - 1)), (5, NOTHING));
        }
        assert!((0..1500).all(|number| map.tag(start(number)) == 5));
        let odd = 77 * REGION - GRANULE;
        assert!(map.cover(odd, 3 * REGION));
        map.set(odd, 3 * REGION, 9, 8);
        assert_eq!((map.tag(odd), map.tag(odd + GRANULE)), (9, 8));
        assert_eq!((map.tag(odd + 3 * REGION - 1), map.tag(odd + 3 * REGION)), (8, NOTHING));
        assert_eq!([0, 1, usize::MAX, usize::MAX / 2].map(|at| map.tag(at)), [NOTHING; 4]);
        drop(map);
        assert_eq!(meta.outstanding().runs, 0);
    }

    #[test]
    fn without_memory_nothing_is_lost() {
        for k in 1..60 {
            let meta = HeapMeta::new();
            let Some(map) = PageMap::new(&meta) else { unreachable!("there is memory") };
            meta.fail_from(k);
            let covered: Vec<_> =
                (0..200).filter(|&number| map.cover(start(number), GRANULE)).collect();
            assert!(covered.len() < 200);
            for &number in &covered {
                map.set(start(number), GRANULE, 3, 3);
            }
            meta.never();
            assert!((0..200).all(|number| map.cover(start(number), GRANULE)));
            assert!(covered.iter().all(|&number| map.tag(start(number)) == 3));
            drop(map);
            assert_eq!(meta.outstanding().runs, 0);
        }
    }

    /// Who was about to insert into a table when it was replaced finds that it may not.
    #[test]
    fn a_table_that_was_replaced_takes_nothing() {
        let meta = HeapMeta::new();
        let map = PageMap::new(&meta).unwrap();
        assert!(map.cover(start(3), GRANULE));
        let old = map.table.load(Ordering::Relaxed);
        assert!(map.grow(old));
        let late = Leaf::new(99);
        // SAFETY: the old table stays, and refuses the leaf.
        let inserted = unsafe { Table::insert(old, 99, (&raw const late).cast_mut()) };
        assert!(matches!(inserted, Inserted::Full));
        // SAFETY: as above.
        assert!(unsafe { Table::find(old, 99) }.is_none());
        assert!(map.leaf(start(3)).is_some() && map.leaf(99 * REGION).is_none());
    }

    /// Threads enter the same regions and different ones at the same time, while tables are replaced.
    #[test]
    fn threads_lose_no_entry() {
        const EACH: usize = 48;
        // What a thread enters: every other region is one that the others enter, too.
        fn entry(thread: usize, number: usize) -> usize {
            let region =
                if number.is_multiple_of(2) { number } else { EACH * (thread + 1) + number };
            start(region) + thread * GRANULE
        }
        for round in 0..300 {
            let meta = HeapMeta::new();
            let map = PageMap::new(&meta).unwrap();
            let ready = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let (map, ready) = (&map, &ready);
                    scope.spawn(move || {
                        let mut random = Rng::new(round * 4 + thread as u64);
                        ready.wait();
                        for number in 0..EACH {
                            let at = entry(thread, number);
                            assert!(map.cover(at, GRANULE));
                            map.set(at, GRANULE, thread as u8 + 1, 0);
                            let before = random.below(number + 1);
                            let found = map.tag(entry(thread, before));
                            assert_eq!(found, thread as u8 + 1, "{before} of {number}");
                        }
                    });
                }
            });
            for (number, thread) in (0..EACH).flat_map(|n| (0..4).map(move |thread| (n, thread))) {
                assert_eq!(map.tag(entry(thread, number)), thread as u8 + 1);
            }
            drop(map);
            assert_eq!(meta.outstanding().runs, 0);
        }
    }
}
