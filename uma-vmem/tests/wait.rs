//! Callers that wait for room.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use common::{Park, now};
use parking_lot::RawMutex;
use uma_core::{Deadline, ItemSource, NoSleep, Process, Request, Sleep};
use uma_testkit::{HeapMeta, Rng};
use uma_vmem::{Arena, ArenaConfig, Constraints, Policy, QuantumSource, SegmentKind, VmemFault};

type Waiting = Arena<RawMutex, HeapMeta, Park>;

fn arena(size: usize) -> Waiting {
    let config = ArenaConfig::new("busy", 1).unwrap();
    Arena::create(config, 0, size, HeapMeta::new(), Park).unwrap()
}

/// Waits, but not for ever: who is not served fails.
fn patient() -> Request {
    Request::until(Deadline::at(now() + 100_000_000_000))
}

fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(100), "it never came about");
        thread::yield_now();
    }
}

/// In the order of arrival those whom the room suits, and nobody is held up by a larger request.
#[test]
fn served_in_order_as_far_as_it_fits() {
    let arena = arena(10);
    let at: Vec<_> =
        (0..10).map(|_| arena.alloc(1, Policy::Next, Request::WAIT).unwrap()).collect();
    let order = AtomicUsize::new(0);
    let mut came = [0; 4];
    thread::scope(|scope| {
        let wants = [4, 1, 1, 2];
        let handles = wants.map(|size| {
            let before = arena.waiting();
            let (arena, order) = (&arena, &order);
            let handle = scope.spawn(move || {
                let at = arena.alloc(size, Policy::Best, patient()).unwrap();
                (at, order.fetch_add(1, Ordering::SeqCst))
            });
            until(|| arena.waiting() > before);
            handle
        });
        let arrived = |count| until(|| order.load(Ordering::SeqCst) == count);
        arena.free(at[5], 1).unwrap();
        arrived(1);
        arena.free(at[9], 1).unwrap();
        arrived(2);
        arena.free(at[0], 1).unwrap();
        arena.free(at[1], 1).unwrap();
        arrived(3);
        assert_eq!((arena.waiting(), arena.size(SegmentKind::Free)), (1, 0));
        // Four in a row; as long as there are not, the oldest gets nothing.
        for one in [7, 3, 8] {
            arena.free(at[one], 1).unwrap();
        }
        assert_eq!((arena.waiting(), arena.size(SegmentKind::Free)), (1, 3));
        arena.free(at[6], 1).unwrap();
        for one in [2, 4] {
            arena.free(at[one], 1).unwrap();
        }
        arena.free(5, 1).unwrap();
        for (came, handle) in came.iter_mut().zip(handles) {
            *came = handle.join().unwrap().1;
        }
    });
    assert_eq!(came, [3, 0, 1, 2]);
    let stats = arena.stats();
    assert_eq!((stats.waits, stats.waiting, stats.fails), (4, 0, 0));
}

#[test]
fn deadlines() {
    let arena = arena(4);
    arena.alloc(3, Policy::Instant, Request::WAIT).unwrap();
    let start = now();
    let request = Request::until(Deadline::at(start + 20_000_000));
    let error = arena.alloc(2, Policy::Instant, request).unwrap_err();
    assert_eq!(error.fault, VmemFault::TimedOut { size: 2 });
    assert!(now() >= start + 20_000_000);
    // One that has passed is not waited for at all; what there is it gets.
    let past = Request::until(Deadline::at(1));
    assert_eq!(
        arena.alloc(2, Policy::Instant, past).unwrap_err().fault,
        VmemFault::TimedOut { size: 2 }
    );
    arena.alloc(1, Policy::Instant, past).unwrap();
    assert_eq!((arena.stats().waiting, arena.waiting()), (0, 0));
    // Who cannot sleep fails at once.
    let config = ArenaConfig::new("awake", 1).unwrap();
    let awake = Arena::<RawMutex, _, _>::new(config, HeapMeta::new(), NoSleep);
    let error = awake.alloc(1, Policy::Instant, Request::WAIT).unwrap_err();
    assert_eq!(error.fault, VmemFault::Exhausted { size: 1, free: 0 });
}

