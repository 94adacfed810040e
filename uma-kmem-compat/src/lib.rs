//! The allocator interfaces of old kernels, and libumem's, in Rust and in C, over the zones of `uma`.
//!
//! | module | interface | headers |
//! |---|---|---|
//! | [`solaris`] | `kmem_cache_*`, `kmem_alloc` of Solaris and illumos | `uma/solaris/` |
//! | [`umem`] | libumem | `uma/umem/` |
//! | [`linux`] | `kmem_cache_*`, `kmalloc`, `mempool_*` of Linux | `uma/linux/` |
//! | [`netbsd`] | `pool`, `pool_cache`, `kmem`, `vmem`, `uvm_km` of NetBSD | `uma/netbsd/` |
//! | [`freebsd`] | `uma_*` of FreeBSD | `uma/freebsd/` |
//!
//! Each module is a translation onto zones and no allocator of its own: it knows what a flag means, what is
//! promised on failure and how callbacks are called, and leaves the rest to [`uma::RawZone`].
//! `docs/compat.md` of the repository has a table per system: each function and flag, what it does here,
//! where that differs from the original, and which test shows it.
//!
//! # From C
//!
//! The crate is also `libuma_kmem_compat.so` and `.a`. A symbol carries its system's prefix
//! (`uma_linux_kmem_cache_alloc`), so that the names of two systems can live in one process; the headers
//! under `include/` declare the original names, bound to those symbols, so that sources compile unchanged.
//! `install.sh` installs libraries, headers and a pkg-config file, as `cargo cinstall` does.
//!
//! - *No panic crosses the boundary.* A function that would unwind into C says which one it was, and ends
//!   the process.
//! - *Callbacks* run with no lock held and may use any function of their system. One that throws (C++)
//!   through a function of this library ends the process. One that leaves by `longjmp` leaks the objects that
//!   were being constructed by that call, up to a bucket full, and harms nothing else.
//! - *Misuse* is told in one line, `uma: <system>: <function>: <what>`, on the standard error output, and
//!   ends the process or not as that system has it. See [`policy`].
//! - *Handles* (a `kmem_cache_t *`) are checked: a wrong one, or one that was destroyed, is reported.
//!
//! The crate uses the global allocator for its books, so it cannot stand under one. Where that has no memory, C gets
//! null or an error (see `docs/compat.md`). It cannot be unloaded.
//!
//! # Features
//!
//! One per system, and `capi` for the C functions; all are on by default. A Rust program that links the
//! real libumem as well turns `capi` or `umem` off.

mod common;
#[cfg(feature = "freebsd")]
pub mod freebsd;
#[cfg(feature = "linux")]
pub mod linux;
#[cfg(feature = "netbsd")]
pub mod netbsd;
#[cfg(feature = "solaris")]
pub mod solaris;
mod sync;
#[cfg(feature = "umem")]
pub mod umem;

pub use common::policy;

pub use uma;
