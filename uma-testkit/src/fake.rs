//! A page supplier that checks its caller.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;

use uma_core::{Decommit, PageError, PageRun, PageSupplier, Request};

use crate::Outstanding;
use crate::ledger::Ledger;
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Supplies every run as an allocation of its own, with exactly the layout asked for, so that memory
/// checkers see each overrun and each use after free.
///
/// Fresh memory is filled with a pattern that is not zero. Each run has a flag byte that must come
/// back. Freeing what is not outstanding, or with another layout or flag, panics; so does dropping
/// the supplier with runs outstanding, unless [`allow_leaks`](Self::allow_leaks) was called.
///
/// It can [`Decommit`]: what is decommitted is filled with a pattern of its own, and panics if it is not
/// whole pages inside one run that is out.
pub struct Fake {
    ledger: Ledger,
    page: usize,
    taken: AtomicUsize,
    parts: Mutex<Parts>,
}

/// What is needed to check and count decommits.
#[derive(Default)]
struct Parts {
    /// The runs that are out: where each begins, and its size.
    runs: BTreeMap<usize, usize>,
    calls: usize,
    bytes: usize,
}

impl Fake {
    /// What decommitted memory is filled with.
    pub const DECOMMITTED: u8 = 0xdc;

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
        let (ledger, parts) = (Ledger::new("Fake pages"), Mutex::default());
        Self { ledger, page, taken: AtomicUsize::new(0), parts }
    }

    /// Runs that are out, and bytes in them.
    pub fn outstanding(&self) -> Outstanding {
        self.ledger.outstanding()
    }

    /// Calls ever made to decommit.
    pub fn decommit_calls(&self) -> usize {
        self.parts.lock().calls
    }

    /// Bytes ever decommitted, counted each time.
    pub fn decommitted(&self) -> usize {
        self.parts.lock().bytes
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
        self.parts.lock().runs.insert(base.addr().get(), layout.size());
        // SAFETY: the memory is ours and has this layout.
        Ok(unsafe { PageRun::from_parts(base, layout, false, flag) })
    }

    unsafe fn free_pages(&self, run: PageRun) {
        self.parts.lock().runs.remove(&run.base().addr().get());
        // SAFETY: the caller gives the run up.
        unsafe { self.ledger.give(run.base(), run.layout(), run.flag()) }
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        Some(self)
    }
}

// SAFETY: it does no more than write to the range, which lies inside a run that is out.
unsafe impl Decommit for Fake {
    unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        let (start, page) = (at.addr().get(), self.page);
        let mut parts = self.parts.lock();
        // Runs are aligned as asked for, which may be to less than a page: count from where one begins.
        let run = parts.runs.range(..=start).next_back();
        let inside = run.is_some_and(|(&base, &size)| {
            let offset = start - base;
            offset.is_multiple_of(page) && offset <= size && len <= size - offset
        });
        parts.calls += 1;
        parts.bytes += len;
        drop(parts);
        assert!(
            inside && len.is_multiple_of(page),
            "Fake pages: decommit of {len} bytes at {start:#x}: not whole pages of a run"
        );
        // SAFETY: part of a run that is out, says the caller, and we have seen that too.
        unsafe { at.write_bytes(Self::DECOMMITTED, len) };
    }
}
