//! All pools of C, for those who look at every one of them.
//!
//! Locks: whose turn it is, and below that the list's, a leaf. Nothing is called under them: who visits a pool counts itself there first, and
//! `destroy` waits until nobody does. In the copy of a process, nobody visits: those threads are gone.

use super::{Bound, CPool, POOLS};
use crate::common::Handle;
use crate::common::fork::{Guard, Lock, on_copy};
use crate::common::memory::{NoMemory, push};
use crate::sync::{AtomicBool, Ordering};

struct Entry {
    /// Entries are in the order of these.
    number: u64,
    at: *mut CPool,
    handle: *mut Handle<Bound>,
}

// SAFETY: the pointers are compared, or followed under the rules above.
unsafe impl Send for Entry {}

static ALL: Lock<Vec<Entry>> = Lock::new(Vec::new());

fn all() -> Guard<'static, Vec<Entry>> {
    ALL.lock()
}

/// Nobody visits in the copy of a process.
fn nobody_visits() {
    for entry in all().iter() {
        // SAFETY: as in `next`.
        if let Ok(bound) = unsafe { POOLS.get(entry.handle) } {
            bound.visitors.store(0, Ordering::Relaxed);
        }
    }
}

pub(super) fn add(at: *mut CPool, handle: *mut Handle<Bound>) -> Result<(), NoMemory> {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        on_copy(nobody_visits);
    }
    let mut all = all();
    let number = all.last().map_or(0, |last| last.number + 1);
    push(&mut all, Entry { number, at, handle })
}

pub(super) fn remove(at: *mut CPool) {
    all().retain(|entry| entry.at != at);
}

pub(super) fn contains(at: *mut CPool) -> bool {
    all().iter().any(|entry| entry.at == at)
}

struct Visit<'a>(&'a Bound);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        // Not below 0: a hook may have forked, and this be the copy, in which the visit was not counted any more.
        let less = |visitors: usize| visitors.checked_sub(1);
        let _ = self.0.visitors.fetch_update(Ordering::Release, Ordering::Relaxed, less);
    }
}

/// The next pool after that at `after` in the order in which they were made, and around; or the first.
fn next<'a>(after: Option<*mut CPool>) -> Option<(*mut CPool, Visit<'a>)> {
    let all = all();
    let place = after.and_then(|after| all.iter().position(|entry| entry.at == after));
    let place = place.map_or(0, |place| (place + 1) % all.len());
    let entry = all.get(place)?;
    // SAFETY: it is listed, so the handle is live; `destroy` removes it, under the lock, before the pool goes, and
    // then waits for visitors.
    let bound = unsafe { POOLS.get(entry.handle) }.ok()?;
    bound.visitors.fetch_add(1, Ordering::Acquire);
    Some((entry.at, Visit(bound)))
}

/// Calls `visit` with every pool. One that is made or ended meanwhile may be left out.
pub(super) fn for_each(mut visit: impl FnMut(*mut CPool, &Bound)) {
    let mut from = 0;
    loop {
        let found = {
            let all = all();
            let place = all.partition_point(|entry| entry.number < from);
            let Some(entry) = all.get(place) else { break };
            from = entry.number + 1;
            // SAFETY: as in `next`.
            let bound = unsafe { POOLS.get(entry.handle) }.ok();
            bound.map(|bound| {
                bound.visitors.fetch_add(1, Ordering::Acquire);
                (entry.at, Visit(bound))
            })
        };
        if let Some((at, bound)) = found {
            visit(at, bound.0);
        }
    }
}

/// Calls `visit` with the pool after the one of the last call that has pages, if there is any.
pub(super) fn in_turn<T>(visit: impl FnOnce(*mut CPool, &Bound) -> T) -> Option<T> {
    static LAST: Lock<usize> = Lock::new(0);
    let count = all().len();
    for _ in 0..count {
        let found = {
            let mut last = LAST.lock();
            let after = all().iter().map(|entry| entry.at).find(|at| at.addr() == *last);
            let found = next(after)?;
            *last = found.0.addr();
            found
        };
        if found.1.0.pool.pages() != 0 {
            return Some(visit(found.0, found.1.0));
        }
    }
    None
}
