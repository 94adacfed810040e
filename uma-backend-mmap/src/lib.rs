//! Page supplier of the uma zone allocator over mmap.
//!
//! [`MmapPages`] reserves address space in large chunks, which cost nothing until they are written
//! to, and carves page runs of any power-of-two alignment out of them. Runs given back coalesce, and
//! are taken again by best fit, lowest address first, so that memory stays dense. What stays free
//! goes back to the system, in batches, and later than it was freed.
//!
//! # Layout
//!
//! ```text
//!  chunk: one mapping of 64 MiB or more
//!  +--------+-----------+----------+------------------------------------------------+
//!  |  run   |   dirty   |   run    |  dirty  |               clean                  |
//!  +--------+-----------+----------+---------+--------------------------------------+
//!           |-- span ---|          |--------------------- span ---------------------|
//! ```
//!
//! A *span* is as much free memory as there is in one piece. It may be *dirty* in parts: those that
//! were in a run since the system last gave them zeroed. A run that is carved out of clean memory is
//! known to be zero, and says so.
//!
//! Chunks double from 64 MiB up to 1 GiB; a request that fits no chunk gets one of its own. Spans
//! never reach across chunks, so a chunk can be unmapped whole.
//!
//! # Giving back
//!
//! Freed memory stays committed, since it is likely to be used again soon. When more than
//! [`Config::dirty_max`] bytes of it are free, the largest pieces are decommitted (`MADV_DONTNEED`)
//! until half of that is left, so a system call pays for many frees. [`MmapPages::trim`] gives
//! everything back and unmaps chunks that are wholly free, all but one. Decommitting is for Linux,
//! where such memory reads as zero afterwards; other systems get only whole chunks back.
//!
//! # Invariants
//!
//! - Every byte of a chunk is in one run, in one span, or on its way to be decommitted.
//! - Dirty ranges lie inside spans. What is clean reads as zero.
//! - A chunk is unmapped only when one span covers it, so no run and no decommit is under way in it.
//!
//! # Locks
//!
//! One lock, a leaf. No system call to map, unmap or advise is made under it: memory to be
//! decommitted is taken out of the spans under the lock, advised without it, and put back. Two
//! threads that both find nothing free may both map a chunk; the later one unmaps its own again if
//! it turns out not to need it. The bookkeeping under the lock does use the global allocator, so
//! this supplier cannot yet stand under one.
//!
//! It never hands out memory twice, never touches the contents of a run (except that
//! [`MmapPages::decommit`] zeroes where it is told to), and never unmaps what is in use: a supplier
//! that is dropped leaves the chunks that have live runs in place.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(unix))]
compile_error!("uma-backend-mmap is for Unix systems");

mod config;
mod free;
mod pages;
mod region;
mod stats;
mod sync;

pub use config::Config;
pub use pages::MmapPages;
pub use stats::MmapStats;
