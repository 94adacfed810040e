//! What a drain gives back of slabs that are partly used: exactly the pages without items in use.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::logged::{Logged, base_of, check_pages, keg, one_slab, spare};
use common::{Lock, give, layout, stats, take_all};
use uma_core::{Item, ItemSource, Metadata, PageSupplier, Reclaim};
use uma_keg::{Keg, NoMetadata, SlabConfig};
use uma_testkit::{Budget, FailNth, Fake, Rng, token};

/// From where to where, or where and how long.
type Spans = &'static [(usize, usize)];

#[test]
fn by_hand() {
    // 127 items of 64 bytes, the first 64 in the first page, in the second page the header too.
    let cases: [(Spans, Spans); 7] = [
        (&[(0, 64)], &[(0, 4096)]),
        (&[(0, 65)], &[(0, 4096)]),
        (&[(0, 126)], &[(0, 4096)]),
        (&[(0, 63)], &[]),
        (&[(1, 127)], &[]),
        (&[(0, 20), (21, 127)], &[]),
        (&[(64, 127)], &[]),
    ];
    let shape = |pages: &Logged, size| *keg(pages, size).slab_layout();
    for (free, expected) in cases {
        let pages = Logged::new();
        assert_eq!(shape(&pages, 64).slab_size(), 8192);
        check_by_hand(&pages, 64, free, expected);
    }
    // Sixteen items of 3000 bytes and more in eight or more pages: pages begin inside of items.
    // Item n lies from 3000 n to 3000 n + 3000.
    let cases: [(Spans, Spans); 6] = [
        (&[(0, 1)], &[]),
        (&[(0, 2)], &[(0, 4096)]),
        (&[(1, 2)], &[]),
        (&[(1, 3)], &[(4096, 4096)]),
        (&[(1, 5)], &[(4096, 8192)]),
        (&[(0, 2), (3, 5), (6, 9)], &[(0, 4096), (20480, 4096)]),
    ];
    for (free, expected) in cases {
        let pages = Logged::new();
        assert!(shape(&pages, 3000).items() >= 10);
        check_by_hand(&pages, 3000, free, expected);
    }
}

fn check_by_hand(pages: &Logged, size: usize, free: Spans, expected: Spans) {
    let keg = keg(pages, size);
    let items = one_slab(&keg);
    for &(from, to) in free {
        give(&keg, &items[from..to]);
    }
    keg.reclaim(Reclaim::Drain);
    let base = items[0].addr();
    let ranges: Vec<_> = pages.ranges().iter().map(|&(at, len)| (at - base, len)).collect();
    assert_eq!(ranges, expected, "{size} bytes, free: {free:?}");
    for (at, item) in items.iter().enumerate() {
        if !free.iter().any(|range| (range.0..range.1).contains(&at)) {
            give(&keg, &[*item]);
        }
    }
}

/// Every shape of slab, any pattern: the ranges are exact, items in use keep their tokens, and a
/// second drain finds nothing to do.
fn exact<M: Metadata>(pages: &Logged, keg: &Keg<&Logged, Lock, M>, seed: u64) {
    let (slab, page, size) = (*keg.slab_layout(), pages.page_size(), keg.layout().size());
    let mut rng = Rng::new(seed);
    for round in 0..30_u64 {
        let items = one_slab(keg);
        let base = base_of(&slab, items[0]);
        for item in &items {
            // SAFETY: the item is ours.
            unsafe { token::stamp(item.as_non_null(), size, round ^ item.addr() as u64) };
        }
        // Free are rows of random lengths: of few items, or of about two pages.
        let most = if round % 2 == 0 { 4 } else { 2 + 4 * page / slab.stride() };
        let (mut free, mut live) = (Vec::new(), Vec::new());
        let mut rest = &items[..];
        while !rest.is_empty() {
            let (row, after) = rest.split_at((1 + rng.below(most)).min(rest.len()));
            let side = if rng.one_in(2) { &mut free } else { &mut live };
            side.extend(row);
            rest = after;
        }
        if live.is_empty() {
            live.extend(free.pop());
        }
        give(keg, &free);
        let bytes = stats(keg).bytes;
        keg.reclaim(Reclaim::Trim);
        assert_eq!(pages.ranges(), [], "a trim leaves partly used slabs alone");
        keg.reclaim(if rng.one_in(2) { Reclaim::Drain } else { Reclaim::DrainCpu });
        let expected = match free.is_empty() {
            true => Vec::new(),
            false => spare(&slab, page, base, live.iter().map(|item| item.addr())),
        };
        assert_eq!(pages.ranges(), expected, "{slab:?}");
        assert_eq!(stats(keg).bytes, bytes, "still held");
        keg.reclaim(Reclaim::Drain);
        assert_eq!(pages.ranges(), [], "nothing has changed");
        for item in &live {
            // SAFETY: the item is ours and was stamped.
            let found =
                unsafe { token::verify(item.as_non_null(), size, round ^ item.addr() as u64) };
            found.unwrap();
        }
        // The slab is as good as before.
        let again = take_all(keg, free.len());
        let addresses = |items: &[Item]| BTreeSet::from_iter(items.iter().map(|item| item.addr()));
        assert_eq!(addresses(&again), addresses(&free));
        give(keg, &again);
        give(keg, &live);
        keg.reclaim(Reclaim::Drain);
        assert_eq!((stats(keg).slabs, pages.ranges()), (0, Vec::new()));
    }
}

