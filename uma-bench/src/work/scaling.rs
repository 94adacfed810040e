//! The cost of a pair as threads or zones become more. It should not change.
//!
//! With more threads than CPUs they take turns, so time is measured on the CPU.

use crate::rounds::Contest;
use crate::subject::{Subject, Visit, each_malloc};
use crate::work::{Bench, pair, zones};

const THREADS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
const ZONES: [usize; 4] = [1, 10, 100, zones::MOST];

pub(crate) fn run(bench: &mut Bench) {
    for threads in THREADS {
        let mut lanes = Lanes(Contest::new(threads));
        each_malloc::<64>(&bench.filter, &mut lanes);
        bench.contest("pair, threads on all CPUs", 64, threads, lanes.0);
    }
    for count in ZONES {
        zones::row(bench, "more and more zones", count, 1);
    }
}

struct Lanes(Contest);

impl Visit for Lanes {
    fn visit<S: Subject>(&mut self, name: &'static str, subject: S) {
        self.0.lane(name, move |member| {
            member.use_cpu_time();
            pair::pairs(subject, member)
        });
    }
}
