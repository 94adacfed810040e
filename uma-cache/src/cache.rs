//! The cache itself: what happens on a hit, and what it promises as an item source.

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr;

use lock_api::RawMutex;
use uma_core::{AllocError, Item, ItemSource, Metadata, Process, Reclaim, Request, Stats};

use crate::bucket::{MAX_CAPACITY, Owned, Traffic, capacity_for};
use crate::depot::Depot;
use crate::drain::Finally;
use crate::hand::Busy;
use crate::slow::PATIENCE;
use crate::sync::{
    AtomicBool, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering,
    const_unless_modelled,
};
use crate::{PerCpu, Slot, Slots, Which};

/// How much a cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Items in one bucket to begin with, at most [`MAX_CAPACITY`]. With 0 nothing is cached.
    pub bucket: u16,
    /// Items in one bucket at most, not less than `bucket`. Buckets grow while CPUs meet at the depot or
    /// have to go past it to the source, and start small again when memory is asked back.
    pub max_bucket: u16,
    /// Items that the depot keeps for each CPU; and it keeps empty buckets for as many.
    pub depot: usize,
}

impl CacheConfig {
    /// Bytes in the items of one grown bucket, and in those that the depot keeps for each CPU. (They cost
    /// no memory that the source would not keep as well: a keg holds its slabs until it is reclaimed.)
    const BUCKET_BYTES: usize = 1 << 20;
    const DEPOT_BYTES: usize = 16 << 20;
    /// The largest item that is cached.
    const LARGEST: usize = 1 << 20;

    /// What suits items of `size` bytes. Buckets begin as FreeBSD's do and grow to 1 MiB of items; the
    /// depot keeps up to 16 MiB of items for each CPU, and at least two grown buckets. Items above 1 MiB are
    /// not cached: each CPU would hold many of them, and their use costs more than to fetch them.
    pub const fn for_size(size: usize) -> Self {
        if size > Self::LARGEST {
            return Self::none();
        }
        let bucket = capacity_for(size);
        let size = if size == 0 { 1 } else { size };
        let grown = at_most(Self::BUCKET_BYTES / size, MAX_CAPACITY as usize);
        // At most `MAX_CAPACITY`, so it fits.
        let max_bucket = if grown > bucket as usize { grown as u16 } else { bucket };
        let (bytes, two) = (Self::DEPOT_BYTES / size, 2 * max_bucket as usize);
        // Where nothing is cached to begin with, nothing grows either.
        let max_bucket = if bucket == 0 { 0 } else { max_bucket };
        Self { bucket, max_bucket, depot: if bytes > two { bytes } else { two } }
    }

    /// Buckets of a size of your own, which do not grow; the depot keeps up to 32 of them for each CPU.
    pub const fn with_bucket(bucket: u16) -> Self {
        Self { bucket, max_bucket: bucket, depot: 32 * bucket as usize }
    }

    /// Nothing is cached.
    pub const fn none() -> Self {
        Self { bucket: 0, max_bucket: 0, depot: 0 }
    }
}

const fn at_most(value: usize, bound: usize) -> usize {
    if value < bound { value } else { bound }
}

