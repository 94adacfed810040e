//! Callers that wait for an item, first come first served.
//!
//! The waiting callers' nodes live on their own stacks and are linked into a list under one lock:
//!
//! ```text
//!   queue.first --> [waiter A] --> [waiter B] --> [waiter C] --> null
//!                                                 ^
//!   queue.last -----------------------------------'
//! ```
//!
//! A node is in the list from [`Queue::push`] until it is granted or withdrawn, both under the lock.
//! `granted` is the last thing written to a node by another thread: from then on its owner may
//! return and the node is gone. Wake-ups happen after the lock is dropped, by a cloned waker.

use core::ptr;

use lock_api::RawMutex;

use crate::sync::{AtomicBool, Mutex, Ordering, UnsafeCell};

/// One waiting caller, as others see it.
pub(crate) struct Waiter<W> {
    waker: W,
    granted: AtomicBool,
}

impl<W> Waiter<W> {
    pub(crate) fn new(waker: W) -> Self {
        Self { waker, granted: AtomicBool::new(false) }
    }

    /// Whether what it waits for is now its own.
    pub(crate) fn granted(&self) -> bool {
        self.granted.load(Ordering::Acquire)
    }
}

/// A waiter and its link, in its caller's stack frame.
pub(crate) struct Node<W> {
    pub(crate) waiter: Waiter<W>,
    next: UnsafeCell<*const Node<W>>,
}

impl<W> Node<W> {
    pub(crate) fn new(waker: W) -> Self {
        Self { waiter: Waiter::new(waker), next: UnsafeCell::new(ptr::null()) }
    }
}

pub(crate) struct List<W> {
    first: *const Node<W>,
    last: *const Node<W>,
}

// SAFETY: the nodes that the list points to are shared between threads only as the list's lock
// allows; their wakers are `Send` and `Sync` by the bound.
unsafe impl<W: Send + Sync> Send for List<W> {}

impl<W> List<W> {
    /// Appends a node.
    ///
    /// # Safety
    ///
    /// The node is in no list, and stays where it is and alive until it is granted or withdrawn.
    pub(crate) unsafe fn push(&mut self, node: &Node<W>) {
        // SAFETY: links are only touched under the lock that `&mut self` stands for; `last`, if not
        // null, is in the list and so alive.
        unsafe {
            *node.next.get() = ptr::null();
            if self.last.is_null() {
                self.first = node;
            } else {
                *(*self.last).next.get() = node;
            }
        }
        self.last = node;
    }

    /// Whom to wake when the first waiter is granted what it waits for.
    pub(crate) fn first(&self) -> Option<W>
    where
        W: Clone,
    {
        // SAFETY: a node in the list is alive.
        unsafe { self.first.as_ref() }.map(|node| node.waiter.waker.clone())
    }

    /// Grants the first waiter what it waits for. The caller wakes it once the lock is dropped.
    pub(crate) fn grant_first(&mut self) {
        let node = self.first;
        if node.is_null() {
            return;
        }
        // SAFETY: a node in the list is alive, and its link is ours under the lock. The store to
        // `granted` is the last access: from there on the node may be gone.
        unsafe {
            self.first = *(*node).next.get();
            if self.first.is_null() {
                self.last = ptr::null();
            }
            (*node).waiter.granted.store(true, Ordering::Release);
        }
    }

    /// Takes a node out, or does nothing if it is not in the list (any more). Returns whether it was.
    pub(crate) fn withdraw(&mut self, node: &Node<W>) -> bool {
        let mut before: *const Node<W> = ptr::null();
        let mut at = self.first;
        while !at.is_null() {
            // SAFETY: `at` is in the list and so alive; its link is ours under the lock.
            let next = unsafe { *(*at).next.get() };
            if ptr::eq(at, node) {
                if before.is_null() {
                    self.first = next;
                } else {
                    // SAFETY: as above for `before`.
                    unsafe { *(*before).next.get() = next };
                }
                if next.is_null() {
                    self.last = before;
                }
                return true;
            }
            before = at;
            at = next;
        }
        false
    }
}

/// The list and its lock.
pub(crate) struct Queue<L: RawMutex, W> {
    list: Mutex<L, List<W>>,
}

impl<L: RawMutex, W> Queue<L, W> {
    pub(crate) const fn new() -> Self {
        let list = List { first: ptr::null(), last: ptr::null() };
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

    /// Empties the list without touching what was in it.
    ///
    /// # Safety
    ///
    /// This thread holds the lock by `hold`.
    pub(crate) unsafe fn forget_all(&self) {
        // SAFETY: the lock is held, and its guard was forgotten, so nobody else has the list.
        unsafe { *self.list.data_ptr() = List { first: ptr::null(), last: ptr::null() } };
    }

    pub(crate) fn lock(&self) -> lock_api::MutexGuard<'_, L, List<W>> {
        self.list.lock()
    }
}
