//! NetBSD: pool(9), pool_cache(9), kmem(9), vmem(9), and uvm_km(9) as [`Map`].
//!
//! ```
//! use uma_kmem_compat::netbsd::{Pool, PoolArgs, PoolFlags};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let requests = Pool::create("reqpl", 200, PoolArgs::default())?;
//! requests.set_hard_limit(Some(2), None);
//! let one = requests.get(PoolFlags::WAITOK | PoolFlags::ZERO).ok_or("no memory")?;
//! let two = requests.get(PoolFlags::NOWAIT).ok_or("no memory")?;
//! assert!(requests.get(PoolFlags::NOWAIT).is_none());
//! // SAFETY: both came from this pool and are used no more.
//! unsafe {
//!     requests.put(one);
//!     requests.put(two);
//! }
//! requests.destroy()?;
//! # Ok(()) }
//! ```
//!
//! # What is as in NetBSD, and what is not
//!
//! - A [`Pool`] is a zone without caches: each get and put takes its lock, counts are exact, and a put of what
//!   is no item in use is found out at once. A [`PoolCache`] is the same with a cache for each CPU, of groups of 15
//!   or 63 objects, which stay constructed in it.
//! - The hard limit is one of items in use. NetBSD counts those in caches as well; here they are given back
//!   before a get fails or waits, so the limit is never felt early.
//! - `PR_WAITOK` and `KM_SLEEP` wait for memory, too, as long as it takes; see the policy `netbsd.waitok`.
//! - Any function may be called in any context but a signal handler. Interrupt levels mean nothing.
//! - NetBSD panics at misuse, and we end the process: see `netbsd.misuse` in [`policy`](crate::policy).

mod cache;
#[cfg(feature = "capi")]
mod capi;
mod flags;
mod hooks;
mod kmem;
mod pages;
mod pool;
mod stats;
mod vmem;

pub use cache::PoolCache;
pub use flags::{KmFlags, PoolFlags, VmFlags};
pub use hooks::{Callbacks, Constructor, Destructor};
pub use kmem::{kmem_alloc, kmem_free, kmem_roundup_size, kmem_stats, kmem_zalloc};
pub use pages::{PageAllocator, PassiveSerialize, set_pserialize};
pub use pool::{DrainHook, HardLimitWarning, Pool, PoolArgs, StillOut};
pub use stats::PoolStats;
pub use vmem::{CreateVmem, ImportFn, ReleaseFn, Vmem, VmemSource, XimportFn};

/// uvm_km(9) in Rust; the C functions stand on it.
pub use uma_backend_mmap::map::Map;

use crate::common::{Switch, System};

pub(crate) static SYSTEM: System = System::that_aborts("netbsd", "netbsd.misuse");

/// Whether pools made from now on, and kmem, check every free: a kernel with `options DIAGNOSTIC`.
static DIAGNOSTIC: Switch = Switch::new("netbsd.diagnostic", &["off", "on"]);

/// What a request that may sleep does where there is no memory: it waits, as in NetBSD, or fails.
static WAITOK: Switch = Switch::new("netbsd.waitok", &["wait", "fail"]);

/// Whether `pool_setlowat` makes items at once, as the code does, or later, as the manual has it.
static SETLOWAT: Switch = Switch::new("netbsd.setlowat", &["fill", "lazy"]);

/// Whether `pool_sethiwat` does nothing, as in the code since long, or bounds what is free, as the manual has it.
static SETHIWAT: Switch = Switch::new("netbsd.sethiwat", &["inert", "bound"]);

/// What `PR_ZERO` does in a cache without a constructor: zeros, or nothing, as on a hit in the code.
static CACHE_ZERO: Switch = Switch::new("netbsd.pool_cache_zero", &["zero", "ignore"]);

/// The policies of this face; `docs/compat.md` says what they are for.
pub(crate) const SWITCHES: &[&Switch] =
    &[&SYSTEM.misuse, &DIAGNOSTIC, &WAITOK, &SETLOWAT, &SETHIWAT, &CACHE_ZERO];

/// The text of a panic that was caught.
#[cfg(feature = "capi")]
fn text_of(panic: &(dyn core::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}
