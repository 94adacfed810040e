//! The checks themselves: the four moments in the life of an item at which something is looked at.
//!
//! ```text
//!            caches                      hooks                 user
//!   alloc:   ---- wake ----------------> ctor --- hand_out --> in use
//!   free:    <--- rest --- quarantine -- dtor <-- take_back -- in use
//!              |
//!   drain:     `- leave --> fini, slab
//! ```
//!
//! - [`take_back`](Checks::take_back) finds frees of what is no item in use, before any hook runs on it, and
//!   writes into red zones.
//! - [`rest`](Checks::rest) fills the item, or sums it up, and puts it into quarantine.
//! - [`wake`](Checks::wake) and [`leave`](Checks::leave) find writes to the item since then.
//! - [`hand_out`](Checks::hand_out) makes red zones and marks the item as in use.
//!
//! What is known of an item lies in a table beside the items; who may change it is who owns the item, but
//! for the live mark, which frees race for: the exchange that takes it decides which one is the free and
//! which ones are double frees.
//!
//! Lock order: those of the quarantine are leaves. Nothing is reported under a lock.

use lock_api::RawMutex;
use uma_core::{AllocError, Item, Metadata, Name, Stats};

use crate::pads::Pads;
use crate::pattern::{self, FREE, FRESH, RED};
use crate::poison;
use crate::quarantine::Quarantine;
use crate::report::{Fault, Report, Verdict, show};
use crate::sync::{AtomicU64, Ordering};
use crate::table::{LIVE, Near, Place, RESTING, Table};
use crate::tier::{Fill, Hardening};
use crate::witness::{Trace, Witness};

/// What checks need to know of a zone.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The zone's name, for reports.
    pub zone: Name,
    /// How its items lie in those from below.
    pub pads: Pads,
    /// The alignment of its slabs, for reports, or 0.
    pub slab_align: usize,
    /// Whether free items keep a state that was constructed: then they are not filled.
    pub keeps_state: bool,
    /// Whether items may not be touched at all.
    pub no_touch: bool,
}

/// The checks of one zone. See the module's source for what happens when.
pub struct Checks<L: RawMutex, M: Metadata, W: Witness> {
    subject: Subject,
    hardening: Hardening,
    /// What the tier's fill comes to for this zone.
    fill: Fill,
    sums: bool,
    table: Table,
    quarantine: Quarantine<L>,
    trashed: AtomicU64,
    skipped: AtomicU64,
    /// Items that could not be noted, and went back.
    unnoted: AtomicU64,
    meta: M,
    witness: W,
}

// SAFETY: the table's pointers lead to chunks that it owns and that are changed by atomic operations only;
// the quarantine's are behind locks.
unsafe impl<L: RawMutex + Send, M: Metadata + Send, W: Witness + Send> Send for Checks<L, M, W> {}
// SAFETY: as above.
unsafe impl<L: RawMutex + Sync, M: Metadata + Sync, W: Witness + Sync> Sync for Checks<L, M, W> {}

impl<L: RawMutex, M: Metadata, W: Witness> Checks<L, M, W> {
    /// Checks for a zone, or `None` if there is no memory for them.
    pub fn new(subject: Subject, hardening: Hardening, meta: M, witness: W) -> Option<Self> {
        let quarantine = Quarantine::new(hardening.quarantine, &meta)?;
        let plain = !subject.keeps_state && !subject.no_touch && !hardening.poison;
        Some(Self {
            fill: if plain { hardening.fill } else { Fill::Nothing },
            sums: hardening.sums && subject.keeps_state && !subject.no_touch && !hardening.poison,
            table: Table::new(subject.pads.outer().size(), hardening.owners),
            quarantine,
            trashed: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            unnoted: AtomicU64::new(0),
            subject,
            hardening,
            meta,
            witness,
        })
    }

    /// What is checked.
    pub const fn hardening(&self) -> &Hardening {
        &self.hardening
    }

    /// How items lie in those from below.
    pub const fn pads(&self) -> &Pads {
        &self.subject.pads
    }

    /// Who is told.
    pub const fn witness(&self) -> &W {
        &self.witness
    }

    const fn size(&self) -> usize {
        self.subject.pads.item().size()
    }

    /// Whether red zones are ours to fill and look at.
    const fn has_red_zones(&self) -> bool {
        self.hardening.red_zones && !self.hardening.poison && !self.subject.no_touch
    }

    /// Whether this item is one of those that are looked after (see [`Hardening::divisor`]).
    fn is_chosen(&self, item: Item) -> bool {
        let divisor = self.hardening.divisor as usize;
        let size = self.subject.pads.outer().size().max(1);
        divisor <= 1 || (item.addr() / size).is_multiple_of(divisor)
    }

