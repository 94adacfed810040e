//! General-purpose allocation, on a platform of one thread.

use std::alloc::Layout;
use std::cell::RefCell;
use std::fmt;
use std::ptr::NonNull;

use uma::{Platform, Registry};
use uma_cache::CpuLocks;
use uma_core::Request;
use uma_malloc::{Fault, Malloc, MallocError, MallocFault, SizeClasses};
use uma_testkit::machine::{self, Cpus, OneThread, Sleeper, Unlocked};
use uma_testkit::model::Ranges;
use uma_testkit::ops::malloc::{MallocOp, MallocProgram};
use uma_testkit::{Budget, FailNth, Fake, HeapMeta, caught, token};

const TABLES: [&SizeClasses; 6] = [
    SizeClasses::GENERAL,
    SizeClasses::MALLOC9,
    SizeClasses::KMALLOC,
    SizeClasses::KMEM_ALLOC,
    SizeClasses::UMEM_ALLOC,
    SizeClasses::NETBSD_KMEM,
];

/// What may fail for want of memory when less than this is left: a slab, a run, and what goes with them.
const SLACK: usize = 4 << 20;

/// Runs a program on an instance: no two allocations overlap, contents stay, alignments are kept, figures
/// add up, misuse is refused, and at the end nothing is left.
pub fn malloc_ops(program: &MallocProgram) {
    machine::reset();
    let config = &program.config;
    let memory = (1 + usize::from(config.memory)) << 16;
    let machine = Machine {
        pages: FailNth::new(Budget::new(Fake::new(), memory)),
        metadata: HeapMeta::new(),
        cpus: 1 + usize::from(config.cpus) % 4,
        largest_slab: if config.table < 128 { 64 << 10 } else { 4096 },
        reports: RefCell::default(),
        registry: Registry::new(),
    };
    let table = TABLES[usize::from(config.table) % TABLES.len()];
    {
        let malloc = Malloc::new_in("fuzz", table, On(&machine));
        let mut run = Run {
            machine: &machine,
            malloc: &malloc,
            memory,
            held: Vec::new(),
            ranges: Ranges::default(),
            last: None,
            tokens: 0,
        };
        for (index, op) in program.ops.iter().enumerate() {
            if let Err(panic) = caught(|| run.step(op)) {
                panic!("operation {index}, MallocOp::{op:?}: {panic}");
            }
        }
        machine.pages.never();
        machine.metadata.never();
        run.verify();
        while !run.held.is_empty() {
            run.free(0, false);
        }
        run.figures();
        malloc.reclaim(uma_core::Reclaim::DrainCpu);
        assert_eq!(malloc.stats().held, 0, "bytes of pages that are held");
        assert_eq!(machine.pages.inner().used(), 0, "bytes of pages that did not come back");
    }
    assert_eq!(machine.metadata.outstanding().runs, 0, "bookkeeping that did not come back");
    assert_eq!(*machine.reports.borrow(), [""; 0]);
    assert_eq!(machine::complaints(), [""; 0]);
}

struct Machine {
    pages: FailNth<Budget<Fake>>,
    metadata: HeapMeta,
    cpus: usize,
    largest_slab: usize,
    reports: RefCell<Vec<String>>,
    registry: Registry<OneThread>,
}

// SAFETY: a machine is of one thread.
unsafe impl Sync for Machine {}

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
        self.0.largest_slab
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        self.0.reports.borrow_mut().push(message.to_string());
    }
}

/// An allocation, with a token over as much of it as was asked for.
struct Held {
    at: NonNull<u8>,
    layout: Layout,
    usable: usize,
    token: u64,
}

impl Held {
    fn verify(&self, len: usize) {
        // SAFETY: the memory is ours and was stamped.
        let found = unsafe { token::verify(self.at, len.min(self.layout.size()), self.token) };
        assert_eq!(found, Ok(()), "{:?} at {:p} was written to", self.layout, self.at);
    }
}

