//! What an arena reports of itself.

/// Figures of an arena, all of one instant: `vmem_size`, and the kstats of Solaris. Sizes are in the
/// arena's units, allocated segments rounded up to the quantum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArenaStats {
    /// All spans together (`mem_total`; `vmem_size` of `VMEM_ALLOC | VMEM_FREE`).
    pub size: usize,
    /// Allocated (`mem_inuse`).
    pub in_use: usize,
    /// Most that was ever allocated.
    pub peak: usize,
    /// Of the size, what came from the parent (`mem_import`).
    pub imported: usize,
    /// Spans.
    pub spans: usize,
    /// Allocated segments.
    pub segments: usize,
    /// Allocations that succeeded (`alloc`).
    pub allocs: u64,
    /// Segments freed (`free`).
    pub frees: u64,
    /// Allocations that failed, for whatever reason (`fail`).
    pub fails: u64,
    /// Allocations that had to wait (`wait`).
    pub waits: u64,
    /// Spans imported.
    pub imports: u64,
    /// Imported spans given back.
    pub releases: u64,
    /// Callers that wait just now.
    pub waiting: usize,
    /// Bytes of bookkeeping: tags, and the table of allocated segments; without the arena itself.
    pub meta_bytes: usize,
}

impl ArenaStats {
    /// Free (`vmem_size` of `VMEM_FREE`).
    pub const fn free(&self) -> usize {
        self.size - self.in_use
    }
}
