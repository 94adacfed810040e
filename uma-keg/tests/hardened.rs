//! What hardened zones ask of their slabs: slots in no order, headers outside, guard pages.

use std::alloc::Layout;
use std::collections::BTreeSet;
use std::mem::MaybeUninit;

use parking_lot::RawMutex;
use uma_core::{Item, ItemSource, Reclaim, Request};
use uma_keg::{HeaderPlace, Keg, SlabConfig, SlabLayout};
use uma_testkit::{Fake, HeapMeta, conformance};

fn item(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

fn take<P: uma_core::PageSupplier>(keg: &Keg<P, RawMutex>, count: usize) -> Vec<Item> {
    let mut into = vec![MaybeUninit::uninit(); count];
    let mut got = 0;
    while got < count {
        got += keg.import(&mut into[got..], Request::NOWAIT).unwrap();
    }
    // SAFETY: all were initialised by the imports.
    unsafe { into.assume_init_ref() }.to_vec()
}

#[test]
fn slots_come_in_no_order_and_each_once() {
    let pages = Fake::new();
    let keg = Keg::new(&pages, item(64), SlabConfig::new().random_slots(true)).unwrap();
    let slab = keg.slab_layout().items();
    let first = take(&keg, slab);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), slab);
    let ascending = first.windows(2).filter(|pair| pair[1] > pair[0]).count();
    assert!((slab / 3..slab * 2 / 3).contains(&ascending), "{ascending} of {slab} in order");
    // SAFETY: taken above, given back once.
    unsafe { keg.release(&first) };
    assert_ne!(take(&keg, slab), first, "another order the next time");
    for &item in &first {
        // SAFETY: as above.
        unsafe { keg.free(item) };
    }
    conformance::item_source(&keg);
    conformance::item_source_threads(&keg);
    assert_eq!(keg.live(), 0);
}

#[test]
fn a_guard_page_behind_every_slab() {
    let pages = Fake::new();
    let config = SlabConfig::new().guard_pages(true);
    let keg: Keg<_, RawMutex> = Keg::new(&pages, item(64), config).unwrap();
    let slab = keg.slab_layout().items();
    let items = take(&keg, slab * 5);
    assert_eq!((pages.protected(), pages.outstanding().runs), (5, 5));
    // SAFETY: taken above, given back once.
    unsafe { keg.release(&items) };
    keg.reclaim(Reclaim::DrainCpu);
    assert_eq!((pages.protected(), pages.outstanding().runs), (0, 0));
    // Where the system refuses, there is none, and nothing else is different.
    pages.protections().fail_from(0);
    let items = take(&keg, slab * 2);
    // SAFETY: as above.
    unsafe { keg.release(&items) };
    pages.protections().never();
    keg.reclaim(Reclaim::DrainCpu);
    assert_eq!((pages.protected(), pages.outstanding().runs), (0, 0));
}

#[cfg(feature = "hashbrown")]
#[test]
fn headers_stay_outside() {
    for size in [8, 24, 64, 200, 1000, 4096, 100_000] {
        let config = SlabConfig::new().headers_kept_outside(true);
        let layout = SlabLayout::new(item(size), config).unwrap();
        assert_eq!(layout.header_place(), HeaderPlace::Outside, "{size}");
    }
    let (pages, meta) = (Fake::new(), HeapMeta::new());
    let config = SlabConfig::new().headers_kept_outside(true).guard_pages(true).random_slots(true);
    let keg: Keg<_, RawMutex, _> = Keg::with_metadata(&pages, &meta, item(48), config).unwrap();
    conformance::item_source(&keg);
    conformance::item_source_threads(&keg);
    drop(keg);
    assert_eq!((pages.protected(), pages.outstanding().runs, meta.outstanding().runs), (0, 0, 0));
}

#[cfg(not(feature = "hashbrown"))]
#[test]
fn headers_outside_need_a_table() {
    let config = SlabConfig::new().headers_kept_outside(true);
    let fault = SlabLayout::new(item(64), config).unwrap_err();
    assert_eq!(fault, uma_core::ConfigFault::NeedsFeature("hashbrown"));
    let _ = (HeaderPlace::Outside, HeapMeta::new());
}
