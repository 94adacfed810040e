//! fork(2): zones go on in the copy of a process, as they do in the original.
//!
//! Before the copy is made every lock is taken, in this order:
//!
//! ```text
//!   registry -> of each zone, those made last first: checks, hands, slots, depot, limit queue, groups, keg
//!            -> metadata kegs -> pages -> locks of others, if they can be had (ForkLocks)
//! ```
//!
//! Slabs on which several zones stand are locked by the place in the registry of the zone that made them,
//! which stays there, unseen, as long as they do. A source of a user's under several zones is locked once if it is
//! [shared](uma_core::Shared).
//!
//! (The registry's lock is held meanwhile; nowhere else is anything called under it.) Each of the others
//! is a leaf elsewhere, so taking all of them cannot deadlock, and with all of them held nothing is
//! half done; and slots become known, and groups get members, only under one of them. What other threads had in
//! hand at that moment (a bucket, an item) is lost to the copy, as those threads are, and nobody waits at a limit
//! there. Afterwards both processes let go in the opposite order.
//!
//! The last are tried only. Whoever holds one of them may be waiting for a lock of the engine, for an allocation; a
//! drain that is waited for may be waiting for one of them, in a supplier of the user's. So if they are not to be
//! had at once, everything is let go of and taken again.
//!
//! The handlers are installed before anybody gets at what the locks guard: with the first use of any part of the
//! platform, by whichever thread. They stay.

use core::cell::Cell;
use core::fmt;
use core::ptr;

use uma_core::Process;

use crate::access::complain;
use crate::host::{METADATA, PAGES, REGISTRY};
use crate::lock::in_child;
use crate::sync::{AtomicPtr, AtomicUsize, Ordering};

/// Whether the handlers are installed.
static INSTALLED: Once = Once::new();

std::thread_local! {
    /// Whether this thread is in the middle of a [`Once`].
    static AT_IT: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread has taken the locks for a fork that it makes.
    static PREPARED: Cell<bool> = const { Cell::new(false) };
}

/// Sees to it that forks go well from now on, before it returns.
#[inline]
pub(crate) fn install() {
    INSTALLED.see_to(|| {
        // SAFETY: the three handlers live as long as the program, and may be called at any fork.
        let refused = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
        if refused != 0 {
            complain(format_args!(
                "no memory for fork handlers: do not fork while zones are in use"
            ));
        }
        // The other thing to be done before there are pages.
        crate::huge::begin();
    });
}

/// What is done once, before anybody goes on who needs it: who went on sooner could have a lock of which a fork
/// does not know.
///
/// Not that of the standard library. In a copy of the process that was made while a thread was at it, that would
/// wait for ever for the thread, which is not there. Here somebody else does it then: so it may be that it is done
/// already.
struct Once {
    /// `NOT_YET`, `DONE`, or the number of the process that has a thread at it.
    state: AtomicUsize,
}

impl Once {
    const NOT_YET: usize = 0;
    const DONE: usize = usize::MAX;

    const fn new() -> Self {
        Self { state: AtomicUsize::new(Self::NOT_YET) }
    }

    fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) == Self::DONE
    }

    fn done(&self) {
        self.state.store(Self::DONE, Ordering::Release);
    }

    /// Has it done, or waits until it is. Returns at once on a thread that is at it: what it calls may allocate
    /// memory, and that by us.
    #[inline]
    fn see_to(&self, work: impl FnOnce()) {
        if !self.is_done() && !AT_IT.get() && self.begin() {
            AT_IT.set(true);
            work();
            AT_IT.set(false);
            self.done();
        }
    }

    /// Returns whether it is for this thread to do; if not, it is done.
    #[cold]
    fn begin(&self) -> bool {
        let here = std::process::id() as usize;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state == Self::DONE {
                return false;
            }
            // Nobody is at it, or one who is not in this copy.
            if state != here
                && self
                    .state
                    .compare_exchange(state, here, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return true;
            }
            std::thread::yield_now();
        }
    }
}

