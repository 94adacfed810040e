//! A platform with other pages.

use core::fmt;

use uma_core::{Name, PageSupplier};
use uma_debug::{FRAMES, Hardening, Report, Verdict};

use crate::{Platform, Registry};

/// Pages from `S`, everything else from the platform `P`: for zones that have a page supplier of their own
/// (`uma_zone_set_allocf` and `uma_zone_set_freef`).
///
/// The registry is that of `P`, so such zones are listed and reclaimed with the others. What they do not do
/// is take part in fork(2) with the supplier: a lock in there that another thread holds stays locked in the
/// child.
///
/// ```
/// use uma::{Host, WithPages, Zone};
/// use uma::core::{PageSupplier, Quota};
/// use uma::mmap::MmapPages;
///
/// // At most 16 pages of the system's for these.
/// static FEW: Quota<MmapPages> = Quota::new(MmapPages::new(), 16 * 4096);
/// static NODES: Zone<[u64; 8], WithPages<Host, &Quota<MmapPages>>> =
///     Zone::new_in("node", WithPages::new(Host, &FEW).largest_slab(4096));
///
/// let nodes: Vec<_> = (0..).map_while(|n| NODES.alloc([n; 8]).ok()).collect();
/// assert!(nodes.len() > 16 * 50 && FEW.used() == 16 * FEW.page_size());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WithPages<P, S> {
    platform: P,
    pages: S,
    /// The platform's own, unless said.
    largest_slab: Option<usize>,
}

impl<P: Platform, S: PageSupplier + Sync> WithPages<P, &'static S> {
    /// `platform`, but for its pages.
    pub const fn new(platform: P, pages: &'static S) -> Self {
        Self { platform, pages, largest_slab: None }
    }
}

impl<P: Platform, S: PageSupplier + Clone + Send + Sync> WithPages<P, S> {
    /// `platform`, but for its pages, of a supplier that is not there for ever or is a handle itself.
    ///
    /// # Safety
    ///
    /// All clones of `pages` lead to the same supplier, which lives as long as the platform's registry.
    pub const unsafe fn from_parts(platform: P, pages: S) -> Self {
        Self { platform, pages, largest_slab: None }
    }

    /// Slabs of small items are no larger than this, in bytes (see [`Platform::largest_slab`]). With the
    /// page size, no zone asks for a run that is aligned to more than a page, unless its items are.
    pub const fn largest_slab(mut self, bytes: usize) -> Self {
        self.largest_slab = Some(bytes);
        self
    }
}

// SAFETY: pages lead to the same supplier always, since references do, or by the promise of the caller of
// `from_parts`, and it lives long enough; the rest forwards to an implementation that keeps the contract.
unsafe impl<P: Platform, S: PageSupplier + Clone + Send + Sync> Platform for WithPages<P, S> {
    type Pages = S;
    type Cpus = P::Cpus;
    type Lock = P::Lock;
    type Sleep = P::Sleep;
    type Metadata = P::Metadata;

    fn pages(&self) -> S {
        self.pages.clone()
    }

    fn cpus(&self) -> P::Cpus {
        self.platform.cpus()
    }

    fn sleep(&self) -> P::Sleep {
        self.platform.sleep()
    }

    fn metadata(&self) -> P::Metadata {
        self.platform.metadata()
    }

    fn registry(&self) -> &Registry<P::Lock> {
        self.platform.registry()
    }

    fn largest_slab(&self) -> usize {
        self.largest_slab.unwrap_or_else(|| self.platform.largest_slab())
    }

    fn relax(&self) {
        self.platform.relax();
    }

    fn hardening(&self, zone: &Name) -> Hardening {
        self.platform.hardening(zone)
    }

    fn misuse(&self, report: &Report<'_>) -> Verdict {
        self.platform.misuse(report)
    }

    fn thread(&self) -> u64 {
        self.platform.thread()
    }

    fn trace(&self, frames: &mut [usize; FRAMES]) -> usize {
        self.platform.trace(frames)
    }

    fn show_frame(&self, frame: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.platform.show_frame(frame, f)
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        self.platform.report(message);
    }
}
