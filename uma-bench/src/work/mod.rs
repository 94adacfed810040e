//! The workloads.

mod batch;
mod bulk;
mod churn;
mod latency;
pub(crate) mod memory;
mod object;
mod pair;
mod pipe;
mod ring;
mod scaling;
mod segments;
#[cfg(test)]
mod shared_lines;
mod simulated;
pub(crate) mod system;
mod zones;

use crate::rounds::{Contest, Figure};
use crate::subject::Filter;
use crate::team::Team;

/// The result of one workload with one size on so many threads.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) workload: &'static str,
    /// Bytes of an item, or what else there is more or less of.
    pub(crate) size: usize,
    pub(crate) threads: usize,
    pub(crate) unit: &'static str,
    pub(crate) figures: Vec<Figure>,
}

impl Row {
    /// The figure of a subject.
    pub(crate) fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }

    /// One subject's figure as a multiple of another's.
    pub(crate) fn ratio(&self, of: &str, to: &str) -> Option<f64> {
        Some(self.figure(of)?.ratio(self.figure(to)?))
    }
}

/// What workloads need, and where they put their results.
pub(crate) struct Bench {
    pub(crate) team: Team,
    pub(crate) filter: Filter,
    pub(crate) rounds: usize,
    /// On how many threads to run what can run on any number.
    pub(crate) threads: Vec<usize>,
    pub(crate) rows: Vec<Row>,
}

impl Bench {
    /// Runs a contest whose unit is nanoseconds for one allocation and its free, and keeps the result.
    fn contest(&mut self, workload: &'static str, size: usize, threads: usize, contest: Contest) {
        let figures = contest.run(&mut self.team, self.rounds);
        self.keep(workload, size, threads, "ns", figures);
    }

    /// Keeps a result, beside that of earlier passes, and prints it.
    fn keep(
        &mut self,
        workload: &'static str,
        size: usize,
        threads: usize,
        unit: &'static str,
        figures: Vec<Figure>,
    ) {
        let same =
            |row: &&mut Row| (row.workload, row.size, row.threads) == (workload, size, threads);
        if let Some(row) = self.rows.iter_mut().find(same) {
            for (mine, new) in row.figures.iter_mut().zip(figures) {
                mine.merge(new);
            }
            print!("{}", crate::report::table::terminal(row));
        } else {
            let row = Row { workload, size, threads, unit, figures };
            print!("{}", crate::report::table::terminal(&row));
            self.rows.push(row);
        }
    }
}

/// A workload by the name that one gives on the command line.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&mut Bench),
    /// Whether more passes would tell more.
    pub(crate) noisy: bool,
}

/// All of them, in the order of the tables.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload { name: "pair", about: "allocate and free at once", run: pair::run, noisy: true },
    Workload {
        name: "batch",
        about: "10,000 allocated, then freed in order",
        run: batch::in_order,
        noisy: true,
    },
    Workload {
        name: "random",
        about: "the same, freed in random order",
        run: batch::at_random,
        noisy: true,
    },
    Workload {
        name: "churn",
        about: "100,000 live, a random one replaced",
        run: churn::own,
        noisy: true,
    },
    Workload {
        name: "remote",
        about: "the same, freed by the other thread",
        run: churn::remote,
        noisy: true,
    },
    Workload {
        name: "pipe",
        about: "one CPU allocates, another frees",
        run: pipe::run,
        noisy: true,
    },
    Workload { name: "zones", about: "64 zones at random", run: zones::run, noisy: true },
    Workload {
        name: "object",
        about: "constructed objects, cached or not",
        run: object::run,
        noisy: true,
    },
    Workload { name: "bulk", about: "50 by one call, or by 50", run: bulk::run, noisy: true },
    Workload {
        name: "latency",
        about: "how long one operation can take",
        run: latency::run,
        noisy: true,
    },
    Workload { name: "scaling", about: "more threads, more zones", run: scaling::run, noisy: true },
    Workload {
        name: "cpus",
        about: "128 virtual CPUs: how often the depot is asked",
        run: simulated::run,
        noisy: false,
    },
    Workload {
        name: "vmem",
        about: "arenas of 10 to 1,000,000 segments",
        run: segments::run,
        noisy: true,
    },
    Workload {
        name: "memory",
        about: "bytes resident for each live item",
        run: memory::run,
        noisy: false,
    },
    Workload {
        name: "system",
        about: "system calls and page faults of a million allocations",
        run: system::run,
        noisy: false,
    },
];
