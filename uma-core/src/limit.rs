//! At most N items, and callers that wait for one.
//!
//! One word holds the count of items and the count of sleepers, so that one atomic operation decides:
//!
//! ```text
//!    63            44 43                                   0
//!   +----------------+--------------------------------------+
//!   |  sleepers (20) |  items out of this layer (44)        |
//!   +----------------+--------------------------------------+
//! ```
//!
//! # Protocol
//!
//! - *Charge*: with no sleepers and room, add to the items. Otherwise the caller fails, or enlists.
//! - *Enlist*: under the queue's lock, try to charge once more, else count a sleeper and join the end
//!   of the queue. The word changes under the lock, so a refund either comes before (and the charge
//!   sees the room) or after (and the refund sees the sleeper).
//! - *Refund*: subtract from the items; if there are sleepers, *hand out*: under the lock, while there
//!   is room, move one sleeper to one item in a single step, and wake its owner after the lock.
//!
//! A woken caller already owns its item's place, so nobody can overtake it: service is strictly in
//! order of arrival. While anybody sleeps [`ItemSource::wanted`] is true and caches above pass frees
//! on. The sleeper's `flush` runs after it enlisted; a free that went into a cache before the flush is
//! found by the flush, one that comes later sees `wanted`.
//!
//! Lock order: the queue's lock is a leaf. The source below, `flush` and wake-ups run without it.

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::num::NonZeroU64;

use lock_api::RawMutex;

use crate::queue::{Node, Queue};
use crate::sync::{AtomicU64, Ordering, const_unless_modelled};
use crate::{AllocError, Item, ItemSource, Process, Reclaim, Request, Sleep, Stats};

const ITEMS: u64 = (1 << 44) - 1;
const ONE_SLEEPER: u64 = 1 << 44;

const fn items(word: u64) -> u64 {
    word & ITEMS
}

const fn sleepers(word: u64) -> u64 {
    word >> 44
}

/// Lets at most a given number of items out of `S` at once. Callers beyond that fail, or wait for
/// their turn, by `Z`.
///
/// It counts every item that is out, also those in caches above it. A cache above gives them back
/// before anybody fails or sleeps (see [`ItemSource::alloc_or_flush`]), so the limit is exact in both
/// directions: never more than N, and N can always be in use.
///
/// That is so with one cache above the limit. If several stacks share a limit by reference and have
/// caches of their own, each flushes only its own, and what the others hold is out of its reach.
///
/// An item that is freed twice counts as two that came back, although the source below refuses the second:
/// after such a misuse one more than the limit may be out.
///
/// Without a limit it only counts, and the count costs one atomic addition per batch.
pub struct Limited<S, L: RawMutex, Z: Sleep> {
    source: S,
    word: AtomicU64,
    max: AtomicU64,
    sleeps: AtomicU64,
    queue: Queue<L, Z::Waker>,
    sleep: Z,
}

/// Most items that the word can count: 2^44 - 1. No limit means this one.
const UNLIMITED: u64 = ITEMS;

impl<S, L: RawMutex, Z: Sleep> Limited<S, L, Z> {
    const_unless_modelled! {
        /// Puts a limit of `max` items, or none, around `source`.
        pub const fn new(source: S, max: Option<NonZeroU64>, sleep: Z) -> Self {
            Self {
                source,
                word: AtomicU64::new(0),
                max: AtomicU64::new(Self::bound(max)),
                sleeps: AtomicU64::new(0),
                queue: Queue::new(),
                sleep,
            }
        }
    }

    const fn bound(max: Option<NonZeroU64>) -> u64 {
        match max {
            Some(max) if max.get() < UNLIMITED => max.get(),
            _ => UNLIMITED,
        }
    }

    /// The source below.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// The limit in items, if there is one (`uma_zone_get_max`).
    pub fn max(&self) -> Option<NonZeroU64> {
        let max = self.max.load(Ordering::Relaxed);
        if max == UNLIMITED { None } else { NonZeroU64::new(max) }
    }

    /// Changes the limit (`uma_zone_set_max`), at any time. Raising it serves waiting callers at
    /// once. Lowering it below the number of items that are out takes none away: nothing more is
    /// handed out until enough came back.
    pub fn set_max(&self, max: Option<NonZeroU64>) {
        self.max.store(Self::bound(max), Ordering::SeqCst);
        self.hand_out();
    }

