//! What a keg's lock protects, and what is done under it.
//!
//! Nothing here calls a supplier, metadata, or a user: slabs come in ready made and go out as a chain.

use core::mem::MaybeUninit;
use core::num::NonZeroUsize;

use uma_core::{Item, Metadata};

use crate::layout::SlabLayout;
use crate::lists::{AWAY, FULL, LISTS, Lists, WHOLLY_FREE};
use crate::map::Map;
use crate::misuse::{Fault, Misuse};
use crate::slab::{BINS, SlabPtr};

/// Invariants, whenever the lock is free:
///
/// - every slab of the keg is in the list that fits its number of free items, or in [`AWAY`], and is
///   signed with `secret`; if its header lies outside, `map` has it, and `map` has nothing else;
/// - a slab is [`SETTLED`](crate::slab::SETTLED) only if it is partly used or away, and no item of it was
///   taken or came back since its free pages were last given back, or, if away, since that began;
/// - each slab that is away is so for one call of the keg's `drain_pages`, which will bring it back;
///   nothing takes an item from it meanwhile, but items of it come back;
/// - `away` is the sum of the free items of slabs that are away, `free` of all others: those that can be
///   taken. `slabs` is the number of all slabs;
/// - `allocs - frees` is the number of items that are out.
pub(crate) struct State<M: Metadata> {
    pub(crate) lists: Lists,
    pub(crate) map: Map<M>,
    pub(crate) slabs: u64,
    pub(crate) free: u64,
    pub(crate) away: u64,
    /// Somebody waits until no slab is away, to make a copy of the process: send none away.
    pub(crate) forking: bool,
    pub(crate) reserve: u64,
    /// No slabs are made any more.
    pub(crate) sealed: bool,
    pub(crate) allocs: u64,
    pub(crate) frees: u64,
    secret: usize,
    /// Where the next item of a slab is looked for, if in no order; never zero once there is a slab.
    random: u64,
}

// SAFETY: what the pointers lead to, slabs and a table, is owned by this value and tied to no thread.
// An `M` is not contained: the map's allocator points to one only while a call lends it, on the
// calling thread.
unsafe impl<M: Metadata> Send for State<M> {}

/// Where a slab with so many free items belongs.
#[inline]
pub(crate) fn list_for(layout: &SlabLayout, free: usize) -> usize {
    match layout.items() - free {
        0 => WHOLLY_FREE,
        _ if free == 0 => FULL,
        used => layout.bin(used),
    }
}

impl<M: Metadata> State<M> {
    pub(crate) const fn new() -> Self {
        Self {
            lists: Lists::new(),
            map: Map::new(),
            slabs: 0,
            free: 0,
            away: 0,
            forking: false,
            reserve: 0,
            sealed: false,
            allocs: 0,
            frees: 0,
            secret: 0,
            random: 0,
        }
    }

    /// Free items, whether they can be taken just now or not.
    pub(crate) const fn all_free(&self) -> u64 {
        self.free + self.away
    }

    /// Items that are out.
    pub(crate) const fn live(&self) -> u64 {
        self.allocs - self.frees
    }

    /// Adds a wholly free slab.
    ///
    /// # Safety
    ///
    /// The caller owns the slab, which was built with this `layout`, and gives it up. If its header
    /// lies outside, the map has room.
    pub(crate) unsafe fn insert(&mut self, layout: &SlabLayout, slab: SlabPtr) {
        // SAFETY: the caller owns the slab.
        let base = unsafe { slab.header() }.base().addr().get();
        if self.secret == 0 {
            self.secret = crate::secret::new(base);
            // Odd, so not zero.
            self.random = (self.secret as u64).rotate_left(17) | 1;
        }
        // SAFETY: as above; the slab has just been made, so it is in no list.
        unsafe {
            slab.sign(self.secret);
            self.lists.push(slab, WHOLLY_FREE);
        }
        if layout.header_offset().is_none() {
            self.map.insert(base, slab);
        }
        self.slabs += 1;
        self.free += layout.items() as u64;
    }

