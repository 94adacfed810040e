//! All caches, and making them give memory back.

use core::cell::Cell;

use uma::{Host, Platform, Reclaim};

use super::Objects;
use super::lock::Guarded;
use crate::common::System;
use crate::common::memory::{Counted, NoMemory, Weak, push};
use crate::sync::Ordering;

/// In the order of their numbers, which caches get as they are listed.
static ALL: Guarded<Vec<(u64, Weak<Objects>)>> = Guarded::new(Vec::new());

pub(super) fn add(objects: &Counted<Objects>) -> Result<(), NoMemory> {
    let weak = objects.downgrade();
    let mut all = ALL.lock();
    let number = all.last().map_or(0, |(last, _)| last + 1);
    push(&mut all, (number, weak))
}

pub(super) fn remove(objects: &Counted<Objects>) {
    ALL.lock().retain(|(_, other)| !other.is_of(objects));
}

/// The next cache from a number on, and its number.
fn next(from: u64) -> Option<(u64, Counted<Objects>)> {
    let all = ALL.lock();
    let place = all.partition_point(|(number, _)| *number < from);
    all[place..].iter().find_map(|(number, weak)| Some((*number, weak.upgrade()?)))
}

/// Calls `visit` with every cache of a system, or of all. No lock is held meanwhile, and each cache is kept for
/// no longer than its call.
pub(crate) fn for_each(system: Option<&'static System>, mut visit: impl FnMut(&Counted<Objects>)) {
    let mut from = 0;
    while let Some((number, objects)) = next(from) {
        from = number + 1;
        if system.is_none_or(|system| core::ptr::eq(system, objects.system())) {
            visit(&objects);
        }
    }
}

std::thread_local! {
    /// Whether this thread is asking for memory back, so that a callback that does the same does not begin anew.
    static REAPING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` unless this thread is in the middle of such already.
fn once(body: impl FnOnce()) {
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            REAPING.set(false);
        }
    }
    if !REAPING.replace(true) {
        let _done = Done;
        body();
    }
}

fn one(objects: &Objects) {
    if let Some(reclaim) = objects.callbacks().reclaim {
        // SAFETY: whoever made the cache promised that it may be called while the cache exists.
        unsafe { reclaim(objects.callbacks().private) };
    }
    objects.reclaim(Reclaim::DrainCpu);
    objects.counts().reaps.fetch_add(1, Ordering::Relaxed);
}

/// Asks the owner of a cache for objects, and gives back all that are free, and their pages.
pub(crate) fn reap(objects: &Objects) {
    once(|| {
        one(objects);
        Host.pages().trim();
    });
}

/// The same for all caches of a system.
pub(crate) fn reap_all(system: &'static System) {
    once(|| {
        for_each(Some(system), |objects| one(objects));
        Host.pages().trim();
    });
}
