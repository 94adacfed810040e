//! What every implementation of a trait must do, as functions that panic if it does not.
//!
//! Give them a fresh value of your own. They take what they need, leave nothing outstanding, and ask
//! for no more than about 32 MiB at once. Failures are reported by `assert!`, with the seed where
//! there is chance in it.

mod extents;
mod items;
mod pages;
mod powers;

pub use items::{item_source, item_source_threads};
pub use pages::{page_supplier, page_supplier_exhaustion, page_supplier_threads};
pub use powers::{decommit, protect, regions};

/// Threads in the suites that use them.
const THREADS: u64 = 4;
