//! Implementations of safe traits that keep no promise. What they say may make a zone slow, refuse or sleep badly;
//! it must never let an item go to two, or get lost, or memory be touched that is not the zone's. (Traits
//! of which more is needed are `unsafe`: `PerCpu`, `Pin`, `PageSupplier`, `Metadata`, `ItemSource`, `Platform`.)

use std::alloc::Layout;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use parking_lot::RawMutex;
use uma::cache::{CpuLocks, CurrentCpu};
use uma::core::{ConfigFault, Deadline, Hooks, Item, Name, Reclaim, Refused, Request, Sleep};
use uma::debug::{FRAMES, Report, Verdict};
use uma::{
    Hardening, Json, ObjectCache, ObjectHooks, Park, Platform, RawZone, Registry, Table, ZoneInfo,
    Zones,
};
use uma_testkit::{Fake, HeapMeta, caught};

/// Numbers in no order, the same in every run.
#[derive(Debug, Default)]
struct Dice(AtomicU64);

impl Dice {
    const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn roll(&self) -> u64 {
        let mut x = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn one_in(&self, n: u64) -> bool {
        self.roll().is_multiple_of(n)
    }

    /// Panics now and then, but for a second panic, which would end the process.
    fn panic_once_in(&self, n: u64) {
        assert!(thread::panicking() || !self.one_in(n), "as planned");
    }
}

/// What a test's zones stand on: honest pages and bookkeeping, and the strangers.
struct Machine<C, Z> {
    pages: Fake,
    metadata: HeapMeta,
    registry: Registry<RawMutex>,
    cpu: C,
    sleep: Z,
    dice: Dice,
    /// Whether what a platform may say without being unsafe is made up, too.
    tells_tales: bool,
}

impl<C, Z> Machine<C, Z> {
    fn new(cpu: C, sleep: Z) -> Self {
        Self {
            pages: Fake::new(),
            metadata: HeapMeta::new(),
            registry: Registry::new(),
            cpu,
            sleep,
            dice: Dice::new(7),
            tells_tales: false,
        }
    }

    /// Nothing is out any more.
    fn assert_idle(&self) {
        assert_eq!(self.pages.outstanding().runs, 0);
        assert_eq!(self.metadata.outstanding().runs, 0);
    }
}

struct On<'a, C, Z>(&'a Machine<C, Z>);

impl<C, Z> Clone for On<'_, C, Z> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

// SAFETY: every method leads to the same machine.
unsafe impl<'a, C, Z> Platform for On<'a, C, Z>
where
    C: CurrentCpu + Send + Sync,
    Z: Sleep + Clone + Send + Sync + 'static,
{
    type Pages = &'a Fake;
    type Cpus = CpuLocks<ByRef<'a, C>>;
    type Lock = RawMutex;
    type Sleep = Z;
    type Metadata = &'a HeapMeta;

    fn pages(&self) -> &'a Fake {
        &self.0.pages
    }
    fn cpus(&self) -> Self::Cpus {
        CpuLocks::new(ByRef(&self.0.cpu))
    }
    fn sleep(&self) -> Z {
        self.0.sleep.clone()
    }
    fn metadata(&self) -> &'a HeapMeta {
        &self.0.metadata
    }
    fn registry(&self) -> &Registry<RawMutex> {
        &self.0.registry
    }
    fn largest_slab(&self) -> usize {
        match self.0.tells_tales {
            true => [0, 1, 4095, 4096, 1 << 16, usize::MAX][self.0.dice.roll() as usize % 6],
            false => 64 << 10,
        }
    }
    fn hardening(&self, _: &Name) -> Hardening {
        match self.0.tells_tales {
            true => [Hardening::RELEASE, Hardening::DEBUG, Hardening::HARDENED]
                [self.0.dice.roll() as usize % 3],
            false => Hardening::RELEASE,
        }
    }
    fn misuse(&self, _: &Report<'_>) -> Verdict {
        Verdict::Ignore
    }
    fn thread(&self) -> u64 {
        self.0.dice.roll()
    }
    /// Claims more frames than there is room for.
    fn trace(&self, frames: &mut [usize; FRAMES]) -> usize {
        frames.fill(self.0.dice.roll() as usize);
        usize::MAX
    }
    fn show_frame(&self, _: usize, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Err(fmt::Error)
    }
}

struct ByRef<'a, C>(&'a C);

