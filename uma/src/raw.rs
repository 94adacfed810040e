//! The zone under all the others: a layout, hooks, and pointers.

use core::alloc::Layout;
use core::num::NonZeroU64;
use core::ptr::{self, NonNull};

use uma_cache::{BucketCache, CacheConfig, Front};
use uma_core::{
    AllocError, ConfigError, ConfigFault, Constructed, Hooks, Item, ItemSource, Limited, Metadata,
    Name, NoHooks, Reclaim, Request, Stats, Zone,
};
use uma_keg::{Keg, SlabConfig, SlabLayout};

use crate::event;
use crate::registry::{Node, Vtable};
use crate::sync::{AtomicPtr, Ordering};
use crate::{DefaultPlatform, Platform, ZoneError};

/// The slabs of a zone on platform `P`.
pub type Slabs<P> = Keg<<P as Platform>::Pages, <P as Platform>::Lock, <P as Platform>::Metadata>;

/// What may leave the slabs: constructed items, at most so many.
pub type Supply<P, H> =
    Limited<Constructed<Slabs<P>, H>, <P as Platform>::Lock, <P as Platform>::Sleep>;

/// The whole stack of a zone on platform `P` with hooks `H`, written out.
pub type Stack<P, H> = BucketCache<
    Supply<P, H>,
    <P as Platform>::Cpus,
    <P as Platform>::Lock,
    <P as Platform>::Metadata,
>;

/// What a zone is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) name: Name,
    pub(crate) size: usize,
    pub(crate) align: usize,
    /// By the platform's wishes unless given.
    pub(crate) slab: Option<SlabConfig>,
    /// `Some(0)` is refused when the zone is built.
    pub(crate) max_items: Option<u64>,
    pub(crate) bucket: Option<u16>,
    pub(crate) reserve: u64,
}

impl Config {
    pub(crate) const fn new(name: &str, item: Layout) -> Self {
        Self {
            name: Name::new(name),
            size: item.size(),
            align: item.align(),
            slab: None,
            max_items: None,
            bucket: None,
            reserve: 0,
        }
    }

    const fn error(&self, fault: ConfigFault) -> ConfigError {
        ConfigError { zone: self.name, size: self.size, align: self.align, fault }
    }

    /// The layout of the items, if they can have one.
    fn item(&self) -> Result<Layout, ConfigFault> {
        if !self.align.is_power_of_two() {
            return Err(ConfigFault::BadAlign);
        }
        Layout::from_size_align(self.size, self.align).map_err(|_| ConfigFault::Overflow)
    }
}

/// The part of a zone that stays in place: slabs, caches and the registry point into it. What a hit touches
/// is at its front, on one cache line.
#[repr(C, align(64))]
struct Core<P: Platform, H: Hooks> {
    zone: Zone<Stack<P, H>, H>,
    node: Node,
}

/// A zone of items of a runtime layout, with hooks, that deals in pointers.
///
/// It is what the typed faces stand on, and what a facade for another system's API would use. It
/// comes into being at its first use (or at `build`), so that it can be a `static`; it can be moved,
/// since what others point to is elsewhere.
///
/// Dropping it with items in use reports how many and where (see [`Platform::report`]) and leaves
/// their memory alone.
///
/// ```
/// use std::alloc::Layout;
/// use uma::{RawZone, core::Request};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let zone = RawZone::builder("page table", Layout::from_size_align(512, 512)?).build()?;
/// let table = zone.alloc(Request::WAIT.zeroed())?;
/// assert_eq!(table.addr() % 512, 0);
/// // SAFETY: the item came from this zone and is not used any more.
/// unsafe { zone.free(table) };
/// # Ok(()) }
/// ```
pub struct RawZone<
    P: Platform = DefaultPlatform,
    H: Hooks + Clone + Send + Sync + 'static = NoHooks,
> {
    /// The short way of a hit.
    front: Front<P::Cpus>,
    core: AtomicPtr<Core<P, H>>,
    config: Config,
    platform: P,
    hooks: H,
}

/// Describes a [`RawZone`].
#[derive(Clone, Debug)]
#[must_use = "a builder makes nothing until `build`"]
pub struct RawZoneBuilder<P: Platform = DefaultPlatform, H = NoHooks> {
    pub(crate) config: Config,
    pub(crate) platform: P,
    pub(crate) hooks: H,
}

