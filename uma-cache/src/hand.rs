//! What a thread has in hand, between one place and another; and what becomes of it if a hook unwinds.
//!
//! | guard | holds | at its end |
//! |---|---|---|
//! | [`Hand`] | a bucket | the depot has it |
//! | [`Taken`] | items for the caller, or of the caller's | the source has them, if it was not forgotten |
//! | [`Underway`] | nothing: items are about to be cached | looks whether somebody waits for them |
//! | [`Busy`] | nothing: that takes longer than a moment | is not counted any more |
//!
//! [`Underway`] is dropped after the bucket is where it goes, and before [`Taken`] is forgotten: passing items on
//! runs hooks, and the caller's item must not be lost if one of them unwinds.
//!
//! None of them holds a lock.

use lock_api::RawMutex;
use uma_core::{Item, ItemSource, Metadata};

use crate::bucket::{Owned, Traffic};
use crate::sync::{AtomicUsize, Ordering};
use crate::{BucketCache, PerCpu, Which};

/// A bucket in hand. Dropping it leaves it to the depot.
pub(crate) struct Hand<'a, S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> {
    pub(crate) cache: &'a BucketCache<S, C, L, M>,
    pub(crate) bucket: Owned,
}

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> Hand<'_, S, C, L, M> {
    /// Puts the bucket into the slot of the CPU we are on, and has in hand what was there. If the
    /// slot declines, the same bucket stays in hand.
    pub(crate) fn install(mut self, which: Which) -> Self {
        let bucket = core::mem::replace(&mut self.bucket, Owned::none());
        let capacity = bucket.capacity();
        match self.cache.percpu.swap(self.cache.slots(), which, bucket) {
            Ok(bucket) => {
                self.bucket = bucket;
                self.cache.installed(capacity);
            }
            Err(bucket) => self.bucket = bucket,
        }
        self
    }
}

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> Drop for Hand<'_, S, C, L, M> {
    fn drop(&mut self) {
        let bucket = core::mem::replace(&mut self.bucket, Owned::none());
        self.cache.stash(bucket);
    }
}

/// Items on their way through a thread's hands for longer than a moment. Counted, so that a caller about to
/// fail at a limit can wait for them: the lower half of the word is how many do so just now, the upper half
/// how often somebody began to.
pub(crate) struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    const NOW: usize = 1;
    const BEGUN: usize = 1 << (usize::BITS / 2);

    pub(crate) fn new(busy: &'a AtomicUsize) -> Self {
        busy.fetch_add(Self::BEGUN + Self::NOW, Ordering::SeqCst);
        Self(busy)
    }

    /// Whether nobody was at it when the word was this.
    pub(crate) const fn none(word: usize) -> bool {
        word & (Self::BEGUN - 1) == 0
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        // Not counted any more, if a hook has forked meanwhile and this is the copy.
        if Self::none(self.0.fetch_sub(Self::NOW, Ordering::SeqCst)) {
            self.0.fetch_add(Self::NOW, Ordering::SeqCst);
        }
    }
}

/// Items on their way into slots or the depot. At its end, also by unwinding, it looks whether somebody
/// waits for an item.
pub(crate) struct Underway<'a, S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> {
    cache: &'a BucketCache<S, C, L, M>,
    _busy: Option<Busy<'a>>,
}

impl<'a, S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> Underway<'a, S, C, L, M> {
    pub(crate) fn new(cache: &'a BucketCache<S, C, L, M>) -> Self {
        Self { cache, _busy: Some(Busy::new(&cache.busy)) }
    }

    /// The same, not counted: for a bucket that goes from one slot to another, or to the depot, which is
    /// over sooner than CPUs could agree on the count.
    pub(crate) const fn uncounted(cache: &'a BucketCache<S, C, L, M>) -> Self {
        Self { cache, _busy: None }
    }
}

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> Drop for Underway<'_, S, C, L, M> {
    fn drop(&mut self) {
        self.cache.pass_on();
    }
}

/// Items that were taken for the caller, given back to the source if a hook unwinds meanwhile.
pub(crate) struct Taken<'a, 'i, S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> {
    pub(crate) cache: &'a BucketCache<S, C, L, M>,
    pub(crate) items: &'i [Item],
}

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> Taken<'_, '_, S, C, L, M> {
    /// Puts as many items into a bucket as it has room for, and returns whether those were all.
    ///
    /// # Safety
    ///
    /// The caller owns the items, and gives up those that are not in here any more.
    pub(crate) unsafe fn put(&mut self, hand: &mut Hand<'_, S, C, L, M>) -> bool {
        // SAFETY: passed on from the caller; what is pushed is no longer in here.
        let put = unsafe { hand.bucket.push_many(self.items) };
        self.items = &self.items[put..];
        self.items.is_empty()
    }
}

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> Drop for Taken<'_, '_, S, C, L, M> {
    fn drop(&mut self) {
        if self.items.is_empty() {
            return;
        }
        self.cache.count(Traffic { allocs: 0, frees: self.items.len() as u64 });
        // SAFETY: the items came up from the source, were counted as allocations and went to nobody.
        unsafe { self.cache.source.release(self.items) };
    }
}
