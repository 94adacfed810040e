//! What a zone, its callbacks and its pages have in common, and what can be set after it was made.

use core::ffi::c_int;
use core::ptr;
use std::sync::OnceLock;

use uma::Park;
use uma::core::{Name, Sleep};

use super::SYSTEM;
use super::callbacks::{
    AllocPages, AllocPages2002, Era, Fini, FreePages, FreePages2002, Given, Init, Init2002,
    Maxaction, Slot,
};
use super::pages::Aside;
use crate::common::fork::Lock;
use crate::common::memory::{Counted, NoMemory, Table, owned, table};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

/// Nanoseconds from one warning to the next, at least.
const WARNING_INTERVAL: u64 = 300_000_000_000;

#[derive(Debug)]
pub(super) struct Shared {
    /// Bytes of an item, as callbacks are told.
    pub(super) size: c_int,
    /// What C holds the zone by, or null.
    pub(super) handle: AtomicPtr<core::ffi::c_void>,
    /// What C holds its SMR by, or null.
    #[cfg(feature = "capi")]
    pub(super) smr: AtomicPtr<core::ffi::c_void>,
    /// If nobody has made that but the zone: what ends with the last zone that has it.
    #[cfg(feature = "capi")]
    pub(super) own_smr: OnceLock<Counted<super::capi::OwnSmr>>,
    pub(super) init: Slot<Init, Init2002>,
    pub(super) fini: Slot<Fini>,
    pub(super) allocf: Slot<AllocPages, AllocPages2002>,
    pub(super) freef: Slot<FreePages, FreePages2002>,
    pub(super) maxaction: Slot<Maxaction>,
    pub(super) region: OnceLock<Aside>,
    /// Runs from `allocf`: by address, what it returned, and its bytes.
    pub(super) runs: Lock<Table<usize, Lent>>,
    warning: Lock<Option<Counted<String>>>,
    warned: Seldom,
    /// Of those who wait for memory.
    pub(super) waits: Seldom,
}

/// Something that is said every five minutes at most.
#[derive(Debug)]
pub(super) struct Seldom {
    /// When it was said last, in nanoseconds, plus 1.
    last: AtomicU64,
}

/// A run from `allocf`, as it was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lent {
    pub(super) base: ptr::NonNull<u8>,
    pub(super) bytes: usize,
}

// SAFETY: it stands for memory that the zone owns.
unsafe impl Send for Lent {}

/// Whether zones warn (`vm.zone_warnings`).
pub(super) static WARNINGS: AtomicBool = AtomicBool::new(true);

impl Shared {
    pub(super) fn new(size: usize, given: &Given) -> Self {
        let shared = Self {
            size: c_int::try_from(size).unwrap_or(c_int::MAX),
            handle: AtomicPtr::new(ptr::null_mut()),
            #[cfg(feature = "capi")]
            smr: AtomicPtr::new(ptr::null_mut()),
            #[cfg(feature = "capi")]
            own_smr: OnceLock::new(),
            init: Slot::empty(),
            fini: Slot::empty(),
            allocf: Slot::empty(),
            freef: Slot::empty(),
            maxaction: Slot::empty(),
            region: OnceLock::new(),
            runs: Lock::new(table()),
            warning: Lock::new(None),
            warned: Seldom::new(),
            waits: Seldom::new(),
        };
        // SAFETY: these are functions.
        unsafe {
            shared.init.set(given.init);
            shared.fini.set(given.fini.map(Era::Today));
        }
        shared
    }

    pub(super) fn set_warning(&self, text: &str) -> Result<(), NoMemory> {
        let text = Counted::new(owned(text)?)?;
        let before = self.warning.lock().replace(text);
        drop(before);
        Ok(())
    }

    /// An allocation has found the limit reached: warns, and acts.
    pub(super) fn at_limit(&self, zone: &Name) {
        if WARNINGS.load(Ordering::Relaxed) {
            let text = self.warning.lock().clone();
            if let Some(text) = text
                && self.warned.due(Park.now())
            {
                SYSTEM.report("uma_zalloc", format_args!("[zone: {zone}] {}", *text));
            }
        }
        if let Some(Era::Today(action) | Era::Old(action)) = self.maxaction.get() {
            // SAFETY: whoever set it vouches for it; the handle is that of the zone, or null.
            unsafe { action(self.handle.load(Ordering::Acquire), 1) }
        }
    }
}

impl Seldom {
    pub(super) const fn new() -> Self {
        Self { last: AtomicU64::new(0) }
    }

    /// Whether it is time, at so many nanoseconds. Of several who ask at once, one is told so.
    pub(super) fn due(&self, now: u64) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        let now = now.saturating_add(1);
        (last == 0 || now.saturating_sub(last) >= WARNING_INTERVAL)
            && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_due_every_five_minutes() {
        let said = Seldom::new();
        let due = [0, 1, WARNING_INTERVAL - 1, WARNING_INTERVAL, WARNING_INTERVAL + 1];
        assert_eq!(due.map(|now| said.due(now)), [true, false, false, true, false]);
    }
}
