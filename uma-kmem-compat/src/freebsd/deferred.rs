//! Items of an SMR zone that were freed while somebody may still look at them, and the thread that reclaims.
//!
//! ```text
//!   zfree_smr --> [ batch ] --full: advance--> [batch, goal] [batch, goal] ... --goal past--> free, with dtor
//! ```
//!
//! Whoever fills a batch also frees those whose time has come; an allocation that finds nothing does so too, and if it
//! may wait it waits for readers first. While somebody sleeps at the zone's limit nothing is deferred: who frees waits
//! for the readers himself, as in FreeBSD.
//!
//! The lock is a leaf: items go back to the zone, and readers are waited for, without it.

use std::collections::VecDeque;
use std::thread::Thread;

use uma::core::Item;

use super::Smr;
use crate::common::fork::{Guard, Lock};
use crate::common::memory::push;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// Items in a batch.
const BATCH: usize = 64;

#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) smr: Smr,
    state: Lock<State>,
    /// Whether each free is compared with all that wait, and not only with those of its batch.
    checks: bool,
    /// Items that wait.
    count: AtomicU64,
    /// Allocations that are about to sleep, or do.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    batch: Vec<Item>,
    /// In the order of their goals.
    stamped: VecDeque<(u64, Vec<Item>)>,
}

impl State {
    fn holds(&self, item: Item, all: bool) -> bool {
        let stamped = self.stamped.iter().filter(|_| all).map(|(_, batch)| batch);
        stamped.chain([&self.batch]).any(|batch| batch.contains(&item))
    }
}

/// The item waits already.
pub(super) struct DoubleFree;

impl Deferred {
    pub(super) fn new(smr: Smr, checks: bool) -> Self {
        Self {
            smr,
            state: Lock::new(State::default()),
            checks,
            count: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    fn state(&self) -> Guard<'_, State> {
        // Nothing under the lock unwinds half way.
        self.state.lock()
    }

    /// Items that were freed and are not yet back in the zone.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Defers a free. What may be freed now goes to `free`.
    ///
    /// # Errors
    ///
    /// If it was deferred before; nothing has changed then.
    pub(super) fn push(&self, item: Item, free: impl Fn(Item)) -> Result<(), DoubleFree> {
        let mut state = self.state();
        if state.holds(item, self.checks) {
            return Err(DoubleFree);
        }
        if push(&mut state.batch, item).is_err() {
            // It cannot be written down, so it is waited for.
            drop(state);
            self.smr.synchronize();
            free(item);
            return Ok(());
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let full = state.batch.len() >= BATCH;
        if full {
            self.stamp(&mut state);
        }
        drop(state);
        // After the lock was had: a waiter that has looked at the batches before us is seen here.
        if self.waiting.load(Ordering::SeqCst) != 0 {
            self.flush(true, free);
        } else if full {
            self.expire(&free);
        }
        Ok(())
    }

    /// Ends the batch. Without memory it goes on.
    fn stamp(&self, state: &mut State) {
        if !state.batch.is_empty() && state.stamped.try_reserve(1).is_ok() {
            let batch = core::mem::take(&mut state.batch);
            state.stamped.push_back((self.smr.advance(), batch));
        }
    }

    /// Frees the batches whose time has come.
    fn expire(&self, free: &impl Fn(Item)) {
        loop {
            let mut state = self.state();
            let due = state.stamped.front().is_some_and(|(goal, _)| self.smr.poll(*goal));
            let batch = if due { state.stamped.pop_front() } else { None };
            drop(state);
            let Some((_, batch)) = batch else { return };
            self.give(batch, free);
        }
    }

    fn give(&self, batch: Vec<Item>, free: &impl Fn(Item)) {
        /// What a dtor that unwinds leaves is due later; now, if it cannot be written down.
        struct Rest<'a, F: Fn(Item)>(&'a Deferred, Vec<Item>, &'a F);

        impl<F: Fn(Item)> Rest<'_, F> {
            fn free(&mut self) {
                while let Some(item) = self.1.pop() {
                    self.0.count.fetch_sub(1, Ordering::Relaxed);
                    (self.2)(item);
                }
            }
        }

        impl<F: Fn(Item)> Drop for Rest<'_, F> {
            fn drop(&mut self) {
                if self.1.is_empty() {
                    return;
                }
                let mut state = self.0.state();
                if state.stamped.try_reserve(1).is_ok() {
                    state.stamped.push_front((0, core::mem::take(&mut self.1)));
                    return;
                }
                drop(state);
                self.free();
            }
        }

        Rest(self, batch, free).free();
    }

