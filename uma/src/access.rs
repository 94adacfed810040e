//! How zones of an ordinary process reach the slot of the running CPU.

use std::fmt;
use std::io::Write;
use std::thread;

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
use uma_cache::Rseq;
use uma_cache::bucket::Owned;
use uma_cache::{CpuLocks, CurrentCpu, PerCpu, Slots, Which};
use uma_core::Item;

use crate::sync::{AtomicU8, AtomicUsize, Ordering};

/// The way that was chosen for this process, at the first use of a zone, and never changes:
/// restartable sequences where the C library and the kernel have what they take, else a lock per
/// slot.
///
/// The environment variable `UMA_PERCPU` overrides it: `rseq` or `locks`. (Sanitizers and valgrind
/// want `locks`.) [`PerCpu::mode`] tells which it is.
#[derive(Clone, Copy, Debug)]
pub enum HostAccess {
    /// Restartable sequences.
    #[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
    Rseq(Rseq),
    /// A lock per slot.
    Locks(CpuLocks<HostCpus>),
}

impl HostAccess {
    const LOCKS: Self = Self::Locks(CpuLocks::new(HostCpus));

    pub(crate) fn chosen() -> Self {
        // No lock and no waiting: a child of fork must not find another thread half way through.
        const UNKNOWN: u8 = 0;
        const LOCKS: u8 = 1;
        const RSEQ: u8 = 2;
        static CHOSEN: AtomicU8 = AtomicU8::new(UNKNOWN);
        let mut chosen = CHOSEN.load(Ordering::Acquire);
        if chosen == UNKNOWN {
            #[cfg(unix)]
            crate::fork::install();
            let wish = if matches!(Self::wished(), Self::Locks(_)) { LOCKS } else { RSEQ };
            let first = CHOSEN.compare_exchange(UNKNOWN, wish, Ordering::AcqRel, Ordering::Acquire);
            chosen = first.map_or_else(|first| first, |_| wish);
        }
        // Where one thread found sequences, others of the process find the same ones.
        if chosen == RSEQ { Self::rseq().unwrap_or(Self::LOCKS) } else { Self::LOCKS }
    }

    /// What the environment asks for, or else the best.
    fn wished() -> Self {
        let wish = std::env::var_os("UMA_PERCPU");
        match wish.as_deref().and_then(|wish| wish.to_str()) {
            Some("locks") => Self::LOCKS,
            Some("rseq") => Self::rseq().unwrap_or_else(|| {
                complain(format_args!(
                    "UMA_PERCPU=rseq, but there are no restartable sequences here"
                ));
                Self::LOCKS
            }),
            Some(other) if !other.is_empty() => {
                complain(format_args!("UMA_PERCPU={other} is neither \"rseq\" nor \"locks\""));
                Self::best()
            }
            _ => Self::best(),
        }
    }

    fn best() -> Self {
        Self::rseq().unwrap_or(Self::LOCKS)
    }

    #[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
    fn rseq() -> Option<Self> {
        Rseq::available(HostCpus.cpus()).map(Self::Rseq)
    }

    #[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64")))]
    fn rseq() -> Option<Self> {
        None
    }
}

/// Does the same with whichever it is.
macro_rules! either {
    ($access:expr, $one:ident => $what:expr) => {
        match $access {
            #[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
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

    // The sequences are few instructions and belong where they are used; the locks do not.
    #[inline(always)]
    fn pop(&self, slots: Slots<'_>) -> Option<Item> {
        match self {
            #[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
            Self::Rseq(rseq) => rseq.pop(slots),
            Self::Locks(locks) => pop_locked(locks, slots),
        }
    }

    #[inline(always)]
    unsafe fn push(&self, slots: Slots<'_>, item: Item) -> bool {
        match self {
            #[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
            // SAFETY: the caller's duty is passed on unchanged.
            Self::Rseq(rseq) => unsafe { rseq.push(slots, item) },
            // SAFETY: as above.
            Self::Locks(locks) => unsafe { push_locked(locks, slots, item) },
        }
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

    fn prefork(&self, slots: Slots<'_>) {
        either!(self, access => access.prefork(slots));
    }

    unsafe fn postfork(&self, slots: Slots<'_>) {
        // SAFETY: the caller's duty is passed on unchanged.
        either!(self, access => unsafe { access.postfork(slots) });
    }

    fn relax(&self) {
        thread::yield_now();
    }

    fn mode(&self) -> &'static str {
        either!(self, access => access.mode())
    }
}

#[inline(never)]
fn pop_locked(locks: &CpuLocks<HostCpus>, slots: Slots<'_>) -> Option<Item> {
    locks.pop(slots)
}

/// # Safety
///
/// As [`PerCpu::push`].
#[inline(never)]
unsafe fn push_locked(locks: &CpuLocks<HostCpus>, slots: Slots<'_>, item: Item) -> bool {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { locks.push(slots, item) }
}

/// The CPUs of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostCpus;

impl CurrentCpu for HostCpus {
    fn cpus(&self) -> usize {
        static CPUS: AtomicUsize = AtomicUsize::new(0);
        match CPUS.load(Ordering::Relaxed) {
            0 => {
                // Every thread finds the same number.
                let cpus = possible_cpus().unwrap_or_else(configured_cpus);
                CPUS.store(cpus, Ordering::Relaxed);
                cpus
            }
            cpus => cpus,
        }
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

/// CPUs that the machine has, as the C library counts them.
fn configured_cpus() -> usize {
    // SAFETY: asks for a number.
    let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    usize::try_from(cpus).unwrap_or(1).max(1)
}

/// Tells the operator of something, if there is anybody to hear it.
pub(crate) fn complain(message: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "uma: {message}");
}
