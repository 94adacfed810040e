//! Zones: `uma_zcreate` and what is done with them.

use core::ffi::c_void;
use core::fmt;
use core::num::NonZeroU64;
use core::ptr::{self, NonNull};
use std::alloc::Layout;
use std::sync::{Arc, OnceLock};

use uma::core::{
    AllocError, ConfigError, ConfigFault, Deadline, Item, Name, Reclaim, Request, Stats,
};
use uma::{AtLimit, Origin, RawZone, RawZoneBuilder, ZoneError, ZoneFlags as EngineFlags};

use super::callbacks::{
    AllocPages, Callbacks, Callbacks2002, Called, Era, Fini, FreePages, Given, Import, Init,
    Maxaction, Release,
};
use super::deferred::Deferred;
use super::engine::{Engine, Imported, Own};
use super::pages::{Aside, Surroundings};
use super::shared::Shared;
use super::{M, SYSTEM, Smr, WAITOK, ZoneFlags, ZoneFlags2002, cache_align_mask};

/// The mask that stood for cache lines until 2023, as an `int`.
const LINE: usize = u32::MAX as usize;

type Action = Box<dyn Fn(AtLimit) + Send + Sync>;

/// A zone (`uma_zone_t`): items of one size.
///
/// Callbacks are functions of the types that C has (`uma_ctor` and so on), so that a zone of either language has the
/// same. Setters that FreeBSD allows on a cold zone only return whether it was.
pub struct Zone {
    kind: Kind,
    /// Called by the zone, so it goes after it.
    _action: Action,
    shared: Arc<Shared>,
    smr: OnceLock<Deferred>,
    /// One less than the alignment of items, or 0 where they are not ours.
    mask: usize,
}

/// The zone of the engine. Those on slabs of their own can be primary zones, so their type is known.
enum Kind {
    Own(Own<false>),
    /// With ctor or dtor.
    Called(Own<true>),
    Other(Box<dyn Engine>),
}

/// Why a zone could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateError {
    /// The engine cannot have such items.
    Config(ConfigError),
    /// The flags hold unknown bits, which are given.
    UnknownFlags(u32),
    /// A secondary zone of a zone without slabs of its own.
    NoSlabs(Name),
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::UnknownFlags(bits) => write!(f, "unknown flags {bits:#x}"),
            Self::NoSlabs(name) => write!(f, "zone \"{name}\" has no slabs of its own"),
        }
    }
}

impl core::error::Error for CreateError {}

impl From<ConfigError> for CreateError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Puts together what all kinds have in common.
struct Parts {
    given: Given,
    shared: Arc<Shared>,
    action: Action,
}

impl Parts {
    fn new(size: usize, given: Given) -> Self {
        let shared = Arc::new(Shared::new(size, &given));
        let mine = shared.clone();
        let action = Box::new(move |at: AtLimit| mine.at_limit(&at.zone));
        Self { given, shared, action }
    }

    const fn has_ctor(&self) -> bool {
        self.given.ctor.is_some() || self.given.dtor.is_some()
    }

    /// # Safety
    ///
    /// The callbacks suit the items.
    unsafe fn build<const CTOR: bool, O: Origin<Surroundings>>(
        &self,
        builder: RawZoneBuilder<Surroundings, uma::core::NoHooks, O>,
        flags: EngineFlags,
    ) -> Result<RawZone<Surroundings, Called<CTOR>, O>, ConfigError> {
        // SAFETY: the zone, which alone has the reference, is dropped before the box is (see `Zone`).
        let action = unsafe { &*ptr::from_ref(&*self.action) };
        let builder = builder.flags(flags).maxaction(action);
        let called = Called::new(self.shared.clone(), &self.given);
        // SAFETY: passed on to the caller.
        unsafe { builder.hooks(called) }.build()
    }

    fn finish(self, kind: Kind, smr: Option<Smr>) -> Zone {
        let smr_of = OnceLock::new();
        let mut zone =
            Zone { kind, _action: self.action, shared: self.shared, smr: smr_of, mask: 0 };
        let stats = zone.stats();
        if stats.per_slab != 0 || stats.secondary {
            zone.mask = stats.align.saturating_sub(1);
        }
        if let Some(smr) = smr {
            let _ = zone.smr.set(Deferred::new(smr));
        }
        zone
    }
}

fn known(flags: ZoneFlags) -> Result<ZoneFlags, CreateError> {
    match flags.bits() & !ZoneFlags::all().bits() {
        0 => Ok(flags),
        unknown => Err(CreateError::UnknownFlags(unknown)),
    }
}

