//! The end of a raw zone, and what is said if items are still in use.

use core::alloc::Layout;
use core::ptr::NonNull;

use uma_core::{Hooks, Metadata, Reclaim};
use uma_keg::Keg;

use super::build::Config;
use super::{Core, Origin, RawZone, Slabs};
use crate::sync::Ordering;
use crate::{Platform, event};

impl<P, H, O> Drop for RawZone<P, H, O>
where
    P: Platform,
    H: Hooks + Clone + Send + Sync + 'static,
    O: Origin<P>,
{
    fn drop(&mut self) {
        let Some(core) = NonNull::new(*self.core.get_mut()) else { return };
        // SAFETY: `make` put it there, and `Ending` is the first to let go of it.
        let made = unsafe { core.as_ref() };
        made.leave_group(|| self.platform.relax());
        // SAFETY: `make` listed the node.
        unsafe { self.platform.registry().close(&made.node, || self.platform.relax()) };
        let _ending = Ending { zone: self, core };
        // The user's hooks may panic here, for every item that was cached.
        made.zone.reclaim(Reclaim::DrainCpu);
    }
}

/// The end of a zone that nobody sees any more and that has given back what it could.
struct Ending<'a, P, H, O>
where
    P: Platform,
    H: Hooks + Clone + Send + Sync + 'static,
    O: Origin<P>,
{
    zone: &'a RawZone<P, H, O>,
    core: NonNull<Core<P, H, O>>,
}

impl<P, H, O> Drop for Ending<'_, P, H, O>
where
    P: Platform,
    H: Hooks + Clone + Send + Sync + 'static,
    O: Origin<P>,
{
    fn drop(&mut self) {
        let platform = &self.zone.platform;
        // SAFETY: the zone is being dropped and holds its pinned part, which is therefore alive.
        let core = unsafe { self.core.as_ref() };
        let live = core.in_use();
        event::destroyed(&self.zone.config.name, live);
        if live == 0 {
            // SAFETY: the zone gives up its hold here; it was closed, and no item of it is out.
            unsafe { Core::let_go(self.core, platform) };
            return;
        }
        // The zone keeps its hold for ever, and so the memory that the items lie in.
        report_leak(platform, &self.zone.config, live, core.own_slabs());
        if core.is_alone() {
            // SAFETY: it was closed; nobody will use its slabs any more, so no fork has to lock them.
            unsafe { platform.registry().remove(&core.node) };
        }
    }
}

impl<P: Platform, H: Hooks, O: Origin<P>> Core<P, H, O> {
    /// Whether nobody but the zone itself uses its slabs.
    fn is_alone(&self) -> bool {
        self.holders.load(Ordering::Acquire) == 1
    }

    /// The slabs, if all items in them are this zone's.
    fn own_slabs(&self) -> Option<&Slabs<P>> {
        if O::OWNS && self.is_alone() { self.slabs() } else { None }
    }

    /// Items of the zone that are out, with those that its caches hold.
    fn in_use(&self) -> u64 {
        // A keg is not deceived by double frees.
        self.own_slabs().map_or_else(|| self.limit().items(), Keg::live)
    }

    /// Gives up one hold of a pinned part; the last one ends it.
    ///
    /// # Safety
    ///
    /// The caller has a hold, and does not use the core any more. The zone's own hold is given up after
    /// its node was closed, when none of its items is out. `platform` is that of the zone.
    pub(super) unsafe fn let_go(core: NonNull<Self>, platform: &P) {
        // SAFETY: the caller's hold keeps it alive.
        let this = unsafe { core.as_ref() };
        // AcqRel: what others did to the slabs comes before their end.
        if this.holders.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        // SAFETY: the node is in the registry and closed, since the zone itself has let go. Nobody
        // reaches the core any more, and its memory came from `alloc_meta` with this layout.
        unsafe {
            platform.registry().remove(&this.node);
            core.drop_in_place();
            platform.metadata().free_meta(core.cast(), Layout::new::<Self>());
        }
    }
}

/// Says how many items were still in use when the zone went, and where the first of them are if its slabs
/// hold no other.
#[cold]
fn report_leak<P: Platform>(platform: &P, config: &Config, live: u64, slabs: Option<&Slabs<P>>) {
    let addresses = slabs.map(Addresses::of::<P>);
    let name = config.name;
    match addresses {
        Some(addresses) => platform.report(format_args!(
            "zone \"{name}\" was destroyed with {live} items in use, whose memory stays: {addresses}"
        )),
        None => platform.report(format_args!(
            "zone \"{name}\" was destroyed with {live} items in use, whose memory stays"
        )),
    }
}

/// Where the first few items are that are out.
pub(super) struct Addresses([usize; 8], usize);

impl Addresses {
    pub(super) fn of<P: Platform>(slabs: &Slabs<P>) -> Self {
        let mut found = Self([0; 8], 0);
        slabs.for_each_live(|item| {
            if let Some(place) = found.0.get_mut(found.1) {
                *place = item.addr();
            }
            found.1 += 1;
        });
        found
    }
}

impl core::fmt::Display for Addresses {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (at, address) in self.0.iter().take(self.1).enumerate() {
            write!(f, "{}{address:#x}", if at == 0 { "" } else { ", " })?;
        }
        if self.1 > self.0.len() { f.write_str(", ...") } else { Ok(()) }
    }
}
