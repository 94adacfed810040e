//! What a zone does when an allocation finds its limit reached: it warns, and calls back.
//!
//! "Reached" means that no item was to be had for an allocation after all caches above the limit were
//! drained; a zone whose caches were merely full is not at its limit. It is noticed before the allocation
//! sleeps or fails, on the thread that allocates, with no lock held and no item in hand. Nothing of this is
//! on the way of a hit; a zone that has neither warning nor action has nothing of it anywhere.

use core::fmt;
use core::num::NonZeroU64;

use uma_core::{AllocError, Name, Sleep};

use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::{Platform, event};

/// Whether zones warn: `vm.zone_warnings`.
static WARNINGS: AtomicBool = AtomicBool::new(true);

/// Turns the warnings of all zones on or off (`vm.zone_warnings`); they are on at first.
///
/// It silences what [`warning`](crate::RawZoneBuilder::warning) says. Actions still run.
pub fn set_zone_warnings(on: bool) {
    WARNINGS.store(on, Ordering::Relaxed);
}

/// What an [action](crate::RawZoneBuilder::maxaction) is told.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AtLimit {
    /// The zone whose allocation found no room.
    pub zone: Name,
    /// The zone's own limit in items, if it has one.
    pub max_items: Option<NonZeroU64>,
    /// Which limit it was: [`AllocError::Limit`] for the zone's own, [`AllocError::GroupLimit`] for one of
    /// its group.
    pub reason: AllocError,
}

/// A callback that is there for good.
#[derive(Clone, Copy)]
pub(super) struct Action(pub(super) &'static (dyn Fn(AtLimit) + Send + Sync));

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Action")
    }
}

/// What a zone is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AlarmConfig {
    pub(super) warning: Option<&'static str>,
    /// Nanoseconds from one warning to the next, at least.
    pub(super) interval: u64,
    pub(super) action: Option<Action>,
}

impl AlarmConfig {
    /// FreeBSD's 300 seconds.
    const INTERVAL: u64 = 300_000_000_000;
    pub(super) const NONE: Self = Self { warning: None, interval: Self::INTERVAL, action: None };

    pub(super) const fn is_set(&self) -> bool {
        self.warning.is_some() || self.action.is_some()
    }
}

/// What a zone has done so far.
pub(super) struct Alarm {
    /// When it warned last, in nanoseconds, plus 1; 0 for never.
    warned: AtomicU64,
    /// Whether the action runs just now.
    acting: AtomicBool,
}

impl Alarm {
    pub(super) const fn new() -> Self {
        Self { warned: AtomicU64::new(0), acting: AtomicBool::new(false) }
    }

    /// Warns and acts, as `config` has it.
    pub(super) fn sound<P: Platform>(&self, platform: &P, config: &AlarmConfig, at: AtLimit) {
        struct Done<'a>(&'a AtomicBool);

        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }

        if let Some(warning) = config.warning
            && WARNINGS.load(Ordering::Relaxed)
            && self.due(platform.sleep().now(), config.interval)
        {
            platform.report(format_args!("[zone: {}] {warning}", at.zone));
            event::warned(&at.zone, warning);
        }
        if let Some(Action(action)) = config.action
            && !self.acting.swap(true, Ordering::Acquire)
        {
            // Also if it unwinds.
            let _done = Done(&self.acting);
            action(at);
        }
    }

    /// In the copy of a process: whoever ran the action is in the original.
    pub(super) fn nobody_acts(&self) {
        self.acting.store(false, Ordering::Release);
    }

    /// Whether it is time to warn again. Of several callers at once, one is told so.
    fn due(&self, now: u64, interval: u64) -> bool {
        let last = self.warned.load(Ordering::Relaxed);
        let now = now.saturating_add(1);
        (last == 0 || now.saturating_sub(last) >= interval)
            && self.warned.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_due_at_first_and_after_the_interval() {
        let alarm = Alarm::new();
        let due = [0, 1, 99, 100, 101, 199, 200, 1000].map(|now| alarm.due(now, 100));
        assert_eq!(due, [true, false, false, true, false, false, true, true]);
        // A clock that stands still warns once; without an interval it warns each time.
        let (once, always) = (Alarm::new(), Alarm::new());
        assert_eq!([0; 3].map(|now| once.due(now, 1)), [true, false, false]);
        assert_eq!([0; 3].map(|now| always.due(now, 0)), [true, true, true]);
        // At the end of time.
        assert!(alarm.due(u64::MAX, 100) && !alarm.due(u64::MAX, 100));
    }
}
