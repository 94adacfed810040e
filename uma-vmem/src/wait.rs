//! Callers that wait for room.
//!
//! As at a limit of items (`uma_core::Limited`), the waiting callers' nodes live on their own stacks
//! and are linked in order of arrival; here the list is under the arena's lock:
//!
//! ```text
//!   first --> [wants 3] --> [wants 100] --> [wants 1] --> null
//! ```
//!
//! Whoever frees goes through the list and allocates for the first that fits, then looks again from the
//! beginning, until none does. What the caller wanted is its own before it wakes, so nobody can take it
//! away again. A large request does not hold up the small ones behind it: they may be what its room is
//! waiting for. (So it can also be passed by for long; it is always asked first.)
//!
//! A node is in the list from [`Waiters::push`] until it is granted or withdrawn, both under the lock.
//! `granted` is the last thing that another thread writes to it: from then on its owner may return and
//! the node is gone. The waker is moved out of the node under the lock, and used and dropped after it: it is
//! foreign code, and none of that runs under the lock. What stays in a node is dropped by its owner.

use core::ptr;

use uma_core::{Deadline, Metadata, RawMutex, Sleep};

use crate::arena::Held;
use crate::fit::Want;
use crate::segments::TAKE_TAGS;
use crate::sync::{AtomicBool, AtomicUsize, Cell, Ordering};
use crate::{Arena, Import, VmemError, VmemFault};

/// One waiting caller, in its own stack frame.
pub(crate) struct Node<K> {
    want: Want,
    /// Until it is granted. Touched under the lock while the node is in the list.
    waker: Cell<Option<K>>,
    at: AtomicUsize,
    granted: AtomicBool,
    next: Cell<*const Node<K>>,
}

impl<K> Node<K> {
    pub(crate) fn new(want: Want, waker: K) -> Self {
        let (at, granted) = (AtomicUsize::new(0), AtomicBool::new(false));
        let waker = Cell::new(Some(waker));
        Self { want, waker, at, granted, next: Cell::new(ptr::null()) }
    }

    /// The size that it waits for.
    pub(crate) fn size(&self) -> usize {
        self.want.size
    }

    /// The address that is now its own, if it was granted one.
    pub(crate) fn granted(&self) -> Option<usize> {
        // Pairs with the store in `serve`, after which `at` does not change.
        self.granted.load(Ordering::Acquire).then(|| self.at.load(Ordering::Relaxed))
    }
}

pub(crate) struct Waiters<K> {
    first: *const Node<K>,
    count: usize,
}

