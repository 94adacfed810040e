//! What uma wants to reach: each goal is a bound on one result.

use crate::subject::UMA_HUGE;
use crate::work::Row;

/// What is compared with the bound.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Against {
    /// The figure as a multiple of this subject's.
    Subject(&'static str),
    /// The figure as a multiple of the least that another allocator has.
    Best,
    /// The figure itself, in the row's unit.
    Bound,
    /// The figure as a multiple of the size of an item.
    Size,
}

/// One goal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) workload: &'static str,
    pub(crate) size: usize,
    /// Whose figure.
    pub(crate) of: &'static str,
    pub(crate) against: Against,
    pub(crate) at_most: f64,
}

const fn ratio(workload: &'static str, size: usize, at_most: f64) -> Goal {
    Goal { workload, size, of: "uma", against: Against::Subject("mimalloc"), at_most }
}

/// The faults of the pages that the items are on, and no more: what has small pages cannot have fewer.
const LEAST: Against = Against::Subject("limit");

const fn goal(workload: &'static str, size: usize, against: Against, at_most: f64) -> Goal {
    Goal { workload, size, of: "uma", against, at_most }
}

/// The same for a process that asks for huge pages.
const fn huge(workload: &'static str, size: usize, against: Against, at_most: f64) -> Goal {
    Goal { of: UMA_HUGE, ..goal(workload, size, against, at_most) }
}

/// A goal for arenas of so many segments.
const fn arena(of: &'static str, peer: &'static str, segments: usize, at_most: f64) -> Goal {
    let against = Against::Subject(peer);
    Goal { workload: "arena, more and more segments", size: segments, of, against, at_most }
}

/// All goals, in the order of the tables.
pub(crate) const GOALS: &[Goal] = &[
    ratio("pair, warm heap", 64, 0.60),
    Goal { of: "uma-from-c", ..ratio("pair, warm heap", 64, 0.85) },
    ratio("pair, warm heap", 1024, 0.52),
    ratio("pair, warm heap", 4096, 0.28),
    ratio("pair, empty heap", 64, 0.42),
    ratio("batch, in order", 64, 0.75),
    ratio("batch, in order", 256, 0.60),
    ratio("batch, in order", 1024, 0.35),
    ratio("batch, in order", 4096, 0.10),
    ratio("batch, random order", 64, 0.72),
    ratio("batch, random order", 256, 0.80),
    ratio("batch, random order", 1024, 0.35),
    ratio("churn", 64, 0.08),
    ratio("churn", 1024, 0.07),
    ratio("churn, untouched", 64, 0.08),
    ratio("churn, untouched", 1024, 0.07),
    ratio("churn, freed by the other", 64, 0.27),
    ratio("churn, freed by the other", 1024, 0.20),
    ratio("producer and consumer", 64, 0.50),
    ratio("producer and consumer", 256, 0.30),
    ratio("producer and consumer", 1024, 0.30),
    ratio("zones at random", 64, 0.85),
    ratio("object with mutex and vector", 640, 0.48),
    Goal { of: "one call", against: Against::Subject("50 calls"), ..ratio("bulk of 50", 64, 0.60) },
    Goal {
        of: "one call",
        against: Against::Subject("50 calls"),
        ..ratio("bulk of 50", 256, 0.60)
    },
    goal("latency, 99.9 %", 1024, Against::Bound, 100.0),
    goal("memory, all live", 64, Against::Size, 1.01),
    goal("memory, all live", 200, Against::Size, 1.01),
    goal("memory, all live", 1000, Against::Size, 1.01),
    goal("memory, 90 % freed", 64, Against::Subject("pages in use"), 1.03),
    goal("memory, 90 % freed", 200, Against::Subject("pages in use"), 1.03),
    goal("memory, 90 % freed", 1000, Against::Subject("pages in use"), 1.03),
    goal("memory, all freed", 64, Against::Bound, 0.1),
    goal("memory, all freed", 200, Against::Bound, 0.1),
    goal("memory, all freed", 1000, Against::Bound, 0.1),
    huge("memory, 90 % freed", 64, Against::Subject("pages in use"), 1.03),
    huge("memory, 90 % freed", 200, Against::Subject("pages in use"), 1.03),
    huge("memory, 90 % freed", 1000, Against::Subject("pages in use"), 1.03),
    huge("memory, all freed", 64, Against::Bound, 0.1),
    huge("memory, all freed", 200, Against::Bound, 0.1),
    huge("memory, all freed", 1000, Against::Bound, 0.1),
    // What the best of the peers has, and no other can be better.
    goal("churn from nothing, system calls", 64, Against::Bound, 0.0),
    goal("churn from nothing, system calls", 1024, Against::Bound, 0.0),
    goal("churn, steady, system calls", 64, Against::Bound, 0.0),
    goal("churn, steady, system calls", 1024, Against::Bound, 0.0),
    goal("churn, steady, page faults", 64, Against::Bound, 0.0),
    goal("churn, steady, page faults", 1024, Against::Bound, 0.0),
    // The best of the peers asks for huge pages.
    huge("churn from nothing, page faults", 64, Against::Best, 1.0),
    huge("churn from nothing, page faults", 1024, Against::Best, 1.0),
    goal("churn from nothing, page faults", 64, LEAST, 1.05),
    goal("churn from nothing, page faults", 1024, LEAST, 1.05),
    arena("quantum cache", "bare arena", 10, 0.40),
    arena("quantum cache", "bare arena", 10_000, 0.40),
    arena("quantum cache", "bare arena", 1_000_000, 0.40),
    arena("bare arena", "10 segments", 1_000_000, 1.25),
    Goal {
        workload: "arena, random of more and more segments",
        ..arena("random segment", "ten misses", 1_000_000, 1.0)
    },
    Goal {
        of: "tags and table",
        ..goal("arena, books for each of the segments", 1_000_000, Against::Bound, 100.0)
    },
];

