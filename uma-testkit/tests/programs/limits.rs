//! Limits, groups and tasks that wait, on a machine of one thread: who waits, and who is next, is known.

use std::collections::VecDeque;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use uma::{GroupIn, Platform, RawZone, Registry, ZoneError};
use uma_cache::CpuLocks;
use uma_core::{AllocError, Deadline, Item, Request};
use uma_testkit::machine::{self, Cpus, OneThread, Sleeper, Unlocked};
use uma_testkit::ops::limits::{LimitOp, LimitProgram};
use uma_testkit::{Fake, HeapMeta, caught};

const SIZES: [usize; 3] = [32, 64, 96];
/// What the groups' limits are multiples of.
const UNIT: u64 = 32;

/// Runs a program on three zones in two groups: no limit is ever exceeded; whoever fails had a reason; whoever
/// waits does so for want of room, and is woken when there is some; and in the end everything is back.
pub fn limits(program: &LimitProgram) {
    machine::reset();
    let config = &program.config;
    let whole = Box::into_raw(Box::new(Machine {
        pages: Fake::new(),
        metadata: HeapMeta::new(),
        cpus: 1 + usize::from(config.cpus) % 4,
        registry: Registry::new(),
    }));
    // SAFETY: it is freed below, when nothing uses it any more; likewise the groups.
    let machine: &'static Machine = unsafe { &*whole };
    let bytes = |max: u8| NonZeroU64::new(u64::from(max) * UNIT);
    let outer = Box::into_raw(Box::new(Group::new("outer", bytes(config.groups[0]), Sleeper)));
    // SAFETY: as above.
    let group = unsafe { &*outer };
    let inner = Group::within(group, "inner", bytes(config.groups[1]), Sleeper);
    let inner = Box::into_raw(Box::new(inner));
    // SAFETY: as above.
    let groups = unsafe { [group, &*inner] };
    {
        let zones = [0, 1, 2].map(|index| {
            let layout = std::alloc::Layout::from_size_align(SIZES[index], 8).expect("it is fine");
            let mut zone = RawZone::builder_in("limits", layout, On(machine));
            zone = zone.bucket((config.bucket % 10).into()).group(groups[usize::from(index != 2)]);
            if config.items[index] != 0 {
                zone = zone.max_items(config.items[index].into());
            }
            zone.build().expect("there is memory")
        });
        let mut run =
            Run { zones: &zones, groups, items: Vec::new(), tasks: VecDeque::new(), changes: 0 };
        for (index, op) in program.ops.iter().enumerate() {
            let found = |what| -> ! { panic!("operation {index}, LimitOp::{op:?}: {what}") };
            if let Err(panic) = caught(|| run.step(op)).and_then(|()| caught(|| run.settle())) {
                found(panic);
            }
        }
        run.finish();
    }
    assert_eq!((groups[0].bytes(), groups[1].bytes()), (0, 0), "bytes that did not come back");
    // SAFETY: they came from the boxes above, and the zones are gone.
    drop(unsafe { (Box::from_raw(inner), Box::from_raw(outer)) });
    assert_eq!(machine.pages.outstanding().runs, 0, "pages that did not come back");
    assert_eq!(machine.metadata.outstanding().runs, 0, "metadata that did not come back");
    // SAFETY: as for the groups.
    drop(unsafe { Box::from_raw(whole) });
}

struct Machine {
    pages: Fake,
    metadata: HeapMeta,
    cpus: usize,
    registry: Registry<OneThread>,
}

#[derive(Clone, Copy)]
struct On<'a>(&'a Machine);

// SAFETY: every method leads to the same machine.
unsafe impl<'a> Platform for On<'a> {
    type Pages = Unlocked<&'a Fake>;
    type Cpus = CpuLocks<Cpus>;
    type Lock = OneThread;
    type Sleep = Sleeper;
    type Metadata = Unlocked<&'a HeapMeta>;

    fn pages(&self) -> Self::Pages {
        Unlocked(&self.0.pages)
    }

    fn cpus(&self) -> Self::Cpus {
        CpuLocks::new(Cpus(self.0.cpus))
    }

    fn sleep(&self) -> Sleeper {
        Sleeper
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
}

type Group = GroupIn<On<'static>>;
type Zone<'m> = RawZone<On<'m>>;

/// Notes that a task was woken, and that no lock was held then.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        machine::outside_locks("a task is woken");
        self.0.fetch_add(1, SeqCst);
    }
}

