//! A page supplier that checks its caller.

use std::alloc::Layout;

use uma_core::{PageError, PageRun, PageSupplier, Request};

use crate::Outstanding;
use crate::ledger::Ledger;
use crate::sync::{AtomicUsize, Ordering};

/// Supplies every run as an allocation of its own, with exactly the layout asked for, so that memory
/// checkers see each overrun and each use after free.
///
/// Fresh memory is filled with a pattern that is not zero. Each run has a flag byte that must come
/// back. Freeing what is not outstanding, or with another layout or flag, panics; so does dropping
/// the supplier with runs outstanding, unless [`allow_leaks`](Self::allow_leaks) was called.
pub struct Fake {
    ledger: Ledger,
    page: usize,
    taken: AtomicUsize,
}

impl Fake {
    /// A supplier with pages of 4 KiB.
    pub fn new() -> Self {
        Self::with_page_size(4096)
    }

    /// A supplier with pages of another size.
    ///
    /// # Panics
    ///
    /// If that is no power of two.
    pub fn with_page_size(page: usize) -> Self {
        assert!(page.is_power_of_two(), "a page of {page} bytes");
        Self { ledger: Ledger::new("Fake pages"), page, taken: AtomicUsize::new(0) }
    }

    /// Runs that are out, and bytes in them.
    pub fn outstanding(&self) -> Outstanding {
        self.ledger.outstanding()
    }

    /// Lets the supplier be dropped with runs outstanding.
    pub fn allow_leaks(&self) {
        self.ledger.allow_leaks();
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: the global allocator keeps these promises for non-zero layouts, and `check` refuses others;
// runs stay valid after a drop, since leaks stay allocated. It panics only if its caller broke the
// contract.
unsafe impl PageSupplier for Fake {
    fn page_size(&self) -> usize {
        self.page
    }

    fn alloc_pages(&self, layout: Layout, _: Request) -> Result<PageRun, PageError> {
        PageError::check(layout, self.page)?;
        let flag = (self.taken.fetch_add(1, Ordering::Relaxed) % 251) as u8;
        let base = self.ledger.take(layout, flag).ok_or(PageError::Exhausted)?;
        // SAFETY: the memory is ours and has this layout.
        Ok(unsafe { PageRun::from_parts(base, layout, false, flag) })
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: the caller gives the run up.
        unsafe { self.ledger.give(run.base(), run.layout(), run.flag()) }
    }
}
