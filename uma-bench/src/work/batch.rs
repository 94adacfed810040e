//! 10,000 items allocated, then all freed, in the order of allocation or in a random one.

use std::sync::Arc;

use crate::rounds::{Contest, Random};
use crate::subject::{HasZone, Size, Subject, Visit, each_subject};
use crate::team::Member;
use crate::work::Bench;

const ITEMS: usize = 10_000;
const TIMES: usize = 3;

pub(crate) fn in_order(bench: &mut Bench) {
    for threads in bench.threads.clone() {
        one::<64>(bench, threads, false);
        one::<256>(bench, threads, false);
        one::<1024>(bench, threads, false);
        one::<4096>(bench, threads, false);
    }
}

pub(crate) fn at_random(bench: &mut Bench) {
    for threads in bench.threads.clone() {
        one::<64>(bench, threads, true);
        one::<256>(bench, threads, true);
        one::<1024>(bench, threads, true);
    }
}

fn one<const N: usize>(bench: &mut Bench, threads: usize, random: bool)
where
    Size<N>: HasZone,
{
    let mut order: Vec<u32> = (0..ITEMS as u32).collect();
    if random {
        Random::new(1).shuffle(&mut order);
    }
    let mut lanes = Lanes { contest: Contest::new(threads), order: order.into() };
    each_subject::<N>(&bench.filter, &mut lanes);
    let name = if random { "batch, random order" } else { "batch, in order" };
    bench.contest(name, N, threads, lanes.contest);
}

struct Lanes {
    contest: Contest,
    order: Arc<[u32]>,
}

impl Visit for Lanes {
    fn visit<S: Subject>(&mut self, name: &'static str, subject: S) {
        let order = Arc::clone(&self.order);
        let begin = |_: &Member| Vec::<Option<S::Held>>::with_capacity(ITEMS);
        let job = move |table: &mut Vec<Option<S::Held>>, member: &Member| {
            let mut work = |times| {
                for _ in 0..times {
                    for word in 0..ITEMS {
                        table.push(Some(subject.alloc(word as u64)));
                    }
                    for &at in &*order {
                        if let Some(held) = table[at as usize].take() {
                            // SAFETY: it came from this subject.
                            unsafe { subject.free(held) };
                        }
                    }
                    table.clear();
                }
            };
            work(1);
            member.time(|| work(TIMES)).as_nanos() as f64 / (TIMES * ITEMS) as f64
        };
        self.contest.lane_with(name, begin, job, drop);
    }
}