struct Task<'z> {
    zone: usize,
    future: Pin<Box<dyn Future<Output = Result<Item, ZoneError>> + 'z>>,
    bell: Arc<Bell>,
    /// Which limits it began with: what it was granted it keeps when they are lowered.
    limits: usize,
}

struct Run<'z, 'm> {
    zones: &'z [Zone<'m>; 3],
    groups: [&'static Group; 2],
    items: Vec<(usize, Item)>,
    /// In the order in which they began.
    tasks: VecDeque<Task<'z>>,
    /// How often limits were changed.
    changes: usize,
}

fn pick(i: u8, len: usize) -> Option<usize> {
    usize::from(i).checked_rem(len)
}

impl<'z> Run<'z, '_> {
    fn step(&mut self, op: &LimitOp) {
        match *op {
            LimitOp::Alloc { cpu, zone, times } => {
                machine::run_on(cpu.into());
                for _ in 0..=times % 16 {
                    self.alloc(zone, Request::NOWAIT);
                }
            }
            LimitOp::AllocUntil { cpu, zone } => {
                machine::run_on(cpu.into());
                self.alloc(zone, Request::until(Deadline::at(0)));
            }
            LimitOp::AllocAsync { cpu, zone } => {
                machine::run_on(cpu.into());
                let zone = usize::from(zone) % 3;
                let future = Box::pin(self.zones[zone].alloc_async(Request::NOWAIT));
                self.poll(Task { zone, future, bell: Arc::default(), limits: self.changes });
            }
            LimitOp::Poll { cpu, i } => {
                machine::run_on(cpu.into());
                if let Some(task) = pick(i, self.tasks.len()).and_then(|i| self.tasks.remove(i)) {
                    self.poll(task);
                }
            }
            LimitOp::Cancel { cpu, i } => {
                machine::run_on(cpu.into());
                drop(pick(i, self.tasks.len()).and_then(|i| self.tasks.remove(i)));
            }
            LimitOp::Free { cpu, i, times } => {
                machine::run_on(cpu.into());
                for _ in 0..=times % 16 {
                    if let Some(i) = pick(i, self.items.len()) {
                        let (zone, item) = self.items.swap_remove(i);
                        // SAFETY: it came from this zone, and is used no more.
                        unsafe { self.zones[zone].free(item) };
                    }
                }
            }
            LimitOp::SetMaxItems { zone, max } => {
                self.changes += 1;
                let zone = &self.zones[usize::from(zone) % 3];
                zone.set_max_items(NonZeroU64::new(max.into())).expect("it is made");
            }
            LimitOp::SetMaxBytes { group, max } => {
                self.changes += 1;
                let max = NonZeroU64::new(u64::from(max) * UNIT);
                self.groups[usize::from(group) % 2].set_max_bytes(max);
            }
            LimitOp::SetMaxCached { zone, max } => {
                let zone = &self.zones[usize::from(zone) % 3];
                let max = Some(u64::from(max)).filter(|&max| max != 255);
                zone.set_max_cached(max).expect("it is made");
                assert!(
                    zone.stats().cached <= max.unwrap_or(u64::MAX),
                    "more is cached than may be"
                );
            }
            LimitOp::Reclaim { zone, mode } => {
                self.zones[usize::from(zone) % 3].reclaim(mode.into());
            }
            LimitOp::Verify => self.verify(),
        }
    }

    fn alloc(&mut self, zone: u8, request: Request) {
        let zone = usize::from(zone) % 3;
        match self.zones[zone].alloc(request) {
            Ok(item) => self.took(zone, item),
            Err(error) => self.failed(zone, error.reason()),
        }
    }

    fn poll(&mut self, mut task: Task<'z>) {
        let waker = Waker::from(task.bell.clone());
        match task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(Ok(item)) if task.limits == self.changes => self.took(task.zone, item),
            Poll::Ready(Ok(item)) => self.items.push((task.zone, item)),
            Poll::Ready(Err(error)) if task.limits != self.changes => {
                // The limit was below its item for a while.
                assert_eq!(error.reason(), AllocError::GroupLimit);
            }
            Poll::Ready(Err(error)) => self.failed(task.zone, error.reason()),
            Poll::Pending => self.tasks.push_back(task),
        }
    }

    /// An item was had: that must not be one too many.
    fn took(&mut self, zone: usize, item: Item) {
        self.items.push((zone, item));
        let live = self.items.iter().filter(|(of, _)| *of == zone).count() as u64;
        let max = self.zones[zone].max_items().map_or(u64::MAX, NonZeroU64::get);
        assert!(live <= max, "{live} items are live of {max}");
        for group in self.path(zone) {
            let max = group.max_bytes().map_or(u64::MAX, NonZeroU64::get);
            let live = self.live_bytes(group);
            assert!(live <= max, "{live} bytes are live of {max} in {}", group.name());
        }
    }

    fn path(&self, zone: usize) -> impl Iterator<Item = &'static Group> {
        let [outer, inner] = self.groups;
        [inner, outer].into_iter().skip(usize::from(zone == 2))
    }

    fn is_in(&self, zone: usize, group: &Group) -> bool {
        self.path(zone).any(|other| std::ptr::eq(other, group))
    }

    /// Bytes in items that are in use.
    fn live_bytes(&self, group: &Group) -> u64 {
        let sizes = self.items.iter().filter(|(zone, _)| self.is_in(*zone, group));
        sizes.map(|(zone, _)| SIZES[*zone] as u64).sum()
    }

    /// A call failed: was there a reason? Room that tasks wait with, or have been granted, is taken, too.
    fn failed(&self, zone: usize, reason: AllocError) {
        let tasks = |within: &dyn Fn(usize) -> bool| {
            self.tasks.iter().map(|task| task.zone).filter(|&of| within(of)).collect::<Vec<_>>()
        };
        let limit = self.zones[zone].max_items().is_some_and(|max| {
            let live = self.items.iter().filter(|(of, _)| *of == zone).count();
            (live + tasks(&|of| of == zone).len()) as u64 >= max.get()
        });
        let group = self.path(zone).any(|group| {
            let waiting = tasks(&|of| self.is_in(of, group));
            let waiting: usize = waiting.into_iter().map(|of| SIZES[of]).sum();
            let taken = self.live_bytes(group) + waiting as u64 + SIZES[zone] as u64;
            group.max_bytes().is_some_and(|max| taken > max.get())
        });
        let why = match reason {
            AllocError::Limit => limit,
            AllocError::GroupLimit => group,
            AllocError::TimedOut => limit || group,
            other => panic!("{other}, though nothing special was asked"),
        };
        assert!(why, "{reason}, without a reason");
    }

    /// What holds after every operation.
    fn settle(&self) {
        assert_eq!(machine::locks_held(), 0, "locks that are held after the call");
        assert!(machine::complaints().is_empty(), "{:?}", machine::complaints());
        let [outer, inner] = self.groups;
        // A task that waits outside has room inside already.
        let waits = !self.tasks.is_empty();
        assert!(waits || outer.bytes() >= inner.bytes(), "what counts inside counts outside");
    }

    fn verify(&self) {
        let (mut outer, mut inner) = (0, 0);
        for (index, zone) in self.zones.iter().enumerate() {
            let stats = zone.stats();
            let live = self.items.iter().filter(|(of, _)| *of == index).count() as u64;
            assert_eq!((zone.cur_items(), stats.used()), (live, live), "in use: {stats:?}");
            let bytes = (live + stats.cached) * SIZES[index] as u64;
            outer += bytes;
            inner += if index == 2 { 0 } else { bytes };
            if zone.exhausted() {
                assert!(!self.tasks.is_empty(), "it says that somebody waits");
            }
        }
        if self.tasks.is_empty() {
            assert_eq!((self.groups[0].bytes(), self.groups[1].bytes()), (outer, inner), "bytes");
        }
    }

    /// With every item back, every task that was ever begun comes to its end, each when it was woken.
    fn finish(&mut self) {
        self.verify();
        machine::run_on(0);
        loop {
            for (zone, item) in std::mem::take(&mut self.items) {
                // SAFETY: it came from this zone, and is used no more.
                unsafe { self.zones[zone].free(item) };
            }
            self.settle();
            let before = self.tasks.len();
            if before == 0 {
                break;
            }
            let mut progress = false;
            for _ in 0..before {
                let task = self.tasks.pop_front().expect("there are so many");
                if task.bell.0.swap(0, SeqCst) == 0 {
                    self.tasks.push_back(task);
                    continue;
                }
                progress = true;
                self.poll(task);
            }
            assert!(progress, "{before} tasks wait, with nothing in use, and none is woken");
        }
        self.verify();
    }
}
