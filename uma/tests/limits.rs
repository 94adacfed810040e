//! Limits of zones of an ordinary process, with both ways to the slots: each case runs in a process of its
//! own, this program started again with `UMA_TEST_CASE` set.
#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::num::NonZeroU64;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use uma::cache::PerCpu;
use uma::core::{AllocError, Deadline, Item, Refused, Request};
use uma::{Host, ObjectCache, Park, Platform, RawZone, Reclaim, Zone, ZoneGroup};
use uma_testkit::in_a_copy;

/// Not a test: what the others start.
#[test]
fn a_case() {
    let Ok(case) = std::env::var("UMA_TEST_CASE") else { return };
    println!("mode={}", Host.cpus().mode());
    match case.as_str() {
        "exact" => exact(),
        "sleepers" => sleepers(),
        "group" => group(),
        "group sleepers" => group_sleepers(),
        "cached" => cached(),
        "fork" => fork(),
        _ => panic!("no case {case}"),
    }
}

fn in_both_modes(case: &str) {
    for mode in ["rseq", "locks"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_case", "--nocapture"]);
        let output = command.env("UMA_TEST_CASE", case).env("UMA_PERCPU", mode).output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        print!("{out}{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "case {case}, {mode}: {}", output.status);
        if !out.contains(&format!("mode={mode}")) {
            println!("NOT TESTED: {case} with {mode}, which there is not on this machine");
        }
    }
}

#[test]
fn exactly_so_many_can_be_live() {
    in_both_modes("exact");
}

#[test]
fn sleepers_finish_in_order() {
    in_both_modes("sleepers");
}

#[test]
fn a_group_drains_the_caches_of_all_its_zones() {
    in_both_modes("group");
}

#[test]
fn sleepers_of_a_group_finish_in_order() {
    in_both_modes("group sleepers");
}

#[test]
fn what_is_cached_is_bounded() {
    in_both_modes("cached");
}

#[test]
fn a_group_goes_on_in_a_copy() {
    in_both_modes("fork");
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// The CPUs that this process may run on.
fn cpus() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// Runs `body` once on each CPU.
fn on_every_cpu(mut body: impl FnMut()) {
    let before = rustix::thread::sched_getaffinity(None).unwrap();
    for cpu in cpus() {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set).unwrap();
        body();
    }
    rustix::thread::sched_setaffinity(None, &before).unwrap();
}

fn take(zone: &RawZone, most: usize) -> Vec<Item> {
    (0..most).map_while(|_| zone.alloc(Request::NOWAIT).ok()).collect()
}

fn give(zone: &RawZone, items: Vec<Item>) {
    // SAFETY: every caller took them from this zone and gives them up.
    items.into_iter().for_each(|item| unsafe { zone.free(item) });
}

/// Leaves as many items in the caches of every CPU as they hold.
fn fill_caches(zone: &RawZone) {
    on_every_cpu(|| give(zone, take(zone, 1000)));
}

fn soon() -> Deadline {
    Park::deadline_in(Duration::from_millis(2))
}

fn max(items: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(items)
}

/// With the caches full on every CPU, N items can be live at once, and no more.
fn exact() {
    for limit in [1, 2, 7, 100, 10_000] {
        let zone = RawZone::builder("exact", layout(64)).max_items(limit as u64).build().unwrap();
        assert_eq!((zone.max_items(), zone.cur_items()), (max(limit as u64), 0));
        for _ in 0..2 {
            fill_caches(&zone);
            let held = zone.stats();
            assert!(held.cached != 0, "nothing is cached, so this shows nothing");
            let live = take(&zone, limit + 10);
            assert_eq!(live.len(), limit);
            assert_eq!((zone.cur_items(), zone.exhausted()), (limit as u64, false));
            assert_eq!(zone.alloc(Request::NOWAIT).unwrap_err().reason(), AllocError::Limit);
            let late = zone.alloc(Request::until(soon())).unwrap_err();
            assert_eq!(late.reason(), AllocError::TimedOut);
            assert_eq!(
                zone.wait_for_room(Request::NOWAIT).unwrap_err().reason(),
                AllocError::Limit
            );
            give(&zone, live);
            zone.wait_for_room(Request::WAIT).unwrap();
        }
        // From many threads at once: never more than so many, and each is served in the end.
        let (live, most) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let item = zone.alloc(Request::WAIT).unwrap();
                        most.fetch_max(live.fetch_add(1, SeqCst) + 1, SeqCst);
                        live.fetch_sub(1, SeqCst);
                        give(&zone, vec![item]);
                    }
                });
            }
        });
        assert!(most.into_inner() <= limit as u64);
        // And what is lowered and raised again is what counts then.
        zone.set_max_items(max(3)).unwrap();
        let live = take(&zone, 10);
        assert_eq!(live.len(), 3);
        zone.set_max_items(None).unwrap();
        assert_eq!(zone.max_items(), None);
        give(&zone, take(&zone, 2 * limit));
        give(&zone, live);
        assert_eq!(zone.cur_items(), 0);
    }
}

