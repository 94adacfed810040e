//! Constructors that refuse when they are told to, and destructors, in the types of the systems that tell them something.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Objects that constructors made, and destructors did not take apart.
pub(crate) static CONSTRUCTED: AtomicI64 = AtomicI64::new(0);
/// How many calls of constructors succeed before one refuses; none does at less than 0.
pub(crate) static PATIENCE: AtomicI64 = AtomicI64::new(-1);
pub(crate) static REFUSED: AtomicU64 = AtomicU64::new(0);

/// 0, or the constructor refuses.
pub(crate) fn constructs() -> c_int {
    if PATIENCE.load(Ordering::Relaxed) >= 0 && PATIENCE.fetch_sub(1, Ordering::Relaxed) == 0 {
        REFUSED.fetch_add(1, Ordering::Relaxed);
        return -1;
    }
    CONSTRUCTED.fetch_add(1, Ordering::Relaxed);
    0
}

pub(crate) fn destructs() {
    CONSTRUCTED.fetch_sub(1, Ordering::Relaxed);
}

/// Solaris, libumem, and NetBSD: two pointers in one order or the other, which these do not look at.
pub(crate) type Constructor = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, c_int) -> c_int;
pub(crate) type Destructor = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void);

pub(crate) unsafe extern "C-unwind" fn constructor(
    _: *mut c_void,
    _: *mut c_void,
    _: c_int,
) -> c_int {
    constructs()
}

pub(crate) unsafe extern "C-unwind" fn destructor(_: *mut c_void, _: *mut c_void) {
    destructs();
}
