//! The torture test of the per-CPU protocol.
//!
//! Worker threads allocate and free at random from one cache with small buckets, and are moved from CPU
//! to CPU; a signaller interrupts them at full rate, and the handler allocates and frees too; one
//! thread drains all CPUs in a loop, another takes the census in a loop. Every item carries an owner:
//! an item that is handed out twice is noticed at once. In the end everything is drained, and the
//! items and the counts must be exactly right.
//!
//! ```text
//! torture rseq|locks|nofence [seconds]
//! ```
//!
//! `nofence` is the negative control: restartable sequences whose fence does nothing. It must fail, or
//! the test proves nothing.
//!
//! Ends with 0 if all is well, 2 if an item was handed out twice or lost or a count is wrong, 3 if
//! there are no restartable sequences on this machine.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("torture: not on this system: it needs Linux on x86-64");
    std::process::exit(3);
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() {
    linux::main();
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use std::alloc::Layout;
    use std::cell::{Cell, UnsafeCell};
    use std::collections::HashMap;
    use std::mem::MaybeUninit;
    use std::ops::Range;
    use std::process::exit;
    use std::ptr::NonNull;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
    use std::time::{Duration, Instant};

    use uma_cache::bucket::Owned;
    use uma_cache::{BucketCache, CacheConfig, CpuLocks, CurrentCpu, PerCpu, Rseq, Slots, Which};
    use uma_core::{AllocError, Item, ItemSource, Metadata, Reclaim, Request, Stats};
    use uma_testkit::Rng;

    const WORKERS: usize = 6;
    const ITEMS: usize = 512;
    const HELD: usize = 24;

    /// One item: who has it, and a pattern that its owner writes and checks.
    #[repr(C)]
    struct Token {
        owner: AtomicU64,
        pattern: [AtomicU64; 7],
    }

    /// The source below the cache: a fixed number of items in a list.
    struct Pool {
        free: Mutex<Vec<Item>>,
    }

    impl Pool {
        fn new() -> Self {
            let tokens: Vec<Token> = (0..ITEMS)
                .map(|_| Token { owner: AtomicU64::new(0), pattern: Default::default() })
                .collect();
            let tokens = Box::leak(tokens.into_boxed_slice());
            let free = tokens.iter().map(|token| Item::new(NonNull::from_ref(token).cast()));
            Self { free: Mutex::new(free.collect()) }
        }
    }

    // SAFETY: the items are leaked tokens of this layout, and each is in the list or out.
    unsafe impl ItemSource for Pool {
        fn layout(&self) -> Layout {
            Layout::new::<Token>()
        }

        fn import(&self, into: &mut [MaybeUninit<Item>], _: Request) -> Result<usize, AllocError> {
            let mut free = self.free.lock().unwrap();
            let count = into.len().min(free.len());
            for room in &mut into[..count] {
                room.write(free.pop().unwrap());
            }
            if count == 0 { Err(AllocError::Limit) } else { Ok(count) }
        }

        unsafe fn release(&self, items: &[Item]) {
            self.free.lock().unwrap().extend_from_slice(items);
        }
    }

    /// Memory for buckets that is never given back to the system, so that a test without the fence
    /// reads old buckets rather than unmapped memory.
    #[derive(Default)]
    struct Kept {
        free: Mutex<HashMap<Layout, Vec<usize>>>,
    }

    // SAFETY: memory comes from the global allocator with the layout asked for, and is handed out again
    // only after it was given back.
    unsafe impl Metadata for Kept {
        fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
            let kept = self.free.lock().unwrap().get_mut(&layout).and_then(Vec::pop);
            let at = match kept {
                Some(at) => std::ptr::with_exposed_provenance_mut(at),
                // SAFETY: no layout that the cache asks for is of size zero.
                None => unsafe { std::alloc::alloc(layout) },
            };
            NonNull::new(at)
        }

        unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
            let at = at.as_ptr().expose_provenance();
            self.free.lock().unwrap().entry(layout).or_default().push(at);
        }
    }

    /// The CPU as the kernel tells it.
    #[derive(Clone, Copy)]
    struct Cpus(usize);

    impl CurrentCpu for Cpus {
        fn cpus(&self) -> usize {
            self.0
        }

        fn current(&self) -> usize {
            // SAFETY: asks the kernel for a number.
            unsafe { libc::sched_getcpu() as usize }
        }

        fn relax(&self) {
            std::thread::yield_now();
        }
    }

    /// What is being tested.
    enum Access {
        Rseq(Rseq),
        NoFence(Rseq),
        Locks(CpuLocks<Cpus>),
    }

    // SAFETY: forwards to implementations that keep the contract, but for `NoFence`, which breaks it
    // on purpose: this program shows that the fence is needed.
    unsafe impl PerCpu for Access {
        fn cpus(&self) -> usize {
            match self {
                Self::Rseq(rseq) | Self::NoFence(rseq) => rseq.cpus(),
                Self::Locks(locks) => locks.cpus(),
            }
        }

        fn pop(&self, slots: Slots<'_>) -> Option<Item> {
            match self {
                Self::Rseq(rseq) | Self::NoFence(rseq) => rseq.pop(slots),
                Self::Locks(locks) => locks.pop(slots),
            }
        }

        unsafe fn push(&self, slots: Slots<'_>, item: Item) -> bool {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe {
                match self {
                    Self::Rseq(rseq) | Self::NoFence(rseq) => rseq.push(slots, item),
                    Self::Locks(locks) => locks.push(slots, item),
                }
            }
        }

        fn swap(&self, slots: Slots<'_>, which: Which, new: Owned) -> Result<Owned, Owned> {
            match self {
                Self::Rseq(rseq) | Self::NoFence(rseq) => rseq.swap(slots, which, new),
                Self::Locks(locks) => locks.swap(slots, which, new),
            }
        }

        fn fence(&self, slots: Slots<'_>, cpu: usize) -> bool {
            match self {
                Self::Rseq(rseq) => rseq.fence(slots, cpu),
                Self::NoFence(_) => true,
                Self::Locks(locks) => locks.fence(slots, cpu),
            }
        }

        fn fence_range(&self, slots: Slots<'_>, cpus: Range<usize>) -> bool {
            match self {
                Self::Rseq(rseq) => rseq.fence_range(slots, cpus),
                Self::NoFence(_) => true,
                Self::Locks(locks) => locks.fence_range(slots, cpus),
            }
        }

        fn mode(&self) -> &'static str {
            match self {
                Self::Rseq(rseq) => rseq.mode(),
                Self::NoFence(_) => "nofence",
                Self::Locks(locks) => locks.mode(),
            }
        }
    }

    type Cache = BucketCache<&'static Pool, Access, parking_lot::RawMutex, &'static Kept>;

    /// What the handler needs, which cannot be passed to it.
    static CACHE: std::sync::OnceLock<&'static Cache> = std::sync::OnceLock::new();

    /// What a worker shares with the handler that interrupts it.
    struct Mine {
        allocs: Cell<u64>,
        frees: Cell<u64>,
        signals: Cell<u64>,
        /// An item that the handler took and found no room for.
        left: UnsafeCell<Option<Item>>,
    }

    thread_local! {
        // Const and without Drop, so that the handler may use it at any time.
        static MINE: Mine = const {
            Mine {
                allocs: Cell::new(0),
                frees: Cell::new(0),
                signals: Cell::new(0),
                left: UnsafeCell::new(None),
            }
        };
    }

    fn wrong(what: std::fmt::Arguments<'_>) -> ! {
        eprintln!("torture: {what}");
        // SAFETY: ends the process at once, which also a signal handler may do.
        unsafe { libc::_exit(2) }
    }

    /// Becomes the owner of an item, which must have none.
    fn take(item: Item, me: u64) {
        // SAFETY: every item is a leaked `Token`, all of whose fields are atomic.
        let token = unsafe { item.cast::<Token>().as_ref() };
        let before = token.owner.swap(me, AcqRel);
        if before != 0 {
            wrong(format_args!("{item:?} was handed to {me:#x} while {before:#x} had it"));
        }
        for word in &token.pattern {
            word.store(me, Relaxed);
        }
    }

    /// Ends the ownership of an item.
    fn leave(item: Item, me: u64) {
        // SAFETY: as in `take`.
        let token = unsafe { item.cast::<Token>().as_ref() };
        if token.pattern.iter().any(|word| word.load(Relaxed) != me) {
            wrong(format_args!("{item:?} of {me:#x} was written to by another"));
        }
        let before = token.owner.swap(0, AcqRel);
        if before != me {
            wrong(format_args!("{item:?} of {me:#x} was taken by {before:#x}"));
        }
    }

    /// Allocates and frees on the hit path, whatever the thread was doing.
    extern "C" fn handler(_: libc::c_int) {
        let Some(cache) = CACHE.get() else { return };
        MINE.with(|mine| {
            mine.signals.set(mine.signals.get() + 1);
            // SAFETY: only this handler touches it while the worker runs, and it does not nest.
            let left = unsafe { &mut *mine.left.get() };
            let me = 0xffff_0000 + std::ptr::from_ref(mine).addr() as u64;
            let Some(item) = left.take().or_else(|| {
                let item = cache.alloc_cached()?;
                mine.allocs.set(mine.allocs.get() + 1);
                take(item, me);
                Some(item)
            }) else {
                return;
            };
            leave(item, me);
            // SAFETY: the item came from the cache and has no owner any more.
            match unsafe { cache.free_cached(item) } {
                Ok(()) => mine.frees.set(mine.frees.get() + 1),
                Err(item) => {
                    take(item, me);
                    *left = Some(item);
                }
            }
        });
    }

    fn move_to(cpu: Option<usize>, cpus: usize) {
        // SAFETY: a set of all zeros is the empty set; the CPUs are within it; 0 is this thread.
        // CPUs that are offline or not allowed make the call fail, which does not matter here.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            match cpu {
                Some(cpu) => libc::CPU_SET(cpu, &mut set),
                None => (0..cpus).for_each(|cpu| libc::CPU_SET(cpu, &mut set)),
            }
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
        }
    }

    /// All CPUs that this process may use have numbers below this.
    fn allowed_cpus() -> usize {
        // SAFETY: a set of all zeros is the empty set, which is filled in; the CPUs looked for are within it.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::sched_getaffinity(0, size_of_val(&set), &raw mut set);
            let all = 0..8 * size_of_val(&set);
            all.rev().find(|&cpu| libc::CPU_ISSET(cpu, &set)).map_or(1, |last| last + 1)
        }
    }

    #[derive(Default)]
    struct Totals {
        allocs: AtomicU64,
        frees: AtomicU64,
        signals: AtomicU64,
        moves: AtomicU64,
        drains: AtomicU64,
        counts: AtomicU64,
    }

    fn work(cache: &'static Cache, number: usize, stop: &AtomicBool, totals: &Totals, cpus: usize) {
        let mut rng = Rng::new(0x5eed + number as u64);
        let me = number as u64 + 1;
        let mut held: Vec<Item> = Vec::new();
        let (mut allocs, mut frees, mut moves) = (0u64, 0u64, 0u64);
        while !stop.load(Relaxed) {
            for _ in 0..256 {
                let dice = rng.bits();
                if held.len() < HELD && (held.is_empty() || dice & 1 == 0) {
                    let Ok(item) = cache.alloc(Request::NOWAIT) else { continue };
                    allocs += 1;
                    take(item, me);
                    held.push(item);
                } else {
                    let item = held.swap_remove((dice >> 8) as usize % held.len());
                    leave(item, me);
                    // SAFETY: the item came from the cache, and we have let go of it.
                    unsafe { cache.free(item) };
                    frees += 1;
                }
            }
            move_to(Some(rng.below(cpus)), cpus);
            moves += 1;
        }
        // Signals may still come; wait until the signaller has stopped (see `main`).
        for item in held {
            leave(item, me);
            // SAFETY: as above.
            unsafe { cache.free(item) };
            frees += 1;
        }
        totals.allocs.fetch_add(allocs, Relaxed);
        totals.frees.fetch_add(frees, Relaxed);
        totals.moves.fetch_add(moves, Relaxed);
    }

    /// Gives back what the handler kept and adds up what it counted. No signal comes any more.
    fn settle(cache: &'static Cache, totals: &Totals) {
        MINE.with(|mine| {
            // SAFETY: no handler runs any more.
            if let Some(item) = unsafe { (*mine.left.get()).take() } {
                leave(item, 0xffff_0000 + std::ptr::from_ref(mine).addr() as u64);
                // SAFETY: the item came from the cache and has no owner any more.
                unsafe { cache.free(item) };
                mine.frees.set(mine.frees.get() + 1);
            }
            totals.allocs.fetch_add(mine.allocs.get(), Relaxed);
            totals.frees.fetch_add(mine.frees.get(), Relaxed);
            totals.signals.fetch_add(mine.signals.get(), Relaxed);
        });
    }

    pub(super) fn main() {
        let mut args = std::env::args().skip(1);
        let mode = args.next().unwrap_or_default();
        let seconds = args.next().map_or(10.0, |text| text.parse().expect("seconds, a number"));
        let cpus = allowed_cpus().max(2);
        let rseq = || {
            Rseq::available(cpus).unwrap_or_else(|| {
                println!("torture: no restartable sequences on this machine");
                exit(3)
            })
        };
        let access = match mode.as_str() {
            "rseq" => Access::Rseq(rseq()),
            "nofence" => Access::NoFence(rseq()),
            "locks" => Access::Locks(CpuLocks::new(Cpus(cpus))),
            _ => {
                eprintln!("usage: torture rseq|locks|nofence [seconds]");
                exit(1)
            }
        };
        let signals = !matches!(access, Access::Locks(_));
        run(access, seconds, cpus, signals);
    }

    /// A thread that panics, as one may that drains a torn bucket, ends the process at once, and one that goes
    /// round in circles ends it a minute late.
    fn end_at_once(seconds: f64) {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            usual(panic);
            exit(101);
        }));
        // SAFETY: asks the kernel for a signal, for which there is no handler.
        unsafe { libc::alarm(seconds as u32 + 60) };
    }

    fn run(access: Access, seconds: f64, cpus: usize, signals: bool) {
        let pool: &'static Pool = Box::leak(Box::new(Pool::new()));
        let kept: &'static Kept = Box::leak(Box::default());
        let config = CacheConfig { bucket: 8, max_bucket: 30, depot: 16 };
        let cache: &'static Cache =
            Box::leak(Box::new(BucketCache::new(pool, access, kept, config)));
        assert!(CACHE.set(cache).is_ok());
        end_at_once(seconds);
        if signals {
            // SAFETY: installs a handler that does only what its documentation says.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handler as *const () as usize;
                action.sa_flags = libc::SA_RESTART;
                assert_eq!(
                    libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()),
                    0
                );
            }
        }

        let totals = Totals::default();
        let (stop, quiet) = (AtomicBool::new(false), AtomicBool::new(false));
        let ready = AtomicUsize::new(0);
        let threads: [AtomicU32; WORKERS] = Default::default();
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for number in 0..WORKERS {
                let (totals, stop, quiet, threads) = (&totals, &stop, &quiet, &threads);
                let ready = &ready;
                scope.spawn(move || {
                    // SAFETY: asks the kernel for a number.
                    threads[number].store(unsafe { libc::gettid() } as u32, Release);
                    work(cache, number, stop, totals, cpus);
                    ready.fetch_add(1, AcqRel);
                    while !quiet.load(Acquire) {
                        std::thread::yield_now();
                    }
                    settle(cache, totals);
                });
            }
            let (drains, counts) = (&totals.drains, &totals.counts);
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    cache.reclaim(Reclaim::DrainCpu);
                    drains.fetch_add(1, Relaxed);
                    std::thread::yield_now();
                }
            });
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    let mut stats = Stats::default();
                    cache.visit_stats(&mut stats);
                    counts.fetch_add(1, Relaxed);
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            while begin.elapsed().as_secs_f64() < seconds {
                for thread in threads.iter().map(|thread| thread.load(Acquire)) {
                    if signals && thread != 0 {
                        // SAFETY: signals one of our own threads, which runs until `quiet` is set.
                        unsafe {
                            libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1);
                        }
                    }
                }
                if !signals {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            stop.store(true, Relaxed);
            while ready.load(Acquire) < WORKERS {
                std::thread::yield_now();
            }
            quiet.store(true, Release);
        });

        let mut stats = Stats::default();
        cache.visit_stats(&mut stats);
        let (allocs, frees) = (totals.allocs.load(Relaxed), totals.frees.load(Relaxed));
        println!(
            "torture: {} {:.1} s on {cpus} CPUs: {allocs} allocations by {WORKERS} threads, \
             {} signals, {} moves, {} drains, {} counts",
            cache.mode(),
            begin.elapsed().as_secs_f64(),
            totals.signals.load(Relaxed),
            totals.moves.load(Relaxed),
            totals.drains.load(Relaxed),
            totals.counts.load(Relaxed),
        );
        if (stats.allocs, stats.frees) != (allocs, frees) {
            wrong(format_args!(
                "the cache counted {} allocations and {} frees, the threads {allocs} and {frees}",
                stats.allocs, stats.frees
            ));
        }
        cache.reclaim(Reclaim::DrainCpu);
        let mut free = pool.free.lock().unwrap().clone();
        free.sort();
        free.dedup();
        if allocs != frees || free.len() != ITEMS {
            wrong(format_args!("{} of {ITEMS} items came back", free.len()));
        }
        println!("torture: every item conserved, the counts exact");
    }
}
