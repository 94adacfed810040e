//! How much memory the process has.

use std::fs;

use uma::core::PageSupplier;
use uma::{Host, Platform};

/// Resident bytes, if the system tells.
///
/// From `/proc/self/smaps_rollup`, which is exact, or else from `/proc/self/statm`, which newer Linux
/// may report up to some pages per CPU too low or too high.
pub(crate) fn resident() -> Option<u64> {
    from_rollup().or_else(from_statm)
}

fn from_rollup() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

fn from_statm() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * Host.pages().page_size() as u64)
}
