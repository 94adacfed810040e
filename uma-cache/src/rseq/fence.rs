//! The fence: restarting the sequences that are under way on other CPUs.

use core::mem::MaybeUninit;

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

/// Restarts what is under way on one CPU.
pub(super) fn cpu(cpu: usize) {
    // CPU numbers are below a million, so they fit.
    if !with_retry(FLAG_CPU, cpu as libc::c_int) {
        visit(cpu..cpu + 1);
    }
}

/// Restarts what is under way on every CPU.
pub(super) fn all(cpus: usize) {
    if !with_retry(0, 0) {
        visit(0..cpus);
    }
}

/// The fence; once more after registering anew, which a child of fork may need.
fn with_retry(flags: libc::c_uint, cpu: libc::c_int) -> bool {
    membarrier(PRIVATE_EXPEDITED_RSEQ, flags, cpu)
        || (membarrier(REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0)
            && membarrier(PRIVATE_EXPEDITED_RSEQ, flags, cpu))
}

/// The fence where `membarrier` worked at first but is refused now (a filter was installed since):
/// this thread runs on each of the CPUs for a moment, which preempts, and so restarts, whatever was
/// under way there.
///
/// If even that is refused nothing can tell when a bucket is free to take, and going on would hand
/// items out twice: the process ends.
#[cold]
fn visit(cpus: core::ops::Range<usize>) {
    let mut before = MaybeUninit::<libc::cpu_set_t>::zeroed();
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the set is writable and of the size given; 0 is this thread.
    let saved = unsafe { libc::sched_getaffinity(0, size, before.as_mut_ptr()) } == 0;
    for cpu in cpus {
        // SAFETY: a set of all zeros is the empty set.
        let mut one = unsafe { MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init() };
        if cpu >= size * 8 {
            die();
        }
        // SAFETY: `cpu` is within the set, as checked.
        unsafe { libc::CPU_SET(cpu, &mut one) };
        // SAFETY: the set is readable and of the size given.
        let moved = unsafe { libc::sched_setaffinity(0, size, &raw const one) } == 0;
        // A CPU that is offline cannot be moved to, and runs nothing.
        // SAFETY: errno is this thread's own.
        let offline = !moved && unsafe { *libc::__errno_location() } == libc::EINVAL;
        if !saved || !(moved || offline) {
            die();
        }
    }
    // SAFETY: as above; the set was filled in, as `saved` says.
    unsafe { libc::sched_setaffinity(0, size, before.as_ptr()) };
}

fn die() -> ! {
    const MESSAGE: &[u8] =
        b"uma: the kernel refuses membarrier and sched_setaffinity since zones are in use\n";
    // SAFETY: the message is readable; abort does not return.
    unsafe {
        libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len());
        libc::abort()
    }
}
