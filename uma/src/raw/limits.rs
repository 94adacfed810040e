//! The limits of a raw zone: of items in use, of items cached, and those of its group.

use core::num::NonZeroU64;
use core::ptr::{self, NonNull};
use core::time::Duration;

use uma_core::{AllocError, Hooks, Item, ItemSource, LimitGroup, Name, Request};

use super::alarm::{Action, AtLimit};
use super::{Core, Origin, RawZone, RawZoneBuilder};
use crate::{Platform, ZoneError, event};

/// A limit in bytes that zones on platform `P` share: see [`LimitGroup`].
pub type GroupIn<P> = LimitGroup<'static, <P as Platform>::Lock, <P as Platform>::Sleep>;

/// A limit in bytes that zones on the default platform share.
///
/// ```
/// use std::num::NonZeroU64;
/// use uma::{Park, Zone, ZoneGroup};
///
/// static NETWORK: ZoneGroup = ZoneGroup::new("network", NonZeroU64::new(1 << 20), Park);
/// static RX: ZoneGroup = ZoneGroup::within(&NETWORK, "receive", NonZeroU64::new(768 << 10), Park);
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let frames = Zone::<[u8; 2048]>::builder("frame").group(&RX).build()?;
/// let sockets = Zone::<[u8; 512]>::builder("socket").group(&NETWORK).build()?;
/// let mut queue = Vec::new();
/// while let Ok(frame) = frames.try_alloc([0; 2048]) {
///     queue.push(frame);
/// }
/// assert_eq!(queue.len() * 2048, 768 << 10);
/// assert!(sockets.try_alloc([0; 512]).is_ok());
/// # Ok(()) }
/// ```
#[cfg(feature = "std")]
pub type ZoneGroup = GroupIn<crate::DefaultPlatform>;

/// A `&'static GroupIn<P>`, in a description that does not know `P`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupRef(NonNull<()>);

// SAFETY: it stands for a shared reference to a group, which may be used from any thread, as the bounds of
// `Platform::Lock` and `Platform::Sleep` have it.
unsafe impl Send for GroupRef {}
// SAFETY: as above.
unsafe impl Sync for GroupRef {}

impl<P: Platform, H, O> RawZoneBuilder<P, H, O> {
    /// At most so many free items are cached, in per-CPU buckets and the depot together
    /// (`uma_zone_set_maxcache`); 0 caches nothing. See
    /// [`BucketCache::set_max_cached`](uma_cache::BucketCache::set_max_cached).
    pub const fn max_cached(mut self, items: u64) -> Self {
        self.config.max_cached = Some(items);
        self
    }

    /// Counts the zone's items in a group, and those that the group is in. An item counts as its size
    /// rounded up to its alignment.
    ///
    /// The platform is there for ever, since a zone that is forgotten instead of dropped stays in its group.
    pub const fn group(mut self, group: &'static GroupIn<P>) -> Self
    where
        P: 'static,
    {
        self.config.group = Some(GroupRef(NonNull::from_ref(group).cast()));
        self
    }

    /// Says so when an allocation finds the limit reached (`uma_zone_set_warning`): by
    /// [`Platform::report`], as `[zone: NAME] TEXT`, and as a `tracing` event. At most every 300 seconds,
    /// on the clock of the platform's [`Sleep`](uma_core::Sleep), unless
    /// [`warning_interval`](Self::warning_interval) says otherwise; where that clock stands still, once.
    ///
    /// "Reached" means after all caches were drained; it is said before the allocation fails or sleeps, on its
    /// thread, with no lock held. [`set_zone_warnings`](crate::set_zone_warnings) turns it off for all zones.
    pub const fn warning(mut self, text: &'static str) -> Self {
        self.config.alarm.warning = Some(text);
        self
    }

    /// The least time from one warning to the next.
    pub const fn warning_interval(mut self, interval: Duration) -> Self {
        let nanoseconds = interval.as_nanos();
        self.config.alarm.interval =
            if nanoseconds > u64::MAX as u128 { u64::MAX } else { nanoseconds as u64 };
        self
    }

    /// Calls `action` when an allocation finds the limit reached (`uma_zone_set_maxaction`).
    ///
    /// It runs on the thread that allocates, at once, before the allocation sleeps or fails, with no lock held and
    /// no item in hand; the allocation then tries again, so an action may free items for it. (FreeBSD's
    /// runs later, on a thread of the system; let an action hand work on that should not be done here.)
    /// It runs once at a time: allocations that find the limit reached meanwhile, also those of the action
    /// itself, do not call it again. If it panics the allocation does, and nothing is lost.
    pub const fn maxaction(mut self, action: &'static (dyn Fn(AtLimit) + Send + Sync)) -> Self {
        self.config.alarm.action = Some(Action(action));
        self
    }
}

impl<P, H, O> RawZone<P, H, O>
where
    P: Platform,
    H: Hooks + Clone + Send + Sync + 'static,
    O: Origin<P>,
{
    /// The group that the zone's items count in, if there is one.
    pub fn group(&self) -> Option<&'static GroupIn<P>> {
        let GroupRef(group) = self.config.group?;
        // SAFETY: `RawZoneBuilder::group` made it of such a reference; the platform of a builder is that of
        // its zone.
        Some(unsafe { group.cast::<GroupIn<P>>().as_ref() })
    }

