//! Zones of a Rust type, and object caches, on a platform of their own.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use uma::{Cached, Hardening, ObjectCache, ObjectHooks, Platform, Registry, Zone, ZoneBox};
use uma_cache::CpuLocks;
use uma_core::{AllocError, Name, Refused};
use uma_testkit::machine::{self, Cpus, OneThread, Sleeper, Unlocked};
use uma_testkit::ops::typed::{TypedOp, TypedProgram};
use uma_testkit::{Budget, FailNth, FailPlan, Fake, HeapMeta, caught};

/// Runs a program on a typed zone and an object cache that share a machine: values are what was put in,
/// each is dropped once, and as many are alive as are in use or, of objects, cached.
pub fn typed(program: &TypedProgram) {
    machine::reset();
    let config = &program.config;
    let machine = Machine {
        pages: FailNth::new(Budget::new(Fake::new(), (1 + usize::from(config.slabs) % 16) << 12)),
        metadata: HeapMeta::new(),
        cpus: 1 + usize::from(config.cpus) % 4,
        checked: config.checked(),
        reports: AtomicUsize::new(0),
        registry: Registry::new(),
    };
    let world = Arc::new(World::default());
    {
        let mut zone = Zone::<Value, _>::builder_in("typed", On(&machine));
        let mut objects = ObjectCache::<Value>::builder_in("objects", On(&machine))
            .hooks(Objects(Arc::clone(&world)));
        if config.limit != 0 {
            zone = zone.max_items(config.limit.into());
            objects = objects.max_items(config.limit.into());
        }
        if config.bucket % 10 != 9 {
            zone = zone.bucket((config.bucket % 10).into());
            objects = objects.bucket((config.bucket % 10).into());
        }
        let mut run = Run {
            world: &world,
            machine: &machine,
            zone: &zone.build().expect("there is memory"),
            objects: &objects.build().expect("there is memory"),
            boxes: Vec::new(),
            gotten: Vec::new(),
            limit: if config.limit == 0 { u64::MAX } else { config.limit.into() },
        };
        for (index, op) in program.ops.iter().enumerate() {
            let found = |what| -> ! { panic!("operation {index}, TypedOp::{op:?}: {what}") };
            match caught(|| run.step(op)) {
                Err(panic) if !panic.is_planned() => found(panic),
                _ => {}
            }
            if let Err(panic) = caught(|| run.settle(matches!(op, TypedOp::Verify))) {
                found(panic);
            }
        }
        run.no_faults();
        run.settle(true);
        run.boxes.clear();
        run.gotten.clear();
        run.settle(true);
    }
    assert_eq!(world.alive.load(SeqCst), 0, "values that were not dropped");
    assert_eq!(machine.reports.load(SeqCst), 0, "a zone says that it leaked");
    let mut zones = 0;
    machine.registry.visit(&mut |_| zones += 1);
    assert_eq!(zones, 0, "zones that are still listed");
    assert_eq!(machine.pages.inner().used(), 0, "pages that did not come back");
    assert_eq!(machine.metadata.outstanding().runs, 0, "metadata that did not come back");
}

/// How many values there are, and what goes wrong.
#[derive(Debug, Default)]
struct World {
    alive: AtomicUsize,
    drop_panics: AtomicBool,
    init_refuses: FailPlan,
    init_panics: FailPlan,
    ctor_refuses: FailPlan,
    ctor_panics: FailPlan,
    dtor_panics: FailPlan,
}

fn planned(plan: &FailPlan) {
    assert!(!plan.call(), "a hook panics as planned");
}

fn refusal(plan: &FailPlan) -> Result<(), Refused> {
    if plan.call() { Err(Refused) } else { Ok(()) }
}

/// A value that owns memory, and counts itself.
#[derive(Debug)]
struct Value {
    text: String,
    numbers: Vec<u64>,
    world: Arc<World>,
}

impl Value {
    fn new(text: u8, world: &Arc<World>) -> Self {
        world.alive.fetch_add(1, SeqCst);
        let mut value = Self { text: String::new(), numbers: Vec::new(), world: Arc::clone(world) };
        value.set(text);
        value
    }

    fn set(&mut self, text: u8) {
        self.text = text.to_string();
        self.numbers = vec![text.into(); usize::from(text % 5)];
    }

    #[track_caller]
    fn check(&self, text: u8) {
        assert_eq!(self.text, text.to_string(), "a value changed");
        assert_eq!(self.numbers, vec![u64::from(text); usize::from(text % 5)], "a value changed");
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        let alive = self.world.alive.fetch_sub(1, SeqCst);
        assert_ne!(alive, 0, "a value is dropped twice");
        let panics = self.world.drop_panics.swap(false, SeqCst);
        assert!(!panics, "a drop panics as planned");
    }
}

