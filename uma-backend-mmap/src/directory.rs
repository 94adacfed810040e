//! Which chunks there are: by address, to find the one that memory lies in, and by age, to fill old
//! ones first.
//!
//! ```text
//!   one mapping:   | by address: (start, chunk) ... room | by age: (room, chunk) ... room |
//! ```
//!
//! Both halves are sorted arrays. `room` of a chunk is a number of pages that no piece of free pages in
//! it exceeds; it spares looking at chunks that are full. A place is *promised* before a chunk is mapped,
//! and before one is taken out to be unmapped, so that it can always be put in.

use std::ptr::NonNull;
use std::slice;

use crate::region::Chunk;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Where the region begins; or, by age, the most room there can be.
    pub(crate) key: usize,
    pub(crate) chunk: NonNull<Chunk>,
}

#[derive(Debug)]
pub(crate) struct Directory {
    /// Room for twice `capacity` entries, unless that is 0.
    table: NonNull<Entry>,
    capacity: usize,
    count: usize,
    promised: usize,
    serial: u64,
}

/// The memory of a directory.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) at: NonNull<u8>,
    pub(crate) len: usize,
}

// SAFETY: mappings belong to no thread; whoever has the directory has the chunks in it.
unsafe impl Send for Directory {}

impl Directory {
    pub(crate) const fn new() -> Self {
        Self { table: NonNull::dangling(), capacity: 0, count: 0, promised: 0, serial: 0 }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Another number whenever a chunk came or went.
    pub(crate) fn generation(&self) -> u64 {
        self.serial
    }

    /// Promises a place, if there is one; else returns how many bytes the next table is to have.
    pub(crate) fn promise(&mut self, page: usize) -> Result<(), usize> {
        if self.count + self.promised < self.capacity {
            self.promised += 1;
            return Ok(());
        }
        Err((2 * self.capacity * 2 * size_of::<Entry>()).max(page))
    }

    /// A place that was promised is not needed.
    pub(crate) fn release(&mut self) {
        self.promised -= 1;
    }

    /// Moves into a larger table and returns the old one, if there was one; or the new one, if it is not
    /// larger.
    ///
    /// # Safety
    ///
    /// The table is new memory of whole pages, and the caller's.
    pub(crate) unsafe fn adopt(&mut self, new: Table) -> Option<Table> {
        let capacity = new.len / size_of::<Entry>() / 2;
        if capacity <= self.capacity {
            return Some(new);
        }
        let to = new.at.cast::<Entry>();
        // SAFETY: both halves of the new table have room for more entries than there are; it is page-aligned.
        unsafe {
            to.copy_from_nonoverlapping(self.table, self.count);
            to.add(capacity).copy_from_nonoverlapping(self.table.add(self.capacity), self.count);
        }
        let old = self.table();
        (self.table, self.capacity) = (to, capacity);
        old
    }

    /// The table, if there is one.
    pub(crate) fn table(&self) -> Option<Table> {
        let len = 2 * self.capacity * size_of::<Entry>();
        (len > 0).then(|| Table { at: self.table.cast(), len })
    }

    fn by_address(&self) -> &[Entry] {
        // SAFETY: so many entries are there; or the pointer dangles and there are none.
        unsafe { slice::from_raw_parts(self.table.as_ptr(), self.count) }
    }

    fn by_age(&self) -> &[Entry] {
        // SAFETY: as above, in the other half.
        unsafe { slice::from_raw_parts(self.table.add(self.capacity).as_ptr(), self.count) }
    }

    /// The entry of a chunk by age.
    pub(crate) fn room(&mut self, age: usize) -> &mut usize {
        assert!(age < self.count);
        // SAFETY: there are so many entries, see above.
        unsafe { &mut (*self.table.as_ptr().add(self.capacity + age)).key }
    }

    /// The first chunk from the `age`-th on that may have a piece of so many pages.
    pub(crate) fn with_room(&self, age: usize, pages: usize) -> Option<usize> {
        self.by_age()[age..].iter().position(|entry| entry.key >= pages).map(|at| age + at)
    }

    /// The `age`-th chunk, from the oldest.
    pub(crate) fn chunk(&mut self, age: usize) -> &mut Chunk {
        let chunk = self.by_age()[age].chunk;
        // SAFETY: what is in the directory is mapped, and borrowed as the directory is.
        unsafe { &mut *chunk.as_ptr() }
    }

    /// How many chunks are older than the one that had this number.
    pub(crate) fn older_than(&mut self, serial: u64) -> usize {
        // SAFETY: as in `chunk`.
        self.by_age().partition_point(|entry| unsafe { (*entry.chunk.as_ptr()).serial } < serial)
    }

    /// The chunk whose region has this address.
    pub(crate) fn find(&mut self, address: usize) -> Option<&mut Chunk> {
        let after = self.by_address().partition_point(|entry| entry.key <= address);
        let chunk = self.by_address()[..after].last()?.chunk;
        // SAFETY: as in `chunk`.
        let chunk = unsafe { &mut *chunk.as_ptr() };
        chunk.bounds().contains(&address).then_some(chunk)
    }

    /// The first chunk whose region begins after this address.
    pub(crate) fn after(&self, address: usize) -> Option<&Chunk> {
        let after = self.by_address().partition_point(|entry| entry.key <= address);
        // SAFETY: as in `chunk`.
        self.by_address().get(after).map(|entry| unsafe { &*entry.chunk.as_ptr() })
    }

    /// Puts a chunk in, at a place that was promised.
    ///
    /// # Safety
    ///
    /// The chunk is mapped, the caller's, and not in the directory.
    pub(crate) unsafe fn insert(&mut self, chunk: NonNull<Chunk>) {
        debug_assert!(self.promised > 0 && self.count < self.capacity);
        self.serial += 1;
        // SAFETY: the chunk is the caller's.
        let (start, pages) = unsafe {
            let chunk = &mut *chunk.as_ptr();
            (chunk.serial, chunk.age, chunk.next) = (self.serial, self.count, None);
            (chunk.bounds().start, chunk.sums().pages)
        };
        let at = self.by_address().partition_point(|entry| entry.key < start);
        // SAFETY: there is room for one more in both halves, since a place was promised.
        unsafe {
            let place = self.table.add(at);
            place.add(1).copy_from(place, self.count - at);
            place.write(Entry { key: start, chunk });
            self.table.add(self.capacity + self.count).write(Entry { key: pages, chunk });
        }
        self.count += 1;
        self.promised -= 1;
    }

    /// Takes a chunk out, and promises a place, so that it can be put in again.
    pub(crate) fn remove(&mut self, age: usize) -> NonNull<Chunk> {
        let chunk = self.by_age()[age].chunk;
        let start = self.chunk(age).bounds().start;
        let at = self.by_address().partition_point(|entry| entry.key < start);
        self.count -= 1;
        // SAFETY: both places are in the table, and so is what is after them.
        unsafe {
            let place = self.table.add(at);
            place.copy_from(place.add(1), self.count - at);
            let place = self.table.add(self.capacity + age);
            place.copy_from(place.add(1), self.count - age);
        }
        for age in age..self.count {
            self.chunk(age).age = age;
        }
        self.serial += 1;
        self.promised += 1;
        chunk
    }
}
