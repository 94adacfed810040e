//! A few items on pages of their own, between guard pages: FreeBSD's memguard(9), Linux' KFENCE, LLVM's
//! GWP-ASan.
//!
//! ```text
//!   | guard |      item| guard |item      | guard |      item| guard | ...        one run of pages
//!            slot 0     ^ any access here   slot 1
//!                         faults            odd slots have the item in front
//! ```
//!
//! Whoever runs over the end of an item, or before it, or uses it after it was freed, is stopped by the
//! machine at that instruction. What is left of the item's pages beside it is a red zone.
//!
//! For each item in the pool, one of the zone's own items, its *shadow*, is held back: so the pool's items
//! count in limits and statistics as any other, and there is always something to fall back on when the pool
//! is full or a page cannot be had.
//!
//! Lock order: the pool's lock is a leaf. Pages are protected without it.

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use lock_api::RawMutex;
use uma_core::{Item, PageRun, PageSupplier, Request};

use crate::pattern::{self, RED};
use crate::report::Fault;
use crate::sync::{AtomicPtr, AtomicU32, Mutex, Ordering};
use crate::witness::Trace;

/// Items that a pool has room for (GWP-ASan has sixteen, KFENCE 255).
pub const SLOTS: usize = 32;

/// Threads count their allocations in one of so many places.
const TICKS: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its pages are protected. Never used, or freed.
    Resting,
    /// Some thread has it in hand.
    Busy,
    /// In use.
    Live,
}

#[derive(Clone, Copy)]
struct Slot {
    stage: Stage,
    shadow: Option<Item>,
    /// When it was freed, in frees of the pool: those longest ago are used first.
    since: u64,
    allocated: Trace,
    freed: Trace,
}

struct Books {
    slots: [Slot; SLOTS],
    frees: u64,
}

#[repr(align(64))]
struct Tick(AtomicU32);

/// Room between guard pages for a few items of one zone.
pub struct GuardPool<L: RawMutex, P: PageSupplier> {
    pages: P,
    item: Layout,
    one_in: u32,
    ticks: [Tick; TICKS],
    /// The run, from the first item that was sampled on.
    base: AtomicPtr<u8>,
    flag: AtomicU32,
    books: Mutex<L, Books>,
}

/// What is known of an address in a pool.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The item on whose pages, or nearest to whose pages, it lies.
    pub item: usize,
    /// Whether that is in use.
    pub live: bool,
    /// Who allocated it last.
    pub allocated: Trace,
    /// Who freed it last.
    pub freed: Trace,
}

impl<L: RawMutex, P: PageSupplier> GuardPool<L, P> {
    /// A pool for one in `one_in` items of this layout. It takes no pages before the first.
    pub const fn new(pages: P, item: Layout, one_in: u32) -> Self {
        let slot = Slot {
            stage: Stage::Resting,
            shadow: None,
            since: 0,
            allocated: Trace::NONE,
            freed: Trace::NONE,
        };
        Self {
            pages,
            item,
            one_in,
            ticks: [const { Tick(AtomicU32::new(0)) }; TICKS],
            base: AtomicPtr::new(ptr::null_mut()),
            flag: AtomicU32::new(0),
            books: Mutex::const_new(L::INIT, Books { slots: [slot; SLOTS], frees: 0 }),
        }
    }

    /// Whether this allocation is one to place here: one in so many of those that a thread makes.
    pub fn is_due(&self) -> bool {
        if self.one_in == 0 {
            return false;
        }
        // Threads have stacks far from each other, so they seldom count in the same place.
        let here = 0_u8;
        let tick = ((&raw const here).addr() >> 16).wrapping_mul(0x9e37_79b9) >> 8;
        let tick = &self.ticks[tick % TICKS].0;
        // Two threads that count as one lose nothing worth an atomic addition.
        let count = tick.load(Ordering::Relaxed).wrapping_add(1);
        tick.store(if count >= self.one_in { 0 } else { count }, Ordering::Relaxed);
        count >= self.one_in
    }

    fn page(&self) -> usize {
        self.pages.page_size()
    }

    /// Bytes of pages for one item, and for it and the guard page before it.
    fn room(&self) -> (usize, usize) {
        let room = self.item.size().next_multiple_of(self.page());
        (room, room + self.page())
    }

    fn run(&self) -> Option<Layout> {
        let len = self.room().1.checked_mul(SLOTS)?.checked_add(self.page())?;
        Layout::from_size_align(len, self.page()).ok()
    }

    /// The first byte of a slot's pages.
    fn room_of(&self, base: NonNull<u8>, slot: usize) -> NonNull<u8> {
        // SAFETY: the run has so many slots.
        unsafe { base.add(slot * self.room().1 + self.page()) }
    }

    /// How far into its pages a slot's item begins: at the end, but for odd slots.
    fn start_of(&self, slot: usize) -> usize {
        let size = self.item.size().next_multiple_of(self.item.align());
        if slot % 2 == 1 { 0 } else { self.room().0 - size.min(self.room().0) }
    }