#[test]
fn a_new_span_serves_who_waits() {
    let arena = arena(1);
    arena.alloc(1, Policy::Instant, Request::WAIT).unwrap();
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| arena.alloc(2, Policy::Instant, patient()).unwrap()))
            .collect();
        until(|| arena.waiting() == 3);
        arena.add(100, 6).unwrap();
        let mut at: Vec<_> = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
        at.sort_unstable();
        assert_eq!(at, [100, 102, 104]);
    });
}

/// A parent says nothing when it has room again; it is asked.
#[test]
fn a_parent_is_asked_again() {
    let root = arena(10);
    let held = root.alloc(10, Policy::Instant, Request::NOWAIT).unwrap();
    let config = ArenaConfig::new("child", 1).unwrap().retry_every(2_000_000);
    let child = Arena::<RawMutex, _, _, _>::xcreate(config, &root, HeapMeta::new(), Park);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| child.alloc(5, Policy::Instant, patient()).unwrap());
        until(|| child.waiting() == 1);
        root.free(held, 10).unwrap();
        let at = waiter.join().unwrap();
        assert_eq!((child.stats().waits, root.stats().in_use), (1, 5));
        child.free(at, 5).unwrap();
        assert_eq!(root.stats().in_use, 0);
    });
}

/// Many threads in a small arena over another: all get what they want in the end, and all is free then.
#[test]
fn all_wait_and_all_are_served() {
    let rounds = if cfg!(debug_assertions) { 2_000 } else { 20_000 };
    let root = arena(64);
    let config = ArenaConfig::new("child", 1).unwrap().retry_every(1_000_000);
    let child = Arena::<RawMutex, _, _, _>::xcreate(config, &root, HeapMeta::new(), Park);
    let owner: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];
    thread::scope(|scope| {
        for me in 1..=6 {
            let (child, owner) = (&child, &owner);
            scope.spawn(move || {
                let mut rng = Rng::new(me as u64);
                for _ in 0..rounds {
                    let size = rng.below(20) + 1;
                    let soon = Request::until(Deadline::at(child.stats().allocs));
                    let request = if rng.one_in(8) { soon } else { Request::WAIT };
                    let Ok(at) = child.alloc(size, Policy::Instant, request) else { continue };
                    for place in &owner[at..at + size] {
                        assert_eq!(place.swap(me, Ordering::SeqCst), 0);
                    }
                    if rng.one_in(16) {
                        thread::yield_now();
                    }
                    for place in &owner[at..at + size] {
                        assert_eq!(place.swap(0, Ordering::SeqCst), me);
                    }
                    child.free(at, size).unwrap();
                }
            });
        }
    });
    let stats = child.stats();
    assert!(stats.waits > 0, "nobody had to wait: {stats:?}");
    assert_eq!((stats.size, stats.in_use, stats.waiting, stats.segments), (0, 0, 0, 0));
    assert_eq!(child.waiting(), 0);
    // No tag stays promised to those who waited.
    assert!(stats.meta_bytes <= 4096, "{stats:?}");
    assert_eq!(root.stats().in_use, 0);
}

/// What the copy of a process does to an arena that it got with its lock held and a caller in the queue: the
/// caller is forgotten, and the arena goes on. (Here the original plays the copy, once the caller is gone.)
#[test]
fn the_copy_of_a_process_goes_on() {
    let arena = arena(4);
    arena.alloc(4, Policy::Instant, Request::NOWAIT).unwrap();
    let soon = Request::until(Deadline::at(now() + 1_000_000));
    assert!(matches!(
        arena.alloc(1, Policy::Instant, soon).unwrap_err().fault,
        VmemFault::TimedOut { size: 1 }
    ));
    for process in [Process::Original, Process::Copy] {
        arena.prefork();
        // SAFETY: `prefork` was called by this thread.
        unsafe { arena.postfork(process) };
        arena.free(0, 4).unwrap();
        assert_eq!(arena.alloc(4, Policy::Instant, Request::NOWAIT).unwrap(), 0);
    }
    arena.free(0, 4).unwrap();
}

