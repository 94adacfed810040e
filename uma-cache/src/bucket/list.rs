//! Buckets in a list, linked through their header words:
//!
//! ```text
//!   first --> [ link | capacity | count | ... ] --> [ link | capacity | count | ... ] --> null
//! ```
//!
//! So a list takes no memory of its own, and to move a bucket touches no other. What the header says otherwise,
//! its allocations, must have been harvested before. No lock: a list is a part of what the depot's lock guards.

use core::ptr::{self, NonNull};

use super::{Bucket, Owned, Word};

/// A list that owns its buckets: harvested ones, whose count is in `base`.
pub(crate) struct List {
    first: *mut Bucket,
    len: usize,
    items: usize,
}

// SAFETY: the list owns its buckets, and owners may be any thread.
unsafe impl Send for List {}

impl List {
    pub(crate) const fn new() -> Self {
        Self { first: ptr::null_mut(), len: 0, items: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Items in all the buckets.
    pub(crate) const fn items(&self) -> usize {
        self.items
    }

    /// Puts a harvested bucket in front.
    pub(crate) fn push(&mut self, bucket: Owned) {
        debug_assert!(!bucket.is_none() && bucket.is_settled(), "harvest first");
        debug_assert!(bucket.base() == bucket.count());
        self.len += 1;
        self.items += usize::from(bucket.count());
        let raw = bucket.into_raw();
        // SAFETY: we own the bucket; its count is kept in `base`.
        unsafe { *raw.as_ref().word.get() = Word { link: self.first } };
        self.first = raw.as_ptr();
    }

    /// Takes the first bucket.
    pub(crate) fn pop(&mut self) -> Option<Owned> {
        let raw = NonNull::new(self.first)?;
        // SAFETY: the list owns the bucket, and its word holds the link.
        self.first = unsafe { (*raw.as_ref().word.get()).link };
        // SAFETY: the bucket left the list, so it is ours alone.
        let mut bucket = unsafe { Owned::from_raw(raw) };
        bucket.settle(bucket.base());
        self.len -= 1;
        self.items -= usize::from(bucket.count());
        Some(bucket)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use uma_core::Request;

    use super::*;
    use crate::bucket::tests::{Heap, free, item};

    #[test]
    fn lists_keep_counts() {
        let mut list = List::new();
        let one = item();
        let mut full = Owned::new_in(&Heap, 2, Request::NOWAIT).unwrap();
        // SAFETY: the item is ours.
        assert!(unsafe { full.push(one) });
        let _ = full.harvest();
        list.push(full);
        list.push(Owned::new_in(&Heap, 2, Request::NOWAIT).unwrap());
        assert_eq!((list.len(), list.items()), (2, 1));
        list.pop().unwrap().delete_in(&Heap);
        let mut full = list.pop().unwrap();
        assert_eq!((list.len(), list.items(), full.count()), (0, 0, 1));
        assert!(list.pop().is_none());
        assert_eq!(full.pop(), Some(one));
        let _ = full.harvest();
        full.delete_in(&Heap);
        free(one);
    }
}
