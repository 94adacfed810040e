//! `mempool`: elements from anywhere, some of which are kept for when there are no others.
//!
//! An allocation asks the allocator first, as one that must not try hard; then the reserve; then the allocator
//! again, which may now; and then, if the caller may block, waits until somebody frees an element. So as long
//! as users free what they have, one that may block never fails. A free refills the reserve first.
//!
//! Lock: the reserve's, a leaf; neither allocator is called under it. Who waits is listed under it, and parks.

use core::ffi::c_void;
use core::fmt;
use std::thread::{self, Thread};
use std::time::Duration;

use super::{Gfp, SYSTEM};
use crate::common::fork::{Guard, Lock};
use crate::common::memory::push;

/// Allocates an element: `mempool_alloc_t`, with `gfp_t` and the pool's data.
pub type AllocElement = unsafe extern "C-unwind" fn(u32, *mut c_void) -> *mut c_void;
/// Frees an element: `mempool_free_t`, with the element and the pool's data.
pub type FreeElement = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void);

/// Where elements come from and go to.
#[derive(Clone, Copy, Debug)]
pub struct Elements {
    /// Allocates one, or returns null.
    pub alloc: AllocElement,
    /// Frees one.
    pub free: FreeElement,
    /// Passed to both.
    pub data: *mut c_void,
}

// SAFETY: whoever makes a pool promises that the functions may be called on any thread.
unsafe impl Send for Elements {}
// SAFETY: as above.
unsafe impl Sync for Elements {}

/// The longest that a caller waits before it asks the allocator again: elements may be freed past the pool.
const PATIENCE: Duration = Duration::from_secs(5);

/// A pool of elements with a reserve (`mempool_t`).
#[derive(Debug)]
pub struct Mempool {
    elements: Elements,
    reserve: Lock<Reserve>,
}

#[derive(Debug)]
struct Reserve {
    /// Never more than `least`, for which there is room.
    kept: Vec<Element>,
    least: usize,
    waiting: Vec<Thread>,
}

impl Reserve {
    /// Fills the places that are null, which are so many, if it has enough.
    fn take(&mut self, missing: usize, places: &mut [*mut c_void]) -> bool {
        if self.kept.len() < missing {
            return false;
        }
        for place in places.iter_mut().filter(|place| place.is_null()) {
            if let Some(element) = self.kept.pop() {
                *place = element.0;
            }
        }
        true
    }
}

#[derive(Debug)]
struct Element(*mut c_void);

// SAFETY: it is the pool's alone, and whoever made the pool promises that elements may change threads.
unsafe impl Send for Element {}

/// The reserve of a pool could not be filled: there was no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoReserve;

impl fmt::Display for NoReserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory for the reserve of the pool")
    }
}

impl core::error::Error for NoReserve {}

impl Mempool {
    /// A pool with `least` elements in reserve, at least one (`mempool_create`), allocated with `gfp`.
    ///
    /// # Errors
    ///
    /// If they could not be had.
    ///
    /// # Safety
    ///
    /// The functions of `elements` may be called with its data on any thread, as long as the pool lives;
    /// `free` takes what `alloc` returned.
    pub unsafe fn create(least: usize, elements: Elements, gfp: Gfp) -> Result<Self, NoReserve> {
        let least = least.max(1);
        let mut kept = Vec::new();
        kept.try_reserve_exact(least).map_err(|_| NoReserve)?;
        let reserve = Lock::new(Reserve { kept, least, waiting: Vec::new() });
        let pool = Self { elements, reserve };
        // What there is goes back if the rest is not to be had.
        if pool.fill(gfp) { Ok(pool) } else { Err(NoReserve) }
    }

