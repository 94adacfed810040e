//! Per-CPU slots guarded by a lock each: works everywhere.

use uma_core::Item;

use crate::bucket::Owned;
use crate::{PerCpu, Slot, Slots, Which};

/// Says which CPU the caller runs on, roughly.
///
/// The answer may be out of date by the time it is used, or wrong: then two threads meet at one slot
/// and one of them takes a slower way. Hash thread identities if there is nothing better. No method
/// should unwind.
pub trait CurrentCpu {
    /// How many CPUs there can be. Always the same.
    fn cpus(&self) -> usize;

    /// The CPU that the caller runs on, or any other number.
    fn current(&self) -> usize;

    /// Passes the time while another thread holds a slot's lock. Give the CPU away if you can: the
    /// holder may be waiting for it.
    fn relax(&self) {
        core::hint::spin_loop();
    }
}

/// [`PerCpu`] by one lock per slot, which is only ever tried: whoever finds it taken goes the slow
/// way. The portable implementation.
///
/// A hit costs two atomic exchanges on the CPU's own cache line.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuLocks<K>(K);

impl<K> CpuLocks<K> {
    /// Slots by the CPU numbers that `current` gives.
    pub const fn new(current: K) -> Self {
        Self(current)
    }
}

/// A slot whose lock is held.
struct Held<'a>(&'a Slot);

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.unlock();
    }
}

impl<K: CurrentCpu> CpuLocks<K> {
    #[inline]
    fn hold<'a>(&self, slots: Slots<'a>) -> Option<Held<'a>> {
        let slot = slots.get(self.0.current())?;
        // Not `then_some`: that would make a `Held`, and drop it, without the lock.
        slot.try_lock().then(|| Held(slot))
    }
}

// SAFETY: every operation holds the slot's lock, so it has the slot to itself. The fence takes that
// lock once: whatever was under way when it was called has been unlocked (release) before it locks
// (acquire).
unsafe impl<K: CurrentCpu> PerCpu for CpuLocks<K> {
    fn cpus(&self) -> usize {
        self.0.cpus()
    }

    #[inline]
    fn pop(&self, slots: Slots<'_>) -> Option<Item> {
        let held = self.hold(slots)?;
        // SAFETY: the lock is held.
        unsafe { held.0.pop() }
    }

    #[inline]
    unsafe fn push(&self, slots: Slots<'_>, item: Item) -> bool {
        match self.hold(slots) {
            // SAFETY: the lock is held; the item is the caller's to give.
            Some(held) => unsafe { held.0.push(item) },
            None => false,
        }
    }

    fn swap(&self, slots: Slots<'_>, which: Which, new: Owned) -> Result<Owned, Owned> {
        match self.hold(slots) {
            // SAFETY: the lock is held.
            Some(held) => Ok(unsafe { held.0.swap(which, new) }),
            None => Err(new),
        }
    }

    fn fence(&self, slots: Slots<'_>, cpu: usize) -> bool {
        if let Some(slot) = slots.get(cpu) {
            while !slot.try_lock() {
                self.0.relax();
            }
            slot.unlock();
        }
        true
    }

    fn prefork(&self, slots: Slots<'_>) {
        for slot in (0..slots.count()).filter_map(|cpu| slots.get(cpu)) {
            while !slot.try_lock() {
                self.0.relax();
            }
        }
    }

    unsafe fn postfork(&self, slots: Slots<'_>) {
        (0..slots.count()).filter_map(|cpu| slots.get(cpu)).for_each(Slot::unlock);
    }

    fn relax(&self) {
        self.0.relax();
    }

    fn mode(&self) -> &'static str {
        "locks"
    }
}