/// Who is in the copy because what it ran while it was in the queue has made it (a hook, when caches are flushed)
/// waits anew there: the queue that it stood in is not that of the copy.
#[test]
fn a_caller_that_is_in_the_copy_waits_anew() {
    let arena = arena(4);
    arena.alloc(4, Policy::Instant, Request::NOWAIT).unwrap();
    let source = QuantumSource::identifiers(&arena, 4).unwrap();
    let mut flushes = 0;
    let soon = Request::until(Deadline::at(now() + 2_000_000_000));
    let item = source.alloc_or_flush(soon, &mut || {
        flushes += 1;
        if flushes == 1 {
            arena.prefork();
            // SAFETY: `prefork` was called by this thread. It plays the copy from here on, where no other is.
            unsafe { arena.postfork(Process::Copy) };
            arena.free(0, 4).unwrap();
        }
    });
    assert_eq!((item.map(|item| source.addr_of(item)), flushes, arena.waiting()), (Ok(0), 1, 0));
    arena.free(0, 4).unwrap();
}

/// [`Park`], whose wake-ups, or whose wakers at their end, unwind once after they were told to.
struct Startled {
    wake_ups: AtomicUsize,
    ends: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Named(Thread, Arc<AtomicUsize>);

impl Drop for Named {
    fn drop(&mut self) {
        assert_ne!(self.1.swap(0, Ordering::SeqCst), 1, "as planned");
    }
}

impl Sleep for Startled {
    type Waker = Named;

    fn now(&self) -> u64 {
        Park.now()
    }

    fn waker(&self) -> Named {
        Named(Park.waker(), self.ends.clone())
    }

    fn sleep(&self, until: Deadline) {
        Park.sleep(until);
    }

    fn wake(&self, waker: &Named) {
        Park.wake(&waker.0);
        assert_ne!(self.wake_ups.swap(0, Ordering::SeqCst), 1, "as planned");
    }
}

/// A wake-up that unwinds is that of one caller: the others for whom there is room are served all the same.
#[test]
fn a_wake_up_that_unwinds_costs_the_others_nothing() {
    for at_end in [false, true] {
        let startled = Startled { wake_ups: AtomicUsize::new(0), ends: Arc::default() };
        let config = ArenaConfig::new("startled", 1).unwrap();
        let arena: Arena<RawMutex, _, _> =
            Arena::create(config, 0, 4, HeapMeta::new(), &startled).unwrap();
        let all = arena.alloc(4, Policy::Instant, Request::NOWAIT).unwrap();
        let late = patient();
        thread::scope(|scope| {
            let waiters: Vec<_> =
                (0..3).map(|_| scope.spawn(|| arena.alloc(1, Policy::Instant, late))).collect();
            until(|| arena.waiting() == 3);
            let startle = if at_end { &*startled.ends } else { &startled.wake_ups };
            startle.store(1, Ordering::SeqCst);
            let freed = catch_unwind(AssertUnwindSafe(|| arena.free(all, 4)));
            assert!(freed.is_err());
            for waiter in waiters {
                waiter.join().unwrap().expect("there was room for it");
            }
        });
        assert_eq!((arena.waiting(), arena.stats().in_use), (0, 3));
    }
}

type Probed = Arena<RawMutex, HeapMeta, Probing>;

static PROBED: OnceLock<Probed> = OnceLock::new();
/// Calls of a waker's code, those of them that found the arena's lock held, and how often it is to unwind when
/// it is dropped.
static CALLS: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);
static BREAKS: AtomicUsize = AtomicUsize::new(0);

/// A waker that looks, at each end and copy of it, whether the arena's lock is held. There is one thread, so
/// nobody else can have it.
struct Probe;

impl Probe {
    fn look() {
        CALLS.fetch_add(1, Ordering::SeqCst);
        let found = PROBED.get().unwrap().try_xalloc(1000, Constraints::new(), Policy::Best);
        if found.unwrap_err().fault == VmemFault::Busy {
            HELD.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self::look();
        Self
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        Self::look();
        let breaks = BREAKS.load(Ordering::SeqCst);
        if breaks != 0 {
            BREAKS.store(breaks - 1, Ordering::SeqCst);
            panic!("as planned");
        }
    }
}

/// Whoever sleeps frees itself what it waits for.
struct Probing;

impl Sleep for Probing {
    type Waker = Probe;

    fn now(&self) -> u64 {
        now()
    }

    fn waker(&self) -> Probe {
        Probe
    }

