//! Four threads on one keg, with items that cross between them.

mod common;

use std::sync::Mutex;

use common::{Heap, Lock, Random, give, is_stamped, layout, stamp, stats, take};
use uma_core::{Item, ItemSource, Metadata, Reclaim, Request};
use uma_keg::{Keg, MetaKegs, SlabConfig};

fn stress<M: Metadata + Sync>(keg: &Keg<&Heap, Lock, M>, rounds: usize) {
    let size = keg.layout().size();
    let crossing: Mutex<Vec<(Item, u64)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let crossing = &crossing;
            scope.spawn(move || {
                let mut random = Random(thread * 7919 + 1);
                let mut held: Vec<(Item, u64)> = Vec::new();
                for round in 0..rounds {
                    match random.below(10) {
                        0..=3 if held.len() < 400 => {
                            let count = 1 + random.below(60);
                            for item in take(keg, count, Request::NOWAIT).unwrap() {
                                let seed = random.next();
                                stamp(item, size.min(64), seed);
                                held.push((item, seed));
                            }
                        }
                        4 => crossing.lock().unwrap().append(&mut held),
                        5 => held.append(&mut crossing.lock().unwrap()),
                        6 if round % 8 == 0 => keg.reclaim(Reclaim::Trim),
                        6 if round % 8 == 1 => keg.reclaim(Reclaim::Drain),
                        7 if round % 64 == 0 => keg.for_each_live(|_| common::assert_no_lock()),
                        _ => {
                            let keep = held.len() - random.below(held.len() + 1);
                            let back = held.split_off(keep);
                            for &(item, seed) in &back {
                                assert!(is_stamped(item, size.min(64), seed));
                            }
                            give(keg, &back.into_iter().map(|(item, _)| item).collect::<Vec<_>>());
                        }
                    }
                }
                crossing.lock().unwrap().append(&mut held);
            });
        }
    });
    let rest: Vec<_> = crossing.into_inner().unwrap();
    assert_eq!(keg.live(), rest.len() as u64);
    for &(item, seed) in &rest {
        assert!(is_stamped(item, size.min(64), seed) && keg.contains(item));
    }
    give(keg, &rest.into_iter().map(|(item, _)| item).collect::<Vec<_>>());
    keg.reclaim(Reclaim::Drain);
    let figures = stats(keg);
    assert_eq!((keg.live(), figures.slabs, figures.keg_free), (0, 0, 0));
    assert_eq!(figures.allocs, figures.frees);
}

#[test]
fn headers_inside() {
    for size in [16, 200, 4096] {
        let pages = Heap::new();
        let keg = Keg::<_, Lock>::new(&pages, layout(size, 8), SlabConfig::new()).unwrap();
        stress(&keg, 4000);
        assert_eq!(pages.outstanding(), 0);
    }
}

#[test]
fn headers_from_meta_kegs() {
    for size in [16, 4096, 40_000] {
        let (pages, below) = (Heap::new(), Heap::new());
        let meta = MetaKegs::<_, Lock>::new(&below);
        let config = SlabConfig::new();
        let config = if cfg!(feature = "hashbrown") { config.no_touch() } else { config };
        let keg = Keg::<_, Lock, _>::with_metadata(&pages, &meta, layout(size, 8), config).unwrap();
        stress(&keg, 4000);
        assert_eq!(pages.outstanding(), 0);
        meta.reclaim();
        assert_eq!((below.outstanding(), meta.bytes()), (0, 0));
    }
}
