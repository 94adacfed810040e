//! Each check alone, over sources of the test kit: what is found, what is reported, and that nothing else is
//! disturbed.

use std::alloc::Layout;
use std::fmt::Write;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RawMutex;
use uma_core::{
    AllocError, Constructed, Item, ItemSource, Name, PageSupplier, Reclaim, Request, Stats,
};
use uma_debug::{
    Checked, Checks, Fault, GuardPool, Hardening, Padded, Pads, Report, SLOTS, Subject, Trace,
    Verdict, Watched, Witness,
};
use uma_keg::{Keg, SlabConfig};
use uma_testkit::hooks::{CountingHooks, Hook};
use uma_testkit::{Fake, HeapMeta, Pool, caught, conformance};

/// Keeps the reports, and lets the program go on.
#[derive(Default)]
struct Clerk {
    faults: Mutex<Vec<(Fault, usize)>>,
    text: Mutex<String>,
    panics: AtomicBool,
}

impl Witness for Clerk {
    fn thread(&self) -> u64 {
        7
    }

    fn trace(&self, frames: &mut [usize; uma_debug::FRAMES]) -> usize {
        frames[..2].copy_from_slice(&[0x1234, 0x5678]);
        2
    }

    fn owner(&self, address: usize) -> Option<Name> {
        (address == 0xabc0).then(|| Name::new("another"))
    }

    fn misuse(&self, report: &Report<'_>) -> Verdict {
        self.faults.lock().unwrap().push((report.fault(), report.address()));
        write!(self.text.lock().unwrap(), "{report}").unwrap();
        assert!(!self.panics.load(Ordering::Relaxed), "as planned");
        Verdict::Ignore
    }
}

impl Clerk {
    fn faults(&self) -> Vec<Fault> {
        std::mem::take(&mut *self.faults.lock().unwrap())
            .into_iter()
            .map(|(fault, _)| fault)
            .collect()
    }
}

type Marks<'a> = Checks<RawMutex, &'a HeapMeta, &'a Clerk>;
type Slabs<'a> = Padded<Keg<&'a Fake, RawMutex>>;
type Below<'a> = Watched<Slabs<'a>, RawMutex, &'a HeapMeta, &'a Clerk>;
type Zone<'a> = Checked<'a, Below<'a>, RawMutex, &'a HeapMeta, &'a Clerk>;

#[derive(Default)]
struct Bench {
    pages: Fake,
    meta: HeapMeta,
    clerk: Clerk,
}

impl Bench {
    fn checks(&self, size: usize, tier: Hardening, keeps_state: bool) -> Marks<'_> {
        let pads = Pads::new(Layout::from_size_align(size, 8).unwrap(), &tier).unwrap();
        let zone = Name::new("bench");
        let subject = Subject { zone, pads, slab_align: 0, keeps_state, no_touch: false };
        Checks::new(subject, tier, &self.meta, &self.clerk).unwrap()
    }

    /// Calls `test` with a zone over slabs, and looks that nothing is lost and nothing left to report.
    fn with(
        self,
        size: usize,
        tier: Hardening,
        keeps_state: bool,
        test: impl FnOnce(&Self, &Zone<'_>),
    ) {
        let checks = self.checks(size, tier, keeps_state);
        let pads = *checks.pads();
        let keg = Keg::new(&self.pages, pads.outer(), SlabConfig::new()).unwrap();
        // SAFETY: the keg is of the outer layout; the checks are dropped after all this.
        let zone = unsafe {
            let watched = Watched::new(Padded::new(keg, pads), Some(NonNull::from(&checks)));
            Checked::new(watched, &checks)
        };
        test(&self, &zone);
        assert_eq!(self.clerk.faults(), []);
        zone.checks().for_each_live(&mut |item, _| {
            free(
                &zone,
                Item::new(NonNull::new(std::ptr::with_exposed_provenance_mut(item)).unwrap()),
            );
        });
        zone.reclaim(Reclaim::DrainCpu);
        assert_eq!(zone.source().source().source().live(), 0);
        self.clerk.faults();
        drop(zone);
        drop(checks);
        assert_eq!(self.pages.outstanding().runs, 0);
        assert_eq!(self.meta.outstanding().runs, 0);
    }
}

fn take(zone: &Zone<'_>) -> Item {
    zone.alloc(Request::NOWAIT).unwrap()
}

fn free(zone: &Zone<'_>, item: Item) {
    // SAFETY: the item came from the zone, or is the misuse under test, which does nothing.
    unsafe { zone.free(item) };
}

