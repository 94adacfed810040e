//! The platform of an ordinary process: mmap, threads, the locks of `parking_lot`.

use std::fmt;
use std::thread::{self, Thread};
use std::time::Duration;

use uma_backend_mmap::{Config, MmapPages};
use uma_core::{Deadline, Name, Sleep};
use uma_debug::{FRAMES, Hardening, Report, Verdict};
use uma_keg::MetaKegs;

use crate::access::{HostAccess, complain};
use crate::lock::HostLock;
use crate::{Platform, Registry, hardening as debug};

pub(crate) static PAGES: MmapPages<HostLock> = MmapPages::with_lock(Config::DEFAULT);
/// The largest pages that a system on this kind of processor may have, which must be known before the system can
/// be asked. Metadata lies in slabs of these.
const LARGEST_PAGE: usize = if cfg!(any(
    target_arch = "x86",
    target_arch = "x86_64",
    target_arch = "riscv64",
    target_arch = "s390x",
)) {
    4096
} else {
    64 << 10
};
pub(crate) static METADATA: MetaKegs<&'static MmapPages<HostLock>, HostLock> =
    MetaKegs::with_page_size(&PAGES, LARGEST_PAGE);
pub(crate) static REGISTRY: Registry<HostLock> = Registry::new();

/// Before anybody is led to one of these, whose locks he may take.
#[inline]
fn survive_forks() {
    #[cfg(unix)]
    crate::fork::install();
}

/// The supplier of pages.
pub(crate) fn pages() -> &'static MmapPages<HostLock> {
    survive_forks();
    &PAGES
}

/// The platform of an ordinary process: pages by mmap, one slot per CPU of the machine, waiting by
/// parking threads, and one registry for all zones of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host;

impl Host {
    /// The platform.
    pub const fn new() -> Self {
        Self
    }

    /// Gives back what the suppliers of pages and metadata hold beyond need. See
    /// [`reclaim`](crate::reclaim), which does this after reclaiming every zone.
    pub(crate) fn trim() {
        survive_forks();
        METADATA.reclaim();
        PAGES.trim();
    }
}

// SAFETY: every method leads to a static.
unsafe impl Platform for Host {
    type Pages = &'static MmapPages<HostLock>;
    type Cpus = HostAccess;
    type Lock = HostLock;
    type Sleep = Park;
    type Metadata = &'static MetaKegs<&'static MmapPages<HostLock>, HostLock>;

    fn pages(&self) -> Self::Pages {
        pages()
    }

    fn cpus(&self) -> HostAccess {
        survive_forks();
        HostAccess::chosen()
    }

    fn sleep(&self) -> Park {
        Park
    }

    fn metadata(&self) -> Self::Metadata {
        survive_forks();
        &METADATA
    }

    fn registry(&self) -> &Registry<HostLock> {
        survive_forks();
        &REGISTRY
    }

    fn relax(&self) {
        thread::yield_now();
    }

    fn hardening(&self, zone: &Name) -> Hardening {
        debug::wished(zone)
    }

    fn misuse(&self, report: &Report<'_>) -> Verdict {
        complain(format_args!("{report}"));
        std::process::abort();
    }

    fn thread(&self) -> u64 {
        debug::thread()
    }

    fn trace(&self, frames: &mut [usize; FRAMES]) -> usize {
        debug::trace(frames)
    }

    fn show_frame(&self, frame: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug::show_frame(frame, f)
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        complain(message);
    }
}

/// Waits by parking the thread. Its clock is the system's monotonic one; see [`Park::deadline_in`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Park;

impl Park {
    /// The deadline that is `time` from now. [`Zone::alloc_for`](crate::Zone::alloc_for) and
    /// [`ObjectCache::get_for`](crate::ObjectCache::get_for) take the time itself.
    pub fn deadline_in(time: Duration) -> Deadline {
        Deadline::after(time, &Self)
    }
}

impl Sleep for Park {
    type Waker = Thread;

    #[cfg(unix)]
    fn now(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        // Neither is negative, and 584 years fit.
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    #[cfg(not(unix))]
    fn now(&self) -> u64 {
        use std::time::Instant;
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        // 584 years fit.
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }

    fn waker(&self) -> Thread {
        thread::current()
    }

    fn sleep(&self, until: Deadline) {
        match until.nanoseconds() {
            None => thread::park(),
            Some(at) => thread::park_timeout(Duration::from_nanos(at.saturating_sub(self.now()))),
        }
    }

    fn wake(&self, waker: &Thread) {
        waker.unpark();
    }
}

#[cfg(test)]
mod tests {
    use uma_core::PageSupplier;

    use super::*;

    /// On other systems there would be no metadata, and so no cache and no zone.
    #[test]
    fn the_pages_of_this_system_are_no_larger_than_thought() {
        assert!(LARGEST_PAGE.is_multiple_of(PAGES.page_size()), "{}", PAGES.page_size());
    }
}