    /// Puts a slab whose items have changed into the list that fits it now. If it is away it stays so,
    /// and is only marked.
    ///
    /// # Safety
    ///
    /// The slab is in one of the lists.
    #[inline]
    unsafe fn sort(&mut self, layout: &SlabLayout, slab: SlabPtr) {
        // SAFETY: a slab in a list is owned by this value.
        let header = unsafe { slab.header() };
        let list = list_for(layout, header.free());
        // What is settled or away differs from any list.
        if usize::from(header.place.get()) == list {
            return;
        }
        if header.list() == AWAY {
            header.place.set(AWAY as u8);
            return;
        }
        // SAFETY: it is in a list, and then in none.
        unsafe {
            self.lists.remove(slab);
            self.lists.push(slab, list);
        }
    }

    /// Takes free items, but leaves the reserve unless `all` of them may go. Returns how many.
    pub(crate) fn take(
        &mut self,
        layout: &SlabLayout,
        into: &mut [MaybeUninit<Item>],
        all: bool,
    ) -> usize {
        let mine = if all { self.free } else { self.free.saturating_sub(self.reserve) };
        let wanted = usize::try_from(mine).map_or(into.len(), |mine| mine.min(into.len()));
        let mut got = 0;
        while got < wanted {
            let Some(slab) = self.lists.fullest() else {
                debug_assert!(false, "free items in no slab");
                break;
            };
            // SAFETY: the slab is in a list; its layout is that of the keg.
            got += unsafe {
                if layout.has_random_slots() {
                    slab.take_random(layout, &mut into[got..wanted], &mut self.random)
                } else {
                    slab.take(layout, &mut into[got..wanted])
                }
            };
            // SAFETY: as above.
            unsafe { self.sort(layout, slab) };
        }
        self.free -= got as u64;
        self.allocs += got as u64;
        got
    }

    /// Takes items back. Returns the first that is not one, if there is any; the others are back.
    ///
    /// # Safety
    ///
    /// For a layout with inside headers, the memory where the header of each item's slab would be is
    /// readable. It is if the items are the keg's.
    pub(crate) unsafe fn put(&mut self, layout: &SlabLayout, items: &[Item]) -> Option<Misuse> {
        let mut misuse = None;
        let mut before = None;
        for &item in items {
            // SAFETY: passed on to the caller.
            match unsafe { self.put_one(layout, item) } {
                Ok(slab) => {
                    // Sorting waits for the last of a row of items of one slab.
                    if let Some(before) = before.replace(slab)
                        && before != slab
                    {
                        // SAFETY: `put_one` found it, so it is in a list.
                        unsafe { self.sort(layout, before) };
                    }
                }
                Err(fault) => misuse = misuse.or(Some(Misuse { fault, item })),
            }
        }
        if let Some(slab) = before {
            // SAFETY: as above.
            unsafe { self.sort(layout, slab) };
        }
        misuse
    }

    /// Takes one item back, without sorting its slab.
    ///
    /// # Safety
    ///
    /// As [`put`](Self::put).
    #[inline]
    unsafe fn put_one(&mut self, layout: &SlabLayout, item: Item) -> Result<SlabPtr, Fault> {
        // SAFETY: passed on to the caller.
        let (slab, index) = unsafe { self.locate(layout, item) }?;
        // SAFETY: `locate` found a slab of this keg, which is in a list, and an item of it.
        if !unsafe { slab.put(index) } {
            return Err(Fault::DoubleFree);
        }
        // SAFETY: as above.
        if unsafe { slab.header() }.list() == AWAY {
            self.away += 1;
        } else {
            self.free += 1;
        }
        self.frees += 1;
        Ok(slab)
    }

