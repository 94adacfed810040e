//! What is allocated where: a mark for each page of a map, apart from the pages.
//!
//! ```text
//!   page      0          1          2          3          4
//!          +----------+----------+----------+----------+----------+
//!   head   | wired, 3 |    0     |    0     | va, 2    |    0     |   of what begins here, or 0
//!   entered|    0     |    0     |    0     |        1 | entered  |   how many; and whether this one is
//!          +----------+----------+----------+----------+----------+
//! ```
//!
//! Marks are 16 bytes for a page of address space on 64-bit machines, of which memory is taken up where
//! something begins or was entered. There is no lock: who changes an allocation claims its head first.

use std::ptr::NonNull;

use super::{MapFault, MapType};
use crate::sync::{AtomicUsize, Ordering};
use crate::sys::{Errno, System};

/// The mark of a page. All bits zero: nothing.
struct Mark {
    head: AtomicUsize,
    entered: AtomicUsize,
}

/// In `head`: the type, whether it is locked in memory, whether a call is at work on it, and the pages.
const TYPE: usize = 0b111;
const LOCKED: usize = 0b1000;
const CLAIMED: usize = 0b1_0000;
const PAGES: u32 = 5;

/// In `entered`: this page is. (Below it: how many of the allocation that begins here.)
const HERE: usize = 1 << (usize::BITS - 1);

/// What begins somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) of_type: MapType,
    pub(super) locked: bool,
    pub(super) pages: usize,
}

impl Head {
    const fn bits(self) -> usize {
        let of_type = match self.of_type {
            MapType::Wired => 1,
            MapType::Pageable => 2,
            MapType::VaOnly => 3,
            MapType::Submap => 4,
        };
        self.pages << PAGES | if self.locked { LOCKED } else { 0 } | of_type
    }

    const fn of(bits: usize) -> Option<Self> {
        let of_type = match bits & TYPE {
            1 => MapType::Wired,
            2 => MapType::Pageable,
            3 => MapType::VaOnly,
            4 => MapType::Submap,
            _ => return None,
        };
        Some(Self { of_type, locked: bits & LOCKED != 0, pages: bits >> PAGES })
    }
}

/// The marks of a map.
pub(super) struct Marks<S: System> {
    marks: NonNull<Mark>,
    bytes: usize,
    system: S,
}

// SAFETY: the marks are atomic, and their mapping is no thread's own.
unsafe impl<S: System + Send> Send for Marks<S> {}
// SAFETY: as above.
unsafe impl<S: System> Sync for Marks<S> {}

impl<S: System> Marks<S> {
    /// For so many pages.
    pub(super) fn new(system: S, pages: usize, page: usize) -> Result<Self, Errno> {
        let bytes = pages.checked_mul(size_of::<Mark>()).ok_or(libc::ENOMEM)?;
        let bytes = bytes.checked_next_multiple_of(page).ok_or(libc::ENOMEM)?;
        let marks = system.map(bytes)?.cast();
        Ok(Self { marks, bytes, system })
    }

    fn mark(&self, page: usize) -> &Mark {
        debug_assert!(page < self.bytes / size_of::<Mark>());
        // SAFETY: callers ask for pages of the map alone, for each of which there is a mark in the
        // mapping, which is zeroed, aligned to a page, and there until `self` is dropped.
        unsafe { self.marks.add(page).as_ref() }
    }

    /// What begins at a page, if anything.
    pub(super) fn head(&self, page: usize) -> Option<Head> {
        Head::of(self.mark(page).head.load(Ordering::Acquire))
    }

    /// Notes what begins at a page, or that nothing does. Ends a claim.
    pub(super) fn set(&self, page: usize, head: Option<Head>) {
        self.mark(page).head.store(head.map_or(0, Head::bits), Ordering::Release);
    }

    /// Claims what begins at a page, if `agrees` does not object to it, until [`set`](Self::set).
    pub(super) fn claim(
        &self,
        page: usize,
        none: MapFault,
        claimed: MapFault,
        agrees: impl Fn(Head) -> Result<(), MapFault>,
    ) -> Result<Head, MapFault> {
        let mark = &self.mark(page).head;
        let mut bits = mark.load(Ordering::Acquire);
        loop {
            let head = Head::of(bits).ok_or(none)?;
            if bits & CLAIMED != 0 {
                return Err(claimed);
            }
            agrees(head)?;
            let claim = bits | CLAIMED;
            match mark.compare_exchange(bits, claim, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Ok(head),
                Err(now) => bits = now,
            }
        }
    }

    /// How many pages are entered of what begins at a page.
    pub(super) fn count(&self, head: usize) -> usize {
        self.mark(head).entered.load(Ordering::Acquire) & !HERE
    }

    /// Whether a page is entered.
    pub(super) fn is_entered(&self, page: usize) -> bool {
        self.mark(page).entered.load(Ordering::Acquire) & HERE != 0
    }

    /// Notes that a page of what begins at `head` is entered, or not any more. Returns whether that is
    /// new.
    pub(super) fn enter(&self, head: usize, page: usize, entered: bool) -> bool {
        let (mark, count) = (&self.mark(page).entered, &self.mark(head).entered);
        if entered {
            let new = mark.fetch_or(HERE, Ordering::AcqRel) & HERE == 0;
            count.fetch_add(usize::from(new), Ordering::AcqRel);
            new
        } else {
            let new = mark.fetch_and(!HERE, Ordering::AcqRel) & HERE != 0;
            count.fetch_sub(usize::from(new), Ordering::AcqRel);
            new
        }
    }
}

impl<S: System> Drop for Marks<S> {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nobody looks at any more. If the system refuses, some
        // address space is lost.
        let _ = unsafe { self.system.unmap(self.marks.cast(), self.bytes) };
    }
}
