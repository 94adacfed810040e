//! Two zones of one group that threads use in turns: they meet at every step, sleep at limits, free what others
//! took, drain each other's caches, and end with items still in their hands.

use std::alloc::Layout;
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uma::{GroupIn, Hardening, Platform, RawZone, Registry};
use uma_cache::CpuLocks;
use uma_core::{AllocError, Deadline, Hooks, Item, Name, Refused, Request, Sleep};
use uma_testkit::machine::{self, Cpus, OneThread, Unlocked};
use uma_testkit::model::Model;
use uma_testkit::ops::mt::{MtOp, MtProgram, Patience};
use uma_testkit::turns::{Job, Standing, TurnSleep, Turns};
use uma_testkit::{Budget, Caught, FailNth, Fake, HeapMeta, StampingHooks, caught};

const SIZES: [usize; 2] = [32, 200];
/// What the group's limit is a multiple of.
const UNIT: u64 = 32;
/// How long who waits until a time does so.
const WHILE: u64 = 3;

/// Runs a program: no limit is ever exceeded; nobody sleeps when there is what he sleeps for; nothing is handed
/// out twice; what hooks constructed exists; and in the end everything is back.
///
/// If it fails, threads may be left in the middle of something for ever, and with them what they were at.
pub fn mt_replay(program: &MtProgram) {
    mt_with(program, Flaw::None);
}

/// What is wrong on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Nobody is woken.
    Deaf,
    /// A dtor is left out.
    SkipsDtor,
    /// What is left to a thread is not given back.
    KeepsItems,
}

/// [`mt_replay`], with something wrong.
pub fn mt_with(program: &MtProgram, flaw: Flaw) {
    machine::reset();
    let config = &program.config;
    let turns = Turns::new(2 + usize::from(config.threads) % 3);
    let machine = Box::into_raw(Box::new(Machine {
        pages: FailNth::new(Budget::new(Fake::new(), (1 + usize::from(config.slabs) % 16) << 12)),
        metadata: HeapMeta::new(),
        cpus: 1 + usize::from(config.cpus) % 4,
        sleep: Ears(turns.sleep(), flaw),
        registry: Registry::new(),
        checked: config.checked,
    }));
    // SAFETY: it is freed below, when nothing uses it any more; likewise the rest.
    let on = unsafe { On(&*machine) };
    let bytes = |max: u8| NonZeroU64::new(u64::from(max) * UNIT);
    let group = Box::into_raw(Box::new(Group::new(
        "group",
        bytes(config.group),
        Ears(turns.sleep(), flaw),
    )));
    let hooks = SIZES.map(|size| Box::into_raw(Box::new(StampingHooks::new(size))));
    let worlds = [0, 1].map(|index| {
        let layout = Layout::from_size_align(SIZES[index], 8).expect("it is fine");
        // SAFETY: as above.
        let (hooks, group) = unsafe { (&*hooks[index], &*group) };
        let mut zone = RawZone::builder_in("turns", layout, on);
        zone = zone.bucket((config.bucket % 9).into()).group(group);
        if config.items[index] != 0 {
            zone = zone.max_items(config.items[index].into());
        }
        // SAFETY: the hooks touch no more than an item.
        let zone = unsafe { zone.hooks(Stepping(hooks, flaw)) }.build().expect("there is memory");
        let model = Mutex::new(Model::new(layout, false));
        Box::into_raw(Box::new(World { zone, hooks, model, kept: AtomicU64::new(0), flaw }))
    });
    // SAFETY: as above.
    let mut run = unsafe {
        Run {
            turns,
            on,
            group: &*group,
            worlds: worlds.map(|world| &*world),
            waits: Vec::new(),
            changes: 0,
            interrupt: 0,
        }
    };
    run.waits.resize_with(run.count(), || None);
    for (index, op) in program.ops.iter().enumerate() {
        let found = |what| -> ! { panic!("operation {index}, MtOp::{op:?}: {what}") };
        if let Err(panic) = caught(|| run.step(op)).and_then(|()| caught(|| run.settle())) {
            found(panic);
        }
    }
    if let Err(panic) = caught(|| run.finish()) {
        panic!("at the end: {panic}");
    }
    drop(run);
    // SAFETY: all threads have ended, and these came from boxes.
    unsafe {
        for world in worlds {
            drop(Box::from_raw(world));
        }
        for hooks in hooks {
            Box::from_raw(hooks).counting().assert_balanced();
        }
        assert_eq!((*group).bytes(), 0, "bytes that did not come back");
        drop(Box::from_raw(group));
        let machine = Box::from_raw(machine);
        assert_eq!(machine.pages.inner().used(), 0, "pages that did not come back");
        assert_eq!(machine.metadata.outstanding().runs, 0, "metadata that did not come back");
    }
    assert!(machine::complaints().is_empty(), "{:?}", machine::complaints());
}

