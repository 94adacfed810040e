//! The platform of an ordinary process: mmap, threads, the locks of `parking_lot`.

use std::eprintln;
use std::fmt;
use std::sync::OnceLock;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::RawMutex;
use uma_backend_mmap::MmapPages;
use uma_cache::{CpuLocks, CurrentCpu};
use uma_core::{Deadline, Sleep};
use uma_keg::MetaKegs;

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
    type Cpus = CpuLocks<HostCpus>;
    type Lock = RawMutex;
    type Sleep = Park;
    type Metadata = &'static MetaKegs<&'static MmapPages, RawMutex>;

    fn pages(&self) -> Self::Pages {
        &PAGES
    }

    fn cpus(&self) -> Self::Cpus {
        CpuLocks::new(HostCpus)
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

/// The CPUs of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostCpus;

impl CurrentCpu for HostCpus {
    fn cpus(&self) -> usize {
        static CPUS: OnceLock<usize> = OnceLock::new();
        *CPUS.get_or_init(|| possible_cpus().unwrap_or_else(parallelism))
    }

    #[cfg(target_os = "linux")]
    #[inline]
    fn current(&self) -> usize {
        rustix::thread::sched_getcpu()
    }

    #[cfg(not(target_os = "linux"))]
    fn current(&self) -> usize {
        // Spreads threads over the slots as they come.
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        thread_local! {
            static MINE: usize = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        MINE.try_with(|mine| *mine).unwrap_or(0) % self.cpus()
    }

    fn relax(&self) {
        thread::yield_now();
    }
}

/// One more than the highest number that a CPU can have, as Linux tells it: `0-3` means 4.
fn possible_cpus() -> Option<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").ok()?;
    let last = text.trim().rsplit(['-', ',']).next()?;
    last.parse::<usize>().ok()?.checked_add(1)
}

fn parallelism() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
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
