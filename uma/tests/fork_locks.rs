//! Locks of the user's own around zones, and under them, in a process that forks: nobody waits for ever, in neither
//! process, and what they guard is whole in the copy.
#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use uma::core::{PageError, PageRun, PageSupplier, Process, RawMutex, Request};
use uma::{ForkLocks, Host, HostLock, Platform, RawZone, Reclaim, WithPages};
use uma_testkit::in_a_copy;

/// The books that the lock guards: both are the same.
struct Books(HostLock, UnsafeCell<[u64; 2]>);

// SAFETY: the numbers are touched under the lock only.
unsafe impl Sync for Books {}

static BOOKS: Books = Books(HostLock::INIT, UnsafeCell::new([0; 2]));
/// How often a lock was let go of after a fork, in this process.
static LET_GO: AtomicUsize = AtomicUsize::new(0);
static LOCKS: ForkLocks = ForkLocks::new(|| BOOKS.0.try_lock(), let_go);

unsafe fn let_go(_: Process) {
    LET_GO.fetch_add(1, Ordering::Relaxed);
    // SAFETY: it was taken before.
    unsafe { BOOKS.0.unlock() }
}

/// Makes an entry, and does something meanwhile.
fn entry(meanwhile: impl FnOnce()) {
    BOOKS.0.lock();
    // SAFETY: we have the lock.
    unsafe {
        let numbers = &mut *BOOKS.1.get();
        assert_eq!(numbers[0], numbers[1], "half an entry");
        numbers[0] += 1;
        meanwhile();
        numbers[1] += 1;
        BOOKS.0.unlock();
    }
}

/// The pages of the host, entered into the books.
struct Entered;

static ENTERED: Entered = Entered;

// SAFETY: runs are those of the host.
unsafe impl PageSupplier for Entered {
    fn page_size(&self) -> usize {
        Host.pages().page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        entry(|| ());
        Host.pages().alloc_pages(layout, request)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        entry(|| ());
        // SAFETY: passed on from the caller.
        unsafe { Host.pages().free_pages(run) }
    }
}

#[test]
fn locks_above_the_engine_and_below() {
    LOCKS.install();
    LOCKS.install();
    // Headers inside: nothing is asked of the metadata, whose kegs are not of these pages.
    let below =
        RawZone::builder_in("below", Layout::new::<[u8; 500]>(), WithPages::new(Host, &ENTERED));
    let below = below.build().unwrap();
    let above = RawZone::builder("above", Layout::new::<[u8; 600]>()).build().unwrap();
    let stop = AtomicBool::new(false);
    let use_both = || {
        let items: Vec<_> = (0..20).map(|_| below.alloc(Request::NOWAIT).unwrap()).collect();
        entry(|| {
            let item = above.alloc(Request::NOWAIT).unwrap();
            // SAFETY: it came from there and was not used.
            unsafe { above.free(item) };
        });
        // SAFETY: they came from there and were not used.
        items.into_iter().for_each(|item| unsafe { below.free(item) });
        below.reclaim(Reclaim::DrainCpu);
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    use_both();
                }
            });
        }
        for _ in 0..30 {
            let status = in_a_copy(|| {
                use_both();
                true
            });
            assert_eq!(status, 0, "in the copy");
            std::thread::sleep(Duration::from_micros(500));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(LET_GO.load(Ordering::Relaxed), 30, "once for each fork");
}