    fn sleep(&self, _: Deadline) {
        let arena = PROBED.get().unwrap();
        let freed = catch_unwind(AssertUnwindSafe(|| arena.free(0, 4)));
        assert!(freed.is_err() || freed.unwrap().is_ok());
    }

    fn wake(&self, _: &Probe) {
        Probe::look();
    }
}

/// Wakers are code of somebody else: no clone, wake-up or end of one runs under the arena's lock. One that
/// unwinds at its end has woken its caller all the same.
#[test]
fn wakers_run_without_the_lock() {
    let config = ArenaConfig::new("probed", 1).unwrap();
    let arena =
        PROBED.get_or_init(|| Arena::create(config, 0, 4, HeapMeta::new(), Probing).unwrap());
    for breaks in 0..2 {
        assert_eq!(arena.alloc(4, Policy::Instant, Request::NOWAIT).unwrap(), 0);
        BREAKS.store(breaks, Ordering::SeqCst);
        assert_eq!(arena.alloc(2, Policy::Instant, patient()).unwrap(), 0);
        assert_eq!((arena.waiting(), BREAKS.load(Ordering::SeqCst)), (0, 0));
        arena.free(0, 2).unwrap();
    }
    // One that is not served drops its waker itself, and so does one that need not wait.
    let all = arena.alloc(4, Policy::Instant, patient()).unwrap();
    assert!(arena.alloc(1, Policy::Instant, Request::until(Deadline::at(1))).is_err());
    arena.free(all, 4).unwrap();
    // A wake-up and an end for each of those served, and the end of the third.
    assert!(CALLS.load(Ordering::SeqCst) >= 5);
    assert_eq!(HELD.load(Ordering::SeqCst), 0, "of {CALLS:?} calls so many ran under the lock");
}

type Importing = Arena<RawMutex, HeapMeta, Chained, &'static Waiting>;

static ROOT: OnceLock<Waiting> = OnceLock::new();
static CHILD: OnceLock<Importing> = OnceLock::new();

/// [`Park`], whose first wake-up frees another segment, and whose second unwinds.
struct Chained(AtomicUsize);

impl Sleep for Chained {
    type Waker = Thread;

    fn now(&self) -> u64 {
        Park.now()
    }

    fn waker(&self) -> Thread {
        Park.waker()
    }

    fn sleep(&self, until: Deadline) {
        Park.sleep(until);
    }

    fn wake(&self, waker: &Thread) {
        Park.wake(waker);
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => {
                let freed = catch_unwind(AssertUnwindSafe(|| CHILD.get().unwrap().free(10, 4)));
                assert!(freed.is_err(), "the second wake-up was not of this free");
            }
            1 => panic!("as planned"),
            _ => {}
        }
    }
}

/// A span that is free, though its last free served somebody else, goes back also if that one's wake-up unwinds.
#[test]
fn a_span_goes_back_though_a_wake_up_unwinds() {
    let root = ROOT.get_or_init(|| arena(14));
    let config = ArenaConfig::new("child", 1).unwrap();
    let chained = Chained(AtomicUsize::new(0));
    let child = CHILD.get_or_init(|| Arena::xcreate(config, root, HeapMeta::new(), chained));
    for (size, at) in [(10, 0), (4, 10)] {
        assert_eq!(child.alloc(size, Policy::Instant, Request::NOWAIT).unwrap(), at);
    }
    assert_eq!((root.stats().in_use, child.stats().spans), (14, 2));
    thread::scope(|scope| {
        let waiters: Vec<_> = [(2, 1), (6, 2)]
            .into_iter()
            .map(|(size, count)| {
                let waiter = scope.spawn(move || child.alloc(size, Policy::Best, patient()));
                until(|| child.waiting() == count);
                waiter
            })
            .collect();
        // It serves the first; the free in its wake-up has room for the second only here, too.
        child.free(0, 10).unwrap();
        for waiter in waiters {
            assert!(waiter.join().unwrap().unwrap() < 10);
        }
    });
    let stats = child.stats();
    assert_eq!((stats.in_use, stats.spans, stats.imported), (8, 1, 10));
    assert_eq!(root.stats().in_use, 10, "a span that is nobody's");
}
