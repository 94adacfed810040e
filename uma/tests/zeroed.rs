//! A request for zeros gets all of them, whatever was in the item before.

use std::alloc::Layout;
use std::mem::MaybeUninit;

use uma::RawZone;
use uma::core::{Item, Request};

fn bytes(item: Item, size: usize) -> &'static mut [u8] {
    // SAFETY: the item is the caller's, of so many bytes, which it has written or asked to be zero.
    unsafe { std::slice::from_raw_parts_mut(item.as_ptr(), size) }
}

/// Zones of all sizes, each with items that were used, full of ones, and are free.
fn dirty(size: usize) -> RawZone {
    let zone = RawZone::builder("dirty", Layout::from_size_align(size, 1).unwrap());
    let zone = zone.build().unwrap();
    let items: Vec<_> = (0..300).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect();
    for item in items {
        // SAFETY: the item is ours, and it is used no more once it is freed.
        unsafe {
            item.as_ptr().write_bytes(0xff, size);
            zone.free(item);
        }
    }
    zone
}

const SIZES: [usize; 12] = [1, 2, 3, 7, 8, 9, 63, 64, 100, 1000, 4097, 70_000];

#[test]
fn one_item_is_zeroed_to_its_last_byte() {
    for size in SIZES {
        let zone = dirty(size);
        let items: Vec<_> = (0..400)
            .map(|at| match at % 2 {
                0 => zone.alloc(Request::NOWAIT.zeroed()).unwrap(),
                _ => {
                    let item = zone.alloc_or_null(Request::WAIT.zeroed());
                    Item::new(std::ptr::NonNull::new(item).unwrap())
                }
            })
            .collect();
        for item in items {
            assert!(bytes(item, size).iter().all(|&byte| byte == 0), "{size} bytes");
            // SAFETY: it came from this zone and is used no more.
            unsafe { zone.free(item) };
        }
    }
}

#[test]
fn so_is_every_item_of_a_batch() {
    for size in SIZES {
        let zone = dirty(size);
        let mut room = [MaybeUninit::uninit(); 350];
        zone.alloc_many(&mut room, Request::NOWAIT.zeroed()).unwrap();
        // SAFETY: all or nothing: all of them are there.
        let items = room.map(|item| unsafe { item.assume_init() });
        for item in items {
            assert!(bytes(item, size).iter().all(|&byte| byte == 0), "{size} bytes");
        }
        // SAFETY: they came from this zone and are used no more.
        unsafe { zone.free_many(&items) };
    }
}

#[test]
fn large_items_are_whole_and_not_hoarded() {
    let size = (16 << 20) + 5;
    let zone = RawZone::builder("large", Layout::from_size_align(size, 4096).unwrap());
    let zone = zone.build().unwrap();
    let items: Vec<_> = (0..3).map(|_| zone.alloc(Request::NOWAIT.zeroed()).unwrap()).collect();
    for (at, &item) in items.iter().enumerate() {
        assert_eq!(item.addr() % 4096, 0);
        let bytes = bytes(item, size);
        assert!(bytes.iter().all(|&byte| byte == 0));
        bytes[0] = 1;
        bytes[size - 1] = 2;
        assert!(items[..at].iter().all(|other| other.addr().abs_diff(item.addr()) >= size));
    }
    for item in items {
        // SAFETY: it came from this zone and is used no more.
        unsafe { zone.free(item) };
    }
    assert_eq!(zone.stats().cached, 0, "each CPU would keep many of them");
    zone.reclaim(uma::Reclaim::Drain);
    assert_eq!(zone.stats().bytes, 0);
}
