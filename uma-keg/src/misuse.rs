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

/// An item that was not taken back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Misuse {
    pub(crate) fault: Fault,
    pub(crate) item: Item,
}

impl Misuse {
    /// Ends the call with a panic that says what is wrong. Not under the lock.
    #[cold]
    pub(crate) fn report(self, size: usize) -> ! {
        panic!("uma-keg: {self} ({size}-byte items)")
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
