//! Waiting at a limit as a task does.
//!
//! A task stands in the same queue as threads that sleep, and is woken by its own executor. Its place is in
//! the future: dropping that leaves the queue, and what was granted meanwhile goes to the next. So a
//! timeout is the timer of the user's runtime and a dropped future; there is no timer here, and nothing
//! that polls.

use core::ptr;

use uma_core::{AllocError, Hooks, Item, ItemSource, Request};

use super::{Origin, RawZone};
use crate::{Platform, ZoneError};

impl<P, H, O> RawZone<P, H, O>
where
    P: Platform,
    H: Hooks + Clone + Send + Sync + 'static,
    O: Origin<P>,
{
    /// Allocates an item. At a limit it waits without a thread that sleeps, in order of arrival among
    /// threads and tasks, also on a platform whose threads cannot sleep.
    ///
    /// The future may be dropped at any time; then nothing was allocated. Whether `request` may wait and
    /// until when does not matter: it waits until it is served or dropped. Polling it may run the init and
    /// ctor of this zone, and at a limit the fini of zones whose caches are drained.
    ///
    /// # Errors
    ///
    /// Why there is none. That can be a limit only if it is one further down, of the source under a cache
    /// zone, at which a task of this zone cannot wait.
    pub async fn alloc_async(&self, request: Request) -> Result<Item, ZoneError> {
        let request = request.without_waiting();
        let core = self.core().map_err(|reason| self.error(reason))?;
        let cache = core.zone.source();
        let error = |reason| self.error(reason);
        let failed = |reason| self.error(core.zone.failed(reason));
        let item = match core.fetch(request, &mut || {}) {
            Ok(item) => item,
            Err(reason @ (AllocError::Limit | AllocError::GroupLimit)) => {
                self.notice(core, reason, true);
                let limited = core.limit();
                let grouped = limited.source();
                // In this order, which is that of threads.
                let place = limited.place(|| core.settle()).await.map_err(failed)?;
                let room = grouped.place(|| core.settle()).await.map_err(failed)?;
                // SAFETY: the item comes from below the limit and the group, both of which have kept a place
                // for it and are told so.
                let item = unsafe {
                    cache.alloc_past(|_, flush| grouped.source().alloc_or_flush(request, flush))
                };
                let item = item.map_err(failed)?;
                place.used();
                room.used();
                item
            }
            Err(reason) => return Err(failed(reason)),
        };
        if core.edge().is_none() {
            // SAFETY: it is the cache of this zone, which goes when the zone is dropped.
            unsafe { self.front.publish(cache) };
        }
        // SAFETY: the item came from the source just now; the hooks take null, as promised by whoever put
        // them on the zone.
        unsafe { core.ready(item, ptr::null_mut(), request) }.map_err(error)
    }
}
