//! Where the pages of a zone come from.
//!
//! ```text
//!   zone --> set aside for it (uma_zone_reserve_kva)?  --> those
//!        --> functions of its own (uma_zone_set_allocf)? --> these
//!        --> boot memory, until startup2; when it is used up, the host
//! ```
//!
//! What each run came from its address tells: boot memory and what was set aside lie in ranges of their own, and
//! runs of the functions are in a table of the zone. The table's lock is a leaf; the functions are called without
//! it.

use core::alloc::Layout;
use core::ffi::c_void;
use core::fmt;
use core::ptr::NonNull;
use std::sync::OnceLock;

use uma::core::{Decommit, Fallback, Name, PageError, PageRun, PageSupplier, Protect, Request};
use uma::debug::{Report, Verdict};
use uma::{Hardening, Host, Platform};
use uma_backend_static::StaticPages;

use super::callbacks::Era;
use super::shared::{Lent, Shared};
use super::{M, SYSTEM, deferred};
use crate::common::memory::{Counted, enter};
use crate::common::{as_the_host, boundary};
use crate::sync::{AtomicBool, AtomicUsize, Ordering};

type Region = StaticPages<<Host as Platform>::Lock>;
type HostPages = <Host as Platform>::Pages;

/// Memory from before there was a system.
static BOOT: OnceLock<Region> = OnceLock::new();
/// Whether it is over.
static BOOTED: AtomicBool = AtomicBool::new(false);
/// Bytes of pages that zones hold.
static TOTAL: AtomicUsize = AtomicUsize::new(0);
/// The soft limit on that.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Gives boot memory to zones (`uma_startup`): until [`startup2`] their slabs lie there, and when it is used up, in
/// pages of the host. One page of it goes to its book-keeping. Returns whether it was taken: a process has one
/// boot.
///
/// # Safety
///
/// Nobody else uses these bytes, ever again.
pub unsafe fn startup(memory: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: passed on to the caller.
    BOOT.set(unsafe { StaticPages::from_raw(memory, bytes) }).is_ok()
}

/// The boot is over (`uma_startup2`): new slabs lie in pages of the host. What lies in boot memory stays there, and
/// goes back there.
pub fn startup2() {
    BOOTED.store(true, Ordering::Release);
}

/// Bytes of pages that the zones and [`malloc`](super::malloc()) of this face hold (`uma_size`).
pub fn kmem_total() -> usize {
    TOTAL.load(Ordering::Relaxed)
}

/// The soft limit on [`kmem_total`] (`uma_limit`). There is none at first.
pub fn kmem_limit() -> usize {
    LIMIT.load(Ordering::Relaxed)
}

/// Sets the soft limit (`uma_set_limit`). A zone that takes pages beyond it wakes whoever sleeps in
/// `uma_reclaim_worker`; it gets them in any case.
pub fn set_kmem_limit(bytes: usize) {
    LIMIT.store(bytes, Ordering::Relaxed);
}

fn boot() -> Option<&'static Region> {
    BOOT.get()
}

/// The pages of a zone.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    shared: Option<Counted<Shared>>,
}

impl Pages {
    fn take(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        if let Some(shared) = &self.shared {
            if let Some(region) = shared.region.get() {
                return region.pages.alloc_pages(layout, request);
            }
            if let Some(allocf) = shared.allocf.get() {
                return lend(shared, allocf, layout, request);
            }
        }
        match boot() {
            Some(boot) if !BOOTED.load(Ordering::Acquire) => {
                // SAFETY: boot memory is the caller's of `startup`, which the host does not have.
                unsafe { Fallback::new(boot, Host.pages()) }.alloc_pages(layout, request)
            }
            _ => Host.pages().alloc_pages(layout, request),
        }
    }

    fn host() -> HostPages {
        Host.pages()
    }

    /// Whether memory is the host's.
    fn is_host(at: NonNull<u8>) -> bool {
        Self::host().regions().is_some_and(|regions| regions.holds(at.as_ptr()))
    }
}

type AllocFunction = Era<super::AllocPages, super::AllocPages2002>;

