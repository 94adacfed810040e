//! Figures for monitoring.

use core::fmt::{self, Write};

use uma_core::Stats;

use super::ZoneInfo;

/// Shows zones in the text format of Prometheus (version 0.0.4): a family for each figure, a sample for
/// each zone, told apart by the label `zone`. Zones of one name are told apart by a second label,
/// `nth`, since two samples of a family must differ in their labels.
///
/// ```text
/// # HELP uma_zone_used Items in use.
/// # TYPE uma_zone_used gauge
/// uma_zone_used{zone="node"} 812345
/// uma_zone_used{zone="node",nth="2"} 17
/// ```
///
/// It shows zones that were taken down before, since all samples of a family stand together: all families
/// are then of one moment.
#[derive(Clone, Copy, Debug)]
pub struct Prometheus<'a>(&'a [ZoneInfo]);

impl<'a> Prometheus<'a> {
    /// The figures of these zones.
    pub const fn new(zones: &'a [ZoneInfo]) -> Self {
        Self(zones)
    }
}

/// A family of samples.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    value: fn(&Stats) -> u64,
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Stats) -> u64) -> Family {
    Family { name, help, kind: "gauge", value }
}

const fn counter(name: &'static str, help: &'static str, value: fn(&Stats) -> u64) -> Family {
    Family { name, help, kind: "counter", value }
}

const FAMILIES: &[Family] = &[
    gauge("item_bytes", "Size of an item.", |s| s.size as u64),
    gauge("used", "Items in use.", Stats::used),
    gauge("free", "Free items held, in buckets and in slabs.", Stats::free),
    gauge("cached", "Free items held in buckets.", |s| s.cached),
    gauge("limit", "Most items that may exist, 0 for no limit.", |s| s.limit),
    gauge("sleepers", "Callers asleep at the limit.", |s| s.sleepers),
    gauge("slabs", "Slabs held.", |s| s.slabs),
    gauge("bytes", "Bytes of pages held.", |s| s.bytes),
    gauge("bucket_size", "Items that a bucket holds at most.", |s| u64::from(s.bucket_size)),
    counter("allocs_total", "Allocations that succeeded.", |s| s.allocs),
    counter("frees_total", "Items freed.", |s| s.frees),
    counter("fails_total", "Allocations that failed.", |s| s.fails),
    counter("sleeps_total", "Times a caller slept at the limit.", |s| s.sleeps),
];

impl fmt::Display for Prometheus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Family { name, help, kind, value } in FAMILIES {
            writeln!(f, "# HELP uma_zone_{name} {help}")?;
            writeln!(f, "# TYPE uma_zone_{name} {kind}")?;
            for (at, zone) in self.0.iter().enumerate() {
                write!(f, "uma_zone_{name}{{zone=\"")?;
                label(f, zone.name.as_str())?;
                f.write_char('"')?;
                let earlier = self.0[..at].iter().filter(|other| other.name == zone.name).count();
                if earlier > 0 {
                    write!(f, ",nth=\"{}\"", earlier + 1)?;
                }
                writeln!(f, "}} {}", value(&zone.stats))?;
            }
        }
        Ok(())
    }
}

/// The value of a label: backslashes, quotes and line feeds escaped.
fn label(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            _ => f.write_char(c)?,
        }
    }
    Ok(())
}
