//! Huge pages: whether they are wanted, said while the supplier is in use; whether there may be some; and that they
//! are taken apart where a part of one is given back.

use std::ptr::NonNull;

use uma_core::RawMutex;

use crate::free::BLOCK;
use crate::region::huge_page;
use crate::state::{Outgoing, State};
use crate::sync::Ordering;
use crate::sys::{DECOMMITS, System, page_size};
use crate::{HugePages, MmapPages};

/// Which pages of a block the system has memory for, from its start on.
#[derive(Debug)]
pub(crate) struct Seen {
    start: usize,
    pages: usize,
    resident: [u8; BLOCK],
}

impl Seen {
    /// Of no block.
    pub(crate) const fn new() -> Self {
        Self { start: 0, pages: 0, resident: [1; BLOCK] }
    }
}

impl<L: RawMutex, S: System> MmapPages<L, S> {
    /// Whether huge pages are wanted.
    pub fn huge_pages(&self) -> HugePages {
        // Nothing else is learnt from it.
        let huge = self.huge.load(Ordering::Relaxed);
        let all = [HugePages::System, HugePages::Wanted, HugePages::Unwanted];
        all.into_iter().find(|&known| known as u8 == huge).unwrap_or(HugePages::System)
    }

    /// Says whether huge pages are wanted, in place of what the [`Config`](crate::Config) says: for chunks that are
    /// still to come, and for what is touched from now on of those that are there. What was said of these cannot be
    /// taken back, so [`HugePages::System`] is for chunks to come only; and huge pages that are there stay, so who
    /// ever wanted some has them taken apart where a part is given back. The system may refuse, which is counted
    /// with the hints in [`MmapStats`](crate::MmapStats).
    ///
    /// ```
    /// use uma_backend_mmap::{HugePages, MmapPages};
    ///
    /// static PAGES: MmapPages = MmapPages::new();
    ///
    /// PAGES.set_huge_pages(HugePages::Wanted);
    /// assert_eq!(PAGES.huge_pages(), HugePages::Wanted);
    /// ```
    pub fn set_huge_pages(&self, huge: HugePages) {
        self.huge.store(huge as u8, Ordering::Relaxed);
        self.tell();
    }

    /// Tells the system of all chunks of which it was told something else.
    pub(crate) fn tell(&self) {
        if !DECOMMITS {
            return;
        }
        let page = page_size();
        let mut state = self.lock(page);
        state.outside += 1;
        loop {
            let huge = self.huge_pages();
            let Some((region, len)) = state.take_untold(huge) else { break };
            drop(state);
            self.told(huge);
            // SAFETY: the chunk stays mapped as long as it is marked.
            let _ = self.calls.hint.count(unsafe { self.system.huge(region, len, huge) });
            state = self.lock(page);
            if let Some(chunk) = state.directory.find(region.addr().get()) {
                chunk.telling = false;
            }
        }
        state.outside -= 1;
    }

    /// Remembers that there is memory of which the system was told this.
    pub(crate) fn told(&self, huge: HugePages) {
        // Nothing else is learnt from it.
        self.told.fetch_or(1 << huge as u8, Ordering::Relaxed);
    }

    fn was_told(&self, huge: HugePages) -> bool {
        self.told.load(Ordering::Relaxed) & 1 << huge as u8 != 0
    }

    /// Whether huge pages were ever asked for. What they brought is there also after somebody changed his mind.
    pub(crate) fn has_asked(&self) -> bool {
        self.was_told(HugePages::Wanted)
    }

    /// Whether some of the memory may lie on huge pages.
    pub(crate) fn may_have_huge_pages(&self) -> bool {
        self.has_asked() || self.was_told(HugePages::System) && self.system.huge_unasked()
    }

    /// Whether none of a piece is resident, as the system says. It is asked once for each block, since most of what
    /// is clean in a block that was touched went long ago.
    pub(crate) fn is_gone(&self, piece: &Outgoing, seen: &mut Seen) -> bool {
        let Some(start) = piece.clean_in else { return false };
        let page = page_size();
        let first = (piece.at.addr().get() - start.addr().get()) / page;
        let end = first + piece.len / page;
        if seen.start != start.addr().get() {
            // A sweep goes down, so the others of this block are below.
            *seen = Seen { start: start.addr().get(), pages: end, resident: [1; BLOCK] };
            let there = &mut seen.resident[..end];
            // SAFETY: both are in one block of a chunk that is not unmapped, since the piece is not free in it.
            if unsafe { self.system.resident(start, end * page, there) }.is_err() {
                there.fill(1);
            }
        }
        end <= seen.pages && seen.resident[first..end].iter().all(|&byte| byte & 1 == 0)
    }

    /// Takes the huge pages apart that a range begins and ends in the middle of. Else the system, which has lost a
    /// part of them, would keep all of their memory until it lacks some, though it is no longer resident.
    ///
    /// # Safety
    ///
    /// As [`System::discard`], and the range is not empty.
    pub(crate) unsafe fn tear(&self, at: NonNull<u8>, len: usize) {
        let page = page_size();
        let huge = huge_page(page);
        let (start, end) = (at.addr().get(), at.addr().get() + len);
        let are_two = start / huge != end / huge;
        if !(start.is_multiple_of(huge) && are_two) {
            // SAFETY: the first page of the range.
            let _ = self.calls.hint.count(unsafe { self.system.tear(at, page) });
        }
        if are_two && !end.is_multiple_of(huge) {
            // SAFETY: the last one.
            let torn = unsafe { self.system.tear(at.add(len - page), page) };
            let _ = self.calls.hint.count(torn);
        }
    }
}

impl State {
    /// Whether the system was told something else of a chunk than this.
    pub(crate) fn has_untold(&mut self, huge: HugePages) -> bool {
        self.untold(huge).is_some()
    }

    /// Marks such a chunk. Returns its region. One that somebody else is at is his: he will look again.
    fn take_untold(&mut self, huge: HugePages) -> Option<(NonNull<u8>, usize)> {
        let age = self.untold(huge)?;
        let chunk = self.directory.chunk(age);
        (chunk.huge, chunk.telling) = (huge, true);
        Some(chunk.region())
    }

    fn untold(&mut self, huge: HugePages) -> Option<usize> {
        let mut ages = 0..self.directory.count();
        ages.find(|&age| {
            let chunk = self.directory.chunk(age);
            huge != HugePages::System && chunk.huge != huge && !chunk.telling
        })
    }
}
