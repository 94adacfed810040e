//! FreeBSD: `uma_*` of zone(9).

use crate::common::{Switch, System};

pub(crate) static SYSTEM: System = System::that_aborts("freebsd", "freebsd.misuse");

/// The policies of this face; `docs/compat.md` says what they are for.
pub(crate) const SWITCHES: &[&Switch] = &[&SYSTEM.misuse];
