//! Many items at once.
//!
//! Whole buckets are taken in hand, items are copied out of them or into them, and the buckets put
//! back: two exchanges for a bucket instead of a sequence for each item. What the caches do not have
//! comes from the source in one batch, and what they have no room for goes there.

use core::mem::MaybeUninit;

use lock_api::RawMutex;
use uma_core::{AllocError, Item, ItemSource, Metadata, Request};

use crate::bucket::Traffic;
use crate::{BucketCache, PerCpu, Which};

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> BucketCache<S, C, L, M> {
    /// See [`ItemSource::import`].
    pub(crate) fn import_many(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        let mut count = self.import_cached(into);
        if count == into.len() {
            return Ok(count);
        }
        match self.source.import(&mut into[count..], request.without_waiting()) {
            Ok(more) => {
                self.count(Traffic { allocs: more as u64, frees: 0 });
                return Ok(count + more);
            }
            Err(_) if count != 0 => return Ok(count),
            Err(error) if !error.is_shortage() => return Err(error),
            Err(_) => {}
        }
        // Nothing here and nothing below: other CPUs may have some.
        let item = self.alloc_slow(request.without_waiting(), &mut || {})?;
        into[0].write(item);
        count = 1;
        Ok(count)
    }

    /// Takes what the buckets of this CPU and of the depot have.
    fn import_cached(&self, into: &mut [MaybeUninit<Item>]) -> usize {
        if !self.may_cache() {
            return 0;
        }
        let mut count = 0;
        for which in [Which::Alloc, Which::Free] {
            if count == into.len() {
                break;
            }
            let Some(mut hand) = self.take(which) else { continue };
            count += hand.bucket.pop_many(&mut into[count..]);
            drop(hand.install(which));
        }
        while count < into.len() {
            let Some(mut full) = self.take_full() else { break };
            count += full.bucket.pop_many(&mut into[count..]);
            // What is left of it goes on being a full bucket, or is an empty one.
            drop(full);
        }
        self.settle();
        count
    }

    /// See [`ItemSource::release`].
    ///
    /// # Safety
    ///
    /// As [`ItemSource::release`].
    pub(crate) unsafe fn release_many(&self, items: &[Item]) {
        // SAFETY: passed on from the caller.
        let rest = unsafe { self.release_cached(items) };
        if !rest.is_empty() {
            self.count(Traffic { allocs: 0, frees: rest.len() as u64 });
            // SAFETY: passed on from the caller; these were not taken.
            unsafe { self.source.release(rest) };
        }
    }

    /// Puts items into the buckets of this CPU, and whole buckets of them into the depot. Returns
    /// those for which there was no room.
    ///
    /// # Safety
    ///
    /// As [`ItemSource::release`], for all but those that are returned.
    unsafe fn release_cached<'i>(&self, mut items: &'i [Item]) -> &'i [Item] {
        if items.is_empty() || !self.may_cache() {
            return items;
        }
        for which in [Which::Alloc, Which::Free] {
            let Some(mut hand) = self.take(which) else { continue };
            // SAFETY: passed on from the caller.
            let put = unsafe { hand.bucket.push_many(items) };
            items = &items[put..];
            drop(hand.install(which));
            if items.is_empty() {
                break;
            }
        }
        // A bucket for the depot is worth its while if there is enough to fill it.
        while let Some(mut empty) = self.take_empty() {
            if items.len() < usize::from(empty.bucket.capacity()) {
                break;
            }
            // SAFETY: passed on from the caller.
            let put = unsafe { empty.bucket.push_many(items) };
            items = &items[put..];
        }
        if let Some(mut empty) = (!items.is_empty()).then(|| self.take_empty()).flatten() {
            // SAFETY: passed on from the caller. There is room for all, or the loop had gone on.
            let put = unsafe { empty.bucket.push_many(items) };
            items = &items[put..];
            drop(empty.install(Which::Free));
        }
        self.settle();
        items
    }
}
