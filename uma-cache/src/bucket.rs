//! Buckets: small stacks of item pointers.
//!
//! ```text
//!    0              8          10         12     16
//!   +--------------+----------+----------+------+---------+---------+-- ... --+-----------+
//!   | header/link  | capacity |  base    |      | item 0  | item 1  |         | item c-1  |
//!   +--------------+----------+----------+------+---------+---------+-- ... --+-----------+
//!     |
//!     63                                        16 15      8 7        0
//!    +--------------------------------------------+---------+----------+
//!    | allocations since the last harvest (48)    | room (8)| count (8)|
//!    +--------------------------------------------+---------+----------+
//! ```
//!
//! A pop is complete with one store of `header + 0x1_0100 - 1`, a push with one store of
//! `header + 1 - 0x100`: the store that moves the stack also counts the operation, so statistics are exact
//! and cost nothing. Frees are not counted: with `base`, the count at the last harvest,
//! `frees = allocations + count - base`. The room is there so that a push need not load the capacity.
//!
//! While a bucket is in the depot its header word holds the link of the list instead, and `base` the
//! count.
//!
//! # Invariants
//!
//! `count + room == capacity`; the first `count` items are initialised and owned by the bucket; only the
//! bucket's owner (the CPU whose slot points to it, or the thread that took it out) touches it.

mod list;
mod sizes;

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use uma_core::{Item, Metadata, Request};

use crate::sync::{UnsafeCell, never_written};

pub(crate) use list::List;
pub(crate) use sizes::next_capacity;
pub use sizes::{MAX_CAPACITY, capacity_for};

const COUNT: u64 = 0xff;
pub(crate) const ROOM: u64 = 0xff00;
const ONE_ROOM: u64 = 1 << 8;
const ONE_ALLOC: u64 = 1 << 16;
/// What a pop adds to the header, and what a push takes from it.
pub(crate) const POP: u64 = ONE_ALLOC + ONE_ROOM - 1;
pub(crate) const PUSH: u64 = ONE_ROOM - 1;

const _: () = assert!(MAX_CAPACITY as u64 <= COUNT, "count and room have eight bits each");

/// The header of a bucket in which nothing happened since the last harvest.
const fn settled(count: u16, capacity: u16) -> u64 {
    count as u64 | ((capacity - count) as u64) << 8
}

/// The header of a bucket; its items follow in memory.
///
/// `repr(C)` because the restartable sequences address its fields by offset.
#[repr(C)]
pub struct Bucket {
    word: UnsafeCell<Word>,
    capacity: u16,
    base: UnsafeCell<u16>,
    items: [UnsafeCell<MaybeUninit<Item>>; 0],
}

#[derive(Clone, Copy)]
#[repr(C)]
union Word {
    header: u64,
    link: *mut Bucket,
}

// SAFETY: shared references to a bucket give no access to its cells; the raw operations below are
// unsafe and ask for ownership. `EMPTY` is never written at all.
unsafe impl Sync for Bucket {}

static EMPTY: Bucket = Bucket {
    word: never_written(Word { header: 0 }),
    capacity: 0,
    base: never_written(0),
    items: [],
};

impl Bucket {
    /// The one bucket with room for nothing, for slots that hold no bucket. It is never written.
    #[inline]
    pub fn empty() -> NonNull<Self> {
        NonNull::from_ref(&EMPTY)
    }

    /// A cache line.
    const LINE: usize = 64;
    /// Where the items lie from the header.
    pub(crate) const ITEMS: usize = core::mem::offset_of!(Self, items);

    /// The memory of a bucket with room for `capacity` items. It begins with a cache line, so that no two buckets,
    /// which may be those of two CPUs, share one.
    const fn layout(capacity: u16) -> Layout {
        let size = Self::ITEMS + capacity as usize * size_of::<Item>();
        match Layout::from_size_align(size.next_multiple_of(Self::LINE), Self::LINE) {
            Ok(layout) => layout,
            // So few pointers are far from overflowing.
            Err(_) => panic!("a bucket's layout cannot overflow"),
        }
    }

