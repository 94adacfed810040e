//! Where the pages of a pool come from: the host, or functions of the program (`struct pool_allocator`).
//!
//! ```text
//!   pool --frees a page--> kept: the pool's for good, or its low water --> allocator
//!        <--needs a page--
//! ```
//!
//! `pool_prime` gives a pool pages that it never gives back (`minpages`), and `pool_setlowat` has it keep some
//! for items that will be wanted. Both are kept here, on their way back, so that the engine knows nothing of it.
//!
//! With `PR_PSERIALIZE` pages go back after a passive serialization only. What that is the program says, by
//! [`set_pserialize`]; until it does, such pages stay with their pool until that is destroyed.

use core::alloc::Layout;
use core::ffi::{c_int, c_uint, c_void};
use core::ptr::NonNull;
use core::{fmt, ptr};

use uma::core::{Decommit, Name, PageError, PageRun, PageSupplier, Protect, Regions, Request};
use uma::debug::{Report, Verdict};
use uma::{Hardening, Host, Platform};

use super::SYSTEM;
use super::hooks::told;
use crate::common::memory::{Counted, NoMemory};
use crate::common::{Runs, as_the_host, boundary};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Returns when every reader who was reading as it was called has ended: `pserialize_perform`.
pub type PassiveSerialize = extern "C-unwind" fn();

/// Null: there is none.
static PSERIALIZE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Says what a passive serialization is, for pools with `PR_PSERIALIZE`: `synchronize_rcu` of liburcu, for
/// example. With `None`, their pages stay with them until they are destroyed. The function is called with no
/// lock held, by whichever thread makes pools give memory back, so no reader may do that.
pub fn set_pserialize(perform: Option<PassiveSerialize>) {
    let perform = perform.map_or(ptr::null_mut(), |function| function as *mut ());
    PSERIALIZE.store(perform, Ordering::Release);
}

/// Performs a passive serialization, if it is known what that is.
pub(super) fn pserialize() -> bool {
    let function = PSERIALIZE.load(Ordering::Acquire);
    if function.is_null() {
        return false;
    }
    // SAFETY: `set_pserialize` stored a function of this type.
    let function = unsafe { core::mem::transmute::<*mut (), PassiveSerialize>(function) };
    // Pages may be on their way while it runs.
    boundary(Some(&SYSTEM), "pserialize_perform", || function());
    true
}

/// Supplies pages (`struct pool_allocator`).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PageAllocator {
    /// A page, or null; of the pool and `PR_WAITOK` or `PR_NOWAIT`.
    pub alloc: Option<unsafe extern "C-unwind" fn(*mut c_void, c_int) -> *mut c_void>,
    /// Takes a page back.
    pub free: Option<unsafe extern "C-unwind" fn(*mut c_void, *mut c_void)>,
    /// The size of a page in bytes, a power of two, to which it is aligned; 0 for the system's.
    pub page_size: c_uint,
}

/// Who has the pages.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Host,
    Functions {
        alloc: unsafe extern "C-unwind" fn(*mut c_void, c_int) -> *mut c_void,
        free: unsafe extern "C-unwind" fn(*mut c_void, *mut c_void),
        page: usize,
    },
}

/// The pages of one pool.
pub(super) struct Supply {
    source: Source,
    /// What functions are told is the pool: `struct pool *`, or null for one from Rust.
    pub(super) pool: AtomicPtr<c_void>,
    /// Whether pages wait for a passive serialization.
    passive: bool,
    kept: Runs,
    /// Runs that the pool uses.
    used: AtomicUsize,
    /// So many runs are the pool's for good, in use or kept (`pr_minpages`).
    pub(super) least: AtomicUsize,
    /// So many are kept beside those in use.
    pub(super) spare: AtomicUsize,
    /// Runs that were got, and given back, since the pool was made.
    pub(super) got: AtomicU64,
    pub(super) gave: AtomicU64,
    /// Whether it was told that pages come unaligned.
    told: AtomicBool,
}

impl Supply {
    pub(super) fn new(source: Source, passive: bool) -> Self {
        Self {
            source,
            pool: AtomicPtr::new(ptr::null_mut()),
            passive,
            kept: Runs::new(),
            used: AtomicUsize::new(0),
            least: AtomicUsize::new(0),
            spare: AtomicUsize::new(0),
            got: AtomicU64::new(0),
            gave: AtomicU64::new(0),
            told: AtomicBool::new(false),
        }
    }

    /// Runs that are kept and not in use.
    pub(super) fn idle(&self) -> usize {
        self.kept.count()
    }

    fn get(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        let run = match self.source {
            Source::Host => Host.pages().alloc_pages(layout, request)?,
            Source::Functions { alloc, free, page } => {
                PageError::check(layout, page)?;
                let pool = self.pool.load(Ordering::Relaxed);
                // SAFETY: whoever made the pool promised that it may be called so.
                let at = boundary(Some(&SYSTEM), "pa_alloc", || unsafe { alloc(pool, told()) });
                let base = NonNull::new(at.cast::<u8>()).ok_or(PageError::Exhausted)?;
                if layout.size() != page || !base.addr().get().is_multiple_of(layout.align()) {
                    // SAFETY: it came from there just now.
                    boundary(Some(&SYSTEM), "pa_free", || unsafe { free(pool, at) });
                    if !self.told.swap(true, Ordering::Relaxed) {
                        SYSTEM.report(
                            "pool_allocator",
                            format_args!(
                                "a page of {page} bytes at {:#x} is not aligned to its size; the pool has no use for it",
                                at.addr()
                            ),
                        );
                    }
                    return Err(PageError::BadAlign);
                }
                // SAFETY: it is ours and has this layout, as the functions promise.
                unsafe { PageRun::from_parts(base, layout, false, 0) }
            }
        };
        self.got.fetch_add(1, Ordering::Relaxed);
        Ok(run)
    }

