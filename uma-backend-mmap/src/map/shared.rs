//! A value with several owners, in memory that may be refused: a map is its user's and its submaps'.
//!
//! An `Arc` would do, but it comes from the global allocator, under which this crate may stand, and ends the
//! process where there is no memory. So the value lies in a piece of [`Metadata`], which lies beside it:
//!
//! ```text
//!   Shared --.
//!   Shared --+--> | owners | memory | value |      all go with the last Shared
//!   Shared --'
//! ```

use std::alloc::Layout;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;

use uma_core::Metadata;

use crate::sync::{AtomicUsize, Ordering, fence};

struct Owned<T, M> {
    owners: AtomicUsize,
    /// Where this lies.
    memory: ManuallyDrop<M>,
    value: ManuallyDrop<T>,
}

/// An owner.
pub(super) struct Shared<T, M: Metadata>(NonNull<Owned<T, M>>);

// SAFETY: owners on several threads read the value, and any of them may drop it; the memory is used by the last one
// alone.
unsafe impl<T: Send + Sync, M: Metadata + Send> Send for Shared<T, M> {}
// SAFETY: as above: a reference can be cloned.
unsafe impl<T: Send + Sync, M: Metadata + Send> Sync for Shared<T, M> {}

impl<T, M: Metadata> Shared<T, M> {
    const LAYOUT: Layout = Layout::new::<Owned<T, M>>();

    /// The first owner. `None` without memory: the value is dropped.
    pub(super) fn new(value: T, memory: M) -> Option<Self> {
        let at = memory.alloc_meta(Self::LAYOUT)?.cast::<Owned<T, M>>();
        let (memory, value) = (ManuallyDrop::new(memory), ManuallyDrop::new(value));
        // SAFETY: it is memory of that layout, and ours.
        unsafe { at.write(Owned { owners: AtomicUsize::new(1), memory, value }) };
        Some(Self(at))
    }

    fn owned(&self) -> &Owned<T, M> {
        // SAFETY: the memory stays as long as there is an owner.
        unsafe { self.0.as_ref() }
    }
}

impl<T, M: Metadata> Clone for Shared<T, M> {
    fn clone(&self) -> Self {
        // The count has room for all that fit in memory: each is a map that has a mapping or a mark.
        self.owned().owners.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl<T, M: Metadata> Deref for Shared<T, M> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.owned().value
    }
}

impl<T, M: Metadata> Drop for Shared<T, M> {
    fn drop(&mut self) {
        /// Also if the value's own drop unwinds.
        struct Rest<T, M: Metadata>(NonNull<Owned<T, M>>);

        impl<T, M: Metadata> Drop for Rest<T, M> {
            fn drop(&mut self) {
                // SAFETY: the value was dropped, and nobody else knows the place: what says where it came from is
                // taken out, and takes it back. The layout is that of `new`.
                unsafe {
                    let memory = ManuallyDrop::take(&mut self.0.as_mut().memory);
                    memory.free_meta(self.0.cast(), Shared::<T, M>::LAYOUT);
                }
            }
        }

        // Release: what this owner did with the value is before its end.
        if self.owned().owners.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            let mut rest = Rest(self.0);
            // SAFETY: there was one owner left, which is this one, so nobody becomes one any more.
            unsafe { ManuallyDrop::drop(&mut rest.0.as_mut().value) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Memory of the tests' own allocator, counted, for so many pieces.
    struct Few<'a>(&'a Cell<usize>);

    // SAFETY: pieces of the allocator, each of its own.
    unsafe impl Metadata for Few<'_> {
        fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
            self.0.set(self.0.get().checked_sub(1)?);
            // SAFETY: the layout is that of a value with a count.
            NonNull::new(unsafe { std::alloc::alloc(layout) })
        }

        unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
            self.0.set(self.0.get() + 1);
            // SAFETY: passed on to the caller.
            unsafe { std::alloc::dealloc(at.as_ptr(), layout) }
        }
    }

    struct Told<'a>(&'a Cell<usize>, bool);

    impl Drop for Told<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            assert!(!self.1, "on purpose");
        }
    }

    #[test]
    fn the_last_owner_ends_it() {
        let (left, dropped) = (Cell::new(1), Cell::new(0));
        let one = Shared::new(Told(&dropped, false), Few(&left)).unwrap();
        let two = one.clone();
        drop(one);
        assert_eq!((left.get(), dropped.get()), (0, 0));
        assert!(!two.1);
        drop(two);
        assert_eq!((left.get(), dropped.get()), (1, 1));
    }

    #[test]
    fn without_memory_the_value_is_dropped() {
        let (left, dropped) = (Cell::new(0), Cell::new(0));
        assert!(Shared::new(Told(&dropped, false), Few(&left)).is_none());
        assert_eq!((left.get(), dropped.get()), (0, 1));
    }

    #[test]
    fn a_value_that_unwinds_gives_its_memory_back() {
        let (left, dropped) = (Cell::new(1), Cell::new(0));
        let one = Shared::new(Told(&dropped, true), Few(&left)).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| drop(one))).is_err());
        assert_eq!((left.get(), dropped.get()), (1, 1));
    }

    /// What each owner has done is there for the one that ends it.
    #[test]
    fn owners_on_many_threads() {
        struct Heap;

        // SAFETY: as above.
        unsafe impl Metadata for Heap {
            fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
                // SAFETY: as above.
                NonNull::new(unsafe { std::alloc::alloc(layout) })
            }

            unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
                // SAFETY: passed on to the caller.
                unsafe { std::alloc::dealloc(at.as_ptr(), layout) }
            }
        }

        struct All<'a>([AtomicBool; 4], &'a AtomicUsize);

        impl Drop for All<'_> {
            fn drop(&mut self) {
                let all = self.0.iter().all(|flag| flag.load(Ordering::Relaxed));
                self.1.fetch_add(usize::from(all), Ordering::Relaxed);
            }
        }

        let whole = AtomicUsize::new(0);
        for _ in 0..50 {
            let first = Shared::new(All(Default::default(), &whole), Heap).unwrap();
            std::thread::scope(|scope| {
                for place in 1..4 {
                    let owner = first.clone();
                    scope.spawn(move || {
                        (*owner).0[place].store(true, Ordering::Relaxed);
                    });
                }
                (*first).0[0].store(true, Ordering::Relaxed);
                drop(first);
            });
        }
        assert_eq!(whole.into_inner(), 50);
    }
}