struct Run<'a, 'm> {
    machine: &'m Machine,
    malloc: &'a Malloc<On<'m>>,
    memory: usize,
    held: Vec<Held>,
    ranges: Ranges,
    /// What was freed just now.
    last: Option<NonNull<u8>>,
    tokens: u64,
}

impl Run<'_, '_> {
    fn step(&mut self, op: &MallocOp) {
        let last = self.last.take();
        match *op {
            MallocOp::Alloc { cpu, bytes } => {
                machine::run_on(cpu.into());
                let size = bytes.size();
                self.took(size, 1, self.malloc.alloc(size, Request::NOWAIT));
            }
            MallocOp::AllocZeroed { bytes } => {
                let result = self.malloc.zalloc(bytes.size(), Request::WAIT);
                if let Ok(at) = result {
                    let usable = self.malloc.usable_size(at).expect("it was handed out");
                    // SAFETY: the memory is ours.
                    let all = unsafe { std::slice::from_raw_parts(at.as_ptr(), usable) };
                    assert!(all.iter().all(|&byte| byte == 0), "zeroed memory is not");
                }
                self.took(bytes.size(), 1, result);
            }
            MallocOp::AllocMany { bytes, times } => {
                let size = bytes.size() % 5000;
                for _ in 0..times {
                    self.took(size, 1, self.malloc.alloc(size, Request::NOWAIT));
                }
            }
            MallocOp::AllocAligned { bytes, align } => {
                let align = 1 << (align % 22);
                let layout = Layout::from_size_align(bytes.size(), align).expect("a small layout");
                let result = self.malloc.alloc_layout(layout, Request::NOWAIT);
                self.took(bytes.size(), align, result);
            }
            MallocOp::AllocAbsurd { less } => {
                let before = self.machine.pages.calls();
                let size = usize::MAX - usize::from(less) * (1 << 47);
                let error =
                    self.malloc.alloc(size, Request::NOWAIT).expect_err("there is not so much");
                if size > isize::MAX as usize {
                    assert_eq!(error.fault, MallocFault::TooLarge);
                    assert_eq!(self.machine.pages.calls(), before);
                }
            }
            MallocOp::Free { cpu, i } => {
                machine::run_on(cpu.into());
                self.free(i, false);
            }
            MallocOp::FreeSized { cpu, i } => {
                machine::run_on(cpu.into());
                self.free(i, true);
            }
            MallocOp::FreeMany { i, times } => {
                for _ in 0..times {
                    self.free(i, times % 2 == 0);
                }
            }
            MallocOp::Realloc { i, bytes } => self.realloc(i, bytes.size()),
            MallocOp::WrongSize { i, bytes } => self.wrong_size(i, bytes.size()),
            MallocOp::Interior { i, offset } => {
                let Some(index) = self.pick(i) else { return };
                let held = &self.held[index];
                let offset = 1 + offset as usize % (held.usable - 1);
                // SAFETY: the offset lies in the allocation; the pointer is refused.
                let refused = unsafe { self.malloc.try_free(held.at.add(offset)) };
                assert_eq!(refused.map_err(|misuse| misuse.fault), Err(Fault::Interior));
            }
            MallocOp::Again => {
                if let Some(at) = last {
                    // SAFETY: it was freed just now, which is found out.
                    let refused = unsafe { self.malloc.try_free(at) };
                    let fault = refused.expect_err("a double free was let through").fault;
                    assert!(matches!(fault, Fault::DoubleFree | Fault::Foreign), "{fault:?}");
                }
            }
            MallocOp::FailPages { k } => self.machine.pages.fail_from(u64::from(k % 8) + 1),
            MallocOp::FailMeta { k } => self.machine.metadata.fail_from(u64::from(k % 8) + 1),
            MallocOp::Reclaim { mode } => self.malloc.reclaim(mode.into()),
            MallocOp::Live => self.live(),
            MallocOp::Verify => self.verify(),
        }
        self.figures();
    }

    fn pick(&self, i: u8) -> Option<usize> {
        usize::from(i).checked_rem(self.held.len())
    }

