//! Page supplier of the uma zone allocator over mmap.
//!
//! [`MmapPages`] reserves address space in large chunks, which cost nothing until they are written
//! to, and carves page runs of any power-of-two alignment out of them. Runs given back coalesce, and
//! the oldest chunk and the lowest address are taken again first, so that memory stays dense. What stays
//! free goes back to the system, in batches, and later than it was freed.
//!
//! With the feature `maps` there are also maps of address space, for whoever wants ranges of pages
//! wired, pageable or bare: the module `map`.
//!
//! # Layout
//!
//! ```text
//!  chunk: one mapping, for 128 MiB or more
//!  +-------------+------+--------+-----------+----------+----------+---------------------------+
//!  | bookkeeping | wall |  run   |   dirty   |   run    |  dirty   |            clean          |
//!  +-------------+------+--------+-----------+----------+----------+---------------------------+
//!                       `- the region, from a multiple of 2 MiB
//! ```
//!
//! Free memory is *dirty* if it was in a run since the system last gave it zeroed. A run that is carved
//! out of clean memory is known to be zero, and says so. The bookkeeping is two bits a page, with
//! summaries for blocks of 512 pages, which are huge pages; it lies in the chunk's own mapping, and the
//! directory of chunks in another. So nothing comes from the global allocator, and this crate can
//! stand under one (given a lock that does not allocate either). The page between bookkeeping and
//! region is inaccessible: who writes below the first run stops there.
//!
//! Chunks double from 128 MiB up to 1 GiB; a request that fits no chunk gets one of its own. Runs never
//! reach across chunks, so a chunk can be unmapped whole.
//!
//! # Giving back
//!
//! Freed memory stays committed, since it is likely to be used again soon. When more than
//! [`Config::dirty_max`] bytes of it are free, it is decommitted (`MADV_DONTNEED`) until half of that is
//! left: first blocks that are wholly free, neighbours by one call, from the youngest chunk and the
//! highest address; then larger pieces; then all others. So a system call pays for many frees, huge
//! pages are not torn while there are whole ones to give, and what would be used next stays.
//! [`MmapPages::maintain`], called now and then, decommits what nobody needed since the last call.
//! [`MmapPages::trim`] gives everything back and unmaps chunks that are wholly free, all but one. Where huge pages
//! were asked for, or the system gives them to everybody, who touched one page has 511 others, which were never in
//! a run: these go then too, if the system says (`mincore`, once for each block that was touched since the last
//! trim) that they are there.
//! Decommitting is for Linux, where such memory reads as zero afterwards; other systems get only whole
//! chunks back.
//!
//! # Mappings
//!
//! Decommitting splits no mapping. There are at most four for a chunk (the bookkeeping, the wall, the
//! region if huge pages are wanted there or not, and what is left over behind it), one for the directory, and
//! two for each piece that is [protected](uma_core::Protect). On Linux 6.13 and later without a
//! wish for huge pages it is one for a chunk, and neighbours count as one. There are at most
//! 4 chunks for the first GiB, one more for each further GiB, one for each request that fits none, and as many
//! again where the system had no room for a chunk of full size. [`MmapPages::guard`] costs no
//! mapping from Linux 6.13 on.
//!
//! # Refusals
//!
//! What the system refuses is counted in [`MmapStats`] and never fatal: memory that it does not take
//! back is dirty still, a chunk that it does not unmap is used again, a name or a wall is done without.
//! Only when it gives no address space, an allocation fails, with its error number.
//!
//! # Invariants
//!
//! - Every page of a chunk is in one run, free, or on its way to be decommitted.
//! - Dirty pages are free. What is free and not dirty reads as zero.
//! - A chunk is unmapped only when all its pages are free, so no run and no decommit is under way in it, and
//!   nobody is telling the system what it is.
//! - There is a place in the directory for every chunk that was taken out of it, or is being mapped.
//!
//! # Locks
//!
//! One lock, a leaf. No system call is made under it: memory to be decommitted is marked as taken under the
//! lock, advised without it, and put back, some pieces at a time; a fork waits until none is under way. Two threads that both find nothing
//! free may both map a chunk; the later one unmaps its own again if it turns out not to need it.
//! Under the lock are: a search of summaries, linear in chunks that are full and in groups of 32 MiB of
//! the others; for giving back, a search of all blocks with dirty pages, or that were touched.
//!
//! It never hands out memory twice, never touches the contents of a run (except that
//! [`MmapPages::decommit`] zeroes where it is told to), and never unmaps what is in use: a supplier
//! that is dropped leaves the chunks that have live runs in place.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(unix))]
compile_error!("uma-backend-mmap is for Unix systems");

mod config;
mod directory;
mod free;
mod grow;
mod huge;
#[cfg(feature = "maps")]
#[cfg_attr(docsrs, doc(cfg(feature = "maps")))]
pub mod map;
mod pages;
mod region;
mod state;
mod stats;
mod sync;
#[doc(hidden)]
pub mod sys;

pub use config::{Config, HugePages};
pub use pages::MmapPages;
pub use stats::MmapStats;
