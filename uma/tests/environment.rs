//! Zones in processes that fork, and where restartable sequences or the fence are refused.
//!
//! Each case runs in a process of its own: this program, started again with `UMA_TEST_CASE` set.
#![cfg(target_os = "linux")]

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use uma::cache::PerCpu;
use uma::{Host, ObjectCache, Platform, Reclaim, Zone};
use uma_testkit::in_a_copy;

static NODES: Zone<[u64; 8]> = Zone::new("node");
static LINES: Zone<[u8; 200]> = Zone::new("line");

/// Allocates, checks and frees; more than the caches hold.
fn work(rounds: u64) {
    for round in 0..rounds {
        let nodes: Vec<_> = (0..600).map(|n| NODES.alloc([round ^ n; 8]).unwrap()).collect();
        let line = LINES.alloc([round as u8; 200]).unwrap();
        for (n, node) in nodes.iter().enumerate() {
            assert_eq!(**node, [round ^ n as u64; 8]);
        }
        assert_eq!(*line, [round as u8; 200]);
    }
}

/// The name of the way to the slots.
fn mode() -> &'static str {
    Host.cpus().mode()
}

/// What every case does in the end: everything works, and the counts are right.
fn workout() {
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| work(20));
        }
        scope.spawn(|| {
            for _ in 0..20 {
                uma::reclaim(Reclaim::DrainCpu);
            }
        });
    });
    let stats = NODES.stats();
    assert_eq!((stats.used(), stats.allocs), (0, 3 * 20 * 600));
    uma::reclaim(Reclaim::DrainCpu);
    assert_eq!(NODES.stats().slabs, 0);
    println!("mode={}", mode());
    print!("{}", uma::stat());
}

fn start(case: &str, env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_case", "--nocapture"]).env("UMA_TEST_CASE", case);
    command.env_remove("UMA_PERCPU").envs(env.iter().copied());
    let output = command.output().unwrap();
    let (out, err) = (&output.stdout, &output.stderr);
    print!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(output.status.success(), "case {case}: {}", output.status);
    output
}

fn mode_of(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    // The harness may have begun a line with the name of the test.
    let line = text.lines().find_map(|line| line.split_once("mode="));
    line.expect("the case says its mode").1.to_owned()
}

/// Not a test: what the others start.
#[test]
fn a_case() {
    match std::env::var("UMA_TEST_CASE").as_deref() {
        Ok("workout") => workout(),
        #[cfg(target_arch = "x86_64")]
        Ok("refused membarrier") => {
            seccomp::refuse(libc::SYS_membarrier, libc::EPERM);
            workout();
        }
        #[cfg(target_arch = "x86_64")]
        Ok("refused later") => {
            let cpus = on_each_cpu();
            work(2);
            seccomp::refuse(libc::SYS_membarrier, libc::EPERM);
            workout_after(2 + cpus);
        }
        #[cfg(target_arch = "x86_64")]
        Ok("CPU out of reach") => cpu_out_of_reach(),
        Ok("fork") => fork_under_load(),
        Ok("fork beside a sleeper") => fork_beside_a_sleeper(),
        Ok("threads") => threads_that_end(),
        Ok(case) => panic!("no case {case}"),
        Err(_) => {}
    }
}

#[test]
fn the_best_way_is_chosen_and_can_be_overridden() {
    let best = mode_of(&start("workout", &[]));
    if best != "rseq" {
        println!("NOT TESTED: no restartable sequences on this machine, it uses {best}");
    } else {
        assert_eq!(mode_of(&start("workout", &[("UMA_PERCPU", "rseq")])), "rseq");
    }
    assert_eq!(mode_of(&start("workout", &[("UMA_PERCPU", "locks")])), "locks");
    let output = start("workout", &[("UMA_PERCPU", "wheels")]);
    assert_eq!(mode_of(&output), best);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("UMA_PERCPU=wheels"), "{complaint}");
}

#[test]
fn without_registered_sequences_locks_are_used() {
    let tunable = [("GLIBC_TUNABLES", "glibc.pthread.rseq=0")];
    assert_eq!(mode_of(&start("workout", &tunable)), "locks");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn without_membarrier_locks_are_used() {
    assert_eq!(mode_of(&start("refused membarrier", &[])), "locks");
}

/// A filter that comes when zones are in use already: the fence finds another way.
#[cfg(target_arch = "x86_64")]
#[test]
fn membarrier_refused_later_is_survived() {
    start("refused later", &[]);
}

/// And if the CPU is in another cpuset than the thread: then what is cached there stays, since it may be in use.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_cpu_out_of_reach_keeps_what_it_has() {
    let output = start("CPU out of reach", &[]);
    let (out, err) = (&output.stdout, &output.stderr);
    let tested = !String::from_utf8_lossy(out).contains("NOT TESTED");
    assert_eq!(
        String::from_utf8_lossy(err).matches("uma: the kernel refuses").count(),
        tested.into()
    );
}

#[test]
fn a_child_of_fork_goes_on() {
    for mode in ["rseq", "locks"] {
        start("fork", &[("UMA_PERCPU", mode)]);
    }
}

/// Whoever waits at a limit waits in the original only.
#[test]
fn a_child_of_fork_has_no_sleepers() {
    for mode in ["rseq", "locks"] {
        start("fork beside a sleeper", &[("UMA_PERCPU", mode)]);
    }
}

#[test]
fn threads_end_under_load() {
    for mode in ["rseq", "locks"] {
        start("threads", &[("UMA_PERCPU", mode)]);
    }
}

#[cfg(target_arch = "x86_64")]
fn workout_after(rounds: u64) {
    work(20);
    uma::reclaim(Reclaim::DrainCpu);
    let stats = NODES.stats();
    assert_eq!((stats.used(), stats.allocs, stats.slabs), (0, (rounds + 20) * 600, 0));
    println!("mode={}", mode());
}

