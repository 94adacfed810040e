//! Destroying zones: at once, or not, or after waiting.

use std::cell::{Cell, RefCell};

use uma::core::{ConfigFault, Deadline, Hooks, Request};
use uma::{Hardening, RawZone, Reclaim, align_of_mask};
use uma_testkit::{caught, machine};

use crate::toy::{On, Toy, counting, give, layout, take};

#[test]
fn a_busy_zone_comes_back_and_says_what_is_out() {
    let toy = Toy::new();
    let hooks = counting();
    let zone = RawZone::builder_in("busy", layout(64, 8), On(&toy));
    // SAFETY: the hooks touch nothing.
    let zone = unsafe { zone.hooks(hooks) }.build().unwrap();
    let mut items = take(&zone, 12);
    let rest = items.split_off(2);
    give(&zone, rest);
    let busy = zone.try_destroy().unwrap_err();
    assert_eq!((busy.in_use.items(), busy.in_use.zone().as_str()), (2, "busy"));
    let mut addresses = [items[0].addr(), items[1].addr()];
    addresses.sort_unstable();
    assert_eq!(busy.in_use.addresses(), addresses);
    let text =
        format!("2 items of zone \"busy\" are in use: {:#x}, {:#x}", addresses[0], addresses[1]);
    assert_eq!(busy.to_string(), text);
    // It is as before, and listed.
    let zone = busy.zone;
    assert_eq!(toy.names(), ["busy"]);
    items.extend(take(&zone, 3));
    give(&zone, items);
    zone.try_destroy().unwrap();
    hooks.assert_balanced();
    toy.assert_clean();
}

#[test]
fn a_zone_that_was_never_used_is_destroyed() {
    let toy = Toy::new();
    let zone = RawZone::builder_in("unused", layout(64, 8), On(&toy)).lazy();
    zone.wait_unused(Deadline::at(0)).unwrap();
    zone.try_destroy().unwrap();
    toy.assert_clean();
}

#[test]
fn waiting_ends_when_the_last_item_comes_back() {
    let toy = Toy::new();
    let zone = RawZone::builder_in("wait", layout(64, 8), On(&toy)).build().unwrap();
    let items = RefCell::new(take(&zone, 5));
    let in_use = zone.wait_unused(Deadline::at(10)).unwrap_err();
    assert_eq!((in_use.items(), machine::clock()), (5, 10));
    let others = || {
        machine::run_on(machine::clock() as usize % 3);
        let item = items.borrow_mut().pop();
        give(&zone, item.into_iter().collect());
    };
    machine::while_asleep(&others, || zone.wait_unused(Deadline::at(1000))).unwrap();
    assert_eq!(machine::clock(), 15);
    zone.try_destroy().unwrap();
    toy.assert_clean();
}

#[test]
fn dropping_a_busy_zone_reports_and_keeps_the_memory() {
    let toy = Toy::new();
    let zone = RawZone::builder_in("leaky", layout(64, 8), On(&toy)).build().unwrap();
    let items = take(&zone, 3);
    drop(zone);
    let report = toy.reports.lock().unwrap().pop().unwrap();
    assert!(report.contains("\"leaky\" was destroyed with 3 items in use"), "{report}");
    assert!(report.contains(&format!("{:#x}", items[0].addr())), "{report}");
    crate::toy::bytes(items[2], 64).fill(1);
    assert_eq!(toy.names(), [""; 0]);
    std::mem::forget(toy);
}

/// FreeBSD's timer and reclaim raced with the destruction of zones: half-built ones were seen, and gone
/// ones used.
#[test]
fn zones_come_and_go_beside_reclaim() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for mode in [Reclaim::Trim, Reclaim::DrainCpu] {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    uma::reclaim(mode);
                    let _ = uma::zones();
                }
            });
        }
        let makers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for round in 0..150 {
                        let zone =
                            RawZone::builder("comes and goes", layout(48, 8)).build().unwrap();
                        let second = zone.secondary("goes with it").build().unwrap();
                        let items: Vec<_> =
                            (0..50).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect();
                        let more: Vec<_> =
                            (0..50).map(|_| second.alloc(Request::NOWAIT).unwrap()).collect();
                        // SAFETY: each goes back where it came from.
                        unsafe {
                            items.into_iter().for_each(|item| zone.free(item));
                            if round % 2 == 0 {
                                zone.try_destroy().unwrap();
                            } else {
                                drop(zone);
                            }
                            more.into_iter().for_each(|item| second.free(item));
                        }
                        second.try_destroy().unwrap();
                    }
                })
            })
            .collect();
        makers.into_iter().for_each(|maker| maker.join().unwrap());
        over.store(true, Ordering::Relaxed);
    });
    assert!(uma::zones().iter().all(|zone| !zone.name.as_str().contains("goes")));
}

#[test]
fn alignment_masks_of_zone_9() {
    assert_eq!(align_of_mask(0), Ok(1));
    assert_eq!(align_of_mask(7), Ok(8));
    assert_eq!(align_of_mask(4095), Ok(4096));
    for bad in [2, 4, 8, 62, 64, usize::MAX, i32::MAX as usize + 1] {
        assert_eq!(align_of_mask(bad), Err(ConfigFault::BadAlign), "{bad}");
    }
    let toy = Toy::new();
    let builder = || RawZone::builder_in("mask", layout(1, 1), On(&toy));
    let zone = builder().size_align_mask(40, 15).build().unwrap();
    let items = take(&zone, 10);
    assert!(items.iter().all(|item| item.addr() % 16 == 0));
    give(&zone, items);
    let error = builder().size_align_mask(40, 16).build().unwrap_err();
    assert_eq!(error.fault, ConfigFault::BadAlign);
    drop(zone);
    toy.assert_clean();
}

/// Two first uses at once, of which one loses, and whose hooks end badly then: nothing of it stays behind.
#[test]
fn the_loser_of_a_race_leaves_nothing() {
    type Raced = RawZone<On<'static>, Racing>;

    thread_local! {
        /// The zone that somebody else is to make first.
        static FIRST: Cell<Option<&'static Raced>> = const { Cell::new(None) };
        static PANICS: Cell<bool> = const { Cell::new(false) };
    }

    struct Racing;

    impl Hooks for Racing {}

    impl Clone for Racing {
        fn clone(&self) -> Self {
            if let Some(zone) = FIRST.take() {
                zone.set_reserve(0).unwrap();
                PANICS.set(true);
            }
            Self
        }
    }

    impl Drop for Racing {
        fn drop(&mut self) {
            assert!(!PANICS.take(), "as planned");
        }
    }

    for hardening in [Hardening::RELEASE, Hardening::DEBUG] {
        let on = Toy::leaked();
        let builder = RawZone::builder_in("raced", layout(64, 8), on).hardening(hardening);
        // SAFETY: the hooks touch nothing.
        let zone = Box::into_raw(Box::new(unsafe { builder.hooks(Racing) }.lazy()));
        // SAFETY: it stays until the end of the test.
        FIRST.set(Some(unsafe { &*zone }));
        // SAFETY: as above.
        assert!(caught(|| drop(take(unsafe { &*zone }, 1))).is_err());
        assert!(!PANICS.get());
        assert_eq!(on.0.names(), ["raced"]);
        // SAFETY: as above; nobody else has it any more.
        let zone = unsafe { Box::from_raw(zone) };
        let items = take(&zone, 10);
        give(&zone, items);
        drop(zone);
        on.0.assert_clean();
    }
}
