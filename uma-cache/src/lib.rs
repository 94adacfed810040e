//! Per-CPU bucket caches: the fast path of a zone.
//!
//! [`BucketCache`] stands in front of any [`ItemSource`](uma_core::ItemSource) and keeps free items
//! in *buckets*, so that most allocations and frees touch only memory of the CPU they run on:
//!
//! ```text
//!            CPU 0                 CPU 1                        depot (one lock)
//!      +--------------+      +--------------+
//!      | alloc | free |      | alloc | free |   slots      full:  [254] - [254] - [17]
//!      +---|-------|--+      +---|-------|--+              empty: [0] - [0]
//!          v       v             v       v                   ^
//!        [ 93]   [254]         [  0]   EMPTY   buckets       | whole buckets, never items
//!          ^ pop/push on a hit                  <------------'
//! ------------------------------------------------------------------------------------------
//!                 the source below: batches by import and release, single items
//! ```
//!
//! # Ownership
//!
//! A bucket that a slot points to belongs to that CPU. A thread owns a bucket from the moment that a
//! [`swap`](PerCpu::swap) took it out of a slot until another `swap` puts it in, or the depot takes
//! it. Everything slow is composed of these moves; nothing else ever touches an installed bucket.
//! Slots are never null: [`EMPTY`](bucket::Bucket::empty), one static bucket with room for nothing,
//! is empty to a pop and full to a push, so that the fast path needs no check.
//!
//! To take a bucket from *another* CPU, exchange the slot's pointer with `EMPTY`, then wait for
//! [`PerCpu::fence`]; only then is the bucket yours.
//!
//! # Waiting callers
//!
//! While [`wanted`](uma_core::ItemSource::wanted) says that somebody below waits for an item, no
//! bucket stays installed and the depot holds nothing: the waiter flushed them after it took its place
//! in the queue, and every slow path that puts items into a slot or the depot looks at `wanted`
//! afterwards and flushes again. With `EMPTY` in every slot, all frees take the slow path and pass
//! the item on. The hit path itself never looks.
//!
//! # Lock order
//!
//! Whoever takes buckets out of slots (a drain, the census) holds a lock until they are counted and in the
//! depot or back. Under it he passes the fence, which with [`CpuLocks`] takes the lock of each slot for a
//! moment, and takes the depot's lock. Those two are leaves: under the depot's only bucket lists are linked. The
//! source, its hooks and the metadata supplier are called with no lock held.
//!
//! # Ways to a CPU's slot
//!
//! | [`PerCpu`] | for | a hit costs |
//! |---|---|---|
//! | `Rseq` | processes on Linux: x86-64, glibc 2.35 or later | a few instructions, none of them atomic |
//! | [`Pinned`] | kernels, which can forbid preemption for a moment | the same, between forbidding and allowing it |
//! | [`CpuLocks`] | everything else | two atomic exchanges on a line of the CPU's own |
//!
//! # Features
//!
//! None is on by default; the crate needs neither `std` nor `alloc`.
//!
//! - `rseq`: `Rseq`. It links the C library, for its area of restartable sequences and for system calls.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
extern crate std;

mod bound;
pub mod bucket;
mod bulk;
mod cache;
mod demand;
mod depot;
mod drain;
#[cfg(not(any(loom, shuttle)))]
mod front;
mod hand;
mod locks;
mod percpu;
mod pinned;
#[cfg(all(
    feature = "rseq",
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64"
))]
mod rseq;
mod slot;
mod slow;
mod sync;

pub use cache::{BucketCache, CacheConfig};
#[cfg(not(any(loom, shuttle)))]
pub use front::Front;
pub use locks::{CpuLocks, CurrentCpu};
pub use percpu::PerCpu;
pub use pinned::{Pin, Pinned};
#[cfg(all(
    feature = "rseq",
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64"
))]
pub use rseq::Rseq;
pub use slot::{Slot, Slots, Which};
