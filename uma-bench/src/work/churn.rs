//! Churn: 100,000 items are live; over and over a random one is freed and replaced.
//!
//! *Untouched* is the same without writing to the new item, to show the allocator alone: most of the
//! time of the other is a cache miss that the user has, whichever allocator it is.
//!
//! In the *remote* kind each of two threads has half of them, and sends what it replaces to the other
//! thread, which frees it.

use std::sync::Arc;

use crate::clock;
use crate::rounds::{Contest, Random};
use crate::subject::{HasZone, Size, Subject, Visit, each_malloc};
use crate::sync::{AtomicUsize, Ordering};
use crate::team::Member;
use crate::work::Bench;
use crate::work::ring::Ring;

pub(crate) const LIVE: usize = 100_000;
const STEPS: usize = 30_000;

pub(crate) fn own(bench: &mut Bench) {
    for threads in bench.threads.clone() {
        one_own::<64>(bench, threads, true);
        one_own::<1024>(bench, threads, true);
        one_own::<64>(bench, threads, false);
        one_own::<1024>(bench, threads, false);
    }
}

fn one_own<const N: usize>(bench: &mut Bench, threads: usize, touch: bool)
where
    Size<N>: HasZone,
{
    let mut lanes = Own { contest: Contest::new(threads), touch };
    each_malloc::<N>(&bench.filter, &mut lanes);
    let name = if touch { "churn" } else { "churn, untouched" };
    bench.contest(name, N, threads, lanes.contest);
}

/// The live items, and which is next.
pub(crate) struct Table<S: Subject> {
    subject: S,
    items: Vec<Option<S::Held>>,
    random: Random,
}

impl<S: Subject> Table<S> {
    /// `live` items, after each has been replaced once or twice at random.
    pub(crate) fn new(subject: S, live: usize, seed: usize) -> Self {
        let items = (0..live as u64).map(|word| Some(subject.alloc(word))).collect();
        let mut table = Self { subject, items, random: Random::new(seed as u64 + 1) };
        for _ in 0..live {
            table.step(true);
        }
        table
    }

    /// Replaces a random item: one free, one allocation, of which the first word is written if
    /// `touch`, which is to be a constant.
    #[inline(always)]
    pub(crate) fn step(&mut self, touch: bool) {
        let at = self.random.below(self.items.len());
        let place = &mut self.items[at];
        if let Some(held) = place.take() {
            // SAFETY: it came from this subject.
            unsafe { self.subject.free(held) };
        }
        let mut held = self.subject.take();
        if touch {
            S::write(&mut held, at as u64);
        }
        *place = Some(held);
    }

    /// The same, returning how many ticks the free and the allocation took. Neither looking for the
    /// item nor writing to the new one is in it.
    #[inline(always)]
    pub(crate) fn step_timed(&mut self) -> u64 {
        let at = self.random.below(self.items.len());
        let place = &mut self.items[at];
        let Some(held) = place.take() else { return 0 };
        let held = std::hint::black_box(held);
        let start = clock::ticks();
        // SAFETY: it came from this subject.
        unsafe { self.subject.free(held) };
        let mut held = self.subject.take();
        let ticks = clock::ticks() - start;
        S::write(&mut held, at as u64);
        *place = Some(held);
        ticks
    }

    /// Frees all.
    pub(crate) fn end(self) {
        for held in self.items.into_iter().flatten() {
            // SAFETY: it came from this subject.
            unsafe { self.subject.free(held) };
        }
    }
}

struct Own {
    contest: Contest,
    touch: bool,
}

fn steps<S: Subject, const TOUCH: bool>(table: &mut Table<S>, member: &Member) -> f64 {
    let mut work = |steps| (0..steps).for_each(|_| table.step(TOUCH));
    work(STEPS / 10);
    member.time(|| work(STEPS)).as_nanos() as f64 / STEPS as f64
}

impl Visit for Own {
    fn visit<S: Subject>(&mut self, name: &'static str, subject: S) {
        let begin = move |member: &Member| Table::new(subject, LIVE, member.index);
        let job = if self.touch { steps::<S, true> } else { steps::<S, false> };
        self.contest.lane_with(name, begin, job, Table::end);
    }
}

pub(crate) fn remote(bench: &mut Bench) {
    if bench.team.cpus() < 2 {
        eprintln!("remote needs two CPUs");
        return;
    }
    one_remote::<64>(bench);
    one_remote::<1024>(bench);
}

fn one_remote<const N: usize>(bench: &mut Bench)
where
    Size<N>: HasZone,
{
    let mut lanes = Remote(Contest::new(2));
    each_malloc::<N>(&bench.filter, &mut lanes);
    bench.contest("churn, freed by the other", N, 2, lanes.0);
}

struct Remote(Contest);

/// One thread's half.
struct Half<S: Subject> {
    table: Table<S>,
    /// How far the other one has come in the ring to it and in the ring from it.
    tail: usize,
    head: usize,
}

/// What the two threads share: a ring to each, and how many of them have finished.
struct Exchange<T> {
    to: [Ring<T>; 2],
    finished: AtomicUsize,
}

impl<S: Subject> Half<S> {
    /// Frees what has come from the other thread, at most so many.
    #[inline(always)]
    fn receive(&mut self, from: &Ring<S::Held>, most: usize) {
        for _ in 0..most {
            // SAFETY: each member takes out of its own ring.
            let Some(held) = (unsafe { from.take(&mut self.head) }) else { return };
            // SAFETY: it came from this subject.
            unsafe { self.table.subject.free(held) };
        }
    }

    #[inline(always)]
    fn step(&mut self, from: &Ring<S::Held>, to: &Ring<S::Held>) {
        let at = self.table.random.below(self.table.items.len());
        let old = self.table.items[at].replace(self.table.subject.alloc(at as u64));
        if let Some(mut held) = old {
            // SAFETY: each member puts into the other's ring.
            while let Err(back) = unsafe { to.put(held, &mut self.tail) } {
                held = back;
                self.receive(from, 1);
            }
        }
        self.receive(from, 2);
    }
}

impl Visit for Remote {
    fn visit<S: Subject>(&mut self, name: &'static str, subject: S) {
        let exchange = Arc::new(Exchange::<S::Held> {
            to: [Ring::new(), Ring::new()],
            finished: AtomicUsize::new(0),
        });
        let begin = move |member: &Member| Half {
            table: Table::new(subject, LIVE / 2, member.index),
            tail: 0,
            head: 0,
        };
        let job = move |half: &mut Half<S>, member: &Member| {
            let (from, to) = (&exchange.to[member.index], &exchange.to[1 - member.index]);
            member.meet();
            exchange.finished.store(0, Ordering::Relaxed);
            let time = member.time(|| (0..STEPS).for_each(|_| half.step(from, to)));
            exchange.finished.fetch_add(1, Ordering::AcqRel);
            while exchange.finished.load(Ordering::Acquire) < 2 {
                half.receive(from, 1);
            }
            half.receive(from, usize::MAX);
            member.meet();
            time.as_nanos() as f64 / STEPS as f64
        };
        self.0.lane_with(name, begin, job, |half| half.table.end());
    }
}
