//! FreeBSD: `uma_*` of zone(9), SMR of smr(9), and malloc(9) with its types.
//!
//! ```
//! use uma_kmem_compat::freebsd::{M, Zone, ZoneFlags};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tables = Zone::create("page table", 512, 511, ZoneFlags::empty())?;
//! tables.set_max(100);
//! let table = tables.alloc(M::WAITOK | M::ZERO).ok_or("no memory")?;
//! assert_eq!((table.addr().get() % 512, tables.cur()), (0, 1));
//! // SAFETY: it came from this zone and is used no more.
//! unsafe { tables.free(table) };
//! # Ok(()) }
//! ```
//!
//! `docs/uma.md` has a table of every function, callback, flag and constant, of 2002 and of today.
//!
//! # What is as in FreeBSD, and what is not
//!
//! - Limits are exact: never more than that many items are in use, and that many always can be. The action at a
//!   limit runs on the thread that found it, not later.
//! - An allocation that may wait waits, at the limit and for memory, as long as it takes. Where there are no pages
//!   every zone is drained, and then it is tried every millisecond, and drained again now and then; or the process
//!   ends with a report, or the call returns null: see `freebsd.waitok` in [`policy`](crate::policy). A callback that
//!   refuses gives null in any case.
//! - There is one memory domain, and no interrupt.
//! - Callbacks run with no lock held, all of them.
//! - The calls that FreeBSD allows on a cold zone only (`uma_zone_set_init` and its like) are refused once memory
//!   of the zone has been used. Limits and bounds can be changed at any time.
//! - Misuse ends the process, as a kernel panics: see `freebsd.misuse`.

mod callbacks;
#[cfg(feature = "capi")]
mod capi;
mod deferred;
mod engine;
mod flags;
mod malloc;
mod pages;
mod shared;
mod smr;
mod waitok;
mod zone;

pub use callbacks::{
    AllocPages, AllocPages2002, Callbacks, Callbacks2002, Ctor, Ctor2002, Dtor, Fini, FreePages,
    FreePages2002, Import, Init, Init2002, Maxaction, Release,
};
pub use flags::{M, ZoneFlags, ZoneFlags2002, cache_align_mask, set_cache_align_mask};
pub use malloc::{Type, free, malloc, malloc_usable_size, realloc, reallocf, types};
pub use pages::{kmem_limit, kmem_total, set_kmem_limit, startup, startup2};
pub use smr::{Section, Smr};
pub use zone::{CreateError, Zone, reclaim};

use crate::common::{Switch, System};

pub(crate) static SYSTEM: System = System::that_aborts("freebsd", "freebsd.misuse");

/// What becomes of an allocation that may wait if there is no memory.
static WAITOK: Switch = Switch::new("freebsd.waitok", &["wait", "abort", "null"]);

/// What `uma_zdestroy` of 2002 does with items in use: what its header says (wait, or `EWOULDBLOCK`), or what its
/// code did (report, and go on).
static ZDESTROY_2002: Switch = Switch::new("freebsd.zdestroy_2002", &["header", "code"]);

/// The policies of this face; `docs/compat.md` says what they are for.
pub(crate) const SWITCHES: &[&Switch] = &[&SYSTEM.misuse, &WAITOK, &ZDESTROY_2002];
