//! How zones of an ordinary process reach the slot of the running CPU.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::thread;

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
pub struct HostAccess {
    /// Restartable sequences, or else a lock per slot.
    rseq: Option<Sequences>,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
type Sequences = uma_cache::Rseq;
/// Where there are no sequences: a type without values.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64")))]
type Sequences = never::Never;

const LOCKS: CpuLocks<HostCpus> = CpuLocks::new(HostCpus);

impl HostAccess {
    const BY_LOCKS: Self = Self { rseq: None };

    pub(crate) fn chosen() -> Self {
        // No lock and no waiting: a child of fork must not find another thread half way through.
        const UNKNOWN: u8 = 0;
        const LOCKS: u8 = 1;
        const RSEQ: u8 = 2;
        static CHOSEN: AtomicU8 = AtomicU8::new(UNKNOWN);
        let mut chosen = CHOSEN.load(Ordering::Acquire);
        if chosen == UNKNOWN {
            let wish = if Self::wished().rseq.is_some() { RSEQ } else { LOCKS };
            let first = CHOSEN.compare_exchange(UNKNOWN, wish, Ordering::AcqRel, Ordering::Acquire);
            chosen = first.map_or_else(|first| first, |_| wish);
        }
        // Where one thread found sequences, others of the process find the same ones.
        if chosen == RSEQ {
            return Self { rseq: Sequences::known(HostCpus.cpus()) };
        }
        Self::BY_LOCKS
    }

    /// What the environment asks for, or else the best.
    fn wished() -> Self {
        let wish = std::env::var_os("UMA_PERCPU");
        match wish.as_deref().and_then(|wish| wish.to_str()) {
            Some("locks") => Self::BY_LOCKS,
            Some("rseq") => {
                let best = Self::best();
                if best.rseq.is_none() {
                    complain(format_args!("UMA_PERCPU=rseq, but there are no such sequences here"));
                }
                best
            }
            Some(other) if !other.is_empty() => {
                complain(format_args!("UMA_PERCPU={other} is neither \"rseq\" nor \"locks\""));
                Self::best()
            }
            _ => Self::best(),
        }
    }

    fn best() -> Self {
        Self { rseq: Sequences::available(HostCpus.cpus()) }
    }
}

// SAFETY: forwards to an implementation that keeps the contract, always the same.
unsafe impl PerCpu for HostAccess {
    fn cpus(&self) -> usize {
        HostCpus.cpus()
    }

    #[inline]
    fn pop(&self, slots: Slots<'_>) -> Option<Item> {
        match &self.rseq {
            Some(rseq) => rseq.pop(slots),
            None => LOCKS.pop(slots),
        }
    }

    #[inline]
    unsafe fn push(&self, slots: Slots<'_>, item: Item) -> bool {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            match &self.rseq {
                Some(rseq) => rseq.push(slots, item),
                None => LOCKS.push(slots, item),
            }
        }
    }

    /// That of sequences: locks take more than a few instructions.
    fn short(&self) -> isize {
        self.rseq.as_ref().map_or(0, PerCpu::short)
    }

    #[inline(always)]
    unsafe fn pop_inline(&self, short: isize, slots: Slots<'_>) -> Option<Item> {
        // SAFETY: it is not 0, so it came from sequences, whose offset is the same for all.
        unsafe { Sequences::pop_by(short, slots) }
    }

    #[inline(always)]
    unsafe fn push_inline(&self, short: isize, slots: Slots<'_>, item: Item) -> bool {
        // SAFETY: as in `pop_inline`; the rest is passed on from the caller.
        unsafe { Sequences::push_by(short, slots, item) }
    }

    fn swap(&self, slots: Slots<'_>, which: Which, new: Owned) -> Result<Owned, Owned> {
        match &self.rseq {
            Some(rseq) => rseq.swap(slots, which, new),
            None => LOCKS.swap(slots, which, new),
        }
    }

    fn fence(&self, slots: Slots<'_>, cpu: usize) -> bool {
        match &self.rseq {
            Some(rseq) => rseq.fence(slots, cpu),
            None => LOCKS.fence(slots, cpu),
        }
    }

    fn fence_range(&self, slots: Slots<'_>, cpus: core::ops::Range<usize>) -> bool {
        match &self.rseq {
            Some(rseq) => rseq.fence_range(slots, cpus),
            None => LOCKS.fence_range(slots, cpus),
        }
    }

    fn prefork(&self, slots: Slots<'_>) {
        match &self.rseq {
            Some(rseq) => rseq.prefork(slots),
            None => LOCKS.prefork(slots),
        }
    }

    unsafe fn postfork(&self, slots: Slots<'_>) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            match &self.rseq {
                Some(rseq) => rseq.postfork(slots),
                None => LOCKS.postfork(slots),
            }
        }
    }

    fn relax(&self) {
        thread::yield_now();
    }

    fn mode(&self) -> &'static str {
        match &self.rseq {
            Some(rseq) => rseq.mode(),
            None => LOCKS.mode(),
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64")))]
mod never {
    //! What stands for restartable sequences where there are none.

    use uma_cache::bucket::Owned;
    use uma_cache::{PerCpu, Slots, Which};
    use uma_core::Item;

    #[derive(Clone, Copy, Debug)]
    pub enum Never {}

    impl Never {
        pub(super) fn available(_: usize) -> Option<Self> {
            None
        }

        pub(super) fn known(_: usize) -> Option<Self> {
            None
        }

        pub(super) unsafe fn pop_by(_: isize, _: Slots<'_>) -> Option<Item> {
            None
        }

        pub(super) unsafe fn push_by(_: isize, _: Slots<'_>, _: Item) -> bool {
            false
        }
    }

    // SAFETY: there is no value, so nothing is ever promised.
    unsafe impl PerCpu for Never {
        fn cpus(&self) -> usize {
            match *self {}
        }
        fn pop(&self, _: Slots<'_>) -> Option<Item> {
            match *self {}
        }
        unsafe fn push(&self, _: Slots<'_>, _: Item) -> bool {
            match *self {}
        }
        fn swap(&self, _: Slots<'_>, _: Which, _: Owned) -> Result<Owned, Owned> {
            match *self {}
        }
        fn fence(&self, _: Slots<'_>, _: usize) -> bool {
            match *self {}
        }
        fn mode(&self) -> &'static str {
            match *self {}
        }
    }
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
    // What such a file says is at most a page, and comes at once.
    let mut text = [0; 4096];
    let mut file = File::open("/sys/devices/system/cpu/possible").ok()?;
    let length = file.read(&mut text).ok()?;
    let text = str::from_utf8(text.get(..length)?).ok()?;
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
