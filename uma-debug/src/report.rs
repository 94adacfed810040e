//! What is said of misuse.

use core::fmt;

use uma_core::Name;

use crate::witness::{Trace, Witness};

/// What was done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A free of an item that is free.
    DoubleFree,
    /// A free of an address so many bytes behind the beginning of an item.
    Interior(usize),
    /// A free of an item of another zone, which is named.
    WrongZone(Name),
    /// A free of an address at which no zone has an item.
    NoItem,
    /// The red zone before the item was written to: so many bytes before the item, this byte was found.
    Underflow(usize, u8),
    /// The red zone behind the item was written to: so many bytes behind its end, this byte was found.
    Overflow(usize, u8),
    /// The item was written to while it was free: at this offset, this byte was found.
    WriteAfterFree(usize, u8),
    /// The item, which keeps its state while it is free, changed while it was free.
    Changed,
}

/// How to go on after misuse was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// End the process.
    Abort,
    /// Go on. A free that is none of an item in use does nothing; an item that was written to where it
    /// should not have been is used as it is.
    Ignore,
}

/// A report of misuse: what, of which item of which zone, and who had to do with it.
///
/// Its `Display` has several lines.
#[derive(Clone, Copy)]
pub struct Report<'a> {
    pub(crate) zone: Name,
    pub(crate) fault: Fault,
    pub(crate) address: usize,
    pub(crate) item: Option<usize>,
    pub(crate) size: usize,
    pub(crate) slab_align: usize,
    pub(crate) here: Trace,
    pub(crate) allocated: Trace,
    pub(crate) freed: Trace,
    pub(crate) witness: &'a dyn Witness,
}

impl Report<'_> {
    /// The zone that found it: for a free, the one that was asked to free.
    pub const fn zone(&self) -> &Name {
        &self.zone
    }

    /// What is wrong.
    pub const fn fault(&self) -> Fault {
        self.fault
    }

    /// The address that was freed, or that of the item that was damaged.
    pub const fn address(&self) -> usize {
        self.address
    }

    /// Where the item in question begins, if it is one of the zone's.
    pub const fn item(&self) -> Option<usize> {
        self.item
    }

    /// The size of the zone's items, in bytes.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Who found it.
    pub const fn here(&self) -> &Trace {
        &self.here
    }

    /// Who allocated the item last, if that was noted.
    pub const fn allocated(&self) -> Option<&Trace> {
        if self.allocated.is_known() { Some(&self.allocated) } else { None }
    }

    /// Who freed the item last, if that was noted.
    pub const fn freed(&self) -> Option<&Trace> {
        if self.freed.is_known() { Some(&self.freed) } else { None }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { zone, address, size, .. } = self;
        write!(f, "zone \"{zone}\" of {size}-byte items: ")?;
        match self.fault {
            Fault::DoubleFree => write!(f, "double free of the item at {address:#x}")?,
            Fault::Interior(offset) => write!(
                f,
                "free of {address:#x}, {offset} bytes into the item at {:#x}",
                address - offset
            )?,
            Fault::WrongZone(owner) => {
                write!(f, "free of {address:#x}, which is an item of zone \"{owner}\"")?;
            }
            Fault::NoItem => write!(f, "free of {address:#x}, which is no item of any zone")?,
            Fault::Underflow(before, found) => write!(
                f,
                "underflow of the item at {address:#x}: {found:#04x} written {before} bytes before it"
            )?,
            Fault::Overflow(behind, found) => write!(
                f,
                "overflow of the item at {address:#x}: {found:#04x} written {behind} bytes behind its end"
            )?,
            Fault::WriteAfterFree(offset, found) => write!(
                f,
                "memory modified after free: {found:#04x} at offset {offset} of the item at {address:#x}"
            )?,
            Fault::Changed => {
                write!(
                    f,
                    "memory modified after free: the constructed item at {address:#x} changed"
                )?;
            }
        }
        if let Some(item) = self.item
            && self.slab_align != 0
        {
            let slab = item & !(self.slab_align - 1);
            write!(f, " (offset {:#x} in the slab at {slab:#x})", item - slab)?;
        }
        for (what, trace) in
            [("found", &self.here), ("allocated", &self.allocated), ("freed", &self.freed)]
        {
            show(f, what, trace, self.witness)?;
        }
        Ok(())
    }
}

/// Writes who did something, on lines of their own; nothing if that is not known.
pub(crate) fn show(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    trace: &Trace,
    witness: &dyn Witness,
) -> fmt::Result {
    if !trace.is_known() {
        return Ok(());
    }
    write!(f, "\n    {what} by thread {}", trace.thread())?;
    if trace.frames().is_empty() {
        return Ok(());
    }
    writeln!(f, " at")?;
    trace.frames().iter().try_for_each(|&frame| witness.show_frame(frame, f))
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("zone", &self.zone)
            .field("fault", &self.fault)
            .field("address", &format_args!("{:#x}", self.address))
            .finish_non_exhaustive()
    }
}