    fn lock(&self) -> Guard<'_, Reserve> {
        self.reserve.lock()
    }

    /// Waits until an element was freed, but not for ever; or wakes for no reason.
    fn wait<'a>(&'a self, mut reserve: Guard<'a, Reserve>) -> Guard<'a, Reserve> {
        let me = thread::current();
        if push(&mut reserve.waiting, me.clone()).is_err() {
            // Nobody will wake us.
            drop(reserve);
            thread::sleep(Duration::from_millis(1));
            return self.lock();
        }
        drop(reserve);
        thread::park_timeout(PATIENCE);
        let mut reserve = self.lock();
        reserve.waiting.retain(|other| other.id() != me.id());
        reserve
    }

    fn ask(&self, gfp: Gfp) -> *mut c_void {
        // SAFETY: whoever made the pool allows the call.
        unsafe { (self.elements.alloc)(gfp.bits(), self.elements.data) }
    }

    fn give(&self, element: *mut c_void) {
        // SAFETY: whoever made the pool allows the call; the element came from `ask`.
        unsafe { (self.elements.free)(element, self.elements.data) }
    }

    /// Fills the reserve. Returns whether it is full.
    fn fill(&self, gfp: Gfp) -> bool {
        loop {
            {
                let reserve = self.lock();
                if reserve.kept.len() >= reserve.least {
                    return true;
                }
            }
            let element = self.ask(gfp);
            if element.is_null() {
                return false;
            }
            if let Err(surplus) = self.put(element) {
                self.give(surplus);
                return true;
            }
        }
    }

    /// Puts an element into the reserve, if that is not full.
    fn put(&self, element: *mut c_void) -> Result<(), *mut c_void> {
        let mut reserve = self.lock();
        if reserve.kept.len() >= reserve.least {
            return Err(element);
        }
        reserve.kept.push(Element(element));
        // All: one may want many, and another few.
        let waiting = core::mem::take(&mut reserve.waiting);
        drop(reserve);
        waiting.iter().for_each(Thread::unpark);
        Ok(())
    }

    /// An element, or null if there is none and `gfp` forbids to wait (`mempool_alloc`). `Gfp::ZERO` is
    /// misuse, because elements of the reserve are as they were left.
    pub fn alloc(&self, gfp: Gfp) -> *mut c_void {
        if gfp.contains(Gfp::ZERO) {
            SYSTEM.misuse("mempool_alloc", format_args!("__GFP_ZERO is not for elements of pools"));
        }
        let gfp = gfp.difference(Gfp::ZERO) | Gfp::NOMEMALLOC | Gfp::NORETRY | Gfp::NOWARN;
        // The first time without trying hard: there is a reserve for that.
        let mut now = gfp.difference(Gfp::DIRECT_RECLAIM | Gfp::IO);
        loop {
            let element = self.ask(now);
            if !element.is_null() {
                return element;
            }
            let mut reserve = self.lock();
            if let Some(element) = reserve.kept.pop() {
                return element.0;
            }
            if now != gfp {
                now = gfp;
                continue;
            }
            if !gfp.contains(Gfp::DIRECT_RECLAIM) {
                return core::ptr::null_mut();
            }
            let mut reserve = self.wait(reserve);
            if let Some(element) = reserve.kept.pop() {
                return element.0;
            }
        }
    }

    /// Allocates an element for every place that is null (`mempool_alloc_bulk`), waiting as long as it takes.
    /// Callers that want many and take them one by one could wait for each other for ever; these take what
    /// they want of the reserve all at once. More than the reserve is to have is misuse.
    pub fn alloc_bulk(&self, places: &mut [*mut c_void]) {
        let least = self.reserve().0;
        if places.len() > least {
            SYSTEM.misuse(
                "mempool_alloc_bulk",
                format_args!("{} elements are more than the {least} in reserve", places.len()),
            );
        }
        let gfp = Gfp::KERNEL | Gfp::NOMEMALLOC | Gfp::NORETRY | Gfp::NOWARN;
        let mut now = gfp.difference(Gfp::DIRECT_RECLAIM | Gfp::IO);
        loop {
            for place in places.iter_mut().filter(|place| place.is_null()) {
                *place = self.ask(now);
                if place.is_null() {
                    break;
                }
            }
            let missing = places.iter().filter(|place| place.is_null()).count();
            let mut reserve = self.lock();
            if reserve.take(missing, places) {
                return;
            }
            if now != gfp {
                now = gfp;
                continue;
            }
            let mut reserve = self.wait(reserve);
            if reserve.take(missing, places) {
                return;
            }
        }
    }

    /// An element of the reserve, or null (`mempool_alloc_preallocated`). Does not block.
    pub fn alloc_preallocated(&self) -> *mut c_void {
        self.lock().kept.pop().map_or(core::ptr::null_mut(), |element| element.0)
    }

    /// Frees an element (`mempool_free`): to the reserve, or if that is full, to where elements go. Null is
    /// nothing.
    ///
    /// # Safety
    ///
    /// It is null, or came from this pool and is not used or freed any more.
    pub unsafe fn free(&self, element: *mut c_void) {
        if element.is_null() {
            return;
        }
        if let Err(surplus) = self.put(element) {
            self.give(surplus);
        }
    }

    /// Puts elements into the reserve as long as there is room, and returns how many: the first so many
    /// (`mempool_free_bulk`). The others are still the caller's. Null is nothing, and counts.
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free), for those that are taken.
    pub unsafe fn free_bulk(&self, elements: &[*mut c_void]) -> usize {
        let full = |element: &&*mut c_void| element.is_null() || self.put(**element).is_ok();
        elements.iter().take_while(full).count()
    }

    /// Changes the size of the reserve, to one at least (`mempool_resize`). What is too much is freed; what is
    /// missing is allocated, and if there is no memory, comes with frees.
    ///
    /// # Errors
    ///
    /// If there is no memory to list so many. The pool is as it was.
    pub fn resize(&self, least: usize) -> Result<(), NoReserve> {
        let least = least.max(1);
        let mut room = Vec::new();
        room.try_reserve_exact(least).map_err(|_| NoReserve)?;
        let mut reserve = self.lock();
        reserve.least = least;
        // One by one: if a function of the pool unwinds, the others are still in reserve.
        while reserve.kept.len() > reserve.least
            && let Some(element) = reserve.kept.pop()
        {
            drop(reserve);
            self.give(element.0);
            reserve = self.lock();
        }
        // Another thread may have changed the size meanwhile.
        if reserve.least == least {
            room.append(&mut reserve.kept);
            core::mem::swap(&mut reserve.kept, &mut room);
        }
        drop(reserve);
        self.fill(Gfp::KERNEL);
        Ok(())
    }

    /// How many elements the reserve is to have, and how many it has.
    pub fn reserve(&self) -> (usize, usize) {
        let reserve = self.lock();
        (reserve.least, reserve.kept.len())
    }

    /// Where its elements come from.
    pub const fn elements(&self) -> &Elements {
        &self.elements
    }
}

/// Frees the reserve (`mempool_destroy`): all of it, also if the function that frees unwinds once.
impl Drop for Mempool {
    fn drop(&mut self) {
        struct Rest<'a>(&'a Mempool);

        impl Rest<'_> {
            fn free(&self) {
                loop {
                    let element = self.0.lock().kept.pop();
                    let Some(element) = element else { break };
                    self.0.give(element.0);
                }
            }
        }

        impl Drop for Rest<'_> {
            fn drop(&mut self) {
                self.free();
            }
        }

        Rest(self).free();
    }
}
