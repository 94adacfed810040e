//! The part of a zone that stays in place, and what the registry can ask of it.
//!
//! ```text
//!   RawZone, which may be moved
//!      |
//!      '-----> Core:  Zone< BucketCache< Watched< Limited< Grouped< Constructed< slabs > > > > > >
//!                     its node in the registry, what it does at its limit, who holds it
//! ```

use uma_cache::BucketCache;
use uma_core::{Constructed, Grouped, Hooks, ItemSource, Limited, Zone};
use uma_debug::{Padded, Watched};
use uma_keg::Keg;

use super::alarm::Alarm;
use super::edge::{EdgePtr, ZoneWitness};
use super::{Origin, OwnSlabs, RawZone};
use crate::registry::{Node, Vtable};
use crate::sync::AtomicUsize;
use crate::{Platform, event};

/// The slabs of a zone on platform `P`.
pub type Slabs<P> = Keg<<P as Platform>::Pages, <P as Platform>::Lock, <P as Platform>::Metadata>;

/// The same, with room for red zones around the items if the zone has any.
pub type PaddedSlabs<P> = Padded<Slabs<P>>;

/// What may leave the slabs, or the source `S`: constructed items, at most so many, and counted in a group if
/// there is one.
pub type Supply<P, H, S = PaddedSlabs<P>> = Limited<
    Grouped<'static, Constructed<S, H>, <P as Platform>::Lock, <P as Platform>::Sleep>,
    <P as Platform>::Lock,
    <P as Platform>::Sleep,
>;

/// The whole stack of a zone on platform `P` with hooks `H` over its slabs, or over the source `S`,
/// written out.
pub type Stack<P, H, S = PaddedSlabs<P>> = BucketCache<
    Watched<Supply<P, H, S>, <P as Platform>::Lock, <P as Platform>::Metadata, ZoneWitness<P>>,
    <P as Platform>::Cpus,
    <P as Platform>::Lock,
    <P as Platform>::Metadata,
>;

/// A stack with its name, ctor and dtor on top.
type Top<P, H, O> = Zone<Stack<P, H, <O as Origin<P>>::Source>, H>;

/// The part of a zone that stays in place: slabs, caches and the registry point into it. What a hit touches
/// is at its front, on one cache line.
#[repr(C, align(64))]
pub(super) struct Core<P: Platform, H: Hooks, O: Origin<P> = OwnSlabs> {
    pub(super) zone: Top<P, H, O>,
    pub(super) node: Node,
    pub(super) alarm: Alarm,
    /// The zone itself, and whoever else uses its slabs. The last one ends it.
    pub(super) holders: AtomicUsize,
    /// What looks at every allocation and free, if anything does.
    pub(super) edge: Option<EdgePtr<P>>,
}

impl<P: Platform, H: Hooks, O: Origin<P>> Core<P, H, O> {
    pub(super) const fn limit(&self) -> &Supply<P, H, O::Source> {
        self.zone.source().source().source()
    }

    /// The layer that constructs items, which zones on the same slabs stand on.
    pub(super) const fn constructed(&self) -> &Constructed<O::Source, H> {
        self.limit().source().source()
    }

    pub(super) fn slabs(&self) -> Option<&Slabs<P>> {
        O::slabs(self.constructed().source())
    }
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static, O: Origin<P>> RawZone<P, H, O> {
    pub(super) const VTABLE: &'static Vtable = &Vtable {
        name: |core| {
            // SAFETY: the registry passes the pointer that `make` gave it, to a live `Core`.
            let core = unsafe { &*core.cast::<Core<P, H, O>>() };
            *core.zone.name()
        },
        stats: |core| {
            // SAFETY: as above.
            let core = unsafe { &*core.cast::<Core<P, H, O>>() };
            core.stats()
        },
        visit_cpus: |core, each| {
            // SAFETY: as above.
            let core = unsafe { &*core.cast::<Core<P, H, O>>() };
            core.zone.source().visit_cpus(each);
        },
        reclaim: |core, mode| {
            // SAFETY: as above.
            let core = unsafe { &*core.cast::<Core<P, H, O>>() };
            core.reclaim(mode);
            event::reclaimed(core.zone.name(), mode);
        },
        prefork: |core| {
            // SAFETY: as above.
            let core = unsafe { &*core.cast::<Core<P, H, O>>() };
            core.prefork();
        },
        postfork: |core, process| {
            // SAFETY: as above; and the registry has called `prefork` before.
            unsafe { (*core.cast::<Core<P, H, O>>()).postfork(process) };
        },
        settle: |core| {
            // SAFETY: as above.
            let core = unsafe { &*core.cast::<Core<P, H, O>>() };
            core.settle();
        },
        holds: |core, address| {
            // SAFETY: as above.
            let core = unsafe { &*core.cast::<Core<P, H, O>>() };
            core.holds(address)
        },
        primary: |core| {
            // SAFETY: as above.
            let core = unsafe { &*core.cast::<Core<P, H, O>>() };
            O::primary(core.constructed().source())
        },
    };
}
