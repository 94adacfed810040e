//! Tasks that wait at a limit, on an executor written by hand.
#![cfg(feature = "async")]

use std::collections::VecDeque;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use uma::core::{AllocError, FnHooks, Item, Refused, Request};
use uma::{ObjectCache, Park, RawZone, Zone, ZoneGroup};

/// Counts how often a task was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A task that the test polls by hand.
struct Task<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    woken: Arc<Woken>,
}

impl<'a, T> Task<'a, T> {
    fn new(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self { future: Box::pin(future), woken: Arc::default() }
    }

    fn poll(&mut self) -> Option<T> {
        let waker = Waker::from(self.woken.clone());
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    fn woken(&self) -> usize {
        self.woken.0.load(SeqCst)
    }
}

/// Runs a future on this thread, which is parked meanwhile.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

fn zone(max: u64) -> Zone<u64> {
    Zone::builder("tasks").max_items(max).build().unwrap()
}

#[test]
fn a_task_is_served_like_a_thread() {
    let zone = zone(1);
    let first = block_on(zone.alloc_async(1)).unwrap();
    let mut task = Task::new(zone.alloc_async(2));
    assert!(task.poll().is_none() && task.poll().is_none());
    assert!(zone.exhausted() && zone.try_alloc(3).is_err());
    assert_eq!(task.woken(), 0);
    drop(first);
    assert_eq!(task.woken(), 1);
    assert_eq!(*task.poll().unwrap().unwrap(), 2);
    drop(task);
    assert_eq!((zone.exhausted(), zone.cur_items()), (false, 0));
}

/// Threads and tasks in one queue: a thread first, then a task, then a thread.
#[test]
fn tasks_and_threads_are_served_in_order() {
    let zone = zone(1);
    let first = zone.alloc(0).unwrap();
    let served = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..30 {
            let (zone, served) = (&zone, &served);
            scope.spawn(move || {
                let wait = || async {
                    let value = zone.alloc_async(number).await.unwrap();
                    served.lock().unwrap().push(*value);
                };
                if number % 2 == 0 {
                    let value = zone.alloc(number).unwrap();
                    served.lock().unwrap().push(*value);
                } else {
                    block_on(wait());
                }
            });
            while zone.stats().sleepers != number + 1 {
                thread::yield_now();
            }
        }
        drop(first);
    });
    assert!(served.into_inner().unwrap().into_iter().eq(0..30));
}

#[test]
fn a_dropped_future_leaves_the_queue() {
    let zone = zone(1);
    let held = zone.alloc(0).unwrap();
    let mut tasks: Vec<_> = (1..=5).map(|n| Task::new(zone.alloc_async(n))).collect();
    assert!(tasks.iter_mut().all(|task| task.poll().is_none()));
    // In the middle, at the front, at the end.
    for index in [2, 0, 2] {
        drop(tasks.remove(index));
    }
    assert_eq!(zone.stats().sleepers, 2);
    drop(held);
    assert_eq!(tasks.iter().map(Task::woken).collect::<Vec<_>>(), [1, 0]);
    // One that has been granted its item gives it to the next.
    drop(tasks.remove(0));
    assert_eq!(tasks[0].woken(), 1);
    drop(tasks);
    assert_eq!((zone.stats().sleepers, zone.cur_items()), (0, 0));
    zone.try_alloc(1).unwrap();
    // One that was never polled is in no queue.
    drop(zone.alloc_async(1));
    assert_eq!(zone.cur_items(), 0);
}

/// A future that moves to another task is woken there.
#[test]
fn the_last_waker_is_woken() {
    let zone = zone(1);
    let held = zone.alloc(0).unwrap();
    let mut task = Task::new(zone.alloc_async(1));
    assert!(task.poll().is_none());
    let old = std::mem::take(&mut task.woken);
    assert!(task.poll().is_none());
    assert_eq!(Arc::strong_count(&old), 1, "the old waker is kept");
    drop(held);
    assert_eq!((task.woken(), old.0.load(SeqCst)), (1, 0));
    assert!(task.poll().unwrap().is_ok());
}

