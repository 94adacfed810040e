//! fork(2): nothing that the faces' own locks guard is half done in the copy of a process, and nobody there waits
//! for a thread that is gone.
//!
//! ```text
//!   lock      enter: count me in, unless a fork is under way --> the mutex --> ... --> count me out
//!   fork      say that one is under way; nobody inside? --> arenas, maps: their locks --> the copy
//! ```
//!
//! A [`Lock`] is a mutex of the standard library whose user is counted in before he asks for it. A fork
//! waits, for a short while, until nobody is inside; if somebody is, because he waits for a lock of the engine, the
//! engine lets go of its locks and tries again (see [`uma::ForkLocks`]). So a lock may be held during an allocation, and
//! taken in a supplier of pages. [`once`] does the same for what is made at its first use. Arenas and maps
//! ([`Listed`]) have locks that are leaves, and a fork takes those. Callers that waited in them are not in the copy.
//!
//! What is counted elsewhere about threads that are gone is set right by those who are told ([`on_copy`]).

use core::cell::Cell;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use uma::ForkLocks;
use uma::core::Process;

use super::memory::{NoMemory, boxed, push};
use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// Threads that have a lock, or are about to.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// Whether a fork is under way.
static CLOSED: AtomicBool = AtomicBool::new(false);

std::thread_local! {
    /// How often this thread is inside: locks are taken under others.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

static LOCKS: ForkLocks = ForkLocks::new(try_prefork, postfork);

/// How often a fork looks whether everybody is outside before it lets the engine go on.
const PATIENCE: usize = 100;

/// Being inside, until it is dropped.
pub(crate) struct Inside;

/// Counts this thread in, once no fork is under way.
pub(crate) fn enter() -> Inside {
    let depth = DEPTH.get();
    DEPTH.set(depth + 1);
    if depth == 0 {
        LOCKS.install();
        // Either the fork sees that we are inside, or we see that it is under way.
        while {
            INSIDE.fetch_add(1, Ordering::SeqCst);
            CLOSED.load(Ordering::SeqCst)
        } {
            INSIDE.fetch_sub(1, Ordering::SeqCst);
            while CLOSED.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        }
    }
    Inside
}

impl Drop for Inside {
    fn drop(&mut self) {
        let depth = DEPTH.get() - 1;
        DEPTH.set(depth);
        if depth == 0 {
            INSIDE.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// How many there are inside if this thread alone is.
fn alone() -> usize {
    usize::from(DEPTH.get() != 0)
}

fn try_prefork() -> bool {
    CLOSED.store(true, Ordering::SeqCst);
    for _ in 0..PATIENCE {
        if INSIDE.load(Ordering::SeqCst) == alone() {
            for listed in raw(&LISTED).iter() {
                // SAFETY: it is listed as long as it is there, and nobody is inside to change the list.
                unsafe { listed.0.as_ref() }.prefork();
            }
            return true;
        }
        std::thread::yield_now();
    }
    CLOSED.store(false, Ordering::SeqCst);
    false
}

/// # Safety
///
/// `try_prefork` returned `true`, in this process or in that of which it is the copy.
unsafe fn postfork(process: Process) {
    for listed in raw(&LISTED).iter() {
        // SAFETY: as above; `try_prefork` took its lock.
        unsafe { listed.0.as_ref().postfork(process) };
    }
    if process == Process::Copy {
        // Others may have been counted for the moment that it takes to see that a fork is under way.
        INSIDE.store(alone(), Ordering::SeqCst);
    }
    CLOSED.store(false, Ordering::SeqCst);
    if process == Process::Copy {
        raw(&TOLD).iter().flatten().for_each(|tell| tell());
    }
}

/// A mutex that nobody has in the copy of a process.
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Takes the lock. What panicked under it has left nothing half done.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let inside = enter();
        Guard { guard: raw(self), _inside: inside }
    }
}

/// Takes a lock in a place where nobody else is inside, or where one is inside already.
fn raw<T>(lock: &Lock<T>) -> MutexGuard<'_, T> {
    lock.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: fmt::Debug> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lock that is held. The mutex is let go of first.
pub(crate) struct Guard<'a, T> {
    guard: MutexGuard<'a, T>,
    _inside: Inside,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// What is made at the first call. Unlike with a bare [`OnceLock`], no copy of the process finds it half made.
pub(crate) fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> T) -> &T {
    if let Some(made) = cell.get() {
        return made;
    }
    let _inside = enter();
    cell.get_or_init(make)
}

/// The same for what may fail to come about: then the next call tries again. It is made under a lock, and makes nothing
/// of this kind itself.
pub(crate) fn once_made<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Option<T>) -> Option<&T> {
    static MAKING: Lock<()> = Lock::new(());
    if cell.get().is_none() {
        let _making = MAKING.lock();
        if cell.get().is_none() {
            let _ = cell.set(make()?);
        }
    }
    cell.get()
}

