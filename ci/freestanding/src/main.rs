//! Proof that the `no_std` crates need nothing: a zone and an arena in `static`s, and checks before a keg, in
//! a process without `std`, without a C library, and without a heap.
//!
//! The zone's part allocates until the memory is used up, stamps every item, checks every stamp, frees all, and
//! does so again and again. An item handed out twice, or overlapping another, loses its stamp; an
//! item lost makes a later round smaller. Either ends the program with a message and status 1.

#![no_std]
#![no_main]

mod arena;
mod checks;
mod linux;
mod lock;
mod zone;

use core::alloc::Layout;
use core::mem::MaybeUninit;

use uma_core::{AllocError, Item, ItemSource, PageError, Reclaim, Request};

const ROUNDS: usize = 1000;

/// More than fit into the memory.
const MOST: usize = 4096;

/// Room to remember the items that are out.
struct Held {
    items: [MaybeUninit<Item>; MOST],
    count: usize,
}

impl Held {
    const fn new() -> Self {
        Self { items: [const { MaybeUninit::uninit() }; MOST], count: 0 }
    }

    fn items(&self) -> &[Item] {
        // SAFETY: the first `count` are initialised, by `fill`.
        unsafe { self.items[..self.count].assume_init_ref() }
    }

    /// Takes items until there are no more: one at a time, or in batches.
    fn fill(&mut self, zone: &impl ItemSource, batch: usize) {
        loop {
            let end = MOST.min(self.count + batch);
            let room = &mut self.items[self.count..end];
            assert!(!room.is_empty(), "more items than memory");
            let taken = match batch {
                1 => zone.alloc(Request::NOWAIT).map(|item| {
                    room[0].write(item);
                    1
                }),
                _ => zone.import(room, Request::NOWAIT),
            };
            match taken {
                Ok(taken) => self.count += taken,
                Err(AllocError::Pages(PageError::Exhausted)) => return,
                Err(error) => panic!("an allocation failed: {error}"),
            }
        }
    }

    /// Gives all items back: in one batch, or one at a time in an order that depends on the stride.
    fn empty(&mut self, zone: &impl ItemSource, stride: usize) {
        let items = self.items();
        if stride == 0 {
            // SAFETY: they came from this zone, are all different, and are forgotten below.
            unsafe { zone.release(items) };
        }
        for start in 0..stride {
            for &item in items.iter().skip(start).step_by(stride) {
                // SAFETY: as above; every index has one remainder by the stride.
                unsafe { zone.free(item) };
            }
        }
        self.count = 0;
    }
}

/// The words of an item, as the owner sees them.
fn words(item: Item, layout: Layout) -> impl Iterator<Item = *mut u64> {
    let first = item.cast::<u64>().as_ptr();
    (0..layout.size() / size_of::<u64>()).map(move |index| first.wrapping_add(index))
}

fn stamp(item: Item, layout: Layout, value: u64) {
    for word in words(item, layout) {
        // SAFETY: the word lies inside the item, which we own.
        unsafe { word.write_volatile(value) };
    }
}

fn is_stamped(item: Item, layout: Layout, value: u64) -> bool {
    // SAFETY: the words lie inside the item, which we own; `stamp` has written them.
    words(item, layout).all(|word| unsafe { word.read_volatile() } == value)
}

/// One round. Returns how many items there were.
fn round(zone: &impl ItemSource, held: &mut Held, number: usize) -> usize {
    let layout = zone.layout();
    held.fill(zone, [1, 7, 64][number % 3]);

    let value = |index: usize| (number as u64) << 32 | index as u64;
    for (index, &item) in held.items().iter().enumerate() {
        assert!(item.addr().is_multiple_of(layout.align()), "{item:?} is not aligned");
        stamp(item, layout, value(index));
    }
    for (index, &item) in held.items().iter().enumerate() {
        assert!(is_stamped(item, layout, value(index)), "{item:?} overlaps another item");
    }

    let count = held.count;
    held.empty(zone, number % 5);
    count
}

fn run() {
    let mut held = Held::new();
    let (zone, pages) = (&zone::ZONE, &zone::PAGES);
    let first = round(zone, &mut held, 0);
    assert!(first > 1000, "only {first} items");
    for number in 1..ROUNDS {
        let count = round(zone, &mut held, number);
        assert_eq!(count, first, "round {number} had another number of items than the first");
        assert_eq!(zone.source().live(), 0, "the keg counts items that came back");
        if number.is_multiple_of(10) {
            zone.reclaim(Reclaim::DrainCpu);
            let pages = pages.stats();
            assert_eq!(pages.free, pages.total, "a page did not come back");
        }
    }
    linux::print(format_args!("freestanding: {ROUNDS} rounds of {first} items, 0 lost"));
    linux::print(format_args!("freestanding: {} segments of an arena, 0 lost", arena::run()));
    linux::print(format_args!("freestanding: {} kinds of misuse found", checks::run()));
}