    /// The slab of an item and its index there.
    ///
    /// # Safety
    ///
    /// As [`put`](Self::put).
    #[inline]
    unsafe fn locate(&self, layout: &SlabLayout, item: Item) -> Result<(SlabPtr, usize), Fault> {
        let base = layout.base_of(item.addr());
        if base & (layout.slab_align() - 1) != 0 || self.slabs == 0 {
            return Err(Fault::Foreign);
        }
        let slab = match layout.header_offset() {
            None => self.map.find(base).ok_or(Fault::Foreign)?,
            Some(offset) => {
                let at = NonZeroUsize::new(base.wrapping_add(offset)).ok_or(Fault::Foreign)?;
                // The item's pointer has the provenance of the whole run.
                let slab = SlabPtr::suspected(item.as_non_null().with_addr(at));
                // SAFETY: readable, says the caller; a slab of this keg is owned by this value.
                if !unsafe { slab.header() }.belongs(self.secret, base) {
                    return Err(Fault::Foreign);
                }
                slab
            }
        };
        match layout.index_of(item.addr() - base) {
            Some(index) => Ok((slab, index)),
            None => Err(Fault::Interior),
        }
    }

    /// Takes wholly free slabs out, as long as the reserve stays; returns them chained by `next`.
    pub(crate) fn detach_free(&mut self, layout: &SlabLayout) -> Option<SlabPtr> {
        let each = layout.items() as u64;
        let mut chain = None;
        while self.free >= self.reserve.saturating_add(each)
            && let Some(slab) = self.lists.first(WHOLLY_FREE)
        {
            // SAFETY: it is in a list, and then ours.
            let header = unsafe {
                self.lists.remove(slab);
                slab.unsign();
                slab.header()
            };
            if layout.header_offset().is_none() {
                self.map.remove(header.base().addr().get());
            }
            header.next.set(chain);
            chain = Some(slab);
            self.slabs -= 1;
            self.free -= each;
        }
        chain
    }

    /// Takes all slabs with items in use out, for a keg that ends; returns them chained by `next`.
    pub(crate) fn detach_live(&mut self) -> Option<SlabPtr> {
        let mut chain = None;
        // No call is under way, so none is away.
        for list in (0..BINS).chain([FULL]) {
            while let Some(slab) = self.lists.first(list) {
                // SAFETY: it is in a list, and then ours.
                unsafe {
                    self.lists.remove(slab);
                    slab.header().next.set(chain);
                }
                chain = Some(slab);
            }
        }
        chain
    }

    /// Items that are out, from address `from` on in the order of addresses, until `into` is full or
    /// a slab ends. Returns how many, and the address to go on from if there may be more.
    pub(crate) fn live_from(
        &self,
        layout: &SlabLayout,
        from: usize,
        into: &mut [MaybeUninit<Item>],
    ) -> (usize, Option<usize>) {
        let nearest = self
            .lists
            .iter(0..BINS)
            .chain(self.lists.iter(FULL..LISTS))
            // SAFETY: the slab is in a list.
            .map(|slab| (unsafe { slab.header() }.base().addr().get(), slab))
            .filter(|&(base, _)| from < base + layout.slab_size())
            .min_by_key(|&(base, _)| base);
        let Some((base, slab)) = nearest else {
            return (0, None);
        };
        let mut index = from.saturating_sub(base).div_ceil(layout.stride());
        let mut got = 0;
        while got < into.len() {
            // SAFETY: the slab is in a list, and has so many items.
            let Some(live) = (unsafe { slab.next_live(index, layout.items()) }) else {
                return (got, base.checked_add(layout.slab_size()));
            };
            // SAFETY: as above, and item `live` lies in the run.
            let item = unsafe { slab.header().base().add(live * layout.stride()) };
            into[got].write(Item::new(item));
            got += 1;
            index = live + 1;
        }
        (got, Some(base + index * layout.stride()))
    }

    /// Whether an item is one that is out. Looks at no memory but that of the keg's own headers.
    pub(crate) fn is_live(&self, layout: &SlabLayout, item: Item) -> bool {
        let base = layout.base_of(item.addr());
        let slab = if layout.header_offset().is_none() {
            self.map.find(base)
        } else {
            self.lists
                .iter(0..LISTS)
                // SAFETY: the slab is in a list.
                .find(|slab| unsafe { slab.header() }.base().addr().get() == base)
        };
        let Some(slab) = slab else {
            return false;
        };
        match layout.index_of(item.addr() - base) {
            // SAFETY: the slab is in a list, and has such an item.
            Some(index) => !unsafe { slab.is_free(index) },
            None => false,
        }
    }
}
