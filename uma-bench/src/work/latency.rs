//! How long one operation of churn takes: a free and an allocation at 1024 bytes, timed one by one.
//! Writing to the new item comes after: the cache miss that this is would hide the rest.
//!
//! The time that reading the counter takes is in it; a subject of its own, "timer alone", shows how
//! much that is. What the kernel takes (interrupts, other programs) is in it too, the same for all.

use std::sync::Arc;

use crate::clock;
use crate::rounds::{Contest, Figure};
use crate::subject::{Subject, Visit, each_malloc};
use crate::sync::Mutex;
use crate::team::Member;
use crate::work::Bench;
use crate::work::churn::{LIVE, Table};

const SIZE: usize = 1024;
const STEPS: usize = 100_000;
/// Times up to this many ticks are counted one by one.
const FINE: usize = 1 << 16;

pub(crate) fn run(bench: &mut Bench) {
    for threads in bench.threads.clone() {
        one(bench, threads);
    }
}

fn one(bench: &mut Bench, threads: usize) {
    let mut lanes = Lanes { contest: Contest::new(threads), counts: Vec::new() };
    each_malloc::<SIZE>(&bench.filter, &mut lanes);
    let timer = lanes.counts("timer alone");
    lanes.contest.lane("timer alone", move |_| {
        observe(&timer, || {
            let start = clock::ticks();
            clock::ticks() - start
        })
    });
    drop(lanes.contest.run(&mut bench.team, bench.rounds));

    let rows: [(&'static str, f64); 4] = [
        ("latency, half", 0.5),
        ("latency, 99 %", 0.99),
        ("latency, 99.9 %", 0.999),
        ("latency, longest", 1.0),
    ];
    for (name, part) in rows {
        let figure = |(subject, counts): &(&'static str, Shared)| {
            let counts = counts.lock().expect("no job panics");
            Figure::new(*subject, vec![counts.quantile(part) * clock::tick()])
        };
        let figures = lanes.counts.iter().map(figure).collect();
        bench.keep(name, SIZE, threads, "ns", figures);
    }
}

/// How often an operation took so many ticks.
struct Counts {
    fine: Box<[u32]>,
    longer: Vec<u64>,
}

type Shared = Arc<Mutex<Counts>>;

impl Counts {
    fn new() -> Self {
        Self { fine: vec![0; FINE].into(), longer: Vec::new() }
    }

    #[inline(always)]
    fn add(&mut self, ticks: u64) {
        match self.fine.get_mut(ticks as usize) {
            Some(count) => *count += 1,
            None => self.longer.push(ticks),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.fine.iter_mut().zip(&other.fine).for_each(|(mine, other)| *mine += other);
        self.longer.extend(&other.longer);
        self.longer.sort_unstable();
    }

    /// The number of ticks that so large a part of the operations did not take longer than.
    fn quantile(&self, part: f64) -> f64 {
        let fine: u64 = self.fine.iter().map(|&count| u64::from(count)).sum();
        let total = fine + self.longer.len() as u64;
        let rank = ((total as f64 * part).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        for (ticks, &count) in self.fine.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                return ticks as f64;
            }
        }
        self.longer.get((rank - fine) as usize - 1).map_or(f64::NAN, |&ticks| ticks as f64)
    }
}

/// Counts what one operation after the other takes.
fn observe(shared: &Mutex<Counts>, mut work: impl FnMut() -> u64) -> f64 {
    let mut counts = Counts::new();
    for _ in 0..STEPS {
        counts.add(work());
    }
    shared.lock().expect("no job panics").merge(&counts);
    0.0
}

struct Lanes {
    contest: Contest,
    counts: Vec<(&'static str, Shared)>,
}

impl Lanes {
    fn counts(&mut self, name: &'static str) -> Shared {
        let shared = Arc::new(Mutex::new(Counts::new()));
        self.counts.push((name, Arc::clone(&shared)));
        shared
    }
}

impl Visit for Lanes {
    fn visit<S: Subject>(&mut self, name: &'static str, subject: S) {
        let shared = self.counts(name);
        let begin = move |member: &Member| Table::new(subject, LIVE, member.index);
        let job = move |table: &mut Table<S>, member: &Member| {
            member.meet();
            observe(&shared, || table.step_timed())
        };
        self.contest.lane_with(name, begin, job, Table::end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_counts() {
        let mut counts = Counts::new();
        for ticks in 1..=99 {
            counts.add(ticks);
        }
        counts.add(1 << 20);
        assert_eq!(counts.quantile(0.5), 50.0);
        assert_eq!(counts.quantile(0.99), 99.0);
        assert_eq!(counts.quantile(1.0), (1 << 20) as f64);
    }
}
