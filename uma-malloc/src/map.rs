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
//! The table is in [`table`]. A look-up is two loads that depend on one another, whatever the addresses are; it takes no lock,
//! never touches the memory that it is asked about, and so is safe for any pointer. (A radix tree over
//! 48 bits of address would take three, and tables of 32 KiB.)
//!
//! # Without locks
//!
//! Leaves are only ever added, and go when the map does. A slot is one pointer; it changes once, from
//! `EMPTY` to a leaf or to `FROZEN`. A table that is half full is replaced by one of twice the size:
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
use crate::map::table::{Inserted, Table, empty, frozen};
use crate::sync::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};

mod table;

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
mod tests;
