//! What can be tuned.

use std::ffi::CStr;

/// Whether free memory should be had in transparent huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugePages {
    /// As the system is set up: nothing is said.
    System,
    /// Wanted (`MADV_HUGEPAGE`): a fault for each 2 MiB in place of 512, and fewer misses of the translation cache;
    /// and more memory resident, up to 2 MiB wherever a page is touched. [`MmapPages::trim`](crate::MmapPages::trim)
    /// gives all that is free back nevertheless, and so does whoever decommits a part of a run; thereby huge
    /// pages are taken apart, which takes a second system call. A daemon of the system (khugepaged) may put
    /// them together again, slowly, and all of their pages are resident then.
    Wanted,
    /// Not wanted (`MADV_NOHUGEPAGE`), also where the system gives them to everybody: memory stays as
    /// small as it can be.
    Unwanted,
}

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
    /// Whether huge pages are wanted. [`MmapPages::set_huge_pages`](crate::MmapPages::set_huge_pages) can say so
    /// later.
    pub huge_pages: HugePages,
    /// What mappings are called in `/proc/self/maps`, where the system knows names. Linux takes up to
    /// 79 printable characters, without any of `` [ ] \ $ ` ``.
    pub name: &'static CStr,
}

impl Config {
    /// Chunks of 128 MiB to 1 GiB, up to 32 MiB kept committed, huge pages as the system is set up, and
    /// the name `uma`.
    pub const DEFAULT: Self = Self {
        chunk_min: 128 << 20,
        chunk_max: 1 << 30,
        dirty_max: 32 << 20,
        huge_pages: HugePages::System,
        name: c"uma",
    };

    /// The same, with chunks from `min` to `max` bytes.
    pub const fn chunks(self, min: usize, max: usize) -> Self {
        Self { chunk_min: min, chunk_max: max, ..self }
    }

    /// The same, with up to `bytes` of freed memory kept committed.
    pub const fn dirty_max(self, bytes: usize) -> Self {
        Self { dirty_max: bytes, ..self }
    }

    /// The same, with huge pages wanted or not.
    pub const fn huge_pages(self, huge_pages: HugePages) -> Self {
        Self { huge_pages, ..self }
    }

    /// The same, with mappings called `name`.
    pub const fn name(self, name: &'static CStr) -> Self {
        Self { name, ..self }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}
