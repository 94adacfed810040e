//! smr(9).

use core::ffi::{c_char, c_int};
use core::ptr;

use super::boundary;
use super::{SMRS, SmrHandle, bad, smr};
use crate::common::text;
use crate::freebsd::{SYSTEM, Smr};

/// # Safety
///
/// The name is null or a string that ends in a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_smr_create(
    name: *const c_char,
    _limit: c_int,
    _flags: c_int,
) -> *mut SmrHandle {
    boundary("smr_create", || {
        // SAFETY: the caller's duty is passed on unchanged.
        match unsafe { text(name) } {
            Some(name) => match Smr::try_new(&name).and_then(|smr| SMRS.insert(smr)) {
                Ok(handle) => handle,
                Err(error) => {
                    SYSTEM.report("smr_create", format_args!("no smr \"{name}\": {error}"));
                    ptr::null_mut()
                }
            },
            None => {
                SYSTEM.misuse("smr_create", format_args!("the name is null"));
                ptr::null_mut()
            }
        }
    })
}

/// Waits for readers, who leave by this handle; so it goes after them.
///
/// # Safety
///
/// As [`crate::common::Handles::remove`]; no zone uses it.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_smr_destroy(handle: *mut SmrHandle) {
    const NAME: &str = "smr_destroy";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(smr) = (unsafe { smr(NAME, handle) }) else { return };
        smr.synchronize();
        // SAFETY: as above; nobody uses it any more.
        if let Err(fault) = unsafe { SMRS.remove(handle) } {
            bad(NAME, "smr", fault);
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_smr_enter(handle: *mut SmrHandle) {
    const NAME: &str = "smr_enter";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(smr) = unsafe { smr(NAME, handle) } {
            smr.join(NAME);
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_smr_exit(handle: *mut SmrHandle) {
    const NAME: &str = "smr_exit";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(smr) = unsafe { smr(NAME, handle) } {
            smr.leave(NAME);
        }
    });
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_smr_entered(handle: *mut SmrHandle) -> bool {
    const NAME: &str = "smr_entered";
    // SAFETY: the caller's duty is passed on unchanged.
    boundary(NAME, || unsafe { smr(NAME, handle) }.is_some_and(Smr::entered))
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_smr_advance(handle: *mut SmrHandle) -> u64 {
    const NAME: &str = "smr_advance";
    // SAFETY: the caller's duty is passed on unchanged.
    boundary(NAME, || unsafe { smr(NAME, handle) }.map_or(0, Smr::advance))
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_smr_current(handle: *mut SmrHandle) -> u64 {
    const NAME: &str = "smr_current";
    // SAFETY: the caller's duty is passed on unchanged.
    boundary(NAME, || unsafe { smr(NAME, handle) }.map_or(0, Smr::current))
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_smr_poll(handle: *mut SmrHandle, goal: u64, wait: bool) -> bool {
    const NAME: &str = "smr_poll";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(smr) = (unsafe { smr(NAME, handle) }) else { return true };
        if wait {
            smr.wait(goal);
        }
        smr.poll(goal)
    })
}

/// # Safety
///
/// As [`crate::common::Handles::get`].
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_smr_synchronize(handle: *mut SmrHandle) {
    const NAME: &str = "smr_synchronize";
    boundary(NAME, || {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Some(smr) = unsafe { smr(NAME, handle) } {
            smr.synchronize();
        }
    });
}