impl<C> Clone for ByRef<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for ByRef<'_, C> {}

impl<C: CurrentCpu> CurrentCpu for ByRef<'_, C> {
    fn cpus(&self) -> usize {
        self.0.cpus()
    }
    fn current(&self) -> usize {
        self.0.current()
    }
    fn relax(&self) {
        thread::yield_now();
    }
}

const WORDS: usize = 5;
const ITEM: Layout = Layout::new::<[u64; WORDS]>();

/// An item that a thread has, with the thread's own number all over it.
struct Mine(Item, u64);

impl Mine {
    fn stamp(item: Item, token: u64) -> Self {
        for word in 0..WORDS {
            // SAFETY: the item is ours and has room for so many words.
            unsafe { item.cast::<u64>().add(word).write(token) };
        }
        Self(item, token)
    }

    /// The item, if nobody else wrote to it.
    fn check(self) -> Item {
        for word in 0..WORDS {
            // SAFETY: as above; `stamp` initialised it.
            let found = unsafe { self.0.cast::<u64>().add(word).read() };
            assert_eq!(found, self.1, "somebody else has this item, too");
        }
        self.0
    }
}

/// Threads take items, keep some for a while, and give them back.
fn churn<P: Platform, H>(zone: &RawZone<P, H>, threads: u64, rounds: u64, request: Request)
where
    H: Hooks + Clone + Send + Sync + 'static,
{
    thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let dice = Dice::new(thread + 1);
                let mut mine = Vec::new();
                for round in 0..rounds {
                    if mine.len() < 20 && !dice.one_in(3) {
                        let item = caught(|| zone.alloc(request));
                        if let Ok(Ok(item)) = item {
                            mine.push(Mine::stamp(item, thread << 32 | round));
                        }
                    } else if !mine.is_empty() {
                        let one = mine.swap_remove(dice.roll() as usize % mine.len());
                        let item = one.check();
                        // SAFETY: the item came from this zone and is used no more.
                        let _ = caught(|| unsafe { zone.free(item) });
                    }
                    if dice.one_in(97) {
                        let modes =
                            [Reclaim::Trim, Reclaim::Drain, Reclaim::DrainCpu, Reclaim::Idle];
                        let _ = caught(|| zone.reclaim(modes[dice.roll() as usize % 4]));
                    }
                }
                for one in mine {
                    let item = one.check();
                    // SAFETY: as above.
                    let _ = caught(|| unsafe { zone.free(item) });
                }
            });
        }
    });
}

/// Runs on a CPU that changes with every question, of which there are never as many as before.
#[derive(Default)]
struct Nowhere(Dice);

impl CurrentCpu for Nowhere {
    fn cpus(&self) -> usize {
        [0, 1, 3, 64, 200][self.0.roll() as usize % 5]
    }
    fn current(&self) -> usize {
        match self.0.roll() % 8 {
            0 => usize::MAX,
            1 => usize::MAX / 64,
            other => other as usize - 2,
        }
    }
}

#[test]
fn cpu_numbers_that_change_with_every_question() {
    for _ in 0..10 {
        let machine = Machine::new(Nowhere::default(), Park);
        let zone = RawZone::builder_in("nowhere", ITEM, On(&machine)).build().unwrap();
        churn(&zone, 3, 2_000, Request::NOWAIT);
        zone.set_max_cached(Some(100)).unwrap();
        churn(&zone, 3, 500, Request::NOWAIT);
        assert_eq!(zone.cur_items(), 0);
        drop(zone);
        machine.assert_idle();
    }
}

/// Says that there are more CPUs than memory can have slots for.
struct Countless;

impl CurrentCpu for Countless {
    fn cpus(&self) -> usize {
        usize::MAX
    }
    fn current(&self) -> usize {
        0
    }
}

#[test]
fn more_cpus_than_memory_has_slots_for() {
    let machine = Machine::new(Countless, Park);
    let zone = RawZone::builder_in("countless", ITEM, On(&machine)).build().unwrap();
    churn(&zone, 2, 500, Request::NOWAIT);
    zone.set_max_cached(Some(10)).unwrap();
    churn(&zone, 2, 500, Request::NOWAIT);
    assert_eq!(zone.cur_items(), 0);
    let copies = RawZone::builder_in("copies", ITEM, On(&machine)).flags(uma::ZoneFlags::PCPU);
    let fault = copies.build().unwrap_err().fault;
    assert!(matches!(fault, ConfigFault::Overflow | ConfigFault::SizeTooLarge(_)), "{fault}");
    drop(zone);
    machine.assert_idle();
}

