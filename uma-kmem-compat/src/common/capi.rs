//! The C functions that belong to no system: `uma/compat.h`.

use core::ffi::{c_char, c_int};

use super::{policy, report, text};

/// [`boundary`](super::boundary) of no system.
fn boundary<R>(function: &'static str, body: impl FnOnce() -> R) -> R {
    super::boundary(None, function, body)
}

/// Sets a policy. 0, or -1 if there is no such policy or it has no such value.
///
/// # Safety
///
/// Both are null or strings that end in a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_compat_set_policy(key: *const c_char, value: *const c_char) -> c_int {
    boundary("uma_compat_set_policy", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let (key, value) = unsafe { (text(key), text(value)) };
        match (key, value) {
            (Some(key), Some(value)) if policy::set(&key, &value).is_ok() => 0,
            _ => -1,
        }
    })
}

/// Reports go to `reporter`, or to the standard error output if it is null.
///
/// # Safety
///
/// The function may be called from any thread.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_compat_set_reporter(reporter: Option<report::Reporter>) {
    // SAFETY: the caller's duty is passed on unchanged.
    boundary("uma_compat_set_reporter", || unsafe { report::set_reporter(reporter) });
}
