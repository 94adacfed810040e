//! What one thread of the process does at a time.

use crate::sync::{AtomicU32, Ordering};

/// Whether a thread of this process is at it: the number of the process, or 0. So it is under way in no copy of the
/// process, which that thread is not in.
pub(super) struct Underway(AtomicU32);

impl Underway {
    pub(super) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Begins, unless a thread of this process has.
    pub(super) fn begin(&self) -> bool {
        let (me, before) = (std::process::id(), self.0.load(Ordering::SeqCst));
        let order = Ordering::SeqCst;
        before != me && self.0.compare_exchange(before, me, order, order).is_ok()
    }

    pub(super) fn end(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    pub(super) fn is(&self) -> bool {
        self.0.load(Ordering::SeqCst) == std::process::id()
    }
}
