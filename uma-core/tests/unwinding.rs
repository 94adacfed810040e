//! A task's wake-up is code of the user's executor, and may unwind: then nothing is lost but that wake-up.
#![cfg(not(any(loom, shuttle)))]

use std::alloc::Layout;
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Wake, Waker};

use parking_lot::RawMutex;
use uma_core::{AllocError, Grouped, Item, ItemSource, LimitGroup, Limited, NoSleep, Request};
use uma_testkit::{Pool, caught};

type Group = LimitGroup<'static, RawMutex, NoSleep>;

const ITEM: Layout = Layout::new::<u64>();

const fn bytes(count: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(count)
}

struct Startled;

impl Wake for Startled {
    fn wake(self: Arc<Self>) {
        panic!("as planned");
    }
}

/// Has a task wait whose wake-up unwinds.
fn wait(mut task: Pin<&mut dyn Future<Output = ()>>) {
    let waker = Waker::from(Arc::new(Startled));
    assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
}

fn must_unwind(body: impl FnOnce()) {
    assert!(caught(body).expect_err("a wake-up unwinds").is_planned());
}

/// Room that comes back does so in every group on the way up.
#[test]
fn room_goes_back_everywhere() {
    static ROOT: Group = LimitGroup::new("root", bytes(100), NoSleep);
    static INNER: Group = LimitGroup::within(&ROOT, "inner", bytes(8), NoSleep);
    let pool = Pool::new(ITEM, 10, 4);
    let zone = Grouped::new(&pool, Some(&INNER));
    let item = zone.alloc(Request::NOWAIT).unwrap();
    assert_eq!((INNER.bytes(), ROOT.bytes()), (8, 8));
    let mut task = Box::pin(async { drop(zone.place(|| {}).await) });
    wait(task.as_mut());
    // SAFETY: the item came from there, and is given up.
    must_unwind(|| unsafe { zone.free(item) });
    assert_eq!((INNER.bytes(), ROOT.bytes()), (8, 0), "what was the item's is the task's");
    drop(task);
    assert_eq!((INNER.bytes(), ROOT.bytes(), pool.out()), (0, 0, 0));
}

/// What is written off is so in every group on the way up.
#[test]
fn losses_are_written_off_everywhere() {
    static ROOT: Group = LimitGroup::new("root", bytes(100), NoSleep);
    static MIDDLE: Group = LimitGroup::within(&ROOT, "middle", None, NoSleep);
    static INNER: Group = LimitGroup::within(&MIDDLE, "inner", bytes(8), NoSleep);
    let pool = Pool::new(ITEM, 10, 4);
    let zone = Grouped::new(&pool, Some(&INNER));
    let item = zone.alloc(Request::NOWAIT).unwrap();
    zone.lose(1);
    let mut task = Box::pin(async { drop(zone.place(|| {}).await) });
    wait(task.as_mut());
    must_unwind(|| _ = INNER.write_off());
    drop(task);
    for group in [&INNER, &MIDDLE, &ROOT] {
        assert_eq!((group.lost_bytes(), group.bytes()), (0, 0), "{}", group.name());
    }
    // SAFETY: the item came from the pool, and is given up.
    unsafe { pool.free(item) };
}

/// A limit that is lowered refuses who needs more, and has all caches drained, whatever the refused one does.
#[test]
fn a_limit_that_is_lowered_drains() {
    static GROUP: Group = LimitGroup::new("group", bytes(16), NoSleep);
    static SETTLED: AtomicUsize = AtomicUsize::new(0);
    unsafe fn settle(_: *const ()) {
        SETTLED.fetch_add(1, Ordering::Relaxed);
    }
    let (small, large) = (Pool::new(ITEM, 10, 4), Pool::new(Layout::new::<[u64; 2]>(), 10, 4));
    let (cached, zone) = (Grouped::new(&small, Some(&GROUP)), Grouped::new(&large, Some(&GROUP)));
    // SAFETY: it stays where it is until it leaves.
    unsafe { cached.join(std::ptr::null(), settle) };
    let items = [(); 2].map(|()| cached.alloc(Request::NOWAIT).unwrap());
    let mut task = Box::pin(async { assert!(zone.place(|| {}).await.is_err()) });
    wait(task.as_mut());
    let before = SETTLED.load(Ordering::Relaxed);
    must_unwind(|| GROUP.set_max_bytes(bytes(8)));
    assert!(SETTLED.load(Ordering::Relaxed) > before, "the caches hold more than the limit");
    assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    cached.leave(|| {});
    // SAFETY: the items came from there, and are given up.
    items.into_iter().for_each(|item| unsafe { cached.free(item) });
}

thread_local! {
    /// What is done in the middle of the next import.
    static MEANWHILE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    /// The task that came to wait there.
    static TASK: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>> = const { RefCell::new(None) };
}

/// A pool in whose imports something else happens, too.
struct During(&'static LazyLock<Pool>);

// SAFETY: forwards to a source that keeps the contract.
unsafe impl ItemSource for During {
    fn layout(&self) -> Layout {
        self.0.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        if let Some(act) = MEANWHILE.take() {
            act();
        }
        self.0.import(into, request)
    }

    unsafe fn release(&self, items: &[Item]) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.release(items) };
    }
}

/// Imports four where the source has two at once, while a task comes to wait for room: what was charged too much
/// goes to it, and its wake-up unwinds.
fn import_in_vain(
    zone: &impl ItemSource,
    task: impl FnOnce() -> Pin<Box<dyn Future<Output = ()>>>,
) {
    let mut task = task();
    // Made before, so that it may be `'static`; it waits from the middle of the import on.
    MEANWHILE.set(Some(Box::new(move || {
        wait(task.as_mut());
        TASK.set(Some(task));
    })));
    let mut into = [MaybeUninit::uninit(); 4];
    must_unwind(|| _ = zone.import(&mut into, Request::NOWAIT));
}

#[test]
fn a_batch_at_a_limit_goes_back() {
    static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(ITEM, 10, 2));
    static ZONE: Limited<During, RawMutex, NoSleep> =
        Limited::new(During(&POOL), bytes(4), NoSleep);
    import_in_vain(&ZONE, || Box::pin(async { drop(ZONE.place(|| {}).await) }));
    assert_eq!((POOL.out(), ZONE.items()), (0, 1), "items that nobody has");
    TASK.set(None);
    assert_eq!((ZONE.items(), ZONE.sleepers()), (0, 0));
}

#[test]
fn a_batch_in_a_group_goes_back() {
    static GROUP: Group = LimitGroup::new("group", bytes(32), NoSleep);
    static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(ITEM, 10, 2));
    static ZONE: Grouped<'static, During, RawMutex, NoSleep> =
        Grouped::new(During(&POOL), Some(&GROUP));
    import_in_vain(&ZONE, || Box::pin(async { drop(ZONE.place(|| {}).await) }));
    assert_eq!((POOL.out(), GROUP.bytes()), (0, 8), "items that nobody has");
    TASK.set(None);
    assert_eq!((GROUP.bytes(), GROUP.sleepers()), (0, 0));
}