impl<K> Waiters<K> {
    pub(crate) const fn new() -> Self {
        Self { first: ptr::null(), count: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Appends a node.
    ///
    /// # Safety
    ///
    /// The node is in no list, and stays where it is and alive until it is granted or withdrawn.
    pub(crate) unsafe fn push(&mut self, node: &Node<K>) {
        node.next.set(ptr::null());
        self.count += 1;
        let mut last = self.first;
        // SAFETY: a node in the list is alive; its link is only touched under the lock that
        // `&mut self` stands for.
        while let Some(at) = unsafe { last.as_ref() } {
            if at.next.get().is_null() {
                at.next.set(node);
                return;
            }
            last = at.next.get();
        }
        self.first = node;
    }

    /// Whether a node is in the list.
    fn has(&self, node: &Node<K>) -> bool {
        let mut at = self.first;
        // SAFETY: a node in the list is alive.
        while let Some(other) = unsafe { at.as_ref() } {
            if ptr::eq(other, node) {
                return true;
            }
            at = other.next.get();
        }
        false
    }

    /// Takes a node out, or does nothing if it is not in the list (any more). Returns whether it was.
    pub(crate) fn withdraw(&mut self, node: &Node<K>) -> bool {
        let mut before: *const Node<K> = ptr::null();
        let mut at = self.first;
        while !ptr::eq(at, node) {
            // SAFETY: a node in the list is alive; at its end there is none.
            let Some(other) = (unsafe { at.as_ref() }) else { return false };
            before = at;
            at = other.next.get();
        }
        self.unlink(before, node.next.get());
        true
    }

    /// Makes `after` the one that follows `before`, or the first.
    fn unlink(&mut self, before: *const Node<K>, after: *const Node<K>) {
        self.count -= 1;
        // SAFETY: `before` is in the list, and so alive, or null.
        match unsafe { before.as_ref() } {
            Some(before) => before.next.set(after),
            None => self.first = after,
        }
    }

    /// Grants the first waiting caller for whom `take` finds a place what it waits for. Returns whom to
    /// wake once the lock is dropped.
    pub(crate) fn serve(&mut self, mut take: impl FnMut(&Want) -> Option<usize>) -> Option<K> {
        let mut before: *const Node<K> = ptr::null();
        let mut at = self.first;
        loop {
            // SAFETY: a node in the list is alive.
            let node = unsafe { at.as_ref() }?;
            if let Some(found) = take(&node.want) {
                let waker = node.waker.take();
                self.unlink(before, node.next.get());
                node.at.store(found, Ordering::Relaxed);
                // The last access: from here on the node may be gone. Pairs with `granted`.
                node.granted.store(true, Ordering::Release);
                return waker;
            }
            before = at;
            at = node.next.get();
        }
    }

    /// Empties the list without touching what was in it.
    pub(crate) fn forget_all(&mut self) {
        *self = Self::new();
    }
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Arena<L, M, W, P> {
    /// Takes a node out of the queue. Returns `false` if it was served before.
    pub(crate) fn withdraw(&self, state: &mut Held<'_, L, W>, node: &Node<W::Waker>) -> bool {
        let withdrawn = state.waiters.withdraw(node);
        if withdrawn {
            state.segments.pool.unreserve(TAKE_TAGS);
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        withdrawn
    }

    /// Waits for room. `flush` runs once, after the caller has joined the queue; and once more in the copy of a
    /// process that `flush` itself, or the parent, has made, where the queue begins anew.
    pub(crate) fn wait(
        &self,
        want: &Want,
        deadline: Deadline,
        mut flush: Option<&mut dyn FnMut()>,
    ) -> Result<usize, VmemError> {
        loop {
            let flush: Option<&mut dyn FnMut()> = match &mut flush {
                Some(flush) => Some(&mut **flush),
                None => None,
            };
            if let Some(at) = self.wait_here(want, deadline, flush)? {
                return Ok(at);
            }
        }
    }

    /// The same, in one process. Returns `None` if this is the copy of the one in which it began.
    fn wait_here(
        &self,
        want: &Want,
        deadline: Deadline,
        flush: Option<&mut dyn FnMut()>,
    ) -> Result<Option<usize>, VmemError> {
        let node = Node::new(*want, self.sleep.waker());
        // For an allocation now, or one later.
        let mut state = self.lock_for(TAKE_TAGS).inspect_err(|_| self.count_fail())?;
        if let Some(at) = state.take(want) {
            return Ok(Some(at));
        }
        state.segments.pool.reserve(TAKE_TAGS);
        state.counts.waits += 1;
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the node is in no list; it stays in this frame, and the guard below withdraws it
        // before the frame ends, also by unwinding.
        unsafe { state.waiters.push(&node) };
        let place = Place { arena: self, node: &node };
        drop(state);
        if let Some(flush) = flush {
            flush();
        }
        if self.is_forgotten(&node) {
            return Ok(None);
        }
        let mut retry = self.retry_at();
        loop {
            if let Some(at) = node.granted() {
                core::mem::forget(place);
                return Ok(Some(at));
            }
            let now = self.sleep.now();
            if deadline.passed(now) {
                if let Some(at) = place.leave() {
                    return Ok(Some(at));
                }
                return Err(self.failed(VmemFault::TimedOut { size: want.size }));
            }
            if retry.passed(now) {
                if let Some(at) =
                    self.import_for(want, Some(&node)).inspect_err(|_| self.count_fail())?
                {
                    // Served, or taken from the span: the node is in no list any more.
                    core::mem::forget(place);
                    return Ok(Some(at));
                }
                if self.is_forgotten(&node) {
                    return Ok(None);
                }
                retry = self.retry_at();
            } else {
                self.sleep.sleep(deadline.min(retry));
            }
        }
    }

    /// Whether the node is in no queue any more although it was not granted anything.
    fn is_forgotten(&self, node: &Node<W::Waker>) -> bool {
        let state = self.state.lock();
        node.granted().is_none() && !state.waiters.has(node)
    }

    /// When to ask the parent again.
    fn retry_at(&self) -> Deadline {
        if !P::IMPORTS {
            return Deadline::NEVER;
        }
        Deadline::at(self.sleep.now().saturating_add(self.config.retry))
    }
}

/// A place in the queue, given up if its owner fails or unwinds.
struct Place<'a, L: RawMutex, M: Metadata, W: Sleep, P: Import> {
    arena: &'a Arena<L, M, W, P>,
    node: &'a Node<W::Waker>,
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Place<'_, L, M, W, P> {
    /// Leaves the queue. Returns the address if it was too late and it is already ours.
    fn leave(self) -> Option<usize> {
        let place = core::mem::ManuallyDrop::new(self);
        let mut state = place.arena.state.lock();
        place.arena.withdraw(&mut state, place.node);
        place.node.granted()
    }
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Drop for Place<'_, L, M, W, P> {
    fn drop(&mut self) {
        let mut state = self.arena.state.lock();
        self.arena.withdraw(&mut state, self.node);
        drop(state);
        if let Some(at) = self.node.granted() {
            drop(Kept { arena: self.arena, at, size: self.node.size() });
        }
    }
}

/// A segment that nobody knows of yet: freed again if its owner unwinds.
pub(crate) struct Kept<'a, L: RawMutex, M: Metadata, W: Sleep, P: Import> {
    pub(crate) arena: &'a Arena<L, M, W, P>,
    pub(crate) at: usize,
    pub(crate) size: usize,
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Drop for Kept<'_, L, M, W, P> {
    fn drop(&mut self) {
        // It is allocated, so it can be freed; of a span that the parent does not take back there is
        // nobody to hear.
        let _ = self.arena.free(self.at, self.size);
    }
}
