//! A keg with every check before it: each kind of misuse is found.

use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::NonNull;

use uma_backend_static::{StaticMemory, StaticPages};
use uma_core::{Item, ItemSource, Name, Reclaim, Request};
use uma_debug::{Checked, Checks, Fault, Hardening, Padded, Pads, Report, Subject, Verdict};
use uma_debug::{Watched, Witness};
use uma_keg::{Keg, MetaKegs, NoMetadata, SlabConfig, SlabLayout};

use crate::lock::SpinLock;

static MEMORY: StaticMemory<{ 1024 * 1024 }> = StaticMemory::new();
static PAGES: StaticPages<SpinLock> = StaticPages::new(&MEMORY);

const HARDENING: Hardening = Hardening::DEBUG;

const PADS: Pads = match Pads::new(Layout::new::<[u64; 6]>(), &HARDENING) {
    Some(pads) => pads,
    None => panic!("there is room for red zones"),
};

const SLAB: SlabLayout = match SlabLayout::new(PADS.outer(), SlabConfig::new()) {
    Ok(layout) => layout,
    Err(_) => panic!("no slab holds such items"),
};

/// Keeps what it is told last.
struct Ears(Cell<Option<Fault>>);

impl Witness for Ears {
    fn misuse(&self, report: &Report<'_>) -> Verdict {
        self.0.set(Some(report.fault()));
        Verdict::Ignore
    }
}

/// Does what must not be done. Returns how many kinds of misuse were found.
pub(crate) fn run() -> usize {
    let metadata = MetaKegs::<_, SpinLock>::with_slabs(&PAGES, 4096, 8 * 1024);
    let subject = Subject {
        zone: Name::new("checked"),
        pads: PADS,
        slab_align: 0,
        keeps_state: false,
        no_touch: false,
    };
    let ears = Ears(Cell::new(None));
    let Some(checks) = Checks::<SpinLock, _, _>::new(subject, HARDENING, &metadata, &ears) else {
        panic!("there is memory for checks");
    };
    let keg = Keg::<_, SpinLock>::with_layout(&PAGES, NoMetadata, SLAB);
    // SAFETY: the keg's items have the pads' outer layout, the checks are theirs and outlive the zone, and
    // between the two nothing changes a free item.
    let zone = unsafe {
        let watched = Watched::new(Padded::new(keg, PADS), Some(NonNull::from(&checks)));
        Checked::new(watched, &checks)
    };
    let alloc = || match zone.alloc(Request::NOWAIT) {
        Ok(item) => item,
        Err(error) => panic!("an allocation failed: {error}"),
    };
    let byte = |item: Item, offset: isize| item.as_ptr().wrapping_offset(offset);
    let mut found = 0;
    let mut heard = |expected: fn(Fault) -> bool| {
        let fault = ears.0.take();
        assert!(fault.is_some_and(expected), "{fault:?} after {found} others");
        found += 1;
    };

    // SAFETY: what is written lies in the slab, in red zones or an item that is free, where nobody reads but
    // the checks, which refuse the second free and the one in the middle.
    unsafe {
        let item = alloc();
        byte(item, 48).write(1);
        zone.free(item);
        heard(|fault| matches!(fault, Fault::Overflow(0, 1)));

        let item = alloc();
        byte(item, -1).write(2);
        zone.free(item);
        heard(|fault| matches!(fault, Fault::Underflow(1, 2)));

        let item = alloc();
        let inside = Item::new(item.as_non_null().add(8));
        zone.free(inside);
        heard(|fault| fault == Fault::Interior(8));
        zone.free(item);
        zone.free(item);
        heard(|fault| fault == Fault::DoubleFree);

        // It is looked at when it leaves quarantine.
        byte(item, 40).write(3);
        zone.reclaim(Reclaim::DrainCpu);
        heard(|fault| matches!(fault, Fault::WriteAfterFree(40, 3)));
    }
    assert_eq!(ears.0.take(), None);
    assert_eq!(zone.source().source().source().live(), 0, "the keg counts items that came back");
    found
}