    /// The run, made if need be: all of it protected.
    fn base(&self) -> Option<NonNull<u8>> {
        if let Some(base) = NonNull::new(self.base.load(Ordering::Acquire)) {
            return Some(base);
        }
        let protects = self.pages.protects()?;
        if self.item.align() > self.page() {
            return None;
        }
        let run = self.pages.alloc_pages(self.run()?, Request::NOWAIT).ok()?;
        let (base, len) = (run.base(), run.layout().size());
        // SAFETY: the run is ours, and nobody uses it.
        let protected = unsafe { protects.protect(base, len) };
        let (null, new) = (ptr::null_mut(), base.as_ptr());
        let put = match protected {
            Ok(()) => self.base.compare_exchange(null, new, Ordering::AcqRel, Ordering::Acquire),
            Err(_) => Err(null),
        };
        if put.is_ok() {
            // Read when the pool is dropped.
            self.flag.store(u32::from(run.flag()), Ordering::Relaxed);
            return Some(base);
        }
        // SAFETY: as above.
        if unsafe { protects.unprotect(base, len) }.is_ok() {
            // SAFETY: it came from there just now.
            unsafe { self.pages.free_pages(run) };
        }
        NonNull::new(self.base.load(Ordering::Acquire))
    }

    /// A place between guard pages, with `shadow` held back for it. `None` if there is none just now.
    pub fn place(&self, shadow: Item, here: &Trace) -> Option<Item> {
        let base = self.base()?;
        let protects = self.pages.protects()?;
        let index = self.claim()?;
        let (room, _) = self.room();
        let pages = self.room_of(base, index);
        // SAFETY: the slot is ours while it is busy, and its pages are whole ones of the run.
        if unsafe { protects.unprotect(pages, room) }.is_err() {
            self.books.lock().slots[index].stage = Stage::Resting;
            return None;
        }
        // SAFETY: as above.
        unsafe { pattern::fill(pages.as_ptr(), room, RED) };
        let slot = Slot {
            stage: Stage::Live,
            shadow: Some(shadow),
            since: 0,
            allocated: *here,
            freed: Trace::NONE,
        };
        self.books.lock().slots[index] = slot;
        // SAFETY: inside the slot's pages.
        Some(Item::new(unsafe { pages.add(self.start_of(index)) }))
    }

    /// Takes the slot that was freed longest ago.
    fn claim(&self) -> Option<usize> {
        let mut books = self.books.lock();
        let resting = books.slots.iter_mut().enumerate();
        let (index, slot) = resting
            .filter(|(_, slot)| slot.stage == Stage::Resting)
            .min_by_key(|(_, slot)| slot.since)?;
        slot.stage = Stage::Busy;
        Some(index)
    }

    /// The slot at or before an address in the pool, and the offset of the address from its pages.
    fn slot_at(&self, address: usize) -> Option<(NonNull<u8>, usize, isize)> {
        let base = NonNull::new(self.base.load(Ordering::Acquire))?;
        let offset = address.wrapping_sub(base.addr().get());
        if offset >= self.run()?.size() {
            return None;
        }
        let (_, stride) = self.room();
        let slot = (offset / stride).min(SLOTS - 1);
        // Both are less than the run is long.
        Some((base, slot, offset as isize - (slot * stride + self.page()) as isize))
    }

    /// Whether an address lies in the pool.
    pub fn contains(&self, address: usize) -> bool {
        let Some(base) = NonNull::new(self.base.load(Ordering::Acquire)) else { return false };
        let len = self.room().1 * SLOTS + self.page();
        address.wrapping_sub(base.addr().get()) < len
    }

    /// What is known of an address: who had to do with the item there. For reports, and for handlers of
    /// the signal that an access to a guard page raises, if they may take a lock.
    pub fn explain(&self, address: usize) -> Option<Known> {
        let (base, slot, _) = self.slot_at(address)?;
        let item = self.room_of(base, slot).addr().get() + self.start_of(slot);
        let slot = self.books.lock().slots[slot];
        let (allocated, freed) = (slot.allocated, slot.freed);
        Some(Known { item, live: slot.stage != Stage::Resting, allocated, freed })
    }

    /// Whether an address lies in an item of the pool that is in use.
    pub fn holds(&self, address: usize) -> bool {
        self.explain(address).is_some_and(|known| {
            known.live && (known.item..known.item + self.item.size()).contains(&address)
        })
    }

    /// Takes an item back from its user, before dtor.
    ///
    /// # Errors
    ///
    /// What is wrong with it; then nothing happened.
    ///
    /// # Safety
    ///
    /// The address lies in the pool, and if it is that of an item in use, the caller gives that up.
    pub unsafe fn take_back(&self, item: Item, here: &Trace) -> Result<(), Fault> {
        let (_, index, offset) = self.slot_at(item.addr()).ok_or(Fault::NoItem)?;
        let start = self.start_of(index) as isize;
        let mut books = self.books.lock();
        let slot = &mut books.slots[index];
        if offset != start {
            let within = offset > start && (offset - start) < self.item.size() as isize;
            return Err(if within {
                Fault::Interior((offset - start) as usize)
            } else {
                Fault::NoItem
            });
        }
        if slot.stage != Stage::Live {
            return Err(Fault::DoubleFree);
        }
        slot.stage = Stage::Busy;
        slot.freed = *here;
        Ok(())
    }