/// A run of the zone's own functions. They know pages and no more: where a slab must be aligned to more, they are
/// asked for so much that one fits in.
fn lend(
    shared: &Shared,
    allocf: AllocFunction,
    layout: Layout,
    request: Request,
) -> Result<PageRun, PageError> {
    let page = Pages::host().page_size();
    PageError::check(layout, page)?;
    let (base, flag) = call(shared, allocf, layout.size(), request).ok_or(PageError::Exhausted)?;
    let mut lent = Lent { base, bytes: layout.size() };
    let (mut at, mut flag) = (base, flag);
    if !base.addr().get().is_multiple_of(layout.align()) {
        give_back(shared, lent, flag);
        let bytes = layout.size().checked_add(layout.align()).ok_or(PageError::BadAlign)? - page;
        let more = call(shared, allocf, bytes, request).ok_or(PageError::Exhausted)?;
        flag = more.1;
        lent = Lent { base: more.0, bytes };
        let skip = lent.base.as_ptr().align_offset(layout.align());
        if skip > bytes - layout.size() {
            // It was not even aligned to a page.
            give_back(shared, lent, flag);
            return Err(PageError::BadAlign);
        }
        // SAFETY: there is so much memory.
        at = unsafe { lent.base.add(skip) };
    }
    if enter(&mut shared.runs.lock(), at.addr().get(), lent).is_err() {
        give_back(shared, lent, flag);
        return Err(PageError::Exhausted);
    }
    // SAFETY: whoever set the function vouches that the memory is the zone's; it has been aligned.
    Ok(unsafe { PageRun::from_parts(at, layout, false, flag) })
}

fn call(
    shared: &Shared,
    allocf: AllocFunction,
    bytes: usize,
    request: Request,
) -> Option<(NonNull<u8>, u8)> {
    let handle = shared.handle.load(Ordering::Acquire);
    let wait = M::of(request) | M::ZERO.bits() as core::ffi::c_int;
    let mut flag = 0;
    // SAFETY: whoever set the function vouches for it.
    let memory = boundary(Some(&SYSTEM), "uma_alloc", || unsafe {
        match allocf {
            Era::Today(allocf) => Some(allocf(handle, bytes, 0, &raw mut flag, wait)),
            Era::Old(allocf) => {
                let bytes = core::ffi::c_int::try_from(bytes).ok()?;
                Some(allocf(handle, bytes, &raw mut flag, wait))
            }
        }
    })?;
    Some((NonNull::new(memory.cast())?, flag))
}

/// Memory without a function to take it back stays.
fn give_back(shared: &Shared, lent: Lent, flag: u8) {
    let at: *mut c_void = lent.base.as_ptr().cast();
    // SAFETY: whoever set the function vouches for it; it gets what the other one returned.
    boundary(Some(&SYSTEM), "uma_free", || unsafe {
        match shared.freef.get() {
            Some(Era::Today(freef)) => freef(at, lent.bytes, flag),
            Some(Era::Old(freef)) => freef(at, lent.bytes as core::ffi::c_int, flag),
            None => {}
        }
    });
}

// SAFETY: runs come from the host, from memory that `startup` or `Shared::region` was given for good, or from
// functions whose user vouches for them, and go back to where they came from. One of these that
// would unwind ends the process.
unsafe impl PageSupplier for Pages {
    fn page_size(&self) -> usize {
        Self::host().page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        let run = self.take(layout, request)?;
        let bytes = layout.size();
        let total = TOTAL.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if total > kmem_limit() {
            deferred::wake_worker();
        }
        Ok(run)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        TOTAL.fetch_sub(run.layout().size(), Ordering::Relaxed);
        let base = run.base();
        if let Some(shared) = &self.shared {
            if let Some(region) = shared.region.get()
                && region.pages.contains(base.as_ptr())
            {
                // SAFETY: the run lies there, so it came from there.
                return unsafe { region.pages.free_pages(run) };
            }
            let mut runs = shared.runs.lock();
            let lent = runs.remove(&base.addr().get());
            drop(runs);
            if let Some(lent) = lent {
                return give_back(shared, lent, run.flag());
            }
        }
        match boot() {
            // SAFETY: as above.
            Some(boot) if boot.contains(base.as_ptr()) => unsafe { boot.free_pages(run) },
            // SAFETY: there is nothing else that it may have come from.
            _ => unsafe { Host.pages().free_pages(run) },
        }
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        Self::host().decommits().is_some().then_some(self)
    }

