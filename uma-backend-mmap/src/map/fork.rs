//! Who is at work on a map, so that a fork finds nothing half done.
//!
//! A call *enters* before it takes something in hand: a range that is not marked yet, or a mark that is
//! claimed, between system calls. A fork shuts the gate, and then waits until everybody has left. Whoever
//! waits, for room or for memory, is outside meanwhile: that may take for ever.

use std::thread;

use uma_core::Process;

use crate::sync::{AtomicBool, AtomicUsize, Ordering};

pub(super) struct Gate {
    inside: AtomicUsize,
    shut: AtomicBool,
}

/// Somebody is inside.
pub(super) struct Inside<'a>(&'a Gate);

impl Gate {
    pub(super) const fn new() -> Self {
        Self { inside: AtomicUsize::new(0), shut: AtomicBool::new(false) }
    }

    /// Enters, unless the gate is shut.
    pub(super) fn try_enter(&self) -> Option<Inside<'_>> {
        // Either this is seen by who shuts the gate, or the gate is seen shut: both are sequentially
        // consistent, as are the two accesses of `shut`.
        self.inside.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(self);
        (!self.shut.load(Ordering::SeqCst)).then_some(inside)
    }

    /// Enters, once the gate is open. That it is shut takes as long as a fork.
    pub(super) fn enter(&self) -> Inside<'_> {
        loop {
            match self.try_enter() {
                Some(inside) => return inside,
                None => thread::yield_now(),
            }
        }
    }

    /// Shuts the gate, and waits until nobody is inside.
    pub(super) fn shut(&self) {
        while self.shut.swap(true, Ordering::SeqCst) {
            thread::yield_now();
        }
        while self.inside.load(Ordering::SeqCst) != 0 {
            thread::yield_now();
        }
    }

    /// Opens it again, in the process or in its copy, where nobody is inside.
    pub(super) fn open(&self, process: Process) {
        if process == Process::Copy {
            self.inside.store(0, Ordering::Relaxed);
        }
        self.shut.store(false, Ordering::Release);
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread of the original that was about to find the gate shut is not in the copy.
    #[test]
    fn nobody_is_inside_in_a_copy() {
        let gate = Gate::new();
        for (process, inside) in [(Process::Original, 1), (Process::Copy, 0)] {
            gate.shut();
            assert!(gate.try_enter().is_none());
            gate.inside.store(1, Ordering::Relaxed);
            gate.open(process);
            assert_eq!(gate.inside.swap(0, Ordering::Relaxed), inside);
            drop(gate.enter());
        }
    }
}
