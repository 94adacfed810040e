//! Where a raw zone's items come from.
//!
//! ```text
//!   RawZone             secondary zone         cache zone
//!   ----------          --------------         ------------
//!   ctor / dtor         ctor / dtor            ctor / dtor       Zone
//!   buckets             buckets                buckets           BucketCache
//!   limit               limit                  limit             Limited
//!   init / fini         init / fini            init / fini       Constructed
//!   ===========         ==============         ============      <- `Origin::Source` begins here
//!   slabs of its own    the primary's          the user's
//!                       init / fini, slabs     import / release
//! ```
//!
//! Everything above the line is the same code.

use core::alloc::Layout;

use uma_cache::PerCpu;
use uma_core::{ConfigFault, ItemSource, Name, PageSupplier};
use uma_debug::{Hardening, Padded, Pads};
use uma_keg::{Keg, MAX_ITEM_SIZE, SlabConfig, SlabLayout};

use super::{PaddedSlabs, Slabs};
use crate::{Platform, ZoneFlags};

/// Slabs are no smaller than this on suppliers of smaller pages.
const SMALLEST_PAGE: usize = 4096;

/// What a zone's description asks of its slabs.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// The items, as described.
    pub(crate) item: Result<Layout, ConfigFault>,
    /// How slabs are laid out; by the platform's wishes if not given.
    pub(crate) slab: Option<SlabConfig>,
    /// Free items to keep in reserve.
    pub(crate) reserve: u64,
    /// Items to have slabs for from the beginning, and no others.
    pub(crate) backing: Option<u64>,
    /// What is checked.
    pub(crate) hardening: Hardening,
    /// The flags that were asked for.
    pub(crate) flags: ZoneFlags,
}

impl Wishes {
    /// The slabs that are wished for.
    fn slab_config<P: Platform>(&self, platform: &P) -> SlabConfig {
        let page = platform.pages().page_size().max(SMALLEST_PAGE);
        let default = || {
            let slab = SlabConfig::new().page_size(page).outside_headers();
            slab.largest_slab(platform.largest_slab())
        };
        let mut slab = self.slab.unwrap_or_else(default);
        let has = |flag| self.flags.contains(flag);
        if has(ZoneFlags::ZINIT) {
            slab = slab.zeroed();
        }
        if has(ZoneFlags::NOFREE) {
            slab = slab.kept();
        }
        if has(ZoneFlags::NODUMP) {
            slab = slab.undumped();
        }
        if has(ZoneFlags::NOTOUCH) || has(ZoneFlags::OFFPAGE) {
            slab = slab.outside_headers().no_touch();
        }
        if has(ZoneFlags::CONTIG) {
            slab = slab.contiguous();
        }
        if has(ZoneFlags::CACHESPREAD) {
            slab = slab.spread();
        }
        if has(ZoneFlags::PCPU) {
            slab = slab.copies(platform.cpus().cpus());
        }
        let tier = self.hardening;
        slab = slab
            .headers_kept_outside(tier.has_outside_headers())
            .random_slots(tier.has_random_slots())
            .guard_pages(tier.has_guard_slabs());
        // Last, so that it holds whatever is checked.
        if has(ZoneFlags::VM) { slab.inside_headers() } else { slab }
    }
}

/// Where the items of a [`RawZone`](crate::RawZone) come from. The three there are: [`OwnSlabs`],
/// the slabs of another zone, and a source of the user's.
pub trait Origin<P: Platform>: Send + Sync {
    /// The source below the zone's own layers.
    type Source: ItemSource + Send + Sync;

    /// Makes the source, when the zone is made.
    ///
    /// # Errors
    ///
    /// What is wrong with the description, or that there was no memory.
    fn open(&self, platform: &P, wishes: Wishes) -> Result<Self::Source, ConfigFault>;

    /// The layout of the items, if the origin has a say in it.
    fn layout(&self) -> Option<Layout> {
        None
    }

    /// The slabs that the items lie in, if they are slabs of ours.
    fn slabs(source: &Self::Source) -> Option<&Slabs<P>>;

    /// How the items lie between red zones, if there is room for any.
    fn pads(source: &Self::Source) -> Option<&Pads> {
        let _ = source;
        None
    }

    /// Whether items come from there in a state that must be kept while they are free.
    fn keeps_state(_: &Self::Source) -> bool {
        false
    }

    /// [`ZoneFlags::SECONDARY`] or [`ZoneFlags::CACHE`], if the zone is one of those.
    const KIND: ZoneFlags;

    /// The flags that a zone has from its origin.
    fn inherited(&self) -> ZoneFlags {
        Self::KIND
    }

    /// The zone whose slabs these are, if that is another.
    fn primary(_: &Self::Source) -> Option<Name> {
        None
    }
}

/// The zone has slabs of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnSlabs;

impl<P: Platform> Origin<P> for OwnSlabs {
    type Source = PaddedSlabs<P>;
    const KIND: ZoneFlags = ZoneFlags::empty();

    fn open(&self, platform: &P, wishes: Wishes) -> Result<PaddedSlabs<P>, ConfigFault> {
        let item = wishes.item?;
        if item.size() == 0 {
            return Err(ConfigFault::ZeroSize);
        }
        // The largest items have no room around them, nor those that lie in a way of their own.
        let placed = ZoneFlags::CONTIG | ZoneFlags::CACHESPREAD | ZoneFlags::PCPU;
        let pads = Pads::new(item, &wishes.hardening)
            .filter(|pads| pads.outer().size() <= MAX_ITEM_SIZE)
            .filter(|_| !wishes.flags.intersects(placed))
            .unwrap_or(Pads::none(item));
        let slab = SlabLayout::new(pads.outer(), wishes.slab_config(platform))?;
        let keg = Keg::with_layout(platform.pages(), platform.metadata(), slab);
        keg.set_reserve(wishes.reserve);
        if let Some(items) = wishes.backing {
            // What was had until it failed goes back with the keg.
            keg.prealloc(items).map_err(ConfigFault::NoBacking)?;
            keg.seal();
        }
        // SAFETY: the keg was made for the outer layout.
        Ok(unsafe { Padded::new(keg, pads) })
    }

    fn slabs(source: &PaddedSlabs<P>) -> Option<&Slabs<P>> {
        Some(source.source())
    }

    fn pads(source: &PaddedSlabs<P>) -> Option<&Pads> {
        Some(source.pads())
    }
}
