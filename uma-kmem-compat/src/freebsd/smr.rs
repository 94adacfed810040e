//! Safe memory reclamation: smr(9), "GUS".
//!
//! Readers say when they begin and end; writers unlink, and learn whether every reader who may still see what
//! they unlinked has ended. Time is a number:
//!
//! ```text
//!   wr_seq   the present; each advance makes it 2 more
//!   rd_seq   every reader that began before this has ended
//!   slots    a reader that is inside: wr_seq as it was when he began; 0: nobody
//!
//!   reader   slot := wr_seq; FENCE; look            ... ; slot := 0 (release)
//!   writer   unlink; FENCE; goal := wr_seq += 2     ... ; FENCE; all slots 0 or >= goal (acquire): free
//! ```
//!
//! Either the writer's look at the slots comes after the reader's fence, and he sees the reader; or the reader's fence
//! comes after the writer's, and the reader does not see what was unlinked. A reader who is slow between the first
//! two steps has an old number in his slot, which only makes writers wait.
//!
//! Numbers have 64 bits and do not wrap (FreeBSD's have 32, and do). A slot is a reader's own cache line while he is
//! inside; which one he has is in a list of the thread, because C leaves a section by the name of its `smr_t` alone.
//! There are as many slots as there were readers at once, and more are added, never taken away. No locks.
//!
//! It is the reader's business to be short: a writer who waits spins, and yields. In the copy of a process the readers
//! that other threads were have ended: a list of all `Smr` is for that.

use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr;

use super::SYSTEM;
use crate::common::fork::{Lock, on_copy};
use crate::common::memory::{Counted, NoMemory, Weak, boxed, owned, push};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

/// Slots are added so many at a time.
const SLOTS: usize = 32;
/// Sections of different `Smr` in which a thread can be at once.
const NESTED: usize = 8;
const FIRST: u64 = 1;

#[repr(align(128))]
#[derive(Debug)]
struct Slot(AtomicU64);

#[derive(Debug)]
struct Block {
    slots: [Slot; SLOTS],
    next: AtomicPtr<Block>,
}

impl Block {
    const fn new() -> Self {
        Self {
            slots: [const { Slot(AtomicU64::new(0)) }; SLOTS],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

#[derive(Debug)]
struct Inner {
    /// Which of all that ever were in the process.
    number: u64,
    name: String,
    wr_seq: AtomicU64,
    rd_seq: AtomicU64,
    first: Block,
}

/// Readers, and writers who wait for them (`smr_t`). Clones are the same.
///
/// ```
/// use uma_kmem_compat::freebsd::Smr;
///
/// let smr = Smr::new("table");
/// let goal = {
///     let _reading = smr.enter();
///     let goal = smr.advance();
///     assert!(!smr.poll(goal));
///     goal
/// };
/// assert!(smr.poll(goal));
/// smr.synchronize();
/// ```
#[derive(Clone, Debug)]
pub struct Smr(Counted<Inner>);

/// A section in which a thread reads. It ends when this is dropped.
#[derive(Debug)]
pub struct Section<'a> {
    smr: &'a Smr,
    /// It belongs to the thread.
    thread: PhantomData<*const ()>,
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        self.smr.leave("smr_exit");
    }
}

/// By number: a section may be forgotten, and another `Smr` lie where the one that it was of has lain.
#[derive(Clone, Copy)]
struct Inside {
    smr: u64,
    slot: *const AtomicU64,
}

const NOWHERE: Inside = Inside { smr: 0, slot: ptr::null() };

std::thread_local! {
    /// The sections that the thread is in.
    static INSIDE: Cell<[Inside; NESTED]> = const { Cell::new([NOWHERE; NESTED]) };
    /// Where the thread looks for a slot first, plus 1.
    static HINT: Cell<usize> = const { Cell::new(0) };
}

/// All there are, and some that were.
static ALL: Lock<Vec<Weak<Inner>>> = Lock::new(Vec::new());
/// Whether copies of the process are told of.
static TOLD: AtomicBool = AtomicBool::new(false);

/// In the copy of a process only the sections of the thread that it is the copy of go on.
fn others_have_ended() {
    let mine = INSIDE.get();
    // Nobody else is there, and the last owner may go here.
    for at in 0.. {
        let Some(inner) = ALL.lock().get(at).map(Weak::upgrade) else { break };
        let Some(inner) = inner else { continue };
        let mut block = Some(&inner.first);
        while let Some(here) = block {
            for Slot(slot) in &here.slots {
                if !mine.iter().any(|inside| ptr::eq(inside.slot, slot)) {
                    slot.store(0, Ordering::Relaxed);
                }
            }
            // SAFETY: blocks stay until the `Inner` is dropped.
            block = unsafe { here.next.load(Ordering::Acquire).as_ref() };
        }
    }
}

fn hint() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut hint = HINT.get();
    if hint == 0 {
        hint = NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS + 1;
        HINT.set(hint);
    }
    hint - 1
}

