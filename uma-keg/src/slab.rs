//! One slab's header: who owns the slab, and which of its items are free.
//!
//! ```text
//!   +------+------+------+--------+------+------+------+------+--------+--------+--
//!   | next | prev | base | cookie | free | hint | flag | place| word 0 | word 1 | ...
//!   +------+------+------+--------+------+------+------+------+--------+--------+--
//!                                                              one bit per item, set = free
//! ```
//!
//! Items are taken lowest index first, so that a fresh slab's pages are touched one after the other.
//! No word before `hint` has a bit set.
//!
//! # Who may touch it
//!
//! A [`SlabPtr`] is a plain pointer. Between [`SlabPtr::build`] and the moment its memory goes back
//! the header is alive, and all that time it is touched only by whoever owns the slab: the keg's lock
//! while the slab is in the keg's lists, else the one call that is making it or giving it back. The
//! `unsafe fn`s here call that *owning the slab*.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

use uma_core::Item;

use crate::layout::SlabLayout;
use crate::sync::Cell;

/// Partly used slabs are sorted into this many bins.
pub(crate) const BINS: usize = 16;

/// Alignment of a header.
pub(crate) const HEADER_ALIGN: usize = align_of::<Header>();

const BITS: usize = usize::BITS as usize;

/// Bytes of header for a slab of `items` items.
pub(crate) const fn header_size(items: usize) -> usize {
    size_of::<Header>() + items.div_ceil(BITS) * size_of::<usize>()
}

/// The fixed part of a header. The words of the bitmap follow it in memory.
#[repr(C)]
pub(crate) struct Header {
    /// Neighbours in the list that `place` names, see [`crate::lists`]; a chain of detached slabs uses
    /// `next` only.
    pub(crate) next: Cell<Option<SlabPtr>>,
    pub(crate) prev: Cell<Option<SlabPtr>>,
    base: NonNull<u8>,
    /// What [`cookie`] makes of the keg's secret and the base. Nothing else is likely to hold it.
    cookie: Cell<usize>,
    free: Cell<u32>,
    hint: Cell<u16>,
    /// The supplier's byte.
    flag: u8,
    /// The list that the slab is in, an index into the keg's lists; and [`SETTLED`].
    pub(crate) place: Cell<u8>,
}

/// Set in a slab's place if its items have not changed since its free pages were given back.
pub(crate) const SETTLED: u8 = 0x80;

// The words begin right after the fixed part, and `hint` can hold the index of the last one: a slab
// of one-byte items in a page of 2 MiB has 2^15 words of 64 bits, or fewer than 2^16 of 32.
const _: () = assert!(size_of::<Header>().is_multiple_of(size_of::<usize>()));

/// The cookie of a slab at `base`.
#[inline]
pub(crate) const fn cookie(secret: usize, base: usize) -> usize {
    secret ^ base
}

impl Header {
    pub(crate) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) const fn flag(&self) -> u8 {
        self.flag
    }

    /// The list that the slab is in.
    #[inline]
    pub(crate) fn list(&self) -> usize {
        usize::from(self.place.get() & !SETTLED)
    }

    /// Whether no item has changed since the slab's free pages were given back.
    pub(crate) fn is_settled(&self) -> bool {
        self.place.get() & SETTLED != 0
    }

    /// How many items are free.
    #[inline]
    pub(crate) fn free(&self) -> usize {
        self.free.get() as usize
    }

    /// Whether this is the header of the slab at `base` in the keg with this secret.
    #[inline]
    pub(crate) fn belongs(&self, secret: usize, base: usize) -> bool {
        self.cookie.get() == cookie(secret, base)
    }
}

/// A pointer to a header and the words behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlabPtr(NonNull<Header>);

