//! The cache itself: what happens on a hit, and what it promises as an item source.

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr;

use lock_api::RawMutex;
use uma_core::{AllocError, Item, ItemSource, Metadata, Reclaim, Request, Stats};

use crate::bucket::{MAX_CAPACITY, Owned, capacity_for};
use crate::depot::Depot;
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Mutex, Ordering};
use crate::{PerCpu, Slot, Slots, Which};

/// How much a cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Items in one bucket, at most [`MAX_CAPACITY`]. With 0 nothing is cached.
    pub bucket: u16,
    /// Full buckets, and as many empty ones, that the depot keeps for each CPU.
    pub depot: u16,
}

impl CacheConfig {
    /// What suits items of `size` bytes: buckets as FreeBSD starts them, and 32 of them in the depot
    /// for each CPU.
    pub const fn for_size(size: usize) -> Self {
        Self { bucket: capacity_for(size), depot: 32 }
    }
}

/// Per-CPU buckets in front of `S`, with the slots reached by `C`, the depot locked by `L`, and the
/// memory of buckets and slots from `M`.
///
/// It is usable from `new` on and reserves nothing until it is first used; where there is no memory
/// for buckets or slots, it passes everything through. It holds at most two buckets per CPU and what
/// its [`CacheConfig`] lets the depot keep.
///
/// Dropping it gives all items back to the source.
pub struct BucketCache<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> {
    // What a hit touches.
    slot_count: AtomicUsize,
    slots: AtomicPtr<Slot>,
    pub(crate) percpu: C,
    // The rest.
    pub(crate) source: S,
    pub(crate) metadata: M,
    pub(crate) config: CacheConfig,
    pub(crate) depot: Mutex<L, Depot>,
    /// Traffic harvested from buckets, and of items that went past them.
    pub(crate) allocs: AtomicU64,
    pub(crate) frees: AtomicU64,
}

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> BucketCache<S, C, L, M> {
    /// A cache in front of `source`. Bucket sizes above [`MAX_CAPACITY`] are lowered to it.
    pub const fn new(source: S, percpu: C, metadata: M, config: CacheConfig) -> Self {
        let bucket = if config.bucket > MAX_CAPACITY { MAX_CAPACITY } else { config.bucket };
        Self {
            slot_count: AtomicUsize::new(0),
            slots: AtomicPtr::new(ptr::null_mut()),
            percpu,
            source,
            metadata,
            config: CacheConfig { bucket, ..config },
            depot: Mutex::const_new(L::INIT, Depot::new()),
            allocs: AtomicU64::new(0),
            frees: AtomicU64::new(0),
        }
    }

    /// The source below.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// How slots are reached (see [`PerCpu::mode`]).
    pub fn mode(&self) -> &'static str {
        self.percpu.mode()
    }

    /// Takes an item if the running CPU's `alloc` bucket has one, and does nothing else.
    ///
    /// With [`Rseq`](crate::Rseq) this is async-signal-safe and lock-free: a signal handler may call
    /// it, also one that interrupted a call into the same cache.
    #[inline]
    pub fn alloc_cached(&self) -> Option<Item> {
        self.percpu.pop(self.slots())
    }

    /// Puts an item into one of the running CPU's buckets if there is room, and does nothing else. As
    /// safe in a signal handler as [`alloc_cached`](Self::alloc_cached).
    ///
    /// # Errors
    ///
    /// The item, if there is no room.
    ///
    /// # Safety
    ///
    /// As [`ItemSource::free`].
    #[inline]
    pub unsafe fn free_cached(&self, item: Item) -> Result<(), Item> {
        // SAFETY: the caller gives the item up; if it is not taken, it is the caller's again.
        if unsafe { self.percpu.push(self.slots(), item) } { Ok(()) } else { Err(item) }
    }

    /// The slots: none before the first slow path, one per CPU after it.
    #[inline]
    pub(crate) fn slots(&self) -> Slots<'_> {
        let count = self.slot_count.load(Ordering::Acquire);
        // SAFETY: `make_slots` stores the count, with release, only after the pointer to so many
        // slots; they live until the cache is dropped.
        unsafe { Slots::new(self.slots.load(Ordering::Relaxed), count) }
    }

    /// Makes the slots, if there are none and there is memory.
    pub(crate) fn make_slots(&self) {
        if self.slot_count.load(Ordering::Acquire) != 0 {
            return;
        }
        let cpus = self.percpu.cpus();
        let Some(layout) = Slots::layout(cpus).filter(|layout| layout.size() != 0) else { return };
        let Some(memory) = self.metadata.alloc_meta(layout) else { return };
        let first = memory.cast::<Slot>();
        for cpu in 0..cpus {
            // SAFETY: the memory is ours and has room for this many slots.
            unsafe { first.add(cpu).write(Slot::new()) };
        }
        // AcqRel: the winner's slots are initialised before their address is out.
        let (null, new) = (ptr::null_mut(), first.as_ptr());
        if self.slots.compare_exchange(null, new, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.slot_count.store(cpus, Ordering::Release);
        } else {
            // Another thread was first, and will store the count.
            // SAFETY: the memory came from `alloc_meta` with this layout and nobody has seen it.
            unsafe { self.metadata.free_meta(memory, layout) };
        }
    }
}