/// Per-CPU buckets in front of `S`, with the slots reached by `C`, the depot locked by `L`, and the
/// memory of buckets and slots from `M`.
///
/// It is usable from `new` on and reserves nothing until it is first used; where there is no memory
/// for buckets or slots, it passes everything through. It holds at most two buckets per CPU and what
/// its [`CacheConfig`] lets the depot keep.
///
/// Dropping it gives all items back to the source.
// In this order, so that what a hit touches is on one cache line.
#[repr(C)]
pub struct BucketCache<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> {
    // What a hit touches.
    pub(crate) slot_count: AtomicUsize,
    slots: AtomicPtr<Slot>,
    pub(crate) percpu: C,
    // The rest.
    pub(crate) source: S,
    pub(crate) metadata: M,
    pub(crate) config: CacheConfig,
    /// How memory for buckets is asked for.
    pub(crate) bookkeeping: Request,
    /// Items that new buckets have room for.
    pub(crate) capacity: AtomicU16,
    /// Items that a bucket may have room for; 0 where nothing is cached. See `bound`.
    pub(crate) largest: AtomicU16,
    /// How often buckets were found too small.
    pub(crate) strain: AtomicU32,
    /// Items that may be cached, or `u64::MAX`.
    pub(crate) bound: AtomicU64,
    /// Items that were fetched from the source by the bucket, in this period.
    pub(crate) fetched: AtomicUsize,
    pub(crate) depot: Mutex<L, Depot>,
    /// Held from taking buckets out of slots until what was done with them is counted and they are in the
    /// depot or back: whoever counts after that misses nothing. And while the slots become known. Taken before
    /// the depot's lock.
    pub(crate) hands: Mutex<L, ()>,
    /// Threads that have items in hand for longer than a moment (see [`Busy`]).
    pub(crate) busy: AtomicUsize,
    /// Callers that are about to fail for want of items: what is taken out of a slot only to be counted
    /// then goes to the depot, where they find it.
    pub(crate) hungry: AtomicUsize,
    /// While the process is copied: nothing goes into slots or the depot.
    pub(crate) frozen: AtomicBool,
    /// Traffic harvested from buckets, and of items that went past them.
    pub(crate) allocs: AtomicU64,
    pub(crate) frees: AtomicU64,
}

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> BucketCache<S, C, L, M> {
    const_unless_modelled! {
        /// A cache in front of `source`. Bucket sizes above [`MAX_CAPACITY`] are lowered to it.
        pub const fn new(source: S, percpu: C, metadata: M, config: CacheConfig) -> Self {
            let bucket = at_most(config.bucket as usize, MAX_CAPACITY as usize) as u16;
            let max_bucket = at_most(config.max_bucket as usize, MAX_CAPACITY as usize) as u16;
            let max_bucket = if max_bucket > bucket { max_bucket } else { bucket };
            Self {
                slot_count: AtomicUsize::new(0),
                slots: AtomicPtr::new(ptr::null_mut()),
                percpu,
                source,
                metadata,
                config: CacheConfig { bucket, max_bucket, ..config },
                bookkeeping: Request::NOWAIT,
                capacity: AtomicU16::new(bucket),
                largest: AtomicU16::new(if bucket == 0 { 0 } else { max_bucket }),
                strain: AtomicU32::new(0),
                bound: AtomicU64::new(u64::MAX),
                fetched: AtomicUsize::new(0),
                depot: Mutex::const_new(L::INIT, Depot::new()),
                hands: Mutex::const_new(L::INIT, ()),
                busy: AtomicUsize::new(0),
                hungry: AtomicUsize::new(0),
                frozen: AtomicBool::new(false),
                allocs: AtomicU64::new(0),
                frees: AtomicU64::new(0),
            }
        }
    }

    /// The same, but buckets and slots are made only of memory that is held already: for a cache that serves
    /// those who supply pages. Without such memory it passes everything through.
    pub fn without_pages(mut self) -> Self {
        self.bookkeeping = Request::NOWAIT.without_pages();
        self
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
    /// it, also one that interrupted a call into the same cache. (A child of `vfork` may not: it shares
    /// the memory but not the rseq area of its parent's thread.)
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

    /// Takes one item past the buckets by `fetch`, which is given the source below and what makes this cache
    /// give back all it holds, and counts it as an allocation: for callers that wait for the source in a way
    /// of their own.
    ///
    /// # Errors
    ///
    /// That of `fetch`.
    ///
    /// # Safety
    ///
    /// The item that `fetch` returns came from the source, or from a source below it in a way that the source
    /// knows of, and is the caller's.
    pub unsafe fn alloc_past(
        &self,
        fetch: impl FnOnce(&S, &mut dyn FnMut()) -> Result<Item, AllocError>,
    ) -> Result<Item, AllocError> {
        let item = fetch(&self.source, &mut || self.flush())?;
        self.count(Traffic { allocs: 1, frees: 0 });
        Ok(item)
    }

    /// The slots: none before the first slow path, one per CPU after it.
    #[inline(always)]
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
        let memory = self.metadata.alloc_meta_for(layout, self.bookkeeping);
        let Some(memory) = memory else { return };
        let first = memory.cast::<Slot>();
        for cpu in 0..cpus {
            // SAFETY: the memory is ours and has room for this many slots.
            unsafe { first.add(cpu).write(Slot::new()) };
        }
        // Under the lock that a fork holds: the slots that it lets go of are those that it took, and in the copy
        // they are there or not.
        let hands = self.hands.lock();
        let late = self.slot_count.load(Ordering::Relaxed) != 0;
        if !late {
            self.slots.store(first.as_ptr(), Ordering::Relaxed);
            // Release: they are initialised before they are out. An exchange: whoever bounds the cache and finds
            // no slots yet is before it, and seen by all who find them (see `set_max_cached`).
            self.slot_count.swap(cpus, Ordering::AcqRel);
        }
        drop(hands);
        if late {
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
        self.import_many(into, request)
    }

    unsafe fn release(&self, items: &[Item]) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.release_many(items) };
    }

    #[inline(always)]
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

    #[inline(always)]
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
        let below = Finally(|| self.source.reclaim(mode.max(Reclaim::Trim)));
        if !self.drain(mode) {
            // Nothing was idle here, but caches below have periods of their own.
            core::mem::forget(below);
            self.source.reclaim(mode);
        }
    }

    fn visit_stats(&self, stats: &mut Stats) {
        // Here and not in the middle, where the census would see to it: what is below is asked first.
        self.pass_on();
        self.source.visit_stats(stats);
        self.account(stats);
    }

    /// The slots lie in several pages, which are not copied at one instant: a bucket that moved from
    /// one slot to another meanwhile would be in both. So the slots are emptied first, and what comes
    /// back from threads that had a bucket in hand does not move on.
    fn prefork(&self) {
        self.frozen.store(true, Ordering::SeqCst);
        // Those who did not see that yet will soon be done; but not for ever: a hook may be among them.
        for _ in 0..PATIENCE {
            if Busy::none(self.busy.load(Ordering::SeqCst)) {
                break;
            }
            self.percpu.relax();
        }
        self.collect();
        core::mem::forget(self.hands.lock());
        self.percpu.prefork(self.slots());
        core::mem::forget(self.depot.lock());
        self.source.prefork();
    }

    unsafe fn postfork(&self, process: Process) {
        if process == Process::Copy {
            // Whoever had something in hand is in the original.
            self.busy.store(0, Ordering::SeqCst);
            self.hungry.store(0, Ordering::SeqCst);
        }
        // SAFETY: the caller called `prefork`, which forgot the guards; the rest is passed on.
        unsafe {
            self.source.postfork(process);
            self.depot.force_unlock();
            self.percpu.postfork(self.slots());
            self.hands.force_unlock();
        }
        self.frozen.store(false, Ordering::SeqCst);
    }

    fn settle(&self) {
        self.pass_on();
        self.keep_bound();
        self.source.settle();
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
        // Goes also if a hook unwinds while the items are given back.
        let _memory = OwnMemory(self);
        self.empty_depot(0);
    }
}

/// The memory of a cache that is being dropped and holds no items any more: empty buckets and the slots.
struct OwnMemory<'a, S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata>(
    &'a BucketCache<S, C, L, M>,
);

impl<S: ItemSource, C: PerCpu, L: RawMutex, M: Metadata> Drop for OwnMemory<'_, S, C, L, M> {
    fn drop(&mut self) {
        let cache = self.0;
        cache.delete_empty();
        let first = cache.slots.load(Ordering::Relaxed);
        if let (Some(first), Some(layout)) =
            (ptr::NonNull::new(first), Slots::layout(cache.slots().count()))
        {
            // SAFETY: `make_slots` got the memory with this layout, and nothing uses it any more.
            unsafe { cache.metadata.free_meta(first.cast(), layout) };
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
