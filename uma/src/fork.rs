//! fork(2): zones go on in the copy of a process, as they do in the original.
//!
//! Before the copy is made every lock is taken, in this order:
//!
//! ```text
//!   registry -> of each zone, those made last first: depot, limit queue, keg -> metadata kegs -> pages
//! ```
//!
//! Slabs on which several zones stand are locked by the place in the registry of the zone that made them,
//! which stays there, unseen, as long as they do. A source of a user's under several zones is locked once if it is
//! [shared](uma_core::Shared).
//!
//! (The registry's lock is held meanwhile; nowhere else is anything called under it.) Each of the others
//! is a leaf elsewhere, so taking all of them cannot deadlock, and with all of them held nothing is
//! half done. What other threads had in hand at that moment (a bucket, an item) is lost to the copy, as
//! those threads are, and nobody waits at a limit there. Afterwards both processes let go in the opposite order.
//!
//! The handlers are installed with the first zone and stay.

use uma_core::Process;

use crate::Platform;
use crate::access::complain;
use crate::host::{Host, METADATA, PAGES};
use crate::lock::in_child;
use crate::sync::{AtomicBool, Ordering};

/// Sees to it that forks go well from now on.
pub(crate) fn install() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    // Not `Once`, which would keep others waiting, also in a child that was forked meanwhile.
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: the three handlers live as long as the program, and may be called at any fork.
    let refused = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    if refused != 0 {
        complain(format_args!("no memory for fork handlers: do not fork while zones are in use"));
    }
}

extern "C" fn prepare() {
    Host.registry().prefork();
    METADATA.prefork();
    PAGES.prefork();
}

extern "C" fn parent() {
    // SAFETY: `prepare` ran on this thread just before.
    unsafe { let_go(Process::Original) };
    Host.registry().settle();
}

extern "C" fn child() {
    // SAFETY: `prepare` ran on the thread that this one is the copy of.
    in_child(|| unsafe { let_go(Process::Copy) });
}

/// # Safety
///
/// `prepare` ran before, on this thread or the one that it is the copy of.
unsafe fn let_go(process: Process) {
    // SAFETY: passed on from the caller.
    unsafe {
        PAGES.postfork();
        METADATA.postfork(process);
        Host.registry().postfork(process);
    }
}
