//! What a hit touches, once more, where it is quickest to reach.

use core::mem::MaybeUninit;
use core::ptr;

use lock_api::RawMutex;
use uma_core::{Item, ItemSource, Metadata};

use crate::sync::{AtomicPtr, AtomicUsize, Ordering, UnsafeCell};
use crate::{BucketCache, PerCpu, Slot, Slots};

/// A copy of the way to a cache's slots, for whoever holds the cache by a pointer and would have to follow
/// it on every hit.
///
/// It is empty to begin with, and then every [`pop`](Self::pop) and [`push`](Self::push) misses; whoever
/// takes the long way after that calls [`publish`](Self::publish).
///
/// ```text
///   way    what PerCpu::short says | count of slots      0: misses
///   slots  the first of them
///   C
/// ```
///
/// Halves of one word, because what a pair of hits takes is its loads and stores, eleven and five of them: with the
/// two in words of their own it took an eighth longer.
// What a hit touches is on one cache line.
#[repr(C, align(32))]
pub struct Front<C> {
    /// A [`way`] of the two; 0 until published, and stored last.
    way: AtomicUsize,
    slots: AtomicPtr<Slot>,
    percpu: UnsafeCell<MaybeUninit<C>>,
}

/// Half of the bits of a word.
const HALF: u32 = usize::BITS / 2;

/// What [`PerCpu::short`] says, in the upper half, and a count of slots in the lower; 0 if that does not fit, or
/// there is no short way or no slot.
const fn way(short: isize, count: usize) -> usize {
    let fits = short << HALF >> HALF == short && count >> HALF == 0;
    if fits && short != 0 && count != 0 { (short << HALF).cast_unsigned() | count } else { 0 }
}

// SAFETY: `percpu` is written once, by the one thread that won the exchange of `slots`, before `way` is
// stored with release; it is read only after a load of `way` with acquire found it stored.
unsafe impl<C: Send + Sync> Sync for Front<C> {}
// SAFETY: it owns nothing that belongs to a thread.
unsafe impl<C: Send> Send for Front<C> {}

impl<C> Front<C> {
    /// One that always misses.
    #[expect(clippy::new_without_default, reason = "fronts are parts of statics")]
    pub const fn new() -> Self {
        Self {
            way: AtomicUsize::new(0),
            slots: AtomicPtr::new(ptr::null_mut()),
            percpu: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }
}

impl<C: PerCpu + Copy> Front<C> {
    /// Leads to the slots of `cache` from now on, if it has any yet.
    ///
    /// # Safety
    ///
    /// It is always the same cache, and `pop` and `push` are not called any more when it is dropped.
    pub unsafe fn publish<S, L, M>(&self, cache: &BucketCache<S, C, L, M>)
    where
        S: ItemSource,
        L: RawMutex,
        M: Metadata,
    {
        self.lead(&cache.percpu, cache.slots());
    }

    /// Leads where `other` does from now on, if that leads anywhere yet.
    ///
    /// # Safety
    ///
    /// As [`publish`](Self::publish), for the cache of `other`.
    pub unsafe fn follow(&self, other: &Self) {
        if let Some((percpu, _, slots)) = other.way() {
            self.lead(percpu, slots);
        }
    }

    fn lead(&self, percpu: &C, slots: Slots<'_>) {
        let way = way(percpu.short(), slots.count());
        if way == 0 || !self.slots.load(Ordering::Relaxed).is_null() {
            return;
        }
        let first = slots.as_ptr().cast_mut();
        let null = ptr::null_mut();
        if self.slots.compare_exchange(null, first, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // SAFETY: only the winner of the exchange gets here, and nobody reads before `way` is
            // stored.
            unsafe { *self.percpu.get() = MaybeUninit::new(*percpu) };
            self.way.store(way, Ordering::Release);
        }
    }

    /// The way to the slots, if it is known.
    #[inline(always)]
    fn way(&self) -> Option<(&C, isize, Slots<'_>)> {
        let way = self.way.load(Ordering::Acquire);
        if way == 0 {
            return None;
        }
        let (short, count) = (way.cast_signed() >> HALF, way & (usize::MAX >> HALF));
        // SAFETY: `way` was stored after the others, which do not change any more; the slots are alive
        // (see `publish`).
        unsafe {
            let percpu = (*self.percpu.get()).assume_init_ref();
            Some((percpu, short, Slots::new(self.slots.load(Ordering::Relaxed), count)))
        }
    }

    /// Takes an item of the running CPU's `alloc` bucket, by [`PerCpu::pop_inline`].
    #[inline(always)]
    pub fn pop(&self) -> Option<Item> {
        let (percpu, short, slots) = self.way()?;
        // SAFETY: `publish` stored what `percpu` said.
        unsafe { percpu.pop_inline(short, slots) }
    }

    /// Puts an item into one of the running CPU's buckets, by [`PerCpu::push_inline`]. Returns whether there
    /// was room.
    ///
    /// # Safety
    ///
    /// The item came from the cache, and the caller gives it up if this returns `true`.
    #[inline(always)]
    pub unsafe fn push(&self, item: Item) -> bool {
        match self.way() {
            // SAFETY: as in `pop`; the rest is passed on from the caller.
            Some((percpu, short, slots)) => unsafe { percpu.push_inline(short, slots, item) },
            None => false,
        }
    }
}
