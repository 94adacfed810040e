//! Room for so many units, and the queue of those who wait for some: what a limit of items and a limit of
//! bytes have in common.
//!
//! One word holds the count of units and the count of sleepers, so that one atomic operation decides:
//!
//! ```text
//!    63            44 43                                   0
//!   +----------------+--------------------------------------+
//!   |  sleepers (20) |  units taken (44)                    |
//!   +----------------+--------------------------------------+
//! ```
//!
//! # Protocol
//!
//! - *Charge*: with no sleepers and room, add to the units. Otherwise the caller fails, or enlists.
//! - *Enlist*: under the queue's lock, try to charge once more, else count a sleeper and join the end
//!   of the queue. The word changes under the lock, so a refund either comes before (and the charge
//!   sees the room) or after (and the refund sees the sleeper).
//! - *Change the limit*: store it, and if there are sleepers hand out, and refuse those for whom there can be
//!   no room any more. Who enlists looks at the limit again afterwards: one of the two finds the other. So
//!   with no sleepers no lock is taken.
//! - *Refund*: subtract from the units; if there are sleepers, *hand out*: under the lock, while there
//!   is room for what the first of them needs, turn the sleeper into the units in a single step, and
//!   wake its owner after the lock.
//!
//! A woken caller already owns its place, so nobody can overtake it: service is strictly in order of
//! arrival, also of one who needs much before one who needs little. One who needs more than there can
//! be is refused, when it comes or when the limit is lowered, wherever it stands in the queue.
//!
//! A task waits as a thread does, in the same queue ([`Reserve`]). Its node lies in its future; if that
//! is dropped while it waits the node is withdrawn, and if it has been granted room by then, the room
//! goes to the next.
//!
//! Lock order: the queue's lock is a leaf. Flushes, wake-ups and whatever else is foreign run without it.

use core::marker::PhantomPinned;
use core::pin::Pin;
use core::task::{Context, Poll};

use lock_api::{MutexGuard, RawMutex};

use crate::queue::{List, Node, Queue, State, Wake};
use crate::sync::{AtomicU64, Ordering, const_unless_modelled};
use crate::{AllocError, Deadline, Process, Sleep};

/// Most units that the word can count: 2^44 - 1. No limit means this one.
pub(crate) const UNLIMITED: u64 = (1 << 44) - 1;
const ONE_SLEEPER: u64 = 1 << 44;

const fn units(word: u64) -> u64 {
    word & UNLIMITED
}

const fn sleepers(word: u64) -> u64 {
    word >> 44
}

/// In whose name somebody takes the queue's lock, which a fork must know of meanwhile.
pub(crate) trait Admission: Copy {
    /// While there is one, forks know of the lock.
    type Pass;

    /// `None` if no zone is known to stand on the gate.
    fn enter(self) -> Option<Self::Pass>;
}

/// In that of a zone on the gate, which lives as long: forks know of it.
impl Admission for () {
    type Pass = ();

    fn enter(self) -> Option<()> {
        Some(())
    }
}

/// The queue, locked. The lock goes before the pass.
struct Visit<'a, L: RawMutex, Z: Sleep, A: Admission> {
    queue: MutexGuard<'a, L, List<Z::Waker>>,
    _pass: Option<A::Pass>,
}

pub(crate) struct Gate<L: RawMutex, Z: Sleep> {
    word: AtomicU64,
    max: AtomicU64,
    queue: Queue<L, Z::Waker>,
    sleep: Z,
}

impl<L: RawMutex, Z: Sleep> Gate<L, Z> {
    const_unless_modelled! {
        /// Room for `max` units, at most [`UNLIMITED`].
        pub(crate) const fn new(max: u64, sleep: Z) -> Self {
            Self { word: AtomicU64::new(0), max: AtomicU64::new(max), queue: Queue::new(), sleep }
        }
    }

    pub(crate) fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Changes the limit, at any time; serves whom that helps, and refuses those who need more than there
    /// can be now, wherever they stand in the queue.
    pub(crate) fn set_max(&self, max: u64, from: impl Admission) {
        self.max.swap(max, Ordering::SeqCst);
        // An exchange: either it finds who waits, or who enlists later finds the limit (see `keep_up`).
        if sleepers(self.word.fetch_add(0, Ordering::SeqCst)) != 0 {
            self.look_again(from);
        }
    }

