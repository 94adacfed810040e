//! `pool`: items of one size.
//!
//! Locks: one for what is said at the hard limit and the drain hook, a leaf; neither the hook nor a report runs
//! under it. It is taken at the limit, and when there is no memory.

use core::alloc::Layout;
use core::ffi::{c_int, c_void};
use core::fmt;
use core::num::NonZeroU64;
use core::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uma::core::{AllocError, ConfigError, ConfigFault, Item, ItemSource, Name, Request, Stats};
use uma::keg::SlabConfig;
use uma::{Hardening, RawZone, Reclaim, ZoneFlags};

use super::hooks::{Callbacks, Construct, Telling};
use super::pages::{PageAllocator, Source, Supply, Surroundings};
use super::{CACHE_ZERO, DIAGNOSTIC, PoolFlags, PoolStats, SETHIWAT, SETLOWAT, SYSTEM, WAITOK};
#[cfg(feature = "capi")]
use crate::common::Front;
use crate::common::fork::{Guard, Lock};
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// Asked to bring items back: of its argument, and the flags of the request. It runs with no lock held.
pub type DrainHook = unsafe extern "C-unwind" fn(*mut c_void, c_int);

/// Items are aligned to this unless something else was asked for: `ALIGN(1)`.
const NATURAL: usize = 8;
/// Objects in a group, and with `PR_LARGECACHE`.
const GROUP: u16 = 15;
const LARGE_GROUP: u16 = 63;
/// Between two tries of who waits for memory.
const PATIENCE: Duration = Duration::from_millis(1);

/// What a pool may have beside a name and a size.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolArgs {
    /// Alignment in bytes, a power of two, or 0 for whatever is natural: 8.
    pub align: usize,
    /// What kind of pool.
    pub flags: PoolFlags,
}

/// What is said when a get finds the hard limit reached.
#[derive(Clone, Debug)]
pub struct HardLimitWarning {
    /// The message.
    pub text: String,
    /// Said at most once in so many seconds.
    pub ratecap: Duration,
}

/// Items of a pool are in use, so it cannot be destroyed.
#[derive(Debug)]
pub struct StillOut<P> {
    /// The pool, unharmed.
    pub pool: Box<P>,
    /// How many items are out.
    pub out: u64,
}

impl<P: fmt::Display> fmt::Display for StillOut<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} busy: still out: {}", self.pool, self.out)
    }
}

impl<P: fmt::Debug + fmt::Display> core::error::Error for StillOut<P> {}

/// What changes rarely.
struct Settings {
    warning: Option<HardLimitWarning>,
    warned: Option<Instant>,
    hook: Option<(DrainHook, Argument)>,
}

#[derive(Clone, Copy)]
struct Argument(*mut c_void);

// SAFETY: the pointer is only handed to the hook, which whoever set it says may run on any thread.
unsafe impl Send for Argument {}

/// A pool of items of one size (`struct pool`).
#[repr(C)]
pub struct Pool {
    zone: RawZone<Surroundings, Construct>,
    align: usize,
    callbacks: Callbacks,
    size: usize,
    cached: bool,
    /// Whether the hard limit is 0, which is no limit to the engine.
    shut: AtomicBool,
    fails: AtomicU64,
    /// Free items that are to be there (`pr_minitems`), and at most (`pr_maxitems`).
    low: AtomicU64,
    high: AtomicU64,
    per_page: u64,
    supply: Arc<Supply>,
    settings: Lock<Settings>,
    /// Whether it was told that somebody waits for memory, or that zeros go ill with a constructor.
    told_waits: AtomicBool,
    told_zero: AtomicBool,
}

impl Pool {
    /// A pool (`pool_init`). Nothing is allocated before the first get.
    ///
    /// # Errors
    ///
    /// What is wrong with the description, or that there was no memory.
    pub fn create(name: &str, size: usize, args: PoolArgs) -> Result<Self, ConfigError> {
        // SAFETY: the host's pages, and no callbacks.
        unsafe { Self::make(name, size, args, None, None) }
    }

