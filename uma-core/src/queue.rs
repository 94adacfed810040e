//! Callers that wait for room, first come first served.
//!
//! The waiting callers' nodes live on their own stacks, or in their futures, and are linked into a list
//! under one lock:
//!
//! ```text
//!   list.first --> [node A] <--> [node B] <--> [node C] <-- list.last
//! ```
//!
//! A node is in the list from [`List::push`] until it is settled or withdrawn, both under the lock.
//! `state` is the last thing written to a node by another thread: from then on its owner may return and
//! the node is gone. The waker is moved out of the node under the lock and used after it, so neither a
//! clone nor a wake-up, which are foreign code, runs under the lock.
//!
//! In the copy of a process that fork(2) makes, the list begins anew, and with it an *era*: a node of a
//! future that was copied along finds that it is of an earlier one, and touches no neighbour.

use core::ptr;
use core::task;

use lock_api::RawMutex;

use crate::sync::{AtomicU8, Mutex, Ordering, UnsafeCell};

/// Whom to wake.
pub(crate) enum Wake<W> {
    /// A thread, by the zone's `Sleep`.
    Thread(W),
    /// A task, by its own executor.
    Task(task::Waker),
}

/// What has become of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is not in the list and never was.
    Idle,
    /// It waits.
    Listed,
    /// What it waited for is its own.
    Granted,
    /// It will never be served.
    Refused,
}

/// One waiting caller.
pub(crate) struct Node<W> {
    /// How much room it waits for.
    need: u64,
    state: AtomicU8,
    waker: UnsafeCell<Option<Wake<W>>>,
    next: UnsafeCell<*const Node<W>>,
    previous: UnsafeCell<*const Node<W>>,
    era: UnsafeCell<u64>,
}

// SAFETY: the links are touched under the lock of the list only, and what they point to is shared as
// that lock allows; the rest is owned, and its wakers may be sent.
unsafe impl<W: Send> Send for Node<W> {}

impl<W> Node<W> {
    pub(crate) fn new(need: u64, waker: Option<Wake<W>>) -> Self {
        Self {
            need,
            state: AtomicU8::new(State::Idle as u8),
            waker: UnsafeCell::new(waker),
            next: UnsafeCell::new(ptr::null()),
            previous: UnsafeCell::new(ptr::null()),
            era: UnsafeCell::new(0),
        }
    }

    pub(crate) const fn need(&self) -> u64 {
        self.need
    }

    pub(crate) fn state(&self) -> State {
        // Acquire: pairs with the store in `set`, after which others touch the node no more.
        match self.state.load(Ordering::Acquire) {
            0 => State::Idle,
            1 => State::Listed,
            2 => State::Granted,
            _ => State::Refused,
        }
    }

    fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }
}

pub(crate) struct List<W> {
    first: *const Node<W>,
    last: *const Node<W>,
    era: u64,
}

// SAFETY: the nodes that the list points to are shared between threads only as the list's lock
// allows; their wakers may be sent by the bound.
unsafe impl<W: Send> Send for List<W> {}

impl<W> List<W> {
    /// Appends a node, to be woken by `waker`.
    ///
    /// # Safety
    ///
    /// The node is in no list, and stays where it is and alive until it is settled or withdrawn.
    pub(crate) unsafe fn push(&mut self, node: &Node<W>) {
        // SAFETY: links are only touched under the lock that `&mut self` stands for; `last`, if not
        // null, is in the list and so alive.
        unsafe {
            *node.next.get() = ptr::null();
            *node.previous.get() = self.last;
            *node.era.get() = self.era;
            match self.last.as_ref() {
                Some(last) => *last.next.get() = node,
                None => self.first = node,
            }
        }
        self.last = node;
        node.set(State::Listed);
    }

    /// How much the first waiter needs.
    pub(crate) fn first_need(&self) -> Option<u64> {
        // SAFETY: a node in the list is alive.
        unsafe { self.first.as_ref() }.map(Node::need)
    }

    /// Takes the first waiter off the list, tells it what has become of it, and returns whom to wake
    /// once the lock is dropped.
    pub(crate) fn settle_first(&mut self, state: State) -> Option<Wake<W>> {
        // SAFETY: a node in the list is alive.
        let node = unsafe { self.first.as_ref() }?;
        // SAFETY: it is in the list.
        unsafe { self.settle(node, state) }
    }

