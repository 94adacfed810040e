//! What can be wrong with an item that is given back.

use core::fmt;

use uma_core::Item;

/// Why an item was not taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No slab of the keg holds it.
    Foreign,
    /// It points into a slab of the keg, but not to where an item begins.
    Interior,
    /// It is free already.
    DoubleFree,
}

/// Where to go from here: `uma` reads the variable, and whoever puts layers together has `uma-debug`.
const HINT: &str = "; a zone that checks, as with UMA_DEBUG=debug, says who did it";

/// An item that was not taken back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Misuse {
    pub(crate) fault: Fault,
    pub(crate) item: Item,
}

impl Misuse {
    /// Ends the call with a panic that says what is wrong. Not under the lock.
    ///
    /// It comes when the item reaches its slab, which may be long after the free and on another thread; so it
    /// says how to find that.
    #[cold]
    pub(crate) fn report(self, size: usize) -> ! {
        panic!("uma-keg: {self} ({size}-byte items){HINT}")
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.item.addr();
        match self.fault {
            Fault::Foreign => write!(f, "free of {at:#x}, which is no item of this keg"),
            Fault::Interior => write!(f, "free of {at:#x}, which is not the start of an item"),
            Fault::DoubleFree => write!(f, "double free of the item at {at:#x}"),
        }
    }
}
