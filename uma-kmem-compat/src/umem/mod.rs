//! libumem: the user-level allocator of Solaris, `umem_*`.
//!
//! ```
//! use uma_kmem_compat::umem::{UmemCache, umem_alloc, umem_free};
//! use uma_kmem_compat::umem::{Umc, Umem};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let conns = UmemCache::create("conn", 300, 0, Umc::empty())?;
//! let conn = conns.alloc(Umem::DEFAULT).ok_or("no memory")?;
//! // SAFETY: it came from this cache and is used no more.
//! unsafe { conns.free(conn) };
//! let memory = umem_alloc(100, Umem::NOFAIL);
//! // SAFETY: it has so many bytes and is used no more.
//! unsafe { umem_free(memory, 100) };
//! # Ok(()) }
//! ```
//!
//! # What is as in libumem, and what is not
//!
//! - `UMEM_NOFAIL` calls the function that was given to [`umem_nofail_callback`], with no lock held, as often as
//!   that returns [`RETRY`]; it may leave by `longjmp` or end the thread. Without a function the process ends with
//!   status 255.
//! - A constructor is always told `UMEM_DEFAULT`.
//! - `UMEM_DEBUG`, `UMEM_OPTIONS` and `UMEM_LOGGING` in the environment are read at the first call; see
//!   `docs/compat.md` for what their words do here.
//! - Before a request fails, all caches are reaped, callbacks included.
//! - There is no `malloc` in this face: that is `uma-malloc`.
//! - Misuse ends the process after a report; see `umem.misuse` in [`policy`](crate::policy), and `noabort`.

mod alloc;
mod cache;
#[cfg(feature = "capi")]
mod capi;
mod env;
mod init;
mod nofail;

pub use crate::common::objects::{Callbacks, Constructor, Destructor, ReclaimCallback};
pub use alloc::{umem_alloc, umem_alloc_align, umem_free, umem_free_align, umem_zalloc};
pub use cache::{CreateError, Leaked, Umc, Umem, UmemCache};
pub use nofail::{NofailCallback, RETRY, exit, umem_nofail_callback};

use crate::common::objects;
use crate::common::{Switch, System};

pub(crate) static SYSTEM: System = System::that_aborts("umem", "umem.misuse");

/// What becomes of a cache that is destroyed with objects in use.
static DESTROY: Switch = Switch::new("umem.destroy", &["warn", "panic", "refuse"]);

/// The policies of this face; `docs/compat.md` says what they are for.
pub(crate) const SWITCHES: &[&Switch] = &[&SYSTEM.misuse, &DESTROY];

/// Asks the owners of all caches for objects, empties the caches, and gives the pages back (`umem_reap`).
pub fn umem_reap() {
    objects::reap_all(&SYSTEM);
    alloc::reclaim();
}
