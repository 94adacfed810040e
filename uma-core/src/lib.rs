//! The narrow traits of a zone allocator, and the zone as a stack of adaptors over them.
//!
//! A *zone* hands out items of one layout. Where the items come from, whether they are kept
//! constructed, how many may exist, and which caches stand in front, are separate layers, and each
//! layer is an adaptor over one trait, [`ItemSource`], as iterators are over `Iterator`:
//!
//! ```text
//!   Zone< BucketCache< Limited< Constructed< Keg<Pages> > > > >
//!    |        |           |          |          |      |
//!    |        |           |          |          |      `- PageSupplier: runs of pages
//!    |        |           |          |          `- slabs          (crate uma-keg)
//!    |        |           |          `- init / fini, once per stay of an item
//!    |        |           `- at most N items, and callers that wait for one
//!    |        `- per-CPU buckets                                  (crate uma-cache)
//!    `- ctor / dtor, at every use
//! ```
//!
//! Leave a layer out and the rest still works; share the lower part by reference and two zones
//! stand on one keg. This crate holds the traits and the three layers that need nothing else. It
//! needs neither `std` nor `alloc`, knows no page supplier and no cache, and every constructor is a
//! `const fn`, so a whole stack can be a `static`.
//!
//! # The traits
//!
//! | trait | what it is | who implements it |
//! |---|---|---|
//! | [`PageSupplier`] | runs of pages | `uma-backend-mmap`, `uma-backend-static`, your kernel |
//! | [`Decommit`], [`Protect`], [`Regions`] | what some suppliers can do beside | those that can |
//! | [`ItemSource`] | items of one layout, in batches | kegs, caches, limits, zones, your own pool |
//! | [`Metadata`] | memory for the allocator's own bookkeeping | `uma-keg`, the test kit |
//! | [`Hooks`] | init, fini, ctor, dtor | the user of a zone |
//! | [`Sleep`] | how a caller waits at a limit | `uma` (threads), [`Spin`], [`NoSleep`] |
//!
//! # Suppliers of suppliers
//!
//! | adaptor of page suppliers | what it does |
//! |---|---|
//! | [`Counting`] | counts runs, bytes, failures, and the most there were |
//! | [`Quota`] | lets at most so much be out |
//! | [`Fallback`] | two suppliers, one after the other; each run goes back where it came from |
//! | [`Handover`] | boot memory first, and from one moment on another supplier |
//!
//! # The rule about locks
//!
//! No hook, supplier call or wake-up ever runs while a lock of this family is held. Lock order, for
//! the whole family: cache slot, then nothing; depot, then nothing; keg, then nothing; limit queue,
//! then nothing. Each lock is a leaf, but while the process is being copied ([`ItemSource::prefork`]),
//! when all are held at once.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
extern crate std;

mod constructed;
mod counting;
mod error;
mod fallback;
mod foreign;
mod gate;
mod group;
mod handover;
mod hooks;
mod item;
mod limit;
mod metadata;
mod name;
mod page;
mod power;
mod queue;
mod quota;
mod reclaim;
mod request;
mod shared;
mod sleep;
mod source;
mod stats;
mod sync;
mod zone;

pub use constructed::Constructed;
pub use counting::{Counting, PageCounts};
pub use error::{AllocError, ConfigError, ConfigFault, PageError, Refused};
pub use fallback::Fallback;
pub use foreign::FnSource;
pub use group::{GroupPlace, Grouped, LimitGroup};
pub use handover::{Handover, HandoverError};
pub use hooks::{FnHooks, Hooks, NoHooks};
pub use item::Item;
pub use limit::{LimitPlace, Limited};
pub use metadata::Metadata;
pub use name::Name;
pub use page::{PageRun, PageSupplier};
pub use power::{Decommit, Protect, Region, Regions};
pub use quota::Quota;
pub use reclaim::Reclaim;
pub use request::{Deadline, Request};
pub use shared::{Share, Shared};
pub use sleep::{NoSleep, Sleep, Spin};
pub use source::{ItemSource, Process};
pub use stats::Stats;
pub use zone::Zone;

/// The lock trait of the family: [`lock_api`] 0.4, as `spin` and `parking_lot` 0.12 implement it.
pub use lock_api::RawMutex;
