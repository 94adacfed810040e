//! fork(2): zones go on in the copy of a process, as they do in the original.
//!
//! Before the copy is made every lock is taken, in this order:
//!
//! ```text
//!   registry -> of each zone, those made last first: depot, limit queue, keg -> metadata kegs -> pages
//!            -> locks of others, if they can be had (ForkLocks)
//! ```
//!
//! Slabs on which several zones stand are locked by the place in the registry of the zone that made them,
//! which stays there, unseen, as long as they do. A source of a user's under several zones is locked once if it is
//! [shared](uma_core::Shared).
//!
//! (The registry's lock is held meanwhile; nowhere else is anything called under it.) Each of the others
//! is a leaf elsewhere, so taking all of them cannot deadlock, and with all of them held nothing is
//! half done. What other threads had in hand at that moment (a bucket, an item) is lost to the copy, as
//! those threads are, and nobody waits at a limit there. Afterwards both processes let go in the opposite order.
//!
//! The last are tried only. Whoever holds one of them may be waiting for a lock of the engine, for an allocation; a
//! drain that is waited for may be waiting for one of them, in a supplier of the user's. So if they are not to be
//! had at once, everything is let go of and taken again.
//!
//! The handlers are installed with the first zone and stay.

use core::fmt;
use core::ptr;

use uma_core::Process;

use crate::Platform;
use crate::access::complain;
use crate::host::{Host, METADATA, PAGES};
use crate::lock::in_child;
use crate::sync::{AtomicBool, AtomicPtr, Ordering};

/// Sees to it that forks go well from now on.
pub(crate) fn install() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    // Not `Once`, which would keep others waiting, also in a child that was forked meanwhile.
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: the three handlers live as long as the program, and may be called at any fork.
    let refused = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    if refused != 0 {
        complain(format_args!("no memory for fork handlers: do not fork while zones are in use"));
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
    installed: AtomicBool,
}

/// All that are installed: a list that only grows.
static OTHERS: AtomicPtr<ForkLocks> = AtomicPtr::new(ptr::null_mut());

impl ForkLocks {
    /// `try_prefork` takes the locks, or returns `false` and has taken none: it does not wait for a thread that may be
    /// waiting for the engine. `postfork` is called after the copy was made, in both processes, once for each
    /// `try_prefork` that returned `true`, on the same thread, and lets go. A [`HostLock`](crate::HostLock)
    /// that `postfork` lets go of in the copy is as new. Neither uses a zone.
    pub const fn new(try_prefork: fn() -> bool, postfork: unsafe fn(Process)) -> Self {
        let (next, installed) = (AtomicPtr::new(ptr::null_mut()), AtomicBool::new(false));
        Self { try_prefork, postfork, next, installed }
    }

    /// Has every fork from now on take them. Does nothing the second time.
    pub fn install(&'static self) {
        install();
        if self.installed.swap(true, Ordering::AcqRel) {
            return;
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
        f.debug_struct("ForkLocks").field("installed", &self.installed).finish_non_exhaustive()
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
    loop {
        Host.registry().prefork();
        METADATA.prefork();
        PAGES.prefork();
        if take_others() {
            return;
        }
        // SAFETY: all were taken just now, on this thread.
        unsafe { let_engine_go(Process::Original) };
        Host.registry().settle();
        std::thread::yield_now();
    }
}

extern "C" fn parent() {
    // SAFETY: `prepare` ran on this thread just before.
    unsafe { let_go(Process::Original) };
    Host.registry().settle();
}

extern "C" fn child() {
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
        Host.registry().postfork(process);
    }
}
