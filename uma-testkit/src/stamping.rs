//! Hooks that know what a constructed item holds.

use uma_core::{Hooks, Item, Refused, Request};

use crate::hooks::CountingHooks;
use crate::{machine, token};

/// [`CountingHooks`] that also fill each item at `init`, by its address, and look whether that is still
/// there at `ctor` and `fini`: a constructed item must survive caches as it is. `dtor` fills it again.
///
/// What is wrong goes to [`machine::complaints`], as does a call under a lock.
#[derive(Debug)]
pub struct StampingHooks {
    counting: CountingHooks,
    size: usize,
}

impl StampingHooks {
    /// For items of `size` bytes, in a stack that runs all four hooks.
    pub fn new(size: usize) -> Self {
        Self { counting: CountingHooks::new(), size }
    }

    /// The counts, and the plan of faults.
    pub fn counting(&self) -> &CountingHooks {
        &self.counting
    }

    /// # Safety
    ///
    /// The item is the caller's.
    unsafe fn fill(&self, item: Item) {
        // SAFETY: passed on to the caller; the size is that of the zone's items.
        unsafe { token::stamp(item.as_non_null(), self.size, !(item.addr() as u64)) }
    }

    /// # Safety
    ///
    /// The item is the caller's, and went through `init`.
    unsafe fn look(&self, item: Item, hook: &str) {
        // SAFETY: as in `fill`; `init` has written all of it.
        let result = unsafe { token::verify(item.as_non_null(), self.size, !(item.addr() as u64)) };
        if let Err(offset) = result {
            machine::complain(format!("{item:?} comes to {hook}, changed at offset {offset}"));
        }
    }
}

impl Hooks for StampingHooks {
    unsafe fn init(&self, item: Item, request: Request) -> Result<(), Refused> {
        machine::outside_locks("init");
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.counting.init(item, request)? };
        // SAFETY: the item is the caller's, by the contract of the trait.
        unsafe { self.fill(item) };
        Ok(())
    }

    unsafe fn fini(&self, item: Item) {
        machine::outside_locks("fini");
        // SAFETY: the item is the caller's and went through init, by the contract of the trait; the duty
        // is passed on unchanged.
        unsafe {
            self.look(item, "fini");
            self.counting.fini(item);
        }
    }

    unsafe fn ctor(&self, item: Item, arg: *mut (), request: Request) -> Result<(), Refused> {
        machine::outside_locks("ctor");
        // SAFETY: as in `fini`.
        unsafe {
            self.look(item, "ctor");
            self.counting.ctor(item, arg, request)
        }
    }

    unsafe fn dtor(&self, item: Item, arg: *mut ()) {
        machine::outside_locks("dtor");
        // SAFETY: as in `fini`.
        unsafe {
            self.fill(item);
            self.counting.dtor(item, arg);
        }
    }
}
