//! Slots: one CPU's pair of buckets.
//!
//! ```text
//!            0         8         16        24              64
//!           +---------+---------+---------+---------------+
//!   slot    | *alloc  | *free   |  lock   |  (one cache line)
//!           +---------+---------+---------+---------------+
//! ```
//!
//! The slots of a zone are an array, one per CPU, each on a cache line of its own. The pointers are
//! atomic because another CPU may exchange them with the empty bucket; what they point to is touched
//! by the slot's own CPU alone.

use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr::NonNull;

use uma_core::Item;

use crate::bucket::{Bucket, Owned};
use crate::sync::{AtomicBool, AtomicPtr, Ordering};

/// Which of a slot's two buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that allocations pop from, and frees push to first.
    Alloc,
    /// The one that frees push to when the other is full.
    Free,
}

/// One CPU's pair of buckets. Never null: where there is no bucket, [`Bucket::empty`] stands.
#[repr(C, align(64))]
pub struct Slot {
    pub(crate) alloc: AtomicPtr<Bucket>,
    pub(crate) free: AtomicPtr<Bucket>,
    lock: AtomicBool,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self {
            alloc: AtomicPtr::new(Bucket::empty().as_ptr()),
            free: AtomicPtr::new(Bucket::empty().as_ptr()),
            lock: AtomicBool::new(false),
        }
    }

    fn pointer(&self, which: Which) -> &AtomicPtr<Bucket> {
        match which {
            Which::Alloc => &self.alloc,
            Which::Free => &self.free,
        }
    }

    /// What a slot points to, for the CPU that owns it.
    #[inline]
    fn bucket(&self, which: Which) -> NonNull<Bucket> {
        // Acquire: the bucket may have been put in by another CPU, see `put_back`.
        let bucket = self.pointer(which).load(Ordering::Acquire);
        // SAFETY: slots are never null (see the type).
        unsafe { NonNull::new_unchecked(bucket) }
    }

    /// Pops an item from the `alloc` bucket.
    ///
    /// # Safety
    ///
    /// The caller has the slot to itself against every other `pop` and `push` on it until this
    /// returns, as [`PerCpu`](crate::PerCpu) demands.
    #[inline]
    pub unsafe fn pop(&self) -> Option<Item> {
        // SAFETY: an installed bucket belongs to the slot's CPU, which the caller stands for.
        unsafe { Bucket::pop(self.bucket(Which::Alloc)) }
    }

    /// Pushes an item to the `alloc` bucket or, if that is full, to the `free` bucket. Returns
    /// whether there was room.
    ///
    /// # Safety
    ///
    /// As [`pop`](Self::pop); and the caller owns the item, and gives it up if `true`.
    #[inline]
    pub unsafe fn push(&self, item: Item) -> bool {
        // SAFETY: as in `pop`.
        unsafe {
            Bucket::push(self.bucket(Which::Alloc), item)
                || Bucket::push(self.bucket(Which::Free), item)
        }
    }

    /// Exchanges a bucket for the one that is installed.
    ///
    /// # Safety
    ///
    /// As [`pop`](Self::pop).
    #[inline]
    pub unsafe fn swap(&self, which: Which, new: Owned) -> Owned {
        let old = self.exchange(which, new);
        // SAFETY: the exchange took it out of the slot, and no `pop` or `push` is under way (the
        // caller has the slot to itself), so nobody else uses it.
        unsafe { Owned::from_raw(old) }
    }

    /// Takes a bucket's pointer out, from any CPU. The bucket is the caller's only after the fence.
    pub(crate) fn detach(&self, which: Which) -> NonNull<Bucket> {
        self.exchange(which, Owned::none())
    }

    fn exchange(&self, which: Which, new: Owned) -> NonNull<Bucket> {
        // AcqRel on the bucket's contents; SeqCst because the waiting protocol orders exchanges
        // against the count of sleepers.
        let old = self.pointer(which).swap(new.into_raw().as_ptr(), Ordering::SeqCst);
        // SAFETY: slots are never null (see the type).
        unsafe { NonNull::new_unchecked(old) }
    }

    /// Puts a bucket that was detached back, from any CPU, if no other has taken its place.
    pub(crate) fn put_back(&self, which: Which, bucket: Owned) -> Result<(), Owned> {
        let bucket = bucket.into_raw();
        let empty = Bucket::empty().as_ptr();
        let pointer = self.pointer(which);
        match pointer.compare_exchange(empty, bucket.as_ptr(), Ordering::SeqCst, Ordering::Relaxed)
        {
            Ok(_) => Ok(()),
            // SAFETY: the slot did not take it, so it is still ours.
            Err(_) => Err(unsafe { Owned::from_raw(bucket) }),
        }
    }

    /// Gives a bucket back that was [detached](Self::detach) but not waited for, if no other has taken its place;
    /// returns whether it did. If not, the bucket is the caller's: who put the other there had the slot to himself,
    /// so nothing that was under way before is still.
    ///
    /// # Safety
    ///
    /// Since the bucket was detached from here, nobody has put one in but by [`swap`](Self::swap).
    pub(crate) unsafe fn restore(&self, which: Which, bucket: NonNull<Bucket>) -> bool {
        let empty = Bucket::empty().as_ptr();
        // Acquire on failure: what was under way came before the other bucket.
        self.pointer(which)
            .compare_exchange(empty, bucket.as_ptr(), Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Takes the slot's lock, if it is free.
    #[inline]
    pub(crate) fn try_lock(&self) -> bool {
        // Loom would let an exchange that failed come after the unlock, and the lock stay taken.
        #[cfg(loom)]
        return self
            .lock
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        #[cfg(not(loom))]
        !self.lock.swap(true, Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn unlock(&self) {
        self.lock.store(false, Ordering::Release);
    }
}

/// The slots of one zone: none before its first use.
#[derive(Clone, Copy)]
pub struct Slots<'a> {
    first: *const Slot,
    count: usize,
    zone: PhantomData<&'a Slot>,
}

impl<'a> Slots<'a> {
    /// # Safety
    ///
    /// `first` points to `count` slots that live for `'a`; or `count` is 0.
    #[inline]
    pub(crate) const unsafe fn new(first: *const Slot, count: usize) -> Self {
        Self { first, count, zone: PhantomData }
    }

    /// How many there are: one per CPU, or none.
    #[inline]
    pub const fn count(self) -> usize {
        self.count
    }

    /// Where the first of them is.
    #[inline]
    pub(crate) const fn as_ptr(self) -> *const Slot {
        self.first
    }

    /// The slot of a CPU, or `None` if it has none (yet).
    #[inline]
    pub const fn get(self, cpu: usize) -> Option<&'a Slot> {
        if cpu >= self.count {
            return None;
        }
        // SAFETY: `cpu` is below the count of slots that `first` points to (see `new`).
        Some(unsafe { &*self.first.add(cpu) })
    }

    /// The memory of `count` slots, if it can be expressed.
    pub(crate) fn layout(count: usize) -> Option<Layout> {
        Layout::array::<Slot>(count).ok()
    }
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Slot>() == 64, "a slot fills one cache line");
