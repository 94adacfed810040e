//! `pool`: items of one size. `get` has how one is had, `bounds` how many there are at least and at most, and
//! `figures` what a pool tells of itself.
//!
//! Locks: one for what is said at the hard limit and the drain hook, a leaf; neither the hook nor a report runs
//! under it. It is taken at the limit, and when there is no memory.

mod bounds;
mod figures;
mod get;

use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

use uma::core::{ConfigError, ConfigFault, Item, ItemSource, Name};
use uma::keg::SlabConfig;
use uma::{Hardening, RawZone, Reclaim, ZoneFlags};

use super::hooks::{Callbacks, Construct};
use super::pages::{PageAllocator, Source, Supply, Surroundings};
use super::{DIAGNOSTIC, PoolFlags};
#[cfg(feature = "capi")]
use crate::common::Front;
use crate::common::fork::Lock;
use crate::common::memory::{Counted, NoMemory};
use crate::sync::{AtomicBool, AtomicU64};
use bounds::Settings;
pub use bounds::{DrainHook, HardLimitWarning};

/// Items are aligned to this unless something else was asked for: `ALIGN(1)`.
const NATURAL: usize = 8;
/// Objects in a group, and with `PR_LARGECACHE`.
const GROUP: u16 = 15;
const LARGE_GROUP: u16 = 63;

/// What a pool may have beside a name and a size.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolArgs {
    /// Alignment in bytes, a power of two, or 0 for whatever is natural: 8.
    pub align: usize,
    /// What kind of pool.
    pub flags: PoolFlags,
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
    supply: Counted<Supply>,
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
        let supply = Counted::new(Supply::new(source, last));
        let supply = supply.map_err(|NoMemory| fault(ConfigFault::NoMemory))?;
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
    pub(super) fn set_owner(&self, pool: *mut core::ffi::c_void) {
        self.supply.pool.store(pool, crate::sync::Ordering::Relaxed);
    }

    /// Gives an item back (`pool_put`).
    ///
    /// # Panics
    ///
    /// If it is no item of the pool in use, and nothing has changed but the count of puts. (Items of a cache are
    /// found out when they leave it.)
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
