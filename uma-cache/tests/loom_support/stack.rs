//! The stack under test: a cache over a limit over a pool.

use std::num::NonZeroU64;
use std::sync::Arc;

use uma_cache::{BucketCache, CacheConfig, CpuLocks, PerCpu, Pinned};
use uma_core::{AllocError, Item, ItemSource, Limited, Request, Stats};

use super::common::{Lock, Owners, Parking, Pool, touch};
use super::cpu::{Chosen, Kernel};
use super::heap::Heap;

/// Buckets of one item, and a depot of one for each CPU: every path is short and often taken.
pub(crate) const TINY: CacheConfig = CacheConfig { bucket: 1, max_bucket: 1, depot: 1 };

pub(crate) type Cache<C> = BucketCache<Limited<Pool, Lock, Parking>, C, Lock, Heap>;

/// How slots are reached in a model.
pub(crate) trait Access: PerCpu + Send + Sync + 'static {
    fn new() -> Self;
}

/// By a lock for each slot.
pub(crate) type Locks = CpuLocks<Chosen>;

impl Access for Locks {
    fn new() -> Self {
        Self::new(Chosen)
    }
}

/// By critical sections and a fence.
pub(crate) type Pins = Pinned<Kernel>;

impl Access for Pins {
    fn new() -> Self {
        Self::new(Kernel::new())
    }
}

/// The cache, shared by the threads of a model.
pub(crate) struct Stack<C: PerCpu>(Arc<Cache<C>>);

impl<C: PerCpu> Clone for Stack<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: PerCpu> std::ops::Deref for Stack<C> {
    type Target = Cache<C>;

    fn deref(&self) -> &Cache<C> {
        &self.0
    }
}

impl<C: Access> Stack<C> {
    /// `items` items, all of which may be out.
    pub(crate) fn new(items: usize, config: CacheConfig) -> Self {
        Self::over(Pool::new(items), items as u64, config)
    }

    /// A limit of `max` over `pool`.
    pub(crate) fn over(pool: Pool, max: u64, config: CacheConfig) -> Self {
        let limited = Limited::new(pool, NonZeroU64::new(max), Parking);
        Self(Arc::new(BucketCache::new(limited, C::new(), Heap::default(), config)))
    }

    /// Takes an item and uses it.
    pub(crate) fn take(&self, request: Request) -> Result<Item, AllocError> {
        let item = self.alloc(request)?;
        touch(item);
        Ok(item)
    }

    /// Uses an item once more and frees it.
    pub(crate) fn give(&self, item: Item) {
        touch(item);
        // SAFETY: every caller took it from this stack and gives it up.
        unsafe { self.free(item) };
    }

    /// Takes an item and frees it; or not, if there is none.
    pub(crate) fn use_one(&self, request: Request) -> bool {
        let item = self.take(request);
        if let Ok(item) = item {
            self.give(item);
        }
        item.is_ok()
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.visit_stats(&mut stats);
        stats
    }

    /// The end of a model: every item and bucket is back, and what was counted is what was done.
    /// The other threads have ended.
    pub(crate) fn over_after(self, allocs: u64) {
        let stats = self.stats();
        assert_eq!((stats.allocs, stats.frees), (allocs, allocs), "{stats:?}");
        let limit = self.source();
        assert_eq!((limit.items(), limit.sleepers()), (stats.cached, 0));
        let Ok(cache) = Arc::try_unwrap(self.0) else { panic!("a thread still has the cache") };
        // The pool and the heap look whether all is back.
        drop(cache);
    }
}

/// A stack that ends with the last of those who share it, which [`Stack::over_after`] looks at.
pub(crate) struct Shared<C: Access>(Owners<Owned<C>>);

struct Owned<C: Access> {
    stack: Option<Stack<C>>,
    /// Allocations, which are no part of the model.
    allocs: std::sync::atomic::AtomicU64,
}

impl<C: Access> Shared<C> {
    /// After `allocs` allocations.
    pub(crate) fn new(stack: Stack<C>, allocs: u64) -> Self {
        Self(Owners::new(Owned { stack: Some(stack), allocs: allocs.into() }))
    }

    pub(crate) fn one_more(&self) {
        self.0.allocs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl<C: Access> Clone for Shared<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Access> std::ops::Deref for Shared<C> {
    type Target = Stack<C>;

    fn deref(&self) -> &Stack<C> {
        self.0.stack.as_ref().unwrap()
    }
}

impl<C: Access> Drop for Owned<C> {
    fn drop(&mut self) {
        self.stack.take().unwrap().over_after(*self.allocs.get_mut());
    }
}
