//! A keg is an item source like any other.

use std::alloc::Layout;

use parking_lot::RawMutex;
use uma_keg::{Keg, SlabConfig};
use uma_testkit::{Budget, Fake, HeapMeta, conformance};

/// Runs the suite on kegs of many shapes.
fn conforms(config: SlabConfig) {
    for (size, align) in
        [(1, 1), (3, 1), (24, 8), (64, 64), (200, 8), (1000, 8), (4096, 4096), (70_000, 16)]
    {
        let pages = Budget::new(Fake::new(), 1 << 20);
        let metadata = HeapMeta::new();
        let item = Layout::from_size_align(size, align).unwrap();
        let keg = Keg::<_, RawMutex, _>::with_metadata(&pages, &metadata, item, config).unwrap();
        conformance::item_source(&keg);
        conformance::item_source_threads(&keg);
        assert_eq!(keg.live(), 0);
        drop(keg);
        assert_eq!((pages.used(), metadata.outstanding().runs), (0, 0));
    }
}

#[test]
fn with_headers_inside() {
    conforms(SlabConfig::new());
}

#[test]
fn with_headers_outside() {
    conforms(SlabConfig::new().outside_headers());
}

#[test]
fn in_small_slabs() {
    conforms(SlabConfig::new().largest_slab(4096));
}

#[cfg(feature = "hashbrown")]
#[test]
fn with_items_that_are_not_touched() {
    conforms(SlabConfig::new().outside_headers().no_touch());
}