impl Zone {
    /// A zone without callbacks. `align` is a mask, one less than the alignment in bytes; `u32::MAX` stands for
    /// cache lines (`UMA_ALIGN_CACHE` of old).
    ///
    /// # Errors
    ///
    /// What is wrong with the description, or that there was no memory.
    pub fn create(
        name: &str,
        size: usize,
        align: usize,
        flags: ZoneFlags,
    ) -> Result<Self, CreateError> {
        // SAFETY: there are no callbacks.
        unsafe { Self::create_with(name, size, Callbacks::default(), align, flags) }
    }

    /// A zone with callbacks (`uma_zcreate`).
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    ///
    /// # Safety
    ///
    /// The callbacks touch no more than `size` bytes of an item, and may run on any thread.
    pub unsafe fn create_with(
        name: &str,
        size: usize,
        callbacks: Callbacks,
        align: usize,
        flags: ZoneFlags,
    ) -> Result<Self, CreateError> {
        let flags = known(flags)?;
        let smr = flags.contains(ZoneFlags::SMR).then(|| Smr::new(name));
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { Self::make(name, size, callbacks.into(), align, flags.engine(), smr) }
    }

    /// A zone with the callbacks and flags of 2002.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    ///
    /// # Safety
    ///
    /// As [`create_with`](Self::create_with).
    pub unsafe fn create_2002(
        name: &str,
        size: usize,
        callbacks: Callbacks2002,
        align: usize,
        flags: ZoneFlags2002,
    ) -> Result<Self, CreateError> {
        let unknown = flags.bits() & !ZoneFlags2002::all().bits();
        if unknown != 0 {
            return Err(CreateError::UnknownFlags(unknown));
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { Self::make(name, size, callbacks.into(), align, flags.engine(), None) }
    }

    /// # Safety
    ///
    /// As [`create_with`](Self::create_with).
    unsafe fn make(
        name: &str,
        size: usize,
        given: Given,
        align: usize,
        flags: EngineFlags,
        smr: Option<Smr>,
    ) -> Result<Self, CreateError> {
        let align = if align == LINE { cache_align_mask() } else { align };
        let parts = Parts::new(size, given);
        let surroundings = Surroundings::new(parts.shared.clone());
        let builder = RawZone::builder_in(name, Layout::new::<()>(), surroundings);
        let builder = builder.size_align_mask(size, align);
        // SAFETY: the caller's duty is passed on unchanged.
        let kind = unsafe {
            if parts.has_ctor() {
                Kind::Called(parts.build(builder, flags)?)
            } else {
                Kind::Own(parts.build(builder, flags)?)
            }
        };
        Ok(parts.finish(kind, smr))
    }

    /// A zone on the slabs of this one (`uma_zsecond_create`), with callbacks, a limit, caches and figures of its
    /// own; `init` and `fini` are its `zinit` and `zfini`. If this zone is one with SMR, so is the other, with the
    /// same [`Smr`].
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); [`CreateError::NoSlabs`] if this zone itself is a secondary or a cache zone.
    ///
    /// # Safety
    ///
    /// As [`create_with`](Self::create_with).
    pub unsafe fn second_create(
        &self,
        name: &str,
        callbacks: Callbacks,
    ) -> Result<Self, CreateError> {
        let parts = Parts::new(self.stats().size, callbacks.into());
        let none = EngineFlags::empty();
        // SAFETY: the caller's duty is passed on unchanged.
        let engine: Box<dyn Engine> = unsafe {
            match &self.kind {
                Kind::Own(own) if parts.has_ctor() => {
                    Box::new(parts.build::<true, _>(own.secondary(name), none)?)
                }
                Kind::Own(own) => Box::new(parts.build::<false, _>(own.secondary(name), none)?),
                Kind::Called(own) if parts.has_ctor() => {
                    Box::new(parts.build::<true, _>(own.secondary(name), none)?)
                }
                Kind::Called(own) => Box::new(parts.build::<false, _>(own.secondary(name), none)?),
                Kind::Other(other) => return Err(CreateError::NoSlabs(other.name())),
            }
        };
        Ok(parts.finish(Kind::Other(engine), self.smr().cloned()))
    }

