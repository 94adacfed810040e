//! Where the pages of a cache come from: the host, and for `SLAB_TYPESAFE_BY_RCU` with a stop on the way back.
//!
//! ```text
//!   cache --frees a slab--> kept --a grace period--> host
//!         <--needs a slab---
//! ```
//!
//! A reader under RCU may look at an object that was freed a moment ago, and may find that it is another one
//! by now, but of the same kind. So the pages of such a cache go back to the system only when a grace period
//! has passed since they were in use. What a grace period is the program says, by [`set_grace_period`]; until
//! it does, such pages stay with their cache until that is destroyed. And no memory behind free objects is
//! given back inside a slab.

use core::alloc::Layout;
use core::{fmt, ptr};

use uma::core::{Decommit, Name, PageError, PageRun, PageSupplier, Protect, Regions, Request};
use uma::debug::{Report, Verdict};
use uma::{Hardening, Host, Platform};

use super::SYSTEM;
use crate::common::memory::{Counted, NoMemory};
use crate::common::{Runs, as_the_host, boundary};
use crate::sync::{AtomicPtr, Ordering};

/// Returns when every reader who was reading as it was called has ended: `synchronize_rcu`.
pub type GracePeriod = extern "C-unwind" fn();

/// Null: there is none.
static GRACE_PERIOD: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Says what a grace period is, for caches with `SLAB_TYPESAFE_BY_RCU`: `synchronize_rcu` of liburcu, for
/// example. With `None`, their pages stay with them until they are destroyed. The function is called with no
/// lock held, by whichever thread makes caches give memory back, so no reader may do that.
pub fn set_grace_period(synchronize: Option<GracePeriod>) {
    let synchronize = synchronize.map_or(ptr::null_mut(), |function| function as *mut ());
    GRACE_PERIOD.store(synchronize, Ordering::Release);
}

/// Waits for a grace period, if it is known what that is.
pub(super) fn wait_for_grace_period() -> bool {
    let function = GRACE_PERIOD.load(Ordering::Acquire);
    if function.is_null() {
        return false;
    }
    // SAFETY: `set_grace_period` stored a function of this type.
    let function = unsafe { core::mem::transmute::<*mut (), GracePeriod>(function) };
    // Pages are on their way while it runs.
    boundary(Some(&SYSTEM), "synchronize_rcu", || function());
    true
}

/// Runs that are kept before somebody waits for a grace period on their account.
const BATCH: usize = 16;

/// Runs of pages on their way back to the host.
#[derive(Debug)]
pub(super) struct Kept(Runs);

impl Kept {
    const fn new() -> Self {
        Self(Runs::new())
    }

    /// Gives them back to the host, if it is known what a grace period is.
    pub(super) fn flush(&self) {
        // Not looked at one by one then, with each run that comes.
        if GRACE_PERIOD.load(Ordering::Acquire).is_null() {
            return;
        }
        let Some(mark) = self.0.mark() else { return };
        if wait_for_grace_period() {
            free(|| self.0.pop_marked(mark));
        } else {
            self.0.unmark(mark);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.0.count() != 0 {
            // Without one, whoever destroys a cache vouches that nobody reads.
            wait_for_grace_period();
            free(|| self.0.pop());
        }
    }
}

fn free(runs: impl FnMut() -> Option<PageRun>) {
    for run in core::iter::from_fn(runs) {
        // SAFETY: the run came from the host, whole; the keg gave it back, and readers have ended.
        unsafe { Host.pages().free_pages(run) };
    }
}

/// The platform of a cache: that of the process, but perhaps with pages that are kept.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    kept: Option<Counted<Kept>>,
}

impl Surroundings {
    pub(super) fn new(keep: bool) -> Result<Self, NoMemory> {
        let kept = if keep { Some(Counted::new(Kept::new())?) } else { None };
        Ok(Self { kept })
    }

    pub(super) fn kept(&self) -> Option<&Kept> {
        self.kept.as_deref()
    }
}

/// The pages of a cache.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    kept: Option<Counted<Kept>>,
}

impl Pages {
    /// The host's, where they go back at once.
    fn plain(&self) -> Option<<Host as Platform>::Pages> {
        self.kept.is_none().then(|| Host.pages())
    }
}

// SAFETY: runs come from the host, which keeps the promises; a run that is kept was given back, so nobody
// else has it until it is handed out again or goes back to the host. Nothing here unwinds: a grace period that
// would ends the process, and there is room for what comes back.
unsafe impl PageSupplier for Pages {
    fn page_size(&self) -> usize {
        Host.pages().page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        let Some(kept) = &self.kept else { return Host.pages().alloc_pages(layout, request) };
        if let Some(run) = kept.0.find_promised(layout) {
            // It is not as fresh as it was.
            // SAFETY: base, layout and flag are those of a run that is ours.
            return Ok(unsafe { PageRun::from_parts(run.base(), run.layout(), false, run.flag()) });
        }
        kept.0.promise().map_err(|NoMemory| PageError::Exhausted)?;
        let run = Host.pages().alloc_pages(layout, request).inspect_err(|_| kept.0.release())?;
        if !run.is_zeroed() {
            // Marks of objects that were constructed here before may be left (see `Construct`).
            // SAFETY: the run is ours, and so long.
            unsafe { run.base().write_bytes(0, layout.size()) };
        }
        Ok(run)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        match &self.kept {
            Some(kept) => {
                kept.0.push(run);
                if kept.0.unmarked() > BATCH {
                    kept.flush();
                }
            }
            // SAFETY: the caller's duty is passed on unchanged.
            None => unsafe { Host.pages().free_pages(run) },
        }
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        // What is behind a free object may be looked at.
        self.plain()?.decommits()
    }

    fn protects(&self) -> Option<&dyn Protect> {
        self.plain()?.protects()
    }

    fn regions(&self) -> Option<&dyn Regions> {
        Host.pages().regions()
    }
}

// SAFETY: everything but the pages leads where the host's leads; clones share what is kept, and a zone that is
// forgotten holds a share of it.
unsafe impl Platform for Surroundings {
    type Pages = Pages;

    as_the_host!();

    fn pages(&self) -> Pages {
        Pages { kept: self.kept.clone() }
    }

    fn hardening(&self, zone: &Name) -> Hardening {
        let wished = Host.hardening(zone);
        // Where memory stays what it is, somebody may rightly touch free objects.
        if self.kept.is_some() { wished.hands_off() } else { wished }
    }

    fn misuse(&self, report: &Report<'_>) -> Verdict {
        // It ends the process if the policy is so.
        SYSTEM.misuse("kmem_cache", format_args!("{report}"));
        Verdict::Ignore
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        SYSTEM.report("kmem_cache_destroy", message);
    }
}
