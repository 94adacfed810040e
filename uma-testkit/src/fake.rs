//! A page supplier that checks its caller.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;

use uma_core::{Decommit, PageError, PageRun, PageSupplier, Protect, Region, Regions, Request};

use crate::ledger::Ledger;
use crate::sync::{AtomicUsize, Mutex, Ordering};
use crate::{FailPlan, Outstanding};

/// Supplies every run as an allocation of its own, with exactly the layout asked for, so that memory
/// checkers see each overrun and each use after free.
///
/// Fresh memory is filled with a pattern that is not zero. Each run has a flag byte that must come
/// back. Freeing what is not outstanding, or with another layout or flag, panics; so does dropping
/// the supplier with runs outstanding, unless [`allow_leaks`](Self::allow_leaks) was called.
///
/// It can [`Decommit`], [`Protect`] and tell its [`Regions`], and panics if what it is given is not whole
/// pages inside one run that is out. What is decommitted is filled with a pattern of its own. So is what
/// is protected, until it is accessible again with its contents: whoever reads it meanwhile finds the
/// pattern, whoever has written it is found out. Every run is a region.
pub struct Fake {
    ledger: Ledger,
    page: usize,
    taken: AtomicUsize,
    relaxed: AtomicUsize,
    parts: Mutex<Parts>,
    protections: FailPlan,
}

/// What is needed to check and count what is done to parts of runs.
#[derive(Default)]
struct Parts {
    /// The runs that are out, by where each begins.
    runs: BTreeMap<usize, Region>,
    /// Pages that are protected, by address, with what they held.
    shut: BTreeMap<usize, Vec<u8>>,
    /// How often a run was taken or given back.
    generation: u64,
    calls: usize,
    bytes: usize,
}

impl Parts {
    /// Whether a range is whole pages of one run that is out.
    fn inside(&self, start: usize, len: usize, page: usize) -> bool {
        // Runs are aligned as asked for, which may be to less than a page: count from where one begins.
        self.runs.range(..=start).next_back().is_some_and(|(&base, &run)| {
            let offset = start - base;
            let whole = offset.is_multiple_of(page) && len.is_multiple_of(page);
            whole && offset <= run.len && len <= run.len - offset
        })
    }

    /// Pages of a range that are protected.
    fn shut(&self, start: usize, len: usize) -> usize {
        self.shut.range(start..start.saturating_add(len)).count()
    }
}

impl Fake {
    /// What decommitted memory is filled with.
    pub const DECOMMITTED: u8 = 0xdc;

    /// What protected memory is filled with.
    pub const PROTECTED: u8 = 0xbd;

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
        let (taken, relaxed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { ledger, page, taken, relaxed, parts, protections: FailPlan::new() }
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

    /// How often somebody passed a moment while another was to decommit.
    pub fn relaxed(&self) -> usize {
        self.relaxed.load(Ordering::Relaxed)
    }

    /// Pages that are protected.
    pub fn protected(&self) -> usize {
        self.parts.lock().shut.len()
    }

    /// Which calls to protect fail: none at first.
    pub const fn protections(&self) -> &FailPlan {
        &self.protections
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
        let mut parts = self.parts.lock();
        parts.runs.insert(base.addr().get(), Region { base, len: layout.size() });
        parts.generation += 1;
        drop(parts);
        // SAFETY: the memory is ours and has this layout.
        Ok(unsafe { PageRun::from_parts(base, layout, false, flag) })
    }

    unsafe fn free_pages(&self, run: PageRun) {
        let (start, len) = (run.base().addr().get(), run.layout().size());
        let mut parts = self.parts.lock();
        parts.runs.remove(&start);
        parts.generation += 1;
        let shut = parts.shut(start, len);
        parts.shut.retain(|&page, _| page < start || page - start >= len);
        drop(parts);
        // SAFETY: the caller gives the run up.
        unsafe { self.ledger.give(run.base(), run.layout(), run.flag()) }
        assert!(shut == 0, "Fake pages: {start:#x} was given back with {shut} pages protected");
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        Some(self)
    }

    fn protects(&self) -> Option<&dyn Protect> {
        Some(self)
    }

    fn regions(&self) -> Option<&dyn Regions> {
        Some(self)
    }
}

// SAFETY: it does no more than write to the range, which lies inside a run that is out.
unsafe impl Decommit for Fake {
    unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        let start = at.addr().get();
        let mut parts = self.parts.lock();
        let (inside, shut) = (parts.inside(start, len, self.page), parts.shut(start, len));
        parts.calls += 1;
        parts.bytes += len;
        drop(parts);
        assert!(
            inside,
            "Fake pages: decommit of {len} bytes at {start:#x}: not whole pages of a run"
        );
        assert!(shut == 0, "Fake pages: decommit at {start:#x}: {shut} pages are protected");
        // SAFETY: part of a run that is out, says the caller, and we have seen that too.
        unsafe { at.write_bytes(Self::DECOMMITTED, len) };
    }

