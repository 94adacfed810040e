//! Random imports, releases and reclaims against a model of what is out.

mod common;

use std::alloc::Layout;
use std::collections::BTreeMap;

use common::{Heap, Lock, Random, give, is_stamped, layout, stamp, stats, take, take_all};
use uma_core::{Item, ItemSource, Metadata, Reclaim, Request};
use uma_keg::{Keg, NoMetadata, SlabConfig, SlabLayout};

/// Everything that is out, by address, with the seed of its stamp.
#[derive(Default)]
struct Model {
    out: BTreeMap<usize, (Item, u64)>,
    seeds: u64,
    allocs: u64,
    frees: u64,
}

impl Model {
    fn took<M: Metadata>(&mut self, keg: &Keg<&Heap, Lock, M>, items: &[Item]) {
        let slab = keg.slab_layout();
        let size = slab.item().size();
        for &item in items {
            let addr = item.addr();
            assert!(addr.is_multiple_of(slab.item().align()));
            let below = self.out.range(..=addr).next_back();
            assert!(below.is_none_or(|(&other, _)| other + size <= addr), "overlaps one below");
            let above = self.out.range(addr..).next();
            assert!(above.is_none_or(|(&other, _)| addr + size <= other), "overlaps one above");
            self.seeds += 1;
            stamp(item, size, self.seeds);
            self.out.insert(addr, (item, self.seeds));
            self.allocs += 1;
        }
    }

    /// Takes up to `count` items out of the model, in some order, to be released.
    fn pick(&mut self, random: &mut Random, count: usize, size: usize) -> Vec<Item> {
        let mut picked = Vec::new();
        for _ in 0..count.min(self.out.len()) {
            let from = random.next() as usize;
            let next = self.out.range(from..).next().or_else(|| self.out.iter().next());
            let nth = random.below(self.out.len().min(50));
            let addr = match random.below(2) {
                0 => *next.unwrap().0,
                _ => *self.out.keys().nth(nth).unwrap(),
            };
            let (item, seed) = self.out.remove(&addr).unwrap();
            assert!(is_stamped(item, size, seed), "somebody wrote to an item that was out");
            picked.push(item);
            self.frees += 1;
        }
        picked
    }

    fn check<M: Metadata>(&self, keg: &Keg<&Heap, Lock, M>, pages: &Heap) {
        let figures = stats(keg);
        assert_eq!((figures.allocs, figures.frees), (self.allocs, self.frees));
        assert_eq!(keg.live(), self.out.len() as u64);
        assert_eq!(figures.slabs, pages.outstanding() as u64);
        assert_eq!(figures.bytes, pages.bytes() as u64);
        let all = figures.slabs * keg.slab_layout().items() as u64;
        assert_eq!(figures.keg_free, all - self.out.len() as u64);
    }

    fn check_live<M: Metadata>(&self, keg: &Keg<&Heap, Lock, M>) {
        let mut live = Vec::new();
        keg.for_each_live(|item| {
            common::assert_no_lock();
            live.push(item.addr());
        });
        assert!(live.iter().eq(self.out.keys()), "in the order of addresses, each once");
        if let Some((item, _)) = self.out.values().next() {
            assert!(keg.contains(*item));
        }
    }
}

fn drive<M: Metadata>(keg: Keg<&Heap, Lock, M>, pages: &Heap, seed: u64, steps: usize) {
    let mut random = Random(seed | 1);
    let mut model = Model::default();
    let size = keg.layout().size();
    let most = (300_000 / size).clamp(6, 3000);
    for step in 0..steps {
        match random.below(12) {
            0..=4 if model.out.len() < most => {
                let count = 1 + random.below((most / 4).min(300));
                let items = take(&keg, count, Request::NOWAIT).unwrap();
                model.took(&keg, &items);
            }
            5 => {
                keg.reclaim([Reclaim::Trim, Reclaim::Drain, Reclaim::DrainCpu][random.below(3)]);
                let figures = stats(&keg);
                assert!(figures.slabs <= model.out.len() as u64, "a free slab was kept");
            }
            6 if step % 7 == 0 => model.check_live(&keg),
            7 if step % 3 == 0 => {
                let everything = model.out.len();
                let items = model.pick(&mut random, everything, size);
                give(&keg, &items);
            }
            _ => {
                let count = random.below((most / 4).min(300));
                let items = model.pick(&mut random, count, size);
                give(&keg, &items);
                for item in items.iter().take(2) {
                    assert!(!keg.contains(*item));
                }
            }
        }
        model.check(&keg, pages);
    }
    model.check_live(&keg);
    let rest = model.pick(&mut random, usize::MAX, size);
    give(&keg, &rest);
    model.check(&keg, pages);
    keg.reclaim(Reclaim::Drain);
    assert_eq!((pages.outstanding(), pages.bytes()), (0, 0));
    // And once more, so that dropping has something to give back.
    let items = take_all(&keg, 3);
    give(&keg, &items);
    drop(keg);
    assert_eq!(pages.outstanding(), 0);
}