/// Locks beside those of zones that a fork takes, too: those of suppliers of one's own, of books about items. With
/// them, nothing that they guard is half done in the copy, and nobody there waits for a thread that is gone.
///
/// ```
/// use parking_lot::lock_api::RawMutex as _;
/// use uma::ForkLocks;
/// use uma::core::{Process, RawMutex};
///
/// static BOOKS: uma::HostLock = uma::HostLock::INIT;
///
/// unsafe fn let_go(_: Process) {
///     // SAFETY: it was taken before the copy was made.
///     unsafe { BOOKS.unlock() }
/// }
///
/// static LOCKS: ForkLocks = ForkLocks::new(|| BOOKS.try_lock(), let_go);
/// LOCKS.install();
/// ```
pub struct ForkLocks {
    try_prefork: fn() -> bool,
    postfork: unsafe fn(Process),
    next: AtomicPtr<ForkLocks>,
    installed: Once,
}

/// All that are installed: a list that only grows.
static OTHERS: AtomicPtr<ForkLocks> = AtomicPtr::new(ptr::null_mut());

impl ForkLocks {
    /// `try_prefork` takes the locks, or returns `false` and has taken none: it does not wait for a thread that may be
    /// waiting for the engine. `postfork` is called after the copy was made, in both processes, once for each
    /// `try_prefork` that returned `true`, on the same thread, and lets go. A [`HostLock`](crate::HostLock)
    /// that `postfork` lets go of in the copy is as new. Neither uses a zone.
    pub const fn new(try_prefork: fn() -> bool, postfork: unsafe fn(Process)) -> Self {
        let (next, installed) = (AtomicPtr::new(ptr::null_mut()), Once::new());
        Self { try_prefork, postfork, next, installed }
    }

    /// Has every fork from now on take them. Does nothing the second time. To be called before any of them is
    /// taken, by every thread that takes them: it waits while another is about to do it.
    pub fn install(&'static self) {
        install();
        self.installed.see_to(|| self.enlist());
    }

    /// Enters the list, unless a thread that is not in this copy of the process has done so.
    fn enlist(&'static self) {
        let mut at = Self::first();
        while let Some(locks) = at {
            if ptr::eq(locks, self) {
                return;
            }
            at = locks.next();
        }
        let me = ptr::from_ref(self).cast_mut();
        let push = |first| {
            self.next.store(first, Ordering::Relaxed);
            Some(me)
        };
        // Release: who finds it finds where it leads.
        let _ = OTHERS.fetch_update(Ordering::Release, Ordering::Relaxed, push);
    }

    fn first() -> Option<&'static Self> {
        // SAFETY: only references to statics are in the list.
        unsafe { OTHERS.load(Ordering::Acquire).as_ref() }
    }

    fn next(&self) -> Option<&'static Self> {
        // SAFETY: as in `first`.
        unsafe { self.next.load(Ordering::Relaxed).as_ref() }
    }
}

impl fmt::Debug for ForkLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForkLocks")
            .field("installed", &self.installed.is_done())
            .finish_non_exhaustive()
    }
}

/// Where the list began when its locks were taken: who is installed while a copy is made is not let go of.
static TAKEN: AtomicPtr<ForkLocks> = AtomicPtr::new(ptr::null_mut());

/// Takes the locks of all others, or none.
fn take_others() -> bool {
    let first = ForkLocks::first();
    let mut at = first;
    while let Some(locks) = at {
        if !(locks.try_prefork)() {
            // SAFETY: those from the first up to this one were taken.
            unsafe { let_others_go(first, Some(locks), Process::Original) };
            return false;
        }
        at = locks.next();
    }
    TAKEN
        .store(first.map_or(ptr::null_mut(), |it| ptr::from_ref(it).cast_mut()), Ordering::Relaxed);
    true
}