#[cfg(feature = "std")]
impl RawZone {
    /// Describes a zone without hooks on the default platform.
    pub const fn builder(name: &str, item: Layout) -> RawZoneBuilder {
        RawZone::builder_in(name, item, DefaultPlatform::new())
    }
}

impl<P: Platform> RawZone<P> {
    /// Describes a zone without hooks on a given platform.
    pub const fn builder_in(name: &str, item: Layout, platform: P) -> RawZoneBuilder<P> {
        RawZoneBuilder { config: Config::new(name, item), platform, hooks: NoHooks }
    }
}

impl<P: Platform, H> RawZoneBuilder<P, H> {
    /// Sets size and alignment, in bytes, when they are not known to make a [`Layout`]: `build` then
    /// says what is wrong with them.
    pub const fn size_align(mut self, size: usize, align: usize) -> Self {
        self.config.size = size;
        self.config.align = align;
        self
    }

    /// At most so many items may be in use at once (`uma_zone_set_max`).
    pub const fn max_items(mut self, items: u64) -> Self {
        self.config.max_items = Some(items);
        self
    }

    /// So many items to a bucket, always; 0 caches nothing (`UMA_ZONE_NOBUCKET`). Otherwise buckets begin
    /// at a size that suits the items, and grow with need.
    pub const fn bucket(mut self, items: u16) -> Self {
        self.config.bucket = Some(items);
        self
    }

    /// Keeps so many free items for requests that may use the reserve (`uma_zone_reserve`).
    pub const fn reserve(mut self, items: u64) -> Self {
        self.config.reserve = items;
        self
    }

    /// How slabs are laid out.
    pub const fn slab(mut self, slab: SlabConfig) -> Self {
        self.config.slab = Some(slab);
        self
    }

