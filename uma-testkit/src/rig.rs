//! Runs a program on a stack of item sources, and compares the stack with the model after every
//! operation.
//!
//! What is checked, always:
//!
//! - items do not overlap, are aligned, and keep their contents while they are out, and as long as
//!   they are constructed or their slab stays;
//! - as many are in use as the model says, and as many exist as are in use or cached: no failing
//!   hook, supplier or limit loses one;
//! - no more are out than the limit allows; and a call fails at the limit only when so many are really
//!   in use, and for want of memory only when caches hold nothing and memory is really used up;
//! - a call fails only for a reason that there was;
//! - no lock is held after a call, and none while a hook or a supplier is called.
//!
//! What a stack promises beyond that is checked by [`Rig::check`].

use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::num::NonZeroU64;

use uma_core::{AllocError, Deadline, Item, ItemSource, Reclaim, Request, Stats};

use crate::caught::caught;
use crate::model::Model;
use crate::ops::{Op, Other};
use crate::stamping::StampingHooks;
use crate::{FailPlan, machine};

/// When [`Rig::check`] is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After any operation.
    Op,
    /// After items were taken, by a request that might use the reserve or not.
    Took {
        /// Whether it might.
        reserve: bool,
    },
    /// After a request failed because the supplier had nothing left; none of its calls failed by plan.
    Exhausted {
        /// Whether it might use the reserve.
        reserve: bool,
    },
    /// When everything is looked at.
    Verify,
    /// After everything was given back and reclaimed.
    End,
}

/// A stack under test, and what the program may do to its surroundings. What is `None` is not there:
/// operations on it do nothing.
pub struct Rig<'a> {
    /// The top of the stack.
    pub source: &'a dyn ItemSource,
    /// Whether the top is a [`Zone`](uma_core::Zone), which zeroes, runs ctors, and counts failures.
    pub is_zone: bool,
    /// Whether free items keep what they held until a reclaim.
    pub keeps_contents: bool,
    /// Whether checks stand on the caches, which need metadata for an item that they have not seen before:
    /// for want of it a call may fail with items in the caches.
    pub checks: bool,
    /// Whether counts are checked after every operation.
    pub closely: bool,
    /// Failures of the page supplier, or of the pool.
    pub pages: Option<&'a FailPlan>,
    /// Failures of bookkeeping memory.
    pub metadata: Option<&'a FailPlan>,
    /// The hooks of the stack.
    pub hooks: Option<&'a StampingHooks>,
    /// The limit to begin with; 0 is none.
    pub limit: u64,
    /// Changes the limit.
    pub set_limit: Option<&'a dyn Fn(Option<NonZeroU64>)>,
    /// Changes the reserve.
    pub set_reserve: Option<&'a dyn Fn(u64)>,
    /// Makes slabs ahead.
    pub prealloc: Option<&'a dyn Fn(u64) -> Result<(), AllocError>>,
    /// Says that somebody below waits for an item.
    pub want: Option<&'a dyn Fn(bool)>,
    /// What this stack promises beyond the rest.
    pub check: &'a dyn Fn(Moment, &Stats, &Model),
}

/// Faults that have come about so far, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Faults {
    pages: u64,
    metadata: u64,
    refused: u64,
}

struct Runner<'a> {
    rig: &'a Rig<'a>,
    model: RefCell<Model>,
    /// Most items that may exist since the counts were last checked.
    bound: Cell<u64>,
    limit: Cell<u64>,
    wanted: Cell<bool>,
    /// Calls that failed; and whether hooks made calls fail, which count in a way of their own.
    errors: Cell<u64>,
    faults: Cell<Faults>,
    /// What another thread does when it comes to run, and whether it has during this operation.
    other: Cell<Other>,
    interrupted: Cell<bool>,
}

