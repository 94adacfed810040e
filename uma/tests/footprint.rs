//! What a million live items cost, and what is left of them: figures from the system, in a process of
//! their own (this file has one test, so nothing else runs beside it).

use std::alloc::Layout;

use uma::core::{Item, Request};
use uma::{RawZone, Reclaim};

const ITEMS: usize = 1_000_000;

/// Bytes resident, as Linux tells them.
fn resident() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size())
}

#[test]
fn a_million_items_cost_little_more_than_their_size_and_go_again() {
    if resident().is_none() {
        println!("NOT TESTED: no /proc/self/statm on this system");
        return;
    }
    let mut items: Vec<Item> = Vec::with_capacity(ITEMS);
    // Touch the vector's own memory, so that it is resident before we count.
    items.resize(ITEMS, Item::new(std::ptr::NonNull::dangling()));
    for size in [64, 200, 1000] {
        let layout = Layout::from_size_align(size, 8).unwrap();
        let zone = RawZone::builder("million", layout).build().unwrap();
        let before = resident().unwrap();
        for (n, place) in items.iter_mut().enumerate() {
            *place = zone.alloc(Request::NOWAIT).unwrap();
            // SAFETY: the item is ours.
            unsafe { place.as_ptr().write_bytes(n as u8, size) };
        }
        let per_item = (resident().unwrap() - before) as f64 / ITEMS as f64;
        println!("{size} bytes: {per_item:.2} resident per live item");
        assert!(per_item <= size as f64 * 1.02, "{per_item} bytes for {size}");

        for (n, &item) in items.iter().enumerate() {
            // SAFETY: the item is ours, and freed once.
            unsafe {
                assert_eq!(item.as_ptr().add(size - 1).read(), n as u8);
                zone.free(item);
            }
        }
        uma::reclaim(Reclaim::Drain);
        let left = resident().unwrap().saturating_sub(before) as f64 / ITEMS as f64;
        println!("{size} bytes: {left:.3} resident per item after all are freed");
        assert!(left < 1.0, "{left} bytes per item stay");
    }
}