fn at(item: Item, offset: isize) -> *mut u8 {
    item.as_ptr().wrapping_offset(offset)
}

/// The same without waiting in quarantine: an item that is freed is allocated next.
const AT_ONCE: Hardening = Hardening::DEBUG.quarantine(0);

/// A free whose report unwinds has not happened: the item is in use still, and can be freed.
#[test]
fn a_free_that_unwinds_loses_nothing() {
    Bench::default().with(61, AT_ONCE, false, |bench, zone| {
        let item = take(zone);
        // SAFETY: it lies in the red zone behind the item.
        unsafe { at(item, 61).write(1) };
        bench.clerk.panics.store(true, Ordering::Relaxed);
        caught(|| free(zone, item)).expect_err("the report unwinds");
        bench.clerk.panics.store(false, Ordering::Relaxed);
        assert_eq!(bench.clerk.faults(), [Fault::Overflow(0, 1)]);
        assert!(zone.checks().holds(item.addr()));
        free(zone, item);
        assert_eq!(bench.clerk.faults(), [Fault::Overflow(0, 1)]);
        assert!(!zone.checks().holds(item.addr()));
    });
}

/// Items on their way to their slabs get there, each once, also if the report of one unwinds; and of the others
/// nothing is said later, however their memory looks when they are allocated again.
#[test]
fn items_that_leave_are_not_lost() {
    let tier = Hardening::DEBUG.quarantine(100);
    for at_once in [false, true] {
        Bench::default().with(61, tier, false, |bench, zone| {
            let slabs = zone.source().source().source();
            let items = [(); 3].map(|()| take(zone));
            items.into_iter().for_each(|item| free(zone, item));
            let mut rested = Vec::new();
            zone.checks().flush(&mut |item| rested.push(item));
            assert_eq!((rested.len(), slabs.live()), (3, 3));
            // SAFETY: the item is ours, as all of them.
            unsafe { at(rested[1], 20).write(1) };
            bench.clerk.panics.store(true, Ordering::Relaxed);
            // SAFETY: as above, and they are given up.
            let gone = caught(|| unsafe {
                if at_once {
                    zone.source().release(&rested);
                } else {
                    rested.iter().for_each(|&item| {
                        let _ = caught(|| zone.source().discard(item));
                    });
                }
            });
            bench.clerk.panics.store(false, Ordering::Relaxed);
            assert_eq!(gone.is_err(), at_once);
            assert_eq!(bench.clerk.faults(), [Fault::WriteAfterFree(20, 1)]);
            assert_eq!(slabs.live(), 0);
            // SAFETY: the slab is there still, and what lies in it nobody's.
            rested.iter().for_each(|&item| unsafe { at(item, 30).write(2) });
            let again = [(); 3].map(|()| take(zone));
            assert!(rested.iter().all(|item| again.contains(item)));
            again.into_iter().for_each(|item| free(zone, item));
        });
    }
}

/// What is in quarantine stays there until it is asked for by name.
#[test]
fn only_a_drain_empties_the_quarantine() {
    Bench::default().with(61, Hardening::DEBUG.quarantine(100), false, |_, zone| {
        free(zone, take(zone));
        for mode in [Reclaim::Idle, Reclaim::Trim] {
            zone.reclaim(mode);
            assert_eq!(zone.checks().quarantined(), 1, "after {mode:?}");
        }
        zone.reclaim(Reclaim::Drain);
        assert_eq!(zone.checks().quarantined(), 0);
    });
}

type Made<'a> = Constructed<&'a Pool, &'a CountingHooks>;

/// Calls `test` with checks, and a quarantine of so many items, over hooks that unwind by plan.
fn over_hooks(
    quarantine: u32,
    test: impl Fn(&Checked<'_, Made<'_>, RawMutex, &HeapMeta, &Clerk>, &Pool, &CountingHooks),
) {
    let (bench, hooks) = (Bench::default(), CountingHooks::new());
    let checks = bench.checks(64, Hardening::ASAN.red_zones(false).quarantine(quarantine), true);
    let pool = Pool::new(checks.pads().outer(), 100, 1);
    // SAFETY: the hooks touch no item; and nothing is filled, nor summed up.
    let zone = unsafe { Checked::new(Constructed::new(&pool, &hooks), &checks) };
    test(&zone, &pool, &hooks);
    drop(zone);
    assert_eq!((pool.out(), hooks.constructed()), (0, 0), "items that were lost");
    assert_eq!(bench.clerk.faults(), []);
}

