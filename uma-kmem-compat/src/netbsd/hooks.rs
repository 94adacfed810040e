//! The constructor and destructor of a cache, as the engine's init and fini.

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::ptr;

use uma::core::{Hooks, Item, Refused, Request};

use super::PoolFlags;
use super::pages::pserialize;

/// Makes memory into an object: of the cache's argument, the object, and `PR_WAITOK` or `PR_NOWAIT`. 0, or it
/// has failed. (The argument comes first, other than in Solaris.)
pub type Constructor = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, c_int) -> c_int;
/// Takes an object apart: of the cache's argument and the object.
pub type Destructor = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void);

/// What a cache calls, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Callbacks {
    /// Called when memory enters the cache.
    pub ctor: Option<Constructor>,
    /// Called when it leaves.
    pub dtor: Option<Destructor>,
    /// Passed to both.
    pub arg: *mut c_void,
}

// SAFETY: neither function pointers nor a pointer that is only handed to them give access to anything. Whoever
// makes a cache promises that they may be called on any thread.
unsafe impl Send for Callbacks {}
// SAFETY: as above.
unsafe impl Sync for Callbacks {}

impl Callbacks {
    /// None.
    pub const NONE: Self = Self { ctor: None, dtor: None, arg: ptr::null_mut() };
}

impl Default for Callbacks {
    fn default() -> Self {
        Self::NONE
    }
}

std::thread_local! {
    /// The flags of the request that this thread is at.
    static TOLD: Cell<PoolFlags> = const { Cell::new(PoolFlags::NOWAIT) };
}

/// What callbacks are told of the request under way: whether it may wait.
pub(super) fn told() -> c_int {
    // Also while the thread ends, when there may be nothing left to ask.
    let flags = TOLD.try_with(Cell::get).unwrap_or(PoolFlags::NOWAIT);
    (flags & (PoolFlags::WAITOK | PoolFlags::NOWAIT)).bits()
}

/// Has callbacks be told of these flags until it is dropped.
pub(super) struct Telling(PoolFlags);

impl Telling {
    pub(super) fn of(flags: PoolFlags) -> Self {
        Self(TOLD.try_with(|told| told.replace(flags)).unwrap_or(PoolFlags::NOWAIT))
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        let _ = TOLD.try_with(|told| told.set(self.0));
    }
}

/// What the engine calls.
#[derive(Clone, Copy)]
pub(super) struct Construct {
    pub(super) callbacks: Callbacks,
    /// Whether free items are never written to, also without a constructor.
    pub(super) untouched: bool,
    /// Whether an object may be taken apart only after a passive serialization.
    pub(super) passive: bool,
}

impl Hooks for Construct {
    const HAS_CTOR: bool = false;

    fn keeps_state(&self) -> bool {
        self.untouched || self.callbacks.ctor.is_some() || self.callbacks.dtor.is_some()
    }

    unsafe fn init(&self, item: Item, _: Request) -> Result<(), Refused> {
        let Some(ctor) = self.callbacks.ctor else { return Ok(()) };
        // SAFETY: the item is memory for an object, which whoever made the cache promised is what the
        // constructor takes.
        match unsafe { ctor(self.callbacks.arg, item.as_ptr().cast(), told()) } {
            0 => Ok(()),
            _ => Err(Refused),
        }
    }

    unsafe fn fini(&self, item: Item) {
        let Some(dtor) = self.callbacks.dtor else { return };
        if self.passive {
            pserialize();
        }
        // SAFETY: the item is an object that the constructor made, as the destructor takes it.
        unsafe { dtor(self.callbacks.arg, item.as_ptr().cast()) };
    }
}
