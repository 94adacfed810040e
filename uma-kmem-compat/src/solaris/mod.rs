//! Solaris: `kmem_cache_*`, `kmem_alloc` and `vmem_*`, as Solaris and illumos have them.
//!
//! ```
//! use uma_kmem_compat::solaris::{Km, KmemCache, Kmc};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let foos = KmemCache::create("foo_cache", 200, 64, Kmc::empty())?;
//! let foo = foos.alloc(Km::SLEEP).ok_or("never, without a constructor")?;
//! assert_eq!(foo.addr().get() % 64, 0);
//! // SAFETY: it came from this cache and is used no more.
//! unsafe { foos.free(foo) };
//! assert_eq!(foos.stat("buf_inuse"), Some(0));
//! # Ok(()) }
//! ```
//!
//! # What is as in Solaris, and what is not
//!
//! - An object keeps its constructed state between a free and the next allocation. The constructor runs when
//!   memory enters the cache and the destructor when it leaves, in whatever thread that happens; a constructor
//!   is told whether it may sleep.
//! - `KM_SLEEP` does not fail for want of memory: all caches are reaped, callbacks included, then it is tried
//!   again every millisecond, with another reap now and then (`solaris.sleep` of [`policy`](crate::policy) has
//!   other ways). With a constructor that fails it returns null, as the original does and its manual does not say.
//! - `KM_PUSHPAGE` may use a reserve: pages set aside by the first such request of each cache.
//! - What is free leaves the caches by itself: a thread looks after them every 15 s, and a cache that nobody
//!   used since the last time is emptied.
//! - Misuse ends the process, as it makes the kernel panic; see `solaris.misuse`.
//! - A cache may have its pages from an arena, but only from one of memory.

mod alloc;
mod cache;
#[cfg(feature = "capi")]
mod capi;
mod flags;
mod stat;
#[cfg(feature = "capi")]
mod vmem;

pub use crate::common::objects::{
    Answer, Callbacks, Constructor, Destructor, MoveCallback, ReclaimCallback,
};
pub use alloc::{
    kmem_alloc, kmem_alloc_tryhard, kmem_avail, kmem_free, kmem_maxavail, kmem_zalloc,
};
pub use cache::{CreateError, KmemCache, Leaked};
pub use flags::{Km, Kmc};

use crate::common::objects;
use crate::common::{Switch, System};

pub(crate) static SYSTEM: System = System::that_aborts("solaris", "solaris.misuse");

/// Which names a cache may have: any, or as the manual of 2003 has it, letters and digits (and underscores,
/// which its own example has).
static NAME: Switch = Switch::new("solaris.name", &["any", "manual"]);

/// What becomes of a cache that is destroyed with objects in use.
static DESTROY: Switch = Switch::new("solaris.destroy", &["warn", "panic", "refuse"]);

/// What `KM_SLEEP` gets where the constructor fails.
static FAILING_CTOR: Switch = Switch::new("solaris.failing_ctor", &["null", "retry"]);

/// What `KM_SLEEP` does where there is no memory.
static SLEEP: Switch = Switch::new("solaris.sleep", &["wait", "panic", "null"]);

/// What is checked in caches made from now on: `kmem_flags`.
static KMEM_FLAGS: Switch = Switch::new("solaris.kmem_flags", &["off", "lite", "on"]);

/// Seconds from one look of the upkeep thread to the next.
static UPDATE: Switch = Switch::new("solaris.update", &["15", "1", "5", "30", "60", "off"]);

/// The policies of this face; `docs/compat.md` says what they are for.
pub(crate) const SWITCHES: &[&Switch] =
    &[&SYSTEM.misuse, &NAME, &DESTROY, &FAILING_CTOR, &SLEEP, &KMEM_FLAGS, &UPDATE];

/// Has memory looked after from now on.
fn look_after() {
    objects::start(UPDATE.get().parse().unwrap_or(0));
}

/// Asks the owners of all caches for objects, empties the caches, and gives the pages back (`kmem_reap`).
pub fn kmem_reap() {
    objects::reap_all(&SYSTEM);
    alloc::reclaim();
}

/// Whether caches made from now on are checked (`kmem_debugging`): the policy `solaris.kmem_flags`.
pub fn kmem_debugging() -> bool {
    KMEM_FLAGS.get() != "off"
}
