//! How a zone comes about.

use core::ffi::c_void;
use core::fmt;
use std::alloc::Layout;
use std::sync::OnceLock;

use uma::core::{ConfigError, ConfigFault, Name};
use uma::{AtLimit, Origin, RawZone, RawZoneBuilder, ZoneFlags as EngineFlags};

use super::{Action, Kind, Zone};
use crate::common::memory::{Counted, NoMemory, boxed, no_zone};
use crate::freebsd::callbacks::{Callbacks, Callbacks2002, Called, Given, Import, Release};
use crate::freebsd::engine::{Engine, Imported};
use crate::freebsd::pages::Surroundings;
use crate::freebsd::shared::Shared;
use crate::freebsd::{Smr, ZoneFlags, ZoneFlags2002, cache_align_mask};

/// The mask that stood for cache lines until 2023, as an `int`.
const LINE: usize = u32::MAX as usize;

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
    shared: Counted<Shared>,
    action: Action,
}

impl Parts {
    fn new(size: usize, given: Given) -> Result<Self, NoMemory> {
        let shared = Counted::new(Shared::new(size, &given))?;
        let mine = shared.clone();
        let action = Action::new(move |at: AtLimit| mine.at_limit(&at.zone))?;
        Ok(Self { given, shared, action })
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
        // SAFETY: the zone, which alone has the reference, is dropped before this is (see `Zone`).
        let action = unsafe { self.action.lend() };
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
            let _ = zone.smr.set(zone.defers(smr));
        }
        zone
    }
}

/// An SMR of the zone's own, if the flags ask for it.
fn smr_of(flags: ZoneFlags, name: &str) -> Result<Option<Smr>, NoMemory> {
    if flags.contains(ZoneFlags::SMR) { Smr::try_new(name).map(Some) } else { Ok(None) }
}

fn known(flags: ZoneFlags) -> Result<ZoneFlags, CreateError> {
    match flags.bits() & !ZoneFlags::all().bits() {
        0 => Ok(flags),
        unknown => Err(CreateError::UnknownFlags(unknown)),
    }
}

/// A zone whose type is not known. Without memory it ends.
fn other(zone: impl Engine + 'static) -> Result<Box<dyn Engine>, NoMemory> {
    Ok(boxed(zone)?)
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
        let no_memory = |NoMemory| no_zone(name, size, align);
        let smr = smr_of(flags, name).map_err(no_memory)?;
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
        let parts = Parts::new(size, given).map_err(|NoMemory| no_zone(name, size, align))?;
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
        let size = self.stats().size;
        let no_memory = |NoMemory| no_zone(name, size, 1);
        let parts = Parts::new(size, callbacks.into()).map_err(no_memory)?;
        let none = EngineFlags::empty();
        // SAFETY: the caller's duty is passed on unchanged.
        let engine = unsafe {
            match &self.kind {
                Kind::Own(own) if parts.has_ctor() => {
                    other(parts.build::<true, _>(own.secondary(name), none)?)
                }
                Kind::Own(own) => other(parts.build::<false, _>(own.secondary(name), none)?),
                Kind::Called(own) if parts.has_ctor() => {
                    other(parts.build::<true, _>(own.secondary(name), none)?)
                }
                Kind::Called(own) => other(parts.build::<false, _>(own.secondary(name), none)?),
                Kind::Other(other) => return Err(CreateError::NoSlabs(other.name())),
            }
        }
        .map_err(no_memory)?;
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
        let no_memory = |NoMemory| no_zone(name, size, 1);
        let smr = smr_of(flags, name).map_err(no_memory)?;
        let parts = Parts::new(size, callbacks.into()).map_err(no_memory)?;
        let bad = |fault| ConfigError { zone: Name::new(name), size, align: 1, fault };
        let item = Layout::from_size_align(size, 1).map_err(|_| bad(ConfigFault::Overflow))?;
        let source = Imported { item, arg, import, release };
        let builder = RawZone::over_in(name, source, Surroundings::new(parts.shared.clone()));
        // SAFETY: the caller's duty is passed on unchanged.
        let engine = unsafe {
            if parts.has_ctor() {
                other(parts.build::<true, _>(builder, flags.engine())?)
            } else {
                other(parts.build::<false, _>(builder, flags.engine())?)
            }
        }
        .map_err(no_memory)?;
        Ok(parts.finish(Kind::Other(engine), smr))
    }
}
