//! How a raw zone comes about: its description, and the making of its pinned part.

use core::alloc::Layout;
use core::num::NonZeroU64;
use core::ptr::{self, NonNull};

use uma_cache::bucket::MAX_CAPACITY;
use uma_cache::{BucketCache, CacheConfig, Front};
use uma_core::{
    ConfigError, ConfigFault, Constructed, Grouped, Hooks, ItemSource, Limited, Metadata, Name,
    NoHooks, Zone,
};
use uma_debug::{Hardening, Pads, Report, Subject, Verdict, Watched};
use uma_keg::SlabConfig;

use super::alarm::{Alarm, AlarmConfig};
use super::edge::{Edge, EdgePtr};
use super::limits::GroupRef;
use super::{Core, Origin, OwnSlabs, RawZone, Wishes};
use crate::registry::Node;
use crate::sync::{AtomicPtr, AtomicUsize, Ordering};
use crate::{DefaultPlatform, Platform, ZoneFlags, align_of_mask, event};

/// Items in a bucket of the smallest kind (`BUCKET_MIN`).
const SMALLEST_BUCKET: u16 = 2;

/// Who is told of misuse, and says how to go on.
pub(crate) type OnMisuse = fn(&Report<'_>) -> Verdict;

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
    /// Slabs for so many items are made with the zone, and never any more.
    pub(crate) backing: Option<u64>,
    pub(crate) max_cached: Option<u64>,
    pub(super) alarm: AlarmConfig,
    pub(super) group: Option<GroupRef>,
    /// By the platform's wishes unless given.
    pub(crate) hardening: Option<Hardening>,
    /// The platform is told unless this is.
    pub(crate) on_misuse: Option<OnMisuse>,
    pub(crate) flags: ZoneFlags,
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
            backing: None,
            max_cached: None,
            alarm: AlarmConfig::NONE,
            group: None,
            hardening: None,
            on_misuse: None,
            flags: ZoneFlags::empty(),
        }
    }

    const fn error(&self, fault: ConfigFault) -> ConfigError {
        ConfigError { zone: self.name, size: self.size, align: self.align, fault }
    }

    /// What the caches may hold of items of this size.
    fn cache(&self, size: usize) -> CacheConfig {
        let default = CacheConfig::for_size(size);
        match self.bucket {
            Some(0) => CacheConfig::none(),
            _ if self.flags.contains(ZoneFlags::NOBUCKET) => CacheConfig::none(),
            Some(bucket) => CacheConfig::with_bucket(bucket),
            None if self.flags.contains(ZoneFlags::MINBUCKET) => {
                CacheConfig::with_bucket(SMALLEST_BUCKET)
            }
            None if self.flags.contains(ZoneFlags::MAXBUCKET) => CacheConfig {
                bucket: MAX_CAPACITY,
                max_bucket: MAX_CAPACITY,
                depot: default.depot.max(2 * usize::from(MAX_CAPACITY)),
            },
            None => default,
        }
    }

    /// The layout of the items, if they can have one.
    pub(super) fn item(&self) -> Result<Layout, ConfigFault> {
        if !self.align.is_power_of_two() {
            return Err(ConfigFault::BadAlign);
        }
        Layout::from_size_align(self.size, self.align).map_err(|_| ConfigFault::Overflow)
    }
}

/// Describes a [`RawZone`].
#[derive(Clone, Debug)]
#[must_use = "a builder makes nothing until `build`"]
pub struct RawZoneBuilder<P: Platform = DefaultPlatform, H = NoHooks, O = OwnSlabs> {
    pub(crate) config: Config,
    pub(crate) platform: P,
    pub(crate) hooks: H,
    pub(crate) origin: O,
}

impl<P: Platform, H> RawZoneBuilder<P, H> {
    /// Sets size and alignment, in bytes, when they are not known to make a [`Layout`]: `build` then
    /// says what is wrong with them.
    pub const fn size_align(mut self, size: usize, align: usize) -> Self {
        self.config.size = size;
        self.config.align = align;
        self
    }

