//! General-purpose allocation on the uma zone allocator: what `kmem_alloc`, `umem_alloc`, `kmalloc`,
//! malloc(9) and a malloc have in common.
//!
//! A [`Malloc`] has a zone for each of its size classes, and takes larger memory straight from the page
//! supplier. Memory is freed by its pointer alone, on any thread; a pointer that is none of its own, leads
//! into the middle of an allocation, or is free already gets a report that says what and where.
//!
//! ```text
//!            alloc(size)                          free(pointer)
//!                 |                                     |
//!            SizeClasses                            page map: a byte for each 4 KiB
//!                 |                                     |        ^ entered when a class takes
//!        +--------+--------+---- ...                    |        | a slab, or a run is large
//!        v        v        v         larger             v        |
//!     zone 16  zone 32  zone 48        |          zone of the class, or the run
//!        |        |        |           |
//!        +--------+--------+-----------+-------> pages of the platform
//! ```
//!
//! # What it promises
//!
//! - *Several instances.* Each is a `static` or a value, on a platform, with a table of classes of its own
//!   ([`SizeClasses`]): the ones of the systems named above are here.
//! - *A hit takes no lock* and touches nothing that other CPUs write: the class's bucket of this CPU, and
//!   the map, which changes when slabs come and go. This crate has no locks at all.
//! - *Bounded waste*: with [`SizeClasses::GENERAL`], at most 20 % of an item above 64 bytes.
//! - *Bad sizes change nothing.* What cannot be, or cannot be had, is an error with the size in it.
//! - *Statistics*: each class is a zone in the registry; [`Malloc::stats`] has the sums,
//!   [`MallocType`] who uses what.
//!
//! It never allocates from itself: its own bookkeeping is in the platform's
//! [`Metadata`](uma::core::Metadata).
//!
//! # Features
//!
//! `std` (default): instances that name no platform stand on `uma::Host`. Without it the crate is `no_std`.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
extern crate std;

mod classes;
mod error;
mod free;
mod malloc;
mod map;
mod pinned;
mod realloc;
mod stats;
mod supply;
mod sync;
mod tables;
mod types;

pub use classes::{Alignment, MAX_CLASS_SIZE, MAX_CLASSES, SizeClasses, TableFault};
pub use error::{Fault, MallocError, MallocFault, Misuse};
pub use malloc::Malloc;
pub use stats::MallocStats;
pub use types::{MallocType, TypeLeak, TypeStats};
pub use uma::core::{Reclaim, Request};
