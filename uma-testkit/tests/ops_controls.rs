//! Controls: a program finds what is wrong with a source that is wrong on purpose.

use std::alloc::Layout;
use std::cell::Cell;
use std::mem::MaybeUninit;

use uma_core::{AllocError, Item, ItemSource, PageError, Request, Stats};
use uma_testkit::ops::Op;
use uma_testkit::{Pool, Rig, caught, machine, run};

#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    SameItemTwice,
    SaysMore,
    ScribblesOnLive,
    FailsForNothing,
    LosesCount,
    StaysWanted,
    KeepsLock,
}

/// A pool with one fault.
struct Bad {
    pool: Pool,
    wrong: Wrong,
    last: Cell<Option<Item>>,
    allocs: Cell<u64>,
    frees: Cell<u64>,
}

// SAFETY: it keeps none of the promises, which harms nobody: the test stops at the first that is broken.
unsafe impl ItemSource for Bad {
    fn layout(&self) -> Layout {
        self.pool.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        if self.wrong == Wrong::FailsForNothing {
            return Err(PageError::Exhausted.into());
        }
        if let (Wrong::SameItemTwice, Some(last)) = (self.wrong, self.last.get()) {
            into[0].write(last);
            return Ok(1);
        }
        let count = self.pool.import(into, request)?;
        // SAFETY: so many were initialised.
        self.last.set(Some(unsafe { into[0].assume_init() }));
        self.allocs.set(self.allocs.get() + count as u64);
        if self.wrong == Wrong::KeepsLock {
            use uma_core::RawMutex;
            let lock = Box::leak(Box::new(machine::OneThread::INIT));
            lock.lock();
        }
        Ok(if self.wrong == Wrong::SaysMore { count + 1 } else { count })
    }

    unsafe fn release(&self, items: &[Item]) {
        self.frees.set(self.frees.get() + items.len() as u64);
        // SAFETY: passed on from the caller.
        unsafe { self.pool.release(items) };
    }

    fn wanted(&self) -> bool {
        self.wrong == Wrong::StaysWanted
    }

    fn visit_stats(&self, stats: &mut Stats) {
        let wrong = u64::from(self.wrong == Wrong::LosesCount);
        (stats.allocs, stats.frees) = (self.allocs.get(), self.frees.get() + wrong);
        if let (Wrong::ScribblesOnLive, Some(last)) = (self.wrong, self.last.get()) {
            // SAFETY: the item is out: it is memory, though not ours to write to.
            unsafe { last.as_ptr().write(!last.as_ptr().read()) };
        }
    }
}

/// What a program of a few lines says of it.
fn verdict(wrong: Wrong) -> Result<(), String> {
    machine::reset();
    let layout = Layout::from_size_align(24, 8).expect("a layout");
    let pool = Pool::new(layout, 100, 2);
    let (last, allocs, frees) = Default::default();
    let bad = Bad { pool, wrong, last, allocs, frees };
    let rig = Rig {
        source: &bad,
        is_zone: false,
        keeps_contents: false,
        closely: false,
        pages: None,
        metadata: None,
        hooks: None,
        limit: 0,
        set_limit: None,
        set_reserve: None,
        prealloc: None,
        want: None,
        check: &|_, stats, _| {
            assert!(stats.allocs != 0, "it fails, though it has items");
        },
    };
    let ops = [
        Op::AllocBatch { cpu: 0, n: 2 },
        Op::Alloc { cpu: 0, times: 1 },
        Op::Stats,
        Op::Verify,
        Op::Free { cpu: 0, i: 0, times: 0 },
    ];
    let result = caught(|| run(&ops, &rig, false)).map_err(|panic| panic.message);
    if result.is_err() {
        // What it lost is lost on purpose.
        bad.pool.allow_leaks();
    }
    result
}

#[test]
fn faults_are_found() {
    assert_eq!(verdict(Wrong::Nothing), Ok(()));
    for (wrong, message) in [
        (Wrong::SameItemTwice, "overlaps"),
        (Wrong::SaysMore, "returned 3"),
        (Wrong::ScribblesOnLive, "changed while it was out"),
        (Wrong::FailsForNothing, "it fails, though it has items"),
        (Wrong::LosesCount, "items in use"),
        (Wrong::StaysWanted, "nobody waits"),
        (Wrong::KeepsLock, "locks that are held"),
    ] {
        let said = verdict(wrong).expect_err("the program found nothing wrong");
        assert!(said.contains(message) && said.starts_with("operation "), "{said}");
    }
}