const SHAPES: [(usize, usize); 13] = [
    (1, 1),
    (8, 8),
    (24, 8),
    (64, 64),
    (200, 8),
    (333, 1),
    (1000, 8),
    (1024, 1024),
    (3000, 8),
    (4096, 4096),
    (5000, 2048),
    (9000, 16),
    (30_000, 32),
];

#[test]
fn exact_ranges_with_headers_inside() {
    for (seed, (size, align)) in SHAPES.into_iter().enumerate() {
        for page in [4096, 64, 1024] {
            let pages = Logged::with_page(page);
            let keg = Keg::new(&pages, layout(size, align), SlabConfig::new()).unwrap();
            if keg.slab_layout().items() > 1 {
                exact::<NoMetadata>(&pages, &keg, seed as u64);
            }
        }
    }
}

#[cfg(feature = "hashbrown")]
#[test]
fn exact_ranges_with_headers_outside() {
    for (seed, (size, align)) in SHAPES.into_iter().enumerate() {
        let (pages, meta) = (Logged::new(), uma_testkit::HeapMeta::new());
        let config = SlabConfig::new().outside_headers().no_touch();
        let keg = Keg::with_metadata(&pages, &meta, layout(size, align), config).unwrap();
        if keg.slab_layout().items() > 1 {
            exact(&pages, &keg, seed as u64);
        }
    }
}

/// The supplier's pages are larger than the slab was laid out for.
#[test]
fn pages_of_another_size() {
    let pages = Logged::with_page(2048);
    let config = SlabConfig::new().page_size(1024);
    let keg = Keg::<_, Lock>::new(&pages, layout(100, 4), config).unwrap();
    let items = one_slab(&keg);
    give(&keg, &items[1..]);
    keg.reclaim(Reclaim::Drain);
    let first = items[0].addr();
    assert_eq!(pages.ranges(), spare(keg.slab_layout(), 2048, first, [first].into_iter()));
    give(&keg, &items[..1]);
}

/// With many slabs a drain costs what has changed since the last one.
#[test]
fn only_slabs_that_have_changed() {
    let pages = Logged::new();
    let keg = keg(&pages, 200);
    let slab = *keg.slab_layout();
    let mut slabs: BTreeMap<usize, Vec<Item>> = BTreeMap::new();
    for item in take_all(&keg, 300 * slab.items()) {
        slabs.entry(base_of(&slab, item)).or_default().push(item);
    }
    let mut rng = Rng::new(7);
    let free = |items: &mut Vec<Item>, rng: &mut Rng, keep: usize| {
        while items.len() > keep {
            give(&keg, &[items.swap_remove(rng.below(items.len()))]);
        }
    };
    let spare_of = |base: usize, items: &[Item]| {
        spare(&slab, 4096, base, items.iter().map(|item| item.addr()))
    };
    let mut expected = Vec::new();
    for (index, (&base, items)) in slabs.iter_mut().enumerate() {
        // From one item in use to all but one.
        free(items, &mut rng, 1 + index * (slab.items() - 2) / 299);
        expected.extend(spare_of(base, items));
    }
    keg.reclaim(Reclaim::Drain);
    assert_eq!(pages.ranges(), expected);
    assert!(expected.len() > 50, "the pattern is worth something");
    keg.reclaim(Reclaim::DrainCpu);
    assert_eq!(pages.ranges(), []);
    // Items come back to three of them.
    let mut expected = Vec::new();
    for (index, (&base, items)) in slabs.iter_mut().enumerate() {
        if [20, 150, 151].contains(&index) {
            let keep = items.len() - 2;
            free(items, &mut rng, keep);
            expected.extend(spare_of(base, items));
        }
    }
    keg.reclaim(Reclaim::Drain);
    assert_eq!(pages.ranges(), expected);
    // An item is taken, of the fullest, and comes back.
    let one = take_all(&keg, 1)[0];
    give(&keg, &[one]);
    keg.reclaim(Reclaim::Drain);
    let base = base_of(&slab, one);
    assert_eq!(pages.ranges(), spare_of(base, &slabs[&base]));
    for items in slabs.values() {
        give(&keg, items);
    }
}