    /// Looks at an item that comes up from the caches, and makes it ready for ctor.
    ///
    /// # Errors
    ///
    /// [`AllocError::Metadata`] if there is no memory to note the item. It is as it was then, and is to go
    /// back to the source, which has counted it (see [`account`](Self::account)).
    ///
    /// # Safety
    ///
    /// The caller owns the item, which came from the source that these checks are for.
    pub unsafe fn wake(&self, item: Item) -> Result<(), AllocError> {
        if !self.hardening.live {
            return Ok(());
        }
        let Some(place) = self.table.get_or_make(item.addr(), &self.meta) else {
            self.unnoted.fetch_add(1, Ordering::Relaxed);
            return Err(AllocError::Metadata);
        };
        let rested = place.marks().is_some_and(|marks| marks & RESTING != 0);
        place.word.store(place.marked(0), Ordering::Release);
        self.expose(item);
        if rested {
            // SAFETY: passed on from the caller; the item was laid to rest.
            unsafe { self.look(item, &place) };
        }
        if self.fill == Fill::Pattern && self.is_chosen(item) {
            // SAFETY: the item is the caller's, and its contents are nobody's.
            unsafe { pattern::fill(item.as_ptr(), self.size(), FRESH) };
        }
        Ok(())
    }

    /// Marks an item as in use, after ctor.
    ///
    /// # Safety
    ///
    /// As [`wake`](Self::wake), which was called before.
    pub unsafe fn hand_out(&self, item: Item) {
        if !self.hardening.live {
            return;
        }
        let Some(place) = self.table.get(item.addr()) else { return };
        if self.is_chosen(item) {
            if self.has_red_zones() {
                let pads = &self.subject.pads;
                let (front, size, tail) = (pads.front(), self.size(), pads.tail());
                // SAFETY: the outer item is the caller's, with so much before and behind the inner one.
                unsafe {
                    pattern::fill(item.as_ptr().sub(front), front, RED);
                    pattern::fill(item.as_ptr().add(size), tail, RED);
                }
            }
            if let Some(record) = place.record {
                record.allocated.set(&Trace::here(&self.witness));
            }
        }
        // Release: whoever frees the item, or lists it, finds the rest.
        place.word.store(place.marked(LIVE), Ordering::Release);
    }

    /// Takes an item back from its user, before dtor. `false` means that it is none that could be taken
    /// back, which was reported: then nothing happened. Nor has it if a report unwinds: the item is in use as
    /// before.
    ///
    /// # Safety
    ///
    /// If `item` is an item of this zone in use, the caller gives it up.
    pub unsafe fn take_back(&self, item: Item) -> bool {
        if !self.hardening.live {
            return true;
        }
        let Some(place) = self.table.get(item.addr()) else {
            self.refuse(item);
            return false;
        };
        // One of several frees takes the mark.
        let (live, free) = (place.marked(LIVE), place.marked(0));
        if place.word.compare_exchange(live, free, Ordering::AcqRel, Ordering::Acquire).is_err() {
            self.refuse(item);
            return false;
        }
        let again = Again(&place);
        if self.is_chosen(item) {
            if self.has_red_zones() {
                // SAFETY: the caller gave the item up, and `hand_out` filled what is around it.
                unsafe { self.look_around(item, &place) };
            }
            if let Some(record) = place.record {
                record.freed.set(&Trace::here(&self.witness));
            }
        }
        core::mem::forget(again);
        true
    }

    /// Lays an item to rest after dtor, and returns one that is to go to the caches in its place, if any.
    ///
    /// # Safety
    ///
    /// The caller owns the item, which `take_back` accepted. It gives it up, and owns what is returned.
    pub unsafe fn rest(&self, item: Item) -> Option<Item> {
        if !self.hardening.live {
            return Some(item);
        }
        if let Some(place) = self.table.get(item.addr()) {
            // SAFETY: passed on from the caller.
            unsafe { self.lay(item, &place) };
        }
        self.quarantine.push(item)
    }

