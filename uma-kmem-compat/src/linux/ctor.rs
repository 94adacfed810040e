//! The constructor of a cache, as the engine's init.
//!
//! A cache whose memory must stay what it is (`SLAB_TYPESAFE_BY_RCU`) constructs each object once and never
//! again while its pages stay: somebody may be looking at a freed object, and hold a lock in it. The engine,
//! though, takes an object to be raw memory again when it goes back to its slab. So each object has a word
//! behind it that says whether it was constructed:
//!
//! ```text
//!   | object ............ | pad to 8 | mark |
//!                                      key of the cache ^ address of the object: constructed
//! ```
//!
//! Pages that come from the system are zeros, so that no mark of an earlier use is in them.

use core::ffi::c_void;
use std::hash::{BuildHasher, RandomState};

use uma::core::{Hooks, Item, Refused, Request};

/// A constructor: it gets the object, cannot fail, and runs with no lock held.
pub type Constructor = unsafe extern "C-unwind" fn(*mut c_void);

#[derive(Clone, Copy)]
pub(super) struct Construct {
    ctor: Option<Constructor>,
    mark: Option<Mark>,
}

#[derive(Clone, Copy)]
struct Mark {
    /// Bytes from the start of the object.
    at: usize,
    key: usize,
}

impl Construct {
    /// For objects of `size` bytes, once while their pages stay or as often as the engine has it. Says how
    /// much memory one takes.
    pub(super) fn new(ctor: Option<Constructor>, size: usize, once: bool) -> (Self, usize) {
        if ctor.is_none() || !once {
            return (Self { ctor, mark: None }, size);
        }
        let at = size.next_multiple_of(size_of::<usize>());
        // No memory holds it by chance.
        let key = RandomState::new().hash_one(size) as usize;
        let mark = Some(Mark { at, key });
        (Self { ctor, mark }, at.saturating_add(size_of::<usize>()))
    }

    pub(super) const fn is_some(&self) -> bool {
        self.ctor.is_some()
    }
}

impl Hooks for Construct {
    const HAS_CTOR: bool = false;

    unsafe fn init(&self, item: Item, _: Request) -> Result<(), Refused> {
        let Some(ctor) = self.ctor else { return Ok(()) };
        match self.mark {
            // SAFETY: the item is memory for an object, which whoever made the cache promised is what the
            // constructor takes.
            None => unsafe { ctor(item.as_ptr().cast()) },
            // SAFETY: as above; the item has room for the mark, aligned to a word as the item is.
            Some(mark) => unsafe {
                let place = item.as_ptr().add(mark.at).cast::<usize>();
                // Volatile: the memory may be fresh, or may be seen by a reader of the freed object.
                if place.read_volatile() != mark.key ^ item.addr() {
                    ctor(item.as_ptr().cast());
                    place.write_volatile(mark.key ^ item.addr());
                }
            },
        }
        Ok(())
    }
}