    /// The nearest group, of the zone's own and those it is in, that has no room for an item just now: which
    /// one an [`AllocError::GroupLimit`] was about, unless something came back since.
    pub fn full_group(&self) -> Option<&'static GroupIn<P>> {
        let each = self.item()?.pad_to_align().size().max(1);
        self.group()?.full(each as u64)
    }

    /// Changes the limit (`uma_zone_set_max`); `None` lifts it. If more items are out than the new limit
    /// allows, the caches are drained, and hold nothing until enough came back. See
    /// [`Limited::set_max`](uma_core::Limited::set_max).
    ///
    /// # Errors
    ///
    /// If the zone is used for the first time by this call and cannot be made.
    pub fn set_max_items(&self, max: Option<NonZeroU64>) -> Result<(), ZoneError> {
        let core = self.core().map_err(|reason| self.error(reason))?;
        core.limit().set_max(max);
        core.settle();
        Ok(())
    }

    /// The limit, if there is one (`uma_zone_get_max`).
    pub fn max_items(&self) -> Option<NonZeroU64> {
        match self.made() {
            Some(core) => core.limit().max(),
            None => self.config.max_items.and_then(NonZeroU64::new),
        }
    }

    /// Items in use (`uma_zone_get_cur`): exact while nobody allocates or frees, a good estimate
    /// otherwise, never below 0. It looks at every CPU's buckets.
    pub fn cur_items(&self) -> u64 {
        self.stats().used()
    }

    /// Whether somebody sleeps for an item of this zone, at its limit or that of its group
    /// (`uma_zone_exhausted`). An answer for the moment.
    pub fn exhausted(&self) -> bool {
        self.made().is_some_and(|core| {
            let limited = core.limit();
            limited.sleepers() != 0 || limited.source().sleepers() != 0
        })
    }

    /// Waits until the zone can allocate (`uma_zwait`): takes an item, as `request` has it, and gives it back. Its
    /// ctor and dtor do not run. When this returns, another may already have taken what was there.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc).
    pub fn wait_for_room(&self, request: Request) -> Result<(), ZoneError> {
        let core = self.core().map_err(|reason| self.error(reason))?;
        let item = core.fetch(request, &mut || {}).map_err(|reason| self.error(reason))?;
        // SAFETY: taken just now, past the ctor, and given up.
        unsafe { core.zone.source().free(item) };
        Ok(())
    }

    /// Bounds the free items that are cached (`uma_zone_set_maxcache`); `None` lifts the bound, 0 caches nothing.
    /// What is cached now goes back. See
    /// [`BucketCache::set_max_cached`](uma_cache::BucketCache::set_max_cached).
    ///
    /// # Errors
    ///
    /// If the zone is used for the first time by this call and cannot be made.
    pub fn set_max_cached(&self, items: Option<u64>) -> Result<(), ZoneError> {
        let core = self.core().map_err(|reason| self.error(reason))?;
        core.zone.source().set_max_cached(items);
        Ok(())
    }

    /// The bound on free items that are cached, if there is one.
    pub fn max_cached(&self) -> Option<u64> {
        self.made().map_or(self.config.max_cached, |core| core.zone.source().max_cached())
    }

    /// Allocates, and does what is to be done if the limit is reached.
    ///
    /// # Safety
    ///
    /// As [`alloc_arg`](Self::alloc_arg).
    pub(super) unsafe fn alloc_noticing(
        &self,
        core: &Core<P, H, O>,
        arg: *mut (),
        request: Request,
    ) -> Result<Item, AllocError> {
        if self.alarmed() || self.tells(core, request) {
            match core.fetch(request.without_waiting(), &mut || {}) {
                // SAFETY: the item is the source's; the rest is passed on from the caller.
                Ok(item) => return unsafe { core.ready(item, arg, request) },
                // And then again: perhaps the action has freed something. What fails is counted there.
                Err(reason) => self.notice(core, reason, request.may_wait()),
            }
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { core.alloc_arg(arg, request) }
    }

    /// Sounds the alarm if that is the reason for a failure, and tells of an allocation that waits from now on. (One
    /// that does not is told of when it fails.)
    pub(super) fn notice(&self, core: &Core<P, H, O>, reason: AllocError, waits: bool) {
        if !matches!(reason, AllocError::Limit | AllocError::GroupLimit) {
            return;
        }
        if self.alarmed() {
            let max_items = core.limit().max();
            let at = AtLimit { zone: self.config.name, max_items, reason };
            core.alarm.sound(&self.platform, &self.config.alarm, at);
        }
        if waits {
            event::reached(&self.config.name, reason, self.reached_group(reason).as_ref());
        }
    }

    /// The name of the group at whose limit an allocation has failed, for those who listen.
    pub(super) fn reached_group(&self, reason: AllocError) -> Option<Name> {
        let told = cfg!(feature = "tracing") && reason == AllocError::GroupLimit;
        if told { self.full_group().map(|group| *group.name()) } else { None }
    }

    /// Whether an allocation that has to wait for this request would be told of.
    fn tells(&self, core: &Core<P, H, O>, request: Request) -> bool {
        cfg!(feature = "tracing")
            && request.may_wait()
            && (core.limit().max().is_some() || self.config.group.is_some())
            && event::is_heard()
    }

    /// Whether there is anything to be done when the limit is reached.
    pub(crate) const fn alarmed(&self) -> bool {
        self.config.alarm.is_set()
    }

    /// As `alloc_noticing`, for whoever stands on this zone.
    pub(crate) fn alloc_as_source(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        let core = self.core()?;
        if self.alarmed() || self.tells(core, request) {
            match core.fetch(request.without_waiting(), flush) {
                // SAFETY: the item is the source's; the hooks take null, as was promised when they were put on
                // the zone.
                Ok(item) => return unsafe { core.ready(item, ptr::null_mut(), request) },
                Err(reason) => self.notice(core, reason, request.may_wait()),
            }
        }
        core.alloc_or_flush(request, flush)
    }

    /// As `notice`, for a zone that is known to be made.
    pub(crate) fn notice_if_made(&self, reason: AllocError) {
        if let Some(core) = self.made() {
            self.notice(core, reason, false);
        }
    }
}

impl<P: Platform, H: Hooks, O: Origin<P>> Core<P, H, O> {
    /// Lets the group's other members drain this zone's caches.
    ///
    /// # Safety
    ///
    /// The core is in its place, where it stays until [`leave_group`](Self::leave_group) returned. Once.
    pub(super) unsafe fn join_group(&self) {
        let settle = |core: *const ()| {
            // SAFETY: it is the pointer below, and the core has not left the group.
            unsafe { (*core.cast::<Self>()).settle() };
        };
        let core = ptr::from_ref(self).cast();
        // SAFETY: passed on from the caller; zones may be used from any thread.
        unsafe { self.limit().source().join(core, settle) };
    }

    pub(super) fn leave_group(&self, relax: impl Fn()) {
        self.limit().source().leave(relax);
    }
}
