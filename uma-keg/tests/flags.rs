//! Kegs of slabs that are zeroed, kept, contiguous, spread, or with a copy for each CPU.

mod common;

use common::{Heap, Lock, give, layout, stats, take, take_all};
use uma_core::{AllocError, ConfigFault, ItemSource, PageError, Reclaim, Request};
use uma_keg::{Keg, SlabConfig, SlabLayout};

const PAGE: usize = 4096;

type Plain<'a> = Keg<&'a Heap, Lock>;

fn keg(pages: &Heap, size: usize, config: SlabConfig) -> Plain<'_> {
    Keg::with_layout(pages, uma_keg::NoMetadata, SlabLayout::new(layout(size, 8), config).unwrap())
}

/// All bytes of an item.
fn bytes(item: uma_core::Item, size: usize) -> &'static mut [u8] {
    // SAFETY: the tests own the items, and look at them one at a time.
    unsafe { std::slice::from_raw_parts_mut(item.as_ptr(), size) }
}

#[test]
fn zeroed_once_when_the_slab_is_made() {
    let pages = Heap::new();
    let keg = keg(&pages, 200, SlabConfig::new().zeroed());
    let items = take_all(&keg, 3 * keg.slab_layout().items());
    assert!(items.iter().all(|&item| bytes(item, 200).iter().all(|&byte| byte == 0)));
    for &item in &items {
        bytes(item, 200).fill(0xa5);
    }
    // All but one of each slab go back, and a drain touches none of them.
    let (stay, go): (Vec<_>, Vec<_>) =
        items.iter().enumerate().partition(|(n, _)| n % keg.slab_layout().items() == 0);
    let items_of = |part: Vec<(usize, &uma_core::Item)>| -> Vec<_> {
        part.into_iter().map(|(_, &item)| item).collect()
    };
    let (stay, go) = (items_of(stay), items_of(go));
    give(&keg, &go);
    keg.reclaim(Reclaim::DrainCpu);
    let again = take_all(&keg, go.len());
    assert!(again.iter().all(|&item| bytes(item, 200).iter().all(|&byte| byte == 0xa5)));
    give(&keg, &again);
    give(&keg, &stay);
    // With its slab an item goes for good: new ones are zero again.
    keg.reclaim(Reclaim::Drain);
    assert_eq!(stats(&keg).slabs, 0);
    let fresh = take_all(&keg, 5);
    assert!(fresh.iter().all(|&item| bytes(item, 200).iter().all(|&byte| byte == 0)));
    give(&keg, &fresh);
}

#[test]
fn kept_slabs_outlive_every_reclaim() {
    let pages = Heap::new();
    let keg = keg(&pages, 100, SlabConfig::new().kept());
    let items = take_all(&keg, 500);
    for &item in &items {
        bytes(item, 100).fill(7);
    }
    give(&keg, &items);
    let slabs = stats(&keg).slabs;
    for mode in [Reclaim::Idle, Reclaim::Trim, Reclaim::Drain, Reclaim::DrainCpu] {
        keg.reclaim(mode);
        assert_eq!(stats(&keg).slabs, slabs, "{mode:?}");
    }
    // Type-stable: still there, and as they were.
    assert!(items.iter().all(|&item| bytes(item, 100).iter().all(|&byte| byte == 7)));
    drop(keg);
    assert_eq!(pages.outstanding(), 0, "but they go with the keg");
}

/// FreeBSD once computed that no item fits a slab just under a page; and items of at most a page must not
/// reach into the next.
#[test]
fn contiguous_items_stay_within_a_page_and_there_is_always_one() {
    for size in (1..3 * PAGE).chain([8 * PAGE - 1, 1 << 20]) {
        let config = SlabConfig::new().contiguous();
        let slab = SlabLayout::new(layout(size, 1), config).unwrap();
        assert!(slab.items() >= 1, "no item of {size}");
        assert!(slab.slab_size() <= (size + 2 * 4096).next_multiple_of(PAGE), "{slab:?}");
        if size <= PAGE {
            let last = (slab.items() - 1) * slab.stride();
            for at in (0..=last).step_by(slab.stride()) {
                assert_eq!(at / PAGE, (at + size - 1) / PAGE, "{size} at {at} of {slab:?}");
            }
        }
        // The same for slabs that are as usual.
        let usual = SlabLayout::new(layout(size, 1), SlabConfig::new()).unwrap();
        assert!(usual.items() >= 1, "no item of {size}");
    }
}

