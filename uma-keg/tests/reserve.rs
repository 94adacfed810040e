//! Reserve, and slabs made in advance.

mod common;

use common::{Heap, Lock, give, layout, stats, take, take_all};
use uma_core::{AllocError, ItemSource, PageError, Reclaim, Request};
use uma_keg::{Keg, SlabConfig};

const EXHAUSTED: AllocError = AllocError::Pages(PageError::Exhausted);

#[test]
fn the_last_items_are_for_those_who_may() {
    let pages = Heap::new();
    let keg = Keg::<_, Lock>::new(&pages, layout(64, 64), SlabConfig::new()).unwrap();
    let each = keg.slab_layout().items();
    keg.set_reserve(10);
    assert_eq!(keg.reserve(), 10);
    keg.prealloc(1).unwrap();
    pages.fail_all();
    let ordinary = take(&keg, 1000, Request::NOWAIT).unwrap();
    assert_eq!(ordinary.len(), each - 10);
    assert_eq!(take(&keg, 1, Request::NOWAIT), Err(EXHAUSTED));
    assert_eq!(take(&keg, 1, Request::WAIT), Err(EXHAUSTED));
    let urgent = take(&keg, 4, Request::NOWAIT.from_reserve()).unwrap();
    assert_eq!(urgent.len(), 4);
    // What comes back fills the reserve first.
    give(&keg, &ordinary[..4]);
    assert_eq!(take(&keg, 1, Request::NOWAIT), Err(EXHAUSTED));
    give(&keg, &ordinary[4..5]);
    let one = take(&keg, 5, Request::NOWAIT).unwrap();
    assert_eq!(one.len(), 1);
    // With pages again an ordinary request grows the keg and leaves the reserve alone.
    pages.fail_no_more();
    let more = take_all(&keg, each);
    assert_eq!(stats(&keg).keg_free, 10);
    for items in [&ordinary[5..], &urgent, &one, &more] {
        give(&keg, items);
    }
}

#[test]
fn reclaim_leaves_the_reserve() {
    let pages = Heap::new();
    let keg = Keg::<_, Lock>::new(&pages, layout(64, 64), SlabConfig::new()).unwrap();
    let each = keg.slab_layout().items() as u64;
    keg.prealloc(5 * each).unwrap();
    assert_eq!((stats(&keg).slabs, pages.outstanding()), (5, 5));
    keg.set_reserve(each + 1);
    keg.reclaim(Reclaim::DrainCpu);
    assert_eq!(stats(&keg).slabs, 2);
    // Free items of a partly used slab count.
    let one = take_all(&keg, 1);
    keg.reclaim(Reclaim::DrainCpu);
    assert_eq!(stats(&keg).slabs, 2);
    give(&keg, &one);
    keg.set_reserve(u64::MAX);
    keg.reclaim(Reclaim::DrainCpu);
    assert_eq!(stats(&keg).slabs, 2);
    keg.set_reserve(each);
    keg.reclaim(Reclaim::DrainCpu);
    assert_eq!(stats(&keg).slabs, 1);
    keg.set_reserve(0);
    keg.reclaim(Reclaim::DrainCpu);
    assert_eq!(pages.outstanding(), 0);
}

#[test]
fn a_reserve_over_a_slab_is_built_up() {
    let pages = Heap::new();
    let keg = Keg::<_, Lock>::new(&pages, layout(64, 64), SlabConfig::new()).unwrap();
    let each = keg.slab_layout().items() as u64;
    keg.set_reserve(2 * each);
    let one = take(&keg, 1, Request::NOWAIT).unwrap();
    assert_eq!(stats(&keg).slabs, 3);
    give(&keg, &one);
    keg.set_reserve(3 * each);
    pages.fail(1);
    assert_eq!(take(&keg, 1, Request::NOWAIT).map(|items| items.len()), Ok(1), "the 4th slab");
}

#[test]
fn prealloc_keeps_what_it_got() {
    let pages = Heap::new();
    let keg = Keg::<_, Lock>::new(&pages, layout(64, 64), SlabConfig::new()).unwrap();
    let each = keg.slab_layout().items() as u64;
    pages.fail(2);
    assert_eq!(keg.prealloc(3 * each), Err(EXHAUSTED));
    assert_eq!(stats(&keg).slabs, 2);
    keg.prealloc(0).unwrap();
    assert_eq!(stats(&keg).slabs, 2);
    let calls = pages.calls();
    let items = take_all(&keg, 2 * each as usize);
    assert_eq!(pages.calls(), calls, "what was made in advance is used");
    give(&keg, &items);
}