impl SlabPtr {
    /// Makes a header with all items free.
    ///
    /// # Safety
    ///
    /// `at` is valid for reads and writes of `layout.header()`, for as long as the result is used, and
    /// the caller owns it. `base` is the start of a run of `layout.slab()`.
    pub(crate) unsafe fn build(
        at: NonNull<u8>,
        base: NonNull<u8>,
        flag: u8,
        layout: &SlabLayout,
    ) -> Self {
        let slab = Self(at.cast());
        let items = layout.items();
        let header = Header {
            next: Cell::new(None),
            prev: Cell::new(None),
            base,
            cookie: Cell::new(0),
            // A slab is at most 8 MiB, so this fits.
            free: Cell::new(items as u32),
            hint: Cell::new(0),
            flag,
            place: Cell::new(0),
        };
        // SAFETY: the caller owns the memory, which has the size and alignment of a header with a
        // word for every `BITS` items begun.
        unsafe {
            slab.0.write(header);
            for index in 0..items.div_ceil(BITS) {
                let left = items - index * BITS;
                let word = if left >= BITS { usize::MAX } else { (1 << left) - 1 };
                slab.word(index).write(word);
            }
        }
        slab
    }

    /// The pointer to where a header may be, to be looked at before it is trusted.
    pub(crate) const fn suspected(at: NonNull<u8>) -> Self {
        Self(at.cast())
    }

    /// The memory that [`build`](Self::build) was given.
    pub(crate) const fn memory(self) -> NonNull<u8> {
        self.0.cast()
    }

    /// The fixed part.
    ///
    /// # Safety
    ///
    /// The caller owns the slab, for as long as it uses the result.
    #[inline]
    pub(crate) unsafe fn header<'a>(self) -> &'a Header {
        // SAFETY: the caller owns the slab, so the header is alive; what changes in it are cells.
        unsafe { self.0.as_ref() }
    }

    /// Marks the slab as one of the keg's.
    ///
    /// # Safety
    ///
    /// The caller owns the slab.
    pub(crate) unsafe fn sign(self, secret: usize) {
        // SAFETY: passed on to the caller.
        let header = unsafe { self.header() };
        header.cookie.set(cookie(secret, header.base.addr().get()));
    }

    /// Takes the mark away, so that a late free does not find it.
    ///
    /// # Safety
    ///
    /// The caller owns the slab.
    pub(crate) unsafe fn unsign(self) {
        // SAFETY: passed on to the caller.
        unsafe { self.header() }.cookie.set(0);
    }

    /// A word of the bitmap.
    ///
    /// # Safety
    ///
    /// The header has such a word.
    #[inline]
    unsafe fn word(self, index: usize) -> NonNull<usize> {
        // SAFETY: the words follow the fixed part in the same memory, of which `self` keeps the
        // provenance (the pointer was not made from a reference to the fixed part alone).
        unsafe { self.0.add(1).cast::<usize>().add(index) }
    }

    /// Takes as many items as there are and `into` holds, lowest first, and returns how many.
    ///
    /// # Safety
    ///
    /// The caller owns the slab, and it was built with this `layout`.
    #[inline]
    pub(crate) unsafe fn take(self, layout: &SlabLayout, into: &mut [MaybeUninit<Item>]) -> usize {
        // SAFETY: passed on to the caller.
        let header = unsafe { self.header() };
        let (base, stride) = (header.base, layout.stride());
        let count = header.free().min(into.len());
        let mut at = usize::from(header.hint.get());
        let mut taken = 0;
        while taken < count {
            // SAFETY: `free` bits are set from word `hint` on, and fewer than that have been taken,
            // so there is another word.
            let slot = unsafe { self.word(at) };
            // SAFETY: as above, and the caller owns the slab.
            let mut word = unsafe { slot.read() };
            while word != 0 && taken < count {
                let index = at * BITS + word.trailing_zeros() as usize;
                word &= word - 1;
                // SAFETY: only bits of items are ever set, and item `index` lies in the run.
                into[taken].write(Item::new(unsafe { base.add(index * stride) }));
                taken += 1;
            }
            // SAFETY: as for the read.
            unsafe { slot.write(word) };
            if word == 0 {
                at += 1;
            }
        }
        header.free.set((header.free() - count) as u32);
        // The number of words fits, see above.
        header.hint.set(at as u16);
        count
    }

