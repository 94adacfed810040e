//! The end of a raw zone, and what is said if items are still in use.

use core::alloc::Layout;
use core::ptr::NonNull;

use uma_core::{Hooks, Metadata, Reclaim};

use super::build::Config;
use super::{Core, RawZone, Slabs};
use crate::{Platform, event};

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> Drop for RawZone<P, H> {
    fn drop(&mut self) {
        let Some(core) = NonNull::new(*self.core.get_mut()) else { return };
        // SAFETY: `make` put it there, and only `Ending` ends its life.
        let made = unsafe { core.as_ref() };
        // SAFETY: `make` listed the node.
        unsafe { self.platform.registry().remove(&made.node, || self.platform.relax()) };
        let _ending = Ending { zone: self, core };
        // The user's hooks may panic here, for every item that was cached.
        made.zone.reclaim(Reclaim::DrainCpu);
    }
}

/// The end of a zone that is off the registry and has given back what it could.
struct Ending<'a, P: Platform, H: Hooks + Clone + Send + Sync + 'static> {
    zone: &'a RawZone<P, H>,
    core: NonNull<Core<P, H>>,
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static> Drop for Ending<'_, P, H> {
    fn drop(&mut self) {
        let platform = &self.zone.platform;
        // SAFETY: the zone is being dropped, so we have its pinned part to ourselves.
        let keg = unsafe { self.core.as_ref() }.zone.source().source().source().source();
        event::destroyed(&self.zone.config.name, keg.live());
        if keg.live() != 0 {
            report_leak(platform, &self.zone.config, keg);
            return;
        }
        // SAFETY: no item is out, so nothing uses it any more. Its memory came from `alloc_meta` with
        // this layout.
        unsafe {
            self.core.drop_in_place();
            platform.metadata().free_meta(self.core.cast(), Layout::new::<Core<P, H>>());
        }
    }
}

/// Says how many items were still in use when the zone went, and where the first of them are.
#[cold]
fn report_leak<P: Platform>(platform: &P, config: &Config, keg: &Slabs<P>) {
    struct Addresses([usize; 8], usize);

    impl core::fmt::Display for Addresses {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            for (at, address) in self.0.iter().take(self.1).enumerate() {
                write!(f, "{}{address:#x}", if at == 0 { "" } else { ", " })?;
            }
            if self.1 > self.0.len() { f.write_str(", ...") } else { Ok(()) }
        }
    }

    let mut addresses = Addresses([0; 8], 0);
    keg.for_each_live(|item| {
        if let Some(place) = addresses.0.get_mut(addresses.1) {
            *place = item.addr();
        }
        addresses.1 += 1;
    });
    platform.report(format_args!(
        "zone \"{}\" was destroyed with {} items in use, whose memory stays: {addresses}",
        config.name, addresses.1
    ));
}
