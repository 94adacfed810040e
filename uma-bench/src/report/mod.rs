//! What is made of the results: tables for people, JSON for programs, plots.

pub(crate) mod json;
pub(crate) mod plot;
pub(crate) mod table;

use crate::work::Row;

/// What a row is called: the workload, what it has so and so many of, and the threads.
pub(crate) fn title(row: &Row) -> String {
    let Row { workload, size, threads, .. } = row;
    let of = match size {
        _ if workload.contains("segments") => "segments",
        1 => "zone",
        _ if workload.contains("zones") => "zones",
        _ => "bytes",
    };
    let threads = if *threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    format!("{workload}, {size} {of}, {threads}")
}