    /// Where item `index` is.
    ///
    /// # Safety
    ///
    /// `index` is below the capacity.
    #[inline]
    unsafe fn item(bucket: NonNull<Self>, index: usize) -> NonNull<Item> {
        // SAFETY: the bucket was allocated with `layout(capacity)`, so the items lie behind the
        // header in the same allocation, whose provenance `bucket` has.
        unsafe { bucket.byte_add(Self::ITEMS).cast::<Item>().add(index) }
    }

    /// Pops an item, or returns `None` if the bucket is empty.
    ///
    /// # Safety
    ///
    /// The caller owns the bucket, or it is [`Bucket::empty`].
    #[inline]
    pub unsafe fn pop(bucket: NonNull<Self>) -> Option<Item> {
        // SAFETY: the owner may read the header; `EMPTY` is never written, so anyone may.
        let header = unsafe { (*bucket.as_ref().word.get()).header };
        let count = header & COUNT;
        if count == 0 {
            return None;
        }
        // SAFETY: the first `count` items are initialised, and the bucket has at least one item, so
        // it is not `EMPTY` and the caller owns it.
        unsafe {
            let item = Self::item(bucket, count as usize - 1).read();
            (*bucket.as_ref().word.get()).header = header + POP;
            Some(item)
        }
    }

    /// Pushes an item, or returns `false` if the bucket is full.
    ///
    /// # Safety
    ///
    /// As [`pop`](Self::pop); and the caller owns the item, and gives it to the bucket if `true`.
    #[inline]
    pub unsafe fn push(bucket: NonNull<Self>, item: Item) -> bool {
        // SAFETY: as in `pop`.
        let header = unsafe { (*bucket.as_ref().word.get()).header };
        if header & ROOM == 0 {
            return false;
        }
        // SAFETY: there is room, so the bucket is not `EMPTY` and the caller owns it; the count is below the
        // capacity.
        unsafe {
            Self::item(bucket, (header & COUNT) as usize).write(item);
            (*bucket.as_ref().word.get()).header = header - PUSH;
        }
        true
    }
}

/// A bucket in a thread's hand: not in a slot, not in the depot.
///
/// It may be [`Bucket::empty`], which stands for "no bucket" ([`is_none`](Self::is_none)).
#[derive(Debug)]
#[must_use = "a dropped bucket leaks, with the items in it"]
pub struct Owned(NonNull<Bucket>);

// SAFETY: the owner of a bucket may be any thread, one at a time.
unsafe impl Send for Owned {}

/// What happened in a bucket since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) allocs: u64,
    pub(crate) frees: u64,
}

impl Owned {
    /// No bucket: the empty one, to leave in a slot.
    #[inline]
    pub fn none() -> Self {
        Self(Bucket::empty())
    }

    /// Takes ownership of a bucket.
    ///
    /// # Safety
    ///
    /// Nobody else owns it: it came out of a slot by an exchange, and if that was another CPU's, the
    /// fence has passed. Or it is [`Bucket::empty`].
    #[inline]
    pub const unsafe fn from_raw(bucket: NonNull<Bucket>) -> Self {
        Self(bucket)
    }

    /// Gives up ownership, to whoever gets the pointer.
    #[inline]
    pub const fn into_raw(self) -> NonNull<Bucket> {
        self.0
    }

