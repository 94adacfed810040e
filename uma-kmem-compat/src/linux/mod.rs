//! Linux: `kmem_cache_*` with sheaves, `mempool_*`, `kmalloc` and its family.
//!
//! ```
//! use uma_kmem_compat::linux::{Gfp, KmemCache, SlabFlags};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let nodes = KmemCache::create("node", 256, 256, SlabFlags::PANIC)?;
//! let node = nodes.alloc(Gfp::KERNEL | Gfp::ZERO).ok_or("no memory")?;
//! assert_eq!(node.addr().get() % 256, 0);
//! // SAFETY: it came from this cache and is used no more.
//! unsafe { nodes.free(node) };
//! nodes.destroy()?;
//! # Ok(()) }
//! ```
//!
//! # What is as in Linux, and what is not
//!
//! - An object keeps its constructed state between a free and the next allocation: nothing is ever written
//!   into a free one. The constructor runs when memory enters the cache, and again when memory that had left it
//!   comes back; there is no destructor.
//! - Caches are never merged, so names in reports are right. Objects of a size are packed as tightly as the
//!   alignment allows.
//! - `GFP_KERNEL` may fail, because nobody brings memory later: when there is no more, every cache is drained
//!   once, and then the call fails. `__GFP_NOFAIL` goes on trying for ever, and has them drained again now and then.
//! - Any function may be called in any context but a signal handler.
//! - Debug flags choose what `uma`'s checks look at: every free, red zones, sums of free objects, owners.
//! - Linux reports misuse and goes on, and so do we: see `linux.misuse` in [`policy`](crate::policy).

mod cache;
#[cfg(feature = "capi")]
mod capi;
mod ctor;
mod flags;
mod kmalloc;
mod mempool;
mod pages;
mod sheaf;

pub use cache::{CacheArgs, CreateError, KmemCache, StillUsed};
pub use ctor::Constructor;
pub use flags::{Gfp, SlabFlags};
pub use kmalloc::{
    kfree, kfree_sensitive, kmalloc, kmalloc_size_roundup, kmalloc_stats, krealloc, ksize,
};
pub use mempool::{AllocElement, Elements, FreeElement, Mempool, NoReserve};
pub use pages::{GracePeriod, set_grace_period};
pub use sheaf::Sheaf;

use crate::common::{Switch, System};

pub(crate) static SYSTEM: System = System::that_reports("linux", "linux.misuse");

/// Whether all caches check every free, but those with `SLAB_NO_USER_FLAGS`: `slab_debug=F` of the kernel's
/// command line.
static SLAB_DEBUG: Switch = Switch::new("linux.slab_debug", &["off", "on"]);

/// The policies of this face; `docs/compat.md` says what they are for.
pub(crate) const SWITCHES: &[&Switch] = &[&SYSTEM.misuse, &SLAB_DEBUG];

/// The text of a panic that was caught.
fn text_of(panic: &(dyn core::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}
