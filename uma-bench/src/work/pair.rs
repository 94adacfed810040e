//! The hot pair: an item is allocated, its first word written, and freed at once.
//!
//! With a *warm heap*, 500 other items of the size are live and 500 have been freed; *empty* means that
//! there is no other item of the size (for mallocs: none that the workload knows of).

use crate::rounds::Contest;
use crate::subject::{HasZone, Size, Subject, Visit, each_subject};
use crate::team::Member;
use crate::work::Bench;

const PAIRS: u64 = 100_000;
const NEIGHBOURS: u64 = 1000;

pub(crate) fn run(bench: &mut Bench) {
    for threads in bench.threads.clone() {
        one::<64>(bench, threads, true);
        one::<1024>(bench, threads, true);
        one::<4096>(bench, threads, true);
        one::<64>(bench, threads, false);
    }
}

fn one<const N: usize>(bench: &mut Bench, threads: usize, warm: bool)
where
    Size<N>: HasZone,
{
    let mut lanes = Lanes { contest: Contest::new(threads), warm };
    each_subject::<N>(&bench.filter, &mut lanes);
    let name = if warm { "pair, warm heap" } else { "pair, empty heap" };
    bench.contest(name, N, threads, lanes.contest);
}

/// The pairs themselves: nanoseconds for one. Also what scaling measures.
pub(crate) fn pairs<S: Subject>(subject: S, member: &Member) -> f64 {
    let work = |count| {
        for word in 0..count {
            let held = subject.alloc(word);
            // SAFETY: it came from this subject just now.
            unsafe { subject.free(held) };
        }
    };
    work(PAIRS / 10);
    member.time(|| work(PAIRS)).as_nanos() as f64 / PAIRS as f64
}

struct Lanes {
    contest: Contest,
    warm: bool,
}

impl Visit for Lanes {
    fn visit<S: Subject>(&mut self, name: &'static str, subject: S) {
        if !self.warm {
            self.contest.lane(name, move |member| pairs(subject, member));
            return;
        }
        let begin = move |_: &Member| {
            let mut kept = Vec::new();
            let mut others = Vec::new();
            for word in 0..NEIGHBOURS {
                let held = subject.alloc(word);
                if word % 2 == 0 { kept.push(held) } else { others.push(held) }
            }
            for held in others {
                // SAFETY: it came from this subject.
                unsafe { subject.free(held) };
            }
            kept
        };
        let end = move |kept: Vec<S::Held>| {
            for held in kept {
                // SAFETY: it came from this subject.
                unsafe { subject.free(held) };
            }
        };
        self.contest.lane_with(name, begin, move |_, member| pairs(subject, member), end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Filter;

    struct Names(Vec<&'static str>);

    impl Visit for Names {
        fn visit<S: Subject>(&mut self, name: &'static str, subject: S) {
            let held = subject.alloc(7);
            // SAFETY: it came from this subject just now.
            unsafe { subject.free(held) };
            self.0.push(name);
        }
    }

    #[test]
    fn every_subject_works_and_has_a_known_name() {
        crate::subject::thread_begins();
        let mut names = Names(Vec::new());
        each_subject::<64>(&Filter::default(), &mut names);
        assert!(names.0.contains(&"uma") && names.0.contains(&"limit"));
        assert!(names.0.iter().all(|name| crate::subject::NAMES.contains(name)), "{:?}", names.0);
    }
}
