//! Taking samples in turns, and what becomes of them.

use std::sync::Arc;

use crate::subject;
use crate::sync::Mutex;
use crate::team::{Job, Member, Team};

/// One subject in one workload: what it does before the first sample, for a sample, and at the end.
struct Lane {
    name: &'static str,
    job: Arc<Job>,
    end: Arc<Job>,
    samples: Vec<f64>,
}

/// A workload with all its subjects.
pub(crate) struct Contest {
    threads: usize,
    lanes: Vec<Lane>,
}

/// The samples of one subject.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: String,
    /// In the order of the rounds.
    samples: Vec<f64>,
}

impl Figure {
    /// Of samples in the order of the rounds.
    pub(crate) fn new(name: impl Into<String>, samples: Vec<f64>) -> Self {
        Self { name: name.into(), samples }
    }

    /// Adds the samples of another pass.
    pub(crate) fn merge(&mut self, other: Self) {
        self.samples.extend(other.samples);
    }

    /// The value below which so much of the samples lies, between neighbours in proportion.
    fn quantile(&self, part: f64) -> f64 {
        let mut samples = self.samples.clone();
        samples.sort_by(f64::total_cmp);
        let Some(last) = samples.len().checked_sub(1) else { return f64::NAN };
        let at = part * last as f64;
        let (low, high) = (at.floor() as usize, at.ceil() as usize);
        samples[low] + (samples[high] - samples[low]) * at.fract()
    }

    /// How many times another's: the median of the ratios round by round, so that what lasts longer
    /// than a round touches both sides.
    pub(crate) fn ratio(&self, to: &Self) -> f64 {
        let pairs = self.samples.iter().zip(&to.samples);
        Self::new("", pairs.map(|(mine, other)| mine / other).collect()).median()
    }

    /// The median.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The quartiles.
    pub(crate) fn quartiles(&self) -> (f64, f64) {
        (self.quantile(0.25), self.quantile(0.75))
    }

    /// How many samples there are.
    pub(crate) fn count(&self) -> usize {
        self.samples.len()
    }
}

impl Contest {
    pub(crate) const fn new(threads: usize) -> Self {
        Self { threads, lanes: Vec::new() }
    }

    /// Adds a subject that keeps nothing between samples.
    pub(crate) fn lane(
        &mut self,
        name: &'static str,
        job: impl Fn(&Member) -> f64 + Send + Sync + 'static,
    ) {
        self.lane_with(name, |_| (), move |_, member| job(member), |()| ());
    }

    /// Adds a subject whose threads keep a state between samples: made before the first, ended after
    /// the last, by the thread whose it is.
    pub(crate) fn lane_with<T: Send + 'static>(
        &mut self,
        name: &'static str,
        begin: impl Fn(&Member) -> T + Send + Sync + 'static,
        job: impl Fn(&mut T, &Member) -> f64 + Send + Sync + 'static,
        end: impl Fn(T) + Send + Sync + 'static,
    ) {
        let states: Vec<_> = (0..self.threads).map(|_| Mutex::new(None)).collect();
        let states: Arc<Vec<Mutex<Option<T>>>> = Arc::new(states);
        let kept = Arc::clone(&states);
        let job = move |member: &Member| {
            let mut state = states[member.index].lock().expect("no job panics");
            job(state.get_or_insert_with(|| begin(member)), member)
        };
        let end = move |member: &Member| {
            if let Some(state) = kept[member.index].lock().expect("no job panics").take() {
                end(state);
            }
            0.0
        };
        self.lanes.push(Lane { name, job: Arc::new(job), end: Arc::new(end), samples: Vec::new() });
    }

    /// Takes the samples, after all subjects gave back what earlier workloads left: one of each subject, then the next of each, with another one first in every
    /// round. A round before the first is for warming up and does not count.
    pub(crate) fn run(mut self, team: &mut Team, rounds: usize) -> Vec<Figure> {
        let fresh: Arc<Job> = Arc::new(|_: &Member| {
            subject::refresh();
            0.0
        });
        team.once(self.threads, &fresh);
        let count = self.lanes.len();
        for round in 0..=rounds {
            for at in 0..count {
                let lane = &mut self.lanes[(at + round) % count];
                let sample = team.sample(self.threads, &lane.job);
                if round != 0 {
                    lane.samples.push(sample);
                }
            }
        }
        for lane in &self.lanes {
            team.once(self.threads, &lane.end);
        }
        self.lanes.into_iter().map(|lane| Figure::new(lane.name, lane.samples)).collect()
    }
}

/// Random numbers that cost little: xorshift.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`, which is at most 2^32.
    #[inline(always)]
    pub(crate) const fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * bound as u64) >> 32) as usize
    }

    /// Brings a slice into random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let figure = Figure::new("a", vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!(figure.median(), 2.5);
        assert_eq!(figure.quartiles(), (1.75, 3.25));
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // The machine was slow in the middle round and fast in the last.
        let one = Figure::new("one", vec![2.0, 20.0, 1.0, 2.0, 2.0]);
        let other = Figure::new("other", vec![1.0, 10.0, 0.5, 1.0, 2.0]);
        assert_eq!(one.ratio(&other), 2.0);
    }

    #[test]
    fn a_shuffle_keeps_everything() {
        let mut items: Vec<usize> = (0..1000).collect();
        Random::new(7).shuffle(&mut items);
        assert_ne!(items[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        items.sort_unstable();
        assert!(items.into_iter().eq(0..1000));
    }
}
