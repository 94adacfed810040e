//! Copies of the process, as fork(2) makes them.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seconds after which a copy that waits for a thread that it does not have is ended.
const PATIENCE: u32 = 60;

/// Runs `work` in a copy of the process, and returns what that ended with: its wait status, which is 0 if `work` said
/// that all is well. A copy that panics, or takes a minute, ends with another.
///
/// (A panic that ended the copy's last thread would end it as if all were well.)
///
/// `work` uses only what is made for that: in the copy there is no other thread, and nobody lets go of a lock that one
/// of them had. No destructor of the caller's runs there.
///
/// # Panics
///
/// If the system makes no copy.
pub fn in_a_copy(work: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the copy does what the caller has seen to that it can, and leaves.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no copy: {}", io::Error::last_os_error());
    if child == 0 {
        // SAFETY: asks for a signal.
        unsafe { libc::alarm(PATIENCE) };
        let fine = catch_unwind(AssertUnwindSafe(work)).unwrap_or(false);
        // SAFETY: ends the copy.
        unsafe { libc::_exit(i32::from(!fine)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_copies_end_with() {
        assert_eq!(in_a_copy(|| true), 0);
        assert_ne!(in_a_copy(|| false), 0);
        assert_ne!(in_a_copy(|| panic!("in the copy, on purpose")), 0);
    }
}
