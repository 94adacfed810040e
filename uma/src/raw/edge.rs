//! What looks at every allocation and free of a zone that checks, and what that sees of the rest.

use core::alloc::Layout;
use core::ptr::NonNull;

use uma_core::{Metadata, Name};
use uma_debug::{Checks, FRAMES, GuardPool, Hardening, Report, Subject, Trace, Verdict, Witness};

use crate::Platform;

/// What the checks of a zone on platform `P` see of the rest, and whom they tell.
#[derive(Clone, Copy, Debug)]
pub struct ZoneWitness<P: Platform> {
    platform: P,
    on_misuse: Option<fn(&Report<'_>) -> Verdict>,
}

impl<P: Platform> Witness for ZoneWitness<P> {
    fn thread(&self) -> u64 {
        self.platform.thread()
    }

    fn trace(&self, frames: &mut [usize; FRAMES]) -> usize {
        self.platform.trace(frames)
    }

    fn show_frame(&self, frame: usize, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.platform.show_frame(frame, f)
    }

    fn owner(&self, address: usize) -> Option<Name> {
        let mut owner = None;
        self.platform.registry().visit(&mut |zone| {
            if owner.is_none() && zone.holds(address) {
                owner = Some(zone.name());
            }
        });
        owner
    }

    fn misuse(&self, report: &Report<'_>) -> Verdict {
        match self.on_misuse {
            Some(on_misuse) => on_misuse(report),
            None => self.platform.misuse(report),
        }
    }
}

/// What looks at every allocation and free of a zone.
pub(super) struct Edge<P: Platform> {
    pub(super) checks: Checks<P::Lock, P::Metadata, ZoneWitness<P>>,
    pub(super) pool: GuardPool<P::Lock, P::Pages>,
}

impl<P: Platform> Edge<P> {
    /// Checks for a zone, or `None` if there is no memory for them. `sampled` if memory from elsewhere is as
    /// good as an item from the zone's source.
    pub(super) fn new(
        subject: Subject,
        hardening: Hardening,
        platform: &P,
        on_misuse: Option<fn(&Report<'_>) -> Verdict>,
        sampled: bool,
    ) -> Option<Self> {
        let item = subject.pads.item();
        let witness = ZoneWitness { platform: platform.clone(), on_misuse };
        let one_in = if sampled { hardening.one_in() } else { 0 };
        Some(Self {
            checks: Checks::new(subject, hardening, platform.metadata(), witness)?,
            pool: GuardPool::new(platform.pages(), item, one_in),
        })
    }

    /// Takes one down that lies in metadata.
    ///
    /// # Safety
    ///
    /// Nothing uses it any more, and its memory came from the metadata of this platform.
    pub(super) unsafe fn delete(edge: NonNull<Self>, platform: &P) {
        // SAFETY: passed on to the caller.
        unsafe {
            edge.drop_in_place();
            platform.metadata().free_meta(edge.cast(), Layout::new::<Self>());
        }
    }

    /// Shows every item in use, and who allocated it, as far as that is known.
    pub(super) fn for_each_live(&self, visit: &mut dyn FnMut(usize, Trace)) {
        self.checks.for_each_live(&mut |item, trace| visit(item, trace.unwrap_or_default()));
        self.pool.for_each_live(visit);
    }

    pub(super) fn holds(&self, address: usize) -> bool {
        self.pool.holds(address) || self.checks.holds(address)
    }
}

/// A core's pointer to its edge.
pub(super) struct EdgePtr<P: Platform>(pub(super) NonNull<Edge<P>>);

impl<P: Platform> Clone for EdgePtr<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Platform> Copy for EdgePtr<P> {}

// SAFETY: it leads to what may be shared between threads (see below).
unsafe impl<P: Platform> Send for EdgePtr<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for EdgePtr<P> {}

/// Fails to compile unless edges may be shared between threads.
#[expect(dead_code, reason = "it is the type check that counts")]
fn edges_are_shared<P: Platform>() {
    fn shared<T: Send + Sync>() {}
    shared::<Edge<P>>();
}
