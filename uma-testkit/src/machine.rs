//! A machine of one thread, for stacks whose every step is decided by a program.
//!
//! Which CPU the thread runs on, when it is moved to another, which locks are found taken, what others
//! do while it sleeps: all of it is data here, so a program does the same thing every time, and a
//! fuzzer can search through it.
//!
//! | instead of | there is |
//! |---|---|
//! | the running CPU | [`Cpus`], and [`run_on`], [`migrate_every`] |
//! | another thread that runs meanwhile | [`while_interrupted`], and [`interrupt_after`] |
//! | a lock | [`OneThread`], which knows a deadlock when it sees one, and [`contend`] |
//! | sleeping | [`Sleeper`], and [`while_asleep`] |
//!
//! It also watches the rule that no supplier and no hook is called under a lock: see [`Unlocked`] and
//! [`complaints`].
//!
//! The state is that of the thread. [`reset`] puts it back before a program.

use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use uma_cache::{CurrentCpu, Pin};
use uma_core::{Deadline, Metadata, PageError, PageRun, PageSupplier, RawMutex, Request, Sleep};

use crate::sync::{AtomicBool, Ordering};

/// The state of this thread's machine. (A cell of one thread is shared with nobody.)
struct Machine {
    cpu: Cell<usize>,
    /// How often the CPU was asked for since `run_on`.
    asked: Cell<usize>,
    every: Cell<usize>,
    held: Cell<usize>,
    contended: Cell<usize>,
    clock: Cell<u64>,
    others: Callback,
    /// Questions for the CPU until another thread runs; 0 for never.
    until: Cell<usize>,
    interrupt: Callback,
    complaints: RefCell<Vec<String>>,
}

thread_local! {
    static MACHINE: Machine = const {
        Machine {
            cpu: Cell::new(0),
            asked: Cell::new(0),
            every: Cell::new(0),
            held: Cell::new(0),
            contended: Cell::new(0),
            clock: Cell::new(0),
            others: Cell::new(None),
            until: Cell::new(0),
            interrupt: Cell::new(None),
            complaints: RefCell::new(Vec::new()),
        }
    };
}

/// Puts the machine back to what it was at first: CPU 0, no migrations, no lock held.
pub fn reset() {
    run_on(0);
    migrate_every(0);
    contend(0);
    interrupt_after(0);
    MACHINE.with(|machine| {
        machine.held.set(0);
        machine.clock.set(0);
        machine.complaints.take();
    });
}

/// The thread runs on this CPU from now on.
pub fn run_on(cpu: usize) {
    MACHINE.with(|machine| {
        machine.cpu.set(cpu);
        machine.asked.set(0);
    });
}

/// The thread moves to the next CPU whenever it has asked so often which one it is on; 0 for never.
pub fn migrate_every(questions: usize) {
    MACHINE.with(|machine| machine.every.set(questions));
}

/// When the CPU is asked for the so-manieth time from now, another thread runs (see
/// [`while_interrupted`]); 0 for never.
pub fn interrupt_after(questions: usize) {
    MACHINE.with(|machine| machine.until.set(questions));
}

/// The next so many locks that are tried are found taken.
pub fn contend(times: usize) {
    MACHINE.with(|machine| machine.contended.set(times));
}

/// A step at which another thread may run, beside those at which the CPU is asked for: for hooks and suppliers.
pub fn step() {
    interrupt();
}

/// Locks that the thread holds.
pub fn locks_held() -> usize {
    MACHINE.with(|machine| machine.held.get())
}

/// The time, in sleeps since [`reset`].
pub fn clock() -> u64 {
    MACHINE.with(|machine| machine.clock.get())
}

/// Notes a complaint if a lock is held, since `what` may not happen then.
pub fn outside_locks(what: &str) {
    let held = locks_held();
    if held != 0 {
        complain(format!("{what} with {held} locks held"));
    }
}

/// Notes what is wrong, for [`complaints`]. It does not panic, since a panic would take a way of its own
/// through the code under test.
pub fn complain(what: String) {
    MACHINE.with(|machine| machine.complaints.borrow_mut().push(what));
}

/// What was found wrong since [`reset`].
pub fn complaints() -> Vec<String> {
    MACHINE.with(|machine| machine.complaints.borrow().clone())
}

/// So many CPUs, of which the thread runs on the one that the program says.
///
/// The number after the last one has no slot. (As a [`Pin`], which must not say such a number, it is
/// CPU 0.)
#[derive(Clone, Copy, Debug)]
pub struct Cpus(pub usize);

impl CurrentCpu for Cpus {
    fn cpus(&self) -> usize {
        self.0
    }

    fn current(&self) -> usize {
        interrupt();
        MACHINE.with(|machine| {
            let asked = machine.asked.get() + 1;
            machine.asked.set(asked);
            let moves = asked.checked_div(machine.every.get()).unwrap_or(0);
            (machine.cpu.get() + moves) % (self.0 + 1)
        })
    }
}

// SAFETY: there is one thread, and no interrupt handler; a closure does not come back here, so none runs
// while another does.
unsafe impl Pin for Cpus {
    fn cpus(&self) -> usize {
        self.0
    }

