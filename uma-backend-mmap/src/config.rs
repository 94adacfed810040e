//! What can be tuned.

/// How much to reserve at a time and how much to keep. Sizes are rounded up to whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Size of the first chunk in bytes.
    pub chunk_min: usize,
    /// Size up to which chunks double.
    pub chunk_max: usize,
    /// Bytes of freed memory that may stay committed. Beyond that it is decommitted until half of
    /// this is left. 0 decommits at every free.
    pub dirty_max: usize,
}

impl Config {
    /// Chunks of 64 MiB to 1 GiB, and up to 32 MiB kept committed.
    pub const DEFAULT: Self = Self { chunk_min: 64 << 20, chunk_max: 1 << 30, dirty_max: 32 << 20 };

    /// The same, with chunks from `min` to `max` bytes.
    pub const fn chunks(self, min: usize, max: usize) -> Self {
        Self { chunk_min: min, chunk_max: max, ..self }
    }

    /// The same, with up to `bytes` of freed memory kept committed.
    pub const fn dirty_max(self, bytes: usize) -> Self {
        Self { dirty_max: bytes, ..self }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}
