//! Bookkeeping memory from kegs.

mod common;

use std::alloc::Layout;
use std::ptr::NonNull;

use common::{Heap, Lock, Random, is_stamped, layout, stamp};
use uma_core::Metadata;
use uma_keg::MetaKegs;

static PAGES: Heap = Heap::new();
static META: MetaKegs<&Heap, Lock> = MetaKegs::new(&PAGES);

fn put(meta: &impl Metadata, at: NonNull<u8>, layout: Layout) {
    // SAFETY: the tests give back what they got, with its layout, once.
    unsafe { meta.free_meta(at, layout) }
}

#[test]
fn in_a_static() {
    let at = META.alloc_meta(layout(100, 8)).unwrap();
    assert!(META.bytes() >= 4096);
    put(&META, at, layout(100, 8));
    META.reclaim();
    assert_eq!((META.bytes(), PAGES.outstanding()), (0, 0));
}

#[test]
fn any_layout() {
    let pages = Heap::new();
    let meta = MetaKegs::<_, Lock>::new(&pages);
    let mut random = Random(99);
    let mut held: Vec<(NonNull<u8>, Layout, u64)> = Vec::new();
    for round in 0..20_000 {
        if random.below(5) < 3 && held.len() < 500 {
            let power = 1 + random.below(15);
            let size = random.below(1 << power);
            let layout = layout(size, 1 << random.below(if size > 4096 { 15 } else { 13 }));
            let at = meta.alloc_meta(layout).unwrap();
            assert!(at.addr().get().is_multiple_of(layout.align()));
            stamp(at.into(), size, round);
            held.push((at, layout, round));
        } else if !held.is_empty() {
            let (at, layout, seed) = held.swap_remove(random.below(held.len()));
            assert!(is_stamped(at.into(), layout.size(), seed));
            put(&meta, at, layout);
        }
        if round % 500 == 0 {
            meta.reclaim();
        }
        assert_eq!(meta.bytes(), pages.bytes() as u64);
    }
    for (at, layout, seed) in held {
        assert!(is_stamped(at.into(), layout.size(), seed));
        put(&meta, at, layout);
    }
    meta.reclaim();
    assert_eq!((meta.bytes(), pages.outstanding()), (0, 0));
}

#[test]
fn classes_hold_what_they_say() {
    let pages = Heap::new();
    let meta = MetaKegs::<_, Lock>::new(&pages);
    // From one class, next to one another.
    let (a, b) = (meta.alloc_meta(layout(17, 1)).unwrap(), meta.alloc_meta(layout(32, 8)).unwrap());
    assert_eq!(b.addr().get() - a.addr().get(), 32);
    put(&meta, a, layout(17, 1));
    put(&meta, b, layout(32, 8));
    for (size, runs) in [(4096, 1), (4097, 2), (1 << 20, 2)] {
        let at = meta.alloc_meta(layout(size, 1)).unwrap();
        assert_eq!(pages.outstanding(), 1 + runs, "{size}");
        // To the last byte, which must not be where the supplier's flag is kept.
        stamp(at.into(), size, 77);
        put(&meta, at, layout(size, 1));
    }
    // A piece of zero bytes has an address too.
    let (a, b) = (meta.alloc_meta(layout(0, 1)).unwrap(), meta.alloc_meta(layout(0, 1)).unwrap());
    assert_ne!(a, b);
    put(&meta, a, layout(0, 1));
    put(&meta, b, layout(0, 1));
}

#[test]
fn without_pages_there_is_none() {
    let pages = Heap::new();
    let meta = MetaKegs::<_, Lock>::new(&pages);
    pages.fail_all();
    for size in [1, 4096, 4097, isize::MAX as usize] {
        assert_eq!(meta.alloc_meta(layout(size, 1)), None);
    }
    pages.fail_no_more();
    assert_eq!(meta.alloc_meta(layout(isize::MAX as usize, 1)), None, "and no overflow");
    assert_eq!(meta.bytes(), 0);
}

#[test]
fn other_page_sizes() {
    let same = [512, 4096, 16384, 65536].map(|page| (page, page));
    // Made for the largest that a kind of system has.
    for (page, made_for) in same.into_iter().chain([(4096, 65536), (16384, 65536)]) {
        let pages = Heap::with_page(page);
        let meta = MetaKegs::<_, Lock>::with_page_size(&pages, made_for);
        for size in [1, 64, 4096, 5000, 100_000] {
            let at = meta.alloc_meta(layout(size, 1)).unwrap();
            stamp(at.into(), size, 5);
            put(&meta, at, layout(size, 1));
        }
        meta.reclaim();
        assert_eq!(pages.outstanding(), 0);
    }
}
