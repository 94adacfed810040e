//! How an item is had: at the hard limit, without memory, and of zeros.

use core::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use uma::Reclaim;
use uma::core::{AllocError, Item, Request};

use super::Pool;
use super::bounds::Argument;
use crate::common::Patience;
use crate::netbsd::hooks::Telling;
use crate::netbsd::{CACHE_ZERO, PoolFlags, SYSTEM, WAITOK};
use crate::sync::Ordering;

/// Between two tries of who waits for memory.
const PATIENCE: Duration = Duration::from_millis(1);

impl Pool {
    /// An item (`pool_get`). With [`PoolFlags::WAITOK`] there always is one, in the end.
    ///
    /// At the hard limit the drain hook runs, once; then one that may wait does so until somebody puts an item,
    /// and others fail, after the warning. Where there is no memory it is the same, but that who may wait
    /// first has all zones of the process drained, and tries every millisecond, draining again now and then (see `netbsd.waitok`).
    #[inline]
    pub fn get(&self, flags: PoolFlags) -> Option<NonNull<u8>> {
        NonNull::new(self.get_or_null(flags))
    }

    /// An item, or null.
    #[inline(always)]
    pub(in crate::netbsd) fn get_or_null(&self, flags: PoolFlags) -> *mut u8 {
        let item = self.get_cached(flags);
        if item.is_null() { self.get_slow(flags) } else { item }
    }

    /// An item that is at hand, or null: the whole of a hit.
    #[inline(always)]
    fn get_cached(&self, flags: PoolFlags) -> *mut u8 {
        if flags.contains(PoolFlags::ZERO) { ptr::null_mut() } else { self.zone.alloc_cached() }
    }

    #[inline(never)]
    pub(in crate::netbsd) fn get_slow(&self, flags: PoolFlags) -> *mut u8 {
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
        let mut patience = Patience::new();
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
                if patience.wait() {
                    uma::reclaim(Reclaim::DrainCpu);
                }
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

    /// Calls the drain hook, if there is one.
    pub(super) fn call_hook(&self, flags: PoolFlags) -> bool {
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
            let warning = warning.clone();
            settings.warned = Some(now);
            drop(settings);
            SYSTEM.report("pool_get", format_args!("{self}: {}", warning.text));
        }
    }

    /// Makes the items that are to be there, if there is memory at once.
    pub(super) fn catch_up(&self, low: u64) {
        let free = self.zone.stats().free();
        if free < low {
            // What there is not, there is not: it is tried again with the next get.
            let _ = self.zone.prealloc(low - free);
        }
    }
}