    unsafe fn lay(&self, item: Item, place: &Place<'_>) {
        let (at, size) = (item.as_ptr(), self.size());
        if !self.is_chosen(item) {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match self.fill {
            // SAFETY: the item is the caller's, and its contents are nobody's.
            Fill::Zeros => unsafe { at.write_bytes(0, size) },
            // SAFETY: as above.
            Fill::Pattern => unsafe { pattern::fill(at, size, FREE) },
            Fill::Nothing => match place.record {
                Some(record) if self.sums => {
                    // SAFETY: the item is the caller's.
                    record.sum.store(unsafe { pattern::sum(at, size) }, Ordering::Relaxed);
                }
                _ if self.hardening.poison => poison::poison(at, size),
                _ => return,
            },
        }
        self.trashed.fetch_add(1, Ordering::Relaxed);
        place.word.store(place.marked(RESTING), Ordering::Release);
    }

    /// Looks at an item that leaves the caches for the layers below, which may do with it what they like.
    ///
    /// # Safety
    ///
    /// The caller owns the item, which came from the source that these checks are for.
    pub unsafe fn leave(&self, item: Item) {
        // SAFETY: passed on from the caller.
        if let Some(place) = unsafe { self.forget(item) } {
            // SAFETY: passed on from the caller; the item was laid to rest.
            unsafe { self.look(item, &place) };
        }
    }

    /// The same without the look. Returns the place of an item that was laid to rest.
    ///
    /// # Safety
    ///
    /// As [`leave`](Self::leave).
    pub(crate) unsafe fn forget(&self, item: Item) -> Option<Place<'_>> {
        if !self.hardening.live {
            return None;
        }
        let place = self.table.get(item.addr())?;
        let rested = place.marks().is_some_and(|marks| marks & RESTING != 0);
        if self.hardening.poison {
            let pads = &self.subject.pads;
            poison::unpoison(item.as_ptr().wrapping_sub(pads.front()), pads.outer().size());
        }
        if !rested {
            return None;
        }
        place.word.store(place.marked(0), Ordering::Release);
        Some(place)
    }

    /// Lets the sanitizer know that the item may be used, and that what is around it may not.
    fn expose(&self, item: Item) {
        if !self.hardening.poison {
            return;
        }
        let pads = &self.subject.pads;
        poison::unpoison(item.as_ptr(), self.size());
        poison::poison(item.as_ptr().wrapping_sub(pads.front()), pads.front());
        poison::poison(item.as_ptr().wrapping_add(self.size()), pads.tail());
    }

    /// Looks whether an item is as it was laid to rest.
    ///
    /// # Safety
    ///
    /// The caller owns the item, which was laid to rest.
    unsafe fn look(&self, item: Item, place: &Place<'_>) {
        let (at, size) = (item.as_ptr(), self.size());
        let bad = match self.fill {
            // SAFETY: passed on from the caller.
            Fill::Zeros => unsafe { pattern::differs(at, size, 0) },
            // SAFETY: as above.
            Fill::Pattern => unsafe { pattern::differs(at, size, FREE) },
            Fill::Nothing => {
                if let Some(record) = place.record
                    && self.sums
                    // SAFETY: as above.
                    && unsafe { pattern::sum(at, size) } != record.sum.load(Ordering::Relaxed)
                {
                    self.report(Fault::Changed, item.addr(), Some(item.addr()));
                }
                None
            }
        };
        if let Some(bad) = bad {
            let fault = Fault::WriteAfterFree(bad.offset, bad.found);
            self.report(fault, item.addr(), Some(item.addr()));
        }
        if self.has_red_zones() {
            // SAFETY: as above; `hand_out` filled what is around it before it was laid to rest.
            unsafe { self.look_around(item, place) };
        }
    }

    /// Looks at the red zones of an item.
    ///
    /// # Safety
    ///
    /// The caller owns the item, and `hand_out` was called for it.
    unsafe fn look_around(&self, item: Item, _: &Place<'_>) {
        let pads = &self.subject.pads;
        let (front, size, tail) = (pads.front(), self.size(), pads.tail());
        // SAFETY: the outer item is the caller's, with so much before and behind the inner one.
        let (before, behind) = unsafe {
            (
                pattern::differs(item.as_ptr().sub(front), front, RED),
                pattern::differs(item.as_ptr().add(size), tail, RED),
            )
        };
        if let Some(bad) = before {
            let fault = Fault::Underflow(front - bad.offset, bad.found);
            self.report(fault, item.addr(), Some(item.addr()));
        }
        if let Some(bad) = behind {
            self.report(Fault::Overflow(bad.offset, bad.found), item.addr(), Some(item.addr()));
        }
        if before.is_some() || behind.is_some() {
            // Once is enough.
            // SAFETY: as above.
            unsafe {
                pattern::fill(item.as_ptr().sub(front), front, RED);
                pattern::fill(item.as_ptr().add(size), tail, RED);
            }
        }
    }

    /// Reports a free of what is no item in use.
    #[cold]
    #[inline(never)]
    fn refuse(&self, item: Item) {
        let address = item.addr();
        let near = self.table.around(address);
        let fault = match near {
            Some(Near { item, live: true }) if item != address => Fault::Interior(address - item),
            _ => match (self.witness.owner(address), near) {
                (Some(owner), _) => Fault::WrongZone(owner),
                (None, Some(near)) if near.item == address => Fault::DoubleFree,
                (None, Some(near)) => Fault::Interior(address - near.item),
                (None, None) => Fault::NoItem,
            },
        };
        let item = match fault {
            Fault::WrongZone(_) => None,
            _ => near.map(|near| near.item),
        };
        self.report(fault, address, item);
    }

