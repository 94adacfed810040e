//! Zones on the slabs of another zone.
//!
//! ```text
//!   primary "mbuf"                          secondary "packet"
//!   ctor / dtor                             ctor / dtor
//!   buckets, limit                          buckets, limit
//!                                           init / fini      (zinit, zfini)
//!   init / fini  <------- shared ---------- Hold
//!   slabs, one lock
//! ```
//!
//! A secondary zone has its own hooks, caches, limit and figures. Its items come up through the init of
//! the primary, and through its own after that; they go back the other way round.
//!
//! # Who keeps whom alive
//!
//! Each secondary zone holds the pinned part of its primary, counted. If the primary is dropped first it
//! gives back what it cached and is shown no more, but its slabs stay until the last secondary zone is
//! gone, and so does its place in the registry: a fork has to lock the slabs, once, and it is always
//! the primary's place that does so.

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use uma_core::{
    AllocError, ConfigFault, Hooks, Item, ItemSource, Name, NoHooks, Reclaim, Request, Stats,
};

use uma_debug::Pads;

use super::{Config, Core, Origin, OwnSlabs, RawZone, RawZoneBuilder, Slabs, Wishes};
use crate::sync::Ordering;
use crate::{DefaultPlatform, Platform, ZoneFlags};

/// A zone on the slabs of another: see [`RawZone::secondary`].
pub type SecondaryZone<P = DefaultPlatform, H = NoHooks, PH = NoHooks> =
    RawZone<P, H, Primary<P, PH>>;

/// The slabs of another zone, which has the hooks `H`, as an [`Origin`].
#[derive(Clone)]
pub struct Primary<P: Platform, H: Hooks + Clone + Send + Sync + 'static>(Way<P, H>);

#[derive(Clone)]
enum Way<P: Platform, H: Hooks + Clone + Send + Sync + 'static> {
    /// It is alive as long as the program, and will be made when it is needed.
    Static(NonNull<RawZone<P, H>>),
    /// It was made.
    Held(Hold<P, H>),
    /// It could not be made.
    Failed(ConfigFault),
}

// SAFETY: the pointer is to a zone that lives for ever and may be used from any thread; the hold may be sent.
unsafe impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> Send for Way<P, H> {}
// SAFETY: as above.
unsafe impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> Sync for Way<P, H> {}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> RawZone<P, H> {
    /// Describes a zone on the slabs of this one (`uma_zsecond_create`): of the same items, with hooks,
    /// caches, a limit and figures of its own. The slabs stay as long as either zone does.
    ///
    /// Its init and fini (`zinit`, `zfini`) run inside those of this zone, when an item leaves the slabs for
    /// the caches and when it goes back.
    ///
    /// ```
    /// use std::alloc::Layout;
    /// use uma::{RawZone, core::Request};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mbufs = RawZone::builder("mbuf", Layout::from_size_align(256, 64)?).build()?;
    /// let packets = mbufs.secondary("mbuf_packet").max_items(1000).build()?;
    /// let packet = packets.alloc(Request::NOWAIT)?;
    /// drop(mbufs);
    /// // SAFETY: the item came from this zone and is not used any more.
    /// unsafe { packets.free(packet) };
    /// # Ok(()) }
    /// ```
    pub fn secondary(&self, name: &str) -> RawZoneBuilder<P, NoHooks, Primary<P, H>> {
        let way = match self.made().map_or_else(|| self.make(), Ok) {
            Ok(core) => Way::Held(Hold::new(core, self.platform.clone())),
            Err(fault) => Way::Failed(fault),
        };
        builder(name, self.platform.clone(), Primary(way))
    }
}

impl<P: Platform + 'static, H: Hooks + Clone + Send + Sync + 'static> RawZone<P, H> {
    /// The same for zones that are `static`: both are made when they are first used.
    ///
    /// ```
    /// use std::alloc::Layout;
    /// use uma::{Host, RawZone, SecondaryZone, core::Request};
    ///
    /// static MBUFS: RawZone = RawZone::builder("mbuf", Layout::new::<[u64; 32]>()).lazy();
    /// static PACKETS: SecondaryZone = RawZone::secondary_of(&MBUFS, "mbuf_packet", Host).lazy();
    ///
    /// let packet = PACKETS.alloc(Request::NOWAIT)?;
    /// // SAFETY: the item came from this zone and is not used any more.
    /// unsafe { PACKETS.free(packet) };
    /// # Ok::<(), uma::ZoneError>(())
    /// ```
    pub const fn secondary_of(
        primary: &'static Self,
        name: &str,
        platform: P,
    ) -> RawZoneBuilder<P, NoHooks, Primary<P, H>> {
        builder(name, platform, Primary(Way::Static(NonNull::from_ref(primary))))
    }
}

const fn builder<P: Platform, O>(
    name: &str,
    platform: P,
    origin: O,
) -> RawZoneBuilder<P, NoHooks, O> {
    // The layout is that of the origin.
    let config = Config::new(name, Layout::new::<()>());
    RawZoneBuilder { config, platform, hooks: NoHooks, origin }
}