    fn pinned<R>(&self, critical: impl FnOnce(usize) -> R) -> R {
        critical(self.current() % self.0)
    }

    fn quiesce(&self, _: usize) {}
}

/// A lock for stacks that one thread uses: to take it while it is held is a deadlock, and panics.
#[derive(Debug)]
pub struct OneThread(AtomicBool);

impl OneThread {
    fn take(&self) -> bool {
        let free = !self.0.swap(true, Ordering::Acquire);
        if free {
            MACHINE.with(|machine| machine.held.set(machine.held.get() + 1));
        }
        free
    }
}

// SAFETY: a lock is had by whoever finds it free, by one atomic exchange, and until it is let go of.
unsafe impl RawMutex for OneThread {
    #[allow(clippy::declare_interior_mutable_const, reason = "it is what the trait asks for")]
    const INIT: Self = Self(AtomicBool::new(false));

    // Not `Send`: a lock is counted by the thread that has it.
    type GuardMarker = *mut ();

    fn lock(&self) {
        assert!(self.take(), "deadlock: a lock is taken by the thread that holds it");
    }

    fn try_lock(&self) -> bool {
        let contended = MACHINE.with(|machine| {
            let left = machine.contended.get();
            machine.contended.set(left.saturating_sub(1));
            left != 0
        });
        !contended && self.take()
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
        MACHINE.with(|machine| machine.held.set(machine.held.get() - 1));
    }
}

/// Passes calls on, and complains if a lock is held.
#[derive(Clone, Copy, Debug)]
pub struct Unlocked<T>(pub T);

// SAFETY: forwards to an implementation that keeps the contract.
unsafe impl<P: PageSupplier> PageSupplier for Unlocked<P> {
    fn page_size(&self) -> usize {
        self.0.page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        outside_locks("pages are asked for");
        self.0.alloc_pages(layout, request)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        outside_locks("pages are given back");
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.free_pages(run) }
    }
}

// SAFETY: forwards to an implementation that keeps the contract.
unsafe impl<M: Metadata> Metadata for Unlocked<M> {
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
        outside_locks("metadata is asked for");
        self.0.alloc_meta(layout)
    }

    unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
        outside_locks("metadata is given back");
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.free_meta(at, layout) }
    }
}

/// Sleeps on a clock that goes by sleeps: each takes one unit of time, in which the others of
/// [`while_asleep`] do what they do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sleeper;

impl Sleep for Sleeper {
    type Waker = ();

    fn now(&self) -> u64 {
        clock()
    }

    fn waker(&self) {}

    fn sleep(&self, until: Deadline) {
        outside_locks("a caller sleeps");
        assert!(until.nanoseconds().is_some(), "a machine of one thread would sleep for ever");
        let others = MACHINE.with(|machine| {
            machine.clock.set(machine.clock.get() + 1);
            machine.others.get()
        });
        if let Some(others) = others {
            others();
        }
    }

    fn wake(&self, (): &()) {
        outside_locks("a caller is woken");
    }
}

/// Runs another thread if it is time. Not while a lock is held, which that thread might want, nor while
/// a panic is under way.
fn interrupt() {
    let interrupt = MACHINE.with(|machine| {
        let until = machine.until.get();
        if until == 1 && (locks_held() != 0 || std::thread::panicking()) {
            return None;
        }
        machine.until.set(until.saturating_sub(1));
        if until == 1 { machine.interrupt.get() } else { None }
    });
    if let Some(interrupt) = interrupt {
        let (cpu, asked) = MACHINE.with(|machine| (machine.cpu.get(), machine.asked.get()));
        interrupt();
        run_on(cpu);
        MACHINE.with(|machine| machine.asked.set(asked));
    }
}

type Callback = Cell<Option<&'static dyn Fn()>>;

/// Runs `body` with a callback in place, and takes that away again.
fn with_callback<R>(
    place: fn(&Machine) -> &Callback,
    callback: &dyn Fn(),
    body: impl FnOnce() -> R,
) -> R {
    struct Forget(fn(&Machine) -> &Callback);

    impl Drop for Forget {
        fn drop(&mut self) {
            MACHINE.with(|machine| (self.0)(machine).set(None));
        }
    }

    let _forget = Forget(place);
    // SAFETY: only the lifetime is changed. The reference is kept where this thread alone finds it, and
    // is forgotten before this call ends, also by unwinding.
    let callback = unsafe { std::mem::transmute::<&dyn Fn(), &'static dyn Fn()>(callback) };
    MACHINE.with(|machine| place(machine).set(Some(callback)));
    body()
}

/// Runs `body`. Whenever it sleeps, by [`Sleeper`], `others` runs once.
pub fn while_asleep<R>(others: &dyn Fn(), body: impl FnOnce() -> R) -> R {
    with_callback(|machine| &machine.others, others, body)
}

/// Runs `body`. When it asks which CPU it is on, and [`interrupt_after`] says so, the thread is preempted
/// there: `other` runs, as another thread would, and to its end. It must not unwind.
///
/// The cache asks at each step from slot to depot to source, so this tries what another thread may do
/// between any two of them.
pub fn while_interrupted<R>(other: &dyn Fn(), body: impl FnOnce() -> R) -> R {
    with_callback(|machine| &machine.interrupt, other, body)
}