    fn protects(&self) -> Option<&dyn Protect> {
        Self::host().protects().is_some().then_some(self)
    }
}

// SAFETY: what is the host's is passed on, and doing nothing is allowed.
unsafe impl Decommit for Pages {
    unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        if len != 0
            && Self::is_host(at)
            && let Some(power) = Self::host().decommits()
        {
            // SAFETY: it lies in a run of the host; the rest is the caller's duty.
            unsafe { power.decommit(at, len) }
        }
    }

    fn relax(&self) {
        std::thread::yield_now();
    }
}

// SAFETY: what is the host's is passed on, the rest is refused.
unsafe impl Protect for Pages {
    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        match Self::host().protects() {
            _ if len == 0 => Ok(()),
            // SAFETY: it lies in a run of the host; the rest is the caller's duty.
            Some(power) if Self::is_host(at) => unsafe { power.protect(at, len) },
            _ => Err(PageError::Unsupported),
        }
    }

    unsafe fn unprotect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        match Self::host().protects() {
            _ if len == 0 => Ok(()),
            // SAFETY: as above.
            Some(power) if Self::is_host(at) => unsafe { power.unprotect(at, len) },
            // It was never protected.
            _ => Ok(()),
        }
    }
}

/// The platform of a zone: that of the process, but for its pages.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    shared: Option<Counted<Shared>>,
}

impl Surroundings {
    /// Of no zone in particular.
    pub(super) const COMMON: Self = Self { shared: None };

    pub(super) const fn new(shared: Counted<Shared>) -> Self {
        Self { shared: Some(shared) }
    }
}

// SAFETY: everything but the pages leads where the host's leads; clones share what the zone's pages are, and a zone
// that is forgotten holds a share of it.
unsafe impl Platform for Surroundings {
    type Pages = Pages;

    as_the_host!();

    fn pages(&self) -> Pages {
        Pages { shared: self.shared.clone() }
    }

    fn largest_slab(&self) -> usize {
        let booting = boot().is_some() && !BOOTED.load(Ordering::Acquire);
        // Boot memory is short.
        if booting { Host.pages().page_size() } else { Host.largest_slab() }
    }

    fn hardening(&self, zone: &Name) -> Hardening {
        Host.hardening(zone)
    }

    fn misuse(&self, report: &Report<'_>) -> Verdict {
        // It ends the process if the policy is so.
        let zone = self.shared.is_some();
        SYSTEM.misuse(if zone { "uma_zfree" } else { "free" }, format_args!("{report}"));
        Verdict::Ignore
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        let zone = self.shared.is_some();
        SYSTEM.report(if zone { "uma_zdestroy" } else { "malloc" }, message);
    }
}

/// Pages that were set aside for one zone, in one run of the host.
#[derive(Debug)]
pub(super) struct Aside {
    pages: Region,
    base: NonNull<u8>,
    layout: Layout,
    flag: u8,
}

// SAFETY: it owns the run.
unsafe impl Send for Aside {}
// SAFETY: nothing but the pages can be reached through a reference.
unsafe impl Sync for Aside {}

impl Aside {
    /// Pages for so many slabs (`uma_zone_reserve_kva`): `None` if the host has not so many.
    pub(super) fn new(slab: usize, slabs: usize, request: Request) -> Option<Self> {
        let page = Host.pages().page_size();
        let align = slab.checked_next_power_of_two()?.max(page);
        let runs = slabs.checked_mul(slab.checked_next_multiple_of(align)?)?;
        // A bit for each page, a few words, and room to align the first slab.
        let books = (runs / page / 8 + 64).checked_next_multiple_of(page)?;
        let bytes = runs.checked_add(books)?.checked_add(align)?;
        let layout = Layout::from_size_align(bytes, page).ok()?;
        let run = Host.pages().alloc_pages(layout, request).ok()?;
        let (base, flag) = (run.base(), run.flag());
        // SAFETY: the run is ours until this is dropped, and no slab lies in it any more then: a zone's pages
        // share it.
        let pages = unsafe { StaticPages::from_raw(base, bytes) };
        Some(Self { pages, base, layout, flag })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // SAFETY: it is the run from `new`, which nobody uses any more.
        unsafe {
            let run = PageRun::from_parts(self.base, self.layout, false, self.flag);
            Host.pages().free_pages(run);
        }
    }
}
