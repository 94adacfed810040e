//! The fence: restarting the sequences that are under way on other CPUs.

use core::fmt::{self, Write as _};
use core::mem::MaybeUninit;

use crate::sync::{Flag, Ordering};

const PRIVATE_EXPEDITED_RSEQ: libc::c_int = 1 << 7;
const REGISTER_PRIVATE_EXPEDITED_RSEQ: libc::c_int = 1 << 8;
const FLAG_CPU: libc::c_uint = 1;

fn membarrier(command: libc::c_int, flags: libc::c_uint, cpu: libc::c_int) -> bool {
    // SAFETY: membarrier(2) takes three integers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, flags, cpu) == 0 }
}

/// Registers the process, and tries the fence once.
pub(super) fn register() -> bool {
    membarrier(REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0) && membarrier(PRIVATE_EXPEDITED_RSEQ, 0, 0)
}

/// Restarts what is under way on one CPU. Returns `false` if that cannot be done.
pub(super) fn cpu(cpu: usize) -> bool {
    // CPU numbers are below a million, so they fit.
    with_retry(FLAG_CPU, cpu as libc::c_int) || visit(cpu)
}

/// Restarts what is under way on every CPU. Returns `false` if they must be done one by one.
pub(super) fn all() -> bool {
    with_retry(0, 0)
}

/// The fence; once more after registering anew, which a child of fork may need.
fn with_retry(flags: libc::c_uint, cpu: libc::c_int) -> bool {
    membarrier(PRIVATE_EXPEDITED_RSEQ, flags, cpu)
        || (membarrier(REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0)
            && membarrier(PRIVATE_EXPEDITED_RSEQ, flags, cpu))
}

/// The fence where `membarrier` worked at first but is refused now (a filter was installed since):
/// this thread runs on the CPU for a moment, which preempts, and so restarts, whatever was under way there.
///
/// Returns `false` if it may not run there and cannot know that nobody does. A CPU that is offline runs nothing; but
/// the error is the same for one that is outside of this thread's cpuset, and other threads may be in another.
#[cold]
fn visit(cpu: usize) -> bool {
    let visited = run_on(cpu) || is_offline(cpu);
    if !visited && !TOLD.swap(true, Ordering::Relaxed) {
        tell();
    }
    visited
}

/// Whether a CPU was found that cannot be waited for, and this was said.
static TOLD: Flag = Flag::new(false);

/// Runs on this CPU for a moment. Returns whether it did.
fn run_on(cpu: usize) -> bool {
    if is_on(cpu) {
        return true;
    }
    let mut before = MaybeUninit::<libc::cpu_set_t>::zeroed();
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the set is writable and of the size given; 0 is this thread.
    let saved = unsafe { libc::sched_getaffinity(0, size, before.as_mut_ptr()) } == 0;
    if !saved || cpu >= size * 8 {
        return false;
    }
    // SAFETY: a set of all zeros is the empty set.
    let mut one = unsafe { MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init() };
    // SAFETY: `cpu` is within the set, as checked.
    unsafe { libc::CPU_SET(cpu, &mut one) };
    // SAFETY: the set is readable and of the size given.
    if unsafe { libc::sched_setaffinity(0, size, &raw const one) } != 0 {
        return false;
    }
    // Not if the cpuset has changed in the middle of it.
    let there = is_on(cpu);
    // SAFETY: as above; the set was filled in, as `saved` says.
    unsafe { libc::sched_setaffinity(0, size, before.as_ptr()) };
    there
}

/// Whether this thread is on the CPU just now: then no other is, in a sequence that it will end.
fn is_on(cpu: usize) -> bool {
    // SAFETY: it touches no memory of ours.
    usize::try_from(unsafe { libc::sched_getcpu() }) == Ok(cpu)
}

/// Whether the system says that the CPU is offline. Not by the list of those that are online, nor because it
/// knows nothing of this one: in a container, both may be shown as the reader's own cpuset has them.
fn is_offline(cpu: usize) -> bool {
    let mut path = Path { bytes: [0; 64], length: 0 };
    if write!(path, "/sys/devices/system/cpu/cpu{cpu}/online\0").is_err() {
        return false;
    }
    let mut said = 0_u8;
    // SAFETY: the path ends with a 0; `said` is one byte; the file is ours until it is closed.
    unsafe {
        let file = libc::open(path.bytes.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return false;
        }
        let read = libc::read(file, (&raw mut said).cast(), 1);
        libc::close(file);
        read == 1 && said == b'0'
    }
}

/// A path that is being written.
struct Path {
    bytes: [u8; 64],
    length: usize,
}

impl fmt::Write for Path {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

fn tell() {
    const MESSAGE: &[u8] =
        b"uma: the kernel refuses membarrier since zones are in use, and a CPU cannot be visited: \
        what is cached there stays\n";
    // SAFETY: the message is readable.
    unsafe { libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
}