    /// Sets size, in bytes, and alignment, by its mask as `uma_zcreate` takes it (see [`align_of_mask`]).
    pub const fn size_align_mask(self, size: usize, mask: usize) -> Self {
        match align_of_mask(mask) {
            Ok(align) => self.size_align(size, align),
            // No alignment: `build` refuses it.
            Err(_) => self.size_align(size, 0),
        }
    }

    /// Keeps so many free items for requests that may use the reserve (`uma_zone_reserve`).
    pub const fn reserve(mut self, items: u64) -> Self {
        self.config.reserve = items;
        self
    }

    /// All memory that `items` items need is had when the zone is made, and never more, nor ever given back
    /// (`uma_zone_reserve_kva`, and `uma_zone_set_obj` of 2002): if it is not to be had, making the zone
    /// fails, and later no item fails for want of pages, but for those of the [`reserve`](Self::reserve), which
    /// are among them.
    ///
    /// It makes `items` the [limit](Self::max_items), which may be lowered, and sets
    /// [`ZoneFlags::NOFREE`]. A limit that is raised later gives what room there is in the last slab.
    ///
    /// The original reserves addresses and takes memory as it is used. So does this, on suppliers whose
    /// memory is committed as it is written.
    pub const fn backing(mut self, items: u64) -> Self {
        self.config.backing = Some(items);
        self.config.max_items = Some(items);
        self.flags(ZoneFlags::NOFREE)
    }

    /// How slabs are laid out.
    pub const fn slab(mut self, slab: SlabConfig) -> Self {
        self.config.slab = Some(slab);
        self
    }
}

impl<P: Platform, H, O> RawZoneBuilder<P, H, O> {
    /// At most so many items may be in use at once (`uma_zone_set_max`).
    pub const fn max_items(mut self, items: u64) -> Self {
        self.config.max_items = Some(items);
        self
    }

    /// Adds flags. `build` says which of them exclude each other.
    pub const fn flags(mut self, flags: ZoneFlags) -> Self {
        self.config.flags = self.config.flags.union(flags);
        self
    }

    /// So many items to a bucket, always; 0 caches nothing (`UMA_ZONE_NOBUCKET`). Otherwise buckets begin
    /// at a size that suits the items, or as [`flags`](Self::flags) say, and grow with need.
    pub const fn bucket(mut self, items: u16) -> Self {
        self.config.bucket = Some(items);
        self
    }

    /// How much is checked. Otherwise the platform says (see [`Platform::hardening`]).
    ///
    /// No allocation is [sampled](Hardening::sampled) where memory from elsewhere would not do: with
    /// [`ZoneFlags::PCPU`], [`ZoneFlags::ZINIT`], [`ZoneFlags::NOFREE`] or [`ZoneFlags::NODUMP`], where items may not
    /// be touched, over a source, and on the slabs of a zone that has an init or fini.
    pub const fn hardening(mut self, hardening: Hardening) -> Self {
        self.config.hardening = Some(hardening);
        self
    }

