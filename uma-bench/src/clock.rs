//! Time, CPUs, and what the kernel knows of a thread.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use crate::sync::OnceLock;

/// Which time is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stopwatch {
    /// On the clock.
    Wall,
    /// Of this thread on its CPU.
    Cpu,
}

impl Stopwatch {
    /// Now, counted from anywhere.
    pub(crate) fn now(self) -> Duration {
        let clock = match self {
            Self::Wall => libc::CLOCK_MONOTONIC,
            Self::Cpu => libc::CLOCK_THREAD_CPUTIME_ID,
        };
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the structure is writable.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    /// The time since then.
    pub(crate) fn since(self, start: Duration) -> Duration {
        self.now().saturating_sub(start)
    }
}

/// A counter that is fast enough to time one operation.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instructions. The fences keep what is timed between two calls
    // from being done before the first or after the second.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        let ticks = core::arch::x86_64::_rdtsc();
        core::arch::x86_64::_mm_lfence();
        ticks
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        Stopwatch::Wall.now().as_nanos() as u64
    }
}

/// How many nanoseconds a tick lasts, measured once.
pub(crate) fn tick() -> f64 {
    static TICK: OnceLock<f64> = OnceLock::new();
    *TICK.get_or_init(|| {
        let (start, from) = (Instant::now(), ticks());
        while start.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        let (time, to) = (start.elapsed(), ticks());
        time.as_nanos() as f64 / (to - from) as f64
    })
}

/// How often the kernel took the CPU away from this thread.
pub(crate) fn preemptions() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the structure is writable; it is valid when zero.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_nivcsw
}

/// The CPUs that this program may run on.
pub(crate) fn cpus() -> Vec<usize> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the set is writable and of the size given; it is valid when zero.
    let set = unsafe {
        libc::sched_getaffinity(0, size, set.as_mut_ptr());
        set.assume_init()
    };
    // SAFETY: the numbers are within the set.
    let cpus = (0..size * 8).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) });
    let cpus = cpus.collect::<Vec<_>>();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// Binds this thread to a CPU.
pub(crate) fn pin(cpu: usize) {
    // SAFETY: a set is valid when zero, the number is within it, and it is of the size given.
    unsafe {
        let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// What the machine is, in one line, and how busy it was.
pub(crate) fn machine() -> (String, String) {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model).to_owned();
    let version = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let what = format!("{} CPUs ({model}), Linux {}", cpus().len(), version.trim());
    (what, load())
}

/// The load of the last minute.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("?").to_owned()
}
