//! Models of what shares a limit's queue with threads that sleep on it: tasks, which may give up at any
//! time, and the zones of a group.
//!
//! Run by `ci/loom.sh`.
#![cfg(any(loom, shuttle))]

mod loom_support;

use std::num::NonZeroU64;
use std::pin::pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom_support::{Lock, Mutex, Notify, Parking, Pool, check, join, spawn, touch, yield_now};
use uma_core::{Grouped, Item, ItemSource, LimitGroup, Limited, RawMutex, Request};

type Limit = Limited<Pool, Lock, Parking>;
type Group = LimitGroup<'static, Lock, Parking>;

fn limit(max: u64, pool: Pool) -> Arc<Limit> {
    Arc::new(Limited::new(pool, NonZeroU64::new(max), Parking))
}

fn give(source: &impl ItemSource, item: Item) {
    touch(item);
    // SAFETY: every caller took it from this source and gives it up.
    unsafe { source.free(item) };
}

fn over(limit: &Limit) {
    assert_eq!((limit.items(), limit.sleepers()), (0, 0));
    assert!(!limit.wanted());
}

struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// Takes an item as a task does; if it is not there at once, gives up or waits.
fn take(limit: &Limit, patient: bool) -> Option<Item> {
    let bell = Arc::new(Bell(Notify::new()));
    let waker = Waker::from(bell.clone());
    let mut place = pin!(limit.place(|| {}));
    loop {
        if let Poll::Ready(place) = place.as_mut().poll(&mut Context::from_waker(&waker)) {
            let place = place.unwrap();
            let item = limit.source().alloc(Request::NOWAIT).unwrap();
            touch(item);
            place.used();
            return Some(item);
        }
        if !patient {
            return None;
        }
        bell.0.wait();
    }
}

/// A free serves a task that waits, whenever it comes.
#[test]
fn a_free_serves_the_task() {
    check("a_free_serves_the_task", 3, || {
        let limit = limit(1, Pool::new(1));
        let item = limit.alloc(Request::NOWAIT).unwrap();
        let there = limit.clone();
        let task = spawn(move || give(&*there, take(&there, true).unwrap()));
        give(&*limit, item);
        join(task);
        over(&limit);
    });
}

/// A task gives up just as it is granted its item: it is the one or the other, and the place is not lost.
#[test]
fn a_task_that_gives_up_meets_a_grant() {
    check("a_task_that_gives_up_meets_a_grant", 3, || {
        let limit = limit(1, Pool::new(1));
        let item = limit.alloc(Request::NOWAIT).unwrap();
        let there = limit.clone();
        let task = spawn(move || {
            if let Some(item) = take(&there, false) {
                give(&*there, item);
            }
        });
        give(&*limit, item);
        join(task);
        over(&limit);
        let item = limit.alloc(Request::NOWAIT).unwrap();
        give(&*limit, item);
    });
}

/// Whoever stands behind a task that gives up is served all the same.
#[test]
fn a_task_gives_up_in_front_of_a_sleeper() {
    check("a_task_gives_up_in_front_of_a_sleeper", 3, || {
        let limit = limit(1, Pool::new(1));
        let item = limit.alloc(Request::NOWAIT).unwrap();
        let impatient = {
            let limit = limit.clone();
            spawn(move || {
                if let Some(item) = take(&limit, false) {
                    give(&*limit, item);
                }
            })
        };
        let sleeper = {
            let limit = limit.clone();
            spawn(move || give(&*limit, limit.alloc(Request::WAIT).unwrap()))
        };
        give(&*limit, item);
        join(impatient);
        join(sleeper);
        over(&limit);
    });
}

/// A zone of a group, with a cache for one item that keeps to the protocol of caches.
struct Member {
    grouped: Grouped<'static, Pool, Lock, Parking>,
    cached: Mutex<Option<Item>>,
}

impl Member {
    fn new(group: &'static Group) -> Arc<Self> {
        let grouped = Grouped::new(Pool::new(1), Some(group));
        let member = Arc::new(Self { grouped, cached: Mutex::new(None) });
        // SAFETY: it stays in its `Arc`, and leaves before that ends.
        unsafe {
            member.grouped.join(Arc::as_ptr(&member).cast(), |member| {
                (*member.cast::<Self>()).settle();
            });
        }
        member
    }

    fn settle(&self) {
        if self.grouped.wanted() {
            let item = self.cached.lock().unwrap().take();
            if let Some(item) = item {
                give(&self.grouped, item);
            }
        }
    }

    fn free(&self, item: Item) {
        touch(item);
        *self.cached.lock().unwrap() = Some(item);
        self.settle();
    }
}