    /// Frees what is due, or with `wait` everything, after the readers have ended.
    pub(super) fn flush(&self, wait: bool, free: impl Fn(Item)) {
        let mut state = self.state();
        if !wait {
            self.stamp(&mut state);
            drop(state);
            return self.expire(&free);
        }
        let batch = core::mem::take(&mut state.batch);
        let stamped = core::mem::take(&mut state.stamped);
        drop(state);
        if batch.is_empty() && stamped.is_empty() {
            return;
        }
        // One wait serves all: the last goal is the latest.
        let goal = match stamped.back() {
            Some((goal, _)) if batch.is_empty() => *goal,
            _ => self.smr.advance(),
        };
        self.smr.wait(goal);

        /// What a dtor that unwinds leaves of the other batches is due later; now, if it cannot be written down.
        struct Others<'a, F: Fn(Item)>(&'a Deferred, VecDeque<(u64, Vec<Item>)>, Vec<Item>, &'a F);

        impl<F: Fn(Item)> Others<'_, F> {
            fn free(&mut self) {
                while let Some((_, batch)) = self.1.pop_front() {
                    self.0.give(batch, self.3);
                }
                self.0.give(core::mem::take(&mut self.2), self.3);
            }
        }

        impl<F: Fn(Item)> Drop for Others<'_, F> {
            fn drop(&mut self) {
                if self.1.is_empty() && self.2.is_empty() {
                    return;
                }
                let mut state = self.0.state();
                if state.stamped.try_reserve(self.1.len() + 1).is_ok() {
                    // Before what was stamped meanwhile, whose goals are later.
                    state.stamped.push_front((0, core::mem::take(&mut self.2)));
                    while let Some((_, batch)) = self.1.pop_back() {
                        state.stamped.push_front((0, batch));
                    }
                    return;
                }
                drop(state);
                self.free();
            }
        }

        Others(self, stamped, batch, &free).free();
    }

    /// Does something that may sleep for want of an item: nobody defers meanwhile.
    pub(super) fn while_waiting<R>(&self, free: impl Fn(Item), then: impl FnOnce() -> R) -> R {
        struct Waits<'a>(&'a AtomicUsize);

        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }

        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waits = Waits(&self.waiting);
        self.flush(true, free);
        then()
    }
}

/// What the worker is to know.
struct Wanted {
    /// Whether somebody wants memory reclaimed.
    memory: bool,
    /// Workers that sleep until then.
    asleep: Vec<Thread>,
}

static WANTED: Lock<Wanted> = Lock::new(Wanted { memory: false, asleep: Vec::new() });

/// Wakes `uma_reclaim_worker` (`uma_reclaim_wakeup`).
pub(super) fn wake_worker() {
    let mut wanted = WANTED.lock();
    wanted.memory = true;
    let asleep = core::mem::take(&mut wanted.asleep);
    drop(wanted);
    asleep.iter().for_each(Thread::unpark);
}

/// Reclaims whenever it is woken, at most once a second, for ever (`uma_reclaim_worker`).
#[cfg(feature = "capi")]
pub(super) fn worker(reclaim: impl Fn()) -> ! {
    loop {
        let mut wanted = WANTED.lock();
        while !wanted.memory {
            let listed = push(&mut wanted.asleep, std::thread::current()).is_ok();
            drop(wanted);
            if listed {
                std::thread::park();
            } else {
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
            wanted = WANTED.lock();
        }
        wanted.memory = false;
        drop(wanted);
        reclaim();
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