    /// Whether this is no bucket at all.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.0 == Bucket::empty()
    }

    /// A new bucket from `metadata`, if there is memory for such a request. The capacity is at most
    /// [`MAX_CAPACITY`].
    pub(crate) fn new_in(
        metadata: &impl Metadata,
        capacity: u16,
        request: Request,
    ) -> Option<Self> {
        debug_assert!(capacity <= MAX_CAPACITY);
        let memory = metadata.alloc_meta_for(Bucket::layout(capacity), request)?;
        let bucket = memory.cast::<Bucket>();
        let header = Bucket {
            word: UnsafeCell::new(Word { header: settled(0, capacity) }),
            capacity,
            base: UnsafeCell::new(0),
            items: [],
        };
        // SAFETY: the memory is fresh, large enough and aligned (contract of `Metadata`).
        unsafe { bucket.write(header) };
        Some(Self(bucket))
    }

    /// Gives the bucket's memory back. It must hold no items.
    pub(crate) fn delete_in(self, metadata: &impl Metadata) {
        debug_assert!(!self.is_none() && self.count() == 0, "a bucket is deleted empty");
        let layout = Bucket::layout(self.capacity());
        // SAFETY: the bucket came from `new_in` with this capacity, and we own it. (Only a model
        // checker's cells have anything to drop.)
        unsafe {
            self.0.drop_in_place();
            metadata.free_meta(self.0.cast(), layout);
        }
    }

    fn header(&self) -> u64 {
        // SAFETY: we own the bucket, and it is not in the depot, so the word is a header.
        unsafe { (*self.0.as_ref().word.get()).header }
    }

    fn set_header(&mut self, header: u64) {
        debug_assert!(!self.is_none());
        // SAFETY: we own the bucket and it is not `EMPTY`.
        unsafe { *self.0.as_ref().word.get() = Word { header } }
    }

    /// Whether nothing happened since the last harvest: the header says no more than the count.
    fn is_settled(&self) -> bool {
        self.header() >> 16 == 0
    }

    /// The bucket has so many items, and nothing happened since the last harvest.
    fn settle(&mut self, count: u16) {
        self.set_header(settled(count, self.capacity()));
        self.set_base(count);
    }

    fn base(&self) -> u16 {
        // SAFETY: we own the bucket.
        unsafe { *self.0.as_ref().base.get() }
    }

    fn set_base(&mut self, base: u16) {
        debug_assert!(!self.is_none());
        // SAFETY: we own the bucket and it is not `EMPTY`.
        unsafe { *self.0.as_ref().base.get() = base }
    }

    /// Items in the bucket.
    pub fn count(&self) -> u16 {
        (self.header() & COUNT) as u16
    }

    /// Items that it has room for.
    pub fn capacity(&self) -> u16 {
        // SAFETY: the capacity is never written after the bucket was made.
        unsafe { self.0.as_ref() }.capacity
    }

    /// Takes an item, counted as one allocation.
    pub(crate) fn pop(&mut self) -> Option<Item> {
        // SAFETY: we own the bucket.
        unsafe { Bucket::pop(self.0) }
    }

    /// Puts an item in, counted as one free.
    ///
    /// # Safety
    ///
    /// The caller owns the item, and gives it to the bucket if this returns `true`.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) unsafe fn push(&mut self, item: Item) -> bool {
        // SAFETY: we own the bucket; the item is the caller's.
        unsafe { Bucket::push(self.0, item) }
    }

    /// The traffic since the last harvest. The count stays.
    pub(crate) fn harvest(&mut self) -> Traffic {
        if self.is_none() {
            return Traffic::default();
        }
        let count = self.count();
        let allocs = self.header() >> 16;
        // Never below zero: what went out beyond the allocations is what came in.
        let frees = allocs + u64::from(count) - u64::from(self.base());
        self.settle(count);
        Traffic { allocs, frees }
    }

    /// Takes up to `into.len()` items, each counted as one allocation, and returns how many.
    pub(crate) fn pop_many(&mut self, into: &mut [MaybeUninit<Item>]) -> usize {
        let count = usize::from(self.count());
        let taken = count.min(into.len());
        if taken == 0 {
            return 0;
        }
        for (room, index) in into.iter_mut().zip((count - taken..count).rev()) {
            // SAFETY: the first `count` items are initialised, and we own the bucket.
            room.write(unsafe { Bucket::item(self.0, index).read() });
        }
        self.set_header(self.header() + taken as u64 * POP);
        taken
    }

    /// Puts up to `items.len()` items in, each counted as one free, and returns how many.
    ///
    /// # Safety
    ///
    /// The caller owns the items, and gives up the first so many.
    pub(crate) unsafe fn push_many(&mut self, items: &[Item]) -> usize {
        let count = usize::from(self.count());
        let put = items.len().min(usize::from(self.capacity()) - count);
        if put == 0 {
            return 0;
        }
        for (&item, index) in items[..put].iter().zip(count..) {
            // SAFETY: the index is below the capacity, and we own the bucket.
            unsafe { Bucket::item(self.0, index).write(item) };
        }
        self.set_header(self.header() - put as u64 * PUSH);
        put
    }

    /// The room for a batch of items. Call [`filled`](Self::filled) afterwards.
    pub(crate) fn room(&mut self) -> &mut [MaybeUninit<Item>] {
        debug_assert!(self.count() == 0, "a bucket is filled when it is empty");
        // SAFETY: we own the bucket, and the items up to the capacity lie behind the header. With a
        // capacity of 0 the slice is empty.
        unsafe {
            let first = self.0.byte_add(Bucket::ITEMS).cast::<MaybeUninit<Item>>();
            core::slice::from_raw_parts_mut(first.as_ptr(), usize::from(self.capacity()))
        }
    }

    /// Says that the first `count` items of the room are now the bucket's. They count as neither
    /// allocations nor frees. The traffic must have been harvested.
    ///
    /// # Safety
    ///
    /// Those items are initialised, and the caller owned them.
    pub(crate) unsafe fn filled(&mut self, count: u16) {
        debug_assert!(count <= self.capacity() && self.count() == 0 && self.is_settled());
        self.settle(count);
    }

    /// Takes all items out, as a slice that lives in the bucket. They count as neither allocations
    /// nor frees. The traffic must have been harvested.
    pub(crate) fn take_all(&mut self) -> &[Item] {
        let count = self.count();
        debug_assert!(self.is_settled(), "harvest first");
        if count == 0 {
            return &[];
        }
        self.settle(0);
        // SAFETY: the first `count` items are initialised; the slice borrows the bucket, so nothing
        // overwrites them meanwhile.
        unsafe {
            let first = self.0.byte_add(Bucket::ITEMS).cast::<Item>();
            core::slice::from_raw_parts(first.as_ptr(), usize::from(count))
        }
    }
}