    /// The same, but the items are taken in no order: each is the next free one from a place that
    /// `random` says, which must not be zero.
    ///
    /// # Safety
    ///
    /// As [`take`](Self::take).
    pub(crate) unsafe fn take_random(
        self,
        layout: &SlabLayout,
        into: &mut [MaybeUninit<Item>],
        random: &mut u64,
    ) -> usize {
        // SAFETY: passed on to the caller.
        let header = unsafe { self.header() };
        let (base, stride, items) = (header.base, layout.stride(), layout.items());
        let count = header.free().min(into.len());
        for place in &mut into[..count] {
            // Marsaglia's xorshift.
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            // The upper half times the number of items fits, and its upper half is below that.
            let start = (((*random >> 32) * items as u64) >> 32) as usize;
            // SAFETY: passed on to the caller.
            let found =
                unsafe { self.next_free(start, items).or_else(|| self.next_free(0, items)) };
            let Some(index) = found else {
                unreachable!("the header counts more free items than there are");
            };
            // SAFETY: the word exists, and the caller owns the slab; item `index` lies in the run.
            unsafe {
                let word = self.word(index / BITS);
                word.write(word.read() & !(1 << (index % BITS)));
                place.write(Item::new(base.add(index * stride)));
            }
        }
        header.free.set((header.free() - count) as u32);
        count
    }

    /// Marks an item free. Returns `false` if it already was.
    ///
    /// # Safety
    ///
    /// The caller owns the slab, which has an item of this index.
    #[inline]
    #[must_use]
    pub(crate) unsafe fn put(self, index: usize) -> bool {
        let (at, bit) = (index / BITS, 1 << (index % BITS));
        // SAFETY: passed on to the caller.
        let (header, slot) = unsafe { (self.header(), self.word(at)) };
        // SAFETY: the word exists, and the caller owns the slab.
        let word = unsafe { slot.read() };
        if word & bit != 0 {
            return false;
        }
        // SAFETY: as above.
        unsafe { slot.write(word | bit) };
        header.free.set(header.free.get() + 1);
        if at < usize::from(header.hint.get()) {
            header.hint.set(at as u16);
        }
        true
    }

    /// Whether an item is free.
    ///
    /// # Safety
    ///
    /// The caller owns the slab, which has an item of this index.
    pub(crate) unsafe fn is_free(self, index: usize) -> bool {
        // SAFETY: passed on to the caller.
        let word = unsafe { self.word(index / BITS).read() };
        word & (1 << (index % BITS)) != 0
    }

    /// The first item in use from `index` on.
    ///
    /// # Safety
    ///
    /// The caller owns the slab, which has `items` items.
    pub(crate) unsafe fn next_live(self, index: usize, items: usize) -> Option<usize> {
        // SAFETY: passed on to the caller.
        unsafe { self.next_set(index, items, usize::MAX) }
    }

    /// The first free item from `index` on.
    ///
    /// # Safety
    ///
    /// The caller owns the slab, which has `items` items.
    pub(crate) unsafe fn next_free(self, index: usize, items: usize) -> Option<usize> {
        // SAFETY: passed on to the caller.
        unsafe { self.next_set(index, items, 0) }
    }