    /// Items that are out, in use or in caches above.
    pub fn items(&self) -> u64 {
        items(self.word.load(Ordering::Relaxed))
    }

    /// Callers asleep at the limit just now (`uma_zone_exhausted` asks whether there are any).
    pub fn sleepers(&self) -> u64 {
        sleepers(self.word.load(Ordering::Relaxed))
    }

    /// Takes room for up to `wanted` items and returns for how many.
    fn charge(&self, wanted: u64) -> u64 {
        let mut word = self.word.load(Ordering::SeqCst);
        loop {
            let room = self.max.load(Ordering::SeqCst).saturating_sub(items(word));
            let take = if sleepers(word) == 0 { wanted.min(room) } else { 0 };
            if take == 0 {
                return 0;
            }
            match self.word.compare_exchange_weak(
                word,
                word + take,
                Ordering::SeqCst,
                Ordering::SeqCst,
            ) {
                Ok(_) => return take,
                Err(now) => word = now,
            }
        }
    }

    /// Gives room back, and serves those who wait for it.
    fn refund(&self, count: u64) {
        // Never below zero: after a double free the source below panics, and the item that came back
        // once too often must not turn into a borrow from the sleepers.
        let less = |word| Some(word - count.min(items(word)));
        let before = self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        if before.is_ok_and(|word| sleepers(word) != 0) {
            self.hand_out();
        }
    }

    /// Serves waiting callers, first come first served, as long as there is room.
    fn hand_out(&self) {
        loop {
            let mut queue = self.queue.lock();
            // First of all, since a clone is foreign code: so far nothing has changed.
            let Some(waker) = queue.first() else { return };
            // A sleeper is counted exactly while it is in the queue, both under this lock.
            if !self.one_sleeper_to_item() {
                return;
            }
            queue.grant_first();
            drop(queue);
            self.sleep.wake(&waker);
        }
    }

    /// If there are a sleeper and room, turns the one into a use of the other.
    fn one_sleeper_to_item(&self) -> bool {
        self.word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
                let room = items(word) < self.max.load(Ordering::SeqCst);
                (sleepers(word) != 0 && room).then(|| word + 1 - ONE_SLEEPER)
            })
            .is_ok()
    }

    /// Joins the queue. Returns whether room was found instead.
    ///
    /// # Safety
    ///
    /// As [`List::push`](crate::queue::List::push), if it returns `Ok(false)`.
    unsafe fn enlist(&self, node: &Node<Z::Waker>) -> Result<bool, AllocError> {
        let mut queue = self.queue.lock();
        let mut charged = false;
        let change = |word| {
            charged = sleepers(word) == 0 && items(word) < self.max.load(Ordering::SeqCst);
            match charged {
                true => Some(word + 1),
                false => word.checked_add(ONE_SLEEPER),
            }
        };
        // It declines only if a million callers sleep already.
        let changed = self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
        changed.map_err(|_| AllocError::Limit)?;
        if !charged {
            // SAFETY: passed on to the caller.
            unsafe { queue.push(node) };
        }
        Ok(charged)
    }

    /// Waits for room for one item. `flush` runs once, after the caller has its place in the queue.
    fn wait(&self, request: Request, flush: &mut dyn FnMut()) -> Result<(), AllocError> {
        let node = Node::new(self.sleep.waker());
        // SAFETY: the node is in no list; it stays in this frame, and the guard below withdraws it
        // before the frame ends, also by unwinding.
        if unsafe { self.enlist(&node)? } {
            return Ok(());
        }
        let place = Place { limit: self, node: &node };
        flush();
        if !node.waiter.granted() {
            self.sleeps.fetch_add(1, Ordering::Relaxed);
        }
        while !node.waiter.granted() {
            if request.deadline().passed(self.sleep.now()) {
                return if place.withdraw() { Err(AllocError::TimedOut) } else { Ok(()) };
            }
            self.sleep.sleep(request.deadline());
        }
        core::mem::forget(place);
        Ok(())
    }
}

/// A place in the queue, given up if its owner unwinds out of `flush` or a sleep.
struct Place<'a, S, L: RawMutex, Z: Sleep> {
    limit: &'a Limited<S, L, Z>,
    node: &'a Node<Z::Waker>,
}