    /// Leaves an item that `take_back` accepted to its user after all.
    ///
    /// # Safety
    ///
    /// The caller owns the item, which is one of the pool that was taken back, and gives it up.
    pub unsafe fn keep(&self, item: Item) {
        if let Some((_, slot, _)) = self.slot_at(item.addr()) {
            self.books.lock().slots[slot].stage = Stage::Live;
        }
    }

    /// What was written beside an item that `take_back` accepted, on its pages.
    ///
    /// # Safety
    ///
    /// The caller owns the item, which is one of the pool.
    pub unsafe fn look(&self, item: Item) -> Option<Fault> {
        let (base, slot, _) = self.slot_at(item.addr())?;
        let (room, _) = self.room();
        let (pages, start, size) =
            (self.room_of(base, slot), self.start_of(slot), self.item.size());
        let behind = room - start - size;
        // SAFETY: the pages are accessible while the slot is busy, and were filled by `place`. The fill
        // behind the item goes on with that before it, as far as the phase is concerned.
        unsafe {
            if let Some(bad) = pattern::differs(pages.as_ptr(), start, RED) {
                return Some(Fault::Underflow(start - bad.offset, bad.found));
            }
            let phase = (start + size) % 4;
            let skip = if phase == 0 { 0 } else { (4 - phase).min(behind) };
            let end = item.as_ptr().add(size);
            let red = RED.to_ne_bytes();
            for offset in 0..skip {
                let found = end.add(offset).read();
                if found != red[phase + offset] {
                    return Some(Fault::Overflow(offset, found));
                }
            }
            let bad = pattern::differs(end.add(skip), behind - skip, RED)?;
            Some(Fault::Overflow(skip + bad.offset, bad.found))
        }
    }

    /// Makes the pages of an item inaccessible, and returns its shadow.
    ///
    /// # Safety
    ///
    /// The caller owns the item, which is one of the pool in hand (placed, or taken back), and gives it up.
    pub unsafe fn bury(&self, item: Item) -> Option<Item> {
        let (base, index, _) = self.slot_at(item.addr())?;
        let pages = self.room_of(base, index);
        if let Some(protects) = self.pages.protects() {
            // Where that fails, the pages stay accessible until they are used again, and nothing is found.
            // SAFETY: whole pages of the run, and the slot is ours.
            let _ = unsafe { protects.protect(pages, self.room().0) };
        }
        let mut books = self.books.lock();
        books.frees += 1;
        let since = books.frees;
        let slot = &mut books.slots[index];
        (slot.stage, slot.since) = (Stage::Resting, since);
        slot.shadow.take()
    }

    /// Calls `visit` with every item of the pool that is in use, and who allocated it.
    pub fn for_each_live(&self, visit: &mut dyn FnMut(usize, Trace)) {
        let Some(base) = NonNull::new(self.base.load(Ordering::Acquire)) else { return };
        for index in 0..SLOTS {
            let slot = self.books.lock().slots[index];
            if slot.stage == Stage::Live {
                visit(
                    self.room_of(base, index).addr().get() + self.start_of(index),
                    slot.allocated,
                );
            }
        }
    }

    /// Takes the lock and keeps it, for fork(2).
    pub fn prefork(&self) {
        core::mem::forget(self.books.lock());
    }

    /// Lets go of it.
    ///
    /// # Safety
    ///
    /// [`prefork`](Self::prefork) was called on this thread, or on the one that it is the copy of.
    pub unsafe fn postfork(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.books.force_unlock() };
    }
}

impl<L: RawMutex, P: PageSupplier> Drop for GuardPool<L, P> {
    /// Gives the run back, unless an item of it is in use.
    fn drop(&mut self) {
        let Some(base) = NonNull::new(*self.base.get_mut()) else { return };
        let busy = |slot: &Slot| slot.stage != Stage::Resting;
        if self.books.get_mut().slots.iter().any(busy) {
            return;
        }
        let (Some(layout), Some(protects)) = (self.run(), self.pages.protects()) else { return };
        // SAFETY: the run is ours, and nobody uses it. Its flag fits in a byte, from which it was made.
        unsafe {
            if protects.unprotect(base, layout.size()).is_ok() {
                let flag = *self.flag.get_mut() as u8;
                self.pages.free_pages(PageRun::from_parts(base, layout, false, flag));
            }
        }
    }
}

impl<L: RawMutex, P: PageSupplier> core::fmt::Debug for GuardPool<L, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("GuardPool")
            .field("item", &self.item)
            .field("one_in", &self.one_in)
            .finish_non_exhaustive()
    }
}
