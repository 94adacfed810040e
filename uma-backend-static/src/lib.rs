//! Page supplier of the uma zone allocator over memory that is given to it: boot memory.
//!
//! [`StaticPages`] hands out runs of pages from one region, a `static` array ([`StaticMemory`]) or
//! any range of addresses that nobody else uses. It needs neither `std` nor `alloc` and calls nobody,
//! so it works before anything else does, and every constructor is a `const fn`, so a whole zone
//! stack can be a `static`.
//!
//! # Layout of the region
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
//! # Invariants
//!
//! - A bit is set if and only if its page is free. Pages before the hint `first` are all in use.
//! - Pages from `fresh` on were never handed out.
//! - The claim word is touched by one atomic exchange for each supplier, the rest only under the
//!   lock.
//!
//! # Locks
//!
//! One lock, a leaf. Under it runs a search of the bitmap: linear in the pages of the region in the
//! worst case, 64 pages to a step where a whole word is in use. Nothing is called under it.
//!
//! It never asks for more memory, never writes to a page, and never gives the region back.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
extern crate std;

mod free;
mod pages;
mod region;
mod stats;
mod sync;

pub use pages::StaticPages;
pub use region::StaticMemory;
pub use stats::StaticStats;
