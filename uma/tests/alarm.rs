//! Warnings and actions at a limit, on a clock that the test sets.

use std::alloc::Layout;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::RawMutex;
use uma::cache::{CpuLocks, CurrentCpu};
use uma::core::{AllocError, Deadline, Item, ItemSource, Request, Sleep};
use uma::{AtLimit, GroupIn, Platform, RawZone, RawZoneBuilder, Registry};
use uma_testkit::{Fake, HeapMeta};

const SECOND: u64 = 1_000_000_000;

/// Time passes only when the test says so; who sleeps until a deadline sleeps at once as long as that.
#[derive(Clone, Copy)]
struct Clock(&'static AtomicU64);

impl Sleep for Clock {
    type Waker = ();

    fn now(&self) -> u64 {
        self.0.load(SeqCst)
    }

    fn waker(&self) {}

    fn sleep(&self, until: Deadline) {
        self.0.store(until.nanoseconds().expect("nobody would wake this thread"), SeqCst);
    }

    fn wake(&self, (): &()) {}
}

#[derive(Clone, Copy, Debug)]
struct TwoCpus;

impl CurrentCpu for TwoCpus {
    fn cpus(&self) -> usize {
        2
    }

    fn current(&self) -> usize {
        0
    }
}

struct Machine {
    pages: Fake,
    metadata: HeapMeta,
    registry: Registry<RawMutex>,
    clock: &'static AtomicU64,
    reports: Mutex<Vec<String>>,
}

#[derive(Clone, Copy)]
struct On<'a>(&'a Machine);

// SAFETY: every method leads to the same machine.
unsafe impl<'a> Platform for On<'a> {
    type Pages = &'a Fake;
    type Cpus = CpuLocks<TwoCpus>;
    type Lock = RawMutex;
    type Sleep = Clock;
    type Metadata = &'a HeapMeta;

    fn pages(&self) -> &'a Fake {
        &self.0.pages
    }

    fn cpus(&self) -> CpuLocks<TwoCpus> {
        CpuLocks::new(TwoCpus)
    }

    fn sleep(&self) -> Clock {
        Clock(self.0.clock)
    }

    fn metadata(&self) -> &'a HeapMeta {
        &self.0.metadata
    }

    fn registry(&self) -> &Registry<RawMutex> {
        &self.0.registry
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        self.0.reports.lock().unwrap().push(message.to_string());
    }
}

impl Machine {
    fn new() -> Self {
        Self {
            pages: Fake::new(),
            metadata: HeapMeta::new(),
            registry: Registry::new(),
            clock: Box::leak(Box::new(AtomicU64::new(0))),
            reports: Mutex::default(),
        }
    }

    fn zone(&self) -> RawZoneBuilder<On<'_>> {
        let layout = Layout::from_size_align(64, 8).unwrap();
        RawZone::builder_in("conn", layout, On(self)).max_items(2)
    }

    fn pass(&self, seconds: u64) {
        self.clock.fetch_add(seconds * SECOND, SeqCst);
    }

    fn reports(&self) -> Vec<String> {
        std::mem::take(&mut self.reports.lock().unwrap())
    }
}

fn give(zone: &RawZone<On<'_>>, item: Item) {
    // SAFETY: every caller took it from this zone and gives it up.
    unsafe { zone.free(item) };
}

const TEXT: &str = "raise kern.maxconn";

#[test]
fn a_warning_is_printed_at_most_so_often() {
    let machine = Machine::new();
    let zone = machine.zone().warning(TEXT).build().unwrap();
    let items = [1, 2].map(|_| zone.alloc(Request::NOWAIT).unwrap());
    assert!(machine.reports().is_empty(), "two fit");
    assert!(zone.alloc(Request::NOWAIT).is_err());
    assert_eq!(machine.reports(), ["[zone: conn] raise kern.maxconn"]);
    for _ in 0..299 {
        machine.pass(1);
        assert!(zone.alloc(Request::NOWAIT).is_err());
    }
    assert!(machine.reports().is_empty(), "300 seconds have not passed");
    machine.pass(1);
    assert!(zone.alloc(Request::NOWAIT).is_err());
    assert_eq!(machine.reports().len(), 1);
    // Each failure was counted once, and no hit warns.
    assert_eq!(zone.stats().fails, 301);
    machine.pass(1000);
    give(&zone, items[0]);
    for _ in 0..100 {
        let item = zone.alloc(Request::NOWAIT).unwrap();
        give(&zone, item);
    }
    assert!(machine.reports().is_empty());
    give(&zone, items[1]);
}

#[test]
fn caches_that_are_full_are_no_reason_to_warn() {
    let machine = Machine::new();
    let zone = machine.zone().warning(TEXT).warning_interval(Duration::ZERO).build().unwrap();
    for _ in 0..10 {
        let items = [1, 2].map(|_| zone.alloc(Request::NOWAIT).unwrap());
        items.into_iter().for_each(|item| give(&zone, item));
    }
    assert!(zone.stats().cached != 0 && machine.reports().is_empty());
}

