//! Gives back the free pages of partly used slabs.
//!
//! ```text
//!   page    0        1        2        3        4        5        6        7
//!        |        |        |        |        |        |        |        |        |
//!        |..|..|##|..|..|..|..|..|..|..|##|##|..|..|..|..|..|..|..|..|##|..|  HHHH|
//!                 |`--- given back --'|        |`--- given back --'|
//!
//!   ## in use    .. free    HHHH header
//! ```
//!
//! The supplier must not be called under the lock, and nobody may take an item from pages that it is
//! working on. So a slab is sent *away* for as long as it takes, one at a time:
//!
//! ```text
//!   lock:     a slab that is not settled goes away; its first free pages
//!   no lock:  decommit them
//!   lock:     its next free pages, or, if there are none, it comes back; another goes away
//!   ...
//! ```
//!
//! While a slab is away items of it can come back (only its bits and counts change, and it is no longer
//! settled), they can be looked up, and it can become wholly free. Nothing is taken from it: who finds
//! nothing else grows the keg.
//!
//! # Why it ends, and does not do the same again
//!
//! A slab that came back unchanged is settled, and goes to the end of its list; it stays so until an item is
//! taken or comes back. A walk stops at the first slab of each list that is settled, because all behind it
//! are. So it costs what has changed since the last one, and nothing for slabs that have not. One that
//! races with many changes looks at no more slabs than there were when it began.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

use uma_core::{Decommit, Item, Metadata, PageSupplier, RawMutex, Request};

use crate::keg::Keg;
use crate::layout::SlabLayout;
use crate::lists::AWAY;
use crate::slab::{BINS, SlabPtr};
use crate::state::{State, list_for};
use crate::sync::MutexGuard;

/// Slabs that are looked at before the lock is let go of, though they have no free pages.
const LOOKS: usize = 32;

/// How far a walk has come. Invariant: the slab is away, and for this walk.
struct Walk {
    slab: Option<SlabPtr>,
    /// The item of the slab to go on from.
    from: usize,
    /// How many more slabs to look at, at most.
    left: u64,
}

impl Walk {
    /// A walk that looks at no more than `slabs` slabs.
    const fn new(slabs: u64) -> Self {
        Self { slab: None, from: 0, left: slabs }
    }
}

/// A walk of one call, which brings back what it sent away also if the supplier panics, against its
/// contract.
struct Drain<'a, P: PageSupplier, L: RawMutex, M: Metadata> {
    keg: &'a Keg<P, L, M>,
    walk: Walk,
}

impl<P: PageSupplier, L: RawMutex, M: Metadata> Drop for Drain<'_, P, L, M> {
    fn drop(&mut self) {
        self.keg.state.lock().give_up(&self.keg.layout, &mut self.walk);
    }
}

impl<P: PageSupplier, L: RawMutex, M: Metadata> Keg<P, L, M> {
    /// Gives back the free pages of partly used slabs, if the supplier can take them.
    pub(crate) fn drain_pages(&self) {
        let Some(supplier) = self.pages.decommits() else { return };
        let page = self.pages.page_size();
        if !self.layout.has_spare_pages(page) {
            return;
        }
        let slabs = self.state.lock().slabs;
        let mut drain = Drain { keg: self, walk: Walk::new(slabs) };
        loop {
            let found = self.state.lock().next_pages(&self.layout, page, &mut drain.walk);
            match found {
                // SAFETY: whole pages inside the run of a slab that is away until the next round: they
                // hold free items only, which nobody takes meanwhile, and none of the header.
                Found::Pages(at, len) => unsafe { supplier.decommit(at, len) },
                Found::NoneYet => {}
                Found::End => return,
            }
        }
    }

    /// Takes the lock when no slab is away, for a copy of the process to be made: a slab that is away
    /// belongs to a thread that the copy will not have. Each drain that is under way gives up after the
    /// pages that it has in hand, so there is one call of the supplier to wait for, as
    /// [it says](uma_core::Decommit::relax).
    pub(crate) fn lock_with_none_away(&self) -> MutexGuard<'_, L, State<M>> {
        loop {
            let mut state = self.state.lock();
            // Again each time, because others who wanted the same may have taken it back.
            state.forking = true;
            if state.lists.first(AWAY).is_none() {
                return state;
            }
            drop(state);
            self.relax();
        }
    }

    /// Passes a moment, while another thread is in the supplier with a slab that is away.
    fn relax(&self) {
        self.pages.decommits().map_or_else(core::hint::spin_loop, Decommit::relax);
    }

    /// Takes items after all, when there are no pages for more: somebody may have given some back
    /// meanwhile, or all that are free are in slabs that are away for a moment.
    #[cold]
    pub(crate) fn take_what_came_back(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Option<usize> {
        loop {
            let mut state = self.state.lock();
            let got = state.take(&self.layout, into, request.may_use_reserve());
            if got != 0 {
                return Some(got);
            }
            if state.away == 0 || !request.may_wait() {
                return None;
            }
            drop(state);
            self.relax();
        }
    }
}

