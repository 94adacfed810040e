//! What churn costs the system: system calls and page faults for a million allocations.
//!
//! *From nothing* is a whole life: 100,000 items allocated, a random one replaced two million times, all
//! freed. *Steady* is the second of these millions alone. Every new item's first word is written. What an
//! allocator does once for the process is apart, as far as it does it at its *first item*, which is allocated
//! and freed before; what others do in constructors, before `main`, is counted nowhere.
//!
//! Each subject runs in a process of its own, which is this program with a hidden first argument, on one
//! thread. Its system calls are counted by ptrace(2), which stops it at each; its minor page faults are
//! what getrusage(2) says. Calls to the marker (`getppid`) divide its life into parts. Threads that a subject
//! starts itself are not counted.

use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use crate::rounds::{Figure, Random};
use crate::subject::{self, Filter, Subject, Visit, each_malloc, each_process, in_child};
use crate::work::Bench;

/// The first argument that makes the program run one subject under the eyes of its parent.
pub(crate) const CHILD: &str = "--count-calls-of";

const LIVE: usize = 100_000;
const STEPS: usize = 1_000_000;

/// The parts of the child's life: before; the first item; a pause; from nothing; a pause; steady; a pause;
/// the end; after.
const PARTS: usize = 9;

const CALLS: [&str; 3] =
    ["churn from nothing, system calls", "churn, steady, system calls", "first item, system calls"];
const FAULTS: [&str; 3] =
    ["churn from nothing, page faults", "churn, steady, page faults", "first item, page faults"];

pub(crate) fn run(bench: &mut Bench) {
    for size in [64, 1024] {
        let mut calls: [Vec<Figure>; 3] = Default::default();
        let mut faults: [Vec<Figure>; 3] = Default::default();
        for name in each_process(&bench.filter) {
            match child(name, size) {
                Ok(Some(found)) => {
                    for (at, figures) in calls.iter_mut().enumerate() {
                        figures.push(Figure::new(name, vec![found.calls[at]]));
                    }
                    for (at, figures) in faults.iter_mut().enumerate() {
                        figures.push(Figure::new(name, vec![found.faults[at]]));
                    }
                }
                // Not one that deals in pointers.
                Ok(None) => {}
                Err(error) => println!("NOT MEASURED: {name}: {error}"),
            }
        }
        let rows = CALLS.into_iter().zip(calls).map(|(name, figures)| (name, "calls", figures));
        let more = FAULTS.into_iter().zip(faults).map(|(name, figures)| (name, "faults", figures));
        for (name, unit, figures) in rows.chain(more) {
            bench.keep(name, size, 1, unit, figures);
        }
    }
}

/// For a million allocations from nothing, a million steady ones, and the first.
struct Found {
    calls: [f64; 3],
    faults: [f64; 3],
}

/// Starts the child for one subject, and watches it.
fn child(name: &str, size: usize) -> std::io::Result<Option<Found>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([CHILD, name, &size.to_string()]).stdout(Stdio::piped());
    // What a subject's name says, its process decides.
    command.env_remove("UMA_HUGE_PAGES");
    let traceme = || {
        let null = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: a system call without arguments.
        match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, null, null) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call.
    let mut child = unsafe { command.pre_exec(traceme) }.spawn()?;
    let calls = watch(child.id() as libc::pid_t)?;
    let mut text = String::new();
    if let Some(output) = &mut child.stdout {
        output.read_to_string(&mut text)?;
    }
    let faults: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let &[first, life, steady] = faults.as_slice() else { return Ok(None) };
    // The parts in which allocations are made and freed.
    let all: usize = [3, 5, 7].iter().map(|&part| calls[part]).sum();
    let millions = (LIVE + 2 * STEPS) as f64 / 1e6;
    Ok(Some(Found {
        calls: [all as f64 / millions, calls[5] as f64, calls[1] as f64],
        faults: [life / millions, steady, first],
    }))
}

