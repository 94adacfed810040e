//! A zone allocator for Rust: the slab allocators of the Unix kernels, in user space and without `std`.
//!
//! A *zone* hands out items of one size. It keeps free ones in per-CPU buckets, so that most
//! allocations and frees are a few instructions on memory of the CPU they run on; it can keep them
//! *constructed*, so that what is costly to set up is set up once; it can bound how many there are,
//! and make callers wait; it knows exactly how many are in use; and it gives memory back.
//!
//! ```
//! use uma::{ObjectCache, Zone};
//!
//! struct Node { key: u64, left: Option<u32>, right: Option<u32> }
//!
//! static NODES: Zone<Node> = Zone::new("node");
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = NODES.alloc(Node { key: 1, left: None, right: None })?;   // a box, in the zone
//! assert_eq!(node.key, 1);
//! drop(node);                                                          // back to the zone
//!
//! let parsers = ObjectCache::<Vec<u8>>::builder("parser")
//!     .init(|| Vec::with_capacity(1 << 16))                            // once
//!     .dtor(|buffer| buffer.clear())                                   // after every use
//!     .bucket(4)                                                       // made four at a time
//!     .max_items(64)
//!     .build()?;
//! let mut buffer = parsers.get()?;                                     // waits if 64 are in use
//! buffer.push(7);
//!
//! println!("{}", uma::stat());                                         // the table of vmstat -z
//! uma::reclaim(uma::Reclaim::Drain);                                   // give memory back
//! # Ok(()) }
//! ```
//!
//! # Which face
//!
//! | you want | use |
//! |---|---|
//! | a `Box` from a zone | [`Zone`], [`ZoneBox`] |
//! | objects that stay constructed | [`ObjectCache`], [`Cached`] |
//! | a runtime layout, hooks, pointers | [`RawZone`], with [`ZoneFlags`] |
//! | several zones on the same slabs | [`RawZone::secondary`] |
//! | caches and limits for a pool of your own | [`CacheZone`] |
//! | a limit in bytes over several zones | `ZoneGroup`, [`GroupIn`] |
//! | pages from elsewhere for some zones (a pool, functions of your own) | [`WithPages`], [`FnPages`] |
//! | your own surroundings (a kernel, a test) | [`Platform`] |
//! | your own stack of layers | the crates [`core`], [`keg`], [`cache`] |
//!
//! Whole programs are in the repository: `uma/examples/server.rs` with a test in which memory runs out,
//! `uma/examples/kernel.rs` with a platform and a stack of its own, and `uma/examples/wordindex`.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `std` (default) | the platform [`Host`], [`stat`], [`reclaim`]. Without it the crate is `no_std`, needs no allocator, and zones name their [`Platform`] |
//! | `hashbrown` (with `std`) | slabs with headers outside, for items that fill pages exactly, and for tiers that want them there |
//! | `async` | waiting at a limit as a task (`Zone::alloc_async` and its like), with any executor |
//! | `tracing` | events of zones made, destroyed (with items in use, as an error), reclaimed, of slabs made, of limits that they warn of or that an allocation waits at, and of allocations that failed; never from a hit, never under a lock |
//! | `backtrace` | reports of misuse and lists of leaks name the functions that allocated and freed an item |
//! | `asan` | AddressSanitizer learns which items are free, in a program that is built with it |
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(test, feature = "std"))]
extern crate std;

#[cfg(feature = "std")]
mod access;
mod batch;
mod error;
mod event;
mod flags;
mod fn_pages;
#[cfg(all(feature = "std", unix))]
mod fork;
#[cfg(feature = "std")]
mod global;
#[cfg(feature = "std")]
mod hardening;
#[cfg(feature = "std")]
mod host;
#[cfg(feature = "std")]
mod huge;
#[cfg(feature = "std")]
mod lock;
#[cfg(feature = "std")]
mod maintain;
mod object;
mod platform;
mod raw;
#[cfg(doctest)]
mod refused;
mod registry;
mod source;
mod stat;
mod sync;
#[cfg(not(feature = "std"))]
mod unset;
mod with_pages;
mod zone;

pub use uma_cache as cache;
pub use uma_core as core;
pub use uma_debug as debug;
pub use uma_keg as keg;

#[cfg(feature = "std")]
pub use uma_backend_mmap as mmap;

#[cfg(feature = "std")]
pub use access::{HostAccess, HostCpus};
pub use batch::{Prefilled, Reserved};
pub use error::{Rejected, ZoneError};
pub use flags::{ZoneFlags, align_of_mask};
pub use fn_pages::{AllocPages, FnPages, FreePages};
#[cfg(all(feature = "std", unix))]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
pub use fork::ForkLocks;
#[cfg(feature = "std")]
pub use global::{Stat, reclaim, stat, stat_stream, try_stat, zones};
#[cfg(feature = "std")]
pub use host::{Host, Park};
#[cfg(feature = "std")]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
pub use huge::set_huge_pages;
#[cfg(feature = "std")]
pub use lock::HostLock;
#[cfg(feature = "std")]
pub use maintain::{Maintenance, maintain};
pub use object::{Cached, FnObject, ObjectCache, ObjectCacheBuilder, ObjectHooks};
pub use platform::Platform;
#[cfg(feature = "std")]
pub use raw::ZoneGroup;
pub use raw::{
    AtLimit, Busy, CacheZone, Foreign, GroupIn, Hold, InUse, Origin, Over, OwnSlabs, PaddedSlabs,
    Primary, RawZone, RawZoneBuilder, SecondaryZone, Slabs, Stack, Supply, Wishes, ZoneWitness,
    set_zone_warnings,
};
pub use registry::{Registry, ZoneRef};
pub use stat::{Json, Prometheus, Table, ZoneInfo, Zones, stream};
pub use uma_core::{
    AllocError, ConfigError, Deadline, Item, Name, Reclaim, Refused, Request, Stats,
};
pub use uma_debug::Hardening;
#[cfg(not(feature = "std"))]
pub use unset::{NoLock, Unset};
pub use with_pages::WithPages;
pub use zone::{Zone, ZoneBox, ZoneBuilder};

/// The platform of zones that name none.
#[cfg(feature = "std")]
pub type DefaultPlatform = Host;
/// The platform of zones that name none: none.
#[cfg(not(feature = "std"))]
pub type DefaultPlatform = Unset;