/// Of slabs that are about as full, the one whose memory is there serves first.
#[test]
fn items_come_from_memory_that_is_there() {
    let pages = Logged::new();
    let keg = keg(&pages, 200);
    let (first, second) = (one_slab(&keg), one_slab(&keg));
    give(&keg, &second[1..]);
    keg.reclaim(Reclaim::Drain);
    assert_ne!(pages.ranges(), []);
    give(&keg, &first[1..]);
    let next = take_all(&keg, 1)[0];
    assert_eq!(base_of(keg.slab_layout(), next), first[0].addr());
    // Also if the other came later.
    give(&keg, &[next]);
    let other = take_all(&keg, keg.slab_layout().items() - 1);
    give(&keg, &other);
    keg.reclaim(Reclaim::Drain);
    give(&keg, &take_all(&keg, 1));
    assert_eq!(take_all(&keg, 1).len(), 1);
    keg.for_each_live(|item| give(&keg, &[item]));
}

#[test]
fn a_keg_with_a_reserve_keeps_its_pages() {
    let pages = Logged::new();
    let keg = keg(&pages, 200);
    let items = one_slab(&keg);
    give(&keg, &items[1..]);
    keg.set_reserve(1);
    keg.reclaim(Reclaim::DrainCpu);
    assert_eq!(pages.ranges(), []);
    keg.set_reserve(0);
    keg.reclaim(Reclaim::DrainCpu);
    assert_ne!(pages.ranges(), []);
    give(&keg, &items[..1]);
}

/// Adaptors pass the power on, and a supplier without it is not asked.
#[test]
fn through_adaptors() {
    let pages = Budget::new(FailNth::new(Fake::new()), 1 << 20);
    let keg = keg(&pages, 200);
    let items = one_slab(&keg);
    give(&keg, &items[1..]);
    keg.reclaim(Reclaim::Drain);
    let fake = pages.inner().inner();
    let spare = spare(keg.slab_layout(), 4096, items[0].addr(), [items[0].addr()].into_iter());
    assert_eq!(fake.decommitted(), spare.iter().map(|(_, len)| len).sum::<usize>());
    assert_eq!(fake.decommit_calls(), spare.len());
    give(&keg, &items[..1]);
}

/// Random operations: after each drain, every page without an item in use has gone back, and every item
/// in use holds its token.
#[test]
fn model() {
    for (seed, size) in [(1, 40), (2, 200), (3, 1000), (4, 3000), (5, 4096), (6, 64)] {
        let pages = Logged::new();
        let keg = keg(&pages, size);
        let slab = *keg.slab_layout();
        let mut rng = Rng::new(seed);
        let mut held: Vec<(Item, u64)> = Vec::new();
        for step in 0..400_u64 {
            match rng.below(6) {
                0 | 1 if held.len() * size < 600_000 => {
                    for item in take_all(&keg, 1 + rng.below(120_000 / size)) {
                        // SAFETY: the item is ours.
                        unsafe { token::stamp(item.as_non_null(), size, step) };
                        held.push((item, step));
                    }
                }
                2 => keg.reclaim(Reclaim::Trim),
                3 => {
                    keg.reclaim(Reclaim::Drain);
                    check_pages(&slab, &held);
                }
                _ => {
                    for _ in 0..rng.below(held.len() / 2 + 1) {
                        let (item, token) = held.swap_remove(rng.below(held.len()));
                        // SAFETY: the item is ours and was stamped.
                        unsafe { token::verify(item.as_non_null(), size, token) }.unwrap();
                        give(&keg, &[item]);
                    }
                }
            }
            let figures = stats(&keg);
            assert_eq!(figures.slabs as usize, pages.fake.outstanding().runs);
            assert_eq!(keg.live(), held.len() as u64);
            assert_eq!(figures.keg_free + held.len() as u64, figures.slabs * slab.items() as u64);
        }
        for (item, token) in held {
            // SAFETY: the item is ours and was stamped.
            unsafe { token::verify(item.as_non_null(), size, token) }.unwrap();
            give(&keg, &[item]);
        }
    }
}
