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

use uma_core::{ConfigFault, ItemSource};
use uma_debug::{Hardening, Padded, Pads};
use uma_keg::{Keg, MAX_ITEM_SIZE, SlabConfig, SlabLayout};

use super::{PaddedSlabs, Slabs};
use crate::Platform;

/// What a zone's description asks of its slabs.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// The items, as described.
    pub(crate) item: Result<Layout, ConfigFault>,
    /// How slabs are laid out; by the platform's wishes if not given.
    pub(crate) slab: Option<SlabConfig>,
    /// Free items to keep in reserve.
    pub(crate) reserve: u64,
    /// What is checked.
    pub(crate) hardening: Hardening,
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

    /// Whether those slabs are the zone's own.
    const OWNS: bool = false;
}

/// The zone has slabs of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnSlabs;

impl<P: Platform> Origin<P> for OwnSlabs {
    type Source = PaddedSlabs<P>;
    const OWNS: bool = true;

    fn open(&self, platform: &P, wishes: Wishes) -> Result<PaddedSlabs<P>, ConfigFault> {
        let slab = wishes.slab.unwrap_or_else(|| {
            SlabConfig::new().outside_headers().largest_slab(platform.largest_slab())
        });
        let (item, tier) = (wishes.item?, wishes.hardening);
        let slab = slab
            .headers_kept_outside(tier.has_outside_headers())
            .random_slots(tier.has_random_slots())
            .guard_pages(tier.has_guard_slabs());
        // The largest items have no room around them.
        let pads = Pads::new(item, &tier).filter(|pads| pads.outer().size() <= MAX_ITEM_SIZE);
        let pads = pads.unwrap_or(Pads::none(item));
        let slab = SlabLayout::new(pads.outer(), slab)?;
        let keg = Keg::with_layout(platform.pages(), platform.metadata(), slab);
        keg.set_reserve(wishes.reserve);
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
