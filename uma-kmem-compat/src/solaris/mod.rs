//! Solaris: `kmem_cache_*`, `kmem_alloc` and friends, as Solaris and illumos have them.

use crate::common::{Switch, System};

pub(crate) static SYSTEM: System = System::that_aborts("solaris", "solaris.misuse");

/// The policies of this face; `docs/compat.md` says what they are for.
pub(crate) const SWITCHES: &[&Switch] = &[&SYSTEM.misuse];
