//! What a pool reports of itself.

/// Figures of a pool, as `vmstat -m` and the debugger show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[repr(C)]
pub struct PoolStats {
    /// The size of an item in bytes, as asked for.
    pub size: u64,
    /// Its alignment in bytes.
    pub align: u64,
    /// Pages (slabs) that the pool has, with those that are kept for it.
    pub pages: u64,
    /// Free items, in pages in use and in caches.
    pub free: u64,
    /// Items in use, without those in caches.
    pub out: u64,
    /// Items that were got.
    pub gets: u64,
    /// Items that were put.
    pub puts: u64,
    /// Gets that failed.
    pub fails: u64,
    /// Pages that were got.
    pub page_allocs: u64,
    /// Pages that were given back.
    pub page_frees: u64,
    /// Pages that are kept and not in use.
    pub idle: u64,
    /// Items in a page.
    pub per_page: u64,
    /// Free items in caches.
    pub cached: u64,
    /// The hard limit in items, 0 for none.
    pub limit: u64,
    /// Callers that wait at it just now.
    pub waiting: u64,
}