/// Lets the child run from one system call to the next until it ends. Returns how many it made in each
/// part of its life.
fn watch(child: libc::pid_t) -> std::io::Result<[usize; PARTS]> {
    let null = std::ptr::null_mut::<libc::c_void>();
    let failed = std::io::Error::last_os_error;
    let mut calls = [0; PARTS];
    let (mut part, mut first) = (0, true);
    loop {
        let mut status = 0;
        // SAFETY: the status is writable.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
            return Err(failed());
        }
        if !libc::WIFSTOPPED(status) {
            let well = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
            return if well { Ok(calls) } else { Err(std::io::Error::other("the child failed")) };
        }
        let mut signal = libc::WSTOPSIG(status);
        if first {
            // Stopped by exec.
            (first, signal) = (false, 0);
            let options = (libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL) as usize;
            let options = std::ptr::without_provenance_mut::<libc::c_void>(options);
            // SAFETY: the child is ours and stopped.
            if unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, child, null, options) } != 0 {
                return Err(failed());
            }
        } else if signal == libc::SIGTRAP | 0x80 {
            signal = 0;
            match call(child)? {
                Some(number) if number == libc::SYS_getppid as u64 => {
                    part = (part + 1).min(PARTS - 1);
                }
                Some(_) => calls[part] += 1,
                // A return.
                None => {}
            }
        }
        let signal = std::ptr::without_provenance_mut::<libc::c_void>(signal as usize);
        // SAFETY: the child is ours and stopped.
        if unsafe { libc::ptrace(libc::PTRACE_SYSCALL, child, null, signal) } != 0 {
            return Err(failed());
        }
    }
}

/// The number of the system call that the child is about to make, if it is not at the end of one.
fn call(child: libc::pid_t) -> std::io::Result<Option<u64>> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = std::ptr::without_provenance_mut::<libc::c_void>(size_of_val(&info));
    // SAFETY: the child is ours and stopped, and the structure is writable and of that size.
    let written =
        unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, child, size, info.as_mut_ptr()) };
    if written <= 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: it is valid when zero, and was written.
    let info = unsafe { info.assume_init() };
    // SAFETY: a number whatever was written, and that of the call at an entry.
    let number = unsafe { info.u.entry.nr };
    Ok((info.op == libc::PTRACE_SYSCALL_INFO_ENTRY).then_some(number))
}

/// What the child does.
pub(crate) fn measure(name: &str, size: &str) {
    let name = in_child(name);
    let filter = Filter { names: vec![name.to_owned()], alone: true };
    let mut one = One { wanted: name };
    match size {
        "64" => each_malloc::<64>(&filter, &mut one),
        "1024" => each_malloc::<1024>(&filter, &mut one),
        _ => {}
    }
}

struct One<'a> {
    wanted: &'a str,
}

impl Visit for One<'_> {
    fn visit<S: Subject>(&mut self, name: &'static str, subject: S) {
        if name == self.wanted {
            let [first, life, steady] = life(subject);
            println!("{first} {life} {steady}");
        }
    }
}

/// Tells the parent that another part begins.
fn mark() {
    // SAFETY: it takes nothing and changes nothing.
    unsafe { libc::syscall(libc::SYS_getppid) };
}

/// Page faults of this process so far.
fn faults() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the structure is writable; it is valid when zero.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_minflt
}

/// Page faults of the first item, of all that comes after it, and of the steady part.
fn life<S: Subject>(subject: S) -> [i64; 3] {
    subject::thread_begins();
    let mut items: Vec<Option<S::Held>> = Vec::with_capacity(LIVE);
    items.resize_with(LIVE, || None);
    // Its pages are there before counting begins.
    items.iter_mut().for_each(|place| *std::hint::black_box(place) = None);
    let mut random = Random::new(5);
    let mut churn = |items: &mut [Option<S::Held>]| {
        for _ in 0..STEPS {
            let at = random.below(LIVE);
            if let Some(held) = items[at].take() {
                // SAFETY: it came from this subject.
                unsafe { subject.free(held) };
            }
            items[at] = Some(subject.alloc(at as u64));
        }
    };
    let start = faults();
    mark();
    // SAFETY: it came from this subject just now.
    unsafe { subject.free(std::hint::black_box(subject.alloc(0))) };
    mark();
    let begin = faults();
    mark();
    for (at, place) in items.iter_mut().enumerate() {
        *place = Some(subject.alloc(at as u64));
    }
    churn(&mut items);
    mark();
    let before = faults();
    mark();
    churn(&mut items);
    mark();
    let steady = faults() - before;
    mark();
    for place in &mut items {
        if let Some(held) = place.take() {
            // SAFETY: as above.
            unsafe { subject.free(held) };
        }
    }
    mark();
    [begin - start, faults() - begin, steady]
}