/// A batch of which one item unwinds, on its way up or down, loses none of the others.
#[test]
fn a_batch_that_unwinds_loses_nothing() {
    let batch = |zone: &dyn ItemSource| {
        let mut into = [MaybeUninit::new(Item::new(NonNull::dangling())); 5];
        let count = zone.import(&mut into, Request::NOWAIT).unwrap();
        // SAFETY: all were initialised.
        into[..count].iter().map(|item| unsafe { item.assume_init() }).collect::<Vec<_>>()
    };
    for k in 1..=5 {
        over_hooks(0, |zone, pool, hooks| {
            hooks.panic_at(Hook::Init, k);
            caught(|| batch(zone)).expect_err("an init unwinds");
            assert_eq!(pool.out(), 0, "items of a batch whose item {k} unwound");
            let items = batch(zone);
            assert_eq!((items.len(), pool.out()), (5, 5));
            hooks.panic_at(Hook::Fini, k);
            // SAFETY: the items came from there, and are given up.
            caught(|| unsafe { zone.release(&items) }).expect_err("a fini unwinds");
            assert_eq!(pool.out(), 0, "items of a batch whose item {k} unwound");
            zone.checks().for_each_live(&mut |item, _| panic!("{item:#x} is in use still"));
        });
    }
}

/// If what makes room in quarantine unwinds, whoever waits for an item gets the one that came in.
#[test]
fn a_free_that_unwinds_keeps_nobody_waiting() {
    over_hooks(1, |zone, pool, hooks| {
        let items = [(); 2].map(|()| zone.alloc(Request::NOWAIT).unwrap());
        // SAFETY: the items came from there, and each is given up once.
        unsafe { zone.free(items[0]) };
        assert_eq!(zone.checks().quarantined(), 1);
        pool.want(true);
        hooks.panic_at(Hook::Fini, 1);
        // SAFETY: as above.
        caught(|| unsafe { zone.free(items[1]) }).expect_err("a fini unwinds");
        assert_eq!((zone.checks().quarantined(), pool.out()), (0, 0));
    });
}

/// An item that cannot be noted goes back, and its user has had none.
#[test]
fn an_item_that_cannot_be_noted_does_not_count() {
    Bench::default().with(61, AT_ONCE, false, |bench, zone| {
        let counts = || {
            let mut stats = Stats::default();
            zone.visit_stats(&mut stats);
            (stats.allocs, stats.frees, stats.cached)
        };
        bench.meta.fail_at(1);
        assert_eq!(zone.alloc(Request::NOWAIT), Err(AllocError::Metadata));
        assert_eq!((counts(), zone.source().source().source().live()), ((0, 0, 0), 0));
        let item = take(zone);
        assert_eq!(counts(), (1, 0, 0));
        free(zone, item);
        assert_eq!(counts(), (1, 1, 0));
    });
}

#[test]
fn keeps_the_contract_of_sources() {
    let third = Hardening::DEBUG.divisor(3);
    for (tier, size) in [(Hardening::DEBUG, 61), (Hardening::HARDENED, 4000), (third, 7)] {
        Bench::default().with(size, tier, false, |_, zone| {
            conformance::item_source(zone);
            conformance::item_source_threads(zone);
            zone.reclaim(Reclaim::DrainCpu);
            assert_eq!(zone.source().source().source().live(), 0);
        });
    }
}

fn beside(item: Item, offset: isize) -> Item {
    Item::new(NonNull::new(at(item, offset)).unwrap())
}

#[test]
fn frees_that_are_none() {
    for tier in [Hardening::DEBUG, Hardening::HARDENED] {
        Bench::default().with(61, tier, false, |bench, zone| {
            let items: Vec<Item> = (0..500).map(|_| take(zone)).collect();
            let (a, b) = (items[100], items[200]);
            free(zone, a);
            free(zone, a);
            assert_eq!(bench.clerk.faults(), [Fault::DoubleFree]);
            // In the middle of one in use, and of a free one.
            for item in [b, a] {
                for offset in [1, 8, 60] {
                    free(zone, beside(item, offset));
                    assert_eq!(bench.clerk.faults(), [Fault::Interior(offset as usize)]);
                }
            }
            // Somebody else's, and nobody's.
            let theirs = Item::new(NonNull::new(std::ptr::without_provenance_mut(0xabc0)).unwrap());
            free(zone, theirs);
            assert_eq!(bench.clerk.faults(), [Fault::WrongZone(Name::new("another"))]);
            for address in [1, 0xabc1, usize::MAX] {
                free(
                    zone,
                    Item::new(NonNull::new(std::ptr::without_provenance_mut(address)).unwrap()),
                );
                assert_eq!(bench.clerk.faults(), [Fault::NoItem]);
            }
            // And nothing is wrong with the rest.
            items.into_iter().filter(|&item| item != a).for_each(|item| free(zone, item));
            zone.reclaim(Reclaim::DrainCpu);
            assert_eq!(zone.source().source().source().live(), 0);
            assert_eq!(bench.clerk.faults(), []);
        });
    }
}

