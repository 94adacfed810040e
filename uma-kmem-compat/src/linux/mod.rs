//! Linux: `kmem_cache_*`, `kmalloc`, `mempool_*`.

use crate::common::{Switch, System};

pub(crate) static SYSTEM: System = System::that_reports("linux", "linux.misuse");

/// The policies of this face; `docs/compat.md` says what they are for.
pub(crate) const SWITCHES: &[&Switch] = &[&SYSTEM.misuse];