/// # Safety
///
/// All from `first` up to `end` were taken, in this process or in that of which it is the copy.
unsafe fn let_others_go(
    first: Option<&'static ForkLocks>,
    end: Option<&'static ForkLocks>,
    process: Process,
) {
    let mut at = first;
    while let Some(locks) = at
        && !end.is_some_and(|end| ptr::eq(end, locks))
    {
        // SAFETY: passed on from the caller.
        unsafe { (locks.postfork)(process) };
        at = locks.next();
    }
}

extern "C" fn prepare() {
    // They may be installed twice in a copy (see `Once`).
    if PREPARED.get() {
        return;
    }
    loop {
        REGISTRY.prefork();
        METADATA.prefork();
        PAGES.prefork();
        if take_others() {
            PREPARED.set(true);
            return;
        }
        // SAFETY: all were taken just now, on this thread.
        unsafe { let_engine_go(Process::Original) };
        REGISTRY.settle();
        std::thread::yield_now();
    }
}

extern "C" fn parent() {
    if !PREPARED.replace(false) {
        return;
    }
    // SAFETY: `prepare` ran on this thread just before.
    unsafe { let_go(Process::Original) };
    REGISTRY.settle();
}

extern "C" fn child() {
    // The thread that installed us may not be here to say so.
    INSTALLED.done();
    if !PREPARED.replace(false) {
        return;
    }
    // SAFETY: `prepare` ran on the thread that this one is the copy of.
    in_child(|| unsafe { let_go(Process::Copy) });
}

/// # Safety
///
/// `prepare` ran before, on this thread or the one that it is the copy of.
unsafe fn let_go(process: Process) {
    // SAFETY: passed on from the caller; only statics are in the list.
    unsafe {
        let_others_go(TAKEN.load(Ordering::Relaxed).as_ref(), None, process);
        let_engine_go(process);
    }
}

/// # Safety
///
/// The locks of the engine were taken, on this thread or the one that it is the copy of.
unsafe fn let_engine_go(process: Process) {
    // SAFETY: passed on from the caller.
    unsafe {
        PAGES.postfork();
        METADATA.postfork(process);
        REGISTRY.postfork(process);
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::Layout;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use uma_core::Request;
    use uma_testkit::in_a_copy;

    use super::*;
    use crate::RawZone;

    /// Who comes while another is at it goes on when it is done; in a copy without the other, does it himself.
    #[test]
    fn once_for_all() {
        static ONCE: Once = Once::new();
        static DONE: AtomicBool = AtomicBool::new(false);
        let ((begun, begins), (go_on, goes_on)) = (channel(), channel());
        thread::scope(|scope| {
            scope.spawn(move || {
                ONCE.see_to(|| {
                    begun.send(()).unwrap();
                    goes_on.recv().unwrap();
                    ONCE.see_to(|| unreachable!("this thread is at it"));
                    DONE.store(true, Ordering::Relaxed);
                });
            });
            begins.recv().unwrap();
            let in_copy = in_a_copy(|| {
                let mut mine = false;
                ONCE.see_to(|| mine = true);
                mine && ONCE.is_done()
            });
            let late = scope.spawn(|| {
                ONCE.see_to(|| unreachable!("another is at it"));
                DONE.load(Ordering::Relaxed)
            });
            // Too short a time fails to find out, and is no error.
            thread::sleep(Duration::from_millis(20));
            go_on.send(()).unwrap();
            assert!(late.join().unwrap(), "went on before it was done");
            assert_eq!(in_copy, 0, "in the copy");
        });
    }

    /// It can happen in the copy of a process in which a thread was about to install them.
    #[test]
    fn handlers_that_are_installed_twice() {
        static ZONE: RawZone = RawZone::builder("twice", Layout::new::<[u64; 3]>()).lazy();
        let use_zone = || {
            // SAFETY: it came from there and is not used.
            ZONE.alloc(Request::NOWAIT).map(|item| unsafe { ZONE.free(item) }).is_ok()
        };
        let in_copy = in_a_copy(|| {
            install();
            // SAFETY: as in `install`.
            let refused = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
            refused == 0 && use_zone() && in_a_copy(use_zone) == 0 && use_zone()
        });
        assert_eq!(in_copy, 0);
    }
}