/// Several threads free the same item: one of them does, and the others are told.
#[test]
fn of_several_frees_one_counts() {
    Bench::default().with(64, Hardening::HARDENED, false, |bench, zone| {
        for _ in 0..200 {
            let item = take(zone);
            std::thread::scope(|scope| {
                (0..3).for_each(|_| _ = scope.spawn(|| free(zone, item)));
            });
            assert_eq!(bench.clerk.faults(), [Fault::DoubleFree; 2]);
        }
    });
}

/// Each byte of each red zone, and none of the item.
#[test]
fn writes_beside_an_item() {
    for size in [1, 4, 7, 61, 100] {
        Bench::default().with(size, AT_ONCE, false, |bench, zone| {
            let pads = *zone.checks().pads();
            let (front, tail) = (pads.front() as isize, pads.tail() as isize);
            assert!(front >= 16 && tail >= 16);
            let size = size as isize;
            for offset in -front..size + tail {
                let item = take(zone);
                // SAFETY: inside the outer item.
                unsafe { at(item, offset).write(0x42) };
                free(zone, item);
                let expected = match offset {
                    ..0 => vec![Fault::Underflow(-offset as usize, 0x42)],
                    _ if offset >= size => vec![Fault::Overflow((offset - size) as usize, 0x42)],
                    _ => vec![],
                };
                assert_eq!(bench.clerk.faults(), expected, "at {offset} of {size}");
            }
        });
    }
}

/// One item of memory of the test's own, and what checks make of its life: so the same item comes back at
/// once.
struct One<'a> {
    marks: Marks<'a>,
    item: Item,
}

impl<'a> One<'a> {
    fn new(bench: &'a Bench, size: usize, tier: Hardening, keeps_state: bool) -> Self {
        let marks = bench.checks(size, tier.quarantine(0), keeps_state);
        let outer = vec![0_u64; marks.pads().outer().size() / 8 + 1].leak();
        let front = marks.pads().front() as isize;
        let item = beside(Item::new(NonNull::from_mut(outer).cast()), front);
        Self { marks, item }
    }

    fn alloc(&self) -> Item {
        // SAFETY: the item is the test's, and free.
        unsafe {
            self.marks.wake(self.item).unwrap();
            self.marks.hand_out(self.item);
        }
        self.item
    }

    fn free(&self) {
        // SAFETY: the item is the test's, and in use.
        unsafe {
            assert!(self.marks.take_back(self.item));
            assert_eq!(self.marks.rest(self.item), Some(self.item));
        }
    }

    fn leave(&self) {
        // SAFETY: the item is the test's, and free.
        unsafe { self.marks.leave(self.item) };
    }
}

/// Each byte of an item, for sizes with every remainder, both when it is allocated again and when it leaves:
/// the original's checks skip the last bytes of sizes that are no multiple of four.
#[test]
fn writes_after_free() {
    let bench = Bench::default();
    for tier in [Hardening::DEBUG, Hardening::HARDENED] {
        for size in [1, 2, 3, 8, 30, 61, 63] {
            let one = One::new(&bench, size, tier, false);
            for offset in 0..size as isize {
                one.alloc();
                one.free();
                // SAFETY: the memory is the test's.
                unsafe { at(one.item, offset).write(0x42) };
                let expected = [Fault::WriteAfterFree(offset as usize, 0x42)];
                one.alloc();
                assert_eq!(bench.clerk.faults(), expected, "at {offset} of {size}");
                one.free();
                // SAFETY: as above.
                unsafe { at(one.item, offset).write(0x42) };
                one.leave();
                assert_eq!(bench.clerk.faults(), expected, "at {offset} of {size}");
                // What it holds below is nobody's concern.
                one.alloc();
                one.free();
                assert_eq!(bench.clerk.faults(), []);
            }
        }
    }
}