#[test]
fn a_raised_limit_serves_tasks() {
    let zone = zone(1);
    let _held = zone.alloc(0).unwrap();
    let mut tasks: Vec<_> = (0..4).map(|n| Task::new(zone.alloc_async(n))).collect();
    assert!(tasks.iter_mut().all(|task| task.poll().is_none()));
    zone.set_max_items(NonZeroU64::new(3)).unwrap();
    assert_eq!(tasks.iter().map(Task::woken).collect::<Vec<_>>(), [1, 1, 0, 0]);
    zone.set_max_items(None).unwrap();
    assert!(tasks.iter_mut().all(|task| task.poll().is_some_and(|value| value.is_ok())));
}

/// What is in other CPUs' caches is found by a task, too: it does not wait at all.
#[test]
fn a_task_drains_the_caches() {
    let zone = Zone::<[u64; 8]>::builder("drained").max_items(100).build().unwrap();
    for _ in 0..4 {
        thread::scope(|scope| {
            scope.spawn(|| drop([0; 100].map(|n| zone.alloc([n; 8]).unwrap())));
        });
    }
    let live: Vec<_> = (0..100).map(|n| Task::new(zone.alloc_async([n; 8])).poll()).collect();
    assert!(live.iter().all(|value| value.as_ref().is_some_and(Result::is_ok)));
}

/// A waker that panics does not keep others from being served.
#[test]
fn a_waker_that_panics_costs_nobody_else_his_turn() {
    struct Bad;

    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("as planned");
        }
    }

    let zone = zone(1);
    let _held = zone.alloc(0).unwrap();
    let mut bad = Box::pin(zone.alloc_async(1));
    let waker = Waker::from(Arc::new(Bad));
    assert!(bad.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut good = Task::new(zone.alloc_async(2));
    assert!(good.poll().is_none());
    let raise = std::panic::AssertUnwindSafe(|| zone.set_max_items(None));
    assert!(std::panic::catch_unwind(raise).is_err());
    assert_eq!(good.woken(), 1);
    drop(bad);
    assert!(good.poll().unwrap().is_ok());
}

#[test]
fn objects_and_groups_serve_tasks() {
    static GROUP: ZoneGroup = ZoneGroup::new("outer", NonZeroU64::new(64), Park);
    static INNER: ZoneGroup = ZoneGroup::within(&GROUP, "inner", NonZeroU64::new(64), Park);
    let objects = ObjectCache::<[u64; 4]>::builder("objects").init(|| [7; 4]).group(&INNER);
    let objects = objects.max_items(3).build().unwrap();
    let others = Zone::<[u64; 8]>::builder("others").group(&GROUP).build().unwrap();
    let other = others.alloc([0; 8]).unwrap();
    let mut one = Task::new(objects.get_async());
    let mut two = Task::new(objects.get_async());
    // The first waits at the root and holds its room in the group below; so does the second.
    assert!(one.poll().is_none() && two.poll().is_none());
    assert_eq!((GROUP.sleepers(), INNER.bytes()), (2, 64));
    drop(other);
    assert_eq!((one.woken(), two.woken()), (1, 1));
    assert_eq!(**one.poll().unwrap().as_ref().unwrap(), [7; 4]);
    drop((one, two));
    assert_eq!((INNER.bytes(), GROUP.sleepers()), (objects.stats().cached * 32, 0));
    // One that is larger than the group would wait for ever.
    GROUP.set_max_bytes(NonZeroU64::new(32));
    let refused = block_on(others.alloc_async([1; 8])).unwrap_err();
    assert_eq!((refused.value, refused.error.reason()), ([1; 8], AllocError::GroupLimit));
    drop((objects, others));
    assert_eq!(GROUP.bytes(), 0);
}