/// Has `tell` called in every copy of the process from now on, while nobody else is there. There are few such.
pub(crate) fn on_copy(tell: fn()) {
    let mut told = TOLD.lock();
    let place = told.iter_mut().find(|place| place.is_none());
    debug_assert!(place.is_some(), "more are told than there is room for");
    if let Some(place) = place {
        *place = Some(tell);
    }
}

type Told = [Option<fn()>; 4];

static TOLD: Lock<Told> = Lock::new([None; 4]);

/// What has locks of its own that a fork takes: those of arenas, which are leaves.
pub(crate) trait Forks {
    fn prefork(&self);

    /// # Safety
    ///
    /// `prefork` was called, in this process or in that of which it is the copy.
    unsafe fn postfork(&self, process: Process);
}

struct Entry(NonNull<dyn Forks + Send + Sync>);

// SAFETY: what it leads to may be used from any thread.
unsafe impl Send for Entry {}

static LISTED: Lock<Vec<Entry>> = Lock::new(Vec::new());

/// Something whose locks are taken at every fork, as long as it is there.
pub(crate) struct Listed<T: Forks + Send + Sync + 'static>(NonNull<T>);

// SAFETY: it is a box, of which the list has another pointer, to be used from any thread.
unsafe impl<T: Forks + Send + Sync> Send for Listed<T> {}
// SAFETY: as above.
unsafe impl<T: Forks + Send + Sync> Sync for Listed<T> {}

impl<T: Forks + Send + Sync + 'static> Listed<T> {
    /// Lists a value, which is dropped if there is no memory for that.
    pub(crate) fn new(value: T) -> Result<Self, NoMemory> {
        let at = NonNull::from(Box::leak(boxed(value)?));
        if push(&mut LISTED.lock(), Entry(at)).is_err() {
            // SAFETY: it is from a box, which nobody else knows.
            drop(unsafe { Box::from_raw(at.as_ptr()) });
            return Err(NoMemory);
        }
        Ok(Self(at))
    }

    fn strike(&self) {
        let me = self.0.cast::<()>();
        LISTED.lock().retain(|entry| entry.0.cast::<()>() != me);
    }

    /// The value, which is listed no more.
    pub(crate) fn into_inner(self) -> T {
        self.strike();
        let at = core::mem::ManuallyDrop::new(self).0;
        // SAFETY: it is from a box, which nobody else knows any more.
        *unsafe { Box::from_raw(at.as_ptr()) }
    }
}

impl<T: Forks + Send + Sync> Deref for Listed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: it is from a box, which stays as long as we do.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Forks + Send + Sync + 'static> Drop for Listed<T> {
    fn drop(&mut self) {
        self.strike();
        // SAFETY: it is from a box, which nobody else knows any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

#[cfg(any(feature = "solaris", feature = "netbsd"))]
mod arenas {
    use uma::core::{Metadata, Process, RawMutex, Sleep};
    use uma_vmem::{Arena, Import};

    impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> super::Forks for Arena<L, M, W, P> {
        fn prefork(&self) {
            self.prefork();
        }

        unsafe fn postfork(&self, process: Process) {
            // SAFETY: passed on from the caller.
            unsafe { self.postfork(process) }
        }
    }
}
