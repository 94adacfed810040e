//! Slots reached by restartable sequences: no lock, no atomic operation, no call on a hit.
//!
//! A *restartable sequence* (Linux, rseq(2)) is a run of instructions that the kernel restarts from
//! its beginning if the thread is preempted, moved to another CPU, or gets a signal before the last
//! instruction, the *commit*, is done. So between reading the CPU number and the commit nothing else
//! ran on that CPU, and one plain store makes the whole operation happen:
//!
//! ```text
//!   pop:   cpu -> slot.alloc -> header -> count = 0 ? miss : item = items[count-1]
//!                                                     commit: header + 0x1_0100 - 1
//!   push:  cpu -> slot.alloc -> header -> room = 0 ? try slot.free, else miss
//!                                         items[count] = item   (above the top: not yet in)
//!                                                     commit: header + 1 - 0x100
//!   swap:  cpu -> slot                                commit: xchg slot.which, new
//! ```
//!
//! # Taking another CPU's bucket
//!
//! `swap` is an atomic exchange, so another CPU can exchange the pointer with the empty bucket. But a
//! sequence on the slot's own CPU may have loaded the old pointer and not yet committed. The fence is
//! `membarrier(PRIVATE_EXPEDITED_RSEQ)`: it interrupts the CPU and restarts whatever sequence of this
//! process was under way there. After it, no sequence holds the old pointer.
//!
//! If membarrier is refused later on, the thread visits the CPU instead. If it may not run there either, the bucket
//! goes back where it was, which is said once on the standard error stream. Then only threads on that CPU have what
//! lies there; others go on without it, and a caller that waits at a limit may wait until more is freed than
//! fits.
//!
//! # What it needs
//!
//! glibc 2.35 or later registers an rseq area for every thread; we find it by `__rseq_offset`, looked
//! up at run time so that older libraries still link. A thread that glibc started without registering
//! it has a CPU number of -1, which is not below the count of slots, so it takes the slow way. The
//! kernel must allow `membarrier`. Where any of this is missing, use [`CpuLocks`](crate::CpuLocks).
//!
//! What runs in this memory without being a thread of the C library **must not use zones**: a child of
//! `vfork` or of `clone(CLONE_VM)` sees the rseq area of the thread that made it, which the kernel does
//! not keep up to date for it.
//!
//! The kernel keeps a pointer to the last sequence's descriptor in each thread's area, so code with
//! such sequences **must not be unloaded**: a library that contains this crate stays loaded.

mod area;
mod fence;
#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
mod sequence;

use core::num::NonZeroIsize;
use core::ptr::NonNull;

use uma_core::Item;

use crate::bucket::Owned;
use crate::{PerCpu, Slots, Which};

/// [`PerCpu`] by restartable sequences.
#[derive(Clone, Copy, Debug)]
pub struct Rseq {
    /// Where a thread's rseq area lies, from its thread pointer. Never 0: there the thread's own block is.
    offset: NonZeroIsize,
    cpus: usize,
}

impl Rseq {
    /// Access to the slots of `cpus` CPUs, if this thread's C library and kernel have what it takes.
    /// Registers the process with `membarrier`.
    pub fn available(cpus: usize) -> Option<Self> {
        Self::known(cpus).filter(|_| fence::register())
    }

    /// The same in a process where [`available`](Self::available) has found them: no system call is made.
    /// (Where it was not asked, the first fence registers the process.)
    pub fn known(cpus: usize) -> Option<Self> {
        let offset = area::offset()?;
        // SAFETY: `offset` leads to the area of every thread, also this one.
        let cpu = unsafe { sequence::cpu(offset.get()) };
        (cpu < cpus).then_some(Self { offset, cpus })
    }

    /// [`PerCpu::pop_inline`], without a value.
    ///
    /// # Safety
    ///
    /// `short` is what [`PerCpu::short`] of some `Rseq` said.
    #[inline(always)]
    pub unsafe fn pop_by(short: isize, slots: Slots<'_>) -> Option<Item> {
        // SAFETY: it is the offset that `available` found; the slots and their buckets are alive.
        unsafe { sequence::pop(short, slots) }
    }

    /// [`PerCpu::push_inline`], without a value.
    ///
    /// # Safety
    ///
    /// As [`PerCpu::push`]; and `short` is what [`PerCpu::short`] of some `Rseq` said.
    #[inline(always)]
    pub unsafe fn push_by(short: isize, slots: Slots<'_>, item: Item) -> bool {
        // SAFETY: as in `pop_by`; the item is the caller's to give.
        unsafe { sequence::push(short, slots, item) }
    }
}

// SAFETY: the kernel restarts a sequence that was interrupted before its commit, so each operation
// has its slot to itself; the CPU number is checked against the count of slots within the sequence.
// The fence restarts sequences that were under way, as the module documentation says.
unsafe impl PerCpu for Rseq {
    fn cpus(&self) -> usize {
        self.cpus
    }

    #[inline(always)]
    fn pop(&self, slots: Slots<'_>) -> Option<Item> {
        // SAFETY: `available` found the area; the slots and their buckets are alive.
        unsafe { sequence::pop(self.offset.get(), slots) }
    }

    #[inline(always)]
    unsafe fn push(&self, slots: Slots<'_>, item: Item) -> bool {
        // SAFETY: as in `pop`; the item is the caller's to give.
        unsafe { sequence::push(self.offset.get(), slots, item) }
    }

    /// The offset.
    fn short(&self) -> isize {
        self.offset.get()
    }

    #[inline(always)]
    unsafe fn pop_inline(&self, short: isize, slots: Slots<'_>) -> Option<Item> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { Self::pop_by(short, slots) }
    }

    #[inline(always)]
    unsafe fn push_inline(&self, short: isize, slots: Slots<'_>, item: Item) -> bool {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { Self::push_by(short, slots, item) }
    }

    fn swap(&self, slots: Slots<'_>, which: Which, new: Owned) -> Result<Owned, Owned> {
        let new = new.into_raw();
        // SAFETY: as in `pop`; the new bucket is ours to give.
        let old = unsafe { sequence::swap(self.offset.get(), slots, which, new) };
        match NonNull::new(old) {
            // SAFETY: it was taken out of this CPU's slot by the exchange, and no sequence on this
            // CPU was under way, so nobody else uses it.
            Some(old) => Ok(unsafe { Owned::from_raw(old) }),
            // SAFETY: it was not exchanged, so it is still ours.
            None => Err(unsafe { Owned::from_raw(new) }),
        }
    }

    fn fence(&self, _: Slots<'_>, cpu: usize) -> bool {
        fence::cpu(cpu)
    }

    fn fence_range(&self, _: Slots<'_>, cpus: core::ops::Range<usize>) -> bool {
        if cpus.len() == 1 { fence::cpu(cpus.start) } else { fence::all() }
    }

    fn mode(&self) -> &'static str {
        "rseq"
    }
}