const SHAPES: [(usize, usize); 16] = [
    (1, 1),
    (7, 1),
    (8, 8),
    (16, 4),
    (24, 8),
    (64, 64),
    (100, 4),
    (200, 64),
    (600, 8),
    (1000, 1),
    (1024, 1024),
    (3000, 8),
    (4096, 4096),
    (9000, 16),
    (40_000, 8),
    (100_000, 32),
];

#[test]
fn headers_inside() {
    for (index, (size, align)) in SHAPES.into_iter().enumerate() {
        let pages = Heap::new();
        let keg = Keg::new(&pages, layout(size, align), SlabConfig::new()).unwrap();
        drive::<NoMetadata>(keg, &pages, 0x1234_5678 + index as u64, 300);
    }
}

#[test]
#[cfg(feature = "hashbrown")]
fn headers_where_they_waste_least() {
    for (index, (size, align)) in SHAPES.into_iter().enumerate() {
        let (pages, meta) = (Heap::new(), Heap::new());
        let keg =
            Keg::with_metadata(&pages, &meta, layout(size, align), SlabConfig::new()).unwrap();
        drive(keg, &pages, 0x9876_5432 + index as u64, 300);
        assert_eq!(meta.outstanding(), 0);
    }
}

#[test]
#[cfg(feature = "hashbrown")]
fn headers_outside() {
    for (index, (size, align)) in SHAPES.into_iter().enumerate() {
        let (pages, meta) = (Heap::new(), Heap::new());
        let config = SlabConfig::new().no_touch();
        let keg = Keg::with_metadata(&pages, &meta, layout(size, align), config).unwrap();
        assert_eq!(keg.slab_layout().header_place(), uma_keg::HeaderPlace::Outside);
        drive(keg, &pages, 0x5555_0001 + index as u64, 300);
        assert_eq!(meta.outstanding(), 0);
    }
}

#[test]
#[cfg(feature = "hashbrown")]
fn untouched_items_stay_untouched() {
    let (pages, meta) = (Heap::new(), Heap::new());
    let config = SlabConfig::new().no_touch();
    let keg = Keg::<_, Lock, _>::with_metadata(&pages, &meta, layout(64, 8), config).unwrap();
    let slab = *keg.slab_layout();
    let items = take_all(&keg, slab.items());
    give(&keg, &items);
    let first = items.iter().min().unwrap();
    for at in 0..slab.slab_size() {
        // SAFETY: the slab is still held by the keg, which does not touch it.
        assert_eq!(unsafe { first.as_non_null().add(at).read() }, 0xa5, "byte {at}");
    }
}

#[test]
fn free_items_keep_what_they_held() {
    let pages = Heap::new();
    let keg = Keg::<_, Lock>::new(&pages, layout(48, 8), SlabConfig::new()).unwrap();
    let items = take_all(&keg, 1000);
    for (seed, &item) in items.iter().enumerate() {
        stamp(item, 48, seed as u64);
    }
    give(&keg, &items);
    for (seed, &item) in items.iter().enumerate() {
        assert!(is_stamped(item, 48, seed as u64));
    }
}

#[test]
fn items_come_from_the_fullest_slab() {
    let pages = Heap::new();
    let keg = Keg::<_, Lock>::new(&pages, layout(64, 64), SlabConfig::new()).unwrap();
    let (each, size) = (keg.slab_layout().items(), keg.slab_layout().slab_size());
    let items = take_all(&keg, 4 * each);
    assert_eq!(stats(&keg).slabs, 4);
    let base = |item: &Item| item.addr() & !(size - 1);
    let mut slabs: BTreeMap<usize, Vec<Item>> = BTreeMap::new();
    for item in items {
        slabs.entry(base(&item)).or_default().push(item);
    }
    // Used: an eighth, a half, seven eighths of a slab; all but none.
    let slabs: Vec<_> = slabs.into_iter().collect();
    for ((_, items), eighths) in slabs.iter().zip([1, 4, 7, 0]) {
        give(&keg, &items[each * eighths / 8..]);
    }
    let mut order = Vec::new();
    while stats(&keg).keg_free != 0 {
        let item = take(&keg, 1, Request::NOWAIT).unwrap()[0];
        if order.last() != Some(&base(&item)) {
            order.push(base(&item));
        }
    }
    let expected = [slabs[2].0, slabs[1].0, slabs[0].0, slabs[3].0];
    assert_eq!(order, expected, "fullest first, a free slab last");
}