/// A small item does not overtake a large one; but when the large one gives up, there is room for it.
#[test]
fn a_large_item_holds_up_small_ones_until_it_gives_up() {
    static GROUP: ZoneGroup = ZoneGroup::new("mixed", NonZeroU64::new(96), Park);
    let small = Zone::<[u64; 4]>::builder("small").bucket(0).group(&GROUP).build().unwrap();
    let large = Zone::<[u64; 8]>::builder("large").bucket(0).group(&GROUP).build().unwrap();
    let _held = [0, 1].map(|n| small.alloc([n; 4]).unwrap());
    let mut first = Task::new(large.alloc_async([0; 8]));
    let mut second = Task::new(small.alloc_async([2; 4]));
    assert!(first.poll().is_none() && second.poll().is_none());
    assert!(small.try_alloc([3; 4]).is_err(), "32 bytes are left, but others came first");
    drop(first);
    assert_eq!(second.woken(), 1);
    assert!(second.poll().unwrap().is_ok());
}

/// Many tasks on a few threads, of which every third is dropped while it waits: all others are served, and in
/// the end everything is back.
#[test]
fn many_tasks_and_cancellations() {
    const TASKS: usize = 400;
    let zone = &zone(5);
    let (done, given_up) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begin = Instant::now();
    thread::scope(|scope| {
        for thread in 0..4 {
            let (done, given_up) = (&done, &given_up);
            scope.spawn(move || {
                let mut tasks: VecDeque<_> = (0..TASKS)
                    .map(|n| {
                        let job = async move {
                            for round in 0..3 {
                                let value = zone.alloc_async(round).await.unwrap();
                                assert_eq!(*value, round);
                            }
                        };
                        (n, 0, Task::new(job))
                    })
                    .collect();
                while let Some((n, polls, mut task)) = tasks.pop_front() {
                    assert!(begin.elapsed() < Duration::from_secs(300), "somebody is never served");
                    // Only who was woken is polled, but for the first time.
                    if polls != 0 && task.woken() < polls {
                        if n % 3 == thread % 3 && polls > 1 {
                            given_up.fetch_add(1, SeqCst);
                            continue;
                        }
                        tasks.push_back((n, polls, task));
                        thread::yield_now();
                        continue;
                    }
                    match task.poll() {
                        Some(()) => {
                            done.fetch_add(1, SeqCst);
                        }
                        None => tasks.push_back((n, polls + 1, task)),
                    }
                }
            });
        }
    });
    let (done, given_up) = (done.into_inner(), given_up.into_inner());
    assert_eq!(done + given_up, 4 * TASKS);
    assert_eq!((zone.stats().sleepers, zone.cur_items()), (0, 0));
    println!("{done} served, {given_up} gave up, {:?}", begin.elapsed());
}

/// What fails after a task has waited counts as a failure, as that of a thread does.
#[test]
fn a_failure_after_waiting_is_counted() {
    static REFUSES: AtomicUsize = AtomicUsize::new(0);
    unsafe fn init(_: *mut (), _: Item, _: Request) -> Result<(), Refused> {
        if REFUSES.load(SeqCst) == 0 { Ok(()) } else { Err(Refused) }
    }
    let hooks = FnHooks { init: Some(init), ..FnHooks::NONE };
    let zone = RawZone::builder("refuses", std::alloc::Layout::new::<u64>()).max_items(1).bucket(0);
    // SAFETY: the hook touches nothing.
    let zone = unsafe { zone.hooks(hooks) }.build().unwrap();
    let item = zone.alloc(Request::NOWAIT).unwrap();
    let mut task = Task::new(zone.alloc_async(Request::NOWAIT));
    assert!(task.poll().is_none());
    REFUSES.store(1, SeqCst);
    // SAFETY: it came from this zone and is not used any more.
    unsafe { zone.free(item) };
    assert_eq!(task.poll().unwrap().unwrap_err().reason(), AllocError::Refused);
    assert_eq!((zone.stats().fails, zone.cur_items()), (1, 0));
}
