//! Items that were freed, and are not to be allocated again at once.
//!
//! First in, first out, in a few rings so that threads seldom meet:
//!
//! ```text
//!   ring:  [ newest ... oldest ]  --- full: the oldest goes on to the caches -->
//! ```
//!
//! Lock order: a ring's lock is a leaf. Nothing is called under it.

use core::alloc::Layout;
use core::ptr::NonNull;

use lock_api::RawMutex;
use uma_core::{Item, Metadata};

use crate::sync::{AtomicUsize, Mutex, Ordering};

const RINGS: usize = 4;

struct Ring {
    items: NonNull<Item>,
    capacity: usize,
    oldest: usize,
    count: usize,
}

// SAFETY: it owns its memory, which belongs to no thread, and items may be sent.
unsafe impl Send for Ring {}

impl Ring {
    const fn pop(&mut self) -> Option<Item> {
        if self.count == 0 {
            return None;
        }
        // SAFETY: `oldest` is below the capacity, and `count` items from there on are initialised.
        let item = unsafe { self.items.add(self.oldest).read() };
        self.oldest = (self.oldest + 1) % self.capacity;
        self.count -= 1;
        Some(item)
    }

    fn push(&mut self, item: Item) -> Option<Item> {
        let out = if self.count == self.capacity { self.pop() } else { None };
        if self.capacity == 0 {
            return Some(item);
        }
        let at = (self.oldest + self.count) % self.capacity;
        // SAFETY: there is room for `capacity` items.
        unsafe { self.items.add(at).write(item) };
        self.count += 1;
        out
    }
}

pub(crate) struct Quarantine<L: RawMutex> {
    rings: [Mutex<L, Ring>; RINGS],
    /// Items in all rings.
    held: AtomicUsize,
}

impl<L: RawMutex> Quarantine<L> {
    const fn layout(items: u32) -> Option<(Layout, usize)> {
        let each = (items as usize).div_ceil(RINGS);
        match Layout::array::<Item>(each * RINGS) {
            Ok(layout) => Some((layout, each)),
            Err(_) => None,
        }
    }

    /// A quarantine of about so many items, or `None` if there is no memory for it.
    pub(crate) fn new(items: u32, meta: &impl Metadata) -> Option<Self> {
        let (layout, each) = Self::layout(items)?;
        let memory = match layout.size() {
            0 => NonNull::dangling(),
            _ => meta.alloc_meta(layout)?.cast::<Item>(),
        };
        let ring = |index: usize| Ring {
            // SAFETY: the memory has room for `RINGS` times as many.
            items: unsafe { memory.add(index * each) },
            capacity: each,
            oldest: 0,
            count: 0,
        };
        let rings = core::array::from_fn(|index| Mutex::from_raw(L::INIT, ring(index)));
        Some(Self { rings, held: AtomicUsize::new(0) })
    }

    /// Gives its memory back. The items in it are forgotten.
    pub(crate) fn free(&mut self, items: u32, meta: &impl Metadata) {
        if let Some((layout, _)) = Self::layout(items)
            && layout.size() != 0
        {
            let memory = self.rings[0].get_mut().items;
            // SAFETY: `new` got it with this layout for the same number of items, and nothing uses it any
            // more.
            unsafe { meta.free_meta(memory.cast(), layout) };
        }
        self.rings.iter_mut().for_each(|ring| ring.get_mut().capacity = 0);
    }

    /// Puts an item in, and takes out the one whose place it needs.
    pub(crate) fn push(&self, item: Item) -> Option<Item> {
        // Threads have stacks far from each other, so most of the time each has a ring of its own.
        let here = 0_u8;
        let ring = ((&raw const here).addr() >> 16).wrapping_mul(0x9e37_79b9) >> 8;
        let mut ring = self.rings[ring % RINGS].lock();
        let out = ring.push(item);
        if out.is_none() {
            // Under the lock: a drain that takes the item out counts after this.
            self.held.fetch_add(1, Ordering::Relaxed);
        }
        out
    }

    /// Takes everything out. If `each` unwinds, the rest still comes out.
    pub(crate) fn drain(&self, each: &mut dyn FnMut(Item)) {
        struct Rest<'a, L: RawMutex>(&'a Quarantine<L>, &'a mut dyn FnMut(Item));

        impl<L: RawMutex> Rest<'_, L> {
            fn run(&mut self) {
                for ring in &self.0.rings {
                    loop {
                        let item = ring.lock().pop();
                        let Some(item) = item else { break };
                        self.0.held.fetch_sub(1, Ordering::Relaxed);
                        (self.1)(item);
                    }
                }
            }
        }

        impl<L: RawMutex> Drop for Rest<'_, L> {
            fn drop(&mut self) {
                // After a panic; a second one aborts.
                self.run();
            }
        }

        let mut rest = Rest(self, each);
        rest.run();
        core::mem::forget(rest);
    }

    /// Items in it.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes all locks and keeps them.
    pub(crate) fn lock_all(&self) {
        self.rings.iter().for_each(|ring| core::mem::forget(ring.lock()));
    }

    /// # Safety
    ///
    /// [`lock_all`](Self::lock_all) was called, and this was not called since.
    pub(crate) unsafe fn unlock_all(&self) {
        // SAFETY: passed on to the caller.
        self.rings.iter().for_each(|ring| unsafe { ring.force_unlock() });
    }
}