    /// The first item from `index` on whose bit is set once the words are combined with `flip` by
    /// exclusive or.
    ///
    /// # Safety
    ///
    /// The caller owns the slab, which has `items` items.
    unsafe fn next_set(self, index: usize, items: usize, flip: usize) -> Option<usize> {
        let mut mask = usize::MAX << (index % BITS);
        for at in index / BITS..items.div_ceil(BITS) {
            // SAFETY: there is a word for every `BITS` items begun, and the caller owns the slab.
            let word = (unsafe { self.word(at).read() } ^ flip) & mask;
            if word != 0 {
                let found = at * BITS + word.trailing_zeros() as usize;
                // Bits behind the last item are never set, but flipped.
                return (found < items).then_some(found);
            }
            mask = usize::MAX;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use core::alloc::Layout;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::SlabConfig;

    /// A header of 200 items over memory for it; the base is only an address here.
    fn with_slab(test: impl FnOnce(SlabPtr, SlabLayout)) {
        let config = SlabConfig::new();
        let layout = SlabLayout::new(Layout::from_size_align(160, 32).unwrap(), config).unwrap();
        assert!(layout.items() > 3 * BITS / 2, "{layout:?}");
        let mut run = vec![0_u64; layout.slab_size() / 8];
        let mut header = vec![0_usize; layout.header().size() / size_of::<usize>()];
        let at = NonNull::new(header.as_mut_ptr()).unwrap().cast();
        let base = NonNull::new(run.as_mut_ptr()).unwrap().cast();
        // SAFETY: the memory outlives the test and is nobody else's.
        test(unsafe { SlabPtr::build(at, base, 7, &layout) }, layout);
    }

    fn take(slab: SlabPtr, layout: &SlabLayout, count: usize) -> Vec<usize> {
        let mut into = vec![MaybeUninit::uninit(); count];
        // SAFETY: one thread, and the slab's own layout.
        let taken = unsafe { slab.take(layout, &mut into) };
        // SAFETY: as above.
        let base = unsafe { slab.header() }.base().addr().get();
        into[..taken]
            .iter()
            // SAFETY: so many were initialised.
            .map(|item| (unsafe { item.assume_init() }.addr() - base) / layout.stride())
            .collect()
    }

    #[test]
    fn lowest_first_and_each_once() {
        with_slab(|slab, layout| {
            let items = layout.items();
            assert_eq!(take(slab, &layout, 3), [0, 1, 2]);
            assert_eq!(take(slab, &layout, 70), Vec::from_iter(3..73));
            // SAFETY: one thread, indices below 73.
            unsafe {
                assert!(slab.put(65) && slab.put(1) && slab.put(40));
                assert!(!slab.put(65), "already free");
                assert_eq!(slab.next_live(0, items), Some(0));
                assert_eq!(slab.next_live(1, items), Some(2));
                assert_eq!(slab.next_free(0, items), Some(1));
                assert_eq!(slab.next_free(2, items), Some(40));
                assert_eq!(slab.next_free(41, items), Some(65));
                assert_eq!(slab.next_free(66, items), Some(73));
                assert_eq!(slab.next_live(73, items), None);
            }
            assert_eq!(take(slab, &layout, 4), [1, 40, 65, 73]);
            assert_eq!(take(slab, &layout, items), Vec::from_iter(74..items));
            assert_eq!(take(slab, &layout, 1), []);
            // SAFETY: one thread.
            unsafe {
                assert_eq!(slab.header().free(), 0);
                assert!(slab.put(items - 1));
                assert_eq!(slab.next_live(items - 1, items), None);
                assert_eq!(slab.next_live(items, items), None);
                assert_eq!(slab.next_free(0, items), Some(items - 1));
                assert_eq!(slab.next_free(items, items), None);
            }
            assert_eq!(take(slab, &layout, 9), [items - 1]);
        });
    }

    #[test]
    fn cookies_come_and_go() {
        with_slab(|slab, _| {
            // SAFETY: one thread.
            unsafe {
                let base = slab.header().base().addr().get();
                slab.sign(99);
                assert!(slab.header().belongs(99, base) && !slab.header().belongs(98, base));
                slab.unsign();
                assert!(!slab.header().belongs(99, base));
                assert_eq!(slab.header().flag(), 7);
            }
        });
    }
}
