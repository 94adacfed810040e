//! Who takes a group's locks without being of a zone in it: whoever changes its limit.
//!
//! A fork knows of a group by the zones that have joined it. Those of a zone may take the group's locks at any
//! time: their zone is there as long as they are. Others count themselves in while they have one of the locks, if
//! a zone has joined; and the last zone to leave waits for them, which takes no longer than they have it. So a
//! fork that finds no zone finds no lock taken.
//!
//! ```text
//!    63               32 31                0
//!   +-------------------+-------------------+
//!   |  zones            |  from outside     |      from outside != 0  =>  zones != 0
//!   +-------------------+-------------------+
//! ```
//!
//! One word, so that one atomic operation decides who comes first.

use crate::gate::Admission;
use crate::sync::{AtomicU64, Ordering, const_unless_modelled};

const ONE_ZONE: u64 = 1 << 32;

const fn zones(word: u64) -> u64 {
    word >> 32
}

const fn outsiders(word: u64) -> u64 {
    word & (ONE_ZONE - 1)
}

/// The zones that have joined a group or one below it, and those from outside who have one of its locks.
pub(super) struct Outside(AtomicU64);

impl Outside {
    const_unless_modelled! {
        pub(super) const fn new() -> Self {
            Self(AtomicU64::new(0))
        }
    }

    pub(super) fn join(&self) {
        self.0.fetch_add(ONE_ZONE, Ordering::SeqCst);
    }

    /// A zone leaves. The last one does so when nobody from outside has a lock; `relax` passes the time.
    pub(super) fn leave(&self, relax: &impl Fn()) {
        let leave = |word| match zones(word) == 1 && outsiders(word) != 0 {
            true => None,
            false => Some(word - ONE_ZONE),
        };
        while self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, leave).is_err() {
            relax();
        }
    }

    /// In the copy of a process: whoever had a lock is in the original.
    pub(super) fn nobody(&self) {
        self.0.fetch_and(!(ONE_ZONE - 1), Ordering::SeqCst);
    }
}

/// Until it is dropped, a zone is in the group, and a fork knows of its locks.
pub(crate) struct Entered<'a>(&'a Outside);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<'a> Admission for &'a Outside {
    type Pass = Entered<'a>;

    fn enter(self) -> Option<Entered<'a>> {
        let enter = |word| (zones(word) != 0).then_some(word + 1);
        let entered = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter);
        entered.ok().map(|_| Entered(self))
    }
}