/// 64 sleepers, each in the queue before the next comes. An item goes to the next in line, so when one is
/// served, at most as many earlier ones as there are other items have not said so yet: with one item the
/// order is exact.
fn sleepers() {
    for limit in [1, 4] {
        let zone = Zone::<u64>::builder("sleepers").max_items(limit).build().unwrap();
        let mut held: Vec<_> = (0..limit).map(|n| zone.alloc(n).unwrap()).collect();
        let served = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for number in 0..64 {
                let (zone, served) = (&zone, &served);
                scope.spawn(move || {
                    let value = zone.alloc(number).unwrap();
                    served.lock().unwrap().push(*value);
                });
                while zone.as_raw().stats().sleepers != number + 1 {
                    thread::yield_now();
                }
            }
            assert!(zone.exhausted());
            // Who does not wait does not overtake those who do.
            assert!(zone.try_alloc(99).is_err());
            held.clear();
        });
        let served = served.into_inner().unwrap();
        check_order(&served, limit as usize - 1);
        assert_eq!((zone.exhausted(), zone.cur_items()), (false, 0));
    }
}

/// All 64 are served, and none is before more than `tolerance` of those who came earlier.
fn check_order(served: &[u64], tolerance: usize) {
    assert_eq!(served.len(), 64);
    for (at, number) in served.iter().enumerate() {
        let overtaken = served[at..].iter().filter(|later| *later < number).count();
        assert!(overtaken <= tolerance, "{number} overtook {overtaken}: {served:?}");
    }
}

static MACHINE: ZoneGroup = ZoneGroup::new("machine", NonZeroU64::new(64 << 10), Park);
static PART: ZoneGroup = ZoneGroup::within(&MACHINE, "part", NonZeroU64::new(48 << 10), Park);

/// Zones of different sizes, all of whose caches are full: whatever one of them asks for it gets, up to the
/// last byte.
fn group() {
    let big = RawZone::builder("big", layout(1024)).group(&PART).build().unwrap();
    let small = RawZone::builder("small", layout(60)).group(&PART).build().unwrap();
    let other = RawZone::builder("other", layout(512)).group(&MACHINE).build().unwrap();
    for _ in 0..3 {
        for zone in [&big, &small, &other] {
            fill_caches(zone);
        }
        assert!(MACHINE.bytes() <= 64 << 10 && PART.bytes() <= 48 << 10);
        let bigs = take(&big, 100);
        assert_eq!(bigs.len(), 48, "the part is 48 KiB");
        assert_eq!(small.alloc(Request::NOWAIT).unwrap_err().reason(), AllocError::GroupLimit);
        assert_eq!(small.full_group().unwrap().name().as_str(), "part");
        assert!(other.full_group().is_none());
        let late = small.alloc(Request::until(soon())).unwrap_err();
        assert_eq!(late.reason(), AllocError::TimedOut);
        let others = take(&other, 100);
        assert_eq!(others.len(), 32, "the machine has 16 KiB more");
        assert_eq!(MACHINE.bytes(), 64 << 10);
        give(&big, bigs);
        // What the big ones left in their caches is found by the others.
        let smalls = take(&small, 10_000);
        assert_eq!(smalls.len(), (48 << 10) / 64, "an item counts as a multiple of its alignment");
        give(&small, smalls);
        give(&other, others);
        let others = take(&other, 1000);
        assert_eq!(others.len(), 128, "the machine is 64 KiB");
        assert_eq!(small.full_group().unwrap().name().as_str(), "machine");
        give(&other, others);
    }
    // A limit of its own comes first, and an item that is larger than the group is refused at once.
    small.set_max_items(max(5)).unwrap();
    let five = take(&small, 10);
    assert_eq!(small.alloc(Request::NOWAIT).unwrap_err().reason(), AllocError::Limit);
    give(&small, five);
    PART.set_max_bytes(NonZeroU64::new(1000));
    big.reclaim(Reclaim::DrainCpu);
    assert_eq!(big.alloc(Request::WAIT).unwrap_err().reason(), AllocError::GroupLimit);
    PART.set_max_bytes(NonZeroU64::new(48 << 10));
    drop((big, small, other));
    assert_eq!((MACHINE.bytes(), PART.bytes()), (0, 0));
}

