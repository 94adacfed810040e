//! The zone under all the others: a layout, hooks, and pointers.

mod alarm;
mod build;
mod checked;
mod destroy;
mod edge;
mod end;
mod limits;
mod origin;
mod over;
mod pcpu;
mod pinned;
mod secondary;
#[cfg(feature = "async")]
mod task;

use core::alloc::Layout;
use core::ptr;

use uma_cache::Front;
use uma_core::{
    AllocError, ConfigFault, Hooks, Item, ItemSource, Name, NoHooks, Reclaim, Request, Stats,
};
use uma_debug::Pads;

pub use alarm::{AtLimit, set_zone_warnings};
pub(crate) use build::Config;
pub use build::RawZoneBuilder;
use checked::Otherwise;
pub use destroy::{Busy, InUse};
pub use edge::ZoneWitness;
pub use limits::GroupIn;
#[cfg(feature = "std")]
pub use limits::ZoneGroup;
pub use origin::{Origin, OwnSlabs, Wishes};
pub use over::{CacheZone, Foreign, Over};
use pinned::Core;
pub use pinned::{PaddedSlabs, Slabs, Stack, Supply};
pub use secondary::{Hold, Primary, SecondaryZone};

use crate::sync::{AtomicPtr, Ordering};
use crate::{DefaultPlatform, Platform, ZoneError, ZoneFlags, event};

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
    O: Origin<P> = OwnSlabs,
