//! Threads that run the workloads: one per place, pinned to a CPU, kept for the whole program, so that
//! the caches which allocators keep per thread are those of a program that has been running.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::clock::{self, Stopwatch};
use crate::subject;
use crate::sync::{AtomicBool, AtomicUsize, Cell, Ordering};

/// What a member of the team does in one sample, returning nanoseconds per operation.
pub(crate) type Job = dyn Fn(&Member) -> f64 + Send + Sync;

type Order = (Arc<Job>, usize, Arc<Meeting>);

/// The threads.
pub(crate) struct Team {
    cpus: Vec<usize>,
    members: Vec<Sender<Order>>,
    done: Receiver<f64>,
    report: Sender<f64>,
}

/// Where members wait for each other.
struct Meeting {
    arrived: AtomicUsize,
    round: AtomicUsize,
    disturbed: AtomicBool,
}

/// One thread, as a job sees it.
pub(crate) struct Member {
    /// Its number, from 0.
    pub(crate) index: usize,
    /// How many take part.
    pub(crate) threads: usize,
    meeting: Arc<Meeting>,
    watch: Cell<Stopwatch>,
}

impl Member {
    /// Waits until all members are here.
    pub(crate) fn meet(&self) {
        let meeting = &*self.meeting;
        // AcqRel on both words: what members did before is visible to all after.
        let round = meeting.round.load(Ordering::Acquire);
        if meeting.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            meeting.arrived.store(0, Ordering::Release);
            meeting.round.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let mut spins = 0_u32;
        while meeting.round.load(Ordering::Acquire) == round {
            spins += 1;
            if spins > 10_000 || self.threads > 4 {
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }

    /// How long `work` takes. All members begin together. Says so if the thread had to leave its CPU.
    pub(crate) fn time(&self, work: impl FnOnce()) -> Duration {
        self.meet();
        let switches = clock::preemptions();
        let watch = self.watch.get();
        let start = watch.now();
        work();
        let time = watch.since(start);
        if clock::preemptions() != switches {
            self.meeting.disturbed.store(true, Ordering::Relaxed);
        }
        time
    }

    /// Measures time on the CPU instead of time on the clock, from now on in this job.
    pub(crate) fn use_cpu_time(&self) {
        self.watch.set(Stopwatch::Cpu);
    }
}

/// How often a sample is taken again because other programs disturbed it.
const ATTEMPTS: usize = 6;

impl Team {
    /// A team for these CPUs. Threads are started when they are needed.
    pub(crate) fn new(cpus: Vec<usize>) -> Self {
        let (report, done) = channel();
        Self { cpus, members: Vec::new(), done, report }
    }

    /// How many CPUs there are to run on.
    pub(crate) fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// Runs a job on so many threads and returns the mean of what they return: one sample, the least
    /// disturbed of a few attempts.
    pub(crate) fn sample(&mut self, threads: usize, job: &Arc<Job>) -> f64 {
        let mut last = 0.0;
        for _ in 0..ATTEMPTS {
            let (value, disturbed) = self.once(threads, job);
            last = value;
            // More threads than CPUs take turns: that is no disturbance.
            if !disturbed || threads > self.cpus.len() {
                break;
            }
        }
        last
    }

    /// Runs a job once.
    pub(crate) fn once(&mut self, threads: usize, job: &Arc<Job>) -> (f64, bool) {
        while self.members.len() < threads {
            self.recruit();
        }
        let meeting = Arc::new(Meeting {
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            disturbed: AtomicBool::new(false),
        });
        for member in &self.members[..threads] {
            let order = (Arc::clone(job), threads, Arc::clone(&meeting));
            member.send(order).expect("members listen as long as the team lives");
        }
        let sum: f64 = self.done.iter().take(threads).sum();
        (sum / threads as f64, meeting.disturbed.load(Ordering::Relaxed))
    }

    fn recruit(&mut self) {
        let index = self.members.len();
        let cpu = self.cpus[index % self.cpus.len()];
        let (orders, inbox) = channel::<Order>();
        let report = self.report.clone();
        let body = move || {
            clock::pin(cpu);
            subject::thread_begins();
            for (job, threads, meeting) in inbox {
                let watch = Cell::new(Stopwatch::Wall);
                let value = job(&Member { index, threads, meeting, watch });
                if report.send(value).is_err() {
                    return;
                }
            }
        };
        // The arrays of the limit lie in thread-local storage, which is cut from the stack.
        let thread = thread::Builder::new().stack_size(8 << 20).spawn(body);
        thread.expect("a thread can be started");
        self.members.push(orders);
    }
}