/// Runs `ops`, and then gives everything back. Afterwards the stack may be dropped, and its suppliers
/// must have nothing outstanding; with `reclaim_first` they already have nothing but bookkeeping.
///
/// # Panics
///
/// If the stack does anything that it may not, with the operation after which it was found.
pub fn run(ops: &[Op], rig: &Rig<'_>, reclaim_first: bool) {
    let runner = Runner {
        rig,
        model: RefCell::new(Model::new(rig.source.layout(), rig.keeps_contents)),
        bound: Cell::new(0),
        limit: Cell::new(if rig.limit == 0 { u64::MAX } else { rig.limit }),
        wanted: Cell::new(false),
        errors: Cell::new(0),
        faults: Cell::default(),
        other: Cell::new(Other::DrainCpu),
        interrupted: Cell::new(false),
    };
    runner.bound.set(runner.limit.get());
    machine::while_interrupted(&|| runner.interrupt(), || runner.run(ops, reclaim_first));
}
impl Runner<'_> {
    fn run(&self, ops: &[Op], reclaim_first: bool) {
        for (index, op) in ops.iter().enumerate() {
            let found = |what| -> ! { panic!("operation {index}, Op::{op:?}: {what}") };
            self.interrupted.set(false);
            self.faults.set(self.faults_so_far());
            match caught(|| self.step(op)) {
                Err(panic) if !panic.is_planned() => found(panic),
                _ => {}
            }
            let stats = matches!(op, Op::Stats | Op::Verify);
            if let Err(panic) = caught(|| self.settle(stats)) {
                found(panic);
            }
        }
        for (what, end) in [
            ("giving everything back", &(|| self.give_all()) as &dyn Fn()),
            ("the end", &|| self.end(reclaim_first)),
        ] {
            match caught(end) {
                Err(panic) if !panic.is_planned() => panic!("{what}: {panic}"),
                _ => {}
            }
        }
    }

    fn step(&self, op: &Op) {
        let rig = self.rig;
        match *op {
            Op::Alloc { cpu, times } => {
                on(cpu);
                for _ in 0..=times % 8 {
                    self.alloc(Request::NOWAIT);
                }
            }
            Op::AllocZeroed { cpu } => {
                on(cpu);
                self.alloc(Request::NOWAIT.zeroed());
            }
            Op::AllocFromReserve { cpu } => {
                on(cpu);
                self.alloc(Request::NOWAIT.from_reserve());
            }
            Op::AllocWaiting { cpu, frees } => {
                on(cpu);
                self.wait(u64::from(frees % 4));
            }
            Op::AllocOrFlush { cpu, gives } => {
                on(cpu);
                let mut left = gives % 4;
                let mut flush = || {
                    while left != 0 {
                        left -= 1;
                        self.free_one(0);
                    }
                };
                let result = rig.source.alloc_or_flush(Request::NOWAIT, &mut flush);
                self.got(result, Request::NOWAIT);
            }
            Op::AllocBatch { cpu, n } => {
                on(cpu);
                self.import(usize::from(n).max(1));
            }
            Op::Free { cpu, i, times } => {
                on(cpu);
                for _ in 0..=times % 8 {
                    self.free_one(i);
                }
            }
            Op::FreeBatch { cpu, i, n } => {
                on(cpu);
                let mut model = self.model.borrow_mut();
                let items: Vec<Item> =
                    (0..n).map_while(|k| model.give(usize::from(i) + usize::from(k))).collect();
                drop(model);
                // SAFETY: items of this source, each once, which the model gives up.
                unsafe { rig.source.release(&items) };
            }
            Op::Discard { cpu, i } => {
                on(cpu);
                let item = self.model.borrow_mut().give(usize::from(i));
                if let Some(item) = item {
                    // SAFETY: an item of this source, which the model gives up.
                    unsafe { rig.source.discard(item) };
                }
            }
            Op::Reclaim { mode } => {
                self.model.borrow_mut().forget_free_items();
                rig.source.reclaim(mode.into());
                // What another thread freed meanwhile may have gone with its slab.
                self.model.borrow_mut().forget_free_items();
            }
            Op::Fork => {
                rig.source.prefork();
                // SAFETY: `prefork` was called just now, and nothing since.
                unsafe { rig.source.postfork(uma_core::Process::Original) };
                rig.source.settle();
            }
            Op::Verify => self.model.borrow().verify(),
            Op::Stats => {}
            _ => self.surroundings(op),
        }
    }

    /// What is done to the surroundings, and to settings.
    fn surroundings(&self, op: &Op) {
        let rig = self.rig;
        match *op {
            Op::SetLimit { max } => {
                if let Some(set_limit) = rig.set_limit {
                    let max = NonZeroU64::new(u64::from(max));
                    self.limit.set(max.map_or(u64::MAX, NonZeroU64::get));
                    self.bound.set(self.bound.get().max(self.limit.get()));
                    set_limit(max);
                }
            }
            Op::SetReserve { items } => {
                rig.set_reserve.inspect(|set| set(u64::from(items)));
            }
            Op::Prealloc { items } => {
                // Its failures say nothing about caches, and are not counted.
                let _ = rig.prealloc.map(|prealloc| prealloc(u64::from(items)));
            }
            Op::PagesFail { k } => {
                rig.pages.inspect(|plan| plan.fail_at(u64::from(k) + 1));
            }
            Op::MetadataFail { k } => {
                rig.metadata.inspect(|plan| plan.fail_at(u64::from(k) + 1));
            }
            Op::HookFails { fault, k } => {
                rig.hooks.inspect(|hooks| fault.plan(hooks.counting(), u64::from(k)));
            }
            Op::NoFaults => self.no_faults(),
            Op::Migrate { every } => machine::migrate_every(usize::from(every)),
            Op::Interrupt { after, other } => {
                self.other.set(other);
                machine::interrupt_after(usize::from(after));
            }
            Op::Contend { times } => machine::contend(usize::from(times)),
            Op::Want { on } => self.want(on),
            _ => {}
        }
    }

    fn alloc(&self, request: Request) {
        self.got(self.rig.source.alloc(request), request);
    }

    /// An allocation that may wait, while up to `frees` items are freed by others.
    fn wait(&self, frees: u64) {
        let left = Cell::new(frees);
        let others = || {
            assert!(self.rig.source.wanted(), "a caller sleeps, but no item is wanted");
            if left.get() != 0 {
                left.set(left.get() - 1);
                self.free_one(left.get() as u16);
            }
        };
        let deadline = Deadline::at(machine::clock() + frees + 1);
        let request = Request::until(deadline);
        let result = machine::while_asleep(&others, || self.rig.source.alloc(request));
        if result == Err(AllocError::TimedOut) {
            let live = self.model.borrow().live();
            let reason = live >= self.limit.get() || self.interrupted.get();
            assert!(reason, "timed out with {live} items in use");
        } else if result.is_err() {
            assert_ne!(result, Err(AllocError::Limit), "a caller that may wait fails at the limit");
        }
        self.got(result, request);
    }

    fn import(&self, count: usize) {
        let nowhere = Item::new(std::ptr::NonNull::dangling());
        let mut into = vec![MaybeUninit::new(nowhere); count];
        match self.rig.source.import(&mut into, Request::NOWAIT) {
            Ok(got) => {
                assert!((1..=count).contains(&got), "an import of {count} items returned {got}");
                for item in &into[..got] {
                    // SAFETY: all elements were initialised above.
                    let item = unsafe { item.assume_init() };
                    assert_ne!(item, nowhere, "an import returned {got}, but did not fill them in");
                    self.model.borrow_mut().took(item, false);
                }
                self.check(Moment::Took { reserve: false });
            }
            Err(error) => self.failed(error, Request::NOWAIT),
        }
    }

    fn free_one(&self, i: u16) {
        // Freeing may sleep or come back here, so the model is not borrowed meanwhile.
        let item = self.model.borrow_mut().give(usize::from(i));
        if let Some(item) = item {
            // SAFETY: an item of this source, which the model gives up.
            unsafe { self.rig.source.free(item) };
        }
    }

    fn got(&self, result: Result<Item, AllocError>, request: Request) {
        match result {
            Ok(item) => {
                let zeroed = request.wants_zero() && self.rig.is_zone;
                self.model.borrow_mut().took(item, zeroed);
                self.check(Moment::Took { reserve: request.may_use_reserve() });
            }
            Err(error) => self.failed(error, request),
        }
    }

    /// Another thread runs, in the middle of an operation. Its panics are its own.
    fn interrupt(&self) {
        self.interrupted.set(true);
        match caught(|| self.other()) {
            Err(panic) if !panic.is_planned() => machine::complain(format!("interrupt: {panic}")),
            _ => {}
        }
    }

    fn other(&self) {
        let other = self.other.get();
        machine::run_on(usize::from(matches!(other, Other::AllocOnSecond | Other::FreeOnSecond)));
        match other {
            Other::AllocOnFirst | Other::AllocOnSecond => {
                match self.rig.source.alloc(Request::NOWAIT) {
                    Ok(item) => self.model.borrow_mut().took(item, false),
                    Err(_) => self.errors.set(self.errors.get() + 1),
                }
            }
            Other::FreeOnFirst | Other::FreeOnSecond => self.free_one(0),
            Other::DrainCpu => {
                self.model.borrow_mut().forget_free_items();
                self.rig.source.reclaim(Reclaim::DrainCpu);
            }
            Other::Want => self.want(true),
        }
    }

    /// A call failed: was there a reason? With two threads there may be one that is over now.
    fn failed(&self, error: AllocError, request: Request) {
        self.errors.set(self.errors.get() + 1);
        if self.interrupted.get() {
            return;
        }
        let (before, now) = (self.faults.get(), self.faults_so_far());
        let live = self.model.borrow().live();
        match error {
            AllocError::Limit | AllocError::TimedOut => {
                let limit = self.limit.get();
                assert!(live >= limit, "{error:?} with {live} items in use of {limit}");
            }
            AllocError::Pages(_) if now.pages == before.pages => {
                self.check(Moment::Exhausted { reserve: request.may_use_reserve() });
            }
            AllocError::Pages(_) => {}
            AllocError::Metadata => {
                assert_ne!(now.metadata, before.metadata, "metadata was to be had");
            }
            AllocError::Refused => assert_ne!(now.refused, before.refused, "no hook refused"),
            _ => panic!("{error:?}, though nothing special was asked"),
        }
        if error.is_shortage() && !(self.rig.checks && error == AllocError::Metadata) {
            assert_eq!(self.stats().cached, 0, "{error:?}, with items in the caches");
        }
    }

    fn want(&self, on: bool) {
        let Some(want) = self.rig.want else { return };
        self.wanted.set(on);
        want(on);
        if on {
            // As one who waits does.
            self.rig.source.reclaim(Reclaim::DrainCpu);
        }
    }

    fn no_faults(&self) {
        self.rig.pages.inspect(|plan| plan.never());
        self.rig.metadata.inspect(|plan| plan.never());
        self.rig.hooks.inspect(|hooks| hooks.counting().never());
    }

    fn faults_so_far(&self) -> Faults {
        let counts = self.rig.hooks.map(|hooks| hooks.counting().counts()).unwrap_or_default();
        Faults {
            pages: self.rig.pages.map_or(0, FailPlan::failed),
            metadata: self.rig.metadata.map_or(0, FailPlan::failed),
            refused: counts.refused,
        }
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.rig.source.visit_stats(&mut stats);
        stats
    }

    fn check(&self, moment: Moment) {
        if self.rig.closely || moment != (Moment::Took { reserve: false }) {
            (self.rig.check)(moment, &self.stats(), &self.model.borrow());
        }
    }

    /// What must hold after every operation.
    fn settle(&self, counts: bool) {
        assert_eq!(machine::locks_held(), 0, "locks that are held after the call");
        let complaints = machine::complaints();
        assert!(complaints.is_empty(), "{complaints:#?}");
        if let Some(hooks) = self.rig.hooks {
            let violations = hooks.counting().violations();
            assert!(violations.is_empty(), "hooks called out of order: {violations:#?}");
            if self.rig.is_zone {
                assert_eq!(hooks.counting().in_use() as u64, self.model.borrow().live(), "in use");
            }
        }
        // Or more is out than there may be, since the limit was lowered.
        let why = self.wanted.get() || self.model.borrow().live() > self.limit.get();
        assert!(why || !self.rig.source.wanted(), "nobody waits, but one is wanted");
        if counts || self.rig.closely {
            self.counts(if counts { Moment::Verify } else { Moment::Op });
        }
    }

    fn counts(&self, moment: Moment) {
        let (stats, model) = (self.stats(), self.model.borrow());
        let live = model.live();
        assert_eq!(stats.frees + live, stats.allocs, "items in use: {stats:?}");
        let hooks = self.rig.hooks.map(|hooks| hooks.counting().counts()).unwrap_or_default();
        if hooks.refused + hooks.panicked == 0 {
            assert_eq!(stats.allocs, model.allocs(), "allocations: {stats:?}");
            let fails = if self.rig.is_zone { self.errors.get() } else { 0 };
            assert_eq!(stats.fails, fails, "allocations that failed: {stats:?}");
        } else {
            assert!(stats.allocs >= model.allocs(), "allocations: {stats:?}");
        }
        let exist = live + stats.cached;
        let bound = self.bound.replace(self.limit.get().max(exist));
        assert!(exist <= bound, "{exist} items exist of {bound}: {stats:?}");
        if let Some(hooks) = self.rig.hooks {
            let constructed = hooks.counting().constructed() as u64;
            assert_eq!(constructed, exist, "items constructed: {stats:?}");
        }
        if self.wanted.get() {
            assert_eq!(stats.cached, 0, "items cached while somebody waits for one: {stats:?}");
        }
        (self.rig.check)(moment, &stats, &model);
    }

    /// Everything goes back while faults that are still planned may come.
    fn give_all(&self) {
        machine::run_on(0);
        while self.model.borrow().live() != 0 {
            if let Err(panic) = caught(|| self.free_one(0))
                && !panic.is_planned()
            {
                panic!("{panic}");
            }
        }
    }

    fn end(&self, reclaim_first: bool) {
        self.settle(false);
        self.no_faults();
        machine::interrupt_after(0);
        self.rig.set_reserve.inspect(|set| set(0));
        self.want(false);
        if reclaim_first {
            self.rig.source.reclaim(Reclaim::DrainCpu);
            self.counts(Moment::End);
            let stats = self.stats();
            assert_eq!((stats.used(), stats.cached), (0, 0), "{stats:?}");
        } else {
            self.counts(Moment::Op);
        }
    }
}

/// Moves to the CPU that an operation is done on.
fn on(cpu: u8) {
    machine::run_on(usize::from(cpu));
}
