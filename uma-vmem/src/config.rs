//! What an arena is made with.

use uma_core::Name;

use crate::{VmemError, VmemFault};

/// Name, quantum and the rest that is fixed when an arena is made.
///
/// Checked when it is made, so that making an arena of it cannot fail, and can be done in a `static`:
///
/// ```
/// use uma_vmem::ArenaConfig;
/// const PIDS: ArenaConfig = match ArenaConfig::new("pid", 1) {
///     Ok(config) => config,
///     Err(_) => panic!("1 is a power of two"),
/// };
/// assert!(ArenaConfig::new("odd", 3).is_err());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ArenaConfig {
    pub(crate) name: Name,
    pub(crate) quantum: usize,
    pub(crate) min_import: usize,
    pub(crate) retry: u64,
}

impl ArenaConfig {
    /// An arena of this name, which deals in multiples of `quantum`: 1 for identifiers, the page size
    /// for address space.
    ///
    /// # Errors
    ///
    /// [`VmemFault::BadQuantum`] if that is not a power of two.
    pub const fn new(name: &str, quantum: usize) -> Result<Self, VmemError> {
        let name = Name::new(name);
        if !quantum.is_power_of_two() {
            return Err(VmemError { arena: name, fault: VmemFault::BadQuantum(quantum) });
        }
        Ok(Self { name, quantum, min_import: 0, retry: 100_000_000 })
    }

    /// Imports spans of no less than `size`, also for smaller requests. (Solaris: the largest quantum
    /// cache under `VMC_NO_QCACHE`; NetBSD: `VM_LARGEIMPORT`.)
    pub const fn min_import(self, size: usize) -> Self {
        Self { min_import: size, ..self }
    }

    /// While a caller waits, asks the parent again every so many nanoseconds: nobody says when it has
    /// room again. 100 ms unless set; the originals wake all who wait every 15 seconds (Solaris) or not
    /// at all.
    pub const fn retry_every(self, nanoseconds: u64) -> Self {
        Self { retry: nanoseconds, ..self }
    }
}
