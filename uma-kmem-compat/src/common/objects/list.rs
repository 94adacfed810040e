//! All caches, and making them give memory back.

use core::cell::Cell;
use std::sync::{Arc, Weak};

use uma::{Host, Platform, Reclaim};

use super::Objects;
use super::lock::Guarded;
use crate::common::System;
use crate::sync::Ordering;

static ALL: Guarded<Vec<Weak<Objects>>> = Guarded::new(Vec::new());

pub(super) fn add(objects: &Arc<Objects>) {
    let weak = Arc::downgrade(objects);
    ALL.lock().push(weak);
}

pub(super) fn remove(objects: &Arc<Objects>) {
    let mut all = ALL.lock();
    all.retain(|other| !core::ptr::eq(other.as_ptr(), Arc::as_ptr(objects)));
}

/// Calls `visit` with every cache of a system, or of all. No lock is held meanwhile, and each cache is kept for
/// no longer than its call.
pub(crate) fn for_each(system: Option<&'static System>, mut visit: impl FnMut(&Arc<Objects>)) {
    let all = ALL.lock().clone();
    for objects in all.iter().filter_map(Weak::upgrade) {
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