/// One who sleeps warns before that, also with another interval, and through the zone as a source.
#[test]
fn sleepers_and_sources_warn() {
    let machine = Machine::new();
    let zone = machine.zone().warning(TEXT).warning_interval(Duration::from_secs(10));
    let zone = zone.build().unwrap();
    let items = [1, 2].map(|_| zone.alloc(Request::NOWAIT).unwrap());
    let late = zone.alloc(Request::until(Deadline::at(5 * SECOND))).unwrap_err();
    assert_eq!(late.reason(), AllocError::TimedOut);
    assert_eq!(machine.reports().len(), 1);
    machine.pass(5);
    assert!(ItemSource::alloc(&zone, Request::NOWAIT).is_err());
    assert_eq!(machine.reports().len(), 1);
    machine.pass(10);
    assert!(zone.alloc_some(&mut [std::mem::MaybeUninit::uninit()], Request::NOWAIT).is_err());
    assert_eq!(machine.reports().len(), 1);
    items.into_iter().for_each(|item| give(&zone, item));
}

static HITS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn an_action_is_told_which_limit() {
    let machine: &'static Machine = Box::leak(Box::new(Machine::new()));
    let group: &'static GroupIn<On<'_>> = Box::leak(Box::new(GroupIn::<On<'_>>::new(
        "group",
        std::num::NonZeroU64::new(64),
        Clock(machine.clock),
    )));
    static REASONS: Mutex<Vec<AtLimit>> = Mutex::new(Vec::new());
    let act: &'static (dyn Fn(AtLimit) + Send + Sync) = &|at| REASONS.lock().unwrap().push(at);
    let zone = machine.zone().maxaction(act).group(group).build().unwrap();
    let item = zone.alloc(Request::NOWAIT).unwrap();
    assert!(zone.alloc(Request::NOWAIT).is_err());
    group.set_max_bytes(None);
    let other = zone.alloc(Request::NOWAIT).unwrap();
    assert!(zone.alloc(Request::NOWAIT).is_err());
    let reasons = REASONS.lock().unwrap().clone();
    let told: Vec<_> = reasons.iter().map(|at| at.reason).collect();
    assert_eq!(told, [AllocError::GroupLimit, AllocError::Limit]);
    assert_eq!((reasons[0].zone.as_str(), reasons[0].max_items), ("conn", zone.max_items()));
    [item, other].into_iter().for_each(|item| give(&zone, item));
}

/// An action runs on the thread that allocates, with no lock held: it may use the very zone, and is then not
/// called again. What it frees serves the allocation.
#[test]
fn an_action_may_use_the_zone() {
    type Zone = RawZone<On<'static>>;
    static ZONE: Mutex<Option<&'static Zone>> = Mutex::new(None);
    static SPARE: Mutex<Option<Item>> = Mutex::new(None);
    let machine: &'static Machine = Box::leak(Box::new(Machine::new()));
    machine.metadata.allow_leaks();
    let me = std::thread::current().id();
    let action = Box::leak(Box::new(move |_: AtLimit| {
        HITS.fetch_add(1, SeqCst);
        assert_eq!(std::thread::current().id(), me);
        let zone = ZONE.lock().unwrap().unwrap();
        assert!(zone.alloc(Request::NOWAIT).is_err(), "the limit is reached");
        let _ = zone.stats();
        if let Some(spare) = SPARE.lock().unwrap().take() {
            give(zone, spare);
        }
    }));
    let zone: &'static Zone =
        Box::leak(Box::new(machine.zone().maxaction(action).build().unwrap()));
    *ZONE.lock().unwrap() = Some(zone);
    let item = zone.alloc(Request::NOWAIT).unwrap();
    *SPARE.lock().unwrap() = Some(zone.alloc(Request::NOWAIT).unwrap());
    // The action frees the spare one. It would sleep for ever otherwise.
    let third = zone.alloc(Request::WAIT).unwrap();
    assert_eq!(HITS.load(SeqCst), 1);
    assert!(zone.alloc(Request::NOWAIT).is_err());
    assert_eq!(HITS.load(SeqCst), 2);
    [item, third].into_iter().for_each(|item| give(zone, item));
    assert_eq!(zone.cur_items(), 0);
}

#[test]
fn an_action_that_panics_loses_nothing() {
    let machine = Machine::new();
    let zone = machine.zone().maxaction(&|_| panic!("as planned")).build().unwrap();
    let items = [1, 2].map(|_| zone.alloc(Request::NOWAIT).unwrap());
    for _ in 0..3 {
        let panicked = catch_unwind(AssertUnwindSafe(|| zone.alloc(Request::NOWAIT)));
        assert!(panicked.is_err(), "it is called each time");
    }
    assert_eq!(zone.cur_items(), 2);
    items.into_iter().for_each(|item| give(&zone, item));
    let items = [1, 2].map(|_| zone.alloc(Request::NOWAIT).unwrap());
    items.into_iter().for_each(|item| give(&zone, item));
}

#[test]
fn without_warning_or_action_nothing_is_said() {
    let machine = Machine::new();
    let zone = machine.zone().build().unwrap();
    let items = [1, 2].map(|_| zone.alloc(Request::NOWAIT).unwrap());
    assert!(zone.alloc(Request::NOWAIT).is_err());
    assert!(machine.reports().is_empty());
    items.into_iter().for_each(|item| give(&zone, item));
}
