//! NetBSD: `pool`, `pool_cache` and `kmem`.

use crate::common::{Switch, System};

pub(crate) static SYSTEM: System = System::that_aborts("netbsd", "netbsd.misuse");

/// The policies of this face; `docs/compat.md` says what they are for.
pub(crate) const SWITCHES: &[&Switch] = &[&SYSTEM.misuse];
