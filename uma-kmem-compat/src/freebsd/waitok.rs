//! `M_WAITOK` where there is no memory.
//!
//! FreeBSD waits, however long it takes: nobody there looks at the result. So do we, by the policy
//! `freebsd.waitok`: memory comes when somebody frees items of whatever zone, or when a supplier of pages has some
//! again. No lock is held meanwhile.

use core::fmt;

use uma::Park;
use uma::core::{AllocError, PageError, Reclaim, Sleep};
use uma_malloc::{MallocError, MallocFault};

use super::shared::Seldom;
use super::{SYSTEM, WAITOK};
use crate::common::Patience;

/// No address space of ours has so many bytes, as for the other faces.
const MOST: usize = 1 << 47;

/// Why something was not had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// There is no memory, and there may be later.
    Memory,
    /// It cannot be had, however long one waits.
    Never,
    /// Something else than memory, as a callback that refuses: that is null, whatever the flags.
    Other,
}

impl From<AllocError> for Want {
    fn from(error: AllocError) -> Self {
        match error {
            AllocError::Metadata
            | AllocError::Pages(PageError::Exhausted | PageError::System(_)) => Self::Memory,
            AllocError::Pages(_) => Self::Never,
            _ => Self::Other,
        }
    }
}

impl From<&MallocError> for Want {
    fn from(error: &MallocError) -> Self {
        match error.fault {
            MallocFault::Alloc(reason)
                if error.size < MOST && Self::from(reason) == Self::Memory =>
            {
                Self::Memory
            }
            _ => Self::Never,
        }
    }
}

/// Who may wait was told `first`, and tries as hard as the policy has it: everything is drained, then it is tried
/// every millisecond, and everything drained again now and then. That somebody waits is said, but seldom.
#[cold]
#[inline(never)]
pub(super) fn insist<T, E: fmt::Display>(
    function: &str,
    first: E,
    want: impl Fn(&E) -> Want,
    told: &Seldom,
    attempt: impl Fn() -> Result<T, E>,
) -> Option<T> {
    let (mut error, mut drained) = (first, false);
    let mut patience = Patience::new();
    loop {
        match (want(&error), WAITOK.get()) {
            (Want::Other, _) => return None,
            (Want::Memory, _) if !drained => {
                uma::reclaim(Reclaim::DrainCpu);
                drained = true;
            }
            (_, "null") => return None,
            (Want::Memory, "wait") => {
                if told.due(Park.now()) {
                    SYSTEM.report(function, format_args!("M_WAITOK: {error}; waiting"));
                }
                if patience.wait() {
                    uma::reclaim(Reclaim::DrainCpu);
                }
            }
            (Want::Never, "wait") => {
                SYSTEM.misuse(function, format_args!("M_WAITOK, but {error}"));
                return None;
            }
            _ => SYSTEM.fatal(function, format_args!("M_WAITOK, but {error}")),
        }
        match attempt() {
            Ok(got) => return Some(got),
            Err(other) => error = other,
        }
    }
}