/// How the objects of the cache are made: the text of one that is not in use is 0.
#[derive(Clone, Debug)]
struct Objects(Arc<World>);

impl ObjectHooks<Value> for Objects {
    fn init(&self) -> Result<Value, Refused> {
        machine::outside_locks("init");
        planned(&self.0.init_panics);
        refusal(&self.0.init_refuses)?;
        Ok(Value::new(0, &self.0))
    }

    fn ctor(&self, object: &mut Value) -> Result<(), Refused> {
        machine::outside_locks("ctor");
        object.check(0);
        planned(&self.0.ctor_panics);
        refusal(&self.0.ctor_refuses)
    }

    fn dtor(&self, object: &mut Value) {
        machine::outside_locks("dtor");
        object.set(0);
        planned(&self.0.dtor_panics);
    }
}

/// What the zones stand on.
struct Machine {
    pages: FailNth<Budget<Fake>>,
    metadata: HeapMeta,
    cpus: usize,
    checked: bool,
    reports: AtomicUsize,
    registry: Registry<OneThread>,
}

#[derive(Clone)]
struct On<'a>(&'a Machine);

// SAFETY: every method leads to the same machine.
unsafe impl<'a> Platform for On<'a> {
    type Pages = Unlocked<&'a FailNth<Budget<Fake>>>;
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

    fn hardening(&self, _: &Name) -> Hardening {
        // No item waits in quarantine, so that it is known what there is.
        if self.0.checked { Hardening::ASAN.quarantine(0) } else { Hardening::RELEASE }
    }

    fn report(&self, _: fmt::Arguments<'_>) {
        self.0.reports.fetch_add(1, SeqCst);
    }
}

struct Run<'z, 'm> {
    world: &'z Arc<World>,
    machine: &'m Machine,
    zone: &'z Zone<Value, On<'m>>,
    objects: &'z ObjectCache<Value, Objects, On<'m>>,
    /// What is out, with the text of each.
    boxes: Vec<(ZoneBox<'z, Value, On<'m>>, u8)>,
    gotten: Vec<(Cached<'z, Value, Objects, On<'m>>, u8)>,
    limit: u64,
}

/// Takes the element that `i` picks.
fn pick<T>(all: &mut Vec<T>, i: u8) -> Option<T> {
    let index = usize::from(i).checked_rem(all.len())?;
    Some(all.swap_remove(index))
}

impl Run<'_, '_> {
    fn step(&mut self, op: &TypedOp) {
        let world = self.world;
        match *op {
            TypedOp::Alloc { cpu, text } => {
                machine::run_on(cpu.into());
                match self.zone.try_alloc(Value::new(text, world)) {
                    Ok(boxed) => self.boxes.push((boxed, text)),
                    Err(rejected) => {
                        rejected.value.check(text);
                        self.failed(rejected.error.reason(), self.boxes.len());
                    }
                }
            }
            TypedOp::AllocWith { cpu, text, panics } => {
                machine::run_on(cpu.into());
                // At the limit it would wait for ever.
                if (self.boxes.len() as u64) < self.limit {
                    let make = || {
                        assert!(!panics, "making a value panics as planned");
                        Value::new(text, world)
                    };
                    match self.zone.alloc_with(make) {
                        Ok(boxed) => self.boxes.push((boxed, text)),
                        Err(error) => self.failed(error.reason(), self.boxes.len()),
                    }
                }
            }
            TypedOp::Drop { cpu, i, panics } => {
                machine::run_on(cpu.into());
                if let Some((boxed, text)) = pick(&mut self.boxes, i) {
                    boxed.check(text);
                    world.drop_panics.store(panics, SeqCst);
                    drop(boxed);
                }
            }
            TypedOp::IntoInner { cpu, i } => {
                machine::run_on(cpu.into());
                if let Some((boxed, text)) = pick(&mut self.boxes, i) {
                    ZoneBox::into_inner(boxed).check(text);
                }
            }
            TypedOp::Raw { i } => {
                if let Some((boxed, text)) = pick(&mut self.boxes, i) {
                    // SAFETY: the pointer came from `into_raw` just now, and becomes a box once.
                    let again = unsafe { self.zone.box_from_raw(ZoneBox::into_raw(boxed)) };
                    again.check(text);
                    self.boxes.push((again, text));
                }
                if let Some((object, text)) = pick(&mut self.gotten, i) {
                    // SAFETY: as above.
                    let again = unsafe { Cached::from_raw(self.objects, Cached::into_raw(object)) };
                    again.check(text);
                    self.gotten.push((again, text));
                }
            }
            TypedOp::Change { i, text } => {
                if let Some((mut boxed, old)) = pick(&mut self.boxes, i) {
                    boxed.check(old);
                    boxed.set(text);
                    self.boxes.push((boxed, text));
                }
            }
            TypedOp::Prefill { cpu, count, used } => {
                machine::run_on(cpu.into());
                self.prefill(count.into(), used);
            }
            TypedOp::Get { cpu, text } => {
                machine::run_on(cpu.into());
                match self.objects.try_get() {
                    Ok(mut object) => {
                        object.check(0);
                        object.set(text);
                        self.gotten.push((object, text));
                    }
                    Err(error) => self.failed(error.reason(), self.gotten.len()),
                }
            }
            TypedOp::Put { cpu, i } => {
                machine::run_on(cpu.into());
                if let Some((object, text)) = pick(&mut self.gotten, i) {
                    object.check(text);
                    drop(object);
                }
            }
            TypedOp::InitRefuses { k } => world.init_refuses.fail_at(u64::from(k) + 1),
            TypedOp::InitPanics { k } => world.init_panics.fail_at(u64::from(k) + 1),
            TypedOp::CtorRefuses { k } => world.ctor_refuses.fail_at(u64::from(k) + 1),
            TypedOp::CtorPanics { k } => world.ctor_panics.fail_at(u64::from(k) + 1),
            TypedOp::DtorPanics { k } => world.dtor_panics.fail_at(u64::from(k) + 1),
            TypedOp::SetLimit { max } => {
                let max = NonZeroU64::new(max.into());
                self.limit = max.map_or(u64::MAX, NonZeroU64::get);
                self.zone.set_max_items(max).expect("it is made");
                self.objects.set_max_items(max).expect("it is made");
            }
            TypedOp::PagesFail { k } => self.machine.pages.fail_at(u64::from(k) + 1),
            TypedOp::MetadataFail { k } => self.machine.metadata.fail_at(u64::from(k) + 1),
            TypedOp::Reclaim { mode } => {
                self.zone.reclaim(mode.into());
                self.objects.reclaim(mode.into());
            }
            TypedOp::Verify => {}
        }
    }

