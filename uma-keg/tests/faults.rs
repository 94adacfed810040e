//! The k-th call to the supplier, or for metadata, fails, for every k: nothing is lost.

mod common;

use common::{Heap, Lock, give, layout, stats, take};
use uma_core::{AllocError, Item, ItemSource, Metadata, PageError, Reclaim, Request};
use uma_keg::{Keg, SlabConfig};

/// Grows to a good many slabs, back to few, and up again. Returns how many imports failed.
fn script<M: Metadata>(keg: &Keg<&Heap, Lock, M>, error: AllocError) -> usize {
    let mut failures = 0;
    let mut held: Vec<Item> = Vec::new();
    for round in 0..3 {
        for _ in 0..40 {
            let before = (keg.live(), stats(keg).slabs);
            match take(keg, 1 + 2 * keg.slab_layout().items(), Request::NOWAIT) {
                Ok(items) => held.extend(items),
                Err(failure) => {
                    assert_eq!(failure, error);
                    assert_eq!((keg.live(), stats(keg).slabs), before);
                    failures += 1;
                }
            }
            assert_eq!(keg.live(), held.len() as u64);
        }
        let keep = held.len() * round / 3;
        give(keg, &held.split_off(keep));
        keg.reclaim(Reclaim::Trim);
        assert_eq!(keg.live(), held.len() as u64);
    }
    let mut live = 0;
    keg.for_each_live(|_| live += 1);
    assert_eq!(live, held.len());
    give(keg, &held);
    failures
}

fn every_k(size: usize, inside: bool) {
    let config = if inside { SlabConfig::new() } else { SlabConfig::new().no_touch() };
    let mut total = [0, 0];
    for which in [0, 1] {
        for k in 0.. {
            let (pages, meta) = (Heap::new(), Heap::new());
            let keg = Keg::with_metadata(&pages, &meta, layout(size, 8), config).unwrap();
            let (failing, error) = match which {
                0 => (&pages, AllocError::Pages(PageError::Exhausted)),
                _ => (&meta, AllocError::Metadata),
            };
            failing.fail(k);
            total[which] += script(&keg, error);
            let calls = failing.calls();
            if inside {
                assert_eq!(meta.calls(), 0);
            }
            keg.reclaim(Reclaim::Drain);
            assert_eq!((pages.outstanding(), meta.outstanding()), (0, 0), "after reclaim");
            drop(keg);
            if calls <= k {
                break;
            }
        }
    }
    // Most failures are hidden, because something was in hand; a few at the start are not.
    assert!(total[0] >= 1 && (inside || total[1] >= 1), "{total:?}");
}

#[test]
fn headers_inside() {
    every_k(200, true);
    every_k(30_000, true);
}

#[test]
#[cfg(feature = "hashbrown")]
fn headers_outside() {
    every_k(512, false);
    every_k(4096, false);
    every_k(30_000, false);
}

#[test]
fn with_something_in_hand_a_failure_is_none() {
    let pages = Heap::new();
    let keg = Keg::<_, Lock>::new(&pages, layout(64, 64), SlabConfig::new()).unwrap();
    pages.fail(1);
    let items = take(&keg, 254, Request::NOWAIT).unwrap();
    assert_eq!(items.len(), 127);
    give(&keg, &items);
}

#[test]
#[cfg(feature = "hashbrown")]
fn outside_headers_without_metadata() {
    let pages = Heap::new();
    let config = SlabConfig::new().no_touch().outside_headers();
    let slab = uma_keg::SlabLayout::new(layout(64, 8), config).unwrap();
    let keg = Keg::<_, Lock>::with_layout(&pages, uma_keg::NoMetadata, slab);
    assert_eq!(take(&keg, 1, Request::NOWAIT), Err(AllocError::Metadata));
    assert_eq!(pages.calls(), 0);
}
