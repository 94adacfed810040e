//! A few items whose contents the model checker watches.

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use uma_core::{AllocError, Item, ItemSource, PageError, Request};

use super::checker::{Mutex, UnsafeCell};

type Payload = UnsafeCell<u64>;

/// Uses an item, as its owner may. If another uses it too, it is a race.
pub(crate) fn touch(item: Item) {
    // SAFETY: the item is one of a pool, which lives as long as the model runs.
    let payload = unsafe { item.cast::<Payload>().as_ref() };
    // SAFETY: that we are alone is what the model checker checks.
    payload.with_mut(|value| unsafe { *value += 1 });
}

/// A pool of items. At its end all of them must be back.
pub(crate) struct Pool {
    items: Vec<NonNull<Payload>>,
    free: Mutex<Vec<Item>>,
    /// Imports to come that fail. Not part of what is modelled.
    failures: AtomicU64,
}

// SAFETY: the pointers are given out by the rules of `ItemSource`.
unsafe impl Send for Pool {}
// SAFETY: as above; the free ones are behind a mutex.
unsafe impl Sync for Pool {}

impl Pool {
    pub(crate) fn new(count: usize) -> Self {
        let payload = || Box::leak(Box::new(UnsafeCell::new(0)));
        let items: Vec<_> = (0..count).map(|_| NonNull::from(payload())).collect();
        let free = Mutex::new(items.iter().map(|item| Item::new(item.cast())).collect());
        Self { items, free, failures: AtomicU64::new(0) }
    }

    /// Lets the next so many imports fail.
    pub(crate) fn fail(&self, count: u64) {
        self.failures.store(count, Ordering::Relaxed);
    }

    /// Items that are here.
    pub(crate) fn free(&self) -> usize {
        self.free.lock().unwrap().len()
    }
}

// SAFETY: items are in the list of free ones, or out.
unsafe impl ItemSource for Pool {
    fn layout(&self) -> Layout {
        Layout::new::<Payload>()
    }

    fn import(&self, into: &mut [MaybeUninit<Item>], _: Request) -> Result<usize, AllocError> {
        let failing = |left: u64| left.checked_sub(1);
        if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, failing).is_ok() {
            return Err(AllocError::Pages(PageError::Exhausted));
        }
        let mut free = self.free.lock().unwrap();
        let count = into.len().min(free.len());
        if count == 0 {
            return Err(AllocError::Pages(PageError::Exhausted));
        }
        for room in &mut into[..count] {
            let item = free.pop().expect("there are so many");
            touch(item);
            room.write(item);
        }
        Ok(count)
    }

    unsafe fn release(&self, items: &[Item]) {
        let mut free = self.free.lock().unwrap();
        for &item in items {
            touch(item);
            assert!(!free.contains(&item), "an item came back twice");
            free.push(item);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert_eq!(self.free(), self.items.len(), "items were lost");
        for &item in &self.items {
            // SAFETY: it was leaked in `new`, and is back.
            drop(unsafe { Box::from_raw(item.as_ptr()) });
        }
    }
}