/// Does not sleep, does not wake, and has a clock that jumps.
#[derive(Clone, Copy)]
struct Insomnia(&'static Dice);

impl Sleep for Insomnia {
    type Waker = u64;

    fn now(&self) -> u64 {
        [0, 1, u64::MAX, self.0.roll()][self.0.roll() as usize % 4]
    }
    fn waker(&self) -> u64 {
        self.0.roll()
    }
    fn sleep(&self, _: Deadline) {
        thread::yield_now();
    }
    fn wake(&self, _: &u64) {}
}

#[test]
fn sleep_that_is_none() {
    static DICE: Dice = Dice::new(3);
    let machine = Machine::new(Nowhere::default(), Insomnia(&DICE));
    let zone = RawZone::builder_in("restless", ITEM, On(&machine)).max_items(4).build().unwrap();
    churn(&zone, 4, 1_000, Request::until(Deadline::at(1 << 40)));
    assert_eq!((zone.cur_items(), zone.exhausted()), (0, false));
    // A thread waits without a deadline, and is served by the item that comes back.
    let held: Vec<Item> = (0..4).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| zone.alloc(Request::WAIT).unwrap());
        for item in held {
            // SAFETY: the item came from this zone and is used no more.
            unsafe { zone.free(item) };
        }
        // SAFETY: as above.
        unsafe { zone.free(waiting.join().unwrap()) };
    });
    assert_eq!(zone.cur_items(), 0);
    drop(zone);
    machine.assert_idle();
}

/// Refuses, panics and answers as it pleases; counts what it was called for.
#[derive(Clone, Copy)]
struct Moody<'a>(&'a Dice, &'a [AtomicUsize; 4]);

impl Moody<'_> {
    fn mood(&self) -> Result<(), Refused> {
        self.0.panic_once_in(50);
        if self.0.one_in(20) { Err(Refused) } else { Ok(()) }
    }

    fn count(&self, hook: usize) {
        self.1[hook].fetch_add(1, Ordering::Relaxed);
    }
}

impl Hooks for Moody<'static> {
    fn keeps_state(&self) -> bool {
        self.0.one_in(2)
    }
    unsafe fn init(&self, _: Item, _: Request) -> Result<(), Refused> {
        self.mood()?;
        self.count(0);
        Ok(())
    }
    unsafe fn fini(&self, _: Item) {
        self.count(1);
        self.0.panic_once_in(50);
    }
    unsafe fn ctor(&self, _: Item, _: *mut (), _: Request) -> Result<(), Refused> {
        self.mood()?;
        self.count(2);
        Ok(())
    }
    unsafe fn dtor(&self, _: Item, _: *mut ()) {
        self.count(3);
        self.0.panic_once_in(50);
    }
}

#[test]
fn hooks_without_principles() {
    static DICE: Dice = Dice::new(11);
    static COUNTS: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
    for tells_tales in [false, true] {
        let mut machine = Machine::new(Nowhere::default(), Park);
        machine.tells_tales = tells_tales;
        // Small buckets, so that what leaves a quarantine goes on to fini at once.
        let tiers = [Hardening::RELEASE, Hardening::DEBUG, Hardening::HARDENED];
        for (tier, bucket) in tiers.into_iter().flat_map(|tier| [(tier, 2), (tier, 100)]) {
            let builder = RawZone::builder_in("moody", ITEM, On(&machine));
            let builder = builder.hardening(tier).bucket(bucket);
            // SAFETY: the hooks touch no item.
            let zone = unsafe { builder.hooks(Moody(&DICE, &COUNTS)) }.build().unwrap();
            churn(&zone, 3, 1_000, Request::NOWAIT);
            assert_eq!(zone.cur_items(), 0);
            let _ = caught(|| drop(zone));
        }
        machine.assert_idle();
        let [init, fini, ctor, dtor] =
            [0, 1, 2, 3].map(|hook| COUNTS[hook].load(Ordering::Relaxed));
        assert_eq!((init, ctor), (fini, dtor), "of each that was made, one was taken apart");
    }
}