    /// The zone's hooks.
    ///
    /// # Safety
    ///
    /// The hooks, and every clone of them, suit the zone: they touch no more of an item than its layout
    /// has, ctor and dtor take a null `arg`, and they may run on any thread.
    pub unsafe fn hooks<N: Hooks + Clone + Send + Sync + 'static>(
        self,
        hooks: N,
    ) -> RawZoneBuilder<P, N> {
        RawZoneBuilder { config: self.config, platform: self.platform, hooks }
    }
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> RawZoneBuilder<P, H> {
    /// Makes the zone and lists it.
    ///
    /// # Errors
    ///
    /// What is wrong with the description, or that there was no memory.
    pub fn build(self) -> Result<RawZone<P, H>, ConfigError> {
        let zone = self.lazy();
        match zone.make() {
            Ok(_) => Ok(zone),
            Err(fault) => Err(zone.config.error(fault)),
        }
    }

    /// The zone, to be made at its first use.
    pub(crate) const fn lazy(self) -> RawZone<P, H> {
        // Taken apart by hand: a const fn cannot drop `self`.
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: `ManuallyDrop` is `repr(transparent)`, so the pointer is one to the builder; each
        // field is read once and `this` is never dropped.
        unsafe {
            let this = (&raw const this).cast::<Self>();
            RawZone {
                front: Front::new(),
                core: AtomicPtr::new(ptr::null_mut()),
                config: (&raw const (*this).config).read(),
                platform: (&raw const (*this).platform).read(),
                hooks: (&raw const (*this).hooks).read(),
            }
        }
    }
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> RawZone<P, H> {
    /// The pinned part, made if need be.
    #[inline(always)]
    fn core(&self) -> Result<&Core<P, H>, AllocError> {
        match self.made() {
            Some(core) => Ok(core),
            None => self.make().map_err(|fault| match fault {
                ConfigFault::NoMemory => AllocError::Metadata,
                _ => AllocError::Unsupported,
            }),
        }
    }

    /// The pinned part, if the zone was used.
    #[inline(always)]
    fn made(&self) -> Option<&Core<P, H>> {
        // SAFETY: if not null, it points to a `Core` that `make` put there, which lives until the
        // zone is dropped.
        unsafe { self.core.load(Ordering::Acquire).as_ref() }
    }

    /// The stack, made if need be.
    #[inline]
    pub(crate) fn stack(&self) -> Result<&Zone<Stack<P, H>, H>, AllocError> {
        Ok(&self.core()?.zone)
    }

    /// The stack, if the zone was used.
    #[inline]
    pub(crate) fn stack_if_made(&self) -> Option<&Zone<Stack<P, H>, H>> {
        Some(&self.made()?.zone)
    }

    /// The layout of an item, unless it is wrong.
    pub(crate) fn item(&self) -> Option<Layout> {
        self.config.item().ok()
    }

    /// Makes the pinned part, or finds that another thread has.
    #[cold]
    #[inline(never)]
    fn make(&self) -> Result<&Core<P, H>, ConfigFault> {
        let platform = &self.platform;
        let config = &self.config;
        let item = config.item()?;
        let max_items = match config.max_items {
            Some(max) => Some(NonZeroU64::new(max).ok_or(ConfigFault::ZeroLimit)?),
            None => None,
        };
        let slab = config.slab.unwrap_or_else(|| {
            SlabConfig::new().outside_headers().largest_slab(platform.largest_slab())
        });
        let slab = SlabLayout::new(item, slab)?;
        let keg = Keg::with_layout(platform.pages(), platform.metadata(), slab);
        keg.set_reserve(config.reserve);
        let hooks = (self.hooks.clone(), self.hooks.clone());
        // SAFETY: whoever gave us the hooks promised that they suit the items (see `hooks`).
        let constructed = unsafe { Constructed::new(keg, hooks.0) };
        let limited = Limited::new(constructed, max_items, platform.sleep());
        let cache = match config.bucket {
            None => CacheConfig::for_size(item.size()),
            Some(0) => CacheConfig::none(),
            Some(bucket) => CacheConfig::with_bucket(bucket),
        };
        let stack = BucketCache::new(limited, platform.cpus(), platform.metadata(), cache);

        let metadata = platform.metadata();
        let layout = Layout::new::<Core<P, H>>();
        let memory = metadata.alloc_meta(layout).ok_or(ConfigFault::NoMemory)?;
        let core = memory.cast::<Core<P, H>>();
        // SAFETY: the node enters a registry below only if `core` stays, and leaves it before `core`
        // goes; zones may be used from any thread, as the bounds of `Platform` and `H` have it.
        let node = unsafe { Node::new(core.as_ptr().cast(), Self::VTABLE) };
        // SAFETY: as for `Constructed` above.
        let zone = unsafe { Zone::with_hooks(config.name, stack, hooks.1) };
        // SAFETY: the memory is ours and has the layout of a `Core`.
        unsafe { core.write(Core { zone, node }) };

        let (null, new) = (ptr::null_mut(), core.as_ptr());
        match self.core.compare_exchange(null, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                // SAFETY: `core` was written just now and lives until the zone is dropped.
                let core = unsafe { core.as_ref() };
                // SAFETY: the node is new and in place; `drop` takes it off the list.
                unsafe { platform.registry().add(&core.node) };
                let (size, per_slab) = (slab.slab_size(), slab.items());
                event::made(&config.name, item.size(), item.align(), size, per_slab);
                Ok(core)
            }
            Err(other) => {
                // SAFETY: nobody has seen our core; it was written just now, and its memory came
                // from `alloc_meta` with this layout. The other one lives as above.
                unsafe {
                    core.drop_in_place();
                    metadata.free_meta(memory, layout);
                    Ok(&*other)
                }
            }
        }
    }

    /// Allocates an item (`uma_zalloc`). Blocks only if `request` may wait.
    ///
    /// # Errors
    ///
    /// Why there is none.
    #[inline(always)]
    pub fn alloc(&self, request: Request) -> Result<Item, ZoneError> {
        // SAFETY: whoever gave us the hooks promised that they take null.
        unsafe { self.alloc_arg(ptr::null_mut(), request) }
    }

    /// Allocates an item and passes `arg` to its ctor (`uma_zalloc_arg`).
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc).
    ///
    /// # Safety
    ///
    /// `arg` is what the zone's ctor expects.
    #[inline(always)]
    pub unsafe fn alloc_arg(&self, arg: *mut (), request: Request) -> Result<Item, ZoneError> {
        match self.front.pop() {
            // SAFETY: the front leads to the slots of our cache; the rest is passed on.
            Some(item) => unsafe { self.prepare(item, arg, request) },
            // SAFETY: the caller's duty is passed on unchanged.
            None => unsafe { self.alloc_slow(arg, request) },
        }
    }

    /// Allocates an item, or returns null: for callers, as those at a C boundary, that do not ask why.
    #[inline(always)]
    pub fn alloc_or_null(&self, request: Request) -> *mut u8 {
        if !H::HAS_CTOR
            && !request.wants_zero()
            && let Some(item) = self.front.pop()
        {
            return item.as_ptr();
        }
        self.alloc_or_null_slow(request)
    }

    #[cold]
    #[inline(never)]
    fn alloc_or_null_slow(&self, request: Request) -> *mut u8 {
        self.alloc(request).map_or(ptr::null_mut(), Item::as_ptr)
    }

    /// What is left to do for an item that came the short way.
    ///
    /// # Safety
    ///
    /// The item was popped from our front just now, and `arg` is what the ctor expects.
    #[inline(always)]
    unsafe fn prepare(
        &self,
        item: Item,
        arg: *mut (),
        request: Request,
    ) -> Result<Item, ZoneError> {
        if !H::HAS_CTOR && !request.wants_zero() {
            return Ok(item);
        }
        let Some(core) = self.made() else {
            unreachable!("a front leads to a zone that was made");
        };
        // SAFETY: passed on from the caller: the front's slots are those of this zone's source.
        unsafe { core.zone.prepare(item, arg, request) }.map_err(|reason| self.error(reason))
    }

    /// The long way, which also makes the zone and finds the short one.
    ///
    /// # Safety
    ///
    /// As [`alloc_arg`](Self::alloc_arg).
    #[cold]
    #[inline(never)]
    unsafe fn alloc_slow(&self, arg: *mut (), request: Request) -> Result<Item, ZoneError> {
        let core = self.core().map_err(|reason| self.error(reason))?;
        // SAFETY: the caller's duty is passed on unchanged.
        let item = unsafe { core.zone.alloc_arg(arg, request) };
        // SAFETY: it is the cache of this zone, which goes when the zone is dropped.
        unsafe { self.front.publish(core.zone.source()) };
        item.map_err(|reason| self.error(reason))
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn error(&self, reason: AllocError) -> ZoneError {
        event::failed(&self.config.name, reason);
        let item = self.config.item().unwrap_or(Layout::new::<()>());
        ZoneError::new(self.config.name, item, reason)
    }

    /// Frees an item (`uma_zfree`).
    ///
    /// # Safety
    ///
    /// The item came from this zone's `alloc`, its pointer is the one returned there, and it is not
    /// used or freed again.
    #[inline(always)]
    pub unsafe fn free(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.free_arg(item, ptr::null_mut()) }
    }

    /// Frees an item and passes `arg` to its dtor (`uma_zfree_arg`).
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free), and `arg` is what the dtor expects.
    #[inline(always)]
    pub unsafe fn free_arg(&self, item: Item, arg: *mut ()) {
        if H::HAS_CTOR
            && let Some(core) = self.made()
        {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { core.zone.finish(item, arg) };
        }
        // SAFETY: the caller gives the item up, which came from our cache.
        if !unsafe { self.front.push(item) } {
            // SAFETY: it was not taken.
            unsafe { self.free_slow(item) };
        }
    }

    /// The long way for an item whose dtor has run.
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free).
    #[inline(never)]
    unsafe fn free_slow(&self, item: Item) {
        // A zone that was never used has handed out nothing, so no item can come back to it.
        if let Some(core) = self.made() {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { core.zone.source().free(item) };
        }
    }

    /// The zone's name.
    pub const fn name(&self) -> &Name {
        &self.config.name
    }

    /// What it stands on.
    pub const fn platform(&self) -> &P {
        &self.platform
    }

    /// The zone's figures (see [`Stats`]).
    pub fn stats(&self) -> Stats {
        let config = &self.config;
        match self.made() {
            Some(core) => core.zone.stats(),
            None => {
                let mut stats = Stats::default();
                (stats.size, stats.align) = (config.size, config.align);
                stats.limit = config.max_items.unwrap_or(0);
                stats
            }
        }
    }

    /// Gives back what is held beyond need (`uma_zone_reclaim`).
    pub fn reclaim(&self, mode: Reclaim) {
        if let Some(core) = self.made() {
            core.zone.reclaim(mode);
            event::reclaimed(&self.config.name, mode);
        }
    }

    /// Changes the limit (`uma_zone_set_max`); `None` lifts it. See [`Limited::set_max`].
    ///
    /// # Errors
    ///
    /// If the zone is used for the first time by this call and cannot be made.
    pub fn set_max_items(&self, max: Option<NonZeroU64>) -> Result<(), ZoneError> {
        let core = self.core().map_err(|reason| self.error(reason))?;
        core.zone.source().source().set_max(max);
        Ok(())
    }

    /// Makes slabs for so many items now (`uma_prealloc`).
    ///
    /// # Errors
    ///
    /// If there were not pages enough.
    pub fn prealloc(&self, items: u64) -> Result<(), ZoneError> {
        let core = self.core().map_err(|reason| self.error(reason))?;
        let keg = core.zone.source().source().source().source();
        keg.prealloc(items).map_err(|reason| self.error(reason))
    }

    const VTABLE: Vtable = Vtable {
        name: |core| {
            // SAFETY: the registry passes the pointer that `make` gave it, to a live `Core`.
            let core = unsafe { &*core.cast::<Core<P, H>>() };
            *core.zone.name()
        },
        stats: |core| {
            // SAFETY: as above.
            let core = unsafe { &*core.cast::<Core<P, H>>() };
            core.zone.stats()
        },
        reclaim: |core, mode| {
            // SAFETY: as above.
            let core = unsafe { &*core.cast::<Core<P, H>>() };
            core.zone.reclaim(mode);
            event::reclaimed(core.zone.name(), mode);
        },
        prefork: |core| {
            // SAFETY: as above.
            let core = unsafe { &*core.cast::<Core<P, H>>() };
            core.zone.prefork();
        },
        postfork: |core, process| {
            // SAFETY: as above; and the registry has called `prefork` before.
            unsafe { (*core.cast::<Core<P, H>>()).zone.postfork(process) };
        },
        settle: |core| {
            // SAFETY: as above.
            let core = unsafe { &*core.cast::<Core<P, H>>() };
            core.zone.settle();
        },
    };
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> Drop for RawZone<P, H> {
    fn drop(&mut self) {
        let Some(core) = NonNull::new(*self.core.get_mut()) else { return };
        // SAFETY: `make` put it there, and only `Ending` ends its life.
        let made = unsafe { core.as_ref() };
        // SAFETY: `make` listed the node.
        unsafe { self.platform.registry().remove(&made.node, || self.platform.relax()) };
        let _ending = Ending { zone: self, core };
        // The user's hooks may panic here, for every item that was cached.
        made.zone.reclaim(Reclaim::DrainCpu);
    }
}

