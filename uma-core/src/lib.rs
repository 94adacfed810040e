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
//! stand on one keg. This crate holds the traits and the layers that need nothing else. It
//! needs neither `std` nor `alloc`, knows no page supplier and no cache, and every constructor is a
//! `const fn`, so a whole stack can be a `static` (`uma/examples/kernel.rs` of the repository has one).
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
//! # The layers
//!
//! | adaptor of sources | what it does |
//! |---|---|
//! | [`Zone`] | a name; ctor and dtor at every use |
//! | [`Constructed`] | init and fini, once per stay |
//! | [`Limited`] | at most N items, and callers that wait |
//! | [`Grouped`] | counts in a [`LimitGroup`]: a limit in bytes over several sources |
//! | [`Shared`] | one source under several stacks |
//! | [`FnSource`] | no adaptor, but a source: two functions |
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
//! No hook, supplier call or wake-up ever runs while a lock of this family is held. The locks are those of
//! CPU slots, depots, kegs, queues at limits and lists of members, and each is a leaf: while it is held no other is
//! taken. There are two exceptions. A cache that takes buckets out of slots holds a lock of its own meanwhile,
//! under which it takes those of slots and of the depot, one at a time. And while the process is being copied
//! ([`ItemSource::prefork`]) all are held at once, taken from the top of a stack down.
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
