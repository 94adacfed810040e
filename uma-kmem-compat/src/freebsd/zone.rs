//! Zones: `uma_zcreate` and what is done with them.

mod create;
mod items;
mod settings;

use core::fmt;
use core::ptr::NonNull;
use std::sync::OnceLock;

use uma::core::{Deadline, Name, Reclaim, Request, Stats};
use uma::{AtLimit, Host, Platform, ZoneFlags as EngineFlags};

pub use create::CreateError;

use super::deferred::Deferred;
use super::engine::{Engine, Own};
use super::shared::Shared;
use super::{SYSTEM, Smr};
#[cfg(feature = "capi")]
use crate::common::Front;
use crate::common::memory::{Counted, NoMemory, boxed};

/// What the zone calls at its limit. It has a reference that lives as long as the zone, so this is no box, which
/// would be alone with its contents wherever it is moved.
struct Action(NonNull<dyn Fn(AtLimit) + Send + Sync>);

// SAFETY: it owns a function that may be sent, and called from any thread.
unsafe impl Send for Action {}
// SAFETY: as above.
unsafe impl Sync for Action {}

impl Action {
    fn new(action: impl Fn(AtLimit) + Send + Sync + 'static) -> Result<Self, NoMemory> {
        Ok(Self(NonNull::from(Box::leak(boxed(action)?))))
    }

    /// The function.
    ///
    /// # Safety
    ///
    /// It is called no more when this is dropped.
    unsafe fn lend(&self) -> &'static (dyn Fn(AtLimit) + Send + Sync) {
        // SAFETY: it is there until this is dropped, as the caller has it, and nobody writes to it.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Action {
    fn drop(&mut self) {
        // SAFETY: it is from a box, and nobody calls it any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// A zone (`uma_zone_t`): items of one size.
///
/// Callbacks are functions of the types that C has (`uma_ctor` and so on), so that a zone of either language has the
/// same. Setters that FreeBSD allows on a cold zone only return whether it was.
pub struct Zone {
    kind: Kind,
    /// Called by the zone, so it goes after it.
    _action: Action,
    shared: Counted<Shared>,
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

impl Zone {
    #[inline]
    fn engine(&self) -> &dyn Engine {
        match &self.kind {
            Kind::Own(zone) => zone,
            Kind::Called(zone) => zone,
            Kind::Other(zone) => &**zone,
        }
    }

    /// Whether a pointer has the alignment of an item; those of cache zones have any.
    #[cfg(feature = "capi")]
    #[inline]
    pub(super) fn is_aligned(&self, item: NonNull<u8>) -> bool {
        item.addr().get() & self.mask == 0
    }

    /// The bits of an item's address that are 0.
    #[cfg(feature = "capi")]
    pub(super) const fn mask(&self) -> usize {
        self.mask
    }

    /// Has a front lead to the zone, unless it is one with ctor or dtor, or with SMR.
    ///
    /// # Safety
    ///
    /// As [`uma::RawZone::lend_front`].
    #[cfg(feature = "capi")]
    pub(super) unsafe fn lend_front(&self, front: &Front) {
        if self.smr.get().is_none() {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { self.engine().lend_front(front) };
        }
    }

    #[cold]
    fn misuse(&self, function: &str, what: &str) {
        SYSTEM.misuse(function, format_args!("zone \"{}\" {what}", self.name()));
    }

    /// The zone's SMR, if it has one (`uma_zone_get_smr`).
    pub fn smr(&self) -> Option<&Smr> {
        self.smr.get().map(|deferred| &deferred.smr)
    }

    /// Makes it a zone with this SMR (`uma_zone_set_smr`). Only a cold one that has none.
    pub fn set_smr(&self, smr: &Smr) -> bool {
        self.is_cold() && self.smr.set(self.defers(smr.clone())).is_ok()
    }

    /// What frees are deferred to. They are compared if the zone's are looked up.
    fn defers(&self, smr: Smr) -> Deferred {
        Deferred::new(smr, Host.hardening(&self.name()).is_live())
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