impl Smr {
    /// Nobody reads yet (`smr_create`).
    ///
    /// # Panics
    ///
    /// If there is no memory for it.
    pub fn new(name: &str) -> Self {
        Self::try_new(name).expect("memory for an SMR")
    }

    /// The same, or [`NoMemory`].
    pub(super) fn try_new(name: &str) -> Result<Self, NoMemory> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let seq = || AtomicU64::new(FIRST);
        let inner = Counted::new(Inner {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            name: owned(name)?,
            wr_seq: seq(),
            rd_seq: seq(),
            first: Block::new(),
        })?;
        if !TOLD.swap(true, Ordering::Relaxed) {
            on_copy(others_have_ended);
        }
        let mut all = ALL.lock();
        all.retain(Weak::is_owned);
        push(&mut all, inner.downgrade())?;
        drop(all);
        Ok(Self(inner))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Begins to read (`smr_enter`). Sections of one `Smr` do not nest: that is misuse, and ends the process.
    pub fn enter(&self) -> Section<'_> {
        self.join("smr_enter");
        Section { smr: self, thread: PhantomData }
    }

    /// Whether this thread reads (`SMR_ENTERED`).
    pub fn entered(&self) -> bool {
        INSIDE.get().iter().any(|inside| inside.smr == self.0.number)
    }

    pub(super) fn join(&self, function: &str) {
        let me = self.0.number;
        let mut all = INSIDE.get();
        if all.iter().any(|inside| inside.smr == me) {
            let name = self.name();
            SYSTEM.fatal(function, format_args!("\"{name}\": the thread is in a section already"));
        }
        let Some(place) = all.iter_mut().find(|inside| inside.smr == 0) else {
            SYSTEM.fatal(function, format_args!("the thread is in {NESTED} sections already"));
        };
        *place = Inside { smr: me, slot: self.occupy() };
        INSIDE.set(all);
    }

    pub(super) fn leave(&self, function: &str) {
        let mut all = INSIDE.get();
        let Some(place) = all.iter_mut().find(|inside| inside.smr == self.0.number) else {
            let name = self.name();
            SYSTEM.misuse(function, format_args!("\"{name}\": the thread is in no section"));
            return;
        };
        let slot = place.slot;
        *place = NOWHERE;
        INSIDE.set(all);
        // Release: what was read was read before.
        // SAFETY: `join` found it in our blocks, which stay as long as we do.
        unsafe { (*slot).store(0, Ordering::Release) };
    }

    /// Takes a free slot, and is inside.
    fn occupy(&self) -> *const AtomicU64 {
        let (mut block, start) = (&self.0.first, hint());
        loop {
            for at in 0..SLOTS {
                let Slot(slot) = &block.slots[(start + at) % SLOTS];
                if slot.load(Ordering::Relaxed) != 0 {
                    continue;
                }
                // Acquire: a reader of this time sees what writers did before it.
                let now = self.0.wr_seq.load(Ordering::Acquire);
                // AcqRel: who sees us also sees that the reader before us has ended.
                if slot.compare_exchange(0, now, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    // Against the fence in `advance`: see above.
                    fence(Ordering::SeqCst);
                    return slot;
                }
            }
            block = self.next(block);
        }
    }

    /// The block behind this one, made if need be. Where there is no memory for one it is the first, a little later: in
    /// time a reader has ended, or there is memory.
    fn next<'a>(&'a self, block: &'a Block) -> &'a Block {
        let mut next = block.next.load(Ordering::Acquire);
        if next.is_null() {
            let Ok(new) = boxed(Block::new()) else {
                std::thread::sleep(core::time::Duration::from_micros(100));
                return &self.0.first;
            };
            let (new, null) = (Box::into_raw(new), ptr::null_mut());
            match block.next.compare_exchange(null, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => next = new,
                Err(other) => {
                    // SAFETY: it is from a box, and nobody has seen it.
                    drop(unsafe { Box::from_raw(new) });
                    next = other;
                }
            }
        }
        // SAFETY: blocks stay until the `Inner` is dropped, which the caller borrows.
        unsafe { &*next }
    }

    /// Ends the present (`smr_advance`): what was unlinked before may be freed when [`poll`](Self::poll) of the
    /// result says so.
    pub fn advance(&self) -> u64 {
        fence(Ordering::SeqCst);
        self.0.wr_seq.fetch_add(2, Ordering::AcqRel) + 2
    }

    /// Whether all readers who began before `goal` have ended (`smr_poll` that does not wait). Also true for a time
    /// that has not come.
    pub fn poll(&self, goal: u64) -> bool {
        if goal <= self.0.rd_seq.load(Ordering::Acquire) {
            return true;
        }
        let now = self.0.wr_seq.load(Ordering::Acquire);
        if goal > now {
            return true;
        }
        fence(Ordering::SeqCst);
        let mut oldest = now;
        let mut block = Some(&self.0.first);
        while let Some(here) = block {
            for Slot(slot) in &here.slots {
                let began = slot.load(Ordering::Acquire);
                if began != 0 {
                    oldest = oldest.min(began);
                }
            }
            // SAFETY: as in `next`.
            block = unsafe { here.next.load(Ordering::Acquire).as_ref() };
        }
        self.0.rd_seq.fetch_max(oldest, Ordering::AcqRel);
        goal <= oldest
    }

    /// Waits until [`poll`](Self::poll) is true (`smr_wait`). A thread that reads itself would wait for ever: that is
    /// misuse, and ends the process.
    pub fn wait(&self, goal: u64) {
        let mut rounds = 0_u32;
        while !self.poll(goal) {
            if self.entered() {
                let name = self.name();
                SYSTEM.fatal(
                    "smr_wait",
                    format_args!("\"{name}\": the thread itself is in a section"),
                );
            }
            rounds += 1;
            match rounds {
                0..64 => core::hint::spin_loop(),
                64..256 => std::thread::yield_now(),
                _ => std::thread::sleep(core::time::Duration::from_micros(100)),
            }
        }
    }

    /// Waits until all readers of now have ended (`smr_synchronize`).
    pub fn synchronize(&self) {
        self.wait(self.advance());
    }

    /// The clock of writers (`smr_current`).
    pub fn current(&self) -> u64 {
        self.0.wr_seq.load(Ordering::Acquire)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut next = *self.first.next.get_mut();
        while !next.is_null() {
            // SAFETY: it is from a box in `next`; nobody reads any more, as sections borrow an `Smr`, and C
            // destroys one when nobody does.
            let mut block = unsafe { Box::from_raw(next) };
            next = *block.next.get_mut();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn a_reader_holds_back_what_was_unlinked_before_he_left_and_no_more() {
        let smr = Smr::new("test");
        let before = smr.advance();
        assert!(smr.poll(before), "nobody reads");
        let section = smr.enter();
        assert!(smr.entered() && smr.poll(before));
        let after = smr.advance();
        assert!(!smr.poll(after));
        drop(section);
        assert!(!smr.entered() && smr.poll(after));
        assert!(smr.poll(after + 1000), "a time that has not come");
    }

    /// A section that is never left is one of its own `Smr` alone, also if another comes to lie at its address.
    #[test]
    fn a_section_that_was_forgotten_is_of_no_other() {
        let lost = Smr::new("lost");
        let at = ptr::from_ref(&*lost.0);
        core::mem::forget(lost.enter());
        drop(lost);
        let others: Vec<_> = (0..100).map(|_| Smr::new("lost")).collect();
        let there = others.iter().any(|smr| ptr::from_ref(&*smr.0) == at);
        if !there {
            println!("no other came to lie there: nothing was tried");
        }
        for smr in &others {
            assert!(!smr.entered());
            drop(smr.enter());
            smr.synchronize();
        }
    }

    #[test]
    fn more_readers_than_slots() {
        let (smr, all) = (Smr::new("crowd"), Barrier::new(SLOTS * 2 + 1));
        std::thread::scope(|scope| {
            for _ in 0..SLOTS * 2 {
                scope.spawn(|| {
                    let _section = smr.enter();
                    all.wait();
                    all.wait();
                });
            }
            all.wait();
            let goal = smr.advance();
            assert!(!smr.poll(goal));
            all.wait();
            smr.wait(goal);
        });
    }
}