/// What is constructed is not written over, and a change of any byte is seen, also of the last.
#[test]
fn changes_of_a_constructed_item() {
    let bench = Bench::default();
    for size in [1_usize, 7, 61, 64] {
        let one = One::new(&bench, size, Hardening::DEBUG, true);
        for offset in 0..size as isize {
            let item = one.alloc();
            // SAFETY: the item is ours, of this size.
            unsafe { item.as_ptr().write_bytes(0x33, size) };
            one.free();
            one.alloc();
            // SAFETY: as above.
            let kept = unsafe { std::slice::from_raw_parts(item.as_ptr(), size) };
            assert!(kept.iter().all(|&byte| byte == 0x33), "the state was lost");
            assert_eq!(bench.clerk.faults(), []);
            one.free();
            // SAFETY: the memory is the test's.
            unsafe { at(item, offset).write(0x34) };
            one.alloc();
            assert_eq!(bench.clerk.faults(), [Fault::Changed], "at {offset} of {size}");
            one.free();
            // SAFETY: as above.
            unsafe { at(item, offset).write(0x35) };
            one.leave();
            assert_eq!(bench.clerk.faults(), [Fault::Changed], "at {offset} of {size}");
        }
    }
}

/// What is looked after, one item in four; live marks are of all.
#[test]
fn a_divisor() {
    Bench::default().with(64, AT_ONCE.divisor(4), false, |bench, zone| {
        let items: Vec<Item> = (0..1000).map(|_| take(zone)).collect();
        for &item in &items {
            // SAFETY: inside the outer item.
            unsafe { at(item, 64).write(0x42) };
            free(zone, item);
        }
        let found = bench.clerk.faults().len();
        assert!((200..300).contains(&found), "{found} of 1000");
        let (trashed, skipped) = zone.checks().trashed_and_skipped();
        assert_eq!((trashed as usize, skipped as usize), (found, 1000 - found));
        items.iter().for_each(|&item| free(zone, item));
        assert_eq!(bench.clerk.faults().len(), 1000, "double frees");
    });
}

/// An item that was freed waits for as many frees as the quarantine is long, by the thread that freed it.
#[test]
fn a_quarantine() {
    Bench::default().with(64, Hardening::HARDENED.quarantine(40), false, |_, zone| {
        let first = take(zone);
        free(zone, first);
        let mut others = 0;
        loop {
            let item = take(zone);
            if item == first {
                break;
            }
            free(zone, item);
            others += 1;
        }
        assert!((9..=11).contains(&others), "after {others} others in a quarter of 40");
        assert_eq!(zone.checks().quarantined(), 10);
        zone.reclaim(Reclaim::Drain);
        assert_eq!(zone.checks().quarantined(), 0);
    });
}

#[test]
fn a_report_says_who() {
    Bench::default().with(64, AT_ONCE, false, |bench, zone| {
        let item = take(zone);
        free(zone, item);
        free(zone, item);
        assert_eq!(bench.clerk.faults(), [Fault::DoubleFree]);
        let text = std::mem::take(&mut *bench.clerk.text.lock().unwrap());
        let address = format!("double free of the item at {:#x}", item.addr());
        for word in [
            "zone \"bench\" of 64-byte items: ",
            address.as_str(),
            "found by thread 7 at",
            "allocated by thread 7 at",
            "freed by thread 7 at",
            "0x1234",
            "0x5678",
        ] {
            assert!(text.contains(word), "no \"{word}\" in:\n{text}");
        }
        let mut live = Vec::new();
        let item = take(zone);
        zone.checks().for_each_live(&mut |item, trace| live.push((item, trace.unwrap().thread())));
        assert_eq!(live, [(item.addr(), 7)]);
        assert!(zone.checks().holds(item.addr() + 63) && !zone.checks().holds(item.addr() + 64));
    });
}

fn pool(pages: &Fake, size: usize, align: usize) -> GuardPool<RawMutex, &Fake> {
    GuardPool::new(pages, Layout::from_size_align(size, align).unwrap(), 10)
}

/// A trace of nobody.
fn nobody() -> Trace {
    Trace::default()
}