    /// A pool with pages from elsewhere (`pool_init` with a `struct pool_allocator`): each is one page of the
    /// allocator, and holds an item at least.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); without both functions, or if an item does not fit a page.
    ///
    /// # Safety
    ///
    /// `alloc` returns null or memory of the page size that is the pool's alone until `free` gets it. Both may be
    /// called from any thread with a null pool, and do not use the pool.
    pub unsafe fn create_on(
        name: &str,
        size: usize,
        args: PoolArgs,
        pages: PageAllocator,
    ) -> Result<Self, ConfigError> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { Self::make(name, size, args, Some(pages), None) }
    }

    /// # Safety
    ///
    /// As [`create_on`](Self::create_on), and the callbacks suit objects of that size, on any thread.
    pub(super) unsafe fn make(
        name: &str,
        size: usize,
        args: PoolArgs,
        pages: Option<PageAllocator>,
        cache: Option<Callbacks>,
    ) -> Result<Self, ConfigError> {
        let align = if args.align == 0 { NATURAL } else { args.align };
        let fault = |fault| ConfigError { zone: Name::new(name), size, align, fault };
        let source = match pages {
            None => Source::Host,
            Some(PageAllocator { alloc: Some(alloc), free: Some(free), page_size }) => {
                let page = if page_size == 0 { 4096 } else { page_size as usize };
                Source::Functions { alloc, free, page }
            }
            Some(_) => {
                return Err(fault(ConfigFault::Conflict("a page allocator", "no functions in it")));
            }
        };
        let callbacks = cache.unwrap_or_default();
        let passive = args.flags.contains(PoolFlags::PSERIALIZE);
        let untouched = passive || args.flags.contains(PoolFlags::NOTOUCH);
        let last = passive && callbacks.dtor.is_none();
        let supply = Arc::new(Supply::new(source, last));
        let construct = Construct { callbacks, untouched, passive };
        let surroundings = Surroundings(supply.clone());
        let mut zone = RawZone::builder_in(name, Layout::new::<()>(), surroundings)
            .size_align(size, align)
            .flags(match (untouched, cache) {
                (true, _) => ZoneFlags::NOTOUCH,
                // A put looks up its page, so that any pointer may be given to it.
                (false, None) => ZoneFlags::OFFPAGE,
                (false, Some(_)) => ZoneFlags::empty(),
            })
            .bucket(match cache {
                None => 0,
                Some(_) if args.flags.contains(PoolFlags::LARGECACHE) => LARGE_GROUP,
                Some(_) => GROUP,
            });
        if let Source::Functions { page, .. } = source {
            if size > page {
                return Err(fault(ConfigFault::SizeTooLarge(page)));
            }
            zone =
                zone.slab(SlabConfig::new().outside_headers().page_size(page).largest_slab(page));
        }
        if DIAGNOSTIC.get() == "on" {
            zone = zone.hardening(Hardening::RELEASE.live(true).red_zones(!untouched));
        }
        // SAFETY: the caller vouches for the callbacks, and for the functions that supply pages.
        let zone = unsafe { zone.hooks(construct) }.build()?;
        let stats = zone.stats();
        if let Source::Functions { page, .. } = source
            && stats.slab_bytes != page
        {
            return Err(fault(ConfigFault::SizeTooLarge(page)));
        }
        let settings = Settings { warning: None, warned: None, hook: None };
        Ok(Self {
            zone,
            align,
            callbacks,
            size,
            cached: cache.is_some(),
            shut: AtomicBool::new(false),
            fails: AtomicU64::new(0),
            low: AtomicU64::new(0),
            high: AtomicU64::new(u64::MAX),
            per_page: u64::from(stats.per_slab.max(1)),
            supply,
            settings: Lock::new(settings),
            told_waits: AtomicBool::new(false),
            told_zero: AtomicBool::new(false),
        })
    }

    /// What page functions are told is the pool.
    #[cfg(feature = "capi")]
    pub(super) fn set_owner(&self, pool: *mut c_void) {
        self.supply.pool.store(pool, Ordering::Relaxed);
    }

    /// An item (`pool_get`). With [`PoolFlags::WAITOK`] there always is one, in the end.
    ///
    /// At the hard limit the drain hook runs, once; then one that may wait does so until somebody puts an item,
    /// and others fail, after the warning. Where there is no memory it is the same, but that who may wait
    /// first has all zones of the process drained, and tries every millisecond (see `netbsd.waitok`).
    #[inline]
    pub fn get(&self, flags: PoolFlags) -> Option<NonNull<u8>> {
        NonNull::new(self.get_or_null(flags))
    }

    /// An item, or null.
    #[inline(always)]
    pub(super) fn get_or_null(&self, flags: PoolFlags) -> *mut u8 {
        let item = self.get_cached(flags);
        if item.is_null() { self.get_slow(flags) } else { item }
    }

    /// An item that is at hand, or null: the whole of a hit.
    #[inline(always)]
    fn get_cached(&self, flags: PoolFlags) -> *mut u8 {
        if flags.contains(PoolFlags::ZERO) { ptr::null_mut() } else { self.zone.alloc_cached() }
    }

    #[inline(never)]
    pub(super) fn get_slow(&self, flags: PoolFlags) -> *mut u8 {
        let _telling = Telling::of(flags);
        let request = if self.zeroes(flags) { Request::NOWAIT.zeroed() } else { Request::NOWAIT };
        let item = match self.alloc(request) {
            Ok(item) => item,
            Err(reason) => match self.insist(flags, request, reason) {
                Some(item) => item,
                None => {
                    self.fails.fetch_add(1, Ordering::Relaxed);
                    return ptr::null_mut();
                }
            },
        };
        let low = self.low.load(Ordering::Relaxed);
        if low != 0 {
            self.catch_up(low);
        }
        item.as_ptr()
    }

    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        if self.shut.load(Ordering::Relaxed) {
            return Err(AllocError::Limit);
        }
        self.zone.alloc(request).map_err(|error| error.reason())
    }

    /// Tries as hard as the flags have it.
    #[cold]
    fn insist(&self, flags: PoolFlags, request: Request, first: AllocError) -> Option<Item> {
        let waits = flags.contains(PoolFlags::WAITOK);
        let (mut reason, mut hooked, mut drained) = (first, false, false);
        loop {
            if reason == AllocError::Limit {
                if !hooked && self.call_hook(flags) {
                    hooked = true;
                } else if !waits || flags.contains(PoolFlags::LIMITFAIL) {
                    self.warn();
                    return None;
                } else {
                    match self.wait(request) {
                        Ok(item) => return Some(item),
                        Err(other) => reason = other,
                    }
                    continue;
                }
            } else if !reason.is_shortage() {
                return None;
            } else if !hooked && !waits && self.call_hook(flags) {
                hooked = true;
            } else if !waits || (drained && WAITOK.get() == "fail") {
                return None;
            } else if !drained {
                uma::reclaim(Reclaim::DrainCpu);
                drained = true;
            } else {
                if !self.told_waits.swap(true, Ordering::Relaxed) {
                    SYSTEM.report("PR_WAITOK", format_args!("no memory for {self}; waiting"));
                }
                std::thread::sleep(PATIENCE);
            }
            match self.alloc(request) {
                Ok(item) => return Some(item),
                Err(other) => reason = other,
            }
        }
    }

    /// Waits at the hard limit.
    fn wait(&self, request: Request) -> Result<Item, AllocError> {
        if self.shut.load(Ordering::Relaxed) {
            std::thread::sleep(PATIENCE);
            return self.alloc(request);
        }
        let wait = if request.wants_zero() { Request::WAIT.zeroed() } else { Request::WAIT };
        self.zone.alloc(wait).map_err(|error| error.reason())
    }

    /// Whether what is asked for is an item of zeros.
    fn zeroes(&self, flags: PoolFlags) -> bool {
        if !flags.contains(PoolFlags::ZERO) || (self.cached && CACHE_ZERO.get() == "ignore") {
            return false;
        }
        if self.callbacks.ctor.is_some() {
            if !self.told_zero.swap(true, Ordering::Relaxed) {
                SYSTEM.report(
                    "pool_cache_get",
                    format_args!("PR_ZERO has no effect on {self}, which has a constructor"),
                );
            }
            return false;
        }
        true
    }

    fn settings(&self) -> Guard<'_, Settings> {
        self.settings.lock()
    }

    /// Calls the drain hook, if there is one.
    fn call_hook(&self, flags: PoolFlags) -> bool {
        let hook = self.settings().hook;
        if let Some((hook, Argument(argument))) = hook {
            // SAFETY: whoever set it promised that it may be called with this.
            unsafe { hook(argument, flags.bits()) };
        }
        hook.is_some()
    }

    /// Says that the hard limit is reached, if it is time to.
    fn warn(&self) {
        let mut settings = self.settings();
        let Some(warning) = &settings.warning else { return };
        let now = Instant::now();
        let due = settings.warned.is_none_or(|last| now - last >= warning.ratecap);
        if due {
            let text = warning.text.clone();
            settings.warned = Some(now);
            drop(settings);
            SYSTEM.report("pool_get", format_args!("{self}: {text}"));
        }
    }

    /// Makes the items that are to be there, if there is memory at once.
    fn catch_up(&self, low: u64) {
        let free = self.zone.stats().free();
        if free < low {
            // What there is not, there is not: it is tried again with the next get.
            let _ = self.zone.prealloc(low - free);
        }
    }

    /// Gives an item back (`pool_put`).
    ///
    /// # Panics
    ///
    /// If it is no item of the pool in use, and nothing has changed. (Items of a cache are found out when
    /// they leave it.)
    ///
    /// # Safety
    ///
    /// It came from this pool and is used no more.
    #[inline]
    pub unsafe fn put(&self, item: NonNull<u8>) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.zone.free(Item::new(item)) };
        if !self.cached {
            self.bound();
        }
    }

    /// Has no more free items than the high water mark allows, by pages, where that counts.
    fn bound(&self) {
        let high = self.high.load(Ordering::Relaxed);
        if high != u64::MAX
            && SETHIWAT.get() == "bound"
            && self.zone.stats().keg_free >= high.saturating_add(self.per_page)
        {
            self.zone.reclaim(Reclaim::Drain);
        }
    }

    /// Has a front lead to the zone.
    ///
    /// # Safety
    ///
    /// As [`RawZone::lend_front`].
    #[cfg(feature = "capi")]
    pub(super) unsafe fn lend_front(&self, front: &Front) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.zone.lend_front(front) };
    }

    /// Takes an item apart, past all caches.
    ///
    /// # Safety
    ///
    /// As [`put`](Self::put).
    pub(super) unsafe fn destruct(&self, item: NonNull<u8>) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { ItemSource::discard(&self.zone, Item::new(item)) };
    }

    /// Takes apart what is in caches.
    pub(super) fn invalidate(&self) {
        self.zone.reclaim(Reclaim::DrainCpu);
    }

    /// Makes pages for so many items, beside those there are, which stay the pool's (`pool_prime`).
    ///
    /// # Errors
    ///
    /// If there was not memory enough; what was made stays.
    pub fn prime(&self, items: u64) -> Result<(), uma::ZoneError> {
        let _telling = Telling::of(PoolFlags::WAITOK);
        for _ in 0..items.div_ceil(self.per_page) {
            self.zone.prealloc(1)?;
            self.supply.least.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Has so many free items there, as far as there is memory at once (`pool_setlowat`): now, by the policy
    /// `netbsd.setlowat`, and whenever one was got. Their pages are not given back.
    pub fn set_low_water(&self, items: u64) {
        self.low.store(items, Ordering::Relaxed);
        let pages = usize::try_from(items.div_ceil(self.per_page)).unwrap_or(usize::MAX);
        self.supply.spare.store(pages, Ordering::Relaxed);
        if items != 0 && SETLOWAT.get() == "fill" {
            self.catch_up(items);
        }
    }

    /// Bounds the free items (`pool_sethiwat`). Does nothing, unless the policy `netbsd.sethiwat` says so.
    pub fn set_high_water(&self, items: u64) {
        self.high.store(items, Ordering::Relaxed);
        self.bound();
    }

    /// Lets no more than so many items out at once, and says so when a get fails for that
    /// (`pool_sethardlimit`); `None` lifts the limit. What is out already stays out.
    pub fn set_hard_limit(&self, items: Option<u64>, warning: Option<HardLimitWarning>) {
        let mut settings = self.settings();
        settings.warning = warning;
        settings.warned = None;
        drop(settings);
        let shut = items == Some(0);
        self.shut.store(shut, Ordering::Relaxed);
        // It was made when the pool was, so these cannot fail. Nothing may be at hand if nothing may go out.
        let _ = self.zone.set_max_cached(shut.then_some(0));
        let _ = self.zone.set_max_items(items.and_then(|items| NonZeroU64::new(items.max(1))));
    }

    /// Has a function called when items are wanted that are not there (`pool_set_drain_hook`): at the hard
    /// limit, where there is no memory and the caller may not wait, and by [`reclaim`](Self::reclaim).
    ///
    /// # Safety
    ///
    /// It may be called with the argument on any thread, until the pool is gone.
    pub unsafe fn set_drain_hook(&self, hook: Option<DrainHook>, argument: *mut c_void) {
        self.settings().hook = hook.map(|hook| (hook, Argument(argument)));
    }

    /// Gives back what is free, after calling the drain hook (`pool_reclaim`). Returns whether any page went.
    ///
    /// At once: NetBSD waits until a page has been idle for 10 seconds.
    pub fn reclaim(&self) -> bool {
        let before = self.supply.gave.load(Ordering::Relaxed);
        self.call_hook(PoolFlags::NOWAIT);
        self.zone.reclaim(Reclaim::DrainCpu);
        self.supply.trim();
        self.supply.gave.load(Ordering::Relaxed) != before
    }

    /// Ends the pool (`pool_destroy`).
    ///
    /// # Errors
    ///
    /// If items are in use: the pool, unharmed, and how many.
    pub fn destroy(self) -> Result<(), StillOut<Self>> {
        match self.out() {
            0 => Ok(()),
            out => Err(StillOut { pool: Box::new(self), out }),
        }
    }

    /// Items in use, as the pages have it: a second put of an item is not counted.
    pub fn out(&self) -> u64 {
        Self::out_of(&self.zone.stats())
    }

    fn out_of(zone: &Stats) -> u64 {
        (zone.slabs * u64::from(zone.per_slab)).saturating_sub(zone.free())
    }

    /// Pages that the pool has.
    #[cfg(feature = "capi")]
    pub(super) fn pages(&self) -> u64 {
        self.zone.stats().slabs + self.supply.idle() as u64
    }

    /// Bytes of its pages in use.
    #[cfg(feature = "capi")]
    pub(super) fn bytes(&self) -> u64 {
        self.zone.stats().bytes
    }

    /// Calls `visit` with every item in use, after emptying the caches.
    pub fn for_each_out(&self, mut visit: impl FnMut(NonNull<u8>)) {
        self.zone.reclaim(Reclaim::DrainCpu);
        self.zone.for_each_live(|item| visit(item.as_non_null()));
    }

    /// Whether the counts agree with the pages (`pool_chk`). They do not after a second put of an item.
    pub fn is_consistent(&self) -> bool {
        let mut live = 0;
        self.zone.for_each_live(|_| live += 1);
        let stats = self.zone.stats();
        live == stats.used() + stats.cached
    }

    /// The size that was asked for, in bytes.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The alignment of items, in bytes.
    pub const fn align(&self) -> usize {
        self.align
    }

    /// The name.
    pub const fn name(&self) -> &Name {
        self.zone.name()
    }

    /// The figures.
    pub fn stats(&self) -> PoolStats {
        let zone = self.zone.stats();
        PoolStats {
            size: self.size as u64,
            align: self.align as u64,
            pages: zone.slabs + self.supply.idle() as u64,
            free: zone.free(),
            out: Self::out_of(&zone),
            gets: zone.allocs,
            puts: zone.frees,
            fails: self.fails.load(Ordering::Relaxed),
            page_allocs: self.supply.got.load(Ordering::Relaxed),
            page_frees: self.supply.gave.load(Ordering::Relaxed),
            idle: self.supply.idle() as u64,
            per_page: self.per_page,
            cached: zone.cached,
            limit: zone.limit,
            waiting: zone.sleepers,
        }
    }
}

/// Names the pool in reports.
impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool \"{}\"", self.zone.name())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", self.zone.name())
            .field("size", &self.size)
            .field("align", &self.align)
            .finish_non_exhaustive()
    }
}