    /// Room is set aside for all or none, and what is not used goes back.
    fn prefill(&mut self, count: usize, used: u8) {
        let before = self.zone.stats().used();
        match self.zone.prefill(count) {
            Ok(mut room) => {
                assert_eq!(room.left(), count);
                assert_eq!(self.zone.stats().used(), before + count as u64);
                for text in 0..used {
                    let left = room.left();
                    match room.place(Value::new(text, self.world)) {
                        Ok(boxed) => self.boxes.push((boxed, text)),
                        Err(value) => {
                            value.check(text);
                            assert_eq!(left, 0, "room was set aside for {count} values");
                            break;
                        }
                    }
                }
            }
            Err(error) => {
                assert_eq!(self.zone.stats().used(), before, "{error}");
                self.failed(error.reason(), self.boxes.len() + count);
            }
        }
    }

    /// A call failed, which would have made at least `live` and one values: was there a reason?
    fn failed(&self, reason: AllocError, live: usize) {
        match reason {
            AllocError::Limit => assert!(live as u64 >= self.limit, "{live} of {}", self.limit),
            AllocError::Refused => {
                let World { init_refuses, ctor_refuses, .. } = &**self.world;
                assert_ne!(init_refuses.failed() + ctor_refuses.failed(), 0, "nobody refused");
            }
            AllocError::Metadata => assert_ne!(self.machine.metadata.failed(), 0, "there was some"),
            AllocError::Pages(_) => {}
            _ => panic!("{reason}, though nothing special was asked"),
        }
    }

    fn no_faults(&self) {
        let World { init_refuses, init_panics, ctor_refuses, ctor_panics, dtor_panics, .. } =
            &**self.world;
        for plan in [init_refuses, init_panics, ctor_refuses, ctor_panics, dtor_panics] {
            plan.never();
        }
        self.machine.pages.never();
        self.machine.metadata.never();
    }

    fn settle(&self, closely: bool) {
        self.world.drop_panics.store(false, SeqCst);
        assert_eq!(machine::locks_held(), 0, "locks that are held after the call");
        assert!(machine::complaints().is_empty(), "{:?}", machine::complaints());
        if !closely {
            return;
        }
        self.boxes.iter().for_each(|(boxed, text)| boxed.check(*text));
        self.gotten.iter().for_each(|(object, text)| object.check(*text));
        let (boxes, gotten) = (self.boxes.len() as u64, self.gotten.len() as u64);
        let (zone, objects) = (self.zone.stats(), self.objects.stats());
        assert_eq!((zone.used(), objects.used()), (boxes, gotten), "{zone:?} {objects:?}");
        let alive = self.world.alive.load(SeqCst) as u64;
        assert_eq!(alive, boxes + gotten + objects.cached, "values alive: {objects:?}");
        assert_eq!(self.machine.pages.inner().used() as u64, zone.bytes + objects.bytes, "bytes");
    }
}
