//! Programs for page suppliers.

use std::fmt;

use super::write_rust;

/// What a page supplier is to do.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct PageProgram {
    /// How the supplier is built.
    pub config: PageConfig,
    /// What is done to it.
    pub ops: Vec<PageOp>,
}

impl fmt::Debug for PageProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_rust(f, "PageProgram", &self.config, "PageOp", &self.ops)
    }
}

/// How a page supplier is built. What a supplier has no use for is ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct PageConfig {
    /// Pages in the region, or in the first chunk.
    pub pages: u8,
    /// Pages in the largest chunk.
    pub chunk_max: u8,
    /// Pages that may stay dirty.
    pub dirty: u8,
    /// Bytes by which the region begins after a page.
    pub head: u16,
    /// Bytes by which it ends after a page.
    pub tail: u16,
    /// Which page size, where there is a choice.
    pub page: u8,
}

/// One thing to do to a page supplier. `i` picks a run that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[allow(missing_docs, reason = "the fields are explained where they are used")]
pub enum PageOp {
    /// Takes 1 to 32 pages, aligned to a page shifted by up to 7, or to less.
    Alloc { pages: u8, align: u8 },
    /// Asks for a size that is not a number of pages.
    AllocOdd { bytes: u16 },
    /// Gives a run back.
    Free { i: u8 },
    /// Gives the memory behind part of a run back.
    Decommit { i: u8, from: u8, pages: u8 },
    /// Gives the memory behind everything that is free back.
    DecommitAll,
    /// Gives back all that is free.
    Trim,
    /// Checks the contents of all runs.
    Verify,
}