#[test]
fn sparse_slabs_drain() {
    let pages = Heap::new();
    let keg = Keg::<_, Lock>::new(&pages, layout(64, 64), SlabConfig::new()).unwrap();
    let mut random = Random(42);
    let mut items = take_all(&keg, 100 * 127);
    // Down to a tenth, at random, then random use at that level.
    while items.len() > 1270 {
        let item = items.swap_remove(random.below(items.len()));
        give(&keg, &[item]);
    }
    for _ in 0..20_000 {
        let item = items.swap_remove(random.below(items.len()));
        give(&keg, &[item]);
        items.extend(take(&keg, 1, Request::NOWAIT).unwrap());
    }
    keg.reclaim(Reclaim::Trim);
    let slabs = stats(&keg).slabs;
    assert!(slabs <= 20, "{slabs} slabs for 1270 items of which 127 fit one");
    give(&keg, &items);
}

#[test]
fn a_batch_is_filled_across_slabs_unless_the_rest_is_small() {
    let pages = Heap::new();
    let keg = Keg::<_, Lock>::new(&pages, layout(64, 64), SlabConfig::new()).unwrap();
    assert_eq!(take(&keg, 254, Request::NOWAIT).unwrap().len(), 254);
    assert_eq!(take(&keg, 130, Request::NOWAIT).unwrap().len(), 127, "3 are not worth a slab");
    assert_eq!(stats(&keg).slabs, 3);
}

#[test]
fn a_keg_may_move() {
    let pages = Heap::new();
    let keg = Keg::<_, Lock>::new(&pages, layout(32, 8), SlabConfig::new()).unwrap();
    let items = take_all(&keg, 10);
    let moved = Box::new(keg);
    give(&*moved, &items[..5]);
    let again = *moved;
    give(&again, &items[5..]);
    drop(again);
    assert_eq!(pages.outstanding(), 0);
}

#[test]
fn layouts_that_the_pages_do_not_fit() {
    let pages = Heap::with_page(16384);
    let keg = Keg::<_, Lock>::new(&pages, layout(64, 64), SlabConfig::new()).unwrap();
    let error = take(&keg, 1, Request::NOWAIT).unwrap_err();
    assert_eq!(error, uma_core::AllocError::Unsupported);
    let config = SlabConfig::new().page_size(16384);
    let slab = SlabLayout::new(layout(64, 64), config).unwrap();
    let keg = Keg::<_, Lock>::with_layout(&pages, NoMetadata, slab);
    let items = take_all(&keg, 1000);
    give(&keg, &items);
}

#[test]
fn kegs_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Keg<&Heap, Lock, &Heap>>();
    shared::<uma_keg::MetaKegs<&Heap, Lock>>();
}

static PAGES: Heap = Heap::new();
const WORDS: SlabLayout = match SlabLayout::new(Layout::new::<u64>(), SlabConfig::new()) {
    Ok(layout) => layout,
    Err(_) => panic!("no such slab"),
};
static KEG: Keg<&Heap, Lock> = Keg::with_layout(&PAGES, NoMetadata, WORDS);

#[test]
fn a_keg_in_a_static() {
    let items = take_all(&KEG, 5000);
    assert_eq!(KEG.live(), 5000);
    give(&KEG, &items);
    KEG.reclaim(Reclaim::DrainCpu);
    assert_eq!(PAGES.outstanding(), 0);
    assert!(format!("{KEG:?}").contains("live: 0"));
}

#[test]
fn leaks_are_reported_and_kept() {
    for size in [64, 4096] {
        let (pages, meta) = (Heap::new(), Heap::new());
        let keg =
            Keg::<_, Lock, _>::with_metadata(&pages, &meta, layout(size, 8), SlabConfig::new())
                .unwrap();
        let items = take_all(&keg, 700);
        // Those of the last slabs go back, and so do the slabs.
        give(&keg, &items[10..]);
        let leak = keg.destroy().unwrap_err();
        assert_eq!((leak.items, leak.layout), (10, layout(size, 8)));
        assert!(leak.to_string().starts_with("10 items of"), "{leak}");
        for &item in &items[..10] {
            stamp(item, size, 3);
            assert!(is_stamped(item, size, 3), "the memory is still there");
        }
        assert_eq!(meta.outstanding(), 0, "headers and tables are of no use any more");
        assert!(pages.outstanding() >= 1 && pages.outstanding() <= 10);
    }
    let pages = Heap::new();
    let keg = Keg::<_, Lock>::new(&pages, layout(64, 8), SlabConfig::new()).unwrap();
    let items = take_all(&keg, 7);
    give(&keg, &items);
    assert_eq!(keg.destroy(), Ok(()));
    assert_eq!(pages.outstanding(), 0);
}
