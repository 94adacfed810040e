//! The end of a raw zone, and what is said if items are still in use.

use core::alloc::Layout;
use core::ptr::NonNull;

use uma_core::{Hooks, ItemSource, Metadata, Reclaim};
use uma_keg::Keg;

use super::build::Config;
use super::checked::Otherwise;
use super::edge::Edge;
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
        made.reclaim(Reclaim::DrainCpu);
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
        // At the end: a subscriber may unwind.
        let _told = Otherwise(|| event::destroyed(&self.zone.config.name, live));
        if live == 0 {
            // SAFETY: the zone gives up its hold here; it was closed, and no item of it is out.
            unsafe { Core::let_go(self.core, platform) };
            return;
        }
        // The zone keeps its hold for ever, and so the memory that the items lie in, which goes on counting in
        // its group.
        core.limit().source().lose(core.limit().items());
        report_leak(platform, &self.zone.config, live, core.own_slabs(), core.edge());
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
    pub(super) fn own_slabs(&self) -> Option<&Slabs<P>> {
        if O::KIND.is_empty() && self.is_alone() { self.slabs() } else { None }
    }

    /// Items of the zone that are out, with those that its caches hold.
    pub(super) fn in_use(&self) -> u64 {
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
            let edge = this.edge;
            // Both also if a hook unwinds, or the end of the hooks themselves.
            let _edge = Otherwise(|| edge.into_iter().for_each(|it| Edge::delete(it.0, platform)));
            let _memory = Otherwise(|| {
                platform.metadata().free_meta(core.cast(), Layout::new::<Self>());
            });
            core.drop_in_place();
        }
    }
}

/// Says how many items were still in use when the zone went, and where they are: the first of them, if its
/// slabs hold no other; all of them, and who allocated them, if it has checks that know.
#[cold]
fn report_leak<P: Platform>(
    platform: &P,
    config: &Config,
    live: u64,
    slabs: Option<&Slabs<P>>,
    edge: Option<&Edge<P>>,
) {
    struct Listed<'a, P: Platform>(Option<Addresses>, Option<&'a Edge<P>>);

    impl<P: Platform> core::fmt::Display for Listed<'_, P> {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            if let Some(addresses) = &self.0 {
                write!(f, " {addresses}")?;
            }
            let Some(edge) = self.1 else { return Ok(()) };
            let mut result = Ok(());
            let mut left = MOST_LISTED;
            edge.for_each_live(&mut |item, trace| {
                if result.is_ok() && left != 0 {
                    left -= 1;
                    let trace = edge.checks.show("allocated", trace);
                    result = write!(f, "\n  item at {item:#x}{trace}");
                }
            });
            if left == 0 { f.write_str("\n  ...") } else { result }
        }
    }

    let known = edge.is_some_and(|edge| edge.checks.hardening().is_live());
    let slabs = if known { None } else { slabs };
    platform.report(format_args!(
        "zone \"{}\" was destroyed with {live} items in use, whose memory stays{}{}",
        config.name,
        if slabs.is_some() || edge.is_some() { ":" } else { "" },
        Listed(slabs.map(Addresses::of::<P>), edge)
    ));
}

/// Items in use that are listed when a zone ends that knows all of them.
const MOST_LISTED: usize = 100;

/// Where the first few items are that are out.
#[derive(Clone, Copy)]
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

    pub(super) fn as_slice(&self) -> &[usize] {
        &self.0[..self.1.min(self.0.len())]
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
