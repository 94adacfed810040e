//! A queue between two threads: one puts in, one takes out.

use std::mem::MaybeUninit;

use crate::sync::{AtomicUsize, Ordering, UnsafeCell};

/// Room for so many.
const ROOM: usize = 1024;

#[repr(align(128))]
struct Apart<T>(T);

/// The queue. What is in it when it is dropped is leaked.
pub(crate) struct Ring<T> {
    head: Apart<AtomicUsize>,
    tail: Apart<AtomicUsize>,
    places: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a place belongs to the taker from the moment that `head` passes it until `tail` does, and
// else to the putter; the two words are stored with release and loaded with acquire.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    pub(crate) fn new() -> Self {
        let places = (0..ROOM).map(|_| UnsafeCell::new(MaybeUninit::uninit()));
        Self {
            head: Apart(AtomicUsize::new(0)),
            tail: Apart(AtomicUsize::new(0)),
            places: places.collect(),
        }
    }

    /// Puts a value in. `tail` is the caller's memory of how far the other has come, 0 at first.
    ///
    /// # Errors
    ///
    /// The value, if there is no room.
    ///
    /// # Safety
    ///
    /// One thread at a time puts in.
    #[inline(always)]
    pub(crate) unsafe fn put(&self, value: T, tail: &mut usize) -> Result<(), T> {
        let head = self.head.0.load(Ordering::Relaxed);
        if head.wrapping_sub(*tail) >= ROOM {
            *tail = self.tail.0.load(Ordering::Acquire);
            if head.wrapping_sub(*tail) >= ROOM {
                return Err(value);
            }
        }
        // SAFETY: the place is ours, see above.
        unsafe { (*self.places[head % ROOM].get()).write(value) };
        self.head.0.store(head.wrapping_add(1), Ordering::Release);
        Ok(())
    }

    /// Takes a value out, if there is one. `head` is the caller's memory of how far the other has
    /// come, 0 at first.
    ///
    /// # Safety
    ///
    /// One thread at a time takes out.
    #[inline(always)]
    pub(crate) unsafe fn take(&self, head: &mut usize) -> Option<T> {
        let tail = self.tail.0.load(Ordering::Relaxed);
        if *head == tail {
            *head = self.head.0.load(Ordering::Acquire);
            if *head == tail {
                return None;
            }
        }
        // SAFETY: the place is ours, and was written, see above.
        let value = unsafe { (*self.places[tail % ROOM].get()).assume_init_read() };
        self.tail.0.store(tail.wrapping_add(1), Ordering::Release);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_in_order() {
        let ring = Ring::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut tail = 0;
                for value in 0..10_000 {
                    // SAFETY: this thread alone puts in.
                    while unsafe { ring.put(value, &mut tail) }.is_err() {
                        std::thread::yield_now();
                    }
                }
            });
            let mut head = 0;
            for expected in 0..10_000 {
                let value = loop {
                    // SAFETY: this thread alone takes out.
                    match unsafe { ring.take(&mut head) } {
                        Some(value) => break value,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(value, expected);
            }
        });
    }
}
