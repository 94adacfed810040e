//! The memory: one mapping, and what the system is asked to do with it.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};
use uma_core::PageError;

/// Whether decommitted memory reads as zero, which only Linux promises. Elsewhere nothing is
/// decommitted.
pub(crate) const DECOMMITS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The size of a page of this system.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}

/// One mapping of anonymous memory, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Chunk {
    map: MmapRaw,
    base: NonNull<u8>,
}

// SAFETY: a mapping belongs to no thread, and `base` is its start, which gives no access by itself.
unsafe impl Send for Chunk {}
// SAFETY: as above; `discard` is a system call that may be made from several threads.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// Reserves `len` bytes, which read as zero and are committed as they are written.
    pub(crate) fn map(len: usize) -> Result<Self, PageError> {
        let refused =
            |error: io::Error| error.raw_os_error().map_or(PageError::Exhausted, PageError::System);
        let map = MmapOptions::new().len(len).no_reserve_swap().map_anon().map_err(refused)?;
        let map = MmapRaw::from(map);
        let base = NonNull::new(map.as_mut_ptr()).ok_or(PageError::Exhausted)?;
        Ok(Self { map, base })
    }

    pub(crate) fn start(&self) -> usize {
        self.base.addr().get()
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Its addresses.
    pub(crate) fn bounds(&self) -> Range<usize> {
        self.start()..self.start() + self.len()
    }

    /// The pointer to an address inside the chunk.
    pub(crate) fn at(&self, address: usize) -> NonNull<u8> {
        debug_assert!(self.bounds().contains(&address));
        // `base` may be used for the whole mapping, and the address lies inside of it.
        NonNull::new(self.base.as_ptr().with_addr(address)).unwrap_or(self.base)
    }

    /// Asks the system to take the memory of these pages. If it does they read as zero, and the
    /// result is true; otherwise they are unchanged.
    ///
    /// # Safety
    ///
    /// `range` is whole pages of this chunk, in no use that would miss its contents.
    pub(crate) unsafe fn discard(&self, range: Range<usize>) -> bool {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            use memmap2::UncheckedAdvice::DontNeed;
            let offset = range.start - self.start();
            // SAFETY: the caller's promise: nobody reads or writes the pages meanwhile, nor counts
            // on what was in them. No reference into the mapping is ever made here.
            unsafe { self.map.unchecked_advise_range(DontNeed, offset, range.len()) }.is_ok()
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            let _ = range;
            false
        }
    }
}
