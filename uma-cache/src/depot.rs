//! Whole buckets, shared by all CPUs.

use crate::bucket::{List, Owned};

/// What the depot's lock guards: buckets with items and buckets without.
pub(crate) struct Depot {
    full: List,
    empty: List,
    /// The fewest full buckets since the last trim: so many of them nobody needed.
    low: usize,
}

impl Depot {
    pub(crate) const fn new() -> Self {
        Self { full: List::new(), empty: List::new(), low: 0 }
    }

    /// Takes a bucket with at least one item.
    pub(crate) fn take_full(&mut self) -> Option<Owned> {
        let bucket = self.full.pop()?;
        self.low = self.low.min(self.full.len());
        Some(bucket)
    }

    /// Takes a bucket without items.
    pub(crate) fn take_empty(&mut self) -> Option<Owned> {
        self.empty.pop()
    }

    /// Keeps a harvested bucket, whatever is in it.
    pub(crate) fn put(&mut self, bucket: Owned) {
        if bucket.count() == 0 {
            self.empty.push(bucket);
        } else {
            self.full.push(bucket);
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
                && (self.full.len() + 1) * capacity <= 2 * most
        };
        if !fits {
            return Err(bucket);
        }
        self.put(bucket);
        Ok(())
    }

    /// How many full buckets there are.
    pub(crate) const fn full(&self) -> usize {
        self.full.len()
    }

    /// How many full buckets a trim keeps: those that were needed since the last one. Starts a new
    /// period.
    pub(crate) fn working_set(&mut self) -> usize {
        let keep = self.full.len() - self.low.min(self.full.len());
        self.low = keep;
        keep
    }

    /// Items in all buckets.
    pub(crate) const fn items(&self) -> usize {
        self.full.items()
    }
}
