//! Page supplier of the uma zone allocator over memory that is given to it: boot memory.
//!
//! [`StaticPages`] hands out runs of pages from regions: `static` arrays ([`StaticMemory`]) or any
//! ranges of addresses that nobody else uses, as many as the firmware found. It needs neither `std` nor `alloc` and calls nobody,
//! so it works before anything else does, and every constructor is a `const fn`, so a whole zone
//! stack can be a `static`.
//!
//! # Layout of a region
//!
//! ```text
//!  base                                                                    base + len
//!   |  pad  | claim | bitmap ... |  pad  | page 0 | page 1 | ... | page n-1 | tail |
//!           `- 8-byte aligned            `- a multiple of PAGE
//! ```
//!
//! The bookkeeping is one bit per page at the head of the region: 32 bytes for a MiB of 4 KiB pages,
//! one page for 128 MiB. A list threaded through the free pages would cost nothing, but a bitmap
//! leaves free pages untouched: pages that were never handed out stay as the loader left them, a
//! write to a page after it was freed cannot break the supplier, and neighbours coalesce by
//! themselves. If `base` is not page-aligned the bitmap uses up the slack. `claim` is one word, used
//! where two suppliers could be made over the same [`StaticMemory`]: the first to be used has it.
//!
//! A region that is added later has a book of about a hundred bytes between claim and bitmap: where it
//! is, its counters, and the next one. The first region's book is in the [`StaticPages`] itself. Runs
//! never reach from one region into the next, also where they are neighbours.
//!
//! # After boot
//!
//! `uma_startup` runs on boot memory, and `uma_startup2` says that there is another supplier now. Here
//! that is [`Handover`](uma_core::Handover) over a [`StaticPages`]: zones stay as they are, their next
//! slabs come from the later supplier, and boot slabs go back to their region whenever they are freed.
//! To use boot memory up first, and always, is [`Fallback`](uma_core::Fallback).
//!
//! # Invariants
//!
//! - A bit is set if and only if its page is free. Pages before the hint `first` are all in use.
//! - Pages from `fresh` on were never handed out.
//! - The claim word is touched by one atomic exchange for each supplier, bitmaps and counters only
//!   under the lock. Books are appended and never taken away, so where regions are can be read without.
//!
//! # Locks
//!
//! One lock, a leaf. Under it runs a search of the bitmaps: linear in the pages of the regions in the
//! worst case, 64 pages to a step where a whole word is in use, and one step for a region without so
//! many free pages. Nothing is called under it.
//!
//! It never asks for more memory, never writes to a page, and never gives a region back.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
extern crate std;

mod error;
mod free;
mod pages;
mod part;
mod region;
mod stats;
mod sync;

pub use error::AddError;
pub use pages::StaticPages;
pub use region::StaticMemory;
pub use stats::StaticStats;