#[test]
fn a_pool_of_items_between_guard_pages() {
    for (size, align) in [(1, 1), (61, 1), (61, 8), (4096, 4096), (5000, 16)] {
        let pages = Fake::new();
        let pool = pool(&pages, size, align);
        let due = (0..1000).filter(|_| pool.is_due()).count();
        // Under AddressSanitizer the stack is not always in the same place.
        assert!((97..=100).contains(&due), "{due} of 1000");
        let shadow = |n: usize| Item::new(NonNull::without_provenance(n.try_into().unwrap()));
        let mut items: Vec<Item> = Vec::new();
        for n in 1..=SLOTS {
            let item = pool.place(shadow(n * 64), &nobody()).unwrap();
            assert!(pool.contains(item.addr()) && item.addr().is_multiple_of(align));
            assert!(pool.holds(item.addr()) && pool.holds(item.addr() + size - 1));
            // SAFETY: the item is ours, of this size.
            unsafe { item.as_ptr().write_bytes(0x42, size) };
            assert!(!items.contains(&item));
            items.push(item);
        }
        assert_eq!(pool.place(shadow(4), &nobody()), None, "there is room for no more");
        // SAFETY: each item is given up once; what is not taken back is not.
        unsafe {
            let bad = pool.take_back(beside(items[3], 1), &nobody());
            let expected = if size == 1 { Fault::NoItem } else { Fault::Interior(1) };
            assert_eq!(bad, Err(expected));
            for (n, &item) in items.iter().enumerate() {
                pool.take_back(item, &nobody()).unwrap();
                assert_eq!(pool.look(item), None);
                assert_eq!(pool.bury(item), Some(shadow((n + 1) * 64)));
                assert_eq!(pool.take_back(item, &nobody()), Err(Fault::DoubleFree));
                assert!(!pool.holds(item.addr()));
            }
        }
        // The one that was freed first is used first.
        let again = pool.place(shadow(4), &nobody()).unwrap();
        assert_eq!(again, items[0]);
        // SAFETY: as above.
        unsafe {
            pool.take_back(again, &nobody()).unwrap();
            pool.bury(again);
        }
        drop(pool);
        assert_eq!(pages.outstanding().runs, 0);
    }
}

/// What is left of its pages beside an item is a red zone, to the last byte.
#[test]
fn writes_beside_an_item_in_the_pool() {
    let pages = Fake::new();
    let page = pages.page_size() as isize;
    let pool = pool(&pages, 61, 8);
    let shadow = Item::new(NonNull::without_provenance(64.try_into().unwrap()));
    // The first two slots: at the end of its pages, and in front.
    for (from, to) in [(64 - page, 64), (0, page)] {
        for offset in (from..to).step_by(1) {
            if ![-1, 0, 60, 61, 62, 63, 64].contains(&offset) && offset % 97 != 0 {
                continue;
            }
            let item = pool.place(shadow, &nobody()).unwrap();
            let at_end = (item.addr() as isize + 64) % page == 0;
            let offset = if at_end == (to == 64) { offset } else { 0 };
            // SAFETY: inside the item's pages; the item is given up.
            let found = unsafe {
                at(item, offset).write(0x42);
                pool.take_back(item, &nobody()).unwrap();
                let found = pool.look(item);
                pool.bury(item);
                found
            };
            let expected = match offset {
                ..0 => Some(Fault::Underflow(-offset as usize, 0x42)),
                61.. => Some(Fault::Overflow((offset - 61) as usize, 0x42)),
                _ => None,
            };
            assert_eq!(found, expected, "at {offset}");
        }
    }
}

/// Where pages cannot be protected there are no samples, and nothing is lost.
#[test]
fn a_pool_without_protection() {
    struct Bare(Fake);
    // SAFETY: passes on what keeps the contract.
    unsafe impl PageSupplier for Bare {
        fn page_size(&self) -> usize {
            self.0.page_size()
        }
        fn alloc_pages(
            &self,
            layout: Layout,
            request: Request,
        ) -> Result<uma_core::PageRun, uma_core::PageError> {
            self.0.alloc_pages(layout, request)
        }
        unsafe fn free_pages(&self, run: uma_core::PageRun) {
            // SAFETY: passed on from the caller.
            unsafe { self.0.free_pages(run) }
        }
    }
    let pages = Bare(Fake::new());
    let pool: GuardPool<RawMutex, &Bare> = GuardPool::new(&pages, Layout::new::<u64>(), 1);
    let shadow = Item::new(NonNull::without_provenance(64.try_into().unwrap()));
    assert!(pool.is_due() && pool.place(shadow, &nobody()).is_none());
    assert_eq!(pages.0.outstanding().runs, 0);
}
