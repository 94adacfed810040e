//! libumem: the user-level allocator of Solaris, `umem_*`.

use crate::common::{Switch, System};

pub(crate) static SYSTEM: System = System::that_aborts("umem", "umem.misuse");

/// The policies of this face; `docs/compat.md` says what they are for.
pub(crate) const SWITCHES: &[&Switch] = &[&SYSTEM.misuse];
