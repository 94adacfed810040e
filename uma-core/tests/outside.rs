//! Who changes a group's limit is of no zone in it. While he has a lock of the group, forks must know of a zone:
//! the last one does not leave meanwhile.
#![cfg(not(any(loom, shuttle)))]

use std::alloc::Layout;
use std::cell::RefCell;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::task::{Context, Waker};
use std::thread;

use uma_core::{Grouped, ItemSource, LimitGroup, NoSleep, Process, RawMutex, Request};
use uma_testkit::Pool;

thread_local! {
    /// What happens just before this thread takes a lock next.
    static BEFORE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

struct Lock(parking_lot::RawMutex);

// SAFETY: forwards to a lock.
unsafe impl RawMutex for Lock {
    #[allow(clippy::declare_interior_mutable_const, reason = "the trait asks for it")]
    const INIT: Self = Self(parking_lot::RawMutex::INIT);

    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        if let Some(before) = BEFORE.take() {
            before();
        }
        self.0.lock();
    }

    fn try_lock(&self) -> bool {
        self.0.try_lock()
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.unlock() }
    }
}

type Group = LimitGroup<'static, Lock, NoSleep>;
type Zone = Grouped<'static, &'static Pool, Lock, NoSleep>;

const ITEM: Layout = Layout::new::<u64>();

fn bytes(count: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(count)
}

/// A zone that has joined, with an item out, which is all that its group allows.
fn full(group: &'static Group) -> &'static Zone {
    let pool: &'static Pool = Box::leak(Box::new(Pool::new(ITEM, 10, 1)));
    let zone: &'static Zone = Box::leak(Box::new(Grouped::new(pool, Some(group))));
    // SAFETY: it stays there for ever.
    unsafe { zone.join(ptr::null(), |_| ()) };
    zone.alloc(Request::NOWAIT).unwrap();
    zone
}

/// A task that waits for room in the zone's group.
fn waiting(zone: &'static Zone) -> Pin<Box<dyn Future<Output = ()>>> {
    let mut task: Pin<Box<dyn Future<Output = ()>>> =
        Box::pin(async { drop(zone.place(|| ()).await) });
    assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    task
}

/// Has the zone leave, on another thread, just before this one takes a lock in `change`, where the last sleeper
/// goes as well.
fn leaves_before_the_lock(
    zone: &'static Zone,
    task: Option<Pin<Box<dyn Future<Output = ()>>>>,
    change: impl FnOnce(),
) {
    let flag = || &*Box::leak(Box::new(AtomicBool::new(false)));
    let (left, waited) = (flag(), flag());
    let (go, goes) = sync_channel(1);
    let (found, finds) = sync_channel(1);
    let leaver = thread::spawn(move || {
        goes.recv().unwrap();
        zone.leave(|| {
            waited.store(true, Ordering::SeqCst);
            thread::yield_now();
        });
        left.store(true, Ordering::SeqCst);
    });
    BEFORE.set(Some(Box::new(move || {
        drop(task);
        go.send(()).unwrap();
        while !waited.load(Ordering::SeqCst) && !left.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        found.send(left.load(Ordering::SeqCst)).unwrap();
    })));
    change();
    assert!(!finds.try_recv().expect("a lock is taken"), "a lock is taken that no fork knows of");
    leaver.join().unwrap();
}

#[test]
fn the_last_zone_waits_for_a_change_of_the_limit() {
    static ROOT: Group = LimitGroup::new("root", None, NoSleep);
    static INNER: Group = LimitGroup::within(&ROOT, "inner", NonZeroU64::new(8), NoSleep);
    // To refuse those who wait, to serve them, and for want of a limit.
    for to in [bytes(4), bytes(20), None] {
        INNER.set_max_bytes(bytes(INNER.bytes() + 8));
        let zone = full(&INNER);
        let task = waiting(zone);
        leaves_before_the_lock(zone, Some(task), || INNER.set_max_bytes(to));
        // With nobody there, no lock is taken.
        BEFORE.set(Some(Box::new(|| panic!("a lock is taken that no fork knows of"))));
        INNER.set_max_bytes(bytes(1));
        BEFORE.take();
    }
}

#[test]
fn the_last_zone_waits_for_a_drain() {
    static ROOT: Group = LimitGroup::new("root", None, NoSleep);
    static INNER: Group = LimitGroup::within(&ROOT, "inner", NonZeroU64::new(8), NoSleep);
    let zone = full(&INNER);
    leaves_before_the_lock(zone, None, || INNER.set_max_bytes(bytes(1)));
}

#[test]
fn the_last_zone_waits_for_a_write_off() {
    static ROOT: Group = LimitGroup::new("root", NonZeroU64::new(8), NoSleep);
    static INNER: Group = LimitGroup::within(&ROOT, "inner", None, NoSleep);
    let zone = full(&INNER);
    zone.lose(1);
    let task = waiting(zone);
    leaves_before_the_lock(zone, Some(task), || _ = INNER.write_off());
    assert_eq!((ROOT.bytes(), ROOT.sleepers()), (0, 0));
}

/// Those who wait in a stack that has not joined are served all the same.
#[test]
fn who_has_not_joined_is_served() {
    static GROUP: Group = LimitGroup::new("alone", NonZeroU64::new(8), NoSleep);
    let pool: &'static Pool = Box::leak(Box::new(Pool::new(ITEM, 10, 1)));
    let zone: &'static Zone = Box::leak(Box::new(Grouped::new(pool, Some(&GROUP))));
    zone.alloc(Request::NOWAIT).unwrap();
    let mut task = waiting(zone);
    GROUP.set_max_bytes(bytes(16));
    assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

/// Whoever has a lock when the process is copied is not in the copy, and nobody waits for him there.
#[cfg(unix)]
#[test]
fn nobody_waits_in_a_copy() {
    static GROUP: Group = LimitGroup::new("copied", NonZeroU64::new(8), NoSleep);
    let zone = full(&GROUP);
    let task = waiting(zone);
    let (found, finds) = sync_channel(1);
    BEFORE.set(Some(Box::new(move || {
        zone.prefork();
        let in_copy = uma_testkit::in_a_copy(|| {
            // SAFETY: `prefork` was called before the copy was made.
            unsafe { zone.postfork(Process::Copy) };
            zone.leave(|| std::process::exit(2));
            true
        });
        // SAFETY: `prefork` was called above.
        unsafe { zone.postfork(Process::Original) };
        found.send(in_copy).unwrap();
    })));
    GROUP.set_max_bytes(bytes(16));
    assert_eq!(finds.try_recv().expect("a lock is taken"), 0);
    drop(task);
    zone.leave(|| panic!("nobody has a lock"));
}
