//! Every size and alignment: items fit, and little is wasted.

use std::alloc::Layout;
use std::collections::BTreeMap;

use uma_core::ConfigFault;
use uma_keg::{HeaderPlace, MAX_ITEM_ALIGN, MAX_ITEM_SIZE, SlabConfig, SlabLayout};

const HAS_MAP: bool = cfg!(feature = "hashbrown");
const WORD: usize = size_of::<usize>();

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// What a header takes, by the description of it: two links, base, cookie, eight bytes, bits.
fn header_size(items: usize) -> usize {
    (4 * WORD + 8) + items.div_ceil(WORD * 8) * WORD
}

/// The items that a slab holds, found without any formula that the crate uses.
fn items_that_fit(size: usize, stride: usize, slab: usize, inside: bool) -> usize {
    let fits = |items: usize| {
        let header = if inside { header_size(items) } else { 0 };
        items == 0 || (items - 1) * stride + size + header <= slab
    };
    let (mut low, mut high) = (0, slab + 1);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if fits(middle) { low = middle } else { high = middle }
    }
    low
}

/// Whether any slab of at most 64 KiB wastes less than 2 %.
fn reachable(size: usize, align: usize, page: usize, outside: bool) -> bool {
    let stride = size.next_multiple_of(align);
    (1..=(64 << 10) / page).any(|pages| {
        let slab = pages * page;
        [true, false].into_iter().filter(|&inside| inside || outside).any(|inside| {
            let items = items_that_fit(size, stride, slab, inside);
            let total = slab + if inside { 0 } else { header_size(items) };
            items * size * 50 > total * 49
        })
    })
}

/// Fails unless items are aligned, apart, and in the slab, and the header is in nobody's way.
fn check(slab: &SlabLayout, page: usize) {
    let item = slab.item();
    assert!(slab.items() >= 1, "{slab:?}");
    assert!(slab.stride() >= item.size() && slab.stride().is_multiple_of(item.align()), "{slab:?}");
    assert!(slab.slab_size().is_multiple_of(page) && slab.slab_size() < 1 << 31, "{slab:?}");
    assert!(slab.slab_align() >= item.align() && slab.slab_align() >= page, "{slab:?}");
    let end = (slab.items() - 1) * slab.stride() + item.size();
    assert!(slab.header().size() >= header_size(slab.items()), "{slab:?}");
    match slab.header_offset() {
        Some(offset) => {
            assert_eq!(slab.header_place(), HeaderPlace::Inside);
            assert!(offset >= end && offset.is_multiple_of(slab.header().align()), "{slab:?}");
            assert_eq!(offset + slab.header().size(), slab.slab_size(), "right-justified");
        }
        None => assert!(HAS_MAP && end <= slab.slab_size(), "{slab:?}"),
    }
    if slab.items() > 1 {
        // The base is found by a mask.
        assert!(slab.slab_align() >= slab.slab_size(), "{slab:?}");
    }
}

fn wastes_under_two_percent(slab: &SlabLayout) -> bool {
    let total = slab.slab_size() + slab.outside_bytes();
    slab.items() * slab.item().size() * 50 > total * 49
}

#[test]
fn every_size_and_alignment() {
    let threads = 4;
    let exceptions: BTreeMap<(bool, usize), BTreeMap<usize, u32>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut exceptions = BTreeMap::<_, BTreeMap<_, _>>::new();
                    for size in (1 + thread..=65536).step_by(threads) {
                        for align in (0..=12).map(|power| 1 << power) {
                            for outside in [false, true] {
                                let mut config = SlabConfig::new();
                                if outside {
                                    config = config.outside_headers();
                                }
                                let slab = SlabLayout::new(layout(size, align), config).unwrap();
                                check(&slab, 4096);
                                if !wastes_under_two_percent(&slab) {
                                    let outside = outside && HAS_MAP;
                                    assert!(!reachable(size, align, 4096, outside), "{slab:?}");
                                    exceptions
                                        .entry((outside, align))
                                        .or_default()
                                        .insert(size, slab.waste_permille());
                                }
                            }
                        }
                    }
                    exceptions
                })
            })
            .collect();
        let mut all = BTreeMap::<_, BTreeMap<_, _>>::new();
        for worker in workers {
            for (key, sizes) in worker.join().unwrap() {
                all.entry(key).or_default().extend(sizes);
            }
        }
        all
    });
    println!("sizes for which no slab of at most 64 KiB wastes under 2 %:");
    for ((outside, align), sizes) in &exceptions {
        let (first, worst) = (sizes.keys().next().unwrap(), sizes.values().max().unwrap());
        let small = sizes.range(..4096).count();
        println!(
            "  outside headers {outside:5}, align {align:4}: {:5} of 65536 ({small} below 4096, \
             the first {first}), worst {worst}/1000",
            sizes.len(),
        );
        if *align == 1 {
            let tiny: Vec<_> = sizes.range(..4096).take(12).collect();
            println!("    {tiny:?}");
        }
    }
}

