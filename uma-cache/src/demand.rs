//! How many of a depot's items are needed: the estimate of FreeBSD's zones, in items.
//!
//! ```text
//!   items in the depot
//!     max  -.            .-- max            the working set of a period is the largest drop
//!            \          /                   from a maximum to the minimum after it: so many
//!             \    .---'                    items allocations have taken out of the depot,
//!              \  /                         however many came back before
//!               `'  low since max
//!     min - - - - - - - - - - - - - - -     what is below the least of all nobody needed at all
//!   0 -------------------------------> time
//! ```
//!
//! Frees do not raise it: a batch that only comes back raises the maximum and what is low after it alike. What
//! had to be fetched past the empty depot counts as if the depot had held it.

use crate::bucket::MAX_CAPACITY;

/// Of one period, and of those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// The most items (`imax`).
    max: usize,
    /// The fewest since then (`bimin`).
    low: usize,
    /// The largest drop from an earlier maximum of the period.
    drop: usize,
    /// The fewest of the period (`imin`).
    min: usize,
    /// The estimate so far (`wss`).
    need: usize,
    /// The least beyond need in the last so many periods, of a window of [`PATIENT`].
    spare: usize,
    periods: u32,
    /// The same in the whole window before: that is idle. (FreeBSD's `limin` and `timin` say nearly this,
    /// but with a smoothing by which memory takes hours to go.)
    idle: usize,
}

/// Periods after which what nobody needed is idle: 15 minutes of 20 seconds.
pub(crate) const PATIENT: u32 = 45;

impl Demand {
    pub(crate) const fn new() -> Self {
        Self { max: 0, low: 0, drop: 0, min: 0, need: 0, spare: 0, periods: 0, idle: 0 }
    }

    /// A bucket was put into the depot, which holds `items` now.
    pub(crate) fn put(&mut self, items: usize) {
        if items > self.max {
            self.drop = self.drop.max(self.max - self.low);
            self.max = items;
            self.low = items;
        }
    }

    /// A bucket was taken for an allocation, and `items` are left.
    pub(crate) fn taken(&mut self, items: usize) {
        self.low = self.low.min(items);
        self.min = self.min.min(items);
    }

    /// So many were taken without need, to be given back.
    pub(crate) fn reclaimed(&mut self, count: usize) {
        for figure in [&mut self.max, &mut self.low, &mut self.min, &mut self.spare, &mut self.idle]
        {
            *figure = figure.saturating_sub(count);
        }
    }

    /// Ends a period at which the depot holds `items` and in which `fetched` went past it. Returns how many
    /// items are needed.
    pub(crate) fn end_period(&mut self, items: usize, fetched: usize) -> usize {
        let drop = self.drop.max(self.max - self.low).saturating_add(fetched);
        self.need = drop.max(self.need - self.need.div_ceil(4));
        match self.min.saturating_sub(self.need) {
            0 => (self.spare, self.periods, self.idle) = (0, 0, 0),
            spare => {
                self.spare = if self.periods == 0 { spare } else { self.spare.min(spare) };
                self.periods += 1;
                self.idle = self.idle.min(spare);
                if self.periods == PATIENT {
                    self.idle = self.spare;
                    self.periods = 0;
                }
            }
        }
        // Half of an old maximum goes on: the batch that began there may not be at its end.
        self.max = items + self.max.saturating_sub(items) / 2;
        (self.low, self.min, self.drop) = (items, items, 0);
        self.need
    }

    /// How many items have been idle for long and may go this time: a quarter of them, but not less than a
    /// bucket, since they go by the bucket.
    pub(crate) fn idle(&self) -> usize {
        self.idle.div_ceil(4).max(self.idle.min(MAX_CAPACITY.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts or takes so many at a time.
    struct Depot {
        items: usize,
        demand: Demand,
    }

    impl Depot {
        fn holding(items: usize) -> Self {
            let mut demand = Demand::new();
            demand.put(items);
            // The period in which they came is over.
            demand.end_period(items, 0);
            Self { items, demand }
        }

        fn put(&mut self, count: usize) {
            self.items += count;
            self.demand.put(self.items);
        }

        fn take(&mut self, count: usize) {
            self.items -= count;
            self.demand.taken(self.items);
        }

        fn end(&mut self) -> usize {
            self.demand.end_period(self.items, 0)
        }
    }

    #[test]
    fn what_was_taken_at_once_is_needed() {
        let mut depot = Depot::holding(1000);
        for _ in 0..50 {
            depot.take(100);
            depot.put(100);
        }
        // Fifty times a hundred, but never more than that at once.
        assert_eq!(depot.end(), 100);
    }

    #[test]
    fn frees_are_no_need() {
        let mut depot = Depot::holding(0);
        depot.put(5000);
        depot.put(5000);
        assert_eq!(depot.end(), 0, "a great free, as at low memory");
    }

    #[test]
    fn the_largest_drop_counts_also_before_a_new_maximum() {
        let mut depot = Depot::holding(100);
        depot.take(80);
        depot.put(500);
        depot.take(10);
        assert_eq!(depot.end(), 80);
    }

    #[test]
    fn what_went_past_the_depot_counts() {
        let mut demand = Demand::new();
        assert_eq!(demand.end_period(0, 300), 300);
    }

    #[test]
    fn need_is_forgotten_by_quarters() {
        let mut depot = Depot::holding(1000);
        depot.take(400);
        depot.put(400);
        let needs: [usize; 4] = std::array::from_fn(|_| depot.end());
        assert_eq!(needs, [400, 300, 225, 168]);
        for _ in 0..30 {
            depot.end();
        }
        assert_eq!(depot.end(), 0);
    }

    #[test]
    fn what_is_idle_for_long_goes_by_quarters() {
        let mut depot = Depot::holding(9000);
        depot.take(1000);
        depot.put(1000);
        depot.end();
        for period in 1..PATIENT {
            assert_eq!(depot.demand.idle(), 0, "in period {period}");
            depot.take(1000);
            depot.put(1000);
            assert_eq!(depot.end(), 1000);
        }
        let spare = depot.demand.idle();
        assert_eq!(spare, 7000 / 4);
        // It goes, and the rest is idle still, but no more than the rest.
        depot.items -= spare;
        depot.demand.reclaimed(spare);
        depot.end();
        assert_eq!(depot.demand.idle(), (7000 - spare).div_ceil(4));
        // A miss, and the waiting begins anew.
        depot.take(depot.items);
        depot.put(500);
        depot.end();
        assert_eq!(depot.demand.idle(), 0);
    }

    #[test]
    fn a_reclaim_is_neither_need_nor_the_end_of_one() {
        let mut depot = Depot::holding(1000);
        depot.take(300);
        depot.put(300);
        depot.items -= 600;
        depot.demand.reclaimed(600);
        assert_eq!(depot.end(), 300);
    }
}
