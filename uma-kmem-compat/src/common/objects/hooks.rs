//! The callbacks of a cache, as the engine's init and fini.

use core::ffi::{c_int, c_void};

use uma::core::{Hooks, Item, Refused, Request};

/// Makes memory into an object: of the object, the cache's private value and flags. 0, or it has failed.
pub type Constructor = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, c_int) -> c_int;
/// Takes an object apart: of the object and the cache's private value.
pub type Destructor = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void);
/// Asks the owner of a cache, whose private value it gets, to free what it can do without.
pub type ReclaimCallback = unsafe extern "C-unwind" fn(*mut c_void);

/// What a cache calls, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Callbacks {
    /// Called when memory enters the cache.
    pub constructor: Option<Constructor>,
    /// Called when it leaves.
    pub destructor: Option<Destructor>,
    /// Called when memory is short.
    pub reclaim: Option<ReclaimCallback>,
    /// Passed to each of them.
    pub private: *mut c_void,
}

// SAFETY: neither function pointers nor a pointer that is only handed to them give access to anything. Whoever
// makes a cache promises that they may be called on any thread.
unsafe impl Send for Callbacks {}
// SAFETY: as above.
unsafe impl Sync for Callbacks {}

impl Callbacks {
    /// None.
    pub const NONE: Self =
        Self { constructor: None, destructor: None, reclaim: None, private: core::ptr::null_mut() };
}

impl Default for Callbacks {
    fn default() -> Self {
        Self::NONE
    }
}

/// What the engine calls.
#[derive(Clone, Copy)]
pub(crate) struct Construct {
    pub(super) callbacks: Callbacks,
    /// What a constructor is told of a request.
    pub(super) flags: fn(Request) -> c_int,
    /// Whether free objects are never written to, also without a constructor.
    pub(super) untouched: bool,
}

impl Hooks for Construct {
    const HAS_CTOR: bool = false;

    fn keeps_state(&self) -> bool {
        let Callbacks { constructor, destructor, .. } = self.callbacks;
        self.untouched || constructor.is_some() || destructor.is_some()
    }

    unsafe fn init(&self, item: Item, request: Request) -> Result<(), Refused> {
        let Some(constructor) = self.callbacks.constructor else { return Ok(()) };
        let flags = (self.flags)(request);
        // SAFETY: the item is memory for an object, which whoever made the cache promised is what the
        // constructor takes.
        match unsafe { constructor(item.as_ptr().cast(), self.callbacks.private, flags) } {
            0 => Ok(()),
            _ => Err(Refused),
        }
    }

    unsafe fn fini(&self, item: Item) {
        if let Some(destructor) = self.callbacks.destructor {
            // SAFETY: the item is an object that the constructor made, as the destructor takes it.
            unsafe { destructor(item.as_ptr().cast(), self.callbacks.private) };
        }
    }
}