    /// A zone over two functions (`uma_zcache_create`), with per-CPU caches, callbacks, and a limit.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    ///
    /// # Safety
    ///
    /// As [`create_with`](Self::create_with). `import` hands out pointers that are not null, each once until it was
    /// released; to ask for zeros, or to have items checked, they must lead to `size` bytes. Both functions
    /// may be called on any thread with `arg`.
    pub unsafe fn cache_create(
        name: &str,
        size: usize,
        callbacks: Callbacks,
        (import, release): (Import, Release),
        arg: *mut c_void,
        flags: ZoneFlags,
    ) -> Result<Self, CreateError> {
        let flags = known(flags)?;
        let smr = flags.contains(ZoneFlags::SMR).then(|| Smr::new(name));
        let parts = Parts::new(size, callbacks.into());
        let bad = |fault| ConfigError { zone: Name::new(name), size, align: 1, fault };
        let item = Layout::from_size_align(size, 1).map_err(|_| bad(ConfigFault::Overflow))?;
        let source = Imported { item, arg, import, release };
        let builder = RawZone::over_in(name, source, Surroundings::new(parts.shared.clone()));
        // SAFETY: the caller's duty is passed on unchanged.
        let engine: Box<dyn Engine> = unsafe {
            if parts.has_ctor() {
                Box::new(parts.build::<true, _>(builder, flags.engine())?)
            } else {
                Box::new(parts.build::<false, _>(builder, flags.engine())?)
            }
        };
        Ok(parts.finish(Kind::Other(engine), smr))
    }

    #[inline]
    fn engine(&self) -> &dyn Engine {
        match &self.kind {
            Kind::Own(zone) => zone,
            Kind::Called(zone) => zone,
            Kind::Other(zone) => &**zone,
        }
    }

    /// An item, or `None` (`uma_zalloc`).
    #[inline]
    pub fn alloc(&self, flags: M) -> Option<NonNull<u8>> {
        // SAFETY: whoever made the zone with callbacks gave such that take null, or vouches for its users.
        unsafe { self.alloc_arg(ptr::null_mut(), flags) }
    }

    /// An item, whose ctor is passed `arg` (`uma_zalloc_arg`). `None` if a callback refused; without
    /// [`M::WAITOK`], also if the limit is reached or there are no pages.
    ///
    /// # Safety
    ///
    /// `arg` is what the ctor expects.
    #[inline]
    pub unsafe fn alloc_arg(&self, arg: *mut c_void, flags: M) -> Option<NonNull<u8>> {
        if self.smr.get().is_some() {
            self.misuse("uma_zalloc_arg", "is a zone with SMR: use uma_zalloc_smr");
            return None;
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.take("uma_zalloc_arg", arg, flags) }
    }

    /// # Safety
    ///
    /// As [`alloc_arg`](Self::alloc_arg).
    #[inline]
    unsafe fn take(&self, function: &str, arg: *mut c_void, flags: M) -> Option<NonNull<u8>> {
        let request = flags.request();
        // SAFETY: the caller's duty is passed on unchanged.
        let result = unsafe {
            match &self.kind {
                Kind::Own(zone) => zone.alloc_arg(arg.cast(), request),
                Kind::Called(zone) => zone.alloc_arg(arg.cast(), request),
                Kind::Other(zone) => zone.alloc(arg.cast(), request),
            }
        };
        match result {
            Ok(item) => Some(item.as_non_null()),
            Err(error) => {
                // SAFETY: the caller's duty is passed on unchanged.
                let again = || unsafe { self.engine().alloc(arg.cast(), request) };
                self.insist(function, request, &error, again)
            }
        }
    }

    /// An allocation has failed: if it may wait, drains all zones and tries again, once.
    #[cold]
    #[inline(never)]
    fn insist(
        &self,
        function: &str,
        request: Request,
        error: &ZoneError,
        again: impl Fn() -> Result<Item, ZoneError>,
    ) -> Option<NonNull<u8>> {
        let short = matches!(error.reason(), AllocError::Pages(_) | AllocError::Metadata);
        if !short || !request.may_wait() || !request.may_take_pages() {
            return None;
        }
        uma::reclaim(Reclaim::DrainCpu);
        match again() {
            Ok(item) => Some(item.as_non_null()),
            Err(error) => {
                if WAITOK.get() == "abort" {
                    SYSTEM.fatal(function, format_args!("M_WAITOK, but {error}"));
                }
                None
            }
        }
    }