/// A counted hold of a primary zone's slabs, with the hooks that construct its items.
pub struct Hold<P: Platform, H: Hooks + Clone + Send + Sync + 'static> {
    core: NonNull<Core<P, H, OwnSlabs>>,
    platform: P,
}

// SAFETY: what it points to may be used from any thread, as zones may, and is counted atomically.
unsafe impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> Send for Hold<P, H> {}
// SAFETY: as above.
unsafe impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> Sync for Hold<P, H> {}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> Hold<P, H> {
    /// Holds a core that is held already.
    fn new(core: &Core<P, H, OwnSlabs>, platform: P) -> Self {
        core.holders.fetch_add(1, Ordering::Relaxed);
        Self { core: NonNull::from_ref(core), platform }
    }

    const fn core(&self) -> &Core<P, H, OwnSlabs> {
        // SAFETY: this hold keeps it alive.
        unsafe { self.core.as_ref() }
    }

    fn source(&self) -> &impl ItemSource {
        self.core().constructed()
    }
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> Clone for Hold<P, H> {
    fn clone(&self) -> Self {
        Self::new(self.core(), self.platform.clone())
    }
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> Drop for Hold<P, H> {
    fn drop(&mut self) {
        // SAFETY: this is one hold, given up once; the platform leads where that of the zone does.
        unsafe { Core::let_go(self.core, &self.platform) };
    }
}

// SAFETY: forwards to the layer of the primary zone that constructs items, which keeps the contract.
unsafe impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> ItemSource for Hold<P, H> {
    fn layout(&self) -> Layout {
        self.source().layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        self.source().import(into, request)
    }

    unsafe fn release(&self, items: &[Item]) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.source().release(items) };
    }

    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        self.source().alloc(request)
    }

    /// Before it fails for want of pages it also has the primary give up what that caches.
    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        match self.source().alloc_or_flush(request, flush) {
            Err(error) if error.is_shortage() => {
                self.core().reclaim(Reclaim::DrainCpu);
                self.source().alloc(request)
            }
            result => result,
        }
    }

    unsafe fn discard(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.source().discard(item) };
    }

    fn wanted(&self) -> bool {
        self.source().wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        self.source().reclaim(mode);
    }

    /// What the slabs hold is among the figures of the primary.
    fn visit_stats(&self, stats: &mut Stats) {
        let item = self.layout();
        (stats.size, stats.align) = (item.size(), item.align());
        stats.secondary = true;
    }

    // `prefork` and `postfork` are not passed on: the primary's place in the registry sees to them.
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> Origin<P> for Primary<P, H> {
    type Source = Hold<P, H>;
    const KIND: ZoneFlags = ZoneFlags::SECONDARY;

    fn open(&self, _: &P, _: Wishes) -> Result<Hold<P, H>, ConfigFault> {
        match &self.0 {
            Way::Held(hold) => Ok(hold.clone()),
            Way::Static(zone) => {
                // SAFETY: it was made from a reference that lives for ever.
                let zone = unsafe { zone.as_ref() };
                let core = zone.made().map_or_else(|| zone.make(), Ok)?;
                Ok(Hold::new(core, zone.platform.clone()))
            }
            Way::Failed(fault) => Err(*fault),
        }
    }

    fn layout(&self) -> Option<Layout> {
        match &self.0 {
            Way::Held(hold) => Some(hold.layout()),
            // SAFETY: as above.
            Way::Static(zone) => unsafe { zone.as_ref() }.item(),
            Way::Failed(_) => None,
        }
    }

    fn slabs(source: &Hold<P, H>) -> Option<&Slabs<P>> {
        source.core().slabs()
    }

    fn pads(source: &Hold<P, H>) -> Option<&Pads> {
        <OwnSlabs as Origin<P>>::pads(source.core().constructed().source())
    }

    fn keeps_state(source: &Hold<P, H>) -> bool {
        source.core().zone.hooks().keeps_state()
    }

    fn inherited(&self) -> ZoneFlags {
        let primary = match &self.0 {
            Way::Held(hold) => hold.core().node.flags(),
            // SAFETY: as above.
            Way::Static(zone) => unsafe { zone.as_ref() }.flags(),
            Way::Failed(_) => ZoneFlags::empty(),
        };
        primary & ZoneFlags::INHERITED | Self::KIND
    }

    fn primary(source: &Hold<P, H>) -> Option<Name> {
        Some(*source.core().zone.name())
    }
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> core::fmt::Debug for Primary<P, H> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match &self.0 {
            Way::Held(hold) => write!(f, "Primary({})", hold.core().zone.name()),
            // SAFETY: as above.
            Way::Static(zone) => write!(f, "Primary({})", unsafe { zone.as_ref() }.name()),
            Way::Failed(fault) => write!(f, "Primary({fault})"),
        }
    }
}
