//! How much a pool has at least and at most, and what it does about it.

use core::ffi::{c_int, c_void};
use core::num::NonZeroU64;
use std::time::{Duration, Instant};

use uma::Reclaim;

use super::Pool;
use crate::common::fork::Guard;
use crate::common::memory::Counted;
use crate::netbsd::hooks::Telling;
use crate::netbsd::{PoolFlags, SETHIWAT, SETLOWAT};
use crate::sync::Ordering;

/// Asked to bring items back: of its argument, and the flags of the request. It runs with no lock held.
pub type DrainHook = unsafe extern "C-unwind" fn(*mut c_void, c_int);

/// What is said when a get finds the hard limit reached.
#[derive(Clone, Debug)]
pub struct HardLimitWarning {
    /// The message.
    pub text: String,
    /// Said at most once in so many seconds.
    pub ratecap: Duration,
}

/// What changes rarely.
pub(super) struct Settings {
    pub(super) warning: Option<Counted<HardLimitWarning>>,
    pub(super) warned: Option<Instant>,
    pub(super) hook: Option<(DrainHook, Argument)>,
}

#[derive(Clone, Copy)]
pub(super) struct Argument(pub(super) *mut c_void);

// SAFETY: the pointer is only handed to the hook, which whoever set it says may run on any thread.
unsafe impl Send for Argument {}

impl Pool {
    pub(super) fn settings(&self) -> Guard<'_, Settings> {
        self.settings.lock()
    }

    /// Has no more free items than the high water mark allows, by pages, where that counts.
    pub(super) fn bound(&self) {
        let high = self.high.load(Ordering::Relaxed);
        if high != u64::MAX
            && SETHIWAT.get() == "bound"
            && self.zone.stats().keg_free >= high.saturating_add(self.per_page)
        {
            self.zone.reclaim(Reclaim::Drain);
        }
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
    /// (`pool_sethardlimit`); `None` lifts the limit. What is out already stays out. Returns whether there was memory to
    /// keep the warning; the limit is set in any case.
    pub fn set_hard_limit(&self, items: Option<u64>, warning: Option<HardLimitWarning>) -> bool {
        let wanted = warning.is_some();
        let warning = warning.and_then(|warning| Counted::new(warning).ok());
        let kept = warning.is_some() == wanted;
        let mut settings = self.settings();
        let before = core::mem::replace(&mut settings.warning, warning);
        settings.warned = None;
        drop(settings);
        drop(before);
        let shut = items == Some(0);
        self.shut.store(shut, Ordering::Relaxed);
        // It was made when the pool was, so these cannot fail. Nothing may be at hand if nothing may go out.
        let _ = self.zone.set_max_cached(shut.then_some(0));
        let _ = self.zone.set_max_items(items.and_then(|items| NonZeroU64::new(items.max(1))));
        kept
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
}
