//! All zones of the process.

use std::collections::TryReserveError;
use std::fmt;
use std::vec::Vec;

use uma_cache::PerCpu;
use uma_core::Reclaim;

#[cfg(doc)]
use crate::Registry;
use crate::stat::stream::StreamError;
use crate::stat::{Json, Prometheus, Table, ZoneInfo};
use crate::{Host, Platform};

/// All zones of the process, in the order in which they were first used.
pub fn zones() -> Vec<ZoneInfo> {
    let mut zones = Vec::new();
    Host.registry().visit(&mut |zone| zones.push(ZoneInfo::of(zone)));
    zones
}

/// The figures of all zones, to print as the table of `vmstat -z` (see [`Table`](crate::Table)).
#[derive(Clone, Debug)]
pub struct Stat {
    zones: Vec<ZoneInfo>,
}

impl Stat {
    /// The zones in the table.
    pub fn zones(&self) -> &[ZoneInfo] {
        &self.zones
    }

    /// The same as JSON, for `Display`.
    pub fn json(&self) -> Json<'_, [ZoneInfo]> {
        Json::new(&self.zones)
    }

    /// The same in the text format of Prometheus, for `Display`.
    ///
    /// ```
    /// # let buffers = uma::Zone::<[u8; 256]>::builder("buffer").build()?;
    /// # let one = buffers.alloc([0; 256]);
    /// let page = uma::stat().prometheus().to_string();
    /// assert!(page.contains("uma_zone_used{zone=\"buffer\"} 1"));
    /// # Ok::<(), uma::core::ConfigError>(())
    /// ```
    pub fn prometheus(&self) -> Prometheus<'_> {
        Prometheus::new(&self.zones)
    }
}

/// [`stat`], for those who must not fail for want of memory to take the figures down in.
///
/// # Errors
///
/// If there is none.
pub fn try_stat() -> Result<Stat, TryReserveError> {
    let mut zones = Vec::new();
    let mut result = Ok(());
    Host.registry().visit(&mut |zone| {
        result = result.clone().and_then(|()| zones.try_reserve(1));
        if result.is_ok() {
            zones.push(ZoneInfo::of(zone));
        }
    });
    result.map(|()| Stat { zones })
}

/// Takes down the figures of all zones of the process.
///
/// ```
/// let buffers = uma::Zone::<[u8; 256]>::builder("buffer").build()?;
/// let one = buffers.alloc([0; 256]);
/// println!("{}", uma::stat());
/// # assert!(uma::stat().to_string().contains("buffer "));
/// # drop(one); Ok::<(), uma::core::ConfigError>(())
/// ```
pub fn stat() -> Stat {
    Stat { zones: zones() }
}

impl fmt::Display for Stat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Table::new(&*self.zones).fmt(f)?;
        writeln!(f, "per-CPU slots: {} by {}", Host.cpus().cpus(), Host.cpus().mode())
    }
}

/// Takes down the figures of all zones of the process in the binary form of FreeBSD's `vm.zone_stats` (see
/// [`stream`](crate::stream)).
pub fn stat_stream() -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        match Host.registry().stream(&mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                return bytes;
            }
            Err(StreamError::Short { needed }) => bytes.resize(needed + needed / 4, 0),
            Err(_) => unreachable!("writing has no other error"),
        }
    }
}

/// Makes every zone of the process give memory back (`uma_reclaim`, see [`Registry::reclaim`] for those that
/// have asked to be spared), then gives the pages that they
/// freed back to the system.
///
/// It runs the fini hooks of cached objects, on this thread, without any lock. Do not call it from a hook,
/// and do not destroy a zone in a hook of an object that lies in it: dropping a zone waits until nobody
/// looks at it any more, and would wait for this call.
pub fn reclaim(mode: Reclaim) {
    Host.registry().reclaim(mode);
    Host::trim();
}
