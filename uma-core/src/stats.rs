//! What a zone reports of itself.

/// Figures of one zone, filled in by its layers from the bottom up.
///
/// Each layer overwrites or adds the figures that it knows best: a keg reports slabs and free items,
/// a limit reports the limit and the sleeps, a cache reports what it holds and the traffic that the
/// user saw. They are exact when no other thread uses the zone, and a good estimate while others do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Item size in bytes, as asked for (`SIZE`).
    pub size: usize,
    /// Item alignment in bytes.
    pub align: usize,
    /// Most items that may exist, 0 for no limit (`LIMIT`).
    pub limit: u64,
    /// Allocations that succeeded since the zone was made (`REQ`).
    pub allocs: u64,
    /// Items freed since the zone was made. A second free of the same item counts, too: that it was one is found
    /// later, by the slab, if at all.
    pub frees: u64,
    /// Allocations that failed (`FAIL`).
    pub fails: u64,
    /// Times a caller slept at the limit (`SLEEP`).
    pub sleeps: u64,
    /// Callers that sleep at the limit now.
    pub sleepers: u64,
    /// Free items held in buckets, per CPU and in the depot.
    pub cached: u64,
    /// Free items in slabs.
    pub keg_free: u64,
    /// Bytes from one item to the next in a slab, 0 without slabs.
    pub stride: usize,
    /// Bytes of a slab, 0 without slabs.
    pub slab_bytes: usize,
    /// Items in a slab, 0 without slabs.
    pub per_slab: u32,
    /// Free items that only a caller with the right to the reserve gets.
    pub reserve: u64,
    /// Slabs held.
    pub slabs: u64,
    /// Bytes of pages held from the supplier.
    pub bytes: u64,
    /// Items a bucket holds at most, 0 without buckets.
    pub bucket_size: u32,
    /// Whether the slabs are those of another zone, which reports them.
    pub secondary: bool,
    /// CPUs that have a slot, 0 without buckets.
    pub slots: u32,
    /// How slots are reached (`rseq`, `locks`, ...), empty without buckets.
    pub mode: &'static str,
}

impl Stats {
    /// Items in use: allocations less frees (`USED`), and never below 0. Where an item was freed twice it is one
    /// too few.
    pub const fn used(&self) -> u64 {
        self.allocs.saturating_sub(self.frees)
    }

    /// The part of the slabs' bytes that is items, in thousandths: 1000 if nothing is lost to headers and
    /// padding, 0 without slabs (`efficiency` of `vm.uma`).
    pub const fn efficiency(&self) -> u32 {
        if self.slab_bytes == 0 {
            return 0;
        }
        let items = self.size as u128 * self.per_slab as u128;
        // At most 1000, as the items lie in the slab.
        (items * 1000 / self.slab_bytes as u128) as u32
    }

    /// Free items, in buckets and in slabs (`FREE`).
    pub const fn free(&self) -> u64 {
        self.cached + self.keg_free
    }
}