    /// Frees an item (`uma_zfree`).
    ///
    /// # Safety
    ///
    /// It came from this zone and is used no more.
    #[inline]
    pub unsafe fn free(&self, item: NonNull<u8>) {
        // SAFETY: the caller's duty is passed on unchanged; the rest as in `alloc`.
        unsafe { self.free_arg(item, ptr::null_mut()) }
    }

    /// Frees an item, whose dtor is passed `arg` (`uma_zfree_arg`).
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free), and `arg` is what the dtor expects.
    #[inline]
    pub unsafe fn free_arg(&self, item: NonNull<u8>, arg: *mut c_void) {
        if self.smr.get().is_some() {
            self.misuse("uma_zfree_arg", "is a zone with SMR: use uma_zfree_smr");
            return;
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.give(Item::new(item), arg) }
    }

    /// # Safety
    ///
    /// As [`free_arg`](Self::free_arg).
    #[inline]
    unsafe fn give(&self, item: Item, arg: *mut c_void) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            match &self.kind {
                Kind::Own(zone) => zone.free_arg(item, arg.cast()),
                Kind::Called(zone) => zone.free_arg(item, arg.cast()),
                Kind::Other(zone) => zone.free(item, arg.cast()),
            }
        }
    }

    /// Whether a pointer has the alignment of an item; those of cache zones have any.
    #[cfg(feature = "capi")]
    #[inline]
    pub(super) fn is_aligned(&self, item: NonNull<u8>) -> bool {
        item.addr().get() & self.mask == 0
    }

    #[cold]
    fn misuse(&self, function: &str, what: &str) {
        SYSTEM.misuse(function, format_args!("zone \"{}\" {what}", self.name()));
    }

    /// An item of a zone with [`ZoneFlags::PCPU`] (`uma_zalloc_pcpu`): the pointer is that of the first CPU's copy.
    /// With [`M::ZERO`] all copies are zeros.
    pub fn alloc_pcpu(&self, flags: M) -> Option<NonNull<u8>> {
        // SAFETY: as in `alloc`.
        unsafe { self.alloc_pcpu_arg(ptr::null_mut(), flags) }
    }

    /// [`alloc_pcpu`](Self::alloc_pcpu) with an argument for the ctor (`uma_zalloc_pcpu_arg`), which sees the first
    /// copy.
    ///
    /// # Safety
    ///
    /// As [`alloc_arg`](Self::alloc_arg).
    pub unsafe fn alloc_pcpu_arg(&self, arg: *mut c_void, flags: M) -> Option<NonNull<u8>> {
        const NAME: &str = "uma_zalloc_pcpu_arg";
        if !self.flags().contains(EngineFlags::PCPU) {
            self.misuse(NAME, "has no copies for CPUs");
            return None;
        }
        // SAFETY: the caller's duty is passed on unchanged.
        let item = unsafe { self.take(NAME, arg, flags) }?;
        if flags.contains(M::ZERO) {
            let size = self.stats().size;
            let copies = (1..).map_while(|cpu| self.pcpu_copy(item, cpu));
            // SAFETY: the item is ours, and with it its copies, each of its size.
            copies.for_each(|copy| unsafe { copy.write_bytes(0, size) });
        }
        Some(item)
    }

    /// The copy of an item for a CPU (`zpcpu_get_cpu`), if there is one.
    pub fn pcpu_copy(&self, item: NonNull<u8>, cpu: usize) -> Option<NonNull<u8>> {
        self.engine().pcpu_copy(Item::new(item), cpu)
    }

    fn deferred(&self, function: &str) -> Option<&Deferred> {
        let deferred = self.smr.get();
        if deferred.is_none() {
            self.misuse(function, "has no SMR");
        }
        deferred
    }

    fn expired(&self) -> impl Fn(Item) {
        // SAFETY: the item was given to `free_smr`, and readers have ended.
        |item| unsafe { self.give(item, ptr::null_mut()) }
    }

    /// An item of a zone with SMR (`uma_zalloc_smr`).
    pub fn alloc_smr(&self, flags: M) -> Option<NonNull<u8>> {
        const NAME: &str = "uma_zalloc_smr";
        let deferred = self.deferred(NAME)?;
        let request = flags.request();
        let null = ptr::null_mut();
        // SAFETY: as in `alloc`.
        let attempt = |request| unsafe { self.engine().alloc(null, request) };
        // What was freed may be all that there is.
        let first = match attempt(request.without_waiting()) {
            Ok(item) => return Some(item.as_non_null()),
            Err(error) => error,
        };
        if !first.reason().is_shortage() {
            return None;
        }
        if !request.may_wait() || deferred.smr.entered() {
            deferred.flush(false, self.expired());
            return attempt(request.without_waiting()).ok().map(Item::as_non_null);
        }
        // SAFETY: as in `alloc`.
        let wait = || unsafe { self.take(NAME, null.cast(), flags) };
        deferred.while_waiting(self.expired(), wait)
    }

    /// Frees an item of a zone with SMR, when nobody who may look at it is left (`uma_zfree_smr`): the dtor runs
    /// then. Not to be called in a section of the zone's [`Smr`].
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free), but for readers who are in a section now.
    pub unsafe fn free_smr(&self, item: NonNull<u8>) {
        const NAME: &str = "uma_zfree_smr";
        let Some(deferred) = self.deferred(NAME) else { return };
        if deferred.smr.entered() {
            self.misuse(NAME, "cannot take an item in a section of its SMR");
        }
        deferred.push(Item::new(item), self.expired());
    }

    /// The zone's SMR, if it has one (`uma_zone_get_smr`).
    pub fn smr(&self) -> Option<&Smr> {
        self.smr.get().map(|deferred| &deferred.smr)
    }

    /// Makes it a zone with this SMR (`uma_zone_set_smr`). Only a cold one that has none.
    pub fn set_smr(&self, smr: &Smr) -> bool {
        self.is_cold() && self.smr.set(Deferred::new(smr.clone())).is_ok()
    }

    /// The name, as far as it fits into 31 bytes.
    pub fn name(&self) -> Name {
        self.engine().name()
    }

    /// The engine's flags.
    pub fn flags(&self) -> EngineFlags {
        self.engine().flags()
    }

    /// The figures.
    pub fn stats(&self) -> Stats {
        self.engine().stats()
    }

    /// Whether nothing was ever allocated.
    pub fn is_cold(&self) -> bool {
        let stats = self.stats();
        stats.allocs == 0 && stats.fails == 0 && (stats.secondary || stats.bytes == 0)
    }

    /// At most so many items may be in use (`uma_zone_set_max`), exactly; 0 changes nothing. Returns the limit.
    pub fn set_max(&self, items: u64) -> u64 {
        if let Some(items) = NonZeroU64::new(items) {
            // It was made when it was created.
            let _ = self.engine().set_max(items);
        }
        self.max()
    }

    /// The limit, or 0 (`uma_zone_get_max`).
    pub fn max(&self) -> u64 {
        self.engine().max().map_or(0, NonZeroU64::get)
    }

    /// Items in use (`uma_zone_get_cur`).
    pub fn cur(&self) -> u64 {
        let deferred = self.smr.get().map_or(0, Deferred::count);
        self.stats().used().saturating_sub(deferred)
    }

    /// At most so many free items are cached (`uma_zone_set_maxcache`).
    pub fn set_max_cached(&self, items: u64) {
        let _ = self.engine().set_max_cached(items);
    }

    /// What is said when the limit is reached, every five minutes at most (`uma_zone_set_warning`).
    pub fn set_warning(&self, text: &str) {
        self.shared.set_warning(text);
    }

    /// What is called when the limit is reached (`uma_zone_set_maxaction`), with the zone's handle of C, or null. It
    /// runs on the thread that allocates; the allocation then tries once more.
    ///
    /// # Safety
    ///
    /// It may be called on any thread.
    pub unsafe fn set_maxaction(&self, action: Option<Maxaction>) {
        // SAFETY: it is a function.
        unsafe { self.shared.maxaction.set(action.map(Era::Today)) }
    }

    /// Keeps so many free items for [`M::USE_RESERVE`] (`uma_zone_reserve`). False for a zone without slabs.
    pub fn reserve(&self, items: u64) -> bool {
        self.engine().set_reserve(items).is_ok()
    }

    /// Sets address space aside for so many items, rounded up to slabs, and makes that the limit
    /// (`uma_zone_reserve_kva`, `uma_zone_set_obj`). Only a cold zone on slabs of its own; false also if there is no
    /// such space.
    pub fn reserve_kva(&self, items: u64) -> bool {
        let stats = self.stats();
        let per_slab = u64::from(stats.per_slab);
        if items == 0 || per_slab == 0 || stats.secondary || !self.is_cold() {
            return false;
        }
        let slabs = items.div_ceil(per_slab);
        let Ok(count) = usize::try_from(slabs) else { return false };
        let request = match self.flags().contains(uma::ZoneFlags::NODUMP) {
            true => Request::WAIT.without_dump(),
            false => Request::WAIT,
        };
        let Some(aside) = Aside::new(stats.slab_bytes, count, request) else { return false };
        if self.shared.region.set(aside).is_err() {
            return false;
        }
        self.set_max(slabs.saturating_mul(per_slab));
        true
    }

    /// Makes slabs for so many items now (`uma_prealloc`).
    ///
    /// # Errors
    ///
    /// If there were not pages enough, or the items do not come from slabs.
    pub fn prealloc(&self, items: u64) -> Result<(), ZoneError> {
        self.engine().prealloc(items)
    }

    /// Sets who supplies pages, and who takes them back (`uma_zone_set_allocf`, `uma_zone_set_freef`). Only a cold
    /// zone. Without `free`, pages stay.
    ///
    /// # Safety
    ///
    /// `alloc` returns null or memory of so many bytes, aligned to a page, that is the zone's until `free` gets it;
    /// both may be called on any thread.
    pub unsafe fn set_pages(&self, alloc: Option<AllocPages>, free: Option<FreePages>) -> bool {
        // SAFETY: these are functions.
        self.is_cold()
            && unsafe {
                self.shared.allocf.set(alloc.map(Era::Today));
                self.shared.freef.set(free.map(Era::Today));
                true
            }
    }

    /// Sets init and fini (`uma_zone_set_init` and `_fini`, `uma_zone_set_zinit` and `_zfini`). Only a cold zone.
    ///
    /// # Safety
    ///
    /// As [`create_with`](Self::create_with).
    pub unsafe fn set_init_fini(&self, init: Option<Init>, fini: Option<Fini>) -> bool {
        // SAFETY: these are functions.
        self.is_cold()
            && unsafe {
                self.shared.init.set(init.map(Era::Today));
                self.shared.fini.set(fini.map(Era::Today));
                true
            }
    }

    #[cfg(feature = "capi")]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Whether somebody sleeps at the limit (`uma_zone_exhausted`).
    pub fn exhausted(&self) -> bool {
        self.engine().exhausted()
    }

    /// Waits until an item can be allocated (`uma_zwait`).
    pub fn wait(&self) {
        let wait = || {
            // A failure of another kind is for whoever allocates.
            let _ = self.engine().wait_for_room(Request::WAIT);
        };
        match self.smr.get() {
            Some(deferred) => deferred.while_waiting(self.expired(), wait),
            None => wait(),
        }
    }

    /// Bytes that it holds (`uma_zone_memory`): of its slabs, or of what a cache zone caches.
    pub fn memory(&self) -> usize {
        let stats = self.stats();
        let bytes = if stats.per_slab == 0 && !stats.secondary {
            stats.cached.saturating_mul(stats.size as u64)
        } else {
            stats.bytes
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Gives back what is held beyond need (`uma_zone_reclaim`). A drain of a zone with SMR waits for readers.
    pub fn reclaim(&self, mode: Reclaim) {
        if let Some(deferred) = self.smr.get() {
            deferred.flush(!matches!(mode, Reclaim::Idle | Reclaim::Trim), self.expired());
        }
        self.engine().reclaim(mode);
    }

    /// Waits until no item is in use, or until the deadline; returns whether none is.
    pub fn wait_unused(&self, until: Deadline) -> bool {
        if let Some(deferred) = self.smr.get() {
            deferred.flush(true, self.expired());
        }
        self.engine().wait_unused(until).is_ok()
    }

    /// Destroys the zone (`uma_zdestroy`), as dropping it does. Items in use are reported, and their memory stays.
    pub fn destroy(self) {}
}

/// Frees what is deferred: all of it, also if a dtor unwinds once.
impl Drop for Zone {
    fn drop(&mut self) {
        struct Rest<'a>(&'a Zone);

        impl Rest<'_> {
            fn free(&self) {
                if let Some(deferred) = self.0.smr.get() {
                    deferred.flush(true, self.0.expired());
                }
            }
        }

        impl Drop for Rest<'_> {
            fn drop(&mut self) {
                self.free();
            }
        }

        Rest(self).free();
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zone")
            .field("name", &self.name())
            .field("flags", &self.flags())
            .finish_non_exhaustive()
    }
}

/// Makes every zone give memory back (`uma_reclaim`), of all faces. What zones with SMR have deferred stays with
/// them.
pub fn reclaim(mode: Reclaim) {
    uma::reclaim(mode);
}