/// The allocator that is not ours and has the least.
fn best_of_others(row: &Row) -> Option<&str> {
    let is_other = |name: &str| !name.starts_with("uma") && name != "limit";
    let others = row.figures.iter().filter(|figure| is_other(&figure.name));
    let least = others.min_by(|one, other| one.median().total_cmp(&other.median()));
    least.map(|figure| figure.name.as_str())
}

impl Goal {
    /// What a row has for this goal, if it is about it.
    pub(crate) fn reached_by(&self, row: &Row) -> Option<f64> {
        if row.workload != self.workload || row.size != self.size {
            return None;
        }
        match self.against {
            Against::Subject(peer) => row.ratio(self.of, peer),
            Against::Best => row.ratio(self.of, best_of_others(row)?),
            Against::Bound => Some(row.figure(self.of)?.median()),
            Against::Size => Some(row.figure(self.of)?.median() / self.size as f64),
        }
    }

    /// What the least code that could do it has, where the goal is a multiple of a peer.
    pub(crate) fn limit(&self, row: &Row) -> Option<f64> {
        match self.against {
            Against::Subject(peer) => row.ratio("limit", peer),
            Against::Best | Against::Bound | Against::Size => None,
        }
    }

    /// What the bound bounds, in words.
    pub(crate) fn measure(&self) -> String {
        match self.against {
            Against::Subject(peer) => format!("{} / {peer}", self.of),
            Against::Best => format!("{} / best peer", self.of),
            Against::Bound => self.of.to_owned(),
            Against::Size => format!("{} / size", self.of),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Figure;

    #[test]
    fn a_goal_looks_at_its_own_rows() {
        let figures = vec![Figure::new("uma", vec![2.0]), Figure::new("mimalloc", vec![4.0])];
        let row = Row { workload: "pair, warm heap", size: 64, threads: 1, unit: "ns", figures };
        assert_eq!(GOALS[0].reached_by(&row), Some(0.5));
        assert_eq!(GOALS[2].reached_by(&row), None);
    }

    #[test]
    fn the_best_peer_is_none_of_ours() {
        let figures =
            [("uma", 1.0), ("uma-huge", 6.0), ("limit", 0.5), ("mimalloc", 9.0), ("jemalloc", 3.0)]
                .map(|(name, figure)| Figure::new(name, vec![figure]));
        let workload = "churn from nothing, page faults";
        let row = Row { workload, size: 64, threads: 1, unit: "faults", figures: figures.into() };
        let goal = huge(workload, 64, Against::Best, 1.0);
        assert_eq!((goal.reached_by(&row), goal.limit(&row)), (Some(2.0), None));
        assert_eq!(goal.measure(), "uma-huge / best peer");
    }
}
