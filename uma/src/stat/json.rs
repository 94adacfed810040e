//! Everything as JSON.

use core::fmt::{self, Write};

use uma_core::Stats;

use super::{ZoneInfo, Zones};

/// Shows zones as a JSON array of objects, one a line, with every figure of [`Stats`] under its own name
/// and the sums that [`Stats`] computes (`used`, `free`, `efficiency`), the names of the zone's flags, and the
/// zone on whose slabs it stands if that is another.
///
/// ```text
/// [
/// {"name":"node","size":48,"align":8,"limit":0,"used":812345,"free":1203, ...}
/// ]
/// ```
#[derive(Debug)]
pub struct Json<'a, Z: ?Sized>(pub(super) &'a Z);

impl<'a, Z: Zones + ?Sized> Json<'a, Z> {
    /// These zones as JSON.
    pub const fn new(zones: &'a Z) -> Self {
        Self(zones)
    }
}

impl<Z: Zones + ?Sized> fmt::Display for Json<'_, Z> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        let mut between = "\n";
        self.0.try_each(&mut |zone| {
            f.write_str(core::mem::replace(&mut between, ",\n"))?;
            object(f, zone)
        })?;
        f.write_str("\n]")
    }
}

fn object(f: &mut fmt::Formatter<'_>, info: &ZoneInfo) -> fmt::Result {
    let ZoneInfo { name, stats, flags, primary } = info;
    f.write_str("{\"name\":")?;
    string(f, name.as_str())?;
    for (key, value) in numbers(stats) {
        write!(f, ",\"{key}\":{value}")?;
    }
    f.write_str(",\"mode\":")?;
    string(f, stats.mode)?;
    // By name, as `vm.uma.<zone>.flags` has them.
    write!(f, ",\"flags\":\"{flags}\"")?;
    if let Some(primary) = primary {
        f.write_str(",\"primary\":")?;
        string(f, primary.as_str())?;
    }
    f.write_str("}")
}

fn numbers(stats: &Stats) -> [(&'static str, u64); 21] {
    [
        ("size", stats.size as u64),
        ("align", stats.align as u64),
        ("limit", stats.limit),
        ("used", stats.used()),
        ("free", stats.free()),
        ("allocs", stats.allocs),
        ("frees", stats.frees),
        ("fails", stats.fails),
        ("sleeps", stats.sleeps),
        ("sleepers", stats.sleepers),
        ("cached", stats.cached),
        ("keg_free", stats.keg_free),
        ("reserve", stats.reserve),
        ("stride", stats.stride as u64),
        ("slab_bytes", stats.slab_bytes as u64),
        ("per_slab", u64::from(stats.per_slab)),
        ("slabs", stats.slabs),
        ("bytes", stats.bytes),
        ("efficiency", u64::from(stats.efficiency())),
        ("bucket_size", u64::from(stats.bucket_size)),
        ("slots", u64::from(stats.slots)),
    ]
}

/// A JSON string: quotes, backslashes and control characters escaped (RFC 8259, section 7).
fn string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\0'..='\u{1f}' => write!(f, "\\u{:04x}", u32::from(c))?,
            _ => f.write_char(c)?,
        }
    }
    f.write_char('"')
}