// A model checker's cells exist only in a model.
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::boxed::Box;

    pub(super) struct Heap;

    // SAFETY: the global allocator keeps the same promises for non-zero layouts.
    unsafe impl Metadata for Heap {
        fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
            // SAFETY: a bucket's layout is never of size zero.
            NonNull::new(unsafe { std::alloc::alloc(layout) })
        }
        unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
            // SAFETY: passed on from the caller.
            unsafe { std::alloc::dealloc(at.as_ptr(), layout) }
        }
    }

    pub(super) fn item() -> Item {
        Item::new(NonNull::from(Box::leak(Box::new(0u8))))
    }

    pub(super) fn free(item: Item) {
        // SAFETY: `item()` leaked it.
        drop(unsafe { Box::from_raw(item.as_ptr()) });
    }

    #[test]
    fn a_bucket_is_a_stack_that_counts() {
        let mut bucket = Owned::new_in(&Heap, 2, Request::NOWAIT).unwrap();
        let (a, b, c) = (item(), item(), item());
        // SAFETY: the items are ours.
        unsafe {
            assert!(bucket.push(a) && bucket.push(b) && !bucket.push(c));
        }
        assert_eq!(bucket.pop(), Some(b));
        assert_eq!(bucket.harvest(), Traffic { allocs: 1, frees: 2 });
        assert_eq!(bucket.harvest(), Traffic::default());
        assert_eq!(bucket.pop(), Some(a));
        assert_eq!(bucket.pop(), None);
        assert_eq!(bucket.harvest(), Traffic { allocs: 1, frees: 0 });
        bucket.delete_in(&Heap);
        [a, b, c].into_iter().for_each(free);
    }

    #[test]
    fn imports_and_spills_are_no_traffic() {
        let mut bucket = Owned::new_in(&Heap, 4, Request::NOWAIT).unwrap();
        let items = [item(), item(), item()];
        for (room, item) in bucket.room().iter_mut().zip(items) {
            room.write(item);
        }
        // SAFETY: three were written just now.
        unsafe { bucket.filled(3) };
        assert_eq!(bucket.pop(), Some(items[2]));
        assert_eq!(bucket.harvest(), Traffic { allocs: 1, frees: 0 });
        assert_eq!(bucket.take_all(), &items[..2]);
        assert_eq!((bucket.count(), bucket.harvest()), (0, Traffic::default()));
        bucket.delete_in(&Heap);
        items.into_iter().for_each(free);
    }

    #[test]
    fn empty_is_empty_and_full() {
        let one = item();
        // SAFETY: EMPTY takes nothing, so the item stays ours.
        unsafe {
            assert!(Bucket::pop(Bucket::empty()).is_none());
            assert!(!Bucket::push(Bucket::empty(), one));
        }
        assert!(Owned::none().is_none());
        free(one);
    }
}