    fn give(&self, run: PageRun) {
        self.gave.fetch_add(1, Ordering::Relaxed);
        match self.source {
            // SAFETY: the run came from the host, whole, and nobody uses it any more.
            Source::Host => unsafe { Host.pages().free_pages(run) },
            Source::Functions { free, .. } => {
                let pool = self.pool.load(Ordering::Relaxed);
                // SAFETY: it came from the function's counterpart, and nobody uses it any more.
                boundary(Some(&SYSTEM), "pa_free", || unsafe {
                    free(pool, run.base().as_ptr().cast());
                });
            }
        }
    }

    /// Whether one more run is to be kept.
    fn keeps(&self) -> bool {
        self.keeps_beside(self.kept.count())
    }

    /// Whether one is to be kept beside so many.
    fn keeps_beside(&self, kept: usize) -> bool {
        kept < self.spare.load(Ordering::Relaxed)
            || self.used.load(Ordering::Relaxed) + kept < self.least.load(Ordering::Relaxed)
    }

    /// Gives back what is kept beyond need.
    pub(super) fn trim(&self) {
        if !self.has_surplus() {
            return;
        }
        // Those that wait, if they must: what comes meanwhile has not.
        let Some(mark) = self.kept.mark() else { return };
        if !self.passive || pserialize() {
            while self.has_surplus()
                && let Some(run) = self.kept.pop_marked(mark)
            {
                self.give(run);
            }
        }
        self.kept.unmark(mark);
    }

    /// Whether more is kept than is to be.
    fn has_surplus(&self) -> bool {
        let kept = self.kept.count();
        kept != 0 && !self.keeps_beside(kept - 1)
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        if self.passive && self.kept.count() != 0 {
            // Without one, whoever destroys a pool vouches that nobody reads.
            pserialize();
        }
        while let Some(run) = self.kept.pop() {
            self.give(run);
        }
    }
}

/// The platform of a pool: that of the process, but for the pages, and for who is told of misuse.
#[derive(Clone)]
pub(super) struct Surroundings(pub(super) Counted<Supply>);

/// The pages of a pool.
#[derive(Clone)]
pub(super) struct Pages(Counted<Supply>);

impl Pages {
    /// The host's, where they are nobody else's.
    fn plain(&self) -> Option<<Host as Platform>::Pages> {
        let plain = matches!(self.0.source, Source::Host) && !self.0.passive;
        plain.then(|| Host.pages())
    }
}

// SAFETY: runs come from the host or from functions that promise the same; a run that is kept was given back, so
// nobody else has it until it is handed out again or goes back. Nothing here unwinds: a function
// of the program that would ends the process, and there is room for what comes back.
unsafe impl PageSupplier for Pages {
    fn page_size(&self) -> usize {
        match self.0.source {
            Source::Host => Host.pages().page_size(),
            Source::Functions { page, .. } => page,
        }
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        let run = match self.0.kept.find_promised(layout) {
            // It is not as fresh as it was.
            // SAFETY: base, layout and flag are those of a run that is ours.
            Some(run) => unsafe {
                PageRun::from_parts(run.base(), run.layout(), false, run.flag())
            },
            None => {
                self.0.kept.promise().map_err(|NoMemory| PageError::Exhausted)?;
                self.0.get(layout, request).inspect_err(|_| self.0.kept.release())?
            }
        };
        self.0.used.fetch_add(1, Ordering::Relaxed);
        Ok(run)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
        if self.0.keeps() || (self.0.passive && !pserialize()) {
            self.0.kept.push(run);
        } else {
            self.0.kept.release();
            self.0.give(run);
        }
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        // What is behind a free item may be looked at, or is not ours to take.
        self.plain()?.decommits()
    }

    fn protects(&self) -> Option<&dyn Protect> {
        self.plain()?.protects()
    }

    fn regions(&self) -> Option<&dyn Regions> {
        match self.0.source {
            Source::Host => Host.pages().regions(),
            Source::Functions { .. } => None,
        }
    }
}

// SAFETY: everything but the pages leads where the host's leads; clones share what is kept, and a zone that is
// forgotten holds a share of it.
unsafe impl Platform for Surroundings {
    type Pages = Pages;

    as_the_host!();

    fn pages(&self) -> Pages {
        Pages(self.0.clone())
    }

    fn hardening(&self, zone: &Name) -> Hardening {
        Host.hardening(zone)
    }

    fn misuse(&self, report: &Report<'_>) -> Verdict {
        // It ends the process if the policy is so.
        SYSTEM.misuse("pool", format_args!("{report}"));
        Verdict::Ignore
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        SYSTEM.report("pool_destroy", message);
    }
}