    /// After the limit was changed.
    fn look_again<A: Admission>(&self, from: A) {
        let _serve = Then(self, from, Self::hand_out);
        self.refuse(from);
    }

    /// For a caller that has just enlisted, while the limit was `max`: whoever changed it since may not have
    /// found anybody.
    fn keep_up(&self, max: u64) {
        if self.max.load(Ordering::SeqCst) != max {
            self.look_again(());
        }
    }

    pub(crate) fn units(&self) -> u64 {
        units(self.word.load(Ordering::Relaxed))
    }

    pub(crate) fn sleepers(&self) -> u64 {
        sleepers(self.word.load(Ordering::Relaxed))
    }

    /// Whether somebody waits, or more is out than there may be (any more): for those who have just put items
    /// where a waiter, or whoever lowered the limit, may have looked already.
    pub(crate) fn wanted(&self) -> bool {
        let word = self.word.load(Ordering::SeqCst);
        sleepers(word) != 0 || self.over(word)
    }

    fn over(&self, word: u64) -> bool {
        units(word) > self.max.load(Ordering::SeqCst)
    }

    /// Takes room for up to `wanted` times `each` units, `each` not being 0, and returns for how many.
    pub(crate) fn charge(&self, each: u64, wanted: u64) -> u64 {
        let mut word = self.word.load(Ordering::SeqCst);
        loop {
            let room = self.max.load(Ordering::SeqCst).saturating_sub(units(word));
            let take = if sleepers(word) == 0 { wanted.min(room / each) } else { 0 };
            if take == 0 {
                return 0;
            }
            match self.word.compare_exchange_weak(
                word,
                word + take * each,
                Ordering::SeqCst,
                Ordering::SeqCst,
            ) {
                Ok(_) => return take,
                Err(now) => word = now,
            }
        }
    }

    /// Gives room back, and serves those who wait for it.
    pub(crate) fn refund(&self, count: u64, from: impl Admission) {
        // Never below zero: after a double free the source below panics, and the item that came back
        // once too often must not turn into a borrow from the sleepers.
        let less = |word| Some(word - count.min(units(word)));
        let before = self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        if before.is_ok_and(|word| sleepers(word) != 0) {
            self.hand_out(from);
        }
    }

