//! The platform of an ordinary process: mmap, threads, the locks of `parking_lot`.

use std::eprintln;
use std::fmt;
use std::sync::OnceLock;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::RawMutex;
use uma_backend_mmap::MmapPages;
use uma_core::{Deadline, Sleep};
use uma_keg::MetaKegs;

use crate::access::HostAccess;
use crate::{Platform, Registry};

static PAGES: MmapPages = MmapPages::new();
static METADATA: MetaKegs<&'static MmapPages, RawMutex> = MetaKegs::new(&PAGES);
static REGISTRY: Registry<RawMutex> = Registry::new();

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
        METADATA.reclaim();
        PAGES.trim();
    }
}

// SAFETY: every method leads to a static.
unsafe impl Platform for Host {
    type Pages = &'static MmapPages;
    type Cpus = HostAccess;
    type Lock = RawMutex;
    type Sleep = Park;
    type Metadata = &'static MetaKegs<&'static MmapPages, RawMutex>;

    fn pages(&self) -> Self::Pages {
        &PAGES
    }

    fn cpus(&self) -> HostAccess {
        HostAccess::chosen()
    }

    fn sleep(&self) -> Park {
        Park
    }

    fn metadata(&self) -> Self::Metadata {
        &METADATA
    }

    fn registry(&self) -> &Registry<RawMutex> {
        &REGISTRY
    }

    fn relax(&self) {
        thread::yield_now();
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        eprintln!("uma: {message}");
    }
}

/// Waits by parking the thread. Its clock counts nanoseconds from its first use; see
/// [`Park::deadline_in`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Park;

impl Park {
    /// The deadline that is `time` from now.
    pub fn deadline_in(time: Duration) -> Deadline {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Deadline::at(Park.now().saturating_add(nanoseconds))
    }
}

impl Sleep for Park {
    type Waker = Thread;

    fn now(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        let passed = START.get_or_init(Instant::now).elapsed();
        // 584 years fit.
        passed.as_nanos() as u64
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
