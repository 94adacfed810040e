//! How zones of an ordinary process reach the slot of the running CPU.

use std::sync::OnceLock;
use std::{eprintln, thread};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use uma_cache::Rseq;
use uma_cache::bucket::Owned;
use uma_cache::{CpuLocks, CurrentCpu, PerCpu, Slots, Which};
use uma_core::Item;

/// The way that was chosen for this process, at the first use of a zone, and never changes:
/// restartable sequences where the C library and the kernel have what they take, else a lock per
/// slot.
///
/// The environment variable `UMA_PERCPU` overrides it: `rseq` or `locks`. (Sanitizers and valgrind
/// want `locks`.) [`PerCpu::mode`] tells which it is.
#[derive(Clone, Copy, Debug)]
pub enum HostAccess {
    /// Restartable sequences.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Rseq(Rseq),
    /// A lock per slot.
    Locks(CpuLocks<HostCpus>),
}

impl HostAccess {
    const LOCKS: Self = Self::Locks(CpuLocks::new(HostCpus));

    pub(crate) fn chosen() -> Self {
        static CHOSEN: OnceLock<HostAccess> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let wish = std::env::var_os("UMA_PERCPU");
            match wish.as_deref().and_then(|wish| wish.to_str()) {
                Some("locks") => Self::LOCKS,
                Some("rseq") => Self::rseq().unwrap_or_else(|| {
                    eprintln!("uma: UMA_PERCPU=rseq, but there are no restartable sequences here");
                    Self::LOCKS
                }),
                Some(other) if !other.is_empty() => {
                    eprintln!("uma: UMA_PERCPU={other} is neither \"rseq\" nor \"locks\"");
                    Self::best()
                }
                _ => Self::best(),
            }
        })
    }

    fn best() -> Self {
        Self::rseq().unwrap_or(Self::LOCKS)
    }

    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn rseq() -> Option<Self> {
        Rseq::available(HostCpus.cpus()).map(Self::Rseq)
    }

    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    fn rseq() -> Option<Self> {
        None
    }
}

/// Does the same with whichever it is.
macro_rules! either {
    ($access:expr, $one:ident => $what:expr) => {
        match $access {
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            HostAccess::Rseq($one) => $what,
            HostAccess::Locks($one) => $what,
        }
    };
}

// SAFETY: forwards to an implementation that keeps the contract, always the same.
unsafe impl PerCpu for HostAccess {
    fn cpus(&self) -> usize {
        either!(self, access => access.cpus())
    }

    #[inline(always)]
    fn pop(&self, slots: Slots<'_>) -> Option<Item> {
        either!(self, access => access.pop(slots))
    }

    #[inline(always)]
    unsafe fn push(&self, slots: Slots<'_>, item: Item) -> bool {
        // SAFETY: the caller's duty is passed on unchanged.
        either!(self, access => unsafe { access.push(slots, item) })
    }

    fn swap(&self, slots: Slots<'_>, which: Which, new: Owned) -> Result<Owned, Owned> {
        either!(self, access => access.swap(slots, which, new))
    }

    fn fence(&self, slots: Slots<'_>, cpu: usize) {
        either!(self, access => access.fence(slots, cpu));
    }

    fn fence_range(&self, slots: Slots<'_>, cpus: core::ops::Range<usize>) {
        either!(self, access => access.fence_range(slots, cpus));
    }

    fn mode(&self) -> &'static str {
        either!(self, access => access.mode())
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
