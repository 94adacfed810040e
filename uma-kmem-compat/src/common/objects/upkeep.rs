//! A thread that looks after caches: what is free leaves them in time, and what is to be done later is done.
//!
//! It starts with the first cache, sleeps until something is queued or an interval has passed, and is gone in a
//! child of fork(2) until that makes a cache, or queues something.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;
use core::time::Duration;
use std::collections::VecDeque;
use std::panic::catch_unwind;
use std::thread;
use std::time::Instant;

use uma::{Host, Platform, Reclaim};

use super::lock::Guarded;
use super::{Objects, list, moves};
use crate::common::boundary;
use crate::common::memory::{Counted, Weak};
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
    /// The heaps, and what they counted at the last look. There are few.
    heaps: [Option<(Heap, u64)>; 4],
}

static STATE: Guarded<State> = Guarded::new(State { tasks: VecDeque::new(), heaps: [None; 4] });
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
    let mut state = STATE.lock();
    let place = state.heaps.iter_mut().find(|place| place.is_none());
    debug_assert!(place.is_some(), "there are more heaps than there is room for");
    if let Some(place) = place {
        *place = Some((heap, 0));
    }
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
    let runs = spawn();
    if !runs {
        PROCESS.store(0, Ordering::Release);
    }
    runs
}

/// Starts the thread. Not by the standard library, which ends the process if there is no memory for its books of it.
fn spawn() -> bool {
    extern "C" fn main(_: *mut c_void) -> *mut c_void {
        boundary(None, "uma-upkeep", || {
            #[cfg(target_os = "linux")]
            // SAFETY: the name is short enough, and the thread is this one.
            unsafe {
                libc::pthread_setname_np(libc::pthread_self(), c"uma-upkeep".as_ptr());
            }
            // What panicked was told, and the process goes on.
            let _ = catch_unwind(rounds);
            ptr::null_mut()
        })
    }

    const STACK: usize = 2 << 20;
    let mut attributes = MaybeUninit::uninit();
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the attributes are initialised before they are used, and live on the stack until they are destroyed; the
    // thread needs nothing of this one.
    unsafe {
        if libc::pthread_attr_init(attributes.as_mut_ptr()) != 0 {
            return false;
        }
        // If it cannot be so small, it is as large as others are.
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK);
        let (detached, null) = (libc::PTHREAD_CREATE_DETACHED, ptr::null_mut());
        let runs = libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), detached) == 0
            && libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), main, null) == 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        runs
    }
}

/// How often the thread was woken.
static WAKES: AtomicU32 = AtomicU32::new(0);

fn wake() {
    WAKES.fetch_add(1, Ordering::Release);
    #[cfg(target_os = "linux")]
    // SAFETY: the word is there for good.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            WAKES.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        );
    }
}

/// Sleeps until it is woken more often than so, or for no reason, or for so long. Parking would need memory.
fn sleep(wakes: u32, most: Duration) {
    #[cfg(target_os = "linux")]
    {
        let time = libc::timespec {
            tv_sec: most.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(most.subsec_nanos() as i32),
        };
        let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the word is there for good, and the time is read before it returns.
        unsafe { libc::syscall(libc::SYS_futex, WAKES.as_ptr(), wait, wakes, &raw const time) };
    }
    #[cfg(not(target_os = "linux"))]
    if WAKES.load(Ordering::Acquire) == wakes {
        thread::sleep(most.min(Duration::from_millis(10)));
    }
}

/// Has a cache reaped soon, by the thread; or now, if there can be none.
pub(crate) fn reap_later(objects: &Counted<Objects>) {
    later(Task::Reap(objects.downgrade()));
}

/// Has the objects of a cache moved together soon.
pub(crate) fn defragment_later(objects: &Counted<Objects>) {
    later(Task::Defragment(objects.downgrade()));
}

/// Whether anything is queued or under way.
pub(crate) fn active() -> bool {
    let process = PROCESS.load(Ordering::Acquire);
    // In a copy of the process nothing is, until its own thread runs.
    (process == 0 || process == std::process::id()) && ACTIVE.load(Ordering::Acquire) != 0
}

fn later(task: Task) {
    let runs = run();
    ACTIVE.fetch_add(1, Ordering::AcqRel);
    let mut state = STATE.lock();
    if runs && state.tasks.try_reserve(1).is_ok() {
        state.tasks.push_back(task);
        drop(state);
        // A callback may just have ended the thread.
        run();
        wake();
    } else {
        drop(state);
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
        // Before the look: whoever adds a task wakes us afterwards.
        let wakes = WAKES.load(Ordering::Acquire);
        let task = STATE.lock().tasks.pop_front();
        if task.is_some() {
            return task;
        }
        let left = due(last).saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        sleep(wakes, left.min(Duration::from_secs(60)));
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
    let heaps = STATE.lock().heaps;
    for (at, (heap, before)) in heaps.into_iter().flatten().enumerate() {
        let now = (heap.traffic)();
        let idle = before == now;
        STATE.lock().heaps[at] = Some((heap, now));
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
                if rounds == 100_000 {
                    // SAFETY: as above.
                    unsafe { libc::kill(child, libc::SIGKILL) };
                }
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(status, 0, "the child waited for a thread that is not there");
        });
    }
}
