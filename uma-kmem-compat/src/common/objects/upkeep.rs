//! A thread that looks after caches: what is free leaves them in time, and what is to be done later is done.
//!
//! It starts with the first cache, sleeps until something is queued or an interval has passed, and is gone in a
//! child of fork(2) until that makes a cache, or queues something.

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::thread::{self, Thread};
use std::time::Instant;

use uma::{Host, Platform, Reclaim};

use super::lock::Guarded;
use super::{Objects, list, moves};
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// A heap of sizes that is looked after, too: what it counts, and how it gives memory back.
#[derive(Clone, Copy)]
pub(crate) struct Heap {
    pub(crate) traffic: fn() -> u64,
    pub(crate) reclaim: fn(Reclaim),
}

/// What is to be done later.
enum Task {
    Reap(Weak<Objects>),
    Defragment(Weak<Objects>),
}

struct State {
    tasks: VecDeque<Task>,
    /// The heaps, and what they counted at the last look.
    heaps: Vec<(Heap, u64)>,
    /// The thread, to be woken.
    thread: Option<Thread>,
}

static STATE: Guarded<State> =
    Guarded::new(State { tasks: VecDeque::new(), heaps: Vec::new(), thread: None });
/// Seconds between two rounds, or 0 for none.
static INTERVAL: AtomicU64 = AtomicU64::new(0);
/// The process whose thread was started.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Tasks that are queued or under way.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// Sees to it that rounds are made, every so many seconds or more often; never, if that is 0 and nobody else
/// wants any.
pub(crate) fn start(seconds: u64) {
    let shorter = |now| (seconds != 0 && (now == 0 || seconds < now)).then_some(seconds);
    let changed = INTERVAL.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shorter).is_ok();
    if INTERVAL.load(Ordering::Relaxed) != 0 {
        run();
        if changed {
            wake();
        }
    }
}

/// Looks after a heap from now on.
pub(crate) fn look_after(heap: Heap) {
    STATE.lock().heaps.push((heap, 0));
}

/// Starts the thread if this process has none. Returns whether there is one.
fn run() -> bool {
    let me = std::process::id();
    let before = PROCESS.swap(me, Ordering::AcqRel);
    if before == me {
        return true;
    }
    if before != 0 {
        // What was under way belongs to another process.
        ACTIVE.store(0, Ordering::Release);
        STATE.lock().tasks.clear();
    }
    let named = thread::Builder::new().name("uma-upkeep".into());
    match named.spawn(rounds) {
        Ok(handle) => {
            STATE.lock().thread = Some(handle.thread().clone());
            true
        }
        Err(_) => {
            PROCESS.store(0, Ordering::Release);
            false
        }
    }
}

fn wake() {
    let thread = STATE.lock().thread.clone();
    if let Some(thread) = thread {
        thread.unpark();
    }
}

/// Has a cache reaped soon, by the thread; or now, if there can be none.
pub(crate) fn reap_later(objects: &Arc<Objects>) {
    later(Task::Reap(Arc::downgrade(objects)));
}

/// Has the objects of a cache moved together soon.
pub(crate) fn defragment_later(objects: &Arc<Objects>) {
    later(Task::Defragment(Arc::downgrade(objects)));
}

/// Whether anything is queued or under way.
pub(crate) fn active() -> bool {
    ACTIVE.load(Ordering::Acquire) != 0
}

fn later(task: Task) {
    let runs = run();
    ACTIVE.fetch_add(1, Ordering::AcqRel);
    if runs {
        STATE.lock().tasks.push_back(task);
        // A callback may just have ended the thread.
        run();
        wake();
    } else {
        perform(task);
    }
}

fn perform(task: Task) {
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            ACTIVE.fetch_sub(1, Ordering::AcqRel);
        }
    }
    let _done = Done;
    match task {
        Task::Reap(objects) => {
            if let Some(objects) = objects.upgrade() {
                list::reap(&objects);
                moves::defragment(&objects);
            }
        }
        Task::Defragment(objects) => {
            if let Some(objects) = objects.upgrade() {
                moves::defragment(&objects);
            }
        }
    }
}

fn rounds() {
    /// A callback that panics ends the thread. For what is queued there is another at once, else when somebody
    /// needs it.
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            PROCESS.store(0, Ordering::Release);
            let left = !STATE.lock().tasks.is_empty();
            if left {
                run();
            }
        }
    }
    let _ends = Ends;
    let mut last = Instant::now();
    loop {
        match next(last) {
            Some(task) => perform(task),
            None => round(),
        }
        if Instant::now() >= due(last) {
            last = Instant::now();
        }
    }
}

fn due(last: Instant) -> Instant {
    match INTERVAL.load(Ordering::Relaxed) {
        0 => last + Duration::from_secs(3600),
        seconds => last + Duration::from_secs(seconds),
    }
}

/// The next task, or `None` when it is time for a round.
fn next(last: Instant) -> Option<Task> {
    loop {
        let task = STATE.lock().tasks.pop_front();
        if task.is_some() {
            return task;
        }
        let left = due(last).saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // A thread that is woken before it parks does not.
        thread::park_timeout(left.min(Duration::from_secs(60)));
    }
}

/// Where nothing happened since the last round, all that is free goes back; elsewhere, what was not needed.
fn round() {
    if INTERVAL.load(Ordering::Relaxed) == 0 {
        return;
    }
    list::for_each(None, |objects| {
        let stats = objects.stats();
        objects.most(stats.used() + stats.free());
        let now = stats.allocs + stats.frees;
        let idle = objects.counts().seen.swap(now, Ordering::Relaxed) == now;
        objects.reclaim(if idle { Reclaim::DrainCpu } else { Reclaim::Trim });
        if moves::worth_while(objects) {
            moves::defragment(objects);
        }
    });
    let heaps: Vec<Heap> = {
        let state = STATE.lock();
        state.heaps.iter().map(|(heap, _)| *heap).collect()
    };
    for (at, heap) in heaps.into_iter().enumerate() {
        let now = (heap.traffic)();
        let mut state = STATE.lock();
        let idle = core::mem::replace(&mut state.heaps[at].1, now) == now;
        drop(state);
        (heap.reclaim)(if idle { Reclaim::DrainCpu } else { Reclaim::Trim });
    }
    Host.pages().trim();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also where there are heaps alone, no copy of the process finds the lock held.
    #[test]
    fn a_fork_waits_for_the_lock() {
        look_after(Heap { traffic: || 0, reclaim: |_| {} });
        let ready = std::sync::Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                let state = STATE.lock();
                ready.wait();
                thread::sleep(Duration::from_millis(100));
                drop(state);
            });
            ready.wait();
            // SAFETY: the child takes the lock, which needs nothing, and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                drop(STATE.lock());
                // SAFETY: as above.
                unsafe { libc::_exit(0) };
            }
            let (mut status, mut rounds) = (-1, 0);
            // SAFETY: it is our child.
            while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
                rounds += 1;
                if rounds == 10_000 {
                    // SAFETY: as above.
                    unsafe { libc::kill(child, libc::SIGKILL) };
                }
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(status, 0, "the child waited for a thread that is not there");
        });
    }
}
