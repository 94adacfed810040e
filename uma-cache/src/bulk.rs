//! Many items at once.
//!
//! Whole buckets are taken in hand, items are copied out of them or into them, and the buckets put
//! back: two exchanges for a bucket instead of a sequence for each item. What the caches do not have
//! comes from the source in one batch, and what they have no room for goes there.

use core::mem::MaybeUninit;

use lock_api::RawMutex;
use uma_core::{AllocError, Item, ItemSource, Metadata, Request};

use crate::bucket::Traffic;
use crate::hand::{Busy, Taken, Underway};
use crate::{BucketCache, PerCpu, Which};

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> BucketCache<S, C, L, M> {
    /// See [`ItemSource::import`].
    pub(crate) fn import_many(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        let cached = self.import_cached(into);
        let (ready, rest) = into.split_at_mut(cached);
        if rest.is_empty() {
            return Ok(cached);
        }
        // SAFETY: `import_cached` has initialised so many.
        let taken = Taken { cache: self, items: unsafe { ready.assume_init_ref() } };
        let more = self.source.import(rest, request.without_waiting());
        core::mem::forget(taken);
        match more {
            Ok(more) => {
                self.count(Traffic { allocs: more as u64, frees: 0 });
                Ok(cached + more)
            }
            Err(_) if cached != 0 => Ok(cached),
            Err(error) if !error.is_shortage() => Err(error),
            Err(_) => {
                // Nothing here and nothing below: other CPUs may have some.
                let item = self.alloc_slow(request.without_waiting(), &mut || {})?;
                rest[0].write(item);
                Ok(1)
            }
        }
    }

    /// Takes what the buckets of this CPU and of the depot have.
    fn import_cached(&self, into: &mut [MaybeUninit<Item>]) -> usize {
        if !self.may_cache() {
            return 0;
        }
        let underway = Underway::uncounted(self);
        let mut count = 0;
        for which in [Which::Alloc, Which::Free] {
            if count == into.len() {
                break;
            }
            let Some(mut hand) = self.take(which) else { continue };
            count += hand.bucket.pop_many(&mut into[count..]);
            // SAFETY: so many were initialised by `pop_many`.
            let items = unsafe { into[..count].assume_init_ref() };
            let taken = Taken { cache: self, items };
            drop(hand.install(which));
            core::mem::forget(taken);
        }
        let busy = (count < into.len()).then(|| Busy::new(&self.busy));
        while count < into.len() {
            let Some(mut full) = self.take_full() else { break };
            count += full.bucket.pop_many(&mut into[count..]);
            // SAFETY: as above.
            let items = unsafe { into[..count].assume_init_ref() };
            let taken = Taken { cache: self, items };
            // What is left of it goes on being a full bucket, or is an empty one.
            drop(full);
            core::mem::forget(taken);
        }
        // SAFETY: as above.
        let taken = Taken { cache: self, items: unsafe { into[..count].assume_init_ref() } };
        drop(busy);
        drop(underway);
        core::mem::forget(taken);
        count
    }

    /// See [`ItemSource::release`].
    ///
    /// # Safety
    ///
    /// As [`ItemSource::release`].
    pub(crate) unsafe fn release_many(&self, items: &[Item]) {
        // Whatever finds no room goes to the source, also if a hook unwinds before.
        let mut rest = Taken { cache: self, items };
        if items.is_empty() || !self.may_cache() {
            return;
        }
        let _underway = Underway::uncounted(self);
        for which in [Which::Alloc, Which::Free] {
            if rest.items.is_empty() {
                return;
            }
            let Some(mut hand) = self.take(which) else { continue };
            // SAFETY: passed on from the caller.
            unsafe { rest.put(&mut hand) };
            drop(hand.install(which));
        }
        let _busy = (!rest.items.is_empty()).then(|| Busy::new(&self.busy));
        while !rest.items.is_empty() {
            let Some(mut empty) = self.take_empty() else { return };
            // SAFETY: as above.
            let all = unsafe { rest.put(&mut empty) };
            // A full one is for the depot; the last, partly filled one for this CPU.
            if all {
                drop(empty.install(Which::Free));
            }
        }
    }
}