    /// Reports a fault, with what the table knows of the item.
    #[cold]
    #[inline(never)]
    fn report(&self, fault: Fault, address: usize, item: Option<usize>) {
        let record = item.and_then(|item| self.table.get(item)).and_then(|place| place.record);
        let (allocated, freed) = match record {
            Some(record) => (record.allocated.get(), record.freed.get()),
            None => (Trace::NONE, Trace::NONE),
        };
        self.report_of(fault, address, item, allocated, freed);
    }

    /// Tells the witness of a fault, and ends the process if that says so.
    #[cold]
    #[inline(never)]
    pub fn report_of(
        &self,
        fault: Fault,
        address: usize,
        item: Option<usize>,
        allocated: Trace,
        freed: Trace,
    ) {
        let report = Report {
            zone: self.subject.zone,
            fault,
            address,
            item,
            size: self.size(),
            slab_align: self.subject.slab_align,
            here: Trace::here(&self.witness),
            allocated,
            freed,
            witness: &self.witness,
        };
        match self.witness.misuse(&report) {
            Verdict::Ignore => {}
            Verdict::Abort => abort(),
        }
    }

    /// Who is calling, and from where; nothing if owners are not noted.
    pub fn here(&self) -> Trace {
        Trace::here(&self.witness)
    }

    /// Gives `free` all items that are in quarantine.
    pub fn flush(&self, free: &mut dyn FnMut(Item)) {
        self.quarantine.drain(free);
    }

    /// Items in quarantine.
    pub fn quarantined(&self) -> usize {
        self.quarantine.held()
    }

    /// Makes the figures of the source, which counts what passes between it and the checks, those of the
    /// users above: what is in quarantine is free, and an item that could not be noted was never out.
    pub fn account(&self, stats: &mut Stats) {
        let held = self.quarantined() as u64;
        stats.frees += held;
        stats.cached += held;
        let unnoted = self.unnoted.load(Ordering::Relaxed);
        stats.allocs = stats.allocs.saturating_sub(unnoted);
        stats.frees = stats.frees.saturating_sub(unnoted);
    }

    /// Items that were filled, summed up or poisoned when they were freed, and those that were not because
    /// of the [divisor](Hardening::divisor) (`vm.debug.trashed`, `vm.debug.skipped`).
    pub fn trashed_and_skipped(&self) -> (u64, u64) {
        (self.trashed.load(Ordering::Relaxed), self.skipped.load(Ordering::Relaxed))
    }

    /// Whether an address lies in an item that is in use.
    pub fn holds(&self, address: usize) -> bool {
        self.table
            .around(address)
            .is_some_and(|near| near.live && address - near.item < self.size())
    }

    /// Calls `visit` with the address of every item in use, and with who allocated it, if that is noted.
    /// Items that come and go meanwhile may be missed.
    pub fn for_each_live(&self, visit: &mut dyn FnMut(usize, Option<Trace>)) {
        self.table.for_each_live(&mut |item, traces| {
            visit(item, traces.map(|(allocated, _)| allocated).filter(Trace::is_known));
        });
    }

    /// Something to print that says who did something.
    pub fn show(&self, what: &'static str, trace: Trace) -> impl core::fmt::Display {
        struct Shown<'a, W: Witness>(&'a W, &'static str, Trace);

        impl<W: Witness> core::fmt::Display for Shown<'_, W> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                show(f, self.1, &self.2, self.0)
            }
        }

        Shown(&self.witness, what, trace)
    }

    /// Takes the locks of the quarantine, and keeps them. See
    /// [`ItemSource::prefork`](uma_core::ItemSource::prefork).
    pub fn prefork(&self) {
        self.quarantine.lock_all();
    }

    /// Lets go of what [`prefork`](Self::prefork) took.
    ///
    /// # Safety
    ///
    /// As [`ItemSource::postfork`](uma_core::ItemSource::postfork).
    pub unsafe fn postfork(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.quarantine.unlock_all() };
    }
}

impl<L: RawMutex, M: Metadata, W: Witness> Drop for Checks<L, M, W> {
    fn drop(&mut self) {
        self.quarantine.free(self.hardening.quarantine, &self.meta);
        self.table.free(&self.meta);
    }
}

impl<L: RawMutex, M: Metadata, W: Witness> core::fmt::Debug for Checks<L, M, W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Checks")
            .field("zone", &self.subject.zone)
            .field("hardening", &self.hardening)
            .finish_non_exhaustive()
    }
}

/// Has an item in use again whose free unwinds.
struct Again<'a>(&'a Place<'a>);

impl Drop for Again<'_> {
    fn drop(&mut self) {
        self.0.word.store(self.0.marked(LIVE), Ordering::Release);
    }
}

/// Ends the process, without `std`: a panic cannot leave a function of the C ABI.
extern "C" fn abort() -> ! {
    panic!("misuse of a zone, as reported")
}
