//! Destroying a zone only if nothing of it is in use, and waiting until that is so.

use core::fmt;

use uma_core::{Deadline, Hooks, ItemSource, Name, Reclaim, Sleep};

use super::end::Addresses;
use super::{Core, Origin, RawZone};
use crate::Platform;

/// The first and the longest pause between two looks, in nanoseconds.
const FIRST_NAP: u64 = 50_000;
const LONGEST_NAP: u64 = 10_000_000;

/// Items of a zone are in use: how many, and where the first few are.
#[derive(Clone, Copy)]
pub struct InUse {
    zone: Name,
    items: u64,
    addresses: Option<Addresses>,
}

impl InUse {
    /// The zone's name.
    pub const fn zone(&self) -> &Name {
        &self.zone
    }

    /// How many items are in use.
    pub const fn items(&self) -> u64 {
        self.items
    }

    /// Where the first few of them are. None are told for zones that share their slabs, or have none.
    pub fn addresses(&self) -> &[usize] {
        self.addresses.as_ref().map_or(&[], Addresses::as_slice)
    }
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items of zone \"{}\" are in use", self.items, self.zone)?;
        match &self.addresses {
            Some(addresses) => write!(f, ": {addresses}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InUse({self})")
    }
}

impl core::error::Error for InUse {}

/// A zone that could not be destroyed, unharmed, and why.
pub struct Busy<Z> {
    /// The zone.
    pub zone: Z,
    /// What is in use.
    pub in_use: InUse,
}

impl<Z> fmt::Display for Busy<Z> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.in_use.fmt(f)
    }
}

impl<Z> fmt::Debug for Busy<Z> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Busy({})", self.in_use)
    }
}

impl<Z> core::error::Error for Busy<Z> {}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static, O: Origin<P>> RawZone<P, H, O> {
    /// Destroys the zone, unless items of it are in use (`uma_zdestroy` of 2002 without waiting, which
    /// returned `EWOULDBLOCK`). Items in the zone's own caches are not in use; those of zones on its slabs
    /// are theirs.
    ///
    /// Waits while somebody looks at the zone through the registry, as a drop does.
    ///
    /// # Errors
    ///
    /// The zone, and what is in use. Its caches are empty then; nothing else has changed.
    #[expect(
        clippy::result_large_err,
        reason = "it is the zone itself, which its owner wants back"
    )]
    pub fn try_destroy(self) -> Result<(), Busy<Self>> {
        let Some(core) = self.made() else { return Ok(()) };
        let registry = self.platform.registry();
        // SAFETY: `make` listed the node.
        unsafe { registry.close(&core.node, || self.platform.relax()) };
        core.reclaim(Reclaim::DrainCpu);
        match core.what_is_in_use() {
            None => Ok(()),
            Some(in_use) => {
                // SAFETY: it is listed, and the zone lives on.
                unsafe { registry.reopen(&core.node) };
                Err(Busy { zone: self, in_use })
            }
        }
    }

    /// Waits until no item of the zone is in use, or until the deadline, to
    /// [destroy](Self::try_destroy) it then. It is for those who know that nobody allocates any more: it
    /// looks again and again, at intervals that grow from 50 µs to 10 ms, and empties the zone's caches
    /// each time. On a platform that cannot sleep it looks once.
    ///
    /// # Errors
    ///
    /// What was in use at the last look.
    pub fn wait_unused(&self, until: Deadline) -> Result<(), InUse> {
        let Some(core) = self.made() else { return Ok(()) };
        let sleep = self.platform.sleep();
        let mut nap = FIRST_NAP;
        loop {
            core.reclaim(Reclaim::DrainCpu);
            let Some(in_use) = core.what_is_in_use() else { return Ok(()) };
            let now = sleep.now();
            if !P::Sleep::CAN_SLEEP || until.passed(now) {
                return Err(in_use);
            }
            sleep.sleep(until.min(Deadline::at(now.saturating_add(nap))));
            nap = (nap * 2).min(LONGEST_NAP);
        }
    }
}

impl<P: Platform, H: Hooks, O: Origin<P>> Core<P, H, O> {
    /// What is in use, after the caches were drained.
    fn what_is_in_use(&self) -> Option<InUse> {
        let items = self.in_use();
        let addresses = || self.own_slabs().map(Addresses::of::<P>);
        (items != 0).then(|| InUse { zone: *self.zone.name(), items, addresses: addresses() })
    }
}