    /// Who is told of misuse that checks have found, and says how to go on; otherwise the platform (see
    /// [`Platform::misuse`]). It is called on the thread that found it, without a lock.
    pub const fn on_misuse(mut self, on_misuse: fn(&Report<'_>) -> Verdict) -> Self {
        self.config.on_misuse = Some(on_misuse);
        self
    }
}

impl<P: Platform, O> RawZoneBuilder<P, NoHooks, O> {
    /// The zone's hooks.
    ///
    /// # Safety
    ///
    /// The hooks, and every clone of them, suit the zones that are built from this description, as it is in the
    /// end: they touch no more of an item than its layout has, also if [`size_align`] is called after this;
    /// ctor and dtor take a null `arg`; and they may run on any thread.
    ///
    /// [`size_align`]: RawZoneBuilder::size_align
    pub const unsafe fn hooks<N: Hooks + Clone + Send + Sync + 'static>(
        self,
        hooks: N,
    ) -> RawZoneBuilder<P, N, O> {
        // Taken apart by hand: a const fn cannot drop `self`.
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: as in `lazy`; the old hooks are nothing.
        unsafe {
            let this = (&raw const this).cast::<Self>();
            RawZoneBuilder {
                config: (&raw const (*this).config).read(),
                platform: (&raw const (*this).platform).read(),
                hooks,
                origin: (&raw const (*this).origin).read(),
            }
        }
    }
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static, O: Origin<P>> RawZoneBuilder<P, H, O> {
    /// Makes the zone and lists it.
    ///
    /// # Errors
    ///
    /// What is wrong with the description, or that there was no memory.
    pub fn build(self) -> Result<RawZone<P, H, O>, ConfigError> {
        let zone = self.lazy();
        match zone.make() {
            Ok(_) => Ok(zone),
            Err(fault) => Err(zone.config.error(fault)),
        }
    }

    /// The zone, to be made at its first use, also as a `static`. What is wrong with the description then
    /// shows as allocations that fail.
    pub const fn lazy(self) -> RawZone<P, H, O> {
        // Taken apart by hand: a const fn cannot drop `self`.
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: `ManuallyDrop` is `repr(transparent)`, so the pointer is one to the builder; each
        // field is read once and `this` is never dropped.
        unsafe {
            let this = (&raw const this).cast::<Self>();
            RawZone {
                front: Front::new(),
                core: AtomicPtr::new(ptr::null_mut()),
                plain: AtomicPtr::new(ptr::null_mut()),
                config: (&raw const (*this).config).read(),
                platform: (&raw const (*this).platform).read(),
                hooks: (&raw const (*this).hooks).read(),
                origin: (&raw const (*this).origin).read(),
            }
        }
    }
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static, O: Origin<P>> RawZone<P, H, O> {
    /// Makes the pinned part, or finds that another thread has.
    #[cold]
    #[inline(never)]
    pub(super) fn make(&self) -> Result<&Core<P, H, O>, ConfigFault> {
        let platform = &self.platform;
        let config = &self.config;
        let max_items = match config.max_items {
            Some(max) => Some(NonZeroU64::new(max).ok_or(ConfigFault::ZeroLimit)?),
            None => None,
        };
        config.flags.check(O::KIND)?;
        let hardening = config.hardening.unwrap_or_else(|| platform.hardening(&config.name));
        let wishes = Wishes {
            item: config.item(),
            slab: config.slab,
            reserve: config.reserve,
            backing: config.backing,
            flags: config.flags,
            hardening,
        };
        let source = self.origin.open(platform, wishes)?;
        let item = source.layout();
        let edge = match hardening.is_checking() {
            true => Some(self.make_edge(&source, hardening)?),
            false => None,
        };
        let unmade = Unmade { zone: self, edge };
        let hooks = (self.hooks.clone(), self.hooks.clone());
        // SAFETY: whoever gave us the hooks promised that they suit the items (see `hooks`).
        let constructed = unsafe { Constructed::new(source, hooks.0) };
        let grouped = Grouped::new(constructed, self.group());
        let limited = Limited::new(grouped, max_items, platform.sleep());
        let checks = edge.map(|edge| {
            // SAFETY: it was made just now; only the place of one of its fields is taken.
            NonNull::from(unsafe { &edge.0.as_ref().checks })
        });
        // SAFETY: the edge goes after the core.
        let watched = unsafe { Watched::new(limited, checks) };
        let flags = self.flags();
        let cache = config.cache(item.size());
        let mut stack = BucketCache::new(watched, platform.cpus(), platform.metadata(), cache);
        if flags.contains(ZoneFlags::VM) {
            stack = stack.without_pages();
        }
        if config.max_cached.is_some() {
            stack.set_max_cached(config.max_cached);
        }

        let metadata = platform.metadata();
        let layout = Layout::new::<Core<P, H, O>>();
        let memory = metadata.alloc_meta(layout).ok_or(ConfigFault::NoMemory)?;
        let core = memory.cast::<Core<P, H, O>>();
        // SAFETY: the node enters a registry below, when `core` is in place, and leaves it before `core`
        // goes; zones may be used from any thread, as the bounds of `Platform` and `H` have it.
        let node = unsafe { Node::new(core.as_ptr().cast(), Self::VTABLE, flags) };
        // SAFETY: as for `Constructed` above.
        let zone = unsafe { Zone::with_hooks(config.name, stack, hooks.1) };
        let (alarm, holders) = (Alarm::new(), AtomicUsize::new(1));
        // SAFETY: the memory is ours and has the layout of a `Core`.
        unsafe { core.write(Core { zone, node, alarm, holders, edge }) };
        core::mem::forget(unmade);
        // Before anybody can use it, so that no fork finds a zone in use that it does not know.
        // SAFETY: the node is new and in place; `drop` takes it off the list, or we do below.
        unsafe { platform.registry().add(&core.as_ref().node) };
        // Before that, too, so that no zone that is used in the copy of a process is missing in its group.
        // SAFETY: it is in place, and leaves as it goes off the list.
        unsafe { core.as_ref().join_group() };

        let (null, new) = (ptr::null_mut(), core.as_ptr());
        match self.core.compare_exchange(null, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                // SAFETY: `core` was written just now and lives until the zone is dropped.
                let core = unsafe { core.as_ref() };
                if edge.is_none() {
                    self.plain.store(new, Ordering::Release);
                }
                let slab = core.slabs().map(|slabs| slabs.slab_layout());
                let (size, per_slab) = slab.map_or((0, 0), |slab| (slab.slab_size(), slab.items()));
                event::made(&config.name, item.size(), item.align(), size, per_slab);
                Ok(core)
            }
            Err(other) => {
                // SAFETY: nobody has seen our core but those whom the registry shows it to, no longer than
                // until it is closed, and nothing is out of it: its one hold is ours. The other one lives as
                // above.
                unsafe {
                    core.as_ref().leave_group(|| platform.relax());
                    platform.registry().close(&core.as_ref().node, || platform.relax());
                    Core::let_go(core, platform);
                    Ok(&*other)
                }
            }
        }
    }
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static, O: Origin<P>> RawZone<P, H, O> {
    /// Makes what looks at allocations and frees.
    fn make_edge(
        &self,
        source: &O::Source,
        hardening: Hardening,
    ) -> Result<EdgePtr<P>, ConfigFault> {
        let pads = O::pads(source).copied().unwrap_or(Pads::none(source.layout()));
        // Red zones are where there is room for them.
        let hardening = hardening.red_zones(pads.outer().size() != pads.item().size());
        // Memory between guard pages has not been through the hooks of a source below, lies in no slab, has
        // one copy, and is dumped.
        let in_slabs = ZoneFlags::ZINIT | ZoneFlags::NOFREE | ZoneFlags::PCPU | ZoneFlags::NODUMP;
        let sampled = !O::keeps_state(source) && !self.flags().intersects(in_slabs);
        let subject = Subject {
            zone: self.config.name,
            pads,
            slab_align: O::slabs(source).map_or(0, |slabs| slabs.slab_layout().slab_align()),
            keeps_state: self.hooks.keeps_state()
                || O::keeps_state(source)
                || self.flags().intersects(ZoneFlags::ZINIT | ZoneFlags::NOFREE),
            no_touch: self.config.slab.is_some_and(|slab| slab.is_no_touch())
                || self.flags().contains(ZoneFlags::NOTOUCH),
        };
        let sampled = sampled && !subject.no_touch;
        let on_misuse = self.config.on_misuse;
        let edge = Edge::new(subject, hardening, &self.platform, on_misuse, sampled);
        let edge = edge.ok_or(ConfigFault::NoMemory)?;
        let layout = Layout::new::<Edge<P>>();
        let memory = self.platform.metadata().alloc_meta(layout).ok_or(ConfigFault::NoMemory)?;
        // SAFETY: the memory is ours and has this layout.
        unsafe { memory.cast::<Edge<P>>().write(edge) };
        Ok(EdgePtr(memory.cast()))
    }
}

/// An edge without a core. Dropping it takes it down.
pub(super) struct Unmade<'a, P, H, O>
where
    P: Platform,
    H: Hooks + Clone + Send + Sync + 'static,
    O: Origin<P>,
{
    zone: &'a RawZone<P, H, O>,
    edge: Option<EdgePtr<P>>,
}

impl<P, H, O> Drop for Unmade<'_, P, H, O>
where
    P: Platform,
    H: Hooks + Clone + Send + Sync + 'static,
    O: Origin<P>,
{
    fn drop(&mut self) {
        if let Some(edge) = self.edge {
            // SAFETY: no core has it.
            unsafe { Edge::delete(edge.0, &self.zone.platform) };
        }
    }
}
