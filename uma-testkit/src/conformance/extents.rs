//! The model: which addresses are out.

use std::collections::BTreeMap;

use crate::sync::Mutex;

/// Address ranges that are out, by start.
#[derive(Default)]
pub(super) struct Extents(Mutex<BTreeMap<usize, usize>>);

impl Extents {
    /// Notes what was handed out, and that it overlaps nothing else that is.
    ///
    /// Call it after the memory was taken, and [`remove`](Self::remove) before it goes back: then it
    /// is right also with several threads.
    #[track_caller]
    pub(super) fn insert(&self, what: &str, start: usize, len: usize) {
        let end = start.checked_add(len).expect("memory that wraps around the address space");
        let mut extents = self.0.lock();
        if let Some((&other, &other_end)) = extents.range(..end).next_back() {
            assert!(
                other_end <= start,
                "{what} {start:#x}..{end:#x} overlaps {other:#x}..{other_end:#x}, which is out"
            );
        }
        extents.insert(start, end);
    }

    pub(super) fn remove(&self, start: usize) {
        self.0.lock().remove(&start);
    }
}