    /// The queue, for somebody who comes because there are sleepers; or `None` if there are none any more, and
    /// perhaps nobody who would let go of the lock in a copy of the process.
    fn visit<A: Admission>(&self, from: A) -> Option<Visit<'_, L, Z, A>> {
        let pass = from.enter();
        // Those who sleep then have not joined.
        if pass.is_none() && sleepers(self.word.load(Ordering::SeqCst)) == 0 {
            return None;
        }
        Some(Visit { queue: self.queue.lock(), _pass: pass })
    }

    /// Serves waiting callers, first come first served, as long as there is room.
    fn hand_out<A: Admission>(&self, from: A) {
        loop {
            let Some(mut visit) = self.visit(from) else { return };
            let Some(need) = visit.queue.first_need() else { return };
            // A sleeper is counted exactly while it is in the queue, both under this lock.
            let Some(state) = self.serve(need) else { return };
            let waker = visit.queue.settle_first(state);
            drop(visit);
            let others = Then(self, from, Self::hand_out);
            self.wake(waker);
            core::mem::forget(others);
        }
    }

    /// Refuses all who need more than there can be.
    fn refuse<A: Admission>(&self, from: A) {
        loop {
            let Some(mut visit) = self.visit(from) else { return };
            let max = self.max.load(Ordering::SeqCst);
            let Some(waker) = visit.queue.refuse_above(max) else { return };
            self.word.fetch_sub(ONE_SLEEPER, Ordering::SeqCst);
            drop(visit);
            let others = Then(self, from, Self::refuse);
            self.wake(waker);
            core::mem::forget(others);
        }
    }

    fn wake(&self, waker: Option<Wake<Z::Waker>>) {
        match waker {
            Some(Wake::Thread(waker)) => self.sleep.wake(&waker),
            Some(Wake::Task(waker)) => waker.wake(),
            None => {}
        }
    }

    /// If there is a sleeper, and room for what it needs, turns the one into a use of the other. If there
    /// never will be, the sleeper is none any more.
    fn serve(&self, need: u64) -> Option<State> {
        let mut state = State::Refused;
        let change = |word| {
            let max = self.max.load(Ordering::SeqCst);
            if sleepers(word) == 0 {
                return None;
            }
            state = if need > max { State::Refused } else { State::Granted };
            match state {
                State::Refused => Some(word - ONE_SLEEPER),
                _ if max.saturating_sub(units(word)) < need => None,
                _ => Some(word + need - ONE_SLEEPER),
            }
        };
        self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change).ok().map(|_| state)
    }

    /// Joins the queue, and returns the limit at that time; or `None` if room was found instead.
    ///
    /// # Errors
    ///
    /// [`AllocError::Limit`] if the node needs more than there can be, or a million callers sleep.
    ///
    /// # Safety
    ///
    /// As [`List::push`](crate::queue::List::push), if it returns a limit.
    unsafe fn enlist(&self, node: &Node<Z::Waker>) -> Result<Option<u64>, AllocError> {
        let need = node.need();
        let mut queue = self.queue.lock();
        let (mut charged, mut max) = (false, 0);
        let change = |word| {
            max = self.max.load(Ordering::SeqCst);
            charged = sleepers(word) == 0 && max.saturating_sub(units(word)) >= need;
            match charged {
                true => Some(word + need),
                false if need > max => None,
                false => word.checked_add(ONE_SLEEPER),
            }
        };
        let changed = self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
        changed.map_err(|_| AllocError::Limit)?;
        if charged {
            return Ok(None);
        }
        // SAFETY: passed on to the caller.
        unsafe { queue.push(node) };
        Ok(Some(max))
    }

    /// Waits for room for `need` units. `flush` runs once, after the caller has its place in the queue; and
    /// once more in the copy of a process that `flush` itself has made, where the queue begins anew.
    /// `sleeps` counts those who really sleep.
    ///
    /// # Errors
    ///
    /// The deadline passed, or there can never be so much room.
    pub(crate) fn wait(
        &self,
        need: u64,
        deadline: Deadline,
        sleeps: &AtomicU64,
        flush: &mut dyn FnMut(),
    ) -> Result<(), AllocError> {
        while !self.wait_here(need, deadline, sleeps, flush)? {}
        Ok(())
    }

    /// The same, in one process. Returns `false` if this is the copy of the one in which it began.
    fn wait_here(
        &self,
        need: u64,
        deadline: Deadline,
        sleeps: &AtomicU64,
        flush: &mut dyn FnMut(),
    ) -> Result<bool, AllocError> {
        let node = Node::new(need, Some(Wake::Thread(self.sleep.waker())));
        // SAFETY: the node is in no list; it stays in this frame, and the guard below withdraws it
        // before the frame ends, also by unwinding.
        let Some(max) = (unsafe { self.enlist(&node)? }) else { return Ok(true) };
        let place = Place { gate: self, node: &node };
        self.keep_up(max);
        flush();
        if self.queue.lock().is_forgotten(&node) {
            return Ok(false);
        }
        if node.state() == State::Listed {
            sleeps.fetch_add(1, Ordering::Relaxed);
        }
        while node.state() == State::Listed {
            if deadline.passed(self.sleep.now()) {
                if self.withdraw(&node) {
                    core::mem::forget(place);
                    return Err(AllocError::TimedOut);
                }
                break;
            }
            self.sleep.sleep(deadline);
        }
        core::mem::forget(place);
        if node.state() == State::Granted { Ok(true) } else { Err(AllocError::Limit) }
    }

    /// Leaves the queue. Returns `false` if it was too late: then something else has become of the node.
    fn withdraw(&self, node: &Node<Z::Waker>) -> bool {
        let mut queue = self.queue.lock();
        let withdrawn = queue.withdraw(node);
        if !withdrawn {
            return false;
        }
        let others = self.word.fetch_sub(ONE_SLEEPER, Ordering::SeqCst) >= 2 * ONE_SLEEPER;
        drop(queue);
        // If it was the first, there may be room enough for what the next one needs.
        if others && node.need() > 1 {
            self.hand_out(());
        }
        true
    }

    /// Leaves the queue, or gives back what was granted.
    fn leave(&self, node: &Node<Z::Waker>) {
        if node.state() != State::Idle && !self.withdraw(node) && node.state() == State::Granted {
            self.refund(node.need(), ());
        }
    }

    /// Waits for room for `need` units without a thread that sleeps. See [`Reserve`].
    pub(crate) fn reserve<F: FnMut()>(&self, need: u64, flush: F) -> Reserve<'_, L, Z, F> {
        let node = Node::new(need, None);
        Reserve { gate: self, node, flush, done: false, _pinned: PhantomPinned }
    }

    /// Takes the queue's lock, and keeps it.
    pub(crate) fn hold(&self) {
        self.queue.hold();
    }

    /// Lets go of the queue's lock.
    ///
    /// # Safety
    ///
    /// This thread, or the one that it is the copy of, has it by `hold`.
    pub(crate) unsafe fn let_go(&self, process: Process) {
        if process == Process::Copy {
            // Nobody waits here: the threads that did are in the original, and so are their nodes.
            self.word.fetch_and(UNLIMITED, Ordering::SeqCst);
            // SAFETY: the lock is held, and nobody else is there to touch the queue.
            unsafe { self.queue.forget_all() };
        }
        // SAFETY: passed on from the caller.
        unsafe { self.queue.let_go() };
    }
}

