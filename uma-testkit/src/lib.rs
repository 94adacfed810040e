//! Fakes, fault injection and conformance suites that prove the uma crates.
//!
//! | to test | use |
//! |---|---|
//! | your own page supplier | [`conformance::page_supplier`] and its companions |
//! | your own item source, or a stack of them | [`conformance::item_source`] and its companion |
//! | a layer that stands on a supplier | [`Fake`], with [`Budget`] or [`FailNth`] around it |
//! | a layer that needs bookkeeping memory | [`HeapMeta`] |
//! | a layer that calls hooks | [`hooks::CountingHooks`] |
//! | any stack of layers, by programs at random | [`ops::Program`] and [`run`] |
//! | what happens when threads meet or move, step by step | [`machine`] |
//! | the same with threads that are real | [`turns`] |
//! | what a fork leaves in the copy of a process | `in_a_copy` (Unix) |
//!
//! The suites are plain functions with plain assertions: call them from a `#[test]`.
//!
//! ```
//! let pages = uma_testkit::Fake::new();
//! uma_testkit::conformance::page_supplier(&pages);
//! assert_eq!(pages.outstanding().runs, 0);
//! ```
//!
//! The fakes panic when their *caller* breaks a contract: that is what they are for. They hold
//! locks only over their own books, never while they call the layer below.

pub mod conformance;
pub mod hooks;
pub mod machine;
pub mod model;
pub mod ops;
pub mod token;
pub mod turns;

mod caught;
#[cfg(unix)]
mod copy;
mod fail;
mod fake;
mod ledger;
mod meta;
mod pages;
mod pool;
mod rig;
mod rng;
mod stamping;
mod sync;

pub use caught::{Caught, caught};
#[cfg(unix)]
pub use copy::in_a_copy;
pub use fail::{FailNth, FailPlan};
pub use fake::Fake;
pub use ledger::Outstanding;
pub use meta::HeapMeta;
pub use pages::{PageCheck, PageMoment, PageRig, run_pages};
pub use pool::Pool;
pub use rig::{Moment, Rig, run};
pub use rng::Rng;
pub use stamping::StampingHooks;

/// A supplier that runs out: [`Quota`](uma_core::Quota), by the name that it has in tests.
pub use uma_core::Quota as Budget;
