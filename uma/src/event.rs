//! What zones tell a `tracing` subscriber, with the feature `tracing`; nothing without it.
//!
//! Events come from slow paths only, never from a hit, and never under a lock: a subscriber may use zones, that of
//! the event too. If it panics nothing is lost. Their target is `uma`, and each has the field `zone`.

use uma_core::{AllocError, Name, Reclaim};

/// A zone came into being.
pub(crate) fn made(zone: &Name, size: usize, align: usize, slab: usize, per_slab: usize) {
    #[cfg(feature = "tracing")]
    tracing::debug!(target: "uma", %zone, size, align, slab, per_slab, "zone made");
    let _ = (zone, size, align, slab, per_slab);
}

/// A zone was destroyed, with so many items in use.
pub(crate) fn destroyed(zone: &Name, leaked: u64) {
    #[cfg(feature = "tracing")]
    if leaked == 0 {
        tracing::debug!(target: "uma", %zone, "zone destroyed");
    } else {
        tracing::error!(target: "uma", %zone, leaked, "zone destroyed with items in use");
    }
    let _ = (zone, leaked);
}

/// A zone took so many slabs of `bytes` each, since it was last said.
#[cfg(feature = "tracing")]
pub(crate) fn grown(zone: &Name, slabs: u64, bytes: usize) {
    tracing::debug!(target: "uma", %zone, slabs, bytes, "slabs made");
}

/// An allocation failed; if at the limit of a group, at that of `group`.
pub(crate) fn failed(zone: &Name, reason: AllocError, group: Option<&Name>) {
    #[cfg(feature = "tracing")]
    {
        let group = group.map(tracing::field::display);
        tracing::warn!(target: "uma", %zone, %reason, group, "no item");
    }
    let _ = (zone, reason, group);
}

/// Whether anybody listens to what is said of limits, which has its price.
pub(crate) fn is_heard() -> bool {
    #[cfg(feature = "tracing")]
    return tracing::enabled!(target: "uma", tracing::Level::WARN);
    #[cfg(not(feature = "tracing"))]
    false
}

/// An allocation that waits found a limit reached; if that of a group, that of `group`.
pub(crate) fn reached(zone: &Name, reason: AllocError, group: Option<&Name>) {
    #[cfg(feature = "tracing")]
    {
        let group = group.map(tracing::field::display);
        tracing::warn!(target: "uma", %zone, %reason, group, "waiting for an item");
    }
    let _ = (zone, reason, group);
}

/// A zone warns that its limit was reached.
pub(crate) fn warned(zone: &Name, warning: &str) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "uma", %zone, warning, "zone at its limit");
    let _ = (zone, warning);
}

/// A zone was made to give memory back.
pub(crate) fn reclaimed(zone: &Name, mode: Reclaim) {
    #[cfg(feature = "tracing")]
    tracing::debug!(target: "uma", %zone, ?mode, "zone reclaimed");
    let _ = (zone, mode);
}