#[test]
fn spread_items_begin_at_every_line_of_a_page() {
    for (size, align) in [(512, 8), (512, 64), (1024, 64), (640, 64), (256, 128), (64, 8)] {
        let item = std::alloc::Layout::from_size_align(size, align).unwrap();
        let slab = SlabLayout::new(item, SlabConfig::new().spread()).unwrap();
        let line = align.max(64);
        assert!(slab.stride() >= size && slab.stride().is_multiple_of(line), "{slab:?}");
        let mut begins: Vec<_> =
            (0..64 * 64 / line).map(|n| (n * slab.stride()) % PAGE / line).collect();
        begins.sort_unstable();
        begins.dedup();
        assert_eq!(begins.len(), PAGE / line, "{slab:?}");
    }
    // Without it they meet in a few.
    let plain = SlabLayout::new(layout(512, 64), SlabConfig::new()).unwrap();
    assert!((plain.stride() % PAGE).is_power_of_two());
}

#[test]
fn copies_are_apart_and_belong_to_their_item() {
    const CPUS: usize = 5;
    let pages = Heap::new();
    for size in [8, 64, 200, 3000, 4096, 10_000] {
        let keg = keg(&pages, size, SlabConfig::new().copies(CPUS));
        let layout = *keg.slab_layout();
        assert_eq!(layout.copies(), CPUS);
        assert!(layout.copy_distance().is_multiple_of(PAGE));
        assert_eq!(layout.copy_distance() * CPUS, layout.slab_size());
        let items = take_all(&keg, 2 * layout.items() + 1);
        for (n, &item) in items.iter().enumerate() {
            for cpu in 0..CPUS {
                // SAFETY: the copies lie in the same slab.
                let copy = unsafe { item.as_non_null().add(cpu * layout.copy_distance()) };
                bytes(copy.into(), size).fill((n * CPUS + cpu) as u8);
            }
        }
        for (n, &item) in items.iter().enumerate() {
            for cpu in 0..CPUS {
                // SAFETY: as above.
                let copy = unsafe { item.as_non_null().add(cpu * layout.copy_distance()) };
                let want = (n * CPUS + cpu) as u8;
                assert!(bytes(copy.into(), size).iter().all(|&byte| byte == want), "{size}");
            }
        }
        // A drain with items in use gives back no copy of one.
        give(&keg, &items[1..]);
        keg.reclaim(Reclaim::DrainCpu);
        for cpu in 0..CPUS {
            // SAFETY: as above.
            let copy = unsafe { items[0].as_non_null().add(cpu * layout.copy_distance()) };
            assert!(bytes(copy.into(), size).iter().all(|&byte| byte == cpu as u8));
        }
        give(&keg, &items[..1]);
    }
    assert_eq!(pages.outstanding(), 0);
    let none = SlabLayout::new(layout(8, 8), SlabConfig::new().copies(0));
    assert_eq!(none, Err(ConfigFault::ZeroSize));
    let many = SlabLayout::new(layout(8, 8), SlabConfig::new().copies(4096));
    assert_eq!(many, Err(ConfigFault::SizeTooLarge(2048)));
}

#[test]
fn without_pages_only_what_is_there() {
    let pages = Heap::new();
    let keg = keg(&pages, 64, SlabConfig::new());
    let frugal = Request::NOWAIT.without_pages();
    let exhausted = Err(AllocError::Pages(PageError::Exhausted));
    assert_eq!(take(&keg, 1, frugal), exhausted);
    assert_eq!(pages.outstanding(), 0);
    let each = keg.slab_layout().items();
    keg.prealloc(1).unwrap();
    let items = take(&keg, each + 10, frugal).unwrap();
    assert_eq!((items.len(), stats(&keg).slabs), (each, 1));
    assert_eq!(take(&keg, 1, frugal), exhausted);
    give(&keg, &items);
}