// SAFETY: an item is in exactly one place: a bucket (owned as the module documentation of the crate
// says), or out. Items only come from the source and are handed out once: a pop takes it off its
// bucket. `wanted` and `alloc_or_flush` are passed on.
unsafe impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> ItemSource
    for BucketCache<S, C, L, M>
{
    fn layout(&self) -> Layout {
        self.source.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        let mut count = 0;
        for room in &mut *into {
            match self.alloc(request.without_waiting()) {
                Ok(item) => room.write(item),
                Err(error) if count == 0 => return Err(error),
                Err(_) => break,
            };
            count += 1;
        }
        Ok(count)
    }

    unsafe fn release(&self, items: &[Item]) {
        for &item in items {
            // SAFETY: the caller gives up every one of them.
            unsafe { self.free(item) };
        }
    }

    #[inline]
    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        match self.percpu.pop(self.slots()) {
            Some(item) => Ok(item),
            None => self.alloc_slow(request, &mut || {}),
        }
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        match self.percpu.pop(self.slots()) {
            Some(item) => Ok(item),
            None => self.alloc_slow(request, flush),
        }
    }

    #[inline]
    unsafe fn free(&self, item: Item) {
        // SAFETY: the caller gives the item up.
        if !unsafe { self.percpu.push(self.slots(), item) } {
            // SAFETY: the item was not taken, so it is still ours to give.
            unsafe { self.free_slow(item) };
        }
    }

    unsafe fn discard(&self, item: Item) {
        self.frees.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the item came up from the source, and the caller gives it up.
        unsafe { self.source.discard(item) };
    }

    fn wanted(&self) -> bool {
        self.source.wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        self.drain(mode);
        self.source.reclaim(mode);
    }

    fn visit_stats(&self, stats: &mut Stats) {
        self.source.visit_stats(stats);
        self.census(stats);
    }
}

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> Drop for BucketCache<S, C, L, M> {
    fn drop(&mut self) {
        let slots = self.slots();
        for slot in (0..slots.count()).filter_map(|cpu| slots.get(cpu)) {
            for which in [Which::Alloc, Which::Free] {
                // SAFETY: `&mut self` means that no operation on any slot is under way.
                self.keep(unsafe { slot.swap(which, Owned::none()) });
            }
        }
        self.drain(Reclaim::Drain);
        let first = *self.slots.get_mut();
        if let (Some(first), Some(layout)) =
            (ptr::NonNull::new(first), Slots::layout(*self.slot_count.get_mut()))
        {
            // SAFETY: `make_slots` got the memory with this layout, and nothing uses it any more.
            unsafe { self.metadata.free_meta(first.cast(), layout) };
        }
    }
}

impl<S: ItemSource + core::fmt::Debug, C: PerCpu, L: RawMutex, M: Metadata> core::fmt::Debug
    for BucketCache<S, C, L, M>
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("BucketCache")
            .field("mode", &self.percpu.mode())
            .field("config", &self.config)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}