/// Sleepers of two zones in one queue; what a third frees serves them, one after the other.
fn group_sleepers() {
    let zones = ["a", "b"].map(|name| Zone::<[u64; 64]>::builder(name).group(&PART).build());
    let [a, b] = zones.map(Result::unwrap);
    let fillers = RawZone::builder("filler", layout(2048)).group(&MACHINE).build().unwrap();
    // The machine is full but for nothing.
    let mut held = take(&fillers, 100);
    assert_eq!(held.len(), 32);
    let served = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..64 {
            let (zone, served) = (if number % 3 == 0 { &a } else { &b }, &served);
            scope.spawn(move || {
                let value = zone.alloc([number; 64]).unwrap();
                served.lock().unwrap().push(value[0]);
            });
            while MACHINE.sleepers() != number + 1 {
                thread::yield_now();
            }
        }
        assert!(a.exhausted() && b.exhausted());
        // Room for 4 at a time.
        give(&fillers, held.split_off(31));
        while served.lock().unwrap().len() != 64 {
            thread::yield_now();
        }
    });
    check_order(&served.into_inner().unwrap(), 3);
    assert!(!a.exhausted() && !b.exhausted());
    give(&fillers, held);
    drop((a, b, fillers));
    assert_eq!((MACHINE.bytes(), PART.bytes()), (0, 0));
}

fn cached() {
    let slots = Host.cpus().cpus() as u64;
    for bound in [0, 1, 2 * slots - 1, 2 * slots, 100, 1000] {
        let zone = RawZone::builder("bounded", layout(64)).max_cached(bound).build().unwrap();
        assert_eq!(zone.max_cached(), Some(bound));
        fill_caches(&zone);
        let stats = zone.stats();
        assert!(stats.cached <= bound, "{} of {bound}: {stats:?}", stats.cached);
        assert_eq!(stats.cached == 0, bound < 2 * slots, "{stats:?}");
    }
    // While it is in use.
    let zone = RawZone::builder("changing", layout(64)).build().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    give(&zone, take(&zone, 700));
                }
            });
        }
        for _ in 0..50 {
            for bound in [Some(200), Some(0), None, Some(40)] {
                zone.set_max_cached(bound).unwrap();
                thread::yield_now();
            }
        }
        stop.store(true, SeqCst);
    });
    let stats = zone.stats();
    assert!(stats.cached <= 40, "{stats:?}");
    assert_eq!(stats.used(), 0);
    zone.set_max_cached(None).unwrap();
    fill_caches(&zone);
    assert!(zone.stats().cached > 400, "the bound is lifted: {:?}", zone.stats());
}

fn fork() {
    let zones = [1, 2].map(|_| Zone::<[u64; 64]>::builder("forking").group(&PART).build().unwrap());
    let [a, b] = &zones;
    let mut held = Vec::new();
    while let Ok(value) = a.try_alloc([0; 64]) {
        held.push(value);
    }
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| b.alloc([1; 64]).unwrap()[0]);
        while !b.exhausted() {
            thread::yield_now();
        }
        let status = in_a_copy(|| {
            let full = a.try_alloc([2; 64]).is_err() && !b.exhausted();
            drop(held.pop());
            full && b.try_alloc([3; 64]).is_ok() && a.alloc([4; 64]).is_ok()
        });
        held.clear();
        assert_eq!(sleeper.join().unwrap(), 1);
        assert_eq!(status, 0, "the child ended with status {status:#x}");
    });
}

/// Who waits for an item that is larger than a group's lowered limit is refused at once, also behind one who
/// goes on waiting.
#[test]
fn a_lowered_group_refuses_what_it_can_never_hold() {
    static GROUP: ZoneGroup = ZoneGroup::new("lowered", NonZeroU64::new(96), Park);
    let zone = |size| RawZone::builder("lowered", layout(size)).bucket(0).group(&GROUP).build();
    let [small, large] = [32, 64].map(|size| zone(size).unwrap());
    let held = take(&small, 10);
    assert_eq!(held.len(), 3);
    // Long enough for any machine; only a mistake waits so long.
    let late = Request::until(Park::deadline_in(Duration::from_secs(300)));
    thread::scope(|scope| {
        let threads: Vec<_> = [&small, &large, &small, &large]
            .into_iter()
            .enumerate()
            .map(|(number, zone)| {
                let thread = scope.spawn(move || zone.alloc(late));
                while GROUP.sleepers() != number as u64 + 1 {
                    thread::yield_now();
                }
                thread
            })
            .collect();
        GROUP.set_max_bytes(NonZeroU64::new(40));
        let [first, second, third, fourth] = <[_; 4]>::try_from(threads).unwrap();
        for refused in [fourth, second] {
            let error = refused.join().unwrap().unwrap_err();
            assert_eq!(error.reason(), AllocError::GroupLimit);
        }
        assert_eq!((first.is_finished(), third.is_finished(), GROUP.sleepers()), (false, false, 2));
        give(&small, held);
        let item = first.join().unwrap().unwrap();
        give(&small, vec![item]);
        let item = third.join().unwrap().unwrap();
        give(&small, vec![item]);
    });
    assert_eq!(GROUP.bytes(), 0);
}

