//! The model checker: loom, which tries every order of events, or shuttle, which tries many.
//!
//! Both run the same bodies. Loom also tries the orders that weak memory allows and reports data races;
//! shuttle does neither, but goes through longer histories.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::{Arc as Owners, Mutex, MutexGuard, atomic::AtomicBool},
    thread::{JoinHandle, yield_now},
    thread_local,
};
#[cfg(all(shuttle, not(loom)))]
pub(crate) use shuttle::{
    sync::{Arc as Owners, Mutex, MutexGuard, atomic::AtomicBool},
    thread::{JoinHandle, yield_now},
    thread_local,
};

#[cfg(all(shuttle, not(loom)))]
pub(crate) use self::unchecked::UnsafeCell;

/// How many histories shuttle tries, if `SHUTTLE_ITERATIONS` does not say otherwise.
#[cfg(all(shuttle, not(loom)))]
const ITERATIONS: usize = 5_000;

/// Runs `body` in all its histories, and says how many they were: all those in which threads are
/// stopped against their will up to `stops` times, or as often as `LOOM_MAX_PREEMPTIONS` says. Nearly
/// all faults show with two.
pub(crate) fn check(name: &str, stops: usize, body: impl Fn() + Send + Sync + 'static) {
    let histories = std::sync::Arc::new(AtomicUsize::new(0));
    let (begin, count) = (Instant::now(), histories.clone());
    run(stops, move || {
        count.fetch_add(1, Ordering::Relaxed);
        body();
    });
    let (count, time) = (histories.load(Ordering::Relaxed), begin.elapsed().as_secs_f64());
    println!("{name}: {count} histories, {time:.1} s");
}

#[cfg(loom)]
fn run(stops: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(stops);
    builder.max_branches = builder.max_branches.max(20_000);
    builder.check(body);
}

#[cfg(all(shuttle, not(loom)))]
fn run(stops: usize, body: impl Fn() + Send + Sync + 'static) {
    let iterations = std::env::var("SHUTTLE_ITERATIONS").ok();
    let iterations = iterations.map_or(ITERATIONS, |text| text.parse().unwrap());
    let body = std::sync::Arc::new(body);
    let again = body.clone();
    shuttle::check_random(move || body(), iterations / 2);
    shuttle::check_pct(move || again(), iterations / 2, stops);
}

/// Starts a thread of the model.
#[cfg(loom)]
pub(crate) fn spawn<T: 'static>(body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    loom::thread::spawn(body)
}

/// Starts a thread of the model.
#[cfg(all(shuttle, not(loom)))]
pub(crate) fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    shuttle::thread::spawn(body)
}

/// Waits for a thread of the model.
pub(crate) fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap()
}

/// A one-way switch.
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A thread's permission to go on, as with `park` and `unpark`. Waits may end early.
#[cfg(loom)]
pub(crate) use loom::sync::Notify;

/// A thread's permission to go on, as with `park` and `unpark`.
#[cfg(all(shuttle, not(loom)))]
#[derive(Default)]
pub(crate) struct Notify {
    given: Mutex<bool>,
    change: shuttle::sync::Condvar,
}

#[cfg(all(shuttle, not(loom)))]
impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notify(&self) {
        *self.given.lock().unwrap() = true;
        self.change.notify_one();
    }

    pub(crate) fn wait(&self) {
        let mut given = self.given.lock().unwrap();
        while !*given {
            given = self.change.wait(given).unwrap();
        }
        *given = false;
    }
}

#[cfg(all(shuttle, not(loom)))]
mod unchecked {
    /// As loom's cell, but it notices only users at one instant.
    pub(crate) struct UnsafeCell<T> {
        value: std::cell::UnsafeCell<T>,
        used: shuttle::sync::atomic::AtomicBool,
    }

    // SAFETY: the flag sees to it that one thread at a time has access.
    unsafe impl<T: Send> Sync for UnsafeCell<T> {}

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            let used = shuttle::sync::atomic::AtomicBool::new(false);
            Self { value: std::cell::UnsafeCell::new(value), used }
        }

        pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
            let order = std::sync::atomic::Ordering::SeqCst;
            assert!(!self.used.swap(true, order), "two threads use one item");
            let result = access(self.value.get());
            self.used.store(false, order);
            result
        }
    }
}
