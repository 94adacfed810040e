//! The page supplier suite on every supplier there is.

use std::alloc::Layout;

use uma_backend_mmap::{Config, MmapPages};
use uma_backend_static::{StaticMemory, StaticPages};
use uma_core::{PageSupplier, Request};
use uma_testkit::conformance::{
    decommit, page_supplier, page_supplier_exhaustion, page_supplier_threads, protect, regions,
};
use uma_testkit::{Budget, FailNth, Fake, Outstanding};

const MIB: usize = 1 << 20;

#[test]
fn fake() {
    let pages = Fake::new();
    page_supplier(&pages);
    page_supplier_threads(&pages);
    assert_eq!(pages.outstanding(), Outstanding::default());
    page_supplier(&Fake::with_page_size(65536));
    page_supplier(&Fake::with_page_size(64));
}

#[test]
fn fail_nth_that_never_fails() {
    let pages = FailNth::new(Fake::new());
    page_supplier(&pages);
    page_supplier_threads(&pages);
    assert!(pages.calls() > 0 && pages.failed() == 0);
}

#[test]
fn budget() {
    let pages = Budget::new(Fake::new(), 3 * MIB);
    page_supplier(&pages);
    page_supplier_threads(&pages);
    page_supplier_exhaustion(&pages);
    assert_eq!(pages.used(), 0);
    assert_eq!(pages.inner().outstanding(), Outstanding::default());
}

#[test]
fn mmap() {
    static PAGES: MmapPages = MmapPages::new();
    page_supplier(&PAGES);
    page_supplier_threads(&PAGES);
    PAGES.trim();
    page_supplier(&PAGES);
    assert_eq!((PAGES.stats().in_use, PAGES.stats().refused), (0, 0));
}

/// Small chunks and next to no dirty memory, so that the rare paths run often.
#[test]
fn mmap_shrunk() {
    for dirty in [0, 64 << 10, 64 * MIB] {
        let config = Config::DEFAULT.chunks(MIB, 2 * MIB).dirty_max(dirty);
        let pages = MmapPages::with_config(config);
        page_supplier(&pages);
        page_supplier_threads(&pages);
        let stats = pages.stats();
        assert_eq!((stats.in_use, stats.refused), (0, 0));
        assert!(stats.dirty <= dirty && stats.chunks > 1, "{stats:?}");
    }
}

#[test]
fn mmap_with_an_end() {
    let config = Config::DEFAULT.chunks(8 * MIB, 8 * MIB).dirty_max(MIB);
    let pages = Budget::new(MmapPages::with_config(config), 4 * MIB);
    page_supplier(&pages);
    page_supplier_exhaustion(&pages);
    assert_eq!(pages.inner().stats().in_use, 0);
}

#[test]
fn static_array() {
    static MEMORY: StaticMemory<{ 8 * MIB }> = StaticMemory::new();
    static PAGES: StaticPages<spin::Mutex<()>> = StaticPages::new(&MEMORY);
    page_supplier(&PAGES);
    page_supplier_threads(&PAGES);
    page_supplier_exhaustion(&PAGES);
    let stats = PAGES.stats();
    assert_eq!((stats.free, stats.largest), (stats.total, stats.total));
}

#[test]
fn small_static_arrays() {
    static ONE: StaticMemory<{ 2 * 4096 }> = StaticMemory::new();
    static ONE_PAGE: StaticPages<spin::Mutex<()>> = StaticPages::new(&ONE);
    page_supplier_exhaustion(&ONE_PAGE);
    assert_eq!(ONE_PAGE.stats().total, 1);

    static FEW: StaticMemory<{ 70 * 4096 }> = StaticMemory::new();
    static FEW_PAGES: StaticPages<spin::Mutex<()>> = StaticPages::new(&FEW);
    page_supplier(&FEW_PAGES);
    page_supplier_threads(&FEW_PAGES);
    page_supplier_exhaustion(&FEW_PAGES);

    static SMALL: StaticMemory<{ 1 << 16 }> = StaticMemory::new();
    static SMALL_PAGES: StaticPages<spin::Mutex<()>, 256> = StaticPages::new(&SMALL);
    page_supplier(&SMALL_PAGES);
    page_supplier_exhaustion(&SMALL_PAGES);
}

#[test]
fn raw_region() {
    let run = {
        let layout = Layout::from_size_align(4 * MIB, 4096).unwrap();
        MmapPages::new().alloc_pages(layout, Request::NOWAIT).unwrap()
    };
    // SAFETY: the run is ours and stays mapped; the ragged region lies inside of it.
    let pages: StaticPages<spin::Mutex<()>> =
        unsafe { StaticPages::from_raw(run.base().add(1000), 4 * MIB - 3000) };
    page_supplier(&pages);
    page_supplier_threads(&pages);
    page_supplier_exhaustion(&pages);
}

#[test]
fn parts_of_runs() {
    decommit(&Fake::new());
    decommit(&Budget::new(FailNth::new(Fake::with_page_size(64)), MIB));
    if cfg!(target_os = "linux") {
        static PAGES: MmapPages = MmapPages::new();
        decommit(&PAGES);
        assert_eq!((PAGES.stats().advises, PAGES.stats().refused), (3, 0));
    }
}

#[test]
fn guard_pages() {
    let pages = Fake::new();
    protect(&pages);
    assert_eq!(pages.protected(), 0);
    protect(&Budget::new(FailNth::new(Fake::with_page_size(64)), MIB));
    let pages = MmapPages::new();
    protect(&pages);
    assert_eq!(pages.stats().protects_refused, 0);
}

#[test]
fn regions_of_runs() {
    regions(&Fake::new());
    regions(&Budget::new(FailNth::new(Fake::with_page_size(64)), MIB));
    regions(&MmapPages::new());
    regions(&MmapPages::with_config(Config::DEFAULT.chunks(MIB, MIB)));
    static MEMORY: StaticMemory<{ MIB }> = StaticMemory::new();
    static PAGES: StaticPages<spin::Mutex<()>> = StaticPages::new(&MEMORY);
    regions(&PAGES);
}
