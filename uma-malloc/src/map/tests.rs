//! What is entered is found, and nothing else, whoever enters at the same time.

use super::*;
use std::vec::Vec;
use uma_testkit::{HeapMeta, Rng};

const REGION: usize = 1 << REGION_SHIFT;

/// Addresses all over the place: neighbours, far ones, the upper half.
fn start(number: usize) -> usize {
    match number % 3 {
        0 => (number + 1) * REGION,
        1 => number << 47,
        _ => usize::MAX - (number + 1) * REGION * 5 + 1,
    }
}

#[test]
fn finds_what_was_entered_and_nothing_else() {
    let meta = HeapMeta::new();
    let map = PageMap::new(&meta).unwrap();
    for number in 0..1500 {
        let at = start(number) & !(GRANULE - 1);
        assert_eq!(map.tag(at), NOTHING);
        assert!(map.cover(at, 3 * GRANULE));
        map.set(at, 3 * GRANULE, 5, 6);
        assert_eq!([0, 1, 2, 3].map(|n| map.tag(at + n * GRANULE)), [5, 6, 6, NOTHING]);
        assert_eq!((map.tag(at + GRANULE - 1), map.tag(at - 1)), (5, NOTHING));
    }
    assert!((0..1500).all(|number| map.tag(start(number)) == 5));
    let odd = 77 * REGION - GRANULE;
    assert!(map.cover(odd, 3 * REGION));
    map.set(odd, 3 * REGION, 9, 8);
    assert_eq!((map.tag(odd), map.tag(odd + GRANULE)), (9, 8));
    assert_eq!((map.tag(odd + 3 * REGION - 1), map.tag(odd + 3 * REGION)), (8, NOTHING));
    assert_eq!([0, 1, usize::MAX, usize::MAX / 2].map(|at| map.tag(at)), [NOTHING; 4]);
    drop(map);
    assert_eq!(meta.outstanding().runs, 0);
}

#[test]
fn without_memory_nothing_is_lost() {
    for k in 1..60 {
        let meta = HeapMeta::new();
        let Some(map) = PageMap::new(&meta) else { unreachable!("there is memory") };
        meta.fail_from(k);
        let covered: Vec<_> =
            (0..200).filter(|&number| map.cover(start(number), GRANULE)).collect();
        assert!(covered.len() < 200);
        for &number in &covered {
            map.set(start(number), GRANULE, 3, 3);
        }
        meta.never();
        assert!((0..200).all(|number| map.cover(start(number), GRANULE)));
        assert!(covered.iter().all(|&number| map.tag(start(number)) == 3));
        drop(map);
        assert_eq!(meta.outstanding().runs, 0);
    }
}

/// Who was about to insert into a table when it was replaced finds that it may not.
#[test]
fn a_table_that_was_replaced_takes_nothing() {
    let meta = HeapMeta::new();
    let map = PageMap::new(&meta).unwrap();
    assert!(map.cover(start(3), GRANULE));
    let old = map.table.load(Ordering::Relaxed);
    assert!(map.grow(old));
    let late = Leaf::new(99);
    // SAFETY: the old table stays, and refuses the leaf.
    let inserted = unsafe { Table::insert(old, 99, (&raw const late).cast_mut()) };
    assert!(matches!(inserted, Inserted::Full));
    // SAFETY: as above.
    assert!(unsafe { Table::find(old, 99) }.is_none());
    assert!(map.leaf(start(3)).is_some() && map.leaf(99 * REGION).is_none());
}

/// Threads enter the same regions and different ones at the same time, while tables are replaced.
#[test]
fn threads_lose_no_entry() {
    const EACH: usize = 48;
    // What a thread enters: every other region is one that the others enter, too.
    fn entry(thread: usize, number: usize) -> usize {
        let region = if number.is_multiple_of(2) { number } else { EACH * (thread + 1) + number };
        start(region) + thread * GRANULE
    }
    for round in 0..300 {
        let meta = HeapMeta::new();
        let map = PageMap::new(&meta).unwrap();
        let ready = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (map, ready) = (&map, &ready);
                scope.spawn(move || {
                    let mut random = Rng::new(round * 4 + thread as u64);
                    ready.wait();
                    for number in 0..EACH {
                        let at = entry(thread, number);
                        assert!(map.cover(at, GRANULE));
                        map.set(at, GRANULE, thread as u8 + 1, 0);
                        let before = random.below(number + 1);
                        let found = map.tag(entry(thread, before));
                        assert_eq!(found, thread as u8 + 1, "{before} of {number}");
                    }
                });
            }
        });
        for (number, thread) in (0..EACH).flat_map(|n| (0..4).map(move |thread| (n, thread))) {
            assert_eq!(map.tag(entry(thread, number)), thread as u8 + 1);
        }
        drop(map);
        assert_eq!(meta.outstanding().runs, 0);
    }
}
