//! Whole buckets, shared by all CPUs.

use core::ops::RangeInclusive;

use crate::bucket::{List, Owned};
use crate::demand::Demand;

/// What the depot's lock guards: buckets with items and buckets without.
pub(crate) struct Depot {
    full: List,
    empty: List,
    /// How many of the items are needed.
    demand: Demand,
}

impl Depot {
    pub(crate) const fn new() -> Self {
        Self { full: List::new(), empty: List::new(), demand: Demand::new() }
    }

    /// Takes a bucket with at least one item, because items are needed.
    pub(crate) fn take_full(&mut self) -> Option<Owned> {
        let bucket = self.full.pop()?;
        self.demand.taken(self.full.items());
        Some(bucket)
    }

    /// Takes a bucket with at least one item to give them back, if no fewer than `keep` items stay.
    pub(crate) fn take_surplus(&mut self, keep: usize) -> Option<Owned> {
        let bucket = self.full.pop()?;
        let count = usize::from(bucket.count());
        if self.full.items() < keep {
            self.full.push(bucket);
            return None;
        }
        self.demand.reclaimed(count);
        Some(bucket)
    }

    /// Takes a bucket without items.
    pub(crate) fn take_empty(&mut self) -> Option<Owned> {
        self.empty.pop()
    }

    /// The same, if the next one has a size of these.
    pub(crate) fn take_empty_of(&mut self, sizes: RangeInclusive<u16>) -> Option<Owned> {
        let bucket = self.empty.pop()?;
        if sizes.contains(&bucket.capacity()) {
            return Some(bucket);
        }
        self.empty.push(bucket);
        None
    }

    /// Keeps a harvested bucket, whatever is in it.
    pub(crate) fn put(&mut self, bucket: Owned) {
        if bucket.count() == 0 {
            self.empty.push(bucket);
        } else {
            self.full.push(bucket);
            self.demand.put(self.full.items());
        }
    }

    /// Keeps a harvested bucket, unless the buckets of its kind would then hold, or have room for,
    /// more than `most` items.
    pub(crate) fn put_bounded(&mut self, bucket: Owned, most: usize) -> Result<(), Owned> {
        let capacity = usize::from(bucket.capacity());
        let fits = if bucket.count() == 0 {
            (self.empty.len() + 1) * capacity <= most
        } else {
            // Nor so many of them, each with few items, that their own memory matters.
            self.full.items() + usize::from(bucket.count()) <= most
                && (self.full.len() + 1) * capacity <= most.saturating_mul(2)
        };
        if !fits {
            return Err(bucket);
        }
        self.put(bucket);
        Ok(())
    }

    /// Ends a period, in which `fetched` items were needed that the depot did not have. Returns how many a
    /// trim keeps, and how many stay if only those go that nobody has needed for long.
    pub(crate) fn end_period(&mut self, fetched: usize) -> (usize, usize) {
        let items = self.full.items();
        let need = self.demand.end_period(items, fetched);
        (need, items - self.demand.idle().min(items))
    }

    /// Items in all buckets.
    pub(crate) const fn items(&self) -> usize {
        self.full.items()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use core::ptr::NonNull;

    use uma_core::{Item, Request};
    use uma_testkit::HeapMeta;

    use super::*;

    #[test]
    fn a_depot_without_bounds() {
        let metadata = HeapMeta::new();
        let mut depot = Depot::new();
        let mut bucket = Owned::new_in(&metadata, 2, Request::NOWAIT).unwrap();
        let mut item = 0_u64;
        // SAFETY: nobody uses the item.
        assert!(unsafe { bucket.push(Item::new(NonNull::from(&mut item).cast())) });
        bucket.harvest();
        assert!(depot.put_bounded(bucket, usize::MAX).is_ok());
        let mut bucket = depot.take_full().unwrap();
        assert!(bucket.pop().is_some());
        bucket.delete_in(&metadata);
    }
}
