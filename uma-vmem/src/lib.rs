//! Resource arenas: vmem of Solaris and NetBSD.
//!
//! An [`Arena`] allocates ranges of integers, and does not care of what: address space, device
//! addresses, block numbers, process identifiers. Its bookkeeping lies elsewhere, so nothing of what it
//! manages is ever touched.
//!
//! ```text
//!   QuantumSource    segments of one size as items, for caches to stand on
//!        |
//!      Arena         allocated and free segments
//!        |  imports spans, gives them back when they are free
//!      Arena         the parent, or anything else that is an `Import`
//! ```
//!
//! - [`alloc`](Arena::alloc) and [`free`](Arena::free) take the same time with ten segments and with a
//!   million: free ones are in lists by powers of two, allocated ones in a table that grows a step at a
//!   time. Four [policies](Policy) say which free segment is taken.
//! - [`xalloc`](Arena::xalloc) takes [`Constraints`]: alignment, phase, a boundary not to cross, bounds.
//! - Where the originals panic, here is a [`VmemError`], which names the arena and what was wrong.
//! - Callers may wait for room, with a deadline.
//!
//! The bookkeeping needs memory, which comes from [`Metadata`](uma_core::Metadata), in advance and without
//! a lock held: an operation that has begun does not fail for want of it, and never comes back to an
//! arena that is locked. The supplier of metadata must not itself stand on the arena, as in the
//! originals the arena for tags has no quantum caches.
//!
//! How it differs from its models is in `docs/vmem.md`. The crate needs neither `std` nor `alloc`.
//!
//! # Lock order
//!
//! Each arena has one lock, a leaf. The parent, metadata, wake-ups and callbacks of walks run without it.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod arena;
mod config;
mod cursor;
mod error;
mod fit;
mod free;
mod import;
mod quantum;
mod segments;
mod spans;
mod stats;
mod supply;
mod sync;
mod table;
mod tag;
mod wait;
mod walk;

pub use arena::Arena;
pub use config::ArenaConfig;
pub use error::{Leaked, VmemError, VmemFault};
pub use fit::{Constraints, Policy};
pub use import::{Import, NoParent, Span};
pub use quantum::QuantumSource;
pub use stats::ArenaStats;
pub use walk::{Segment, SegmentKind};