/// The end of a zone that is off the registry and has given back what it could.
struct Ending<'a, P: Platform, H: Hooks + Clone + Send + Sync + 'static> {
    zone: &'a RawZone<P, H>,
    core: NonNull<Core<P, H>>,
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> Drop for Ending<'_, P, H> {
    fn drop(&mut self) {
        let platform = &self.zone.platform;
        // SAFETY: the zone is being dropped, so we have its pinned part to ourselves.
        let keg = unsafe { self.core.as_ref() }.zone.source().source().source().source();
        event::destroyed(&self.zone.config.name, keg.live());
        if keg.live() != 0 {
            report_leak(platform, &self.zone.config, keg);
            return;
        }
        // SAFETY: no item is out, so nothing uses it any more. Its memory came from `alloc_meta` with
        // this layout.
        unsafe {
            self.core.drop_in_place();
            platform.metadata().free_meta(self.core.cast(), Layout::new::<Core<P, H>>());
        }
    }
}

/// Says how many items were still in use when the zone went, and where the first of them are.
#[cold]
fn report_leak<P: Platform>(platform: &P, config: &Config, keg: &Slabs<P>) {
    struct Addresses([usize; 8], usize);

    impl core::fmt::Display for Addresses {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            for (at, address) in self.0.iter().take(self.1).enumerate() {
                write!(f, "{}{address:#x}", if at == 0 { "" } else { ", " })?;
            }
            if self.1 > self.0.len() { f.write_str(", ...") } else { Ok(()) }
        }
    }

    let mut addresses = Addresses([0; 8], 0);
    keg.for_each_live(|item| {
        if let Some(place) = addresses.0.get_mut(addresses.1) {
            *place = item.addr();
        }
        addresses.1 += 1;
    });
    platform.report(format_args!(
        "zone \"{}\" was destroyed with {} items in use, whose memory stays: {addresses}",
        config.name, addresses.1
    ));
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> core::fmt::Debug for RawZone<P, H> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RawZone")
            .field("name", &self.config.name)
            .field("size", &self.config.size)
            .field("align", &self.config.align)
            .field("used_before", &self.made().is_some())
            .finish_non_exhaustive()
    }
}

/// Fails to compile unless zones may be shared between threads, and the registry may look at them.
#[expect(dead_code, reason = "it is the type check that counts")]
fn zones_are_shared<P: Platform, H: Hooks + Clone + Send + Sync + 'static>() {
    fn shared<T: Send + Sync>() {}
    shared::<RawZone<P, H>>();
    shared::<Core<P, H>>();
}
