//! The hit path, by itself: two functions that the compiler may not inline, so that their instructions
//! can be looked at.
//!
//! `ci/fast-path.sh` disassembles them, follows the path of a hit, and compares it with the copy in
//! `docs/fast-path.txt`.

use std::hint::black_box;

use uma::core::{Item, Request};
use uma::{RawZone, Zone, ZoneBox};

/// `RawZone::alloc_or_null` on a hit.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fast_path_alloc(zone: &RawZone) -> *mut u8 {
    zone.alloc_or_null(Request::NOWAIT)
}

/// `RawZone::free` on a hit.
///
/// # Safety
///
/// As [`RawZone::free`].
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn fast_path_free(zone: &RawZone, item: Item) {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { zone.free(item) };
}

/// `Zone::alloc` and the drop of its box, on hits, for a value of one word.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fast_path_pair(zone: &Zone<u64>, value: u64) {
    let place: Option<ZoneBox<'_, u64>> = zone.alloc(value).ok();
    black_box(place.as_deref());
}

fn main() {
    let layout = std::alloc::Layout::from_size_align(64, 8).expect("a good layout");
    let raw = RawZone::builder("raw", layout).build().expect("a zone");
    let typed = Zone::<u64>::builder("typed").build().expect("a zone");
    for value in 0..1000 {
        let item = fast_path_alloc(black_box(&raw));
        let item = Item::new(std::ptr::NonNull::new(item).expect("an item"));
        // SAFETY: allocated just now.
        unsafe { fast_path_free(black_box(&raw), item) };
        fast_path_pair(black_box(&typed), value);
    }
    println!("{}", uma::stat());
}