    fn relax(&self) {
        self.relaxed.fetch_add(1, Ordering::Relaxed);
        std::thread::yield_now();
    }
}

// SAFETY: it does no more than read and write the range, which lies inside a run that is out, and puts
// back what it read.
unsafe impl Protect for Fake {
    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        let start = at.addr().get();
        let mut parts = self.parts.lock();
        if !parts.inside(start, len, self.page) {
            drop(parts);
            panic!("Fake pages: protect of {len} bytes at {start:#x}: not whole pages of a run");
        }
        // One that fails has done half of its work.
        let fails = self.protections.call();
        let pages = len / self.page;
        for index in 0..if fails { pages / 2 } else { pages } {
            // SAFETY: a page of a run that is out, which the caller has to itself.
            let page = unsafe { at.add(index * self.page) };
            parts.shut.entry(page.addr().get()).or_insert_with(|| {
                // SAFETY: as above. The fake has filled it, so it can be read.
                unsafe {
                    let held = std::slice::from_raw_parts(page.as_ptr(), self.page).to_vec();
                    page.write_bytes(Self::PROTECTED, self.page);
                    held
                }
            });
        }
        // What Linux says when it has no entry left for a mapping: ENOMEM.
        if fails { Err(PageError::System(12)) } else { Ok(()) }
    }

    unsafe fn unprotect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        let start = at.addr().get();
        let mut parts = self.parts.lock();
        let inside = parts.inside(start, len, self.page);
        let mut touched = None;
        for index in 0..if inside { len / self.page } else { 0 } {
            // SAFETY: a page of a run that is out.
            let page = unsafe { at.add(index * self.page) };
            let Some(held) = parts.shut.remove(&page.addr().get()) else { continue };
            // SAFETY: as above; nobody may touch it, for it is protected.
            unsafe {
                let now = std::slice::from_raw_parts(page.as_ptr(), self.page);
                let other = now.iter().position(|&byte| byte != Self::PROTECTED);
                touched = touched.or(other.map(|offset| page.addr().get() + offset));
                page.copy_from_nonoverlapping(NonNull::from(&held[..]).cast(), self.page);
            }
        }
        drop(parts);
        assert!(
            inside,
            "Fake pages: unprotect of {len} bytes at {start:#x}: not whole pages of a run"
        );
        if let Some(address) = touched {
            panic!("Fake pages: {address:#x} was written while it was protected");
        }
        Ok(())
    }
}

// SAFETY: each run is a region of its own for as long as it is out, and every change counts.
unsafe impl Regions for Fake {
    fn generation(&self) -> u64 {
        self.parts.lock().generation
    }

    fn visit_regions(&self, visit: &mut dyn FnMut(Region)) {
        let regions: Vec<_> = self.parts.lock().runs.values().copied().collect();
        regions.into_iter().for_each(visit);
    }
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fake").field("outstanding", &self.outstanding()).finish_non_exhaustive()
    }
}
