//! Runs of pages that nobody uses just now: a stack without a lock.
//!
//! One pushes, or takes all. So there is nothing that a child of fork(2) could find half done.

use core::alloc::Layout;
use core::ptr;

use uma::core::PageRun;

use crate::sync::{AtomicPtr, AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Runs {
    first: AtomicPtr<Node>,
    count: AtomicUsize,
}

struct Node {
    run: PageRun,
    next: *mut Node,
}

impl Runs {
    pub(crate) const fn new() -> Self {
        Self { first: AtomicPtr::new(ptr::null_mut()), count: AtomicUsize::new(0) }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn push(&self, run: PageRun) {
        let node = Box::into_raw(Box::new(Node { run, next: ptr::null_mut() }));
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node is ours until it is on the stack.
            unsafe { (*node).next = first };
            match self.first.compare_exchange_weak(
                first,
                node,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Takes them all.
    pub(crate) fn take(&self) -> Vec<PageRun> {
        let mut runs = Vec::new();
        // Acquire: the nodes are as `push` wrote them.
        let mut at = self.first.swap(ptr::null_mut(), Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: `push` got it from a box, and the swap made it ours.
            let node = unsafe { Box::from_raw(at) };
            at = node.next;
            runs.push(node.run);
        }
        self.count.fetch_sub(runs.len(), Ordering::Relaxed);
        runs
    }

    /// A run of this layout, if there is one.
    pub(crate) fn find(&self, layout: Layout) -> Option<PageRun> {
        if self.first.load(Ordering::Relaxed).is_null() {
            return None;
        }
        let mut found = None;
        for run in self.take() {
            if found.is_none() && run.layout() == layout {
                found = Some(run);
            } else {
                self.push(run);
            }
        }
        found
    }
}