/// An item that another zone of the group frees into its own cache serves the sleeper of this one, whenever
/// that comes.
#[test]
fn the_cache_of_another_zone_serves_the_sleeper() {
    check("the_cache_of_another_zone_serves_the_sleeper", 3, || {
        let each = Pool::new(0).layout().size() as u64;
        let root = Box::into_raw(Box::new(Group::new("root", NonZeroU64::new(each), Parking)));
        // SAFETY: it is freed below, when nothing uses it any more.
        let group = unsafe { &*root };
        let (a, b) = (Member::new(group), Member::new(group));
        let item = a.grouped.alloc(Request::NOWAIT).unwrap();
        let sleeper = {
            let b = b.clone();
            spawn(move || {
                let item = b.grouped.alloc(Request::WAIT).unwrap();
                give(&b.grouped, item);
            })
        };
        a.free(item);
        join(sleeper);
        for member in [a, b] {
            if let Some(item) = member.cached.lock().unwrap().take() {
                give(&member.grouped, item);
            }
            member.grouped.leave(|| unreachable!("nobody visits"));
        }
        assert_eq!((group.bytes(), group.sleepers()), (0, 0));
        // SAFETY: it came from the box above.
        drop(unsafe { Box::from_raw(root) });
    });
}

/// A lock that is not taken, and not held, once forks do not know of it any more.
struct Known(Lock);

/// Not cells of the model: they watch it, and are no part of it.
static HELD: AtomicUsize = AtomicUsize::new(0);
static LEFT: AtomicBool = AtomicBool::new(false);

// SAFETY: forwards to a lock.
unsafe impl RawMutex for Known {
    #[allow(clippy::declare_interior_mutable_const, reason = "the trait asks for it")]
    const INIT: Self = Self(Lock::INIT);

    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        self.0.lock();
        HELD.fetch_add(1, Ordering::SeqCst);
        assert!(!LEFT.load(Ordering::SeqCst), "a lock is taken that no fork knows of");
    }

    fn try_lock(&self) -> bool {
        unreachable!("it is not tried")
    }

    unsafe fn unlock(&self) {
        HELD.fetch_sub(1, Ordering::SeqCst);
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.unlock() }
    }
}

/// The last sleeper of a group goes, and its zone, while somebody changes the limit: once the zone has left, so that
/// a fork would not find the group, nobody has one of its locks.
#[test]
fn the_last_zone_leaves_while_the_limit_changes() {
    check("the_last_zone_leaves_while_the_limit_changes", 3, || {
        LEFT.store(false, Ordering::SeqCst);
        let each = Pool::new(0).layout().size() as u64;
        let bytes = NonZeroU64::new(each);
        let root = Box::into_raw(Box::new(LimitGroup::<Known, _>::new("root", bytes, Parking)));
        // SAFETY: it is freed below, when nothing uses it any more.
        let group = unsafe { &*root };
        let zone = Grouped::new(Pool::new(1), Some(group));
        // SAFETY: it stays in place, and leaves below.
        unsafe { zone.join(ptr::null(), |_| ()) };
        let item = zone.alloc(Request::NOWAIT).unwrap();
        let changes = spawn(move || group.set_max_bytes(NonZeroU64::new(each - 1)));
        {
            let mut place = pin!(zone.place(|| {}));
            let _ = place.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        give(&zone, item);
        zone.leave(yield_now);
        LEFT.store(true, Ordering::SeqCst);
        assert_eq!(HELD.load(Ordering::SeqCst), 0, "a lock is held that no fork knows of");
        join(changes);
        assert_eq!((group.bytes(), group.sleepers()), (0, 0));
        drop(zone);
        // SAFETY: it came from the box above.
        drop(unsafe { Box::from_raw(root) });
    });
}

/// One waits in the inner group and one at the root, who holds what the other waits for: no circle.
#[test]
fn two_levels_of_sleepers() {
    check("two_levels_of_sleepers", 3, || {
        let each = Pool::new(0).layout().size() as u64;
        let root = Box::into_raw(Box::new(Group::new("root", NonZeroU64::new(each), Parking)));
        // SAFETY: both are freed below, when nothing uses them any more.
        let outer = unsafe { &*root };
        let part = Group::within(outer, "part", NonZeroU64::new(each), Parking);
        let part = Box::into_raw(Box::new(part));
        // SAFETY: as above.
        let inner = unsafe { &*part };
        let zone = |group| Arc::new(Grouped::new(Pool::new(2), Some(group)));
        let (a, b) = (zone(outer), zone(inner));
        let item = a.alloc(Request::NOWAIT).unwrap();
        let sleeper = || {
            let b = b.clone();
            spawn(move || give(&*b, b.alloc(Request::WAIT).unwrap()))
        };
        let (one, two) = (sleeper(), sleeper());
        give(&*a, item);
        join(one);
        join(two);
        assert_eq!((outer.bytes(), inner.bytes()), (0, 0));
        drop((a, b));
        // SAFETY: they came from the boxes above.
        drop(unsafe { (Box::from_raw(part), Box::from_raw(root)) });
    });
}