/// What a zone leaves in use when it ends goes on counting in its groups, until somebody writes it off.
#[test]
fn lost_items_count_until_they_are_written_off() {
    static ROOT: ZoneGroup = ZoneGroup::new("root", NonZeroU64::new(1000), Park);
    static LEAF: ZoneGroup = ZoneGroup::within(&ROOT, "leaf", None, Park);
    let zone = |group| RawZone::builder("leaky", layout(100)).group(group).build().unwrap();
    let each = layout(100).pad_to_align().size() as u64;
    let leaf = zone(&LEAF);
    let items = take(&leaf, 3);
    let returned = take(&leaf, 2);
    give(&leaf, returned);
    drop(leaf);
    let root = zone(&ROOT);
    let more = take(&root, 1);
    drop(root);
    assert_eq!((items.len(), more.len()), (3, 1));
    assert_eq!((LEAF.lost_bytes(), LEAF.bytes()), (3 * each, 3 * each));
    assert_eq!((ROOT.lost_bytes(), ROOT.bytes()), (4 * each, 4 * each));
    let next = zone(&ROOT);
    let room = take(&next, 100);
    assert_eq!(room.len() as u64, 1000 / each - 4, "what leaks is bounded, too");
    assert_eq!(LEAF.write_off(), 3 * each);
    assert_eq!((LEAF.lost_bytes(), LEAF.bytes()), (0, 0));
    assert_eq!((ROOT.lost_bytes(), ROOT.bytes()), (each, (room.len() as u64 + 1) * each));
    assert_eq!((ROOT.write_off(), ROOT.write_off(), LEAF.write_off()), (each, 0, 0));
    let rest = take(&next, 100);
    assert_eq!((room.len() + rest.len()) as u64, 1000 / each);
    give(&next, room);
    give(&next, rest);
    drop(next);
    assert_eq!((ROOT.bytes(), ROOT.lost_bytes()), (0, 0));
}

/// A ctor that fails on an item from the caches does not cost a place.
#[test]
fn a_ctor_that_fails_gives_its_place_back() {
    static FAILS: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    let cache = ObjectCache::<u64>::builder("failing").init(|| 0);
    let cache = cache.try_ctor(|_| if FAILS.load(SeqCst) { Err(Refused) } else { Ok(()) });
    let cache = cache.max_items(10).build().unwrap();
    drop((0..10).map(|_| cache.try_get().unwrap()).collect::<Vec<_>>());
    FAILS.store(true, SeqCst);
    for _ in 0..100 {
        assert_eq!(cache.try_get().unwrap_err().reason(), AllocError::Refused);
    }
    FAILS.store(false, SeqCst);
    assert_eq!(cache.cur_items(), 0);
    let all: Vec<_> = (0..11).map_while(|_| cache.try_get().ok()).collect();
    assert_eq!((all.len(), cache.cur_items()), (10, 10));
}

/// Each free wakes one sleeper, whichever way it comes, and no other.
#[test]
fn one_free_serves_one_sleeper() {
    let zone = Zone::<u64>::builder("one by one").max_items(8).build().unwrap();
    let mut held: Vec<_> = (0..8).map(|n| zone.alloc(n).unwrap()).collect();
    let served = AtomicU64::new(0);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let (zone, served) = (&zone, &served);
                scope.spawn(move || {
                    let value = zone.alloc(n).unwrap();
                    served.fetch_add(1, SeqCst);
                    value
                })
            })
            .collect();
        while zone.stats().sleepers != 8 {
            thread::yield_now();
        }
        for freed in 1..=8 {
            drop(held.pop());
            while served.load(SeqCst) != freed {
                thread::yield_now();
            }
            assert_eq!(zone.stats().sleepers, 8 - freed);
        }
        // They hold what they got until here.
        drop(threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>());
    });
    assert_eq!(zone.cur_items(), 0);
}