    /// Notes what an allocation came to.
    fn took(&mut self, size: usize, align: usize, result: Result<NonNull<u8>, MallocError>) {
        match result {
            Ok(at) => {
                assert!(at.addr().get().is_multiple_of(align), "{at:p} is not aligned to {align}");
                let usable = self.malloc.usable_size(at).expect("it was handed out");
                assert!(usable >= size && self.malloc.contains(at));
                self.ranges.insert(at.addr().get(), usable);
                self.tokens += 1;
                let layout = Layout::from_size_align(size, align).expect("it was handed out");
                // SAFETY: the memory is ours.
                unsafe { token::stamp(at, size, self.tokens) };
                self.held.push(Held { at, layout, usable, token: self.tokens });
            }
            Err(error) => self.failed(size, align, error),
        }
    }

    /// There must have been a reason to fail. After that, nothing fails by plan.
    fn failed(&self, size: usize, align: usize, error: MallocError) {
        assert_eq!((error.size, error.align), (size, align));
        let Machine { pages, metadata, .. } = self.machine;
        let planned = pages.failed() + metadata.failed() != 0;
        let scarce = pages.inner().used() + size + SLACK > self.memory;
        assert!(planned || scarce, "{error}, though there is memory");
        pages.never();
        metadata.never();
    }

    fn free(&mut self, i: u8, sized: bool) {
        let Some(index) = self.pick(i) else { return };
        let held = self.held.swap_remove(index);
        held.verify(usize::MAX);
        self.ranges.remove(held.at.addr().get());
        // SAFETY: the memory is ours, and given up.
        unsafe {
            match (sized, held.layout.align()) {
                (false, _) => self.malloc.free(held.at),
                (true, 1) => self.malloc.free_sized(held.at, held.layout.size()),
                (true, _) => self.malloc.free_layout(held.at, held.layout),
            }
        }
        self.last = Some(held.at);
    }

    fn realloc(&mut self, i: u8, size: usize) {
        let Some(index) = self.pick(i) else { return };
        let held = self.held.swap_remove(index);
        held.verify(usize::MAX);
        let align = held.layout.align();
        // SAFETY: the memory is ours; if it moves the old pointer is used no more.
        let result =
            unsafe { self.malloc.realloc_layout(held.at, held.layout, size, Request::NOWAIT) };
        match result {
            Ok(at) => {
                Held { at, ..held }.verify(size);
                self.ranges.remove(held.at.addr().get());
                self.took(size, align, Ok(at));
            }
            Err(error) => {
                self.failed(size, align, error);
                held.verify(usize::MAX);
                self.held.push(held);
            }
        }
    }

    fn wrong_size(&mut self, i: u8, size: usize) {
        let Some(index) = self.pick(i) else { return };
        let held = &self.held[index];
        let table = self.malloc.classes();
        let class = |size| table.class_for(size, held.layout.align());
        let found = match (class(size), class(held.layout.size())) {
            (None, None) => size != held.layout.size(),
            (given, right) => given != right,
        };
        if found && held.layout.align() == 1 {
            // SAFETY: it is refused.
            let refused = unsafe { self.malloc.try_free_sized(held.at, size) };
            let wrong = Err(Fault::WrongSize { given: size });
            assert_eq!(refused.map_err(|misuse| misuse.fault), wrong);
        }
    }

    fn live(&self) {
        let mut live = Vec::new();
        self.malloc.for_each_live(|at, usable| live.push((at, usable)));
        live.sort();
        let mut held: Vec<_> = self.held.iter().map(|held| (held.at, held.usable)).collect();
        held.sort();
        assert_eq!(live, held, "what is said to be in use");
    }

    fn verify(&self) {
        for held in &self.held {
            held.verify(usize::MAX);
        }
    }

    /// The figures are those of what is held.
    fn figures(&self) {
        let stats = self.malloc.stats();
        let bytes: usize = self.held.iter().map(|held| held.usable).sum();
        assert_eq!((stats.used(), stats.bytes), (self.held.len() as u64, bytes as u64));
        assert_eq!(stats.held, self.machine.pages.inner().used() as u64, "bytes of pages");
        assert_eq!(stats.corrupt, 0);
    }
}
