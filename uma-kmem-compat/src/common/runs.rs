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
        // SAFETY: the node is ours.
        unsafe { self.link(node, node) };
    }

    /// Puts a chain of nodes on the stack.
    ///
    /// # Safety
    ///
    /// They are the caller's, and lead from the first to the last.
    unsafe fn link(&self, first: *mut Node, last: *mut Node) {
        let mut below = self.first.load(Ordering::Relaxed);
        loop {
            // SAFETY: the nodes are ours until they are on the stack.
            unsafe { (*last).next = below };
            match self.first.compare_exchange_weak(
                below,
                first,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => below = now,
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

    /// A run of this layout, if there is one. Mostly all are of one, and then this takes no longer if there are
    /// many.
    pub(crate) fn find(&self, layout: Layout) -> Option<PageRun> {
        if self.first.load(Ordering::Relaxed).is_null() {
            return None;
        }
        // Acquire: as in `take`.
        let mut chain = self.first.swap(ptr::null_mut(), Ordering::Acquire);
        let (mut found, mut last) = (None, ptr::null_mut::<Node>());
        let mut at = chain;
        // SAFETY: `push` got the nodes from boxes, and the swap made them ours.
        unsafe {
            while !at.is_null() && (*at).run.layout() != layout {
                (last, at) = (at, (*at).next);
            }
            if !at.is_null() {
                let node = Box::from_raw(at);
                match last.as_mut() {
                    Some(last) => last.next = node.next,
                    None => chain = node.next,
                }
                self.count.fetch_sub(1, Ordering::Relaxed);
                found = Some(node.run);
            }
            self.put_back(chain);
        }
        found
    }

    /// Whether there is a run of this layout.
    pub(crate) fn has(&self, layout: Layout) -> bool {
        let found = self.find(layout);
        let has = found.is_some();
        found.into_iter().for_each(|run| self.push(run));
        has
    }

    /// Puts back what is left of all nodes.
    ///
    /// # Safety
    ///
    /// It is a chain of nodes of the caller's, or null.
    unsafe fn put_back(&self, chain: *mut Node) {
        let (null, release) = (ptr::null_mut(), Ordering::Release);
        // Whole as it is, if nobody has pushed meanwhile.
        if chain.is_null()
            || self.first.compare_exchange(null, chain, release, Ordering::Relaxed).is_ok()
        {
            return;
        }
        let mut last = chain;
        // SAFETY: the nodes are ours.
        unsafe {
            while !(*last).next.is_null() {
                last = (*last).next;
            }
            self.link(chain, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::NonNull;

    fn run(at: usize, bytes: usize) -> PageRun {
        let base = NonNull::new(ptr::without_provenance_mut(at * 4096)).unwrap();
        // SAFETY: nobody follows it.
        unsafe {
            PageRun::from_parts(base, Layout::from_size_align(bytes, 4096).unwrap(), false, 7)
        }
    }

    fn all(runs: &Runs) -> Vec<usize> {
        let mut all: Vec<_> = runs.take().iter().map(|run| run.base().addr().get()).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn the_others_stay_wherever_one_is_found() {
        for place in 0..5 {
            let runs = Runs::new();
            (0..5).for_each(|at| runs.push(run(at + 1, if at == place { 8192 } else { 4096 })));
            let two = Layout::from_size_align(8192, 4096).unwrap();
            let found = runs.find(two).unwrap();
            assert_eq!((found.base().addr().get(), found.flag()), ((place + 1) * 4096, 7));
            assert!(runs.find(two).is_none());
            assert_eq!(runs.count(), 4);
            let others: Vec<_> =
                (0..5).filter(|at| *at != place).map(|at| (at + 1) * 4096).collect();
            assert_eq!(all(&runs), others);
            assert!(runs.find(two).is_none() && runs.count() == 0);
        }
    }

    /// Threads that find and push at once lose none and get none twice.
    #[test]
    fn threads_lose_no_run() {
        let runs = Runs::new();
        (1..=64).for_each(|at| runs.push(run(at, if at % 4 == 0 { 8192 } else { 4096 })));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let runs = &runs;
                scope.spawn(move || {
                    let mine = Layout::from_size_align(4096 << (thread % 2), 4096).unwrap();
                    let mut have = Vec::new();
                    for round in 0..20_000 {
                        match runs.find(mine) {
                            Some(run) if round % 3 != 0 => have.push(run),
                            Some(run) => runs.push(run),
                            None => have.drain(..).for_each(|run| runs.push(run)),
                        }
                    }
                    have.into_iter().for_each(|run| runs.push(run));
                });
            }
        });
        assert_eq!(runs.count(), 64);
        assert_eq!(all(&runs), (1..=64).map(|at| at * 4096).collect::<Vec<_>>());
    }
}
