//! CPUs of a model: each thread says which one it is on. Two threads on one CPU stand for a thread that
//! was preempted, or moved, in the middle of something.

use std::cell::Cell;

use uma_cache::{CurrentCpu, Pin};

use super::common::{Mutex, thread_local, yield_now};

const CPUS: usize = 2;

thread_local! {
    static CPU: Cell<usize> = Cell::new(0);
}

/// Says that the calling thread is on `cpu` from now on.
pub(crate) fn on(cpu: usize) {
    CPU.with(|own| own.set(cpu));
}

/// The CPU numbers for slots with locks.
pub(crate) struct Chosen;

impl CurrentCpu for Chosen {
    fn cpus(&self) -> usize {
        CPUS
    }

    fn current(&self) -> usize {
        CPU.with(Cell::get)
    }

    fn relax(&self) {
        yield_now();
    }
}

/// A kernel, or restartable sequences: on one CPU an operation runs as a whole, and other CPUs see to it
/// only by the fence.
///
/// A sequence that a fence restarts is, for the model, one that had not begun.
pub(crate) struct Kernel {
    cpus: [Mutex<()>; CPUS],
}

impl Kernel {
    pub(crate) fn new() -> Self {
        Self { cpus: std::array::from_fn(|_| Mutex::new(())) }
    }
}

// SAFETY: a mutex for each CPU excludes, and taking it once waits for what is under way.
unsafe impl Pin for Kernel {
    fn cpus(&self) -> usize {
        CPUS
    }

    fn pinned<R>(&self, critical: impl FnOnce(usize) -> R) -> R {
        let cpu = CPU.with(Cell::get);
        let _running = self.cpus[cpu].lock().unwrap();
        critical(cpu)
    }

    fn quiesce(&self, cpu: usize) {
        drop(self.cpus[cpu].lock().unwrap());
    }
}
