//! Slab layouts.

use std::alloc::Layout;

use uma_core::{ConfigFault, ItemSource, Request};
use uma_keg::{HeaderPlace, Keg, MAX_ITEM_ALIGN, MAX_ITEM_SIZE, SlabConfig, SlabLayout};
use uma_testkit::machine::OneThread;
use uma_testkit::model::Model;
use uma_testkit::ops::layout::Layouts;
use uma_testkit::{Fake, HeapMeta};

const WORD: usize = size_of::<usize>();

/// Checks what becomes of a wish: it is refused for the reason that is documented, or else items fit
/// side by side, little is wasted, and a keg of such slabs works.
pub fn slab_layout(wish: &Layouts) {
    let item = Layout::from_size_align(wish.size(), wish.align()).expect("at most 4 MiB");
    let mut config = SlabConfig::new().page_size(wish.page_size());
    if let Some(largest) = wish.largest() {
        config = config.largest_slab(largest);
    }
    if wish.outside {
        config = config.outside_headers();
    }
    if wish.no_touch {
        config = config.no_touch();
    }
    match (SlabLayout::new(item, config), fault(wish)) {
        (Err(found), Some(expected)) => assert_eq!(found, expected, "{wish:?}"),
        (Ok(slab), None) => {
            fits(&slab, wish);
            wastes_little(&slab, wish);
            serves(&slab, wish);
        }
        (result, expected) => panic!("{result:?} for {wish:?}, not {expected:?}"),
    }
}

/// Why the wish must be refused, if it must.
fn fault(wish: &Layouts) -> Option<ConfigFault> {
    let page = wish.page_size();
    if wish.size() == 0 {
        Some(ConfigFault::ZeroSize)
    } else if wish.size() > MAX_ITEM_SIZE {
        Some(ConfigFault::SizeTooLarge(MAX_ITEM_SIZE))
    } else if wish.align() > MAX_ITEM_ALIGN {
        Some(ConfigFault::AlignTooLarge(MAX_ITEM_ALIGN))
    } else if !page.is_power_of_two() || !(64..=2 << 20).contains(&page) {
        Some(ConfigFault::BadAlign)
    } else if wish.no_touch && !wish.outside {
        Some(ConfigFault::Conflict("headers inside slabs", "items that may not be touched"))
    } else {
        None
    }
}

/// What a header takes, by the description of it: two links, base, cookie, eight bytes, bits.
fn header_size(items: usize) -> usize {
    (4 * WORD + 8) + items.div_ceil(WORD * 8) * WORD
}

/// Whether so many items fit a slab, by no formula of the crate.
fn room(slab: usize, size: usize, stride: usize, items: usize, place: HeaderPlace) -> bool {
    let header = if place == HeaderPlace::Inside { header_size(items) } else { 0 };
    items == 0 || (items - 1) * stride + size + header <= slab
}

/// The largest slab to choose freely.
fn most(wish: &Layouts) -> usize {
    wish.largest().unwrap_or(64 << 10).min(64 << 10).max(wish.page_size())
}

fn fits(slab: &SlabLayout, wish: &Layouts) {
    let (item, page, place) = (slab.item(), wish.page_size(), slab.header_place());
    assert!(slab.items() >= 1, "{slab:?}");
    assert!(slab.stride() >= item.size() && slab.stride().is_multiple_of(item.align()), "{slab:?}");
    assert!(slab.stride() - item.size() < item.align(), "{slab:?}");
    assert!(slab.slab_size().is_multiple_of(page) && slab.slab_size() < 1 << 24, "{slab:?}");
    assert!(slab.slab_align() >= item.align() && slab.slab_align() >= page, "{slab:?}");
    assert!(slab.header().size() >= header_size(slab.items()), "{slab:?}");
    let room = |items| room(slab.slab_size(), item.size(), slab.stride(), items, place);
    // A slab that is larger than was wished for, because a smaller one would not hold an item, holds one.
    let full = !room(slab.items() + 1) || (slab.items() == 1 && slab.slab_size() > most(wish));
    assert!(room(slab.items()) && full, "as many items as fit: {slab:?}");
    match slab.header_offset() {
        Some(offset) => {
            assert!(place == HeaderPlace::Inside && !wish.no_touch, "{slab:?}");
            assert!(offset.is_multiple_of(slab.header().align()), "{slab:?}");
            assert_eq!(offset + slab.header().size(), slab.slab_size(), "right-justified");
        }
        None => assert!(place == HeaderPlace::Outside && wish.outside, "{slab:?}"),
    }
    if slab.items() > 1 {
        assert!(slab.slab_align() >= slab.slab_size(), "the base is found by a mask: {slab:?}");
    }
}

/// Under 2 % wherever a slab of at most 64 KiB, or of the largest size wished for, can.
fn wastes_little(slab: &SlabLayout, wish: &Layouts) {
    let (size, stride, page) = (slab.item().size(), slab.stride(), wish.page_size());
    let total = slab.slab_size() + slab.outside_bytes();
    let used = slab.items() * size;
    assert_eq!(slab.waste_permille() as usize, ((total - used) * 1000).div_ceil(total), "{slab:?}");
    if used * 50 > total * 49 {
        return;
    }
    for pages in 1..=most(wish) / page {
        for place in [HeaderPlace::Inside, HeaderPlace::Outside] {
            let allowed = if place == HeaderPlace::Inside { !wish.no_touch } else { wish.outside };
            if !allowed {
                continue;
            }
            let whole = pages * page;
            // The most that can fit without a header, and down from there.
            let mut items = if whole < size { 0 } else { (whole - size) / stride + 1 };
            while !room(whole, size, stride, items, place) {
                items -= 1;
            }
            let header = if place == HeaderPlace::Inside { 0 } else { header_size(items) };
            let fair = items * size * 50 > (whole + header) * 49;
            assert!(!fair, "{pages} pages, {place:?}, would waste under 2 %: {slab:?}");
        }
    }
}

/// A keg of such slabs: one slab full of items, and one item more.
fn serves(slab: &SlabLayout, wish: &Layouts) {
    if slab.slab_size() > 64 << 10 || slab.slab_align() > 1 << 20 {
        return;
    }
    let (pages, meta) = (Fake::with_page_size(wish.page_size()), HeapMeta::new());
    let keg = Keg::<_, OneThread, _>::with_layout(&pages, &meta, *slab);
    let mut model = Model::new(slab.item(), true);
    for _ in 0..=slab.items() {
        model.took(keg.alloc(Request::NOWAIT).expect("the heap has plenty"), false);
    }
    assert_eq!(pages.outstanding().runs, 2, "{slab:?}");
    // The last first, so that single bits are set in both slabs.
    for i in (0..=slab.items()).rev() {
        let item = model.give(i).expect("so many were taken");
        // SAFETY: an item of this keg, which the model gives up.
        unsafe { keg.free(item) };
    }
    assert_eq!((keg.live(), model.live()), (0, 0));
    drop(keg);
    assert_eq!((pages.outstanding().runs, meta.outstanding().runs), (0, 0), "{slab:?}");
}
