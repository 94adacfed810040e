//! The memory: `static` arrays, or any regions, and how each is divided.

use core::ptr::NonNull;

use crate::free::words_for;
use crate::sync::{AtomicUsize, Ordering, UnsafeCell};

/// `N` bytes of page-aligned memory for a `static`, in `.bss`.
///
/// One page of 4 KiB in 32,768 goes to the bookkeeping of [`StaticPages`](crate::StaticPages), at
/// least one: `StaticMemory<{ 65 * 4096 }>` gives 64 pages.
#[repr(C, align(4096))]
pub struct StaticMemory<const N: usize> {
    bytes: UnsafeCell<[u8; N]>,
}

// SAFETY: the bytes are private, and reached only through the one `StaticPages` that claims them.
unsafe impl<const N: usize> Sync for StaticMemory<N> {}

impl<const N: usize> StaticMemory<N> {
    /// Zeroed memory.
    pub const fn new() -> Self {
        Self { bytes: UnsafeCell::new([0; N]) }
    }

    pub(crate) const fn base(&'static self) -> NonNull<u8> {
        // SAFETY: `UnsafeCell::get` of a reference is not null.
        unsafe { NonNull::new_unchecked(self.bytes.get().cast()) }
    }
}

impl<const N: usize> Default for StaticMemory<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> core::fmt::Debug for StaticMemory<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StaticMemory").field("len", &N).finish_non_exhaustive()
    }
}

/// A range of memory.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) base: NonNull<u8>,
    pub(crate) len: usize,
}

// SAFETY: an address and a length; who may use the memory is settled where a region is made.
unsafe impl Send for Extent {}
// SAFETY: as above.
unsafe impl Sync for Extent {}

/// Where things are in a region, as offsets from its base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) claim: usize,
    pub(crate) book: usize,
    pub(crate) bitmap: usize,
    pub(crate) pages: usize,
    pub(crate) count: usize,
}

const WORD: usize = size_of::<u64>();

impl Extent {
    /// Divides the region, with `book` bytes for a book, or says that not one page fits.
    ///
    /// All offsets are at most `len`, the claim, the book and the bitmap are word-aligned, the pages are
    /// aligned to `page`, and nothing overlaps.
    pub(crate) fn plan(self, page: usize, book: usize) -> Option<Plan> {
        let start = self.base.addr().get();
        let end = start.checked_add(self.len)?;
        let claim = start.checked_next_multiple_of(WORD)?;
        let at = claim.checked_add(WORD)?;
        let bitmap = at.checked_add(book)?.checked_next_multiple_of(WORD)?;
        // A few bits too many, since the bookkeeping itself takes no bits.
        let bits = words_for(self.len / page).checked_mul(WORD)?;
        let pages = bitmap.checked_add(bits)?.checked_next_multiple_of(page)?;
        let count = end.checked_sub(pages)? / page;
        let plan = Plan {
            claim: claim - start,
            book: at - start,
            bitmap: bitmap - start,
            pages: pages - start,
            count,
        };
        (count > 0).then_some(plan)
    }

    /// Whether this is the first supplier to want the region, which is (that of) a [`StaticMemory`].
    pub(crate) fn claim(self, plan: Plan) -> bool {
        // SAFETY: `plan` puts an aligned word here, inside the region. It is zero at first, being
        // part of a `StaticMemory`, and all suppliers that know it reach it by this exchange only.
        let claim = unsafe { AtomicUsize::from_ptr(self.base.add(plan.claim).cast().as_ptr()) };
        claim.swap(1, Ordering::AcqRel) == 0
    }

    /// Whether the two have a byte in common.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let (a, b) = (self.base.addr().get(), other.base.addr().get());
        if a <= b { b - a < self.len && other.len != 0 } else { a - b < other.len && self.len != 0 }
    }

    /// Whether `at` lies in the region.
    pub(crate) fn contains(self, at: *const u8) -> bool {
        at.addr().wrapping_sub(self.base.addr().get()) < self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: usize, len: usize) -> Extent {
        let base = NonNull::dangling().map_addr(|_| start.try_into().unwrap());
        Extent { base, len }
    }

    #[test]
    fn an_aligned_region_gives_one_page_for_bookkeeping() {
        let plan = region(0x10_0000, 65 * 4096).plan(4096, 0).unwrap();
        assert_eq!(plan, Plan { claim: 0, book: 8, bitmap: 8, pages: 4096, count: 64 });
    }

    #[test]
    fn slack_at_the_head_holds_the_bookkeeping() {
        let plan = region(0x10_0ff0 - 0x100, 0x110 + 64 * 4096).plan(4096, 0).unwrap();
        assert_eq!((plan.pages, plan.count), (0x110, 64));
    }

    #[test]
    fn head_and_tail_are_trimmed() {
        for (start, len) in [
            (0x10_0001, 20_000),
            (0x10_0fff, 12_345),
            (0x10_0800, 4096 * 40 + 1),
            (0x10_0ff0, 4096 * 80),
        ] {
            let plan = region(start, len).plan(4096, 0).unwrap();
            assert!((start + plan.claim).is_multiple_of(8) && plan.bitmap == plan.claim + 8);
            assert!((start + plan.pages).is_multiple_of(4096));
            assert!(plan.bitmap + words_for(plan.count) * 8 <= plan.pages);
            assert!(plan.pages + plan.count * 4096 <= len);
            assert!(plan.pages + (plan.count + 1) * 4096 > len);
        }
    }

    #[test]
    fn too_small_regions_give_nothing() {
        for len in [0, 1, 7, 8, 4095, 4096, 8191] {
            assert_eq!(region(0x10_0000, len).plan(4096, 0), None);
        }
        assert_eq!(region(usize::MAX - 100, 100).plan(4096, 0), None);
        assert_eq!(region(usize::MAX - 100, usize::MAX).plan(4096, 0), None);
    }

    #[test]
    fn a_book_lies_before_the_bitmap() {
        for start in [0x10_0000, 0x10_0ff1] {
            let plan = region(start, 65 * 4096).plan(4096, 100).unwrap();
            assert_eq!((plan.book, plan.bitmap), (plan.claim + 8, plan.book + 104));
            assert!(plan.bitmap + words_for(plan.count) * 8 <= plan.pages);
        }
        assert_eq!(region(0x10_0000, 8192).plan(4096, 4096), None);
    }

    #[test]
    fn regions_overlap_if_they_share_a_byte() {
        let overlap = |a: (usize, usize), b: (usize, usize)| {
            let (one, two) = (region(a.0, a.1), region(b.0, b.1));
            assert_eq!(one.overlaps(two), two.overlaps(one));
            one.overlaps(two)
        };
        assert!(overlap((100, 10), (109, 10)) && overlap((100, 10), (100, 10)));
        assert!(overlap((100, 100), (150, 1)));
        assert!(!overlap((100, 10), (110, 10)) && !overlap((100, 10), (105, 0)));
        assert!(!overlap((100, 0), (100, 10)) && !overlap((usize::MAX - 5, 5), (1, 10)));
    }

    #[test]
    fn contains_is_half_open() {
        let region = region(4096, 100);
        let at = |addr: usize| region.base.as_ptr().map_addr(|_| addr).cast_const();
        assert!(region.contains(at(4096)) && region.contains(at(4195)));
        assert!(!region.contains(at(4095)) && !region.contains(at(4196)));
    }
}
