//! Platforms to test zones on: any supplier of pages, any way to the slots, and books that tell
//! whether everything came back.

use std::alloc::Layout;
use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use parking_lot::RawMutex;
use uma::cache::{CurrentCpu, PerCpu, Pin};
use uma::core::{Metadata, Name, PageSupplier};
use uma::{Hardening, Park, Platform, Registry};
use uma_testkit::{FailPlan, HeapMeta};

/// CPUs of the test machines.
pub(crate) const CPUS: usize = 3;

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// Says which CPU this thread runs on from now on.
pub(crate) fn run_on(cpu: usize) {
    CPU.set(cpu);
}

/// The CPU that the test chose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chosen;

impl CurrentCpu for Chosen {
    fn cpus(&self) -> usize {
        CPUS
    }

    fn current(&self) -> usize {
        CPU.get()
    }

    fn relax(&self) {
        std::thread::yield_now();
    }
}

/// A kernel's "no preemption" in a process: a lock for each CPU number, held meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Preemption {
    cpus: [Mutex<()>; CPUS],
}

impl Preemption {
    fn enter(&self, cpu: usize) -> MutexGuard<'_, ()> {
        self.cpus[cpu].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: closures for the same CPU number exclude one another by its lock, and whoever gets that lock
// after a closure sees what it wrote.
unsafe impl Pin for &Preemption {
    fn cpus(&self) -> usize {
        CPUS
    }

    fn pinned<R>(&self, critical: impl FnOnce(usize) -> R) -> R {
        let cpu = CPU.get();
        let _held = self.enter(cpu);
        critical(cpu)
    }

    fn quiesce(&self, cpu: usize) {
        drop(self.enter(cpu));
    }
}

/// Bookkeeping memory from the heap, or from where else the test says, that fails by a plan and tells
/// how many pieces are out.
pub(crate) struct Books {
    from: From,
    plan: FailPlan,
    out: AtomicUsize,
}

enum From {
    Heap(HeapMeta),
    Kegs(&'static (dyn Metadata + Sync)),
}

impl Books {
    /// Pieces that are out.
    pub(crate) fn outstanding(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }

    /// Lets it be dropped with pieces outstanding.
    pub(crate) fn allow_leaks(&self) {
        if let From::Heap(heap) = &self.from {
            heap.allow_leaks();
        }
    }
}

impl Deref for Books {
    type Target = FailPlan;

    fn deref(&self) -> &FailPlan {
        &self.plan
    }
}

// SAFETY: passes on what comes from there.
unsafe impl Metadata for Books {
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
        if self.plan.call() {
            return None;
        }
        let at = match &self.from {
            From::Heap(heap) => heap.alloc_meta(layout),
            From::Kegs(kegs) => kegs.alloc_meta(layout),
        };
        self.out.fetch_add(usize::from(at.is_some()), Ordering::Relaxed);
        at
    }

    unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
        self.out.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            match &self.from {
                From::Heap(heap) => heap.free_meta(at, layout),
                From::Kegs(kegs) => kegs.free_meta(at, layout),
            }
        }
    }
}

/// What zones under test stand on.
pub(crate) struct Machine<P, C> {
    pub pages: P,
    pub cpus: C,
    pub metadata: Books,
    pub reports: Mutex<Vec<String>>,
    pub tier: Hardening,
    /// Whether nobody may ask which thread it is.
    pub secretive: AtomicBool,
    registry: Registry<RawMutex>,
}

impl<P, C> Machine<P, C> {
    pub(crate) fn new(pages: P, cpus: C) -> Self {
        Self::with(pages, cpus, From::Heap(HeapMeta::new()))
    }

    /// One whose metadata come from kegs, which may stand on the same pages.
    pub(crate) fn with_kegs(pages: P, cpus: C, kegs: &'static (dyn Metadata + Sync)) -> Self {
        Self::with(pages, cpus, From::Kegs(kegs))
    }

    fn with(pages: P, cpus: C, from: From) -> Self {
        Self {
            pages,
            cpus,
            metadata: Books { from, plan: FailPlan::new(), out: AtomicUsize::new(0) },
            reports: Mutex::default(),
            tier: Hardening::RELEASE,
            secretive: AtomicBool::new(false),
            registry: Registry::new(),
        }
    }

    pub(crate) fn zones(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.registry.visit(&mut |zone| names.push(zone.name().to_string()));
        names
    }
}

/// A machine, as a platform.
pub(crate) struct On<'a, P, C>(pub &'a Machine<P, C>);

impl<P, C> Clone for On<'_, P, C> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

// SAFETY: every method leads to the same machine.
unsafe impl<'a, P, C> Platform for On<'a, P, C>
where
    P: PageSupplier + Send + Sync,
    C: PerCpu + Copy + Send + Sync,
{
    type Pages = &'a P;
    type Cpus = C;
    type Lock = RawMutex;
    type Sleep = Park;
    type Metadata = &'a Books;

    fn pages(&self) -> &'a P {
        &self.0.pages
    }

    fn cpus(&self) -> C {
        self.0.cpus
    }

    fn sleep(&self) -> Park {
        Park
    }

    fn metadata(&self) -> &'a Books {
        &self.0.metadata
    }

    fn registry(&self) -> &Registry<RawMutex> {
        &self.0.registry
    }

    fn relax(&self) {
        std::thread::yield_now();
    }

    fn hardening(&self, _: &Name) -> Hardening {
        self.0.tier
    }

    fn thread(&self) -> u64 {
        assert!(!self.0.secretive.load(Ordering::Relaxed), "as planned");
        1
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        self.0.reports.lock().unwrap().push(message.to_string());
    }
}