/// The CPUs that this thread may run on.
#[cfg(target_arch = "x86_64")]
fn cpus() -> impl Iterator<Item = usize> {
    // SAFETY: the set is writable, and all zeros are the empty set.
    let mine = unsafe {
        let mut mine = std::mem::zeroed::<libc::cpu_set_t>();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&mine), &raw mut mine), 0);
        mine
    };
    // SAFETY: the numbers are within the set.
    (0..size_of_val(&mine) * 8).filter(move |&cpu| unsafe { libc::CPU_ISSET(cpu, &mine) })
}

#[cfg(target_arch = "x86_64")]
fn stay_on(cpu: usize) {
    // SAFETY: the set is writable, and all zeros are the empty set; `cpu` came from one.
    unsafe {
        let mut one = std::mem::zeroed::<libc::cpu_set_t>();
        libc::CPU_SET(cpu, &mut one);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&one), &raw const one), 0);
    }
}

/// A round of work on each CPU, so that there is something in the slots of all. Returns how many they are.
#[cfg(target_arch = "x86_64")]
fn on_each_cpu() -> u64 {
    let rounds = cpus().map(|cpu| {
        let round = thread::spawn(move || {
            stay_on(cpu);
            work(1);
        });
        round.join().unwrap();
    });
    rounds.count() as u64
}

/// The errors are those of a thread in one cpuset, about a CPU of another.
#[cfg(target_arch = "x86_64")]
fn cpu_out_of_reach() {
    let mut cpus = cpus();
    let (Some(here), Some(there), "rseq") = (cpus.next(), cpus.next(), mode()) else {
        println!("NOT TESTED: it takes two CPUs and restartable sequences; mode={}", mode());
        return;
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            stay_on(there);
            work(1);
        });
    });
    stay_on(here);
    work(1);
    assert_eq!((NODES.stats().used(), NODES.stats().allocs), (0, 1200));
    seccomp::refuse(libc::SYS_membarrier, libc::EPERM);
    seccomp::refuse(libc::SYS_sched_setaffinity, libc::EINVAL);
    for _ in 0..2 {
        uma::reclaim(Reclaim::DrainCpu);
        assert!(
            NODES.stats().slabs != 0,
            "what another CPU has was taken, though it may be in use"
        );
    }
    work(2);
    println!("mode={}", mode());
}

fn fork_under_load() {
    const FORKS: usize = 40;

    /// Ends the other threads, also if this one panics.
    struct Stop<'a>(&'a AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    work(1);
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                uma::reclaim(Reclaim::DrainCpu);
                thread::sleep(Duration::from_millis(1));
            }
        });
        for number in 0..FORKS {
            thread::sleep(Duration::from_millis(3));
            let status = in_a_copy(|| {
                let before = NODES.stats().used();
                work(2);
                uma::reclaim(Reclaim::DrainCpu);
                work(1);
                NODES.stats().used() == before
            });
            assert_eq!(status, 0, "child {number} ended with status {status:#x}");
        }
    });
    assert_eq!(NODES.stats().used(), 0);
    println!("mode={}", mode());
}

fn fork_beside_a_sleeper() {
    let zone = Zone::<u64>::builder("single").max_items(1).build().unwrap();
    let mut held = Some(zone.alloc(1).unwrap());
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| *zone.alloc(2).unwrap());
        while zone.stats().sleeps == 0 {
            thread::yield_now();
        }
        let status = in_a_copy(|| {
            drop(held.take());
            zone.try_alloc(3).is_ok() && zone.alloc(4).is_ok()
        });
        drop(held.take());
        assert_eq!(sleeper.join().unwrap(), 2);
        assert_eq!(status, 0, "the child ended with status {status:#x}");
    });
    println!("mode={}", mode());
}

/// Threads that come and go, and free in the destructors of their thread-local values.
fn threads_that_end() {
    struct Last(Option<uma::ZoneBox<'static, [u64; 8]>>);

    impl Drop for Last {
        fn drop(&mut self) {
            drop(self.0.take());
            work(1);
        }
    }

    thread_local! {
        static LAST: std::cell::RefCell<Last> = const { std::cell::RefCell::new(Last(None)) };
    }

    let objects = ObjectCache::<Vec<u8>>::builder("vec").init(|| Vec::with_capacity(64)).build();
    let objects = objects.unwrap();
    for _ in 0..100 {
        thread::scope(|scope| {
            for thread in 0..8 {
                let objects = &objects;
                scope.spawn(move || {
                    LAST.with_borrow_mut(|last| last.0 = NODES.alloc([thread; 8]).ok());
                    let mut object = objects.get().unwrap();
                    object.push(1);
                    object.clear();
                });
            }
        });
    }
    // Scoped threads end before their thread-local values are dropped: wait for these.
    while NODES.stats().used() != 0 {
        thread::yield_now();
    }
    assert_eq!(objects.stats().used(), 0);
    println!("mode={}", mode());
}

#[cfg(target_arch = "x86_64")]
mod seccomp {
    //! A filter that refuses one system call with an error.

    pub(super) fn refuse(call: libc::c_long, error: i32) {
        const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut steps = [
            step(LOAD, 0, 0, 0),
            step(EQUAL, 0, 1, call as u32),
            step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32),
            step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: the program and its steps are alive during the call; TSYNC puts the filter on all
        // threads.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let flags = libc::SECCOMP_FILTER_FLAG_TSYNC;
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            assert_eq!(libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program), 0);
            assert_eq!(libc::syscall(call, 0, 0, 0), -1, "the filter does not work");
        }
    }
}
