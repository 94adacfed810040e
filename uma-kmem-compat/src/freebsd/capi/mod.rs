//! The C functions: `uma/freebsd/uma.h`, `uma/freebsd/smr.h` and `uma/freebsd/malloc9.h`.

mod create;
mod items;
mod malloc;
mod settings;
mod smr;
mod stat;

use super::{SYSTEM, Smr, Zone};
use crate::common::{BadHandle, Handle, Handles};

/// `struct uma_zone`, as C has it.
type ZoneHandle = Handle<Zone>;
/// `struct smr`, as C has it.
type SmrHandle = Handle<Smr>;

static ZONES: Handles<Zone, { u16::from_le_bytes(*b"fz") }> = Handles::new();
static SMRS: Handles<Smr, { u16::from_le_bytes(*b"fs") }> = Handles::new();

/// [`boundary`](crate::common::boundary) of this face.
#[inline(always)]
fn boundary<R>(function: &'static str, body: impl FnOnce() -> R) -> R {
    crate::common::boundary(Some(&SYSTEM), function, body)
}

/// The handle of an SMR that zones have made, which goes with the last of them.
#[derive(Debug)]
pub(super) struct OwnSmr(*mut SmrHandle);

// SAFETY: handles are used from any thread.
unsafe impl Send for OwnSmr {}
// SAFETY: as above.
unsafe impl Sync for OwnSmr {}

impl Drop for OwnSmr {
    fn drop(&mut self) {
        // SAFETY: it is a handle from `insert`, and goes once. (By mistake somebody may have destroyed it.)
        let _ = unsafe { SMRS.remove(self.0) };
    }
}

/// Something is wrong with a handle that was given to `function`.
#[cold]
fn bad(function: &'static str, what: &'static str, fault: BadHandle) {
    SYSTEM.misuse(function, format_args!("bad {what}: {fault}"));
}

/// The zone of a handle, or a report.
///
/// # Safety
///
/// As [`Handles::get`].
#[inline]
unsafe fn zone<'a>(function: &'static str, handle: *const ZoneHandle) -> Option<&'a Zone> {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { ZONES.get(handle) }.map_err(|fault| bad(function, "zone", fault)).ok()
}

/// The SMR of a handle, or a report.
///
/// # Safety
///
/// As [`Handles::get`].
#[inline]
unsafe fn smr<'a>(function: &'static str, handle: *const SmrHandle) -> Option<&'a Smr> {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { SMRS.get(handle) }.map_err(|fault| bad(function, "smr", fault)).ok()
}

/// Whether nothing was allocated from a zone, or a report.
fn cold(function: &'static str, zone: &Zone) -> bool {
    let cold = zone.is_cold();
    if !cold {
        SYSTEM.misuse(
            function,
            format_args!("zone \"{}\" was used already, so this cannot be changed", zone.name()),
        );
    }
    cold
}