/// What a walk came upon.
enum Found {
    /// Whole pages without items in use, of a slab that is away: where, and how many bytes.
    Pages(NonNull<u8>, usize),
    /// None so far, but let others have the lock.
    NoneYet,
    /// There are no more.
    End,
}

impl<M: Metadata> State<M> {
    /// The next free pages of `page` bytes each. What was found before has been given back.
    fn next_pages(&mut self, layout: &SlabLayout, page: usize, walk: &mut Walk) -> Found {
        if self.forking {
            self.give_up(layout, walk);
            return Found::End;
        }
        for _ in 0..LOOKS {
            let Some(slab) = walk.slab.or_else(|| self.send_away(walk)) else {
                return Found::End;
            };
            // SAFETY: the slab is in the list of those that are away, and has this layout.
            match unsafe { free_pages(slab, layout, page, &mut walk.from) } {
                Some((at, len)) => return Found::Pages(at, len),
                None => self.bring_back(layout, walk),
            }
        }
        Found::NoneYet
    }

    /// Sends the next slab away that is not settled, if there is one.
    fn send_away(&mut self, walk: &mut Walk) -> Option<SlabPtr> {
        if self.reserve != 0 {
            return None;
        }
        let slab = (0..BINS)
            .filter_map(|list| self.lists.first(list))
            // SAFETY: the slab is in a list.
            .find(|slab| !unsafe { slab.header() }.is_settled())?;
        walk.left = walk.left.checked_sub(1)?;
        // SAFETY: the slab is in a list, and then in none. It counts as settled unless something changes
        // from here on.
        let free = unsafe {
            self.lists.remove(slab);
            self.lists.push_settled(slab, AWAY);
            slab.header().free() as u64
        };
        self.free -= free;
        self.away += free;
        walk.slab = Some(slab);
        walk.from = 0;
        Some(slab)
    }

    /// Brings the slab that is away for this walk back, if one is, though not all of its pages were seen.
    fn give_up(&mut self, layout: &SlabLayout, walk: &mut Walk) {
        if let Some(slab) = walk.slab {
            // SAFETY: it is away, which is a list. It is not settled.
            unsafe { slab.header() }.place.set(AWAY as u8);
            self.bring_back(layout, walk);
        }
    }

    /// Puts the slab that is away for this walk, if one is, back into the list that fits it now.
    fn bring_back(&mut self, layout: &SlabLayout, walk: &mut Walk) {
        let Some(slab) = walk.slab.take() else { return };
        // SAFETY: it is away, which is a list.
        let header = unsafe { slab.header() };
        debug_assert_eq!(header.list(), AWAY);
        let (free, settled) = (header.free(), header.is_settled());
        self.away -= free as u64;
        self.free += free as u64;
        let list = list_for(layout, free);
        // SAFETY: it is in a list, and then in none.
        unsafe {
            self.lists.remove(slab);
            if settled {
                self.lists.push_settled(slab, list);
            } else {
                self.lists.push(slab, list);
            }
        }
    }
}

/// The first whole pages of a slab, from item `from` on, that have nothing but free items in them;
/// `from` becomes the item to go on from.
///
/// # Safety
///
/// The caller owns the slab, which was built with this `layout`.
unsafe fn free_pages(
    slab: SlabPtr,
    layout: &SlabLayout,
    page: usize,
    from: &mut usize,
) -> Option<(NonNull<u8>, usize)> {
    let items = layout.items();
    loop {
        // SAFETY: passed on to the caller.
        let first = unsafe { slab.next_free(*from, items) }?;
        // SAFETY: as above.
        let end = unsafe { slab.next_live(first, items) }.unwrap_or(items);
        *from = end;
        // The base is the start of a page, see `SlabLayout::has_spare_pages`.
        let start = layout.offset_of(first).next_multiple_of(page);
        let end = layout.offset_of(end) & !(page - 1);
        if start < end {
            // SAFETY: as above; the offset lies in the run, before the header.
            return Some((unsafe { slab.header().base().add(start) }, end - start));
        }
    }
}