/// What is still to be done for the others, also if a wake-up unwinds; a second panic aborts, as it does
/// when the elements of a `Vec` are dropped.
struct Then<'a, L: RawMutex, Z: Sleep, A: Admission>(&'a Gate<L, Z>, A, fn(&Gate<L, Z>, A));

impl<L: RawMutex, Z: Sleep, A: Admission> Drop for Then<'_, L, Z, A> {
    fn drop(&mut self) {
        (self.2)(self.0, self.1);
    }
}

/// A place in the queue, given up if its owner unwinds out of a flush or a sleep.
struct Place<'a, L: RawMutex, Z: Sleep> {
    gate: &'a Gate<L, Z>,
    node: &'a Node<Z::Waker>,
}

impl<L: RawMutex, Z: Sleep> Drop for Place<'_, L, Z> {
    fn drop(&mut self) {
        self.gate.leave(self.node);
    }
}

/// A future that ends when there is room, which then belongs to whoever polled it. Dropped before that,
/// it leaves the queue, and what it was granted goes to the next.
///
/// It joins the queue when it is first polled; `flush` runs once, right after that.
pub(crate) struct Reserve<'a, L: RawMutex, Z: Sleep, F: FnMut()> {
    gate: &'a Gate<L, Z>,
    node: Node<Z::Waker>,
    flush: F,
    /// The room has gone to whoever polled.
    done: bool,
    /// The queue points to the node.
    _pinned: PhantomPinned,
}

impl<L: RawMutex, Z: Sleep, F: FnMut()> Future for Reserve<'_, L, Z, F> {
    type Output = Result<(), AllocError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: nothing is moved out of `this`, and the node stays where it is.
        let this = unsafe { self.get_unchecked_mut() };
        assert!(!this.done, "a future is polled after its end");
        let settled = |done: &mut bool, state| {
            *done = true;
            Poll::Ready(if state == State::Granted { Ok(()) } else { Err(AllocError::Limit) })
        };
        // Foreign code, so before any lock.
        let mut waker = Wake::Task(context.waker().clone());
        let first = this.node.state() == State::Idle;
        if !first {
            if this.node.state() == State::Listed {
                let renamed = this.gate.queue.lock().rename(&this.node, waker);
                match renamed {
                    // Dropped here, with the lock let go of.
                    Ok(_old) => return Poll::Pending,
                    Err(unused) => waker = unused,
                }
            }
            match this.node.state() {
                // In the copy of a process: the queue has begun anew, and so does this.
                State::Listed => {}
                state => return settled(&mut this.done, state),
            }
        }
        this.node = Node::new(this.node.need(), Some(waker));
        // SAFETY: the node is new, and so in no list. It is pinned with `self`, whose drop withdraws it.
        match unsafe { this.gate.enlist(&this.node) } {
            Ok(Some(max)) => this.gate.keep_up(max),
            Ok(None) => return settled(&mut this.done, State::Granted),
            Err(_) => return settled(&mut this.done, State::Refused),
        }
        (this.flush)();
        match this.node.state() {
            State::Listed => Poll::Pending,
            state => settled(&mut this.done, state),
        }
    }
}

impl<L: RawMutex, Z: Sleep, F: FnMut()> Drop for Reserve<'_, L, Z, F> {
    fn drop(&mut self) {
        if !self.done {
            self.gate.leave(&self.node);
        }
    }
}
