//! Kegs of the uma zone allocator: items cut from slabs of pages.
//!
//! A *keg* holds the memory of one or more zones: items of one layout, cut from *slabs*, which are runs
//! of pages from a [`PageSupplier`](uma_core::PageSupplier). It is the lowest
//! [`ItemSource`](uma_core::ItemSource) of a stack: it has one lock and no cache, and is meant to be
//! asked for items in batches by the cache above.
//!
//! ```text
//!        import: many bits per lock          release: sets bits, sorts slabs
//!                  ^                                   |
//!   +--------------|-----------------------------------v---------------+
//!   |  full slabs  |  partly used, in 16 bins by how full  |  free     |   Keg, one lock
//!   +----------------------------|---------------------------------^---+
//!                 drain: pages   |                         grow |  | reclaim    (no lock held)
//!                 of free items  v                              v  |
//!                             Decommit                     PageSupplier
//! ```
//!
//! # What it promises
//!
//! - *No word of a free item is touched.* Which items are free is said by a bitmap in the slab's
//!   header, so whatever an item held when it was freed it still holds when it is allocated again,
//!   unless memory was reclaimed in between.
//! - *Little waste.* [`SlabLayout`] chooses slabs that waste under 2 % wherever one of at most 64 KiB
//!   can, and says how much it is. Small kegs hold small slabs.
//! - *Slabs drain.* Items come from the fullest slab that has any; and what is free in a slab that
//!   still has items in use goes back too, page by page, when the keg is drained, if the supplier
//!   [can take it](uma_core::PageSupplier::decommits).
//! - *Nothing under the lock* but list and bit operations: no supplier, no metadata, no closure.
//! - *Misuse is found*: see [`Keg`].
//!
//! It never waits for items, never gives pages back by itself (that is
//! [`reclaim`](uma_core::ItemSource::reclaim)), and never allocates from a zone.
//!
//! # Features
//!
//! None is on by default; the crate needs neither `std` nor `alloc`.
//!
//! - `hashbrown`: headers may lie outside their slabs, found by a hash table. That serves items of
//!   a page or more with less waste, and items that may not be touched. The table's memory comes from
//!   [`Metadata`](uma_core::Metadata); the crate `hashbrown` links `alloc`, so a program without `std`
//!   must name some global allocator, which is not used.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
extern crate std;

mod divide;
mod keg;
mod layout;
mod lists;
#[cfg(feature = "hashbrown")]
mod map;
#[cfg(not(feature = "hashbrown"))]
#[path = "no_map.rs"]
mod map;
mod meta;
mod misuse;
mod no_metadata;
mod secret;
mod slab;
mod state;
mod supply;
mod sync;
mod walk;

pub use keg::{Keg, Leak};
pub use layout::{HeaderPlace, MAX_ITEM_ALIGN, MAX_ITEM_SIZE, SlabConfig, SlabLayout};
pub use meta::MetaKegs;
pub use no_metadata::NoMetadata;