#[test]
fn large_sizes_and_alignments() {
    for power in 0..=21 {
        let align = 1_usize << power;
        for size in (1..=1 << 20)
            .step_by(7919)
            .chain((20..=30).map(|power| (1 << power) - 12_345))
            .chain((0..=30).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]))
        {
            if size == 0 || size > MAX_ITEM_SIZE {
                continue;
            }
            for page in [256, 4096, 16384, 65536, 2 << 20] {
                let config = SlabConfig::new().page_size(page);
                for config in [config, config.outside_headers()] {
                    let slab = SlabLayout::new(layout(size, align), config).unwrap();
                    check(&slab, page);
                    assert!(slab.slab_size() <= (8 << 20).max(size + (4 << 20)), "{slab:?}");
                    if size > 64 << 10 && page == 4096 && align <= page {
                        assert!(slab.waste_permille() <= 63, "{slab:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn untouched_items_have_their_header_outside() {
    let config = SlabConfig::new().no_touch().outside_headers();
    for size in [1, 64, 4096, 100_000] {
        let slab = SlabLayout::new(layout(size, 1), config);
        if HAS_MAP {
            let slab = slab.unwrap();
            assert_eq!(slab.header_place(), HeaderPlace::Outside);
            check(&slab, 4096);
        } else {
            assert_eq!(slab, Err(ConfigFault::NeedsFeature("hashbrown")));
        }
    }
    let alone = SlabLayout::new(layout(64, 1), SlabConfig::new().no_touch());
    let fault = match HAS_MAP {
        true => ConfigFault::Conflict("headers inside slabs", "items that may not be touched"),
        false => ConfigFault::NeedsFeature("hashbrown"),
    };
    assert_eq!(alone, Err(fault));
}

#[test]
fn what_cannot_be_is_refused() {
    let new = |size, align| SlabLayout::new(layout(size, align), SlabConfig::new());
    assert_eq!(new(0, 1), Err(ConfigFault::ZeroSize));
    assert_eq!(new(MAX_ITEM_SIZE + 1, 1), Err(ConfigFault::SizeTooLarge(MAX_ITEM_SIZE)));
    assert_eq!(new(1, 2 * MAX_ITEM_ALIGN), Err(ConfigFault::AlignTooLarge(MAX_ITEM_ALIGN)));
    for page in [0, 32, 4095, 4 << 20] {
        let config = SlabConfig::new().page_size(page);
        assert_eq!(SlabLayout::new(layout(8, 8), config), Err(ConfigFault::BadAlign));
    }
}

#[test]
fn small_kegs_hold_small_slabs() {
    for size in 1..=4096 {
        let chosen = SlabLayout::new(layout(size, 1), SlabConfig::new()).unwrap();
        for slab in [4096, 8192, 16384, 32768].into_iter().filter(|&slab| slab < chosen.slab_size())
        {
            let used = items_that_fit(size, size, slab, true) * size;
            assert!(used * 100 < slab * 99, "{slab} would do for {chosen:?}");
        }
    }
    let slab = SlabLayout::new(layout(64, 64), SlabConfig::new()).unwrap();
    assert_eq!((slab.slab_size(), slab.items()), (8192, 127));
}

#[test]
fn table_of_layouts() {
    for size in [8, 16, 64, 100, 200, 256, 512, 1000, 1024, 2048, 4096, 65536, 1 << 20] {
        for config in [SlabConfig::new(), SlabConfig::new().outside_headers()] {
            let slab =
                SlabLayout::new(layout(size, if size % 8 == 0 { 8 } else { 1 }), config).unwrap();
            println!(
                "{size:7}: {:4} KiB aligned {:4} KiB, {:5} items, {:?}, waste {}/1000",
                slab.slab_size() >> 10,
                slab.slab_align() >> 10,
                slab.items(),
                slab.header_place(),
                slab.waste_permille()
            );
        }
    }
}