/// An object that knows how many of its kind there are.
struct Counted(&'static AtomicUsize, u64);

impl Counted {
    fn new(live: &'static AtomicUsize) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        Self(live, 0x5eed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert_eq!(self.1, 0x5eed, "dropped once, and never touched by another");
        self.1 = 0;
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Puts other objects in the place of those it is shown, keeps them, and panics in between.
#[derive(Clone, Copy)]
struct Changeling(&'static Dice, &'static AtomicUsize, &'static Mutex<Vec<Counted>>);

impl Changeling {
    fn exchange(&self, object: &mut Counted) {
        let mut kept = self.2.lock().unwrap();
        if self.0.one_in(2) && !kept.is_empty() {
            std::mem::swap(object, &mut kept[0]);
        } else if kept.len() < 50 {
            kept.push(std::mem::replace(object, Counted::new(self.1)));
        }
        drop(kept);
        self.0.panic_once_in(30);
    }
}

impl ObjectHooks<Counted> for Changeling {
    fn init(&self) -> Result<Counted, Refused> {
        self.0.panic_once_in(30);
        if self.0.one_in(10) { Err(Refused) } else { Ok(Counted::new(self.1)) }
    }
    fn ctor(&self, object: &mut Counted) -> Result<(), Refused> {
        self.exchange(object);
        if self.0.one_in(10) { Err(Refused) } else { Ok(()) }
    }
    fn dtor(&self, object: &mut Counted) {
        self.exchange(object);
    }
}

#[test]
fn objects_that_are_exchanged_by_their_hooks() {
    static DICE: Dice = Dice::new(5);
    static LIVE: AtomicUsize = AtomicUsize::new(0);
    static KEPT: Mutex<Vec<Counted>> = Mutex::new(Vec::new());
    let cache = ObjectCache::<Counted>::builder("changeling")
        .hooks(Changeling(&DICE, &LIVE, &KEPT))
        .build()
        .unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut mine = Vec::new();
                for _ in 0..2_000 {
                    if mine.len() < 10 && DICE.one_in(2) {
                        mine.extend(caught(|| cache.get().ok()).ok().flatten());
                    } else if let Some(one) = mine.pop() {
                        assert_eq!(one.1, 0x5eed);
                        let _ = caught(|| drop(one));
                    }
                }
                for one in mine {
                    let _ = caught(|| drop(one));
                }
            });
        }
    });
    assert_eq!(cache.cur_items(), 0);
    let _ = caught(|| drop(cache));
    KEPT.lock().unwrap().clear();
    assert_eq!(LIVE.load(Ordering::Relaxed), 0, "every object was dropped once");
}

/// Shows other zones each time it is asked, and goes on when it is told to stop.
struct Shifty(Dice);

impl Zones for Shifty {
    fn try_each(&self, each: &mut dyn FnMut(&ZoneInfo) -> fmt::Result) -> fmt::Result {
        let zone = uma::Zone::<u64>::builder("a \"name\"\n\\").build().unwrap();
        let zones = uma::zones();
        for _ in 0..self.0.roll() % 5 {
            let _ = each(&zones[self.0.roll() as usize % zones.len()]);
        }
        drop(zone);
        Ok(())
    }
}

#[test]
fn lists_of_zones_that_change_while_they_are_shown() {
    let shifty = Shifty(Dice::new(1));
    for _ in 0..50 {
        let table = Table::new(&shifty).to_string();
        assert!(table.lines().count() < 20, "{table}");
        let _ = Json::new(&shifty).to_string();
    }
}

/// Nor does a zone that cannot be made take anything with it.
#[test]
fn no_memory_for_the_zone_itself() {
    let machine = Machine::new(Nowhere::default(), Park);
    for k in 1.. {
        machine.metadata.fail_from(k);
        let made =
            RawZone::builder_in("unborn", ITEM, On(&machine)).hardening(Hardening::DEBUG).build();
        machine.metadata.never();
        match made {
            Err(error) => assert_eq!(error.fault, ConfigFault::NoMemory),
            Ok(zone) => {
                assert!(k > 1, "a zone needs memory");
                // It has an item as soon as there is memory again.
                let item = zone.alloc(Request::NOWAIT).unwrap();
                // SAFETY: the item came from this zone and is used no more.
                unsafe { zone.free(item) };
                break;
            }
        }
        machine.assert_idle();
    }
    machine.assert_idle();
}
