//! Per-CPU slots for kernels, which can forbid preemption for a moment.

use uma_core::Item;

use crate::bucket::Owned;
use crate::{PerCpu, Slots, Which};

/// What a kernel supplies so that slots need no lock: running for a moment undisturbed on one CPU.
///
/// # Safety
///
/// An implementation promises that
///
/// - while `critical` of [`pinned`](Self::pinned) runs, no other such closure runs for the same CPU
///   number: the thread is neither preempted nor moved, and interrupt handlers on this CPU that use
///   zones are held off (or use none);
/// - [`quiesce`](Self::quiesce) returns only when every closure that was running for that CPU number
///   at the call has ended, and what it wrote is visible to the caller. (An inter-processor interrupt
///   with full barriers does both.)
pub unsafe trait Pin {
    /// How many CPUs there can be. Always the same.
    fn cpus(&self) -> usize;

    /// Runs `critical` with the number of the CPU it runs on. It is short and does not unwind.
    fn pinned<R>(&self, critical: impl FnOnce(usize) -> R) -> R;

    /// Waits until `cpu` has left what [`pinned`](Self::pinned) closure it may be in.
    fn quiesce(&self, cpu: usize);
}

/// [`PerCpu`] by the critical sections of a kernel: no lock, no atomic operation on a hit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pinned<K>(K);

impl<K> Pinned<K> {
    /// Slots by the kernel's critical sections.
    pub const fn new(kernel: K) -> Self {
        Self(kernel)
    }
}

// SAFETY: every operation runs pinned, so it has the slot of that CPU to itself; `quiesce` is the
// fence (both by the contract of `Pin`).
unsafe impl<K: Pin> PerCpu for Pinned<K> {
    fn cpus(&self) -> usize {
        self.0.cpus()
    }

    #[inline]
    fn pop(&self, slots: Slots<'_>) -> Option<Item> {
        // SAFETY: pinned, so no other operation on this CPU's slot runs.
        self.0.pinned(|cpu| slots.get(cpu).and_then(|slot| unsafe { slot.pop() }))
    }

    #[inline]
    unsafe fn push(&self, slots: Slots<'_>, item: Item) -> bool {
        // SAFETY: pinned, so no other operation on this CPU's slot runs; the item is the caller's.
        self.0.pinned(|cpu| slots.get(cpu).is_some_and(|slot| unsafe { slot.push(item) }))
    }

    fn swap(&self, slots: Slots<'_>, which: Which, new: Owned) -> Result<Owned, Owned> {
        self.0.pinned(|cpu| match slots.get(cpu) {
            // SAFETY: pinned, so no other operation on this CPU's slot runs.
            Some(slot) => Ok(unsafe { slot.swap(which, new) }),
            None => Err(new),
        })
    }

    fn fence(&self, _: Slots<'_>, cpu: usize) -> bool {
        self.0.quiesce(cpu);
        true
    }

    fn mode(&self) -> &'static str {
        "pinned"
    }
}