struct Machine {
    pages: FailNth<Budget<Fake>>,
    metadata: HeapMeta,
    cpus: usize,
    sleep: Ears,
    registry: Registry<OneThread>,
    checked: bool,
}

#[derive(Clone, Copy)]
struct On(&'static Machine);

// SAFETY: every method leads to the same machine, which stays while there is a handle of it.
unsafe impl Platform for On {
    type Pages = Unlocked<&'static FailNth<Budget<Fake>>>;
    type Cpus = CpuLocks<Cpus>;
    type Lock = OneThread;
    type Sleep = Ears;
    type Metadata = Unlocked<&'static HeapMeta>;

    fn pages(&self) -> Self::Pages {
        machine::step();
        Unlocked(&self.0.pages)
    }

    fn cpus(&self) -> Self::Cpus {
        CpuLocks::new(Cpus(self.0.cpus))
    }

    fn sleep(&self) -> Ears {
        self.0.sleep.clone()
    }

    fn metadata(&self) -> Self::Metadata {
        Unlocked(&self.0.metadata)
    }

    fn registry(&self) -> &Registry<OneThread> {
        &self.0.registry
    }

    fn largest_slab(&self) -> usize {
        4096
    }

    fn hardening(&self, _: &Name) -> Hardening {
        // No item waits in quarantine, so that the model knows what there is.
        if self.0.checked { Hardening::ASAN.quarantine(0) } else { Hardening::RELEASE }
    }
}

/// A way to sleep, from which nobody may wake up.
#[derive(Clone)]
struct Ears(TurnSleep, Flaw);

impl Sleep for Ears {
    type Waker = usize;

    fn now(&self) -> u64 {
        self.0.now()
    }

    fn waker(&self) -> usize {
        self.0.waker()
    }

    fn sleep(&self, until: Deadline) {
        self.0.sleep(until);
    }

    fn wake(&self, waker: &usize) {
        if self.1 != Flaw::Deaf {
            self.0.wake(waker);
        }
    }
}

type Group = GroupIn<On>;

/// Hooks in which another thread may come in between.
#[derive(Clone, Copy)]
struct Stepping(&'static StampingHooks, Flaw);

impl Hooks for Stepping {
    unsafe fn init(&self, item: Item, request: Request) -> Result<(), Refused> {
        machine::step();
        // SAFETY: the caller's duty is passed on unchanged. Likewise below.
        unsafe { self.0.init(item, request) }
    }

    unsafe fn fini(&self, item: Item) {
        machine::step();
        // SAFETY: as above.
        unsafe { self.0.fini(item) };
    }

    unsafe fn ctor(&self, item: Item, arg: *mut (), request: Request) -> Result<(), Refused> {
        machine::step();
        // SAFETY: as above.
        unsafe { self.0.ctor(item, arg, request) }
    }

    unsafe fn dtor(&self, item: Item, arg: *mut ()) {
        machine::step();
        if self.1 != Flaw::SkipsDtor {
            // SAFETY: as above.
            unsafe { self.0.dtor(item, arg) };
        }
    }
}

/// A zone, and what is out of it.
struct World {
    zone: RawZone<On, Stepping>,
    hooks: &'static StampingHooks,
    model: Mutex<Model>,
    /// Items that were left to threads.
    kept: AtomicU64,
    flaw: Flaw,
}

impl World {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> u64 {
        self.model().live() + self.kept.load(SeqCst)
    }

    fn took(&self, item: Item) {
        self.model().took(item, false);
    }

    fn max(&self) -> u64 {
        self.zone.max_items().map_or(u64::MAX, NonZeroU64::get)
    }
}

thread_local! {
    /// What the thread gives back as it ends.
    static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

struct Kept(&'static World, Item);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.kept.fetch_sub(1, SeqCst);
        if self.0.flaw == Flaw::KeepsItems {
            return;
        }
        // A panic that leaves the destructor of a thread-local ends the process.
        // SAFETY: it came from this zone, and was left to this thread.
        if let Err(panic) = caught(|| unsafe { self.0.zone.free(self.1) }) {
            assert!(panic.is_planned(), "at the end of a thread: {panic}");
        }
    }
}

/// What a thread is in the middle of.
#[derive(Clone, Debug)]
enum Wait {
    /// An allocation, with so many changes of limits behind us. What it comes to: an error, perhaps.
    Alloc {
        zone: usize,
        changes: usize,
        failed: Arc<Mutex<Option<AllocError>>>,
    },
    Unused,
    Other,
}

struct Run {
    turns: Turns,
    on: On,
    group: &'static Group,
    worlds: [&'static World; 2],
    /// By thread.
    waits: Vec<Option<Wait>>,
    /// How often limits were changed.
    changes: usize,
    interrupt: usize,
}

impl Run {
    fn count(&self) -> usize {
        self.turns.threads()
    }

    fn step(&mut self, op: &MtOp) {
        match *op {
            MtOp::Alloc { thread, cpu, zone, patience } => {
                let zone = usize::from(zone) % 2;
                let (world, sleep) = (self.worlds[zone], self.on.sleep());
                let failed = Arc::new(Mutex::new(None));
                let told = Arc::clone(&failed);
                let wait = Wait::Alloc { zone, changes: self.changes, failed };
                self.give(thread, cpu, wait, move || {
                    let request = match patience {
                        Patience::Nowait => Request::NOWAIT,
                        Patience::Until => Request::until(Deadline::at(sleep.now() + WHILE)),
                        Patience::Wait => Request::WAIT,
                    };
                    match world.zone.alloc(request) {
                        Ok(item) => world.took(item),
                        Err(error) => {
                            *told.lock().unwrap_or_else(PoisonError::into_inner) =
                                Some(error.reason());
                        }
                    }
                });
            }
            MtOp::AllocMany { thread, cpu, zone, n } => {
                let world = self.worlds[usize::from(zone) % 2];
                self.give(thread, cpu, Wait::Other, move || {
                    let mut room = vec![MaybeUninit::uninit(); 1 + usize::from(n) % 8];
                    if world.zone.alloc_many(&mut room, Request::NOWAIT).is_ok() {
                        // SAFETY: all are there.
                        room.iter().for_each(|item| world.took(unsafe { item.assume_init() }));
                    }
                });
            }
            MtOp::Free { thread, cpu, zone, i, times } => {
                let world = self.worlds[usize::from(zone) % 2];
                self.give(thread, cpu, Wait::Other, move || {
                    for _ in 0..=times % 4 {
                        let item = world.model().give(i.into());
                        if let Some(item) = item {
                            // SAFETY: it came from this zone, and is used no more.
                            unsafe { world.zone.free(item) };
                        }
                    }
                });
            }
            MtOp::FreeMany { thread, cpu, zone, i, n } => {
                let world = self.worlds[usize::from(zone) % 2];
                self.give(thread, cpu, Wait::Other, move || {
                    let items: Vec<_> =
                        (0..n % 9).map_while(|_| world.model().give(i.into())).collect();
                    // SAFETY: as above.
                    unsafe { world.zone.free_many(&items) };
                });
            }
            MtOp::Keep { thread, zone, i } => {
                let world = self.worlds[usize::from(zone) % 2];
                self.give(thread, thread, Wait::Other, move || {
                    let item = world.model().give(i.into());
                    world.kept.fetch_add(item.iter().len() as u64, SeqCst);
                    KEPT.with(|kept| {
                        kept.borrow_mut().extend(item.map(|item| Kept(world, item)));
                    });
                });
            }
            MtOp::End { thread } => {
                let thread = usize::from(thread) % self.count();
                if self.turns.standing(thread) == Standing::Idle {
                    self.turns.end(thread);
                }
            }
            MtOp::Reclaim { thread, cpu, zone, mode } => {
                let world = self.worlds[usize::from(zone) % 2];
                self.give(thread, cpu, Wait::Other, move || world.zone.reclaim(mode.into()));
            }
            MtOp::SetMaxItems { thread, zone, max } => {
                self.changes += 1;
                let world = self.worlds[usize::from(zone) % 2];
                self.give(thread, thread, Wait::Other, move || {
                    world.zone.set_max_items(NonZeroU64::new(max.into())).expect("it is made");
                });
            }
            MtOp::SetMaxBytes { thread, max } => {
                self.changes += 1;
                let group = self.group;
                let max = NonZeroU64::new(u64::from(max) * UNIT);
                self.give(thread, thread, Wait::Other, move || group.set_max_bytes(max));
            }
            MtOp::WaitUnused { thread, cpu, zone } => {
                let zone = usize::from(zone) % 2;
                let (world, sleep) = (self.worlds[zone], self.on.sleep());
                self.give(thread, cpu, Wait::Unused, move || {
                    let until = Deadline::at(sleep.now() + WHILE);
                    let _ = world.zone.wait_unused(until);
                });
            }
            MtOp::Interrupt { after } => self.interrupt = usize::from(after % 24),
            MtOp::Go { thread } => {
                let thread = usize::from(thread) % self.count();
                if self.turns.can_go_on(thread) {
                    self.go_on(thread);
                }
            }
            MtOp::WakeForNothing { thread } => {
                let thread = usize::from(thread) % self.count();
                if self.turns.standing(thread) != Standing::Idle {
                    self.go_on(thread);
                }
            }
            MtOp::Tick { by } => self.turns.tick(u64::from(by % 4)),
            MtOp::PagesFail { k } => self.on.0.pages.fail_at(u64::from(k % 8) + 1),
            MtOp::MetadataFail { k } => self.on.0.metadata.fail_at(u64::from(k % 8) + 1),
            MtOp::HookFails { zone, fault, k } => {
                let hooks = self.worlds[usize::from(zone) % 2].hooks;
                // One panic at a time: what is planned for the other zone could come on top of it.
                self.worlds.iter().for_each(|world| world.hooks.counting().never());
                fault.plan(hooks.counting(), u64::from(k % 16));
            }
            MtOp::NoFaults => self.no_faults(),
            MtOp::Verify => self.verify(),
        }
    }

    fn no_faults(&self) {
        self.on.0.pages.never();
        self.on.0.metadata.never();
        self.worlds.iter().for_each(|world| world.hooks.counting().never());
    }

    /// Gives a thread something to do, or the next one that has nothing; first it goes on with what it was at.
    fn give(&mut self, thread: u8, cpu: u8, wait: Wait, job: impl FnOnce() + Send + 'static) {
        let first = usize::from(thread) % self.count();
        if self.turns.can_go_on(first) {
            self.go_on(first);
        }
        let count = self.count();
        let idle = |&thread: &usize| self.turns.standing(thread) == Standing::Idle;
        let Some(thread) = (first..count).chain(0..first).find(idle) else { return };
        self.waits[thread] = Some(wait);
        let after = std::mem::take(&mut self.interrupt);
        let job: Job = Box::new(move || {
            machine::run_on(cpu.into());
            machine::interrupt_after(after);
            job();
            machine::interrupt_after(0);
            assert_eq!(machine::locks_held(), 0, "locks that are held after the call");
            assert!(machine::complaints().is_empty(), "{:?}", machine::complaints());
        });
        let result = self.turns.give(thread, job);
        self.ended(thread, result);
    }

    fn go_on(&mut self, thread: usize) {
        let result = self.turns.go_on(thread);
        self.ended(thread, result);
    }

    /// A thread has given its turn back.
    fn ended(&mut self, thread: usize, result: Result<(), Caught>) {
        if let Err(panic) = result {
            assert!(panic.is_planned(), "thread {thread}: {panic}");
        }
        if self.turns.standing(thread) != Standing::Idle {
            return;
        }
        if let Some(Wait::Alloc { zone, changes, failed }) = self.waits[thread].take() {
            let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(reason) = failed else { return self.had(zone, changes) };
            // Others may have been in the middle of something, or have failed by plan.
            if changes == self.changes && self.is_quiet() {
                match reason {
                    AllocError::Limit => assert!(self.is_full(zone), "the limit was not reached"),
                    AllocError::GroupLimit => assert!(self.is_group_full(zone), "there was room"),
                    _ => {}
                }
            }
        }
    }

    /// Whether nobody is in the middle of anything, or about to wake up.
    fn is_quiet(&self) -> bool {
        (0..self.count()).all(|thread| match self.turns.standing(thread) {
            Standing::Idle => true,
            Standing::Interrupted => false,
            Standing::Asleep(_) => !self.turns.can_go_on(thread),
        })
    }

    fn is_full(&self, zone: usize) -> bool {
        // Room that is kept for others who sleep is taken, too.
        self.worlds[zone].live() + self.sleepers(zone) >= self.worlds[zone].max()
    }

    fn sleepers(&self, zone: usize) -> u64 {
        let waits = |wait: &&Wait| matches!(wait, Wait::Alloc { zone: of, .. } if *of == zone);
        self.waits.iter().flatten().filter(waits).count() as u64
    }

    fn live_bytes(&self) -> u64 {
        self.worlds.iter().zip(SIZES).map(|(world, size)| world.live() * size as u64).sum()
    }

    fn is_group_full(&self, zone: usize) -> bool {
        let max = self.group.max_bytes().map_or(u64::MAX, NonZeroU64::get);
        let waiting: u64 = (0..2).map(|zone| self.sleepers(zone) * SIZES[zone] as u64).sum();
        self.live_bytes() + waiting + SIZES[zone] as u64 > max
    }

    /// An item was had: that must not be one too many.
    fn had(&self, zone: usize, changes: usize) {
        if changes != self.changes {
            return;
        }
        let (live, max) = (self.worlds[zone].live(), self.worlds[zone].max());
        let above = self.changes == 0 && live > max;
        assert!(!above, "{live} items are live of {max}");
        let max = self.group.max_bytes().map_or(u64::MAX, NonZeroU64::get);
        let live = self.live_bytes();
        assert!(self.changes != 0 || live <= max, "{live} bytes are live of {max}");
    }

    /// What holds after every operation.
    fn settle(&self) {
        assert!(machine::complaints().is_empty(), "{:?}", machine::complaints());
        for world in self.worlds {
            let violations = world.hooks.counting().violations();
            assert!(violations.is_empty(), "hooks called out of order: {violations:#?}");
        }
        if !self.is_quiet() {
            return;
        }
        // Whoever is first has a reason to sleep; others may only be behind him.
        let room = self.group.max_bytes().map_or(u64::MAX, NonZeroU64::get);
        let asleep = |thread: &usize| self.turns.standing(*thread) != Standing::Idle;
        let zones =
            (0..self.count()).filter(asleep).filter_map(|thread| match self.waits[thread] {
                Some(Wait::Alloc { zone, .. }) => Some(zone),
                _ => None,
            });
        let reasons: Vec<_> = zones
            .map(|zone| {
                let full = self.worlds[zone].live() >= self.worlds[zone].max();
                full || self.live_bytes() + SIZES[zone] as u64 > room
            })
            .collect();
        let some = reasons.is_empty() || reasons.contains(&true);
        assert!(some, "{} threads sleep, and there is room", reasons.len());
    }

    /// The books balance, if nobody is in the middle of anything.
    fn verify(&self) {
        for world in self.worlds {
            world.model().verify();
            if !self.is_quiet() {
                continue;
            }
            let (stats, hooks) = (world.zone.stats(), world.hooks.counting());
            assert_eq!(stats.used(), world.live(), "in use: {stats:?}");
            assert_eq!(hooks.in_use() as u64, world.live(), "between ctor and dtor: {stats:?}");
            let exist = world.live() + stats.cached;
            assert_eq!(hooks.constructed() as u64, exist, "constructed: {stats:?}");
        }
    }

    /// With every item back, every thread comes to the end of what it is at.
    fn finish(&mut self) {
        self.no_faults();
        machine::run_on(0);
        for _ in 0..1000 {
            for thread in 0..self.count() {
                while self.turns.standing(thread) == Standing::Interrupted {
                    self.go_on(thread);
                }
                if self.turns.can_go_on(thread) {
                    self.go_on(thread);
                }
                // Threads that end give back what was left to them.
                if self.turns.standing(thread) == Standing::Idle {
                    self.turns.end(thread);
                }
            }
            for world in self.worlds {
                while let Some(item) = world.model().give(0) {
                    // SAFETY: it came from this zone, and is used no more.
                    unsafe { world.zone.free(item) };
                }
            }
            self.settle();
            if (0..self.count()).all(|thread| self.turns.standing(thread) == Standing::Idle) {
                return self.verify();
            }
            let stuck = (0..self.count()).all(|thread| !self.turns.can_go_on(thread));
            if stuck {
                if self.worlds.iter().any(|world| world.live() != 0) {
                    // Who sleeps has in his hands what he sleeps for. More room serves him, too.
                    self.changes += 1;
                    self.group.set_max_bytes(None);
                    for world in self.worlds {
                        world.zone.set_max_items(None).expect("it is made");
                    }
                    let served = (0..self.count()).any(|thread| self.turns.can_go_on(thread));
                    let waits = self.waits.iter().flatten();
                    let waits = waits.filter(|wait| matches!(wait, Wait::Alloc { .. })).count();
                    assert!(served || waits == 0, "no limits, and threads sleep at one");
                    self.turns.tick(WHILE + 1);
                    continue;
                }
                let waits = |thread: usize| matches!(self.waits[thread], Some(Wait::Unused));
                let asleep = |thread: &usize| self.turns.standing(*thread) != Standing::Idle;
                let only = (0..self.count()).filter(asleep).all(waits);
                assert!(only, "threads sleep, with nothing in use, and none is woken");
                self.turns.tick(1 << 30);
            }
        }
        panic!("it does not come to an end");
    }
}