impl<S, L: RawMutex, Z: Sleep> Place<'_, S, L, Z> {
    /// Leaves the queue. Returns `false` if it was too late and the item's place is already ours.
    fn withdraw(self) -> bool {
        let withdrawn = self.leave();
        core::mem::forget(self);
        withdrawn
    }

    fn leave(&self) -> bool {
        let mut queue = self.limit.queue.lock();
        let withdrawn = queue.withdraw(self.node);
        if withdrawn {
            self.limit.word.fetch_sub(ONE_SLEEPER, Ordering::SeqCst);
        }
        withdrawn
    }
}

impl<S, L: RawMutex, Z: Sleep> Drop for Place<'_, S, L, Z> {
    fn drop(&mut self) {
        if !self.leave() {
            self.limit.refund(1);
        }
    }
}

/// Gives room back if the source below fails or unwinds.
struct Charged<'a, S, L: RawMutex, Z: Sleep> {
    limit: &'a Limited<S, L, Z>,
    count: u64,
}

impl<S, L: RawMutex, Z: Sleep> Charged<'_, S, L, Z> {
    /// Keeps `used` of the room; the rest goes back.
    fn settle(mut self, used: u64) {
        self.count -= used;
    }
}

impl<S, L: RawMutex, Z: Sleep> Drop for Charged<'_, S, L, Z> {
    fn drop(&mut self) {
        if self.count != 0 {
            self.limit.refund(self.count);
        }
    }
}

// SAFETY: items pass through unchanged, and none is kept.
unsafe impl<S: ItemSource, L: RawMutex, Z: Sleep> ItemSource for Limited<S, L, Z> {
    fn layout(&self) -> Layout {
        self.source.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        // A slice never has more elements than a u64 counts.
        let count = self.charge(into.len() as u64);
        if count == 0 {
            return Err(AllocError::Limit);
        }
        let charged = Charged { limit: self, count };
        // `count` is at most `into.len()`, so it fits.
        let imported = self.source.import(&mut into[..count as usize], request)?;
        charged.settle(imported as u64);
        Ok(imported)
    }

    unsafe fn release(&self, items: &[Item]) {
        // The refund comes after the release, also if that unwinds, so that whoever gets the room
        // finds the item.
        let _refund = Charged { limit: self, count: items.len() as u64 };
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.source.release(items) };
    }

    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        self.alloc_or_flush(request, &mut || {})
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        if self.charge(1) == 0 {
            if Z::CAN_SLEEP && request.may_wait() {
                self.wait(request, flush)?;
            } else {
                flush();
                if self.charge(1) == 0 {
                    return Err(AllocError::Limit);
                }
            }
        }
        let charged = Charged { limit: self, count: 1 };
        let item = self.source.alloc_or_flush(request, flush)?;
        charged.settle(1);
        Ok(item)
    }

    unsafe fn discard(&self, item: Item) {
        let _refund = Charged { limit: self, count: 1 };
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.source.discard(item) };
    }

    fn wanted(&self) -> bool {
        sleepers(self.word.load(Ordering::SeqCst)) != 0 || self.source.wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        self.source.reclaim(mode);
    }

    fn visit_stats(&self, stats: &mut Stats) {
        self.source.visit_stats(stats);
        stats.limit = self.max().map_or(0, NonZeroU64::get);
        stats.sleeps = self.sleeps.load(Ordering::Relaxed);
        stats.sleepers = self.sleepers();
    }

    fn prefork(&self) {
        self.queue.hold();
        self.source.prefork();
    }

    unsafe fn postfork(&self, process: Process) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.source.postfork(process) };
        if process == Process::Copy {
            // Nobody waits here: the threads that did are in the original, and so are their nodes.
            self.word.fetch_and(ITEMS, Ordering::SeqCst);
            // SAFETY: `prefork` took the queue's lock, and nobody else is there to touch it.
            unsafe { self.queue.forget_all() };
        }
        // SAFETY: the caller called `prefork`, which took the lock.
        unsafe { self.queue.let_go() };
    }

    fn settle(&self) {
        self.source.settle();
    }
}

impl<S: core::fmt::Debug, L: RawMutex, Z: Sleep> core::fmt::Debug for Limited<S, L, Z> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Limited")
            .field("items", &self.items())
            .field("max", &self.max())
            .field("sleepers", &self.sleepers())
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}
