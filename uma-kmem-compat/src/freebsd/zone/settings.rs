//! What can be set: limits, reserves, who supplies pages, callbacks.

use core::num::NonZeroU64;

use uma::ZoneError;
use uma::core::Request;

use super::Zone;
use crate::freebsd::WAITOK;
use crate::freebsd::callbacks::{AllocPages, Era, Fini, FreePages, Init, Maxaction};
use crate::freebsd::deferred::Deferred;
use crate::freebsd::pages::Aside;
use crate::freebsd::waitok::{self, Want};

impl Zone {
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
    /// Returns whether there was memory for it; if not, it is as it was.
    pub fn set_warning(&self, text: &str) -> bool {
        self.shared.set_warning(text).is_ok()
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

    /// Keeps so many free items for [`M::USE_RESERVE`](crate::freebsd::M::USE_RESERVE) (`uma_zone_reserve`). False
    /// for a zone without slabs.
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

    /// Makes slabs for so many items now, beside those there are (`uma_prealloc`). Where there are no pages it waits
    /// for them if `freebsd.waitok` is so; but not if they were [set aside](Self::reserve_kva), and come from nowhere
    /// else, nor for a secondary zone. What a drain gives back meanwhile is made again.
    ///
    /// # Errors
    ///
    /// If there were not pages enough, and it does not wait; or the items do not come from slabs.
    pub fn prealloc(&self, items: u64) -> Result<(), ZoneError> {
        let before = self.stats();
        let waits = |error: &ZoneError| {
            WAITOK.get() == "wait"
                && Want::from(error.reason()) == Want::Memory
                && !before.secondary
                && self.shared.region.get().is_none()
        };
        let error = match self.engine().prealloc(items) {
            Err(error) if waits(&error) => error,
            result => return result,
        };
        let per_slab = u64::from(before.per_slab.max(1));
        let goal = before.slabs.saturating_add(items.div_ceil(per_slab));
        let rest = || {
            let missing = goal.saturating_sub(self.stats().slabs);
            self.engine().prealloc(missing.saturating_mul(per_slab))
        };
        let want = |error: &ZoneError| error.reason().into();
        waitok::insist("uma_prealloc", error, want, &self.shared.waits, rest).ok_or(error)
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
}