> {
    /// The short way of a hit.
    front: Front<P::Cpus>,
    core: AtomicPtr<Core<P, H, O>>,
    /// The same, for a zone without checks: that which a free with a dtor goes by.
    plain: AtomicPtr<Core<P, H, O>>,
    config: Config,
    platform: P,
    hooks: H,
    origin: O,
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
        RawZoneBuilder {
            config: Config::new(name, item),
            platform,
            hooks: NoHooks,
            origin: OwnSlabs,
        }
    }
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static, O: Origin<P>> RawZone<P, H, O> {
    /// The pinned part, made if need be.
    #[inline(always)]
    fn core(&self) -> Result<&Core<P, H, O>, AllocError> {
        match self.made() {
            Some(core) => Ok(core),
            None => self.make().map_err(|fault| match fault {
                ConfigFault::NoMemory => AllocError::Metadata,
                ConfigFault::NoBacking(why) => why,
                _ => AllocError::Unsupported,
            }),
        }
    }

    /// The pinned part, if the zone was used.
    #[inline(always)]
    fn made(&self) -> Option<&Core<P, H, O>> {
        // SAFETY: if not null, it points to a `Core` that `make` put there, which lives until the
        // zone is dropped.
        unsafe { self.core.load(Ordering::Acquire).as_ref() }
    }

    /// The pinned part, if it is that of a zone without checks.
    #[inline(always)]
    fn plain(&self) -> Option<&Core<P, H, O>> {
        // SAFETY: as in `made`.
        unsafe { self.plain.load(Ordering::Acquire).as_ref() }
    }

    /// All of the zone as a source of items, made if need be.
    #[inline]
    pub(crate) fn stack(&self) -> Result<&(impl ItemSource + use<P, H, O>), AllocError> {
        self.core()
    }

    /// The same, if the zone was used.
    #[inline]
    pub(crate) fn stack_if_made(&self) -> Option<&(impl ItemSource + use<P, H, O>)> {
        self.made()
    }

    /// The layout of an item, unless it is wrong.
    pub(crate) fn item(&self) -> Option<Layout> {
        self.origin.layout().or(self.config.item().ok())
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

    /// An item from the running CPU's bucket, or null if that has none or the zone has a ctor: the whole of a
    /// hit, for callers who have a long way of their own. The item is one of [`alloc`](Self::alloc).
    #[inline(always)]
    pub fn alloc_cached(&self) -> *mut u8 {
        if H::HAS_CTOR {
            return ptr::null_mut();
        }
        self.front.pop().map_or(ptr::null_mut(), Item::as_ptr)
    }

    /// Frees an item into one of the running CPU's buckets, and returns whether it was taken: if not, because
    /// there is no room or the zone has a dtor, it is still the caller's. The whole of a hit, for callers who
    /// have a long way of their own.
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free).
    #[inline(always)]
    pub unsafe fn free_cached(&self, item: Item) -> bool {
        // SAFETY: the caller gives the item up, which came from our cache.
        !H::HAS_CTOR && unsafe { self.front.push(item) }
    }

    /// Has another front lead to this zone's buckets, for a facade that reaches it more quickly than the zone:
    /// from now on [`Front::pop`] is [`alloc_cached`](Self::alloc_cached), and [`Front::push`]
    /// [`free_cached`](Self::free_cached). Does nothing while those would miss in any case: before the first
    /// allocation, in a zone with a ctor, a dtor or checks.
    ///
    /// # Safety
    ///
    /// The front never leads to another zone, and is not used any more when this one is dropped.
    pub unsafe fn lend_front(&self, front: &Front<P::Cpus>) {
        if !H::HAS_CTOR {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { front.follow(&self.front) };
        }
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
        let item = unsafe { self.alloc_noticing(core, arg, request) };
        // SAFETY: allocated just now, and its user's only if nobody unwinds who is told.
        let back = Otherwise(|| _ = item.map(|item| unsafe { core.free(item) }));
        self.tell_growth(core);
        core::mem::forget(back);
        // Checks must see every item, so with them there is no short way.
        if core.edge().is_none() {
            // SAFETY: it is the cache of this zone, which goes when the zone is dropped.
            unsafe { self.front.publish(core.zone.source()) };
        }
        item.map_err(|reason| self.error(reason))
    }

    /// Tells of slabs that were made, if anybody may listen. On the slabs of another zone, whichever looks first
    /// tells.
    fn tell_growth(&self, core: &Core<P, H, O>) {
        #[cfg(feature = "tracing")]
        if let Some(slabs) = core.slabs() {
            let made = slabs.take_grown();
            if made != 0 {
                event::grown(&self.config.name, made, slabs.slab_layout().slab_size());
            }
        }
        let _ = core;
    }

    /// The same, if the zone was used.
    pub(crate) fn tell_growth_if_made(&self) {
        if let Some(core) = self.made() {
            self.tell_growth(core);
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn error(&self, reason: AllocError) -> ZoneError {
        event::failed(&self.config.name, reason, self.reached_group(reason).as_ref());
        let item = self.item().unwrap_or(Layout::new::<()>());
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
        if H::HAS_CTOR {
            let Some(core) = self.plain() else {
                // SAFETY: the caller's duty is passed on unchanged.
                unsafe { self.free_checked(item, arg) };
                return;
            };
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
            // SAFETY: the caller's duty is passed on unchanged. With a dtor, only a zone without checks
            // comes here; without one, it does not matter that it has not run.
            unsafe {
                match core.edge() {
                    None => core.zone.source().free(item),
                    Some(_) => core.free_arg(item, ptr::null_mut()),
                }
            }
        }
    }

    /// The whole way for an item whose dtor has not run.
    ///
    /// # Safety
    ///
    /// As [`free_arg`](Self::free_arg).
    #[cold]
    #[inline(never)]
    unsafe fn free_checked(&self, item: Item, arg: *mut ()) {
        if let Some(core) = self.made() {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { core.free_arg(item, arg) };
        }
    }

    /// The zone's name.
    pub const fn name(&self) -> &Name {
        &self.config.name
    }

    /// The zone's flags, with those that it has from its primary or its kind.
    pub fn flags(&self) -> ZoneFlags {
        self.config.flags | self.origin.inherited()
    }

    /// What it stands on.
    pub const fn platform(&self) -> &P {
        &self.platform
    }

    /// The zone's figures (see [`Stats`]).
    pub fn stats(&self) -> Stats {
        let config = &self.config;
        match self.made() {
            Some(core) => core.stats(),
            None => {
                let mut stats = Stats::default();
                (stats.size, stats.align) = match self.origin.layout() {
                    Some(item) => (item.size(), item.align()),
                    None => (config.size, config.align),
                };
                stats.limit = config.max_items.unwrap_or(0);
                stats
            }
        }
    }

    /// Gives back what is held beyond need (`uma_zone_reclaim`).
    pub fn reclaim(&self, mode: Reclaim) {
        if let Some(core) = self.made() {
            core.reclaim(mode);
            event::reclaimed(&self.config.name, mode);
        }
    }

    /// Makes slabs for so many items now (`uma_prealloc`).
    ///
    /// # Errors
    ///
    /// If there were not pages enough, or the items do not come from slabs.
    pub fn prealloc(&self, items: u64) -> Result<(), ZoneError> {
        let made = self.core().and_then(|core| match core.slabs() {
            Some(slabs) => slabs.prealloc(items),
            None => Err(AllocError::Unsupported),
        });
        self.tell_growth_if_made();
        made.map_err(|reason| self.error(reason))
    }

    /// Keeps so many free items in the slabs for requests that may use the reserve, from now on
    /// (`uma_zone_reserve`). See [`Keg::set_reserve`](uma_keg::Keg::set_reserve).
    ///
    /// # Errors
    ///
    /// If the items do not come from slabs, or the zone is used for the first time by this call and cannot be
    /// made.
    pub fn set_reserve(&self, items: u64) -> Result<(), ZoneError> {
        let set = self.core().and_then(|core| match core.slabs() {
            Some(slabs) => {
                slabs.set_reserve(items);
                Ok(())
            }
            None => Err(AllocError::Unsupported),
        });
        set.map_err(|reason| self.error(reason))
    }

    /// Calls `visit` for every item that is out of its slab, in the order of addresses: those in use, and
    /// those in caches unless [`reclaim`](Self::reclaim) emptied them, and those of other zones on the same
    /// slabs. Nothing for items that do not come from slabs. See [`Keg::for_each_live`](uma_keg::Keg::for_each_live).
    pub fn for_each_live(&self, mut visit: impl FnMut(Item)) {
        if let Some(core) = self.made()
            && let Some(slabs) = core.slabs()
        {
            let front = O::pads(core.constructed().source()).map_or(0, Pads::front);
            slabs.for_each_live(|outer| {
                // SAFETY: what is before an item is part of what comes from the slab.
                visit(Item::new(unsafe { outer.as_non_null().add(front) }));
            });
        }
    }
}

impl<P, H, O> core::fmt::Debug for RawZone<P, H, O>
where
    P: Platform,
    H: Hooks + Clone + Send + Sync + 'static,
    O: Origin<P>,
{
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
fn zones_are_shared<P: Platform, H: Hooks + Clone + Send + Sync + 'static, O: Origin<P>>() {
    fn shared<T: Send + Sync>() {}
    shared::<RawZone<P, H, O>>();
    shared::<Core<P, H, O>>();
}
