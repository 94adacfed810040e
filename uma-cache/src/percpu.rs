//! Access to the running CPU's slot.

use uma_core::Item;

use crate::bucket::Owned;
use crate::{Slots, Which};

/// The three operations on the slot of the CPU that the caller runs on, and the fence that lets
/// another CPU take its buckets away.
///
/// Each operation is atomic with regard to the others on the same slot: not interleaved with one of
/// another thread, a signal handler or an interrupt handler on that CPU. Where the operation cannot be
/// done (the CPU has no slot, or its slot is busy) it declines, and the cache takes a slower way.
///
/// [`CpuLocks`](crate::CpuLocks) and [`Pinned`](crate::Pinned) are two implementations; each is a
/// few lines over [`Slot`](crate::Slot).
///
/// # Safety
///
/// An implementation promises that
///
/// - `pop`, `push` and `swap` act on one slot of `slots` as [`Slot::pop`](crate::Slot::pop),
///   [`Slot::push`](crate::Slot::push) and [`Slot::swap`](crate::Slot::swap) do, and have that slot
///   to themselves while they do;
/// - once [`fence`](Self::fence) has returned `true`, every operation on that CPU's slot which had loaded a
///   bucket pointer before the call is over and visible to the caller;
/// - no method comes back into a zone.
///
/// None should unwind, either: buckets that a thread has in hand would leak, with the items in them.
pub unsafe trait PerCpu {
    /// How many CPUs there can be. Always the same. Numbers of CPUs are below it.
    fn cpus(&self) -> usize;

    /// Takes an item from the `alloc` bucket, if it has one.
    fn pop(&self, slots: Slots<'_>) -> Option<Item>;

    /// Puts an item into the `alloc` bucket, or else the `free` bucket. Returns whether one had room.
    ///
    /// # Safety
    ///
    /// The caller owns the item, and gives it up if this returns `true`.
    unsafe fn push(&self, slots: Slots<'_>, item: Item) -> bool;

    /// A word with which [`pop_inline`](Self::pop_inline) and [`push_inline`](Self::push_inline) find their
    /// way without looking at this value, or any other but 0 if they look at it; 0 if there is no way that
    /// is a few instructions, which belong where they are used. Always the same.
    fn short(&self) -> isize {
        1
    }

    /// [`pop`](Self::pop) by the short way.
    ///
    /// # Safety
    ///
    /// `short` came from this value or a copy of it.
    #[inline(always)]
    unsafe fn pop_inline(&self, short: isize, slots: Slots<'_>) -> Option<Item> {
        let _ = short;
        self.pop(slots)
    }

    /// [`push`](Self::push) by the short way.
    ///
    /// # Safety
    ///
    /// As [`push`](Self::push); and `short` came from this value or a copy of it.
    #[inline(always)]
    unsafe fn push_inline(&self, short: isize, slots: Slots<'_>, item: Item) -> bool {
        let _ = short;
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.push(slots, item) }
    }

    /// Exchanges one of the buckets.
    ///
    /// # Errors
    ///
    /// The new bucket, if it was declined.
    fn swap(&self, slots: Slots<'_>, which: Which, new: Owned) -> Result<Owned, Owned>;

    /// Waits until nothing on `cpu` still uses a bucket that was in its slot before. Does not wait
    /// for anything longer than one operation.
    ///
    /// Returns `false` if that cannot be told. What was taken from the CPU goes back then, and stays in its slot
    /// until somebody asks again.
    #[must_use = "what was taken may be in use still"]
    fn fence(&self, slots: Slots<'_>, cpu: usize) -> bool;

    /// [`fence`](Self::fence) for the CPUs of a range, where that can be had for less than one by
    /// one. If it returns `false`, they are asked for one by one.
    #[must_use = "what was taken may be in use still"]
    fn fence_range(&self, slots: Slots<'_>, mut cpus: core::ops::Range<usize>) -> bool {
        cpus.all(|cpu| self.fence(slots, cpu))
    }

    /// Sees to it that no operation on any slot is half done until [`postfork`](Self::postfork): a copy of
    /// the process is about to be made. Without locks there is nothing to do: what is half done by a
    /// sequence is not visible.
    fn prefork(&self, slots: Slots<'_>) {
        let _ = slots;
    }

    /// Lets operations go on, in the process or in its copy.
    ///
    /// # Safety
    ///
    /// [`prefork`](Self::prefork) was called before with these slots.
    unsafe fn postfork(&self, slots: Slots<'_>) {
        let _ = slots;
    }

    /// Passes a moment while another thread does what must be waited for, which does not take long.
    fn relax(&self) {
        core::hint::spin_loop();
    }

    /// What this is called in statistics: `locks`, `pinned`, ...
    fn mode(&self) -> &'static str;
}

// SAFETY: forwards to an implementation that keeps the contract.
unsafe impl<C: PerCpu + ?Sized> PerCpu for &C {
    fn cpus(&self) -> usize {
        (**self).cpus()
    }

    #[inline]
    fn pop(&self, slots: Slots<'_>) -> Option<Item> {
        (**self).pop(slots)
    }

    #[inline]
    unsafe fn push(&self, slots: Slots<'_>, item: Item) -> bool {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).push(slots, item) }
    }

    fn short(&self) -> isize {
        (**self).short()
    }

    #[inline(always)]
    unsafe fn pop_inline(&self, short: isize, slots: Slots<'_>) -> Option<Item> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).pop_inline(short, slots) }
    }

    #[inline(always)]
    unsafe fn push_inline(&self, short: isize, slots: Slots<'_>, item: Item) -> bool {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).push_inline(short, slots, item) }
    }

    fn swap(&self, slots: Slots<'_>, which: Which, new: Owned) -> Result<Owned, Owned> {
        (**self).swap(slots, which, new)
    }

    fn fence(&self, slots: Slots<'_>, cpu: usize) -> bool {
        (**self).fence(slots, cpu)
    }

    fn fence_range(&self, slots: Slots<'_>, cpus: core::ops::Range<usize>) -> bool {
        (**self).fence_range(slots, cpus)
    }

    fn prefork(&self, slots: Slots<'_>) {
        (**self).prefork(slots);
    }

    unsafe fn postfork(&self, slots: Slots<'_>) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).postfork(slots) }
    }

    fn relax(&self) {
        (**self).relax();
    }

    fn mode(&self) -> &'static str {
        (**self).mode()
    }
}