    /// Takes the first waiter that needs more than `most` off the list, tells it that it is refused, and
    /// returns whom to wake once the lock is dropped. `None` if there is no such waiter.
    pub(crate) fn refuse_above(&mut self, most: u64) -> Option<Option<Wake<W>>> {
        let mut at = self.first;
        // SAFETY: a node in the list is alive.
        while let Some(node) = unsafe { at.as_ref() } {
            if node.need > most {
                // SAFETY: it is in the list.
                return Some(unsafe { self.settle(node, State::Refused) });
            }
            // SAFETY: links are only touched under the lock.
            at = unsafe { *node.next.get() };
        }
        None
    }

    /// # Safety
    ///
    /// The node is in the list.
    unsafe fn settle(&mut self, node: &Node<W>, state: State) -> Option<Wake<W>> {
        // SAFETY: it is in the list, as the caller says, and of this era as all in it.
        unsafe { self.unlink(node) };
        // SAFETY: the waker of a listed node is touched under the lock only.
        let waker = unsafe { (*node.waker.get()).take() };
        // The last access: from here on the node may be gone.
        node.set(state);
        waker
    }

    /// Whether the node is in this list; of a node that is not, only `state` may change any more.
    fn has(&self, node: &Node<W>) -> bool {
        // SAFETY: the era is written under the lock only.
        node.state() == State::Listed && unsafe { *node.era.get() } == self.era
    }

    /// Whether the node waits in the list of an earlier era, where nobody will find it.
    pub(crate) fn is_forgotten(&self, node: &Node<W>) -> bool {
        node.state() == State::Listed && !self.has(node)
    }

    /// Takes a node out, or does nothing if it is not in the list (any more). Returns whether it was.
    pub(crate) fn withdraw(&mut self, node: &Node<W>) -> bool {
        let listed = self.has(node);
        if listed {
            // SAFETY: it is in the list.
            unsafe { self.unlink(node) };
            node.set(State::Idle);
        }
        listed
    }

    /// Gives a listed node another waker and returns the old one, to be dropped once the lock is.
    ///
    /// # Errors
    ///
    /// The new one, if the node is not in the list (any more).
    pub(crate) fn rename(
        &mut self,
        node: &Node<W>,
        waker: Wake<W>,
    ) -> Result<Option<Wake<W>>, Wake<W>> {
        if !self.has(node) {
            return Err(waker);
        }
        // SAFETY: the waker of a listed node is touched under the lock only.
        Ok(unsafe { (*node.waker.get()).replace(waker) })
    }

    /// # Safety
    ///
    /// The node is in the list.
    unsafe fn unlink(&mut self, node: &Node<W>) {
        // SAFETY: links are ours under the lock; the neighbours are in the list and so alive.
        unsafe {
            let (previous, next) = (*node.previous.get(), *node.next.get());
            match previous.as_ref() {
                Some(previous) => *previous.next.get() = next,
                None => self.first = next,
            }
            match next.as_ref() {
                Some(next) => *next.previous.get() = previous,
                None => self.last = previous,
            }
        }
    }
}

/// The list and its lock.
pub(crate) struct Queue<L: RawMutex, W> {
    list: Mutex<L, List<W>>,
}

impl<L: RawMutex, W> Queue<L, W> {
    pub(crate) const fn new() -> Self {
        let list = List { first: ptr::null(), last: ptr::null(), era: 0 };
        Self { list: Mutex::const_new(L::INIT, list) }
    }

    /// Takes the lock and keeps it.
    pub(crate) fn hold(&self) {
        core::mem::forget(self.list.lock());
    }

    /// Lets go of the lock.
    ///
    /// # Safety
    ///
    /// This thread holds it by `hold`.
    pub(crate) unsafe fn let_go(&self) {
        // SAFETY: the guard was forgotten in `hold`.
        unsafe { self.list.force_unlock() }
    }

    /// Empties the list without touching what was in it, and begins a new era.
    ///
    /// # Safety
    ///
    /// This thread holds the lock by `hold`.
    pub(crate) unsafe fn forget_all(&self) {
        // SAFETY: the lock is held, and its guard was forgotten, so nobody else has the list.
        unsafe {
            let list = &mut *self.list.data_ptr();
            *list = List { first: ptr::null(), last: ptr::null(), era: list.era + 1 };
        }
    }

    pub(crate) fn lock(&self) -> lock_api::MutexGuard<'_, L, List<W>> {
        self.list.lock()
    }
}
