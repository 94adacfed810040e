//! What a hit writes to: nothing but memory that only its own CPU writes to.
//!
//! The cache, its slots and all its buckets lie on pages of their own. In a child of the test everything is made
//! read-only but the two buckets of one CPU, and that CPU allocates and frees: any other write ends the child by a
//! signal. That a write would be seen, also one that changes nothing, is shown with those two read-only as well.

use std::alloc::Layout;
use std::ptr::{self, NonNull};

use uma::cache::bucket::Owned;
use uma::cache::{CacheConfig, CpuLocks, CurrentCpu, PerCpu, Slots, Which};
use uma::core::{Item, ItemSource, Metadata, Request};
use uma::{Host, Platform};

use crate::sync::{Cell, Mutex};
use crate::work::simulated::{CPUS, Cache, Virtual, cache};

const PAGE: usize = 4096;

/// Bookkeeping memory that has pages to itself.
#[derive(Default)]
struct OwnPages(Mutex<Vec<(usize, usize)>>);

impl OwnPages {
    fn take(&self, bytes: usize) -> Option<NonNull<u8>> {
        let bytes = bytes.next_multiple_of(PAGE);
        // SAFETY: a new mapping at a place that the system chooses.
        let at = unsafe {
            let (how, flags) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(ptr::null_mut(), bytes, how, flags, -1, 0)
        };
        if at == libc::MAP_FAILED {
            return None;
        }
        self.0.lock().unwrap().push((at.addr(), bytes));
        NonNull::new(at.cast())
    }

    /// Lets all of it be only read, or written to as well.
    fn protect(&self, how: i32) {
        self.0.lock().unwrap().iter().for_each(|&(at, bytes)| protect(at, bytes, how));
    }
}

fn protect(at: usize, bytes: usize, how: i32) {
    let start = at / PAGE * PAGE;
    let bytes = (at + bytes).next_multiple_of(PAGE) - start;
    // SAFETY: it does not change what memory holds; whoever writes where it may not ends the process, which is
    // the child of a test.
    let done = unsafe { libc::mprotect(ptr::without_provenance_mut(start), bytes, how) };
    assert_eq!(done, 0);
}

// SAFETY: every piece is a mapping of its own, page aligned, and stays for the life of the process.
unsafe impl Metadata for &OwnPages {
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
        assert!(layout.align() <= PAGE);
        self.take(layout.size())
    }

    unsafe fn free_meta(&self, _: NonNull<u8>, _: Layout) {}
}

/// The cache on pages of its own, warm on so many CPUs. It is never dropped.
fn warm<C: PerCpu>(
    cpus: C,
    pages: &OwnPages,
    turns: impl Iterator<Item = usize>,
    turn: impl Fn(usize),
) -> &Cache<C, &OwnPages> {
    let at = pages.take(size_of::<Cache<C, &OwnPages>>()).unwrap().cast::<Cache<C, &OwnPages>>();
    // SAFETY: the memory is ours, large enough and page aligned, and stays for good.
    let cache = unsafe {
        at.write(cache(64, cpus, pages, CacheConfig::for_size(64)));
        at.as_ref()
    };
    for cpu in turns {
        turn(cpu);
        let items: Vec<Item> = (0..100).map(|_| cache.alloc(Request::NOWAIT).unwrap()).collect();
        // SAFETY: they came from there just now.
        items.into_iter().for_each(|item| unsafe { cache.free(item) });
    }
    cache
}

/// How a child ended that did `work`: its exit code, or the signal, negative.
fn child(work: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child calls nothing that needs another thread of this process: system calls and hits.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::_exit(if work() { 0 } else { 1 });
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
    }
}

/// Hits of the running CPU, with everything read-only but these two buckets.
fn hits<C: PerCpu>(
    cache: &Cache<C, &OwnPages>,
    pages: &OwnPages,
    buckets: [(usize, usize); 2],
    writable: bool,
) -> bool {
    pages.protect(libc::PROT_READ);
    for (at, bytes) in buckets.into_iter().filter(|_| writable) {
        if bytes != 0 {
            protect(at, bytes, libc::PROT_READ | libc::PROT_WRITE);
        }
    }
    let mut all = true;
    for _ in 0..3 {
        let (one, two) = (cache.alloc_cached(), cache.alloc(Request::NOWAIT).ok());
        // SAFETY: they came from there just now, and go back once.
        unsafe {
            all &= one.is_some_and(|item| cache.free_cached(item).is_ok());
            all &= two.is_some();
            two.into_iter().for_each(|item| cache.free(item));
        }
    }
    pages.protect(libc::PROT_READ | libc::PROT_WRITE);
    all
}

#[test]
fn a_hit_of_128_cpus_writes_to_its_own_buckets_only() {
    let (cpus, pages) = (Virtual::new(), OwnPages::default());
    let cache = warm(&cpus, &pages, 0..CPUS, |cpu| cpus.turn(cpu));
    for cpu in 0..CPUS {
        cpus.turn(cpu);
        let misses = cpus.misses();
        let buckets = cpus.installed(cpu);
        let sees = || hits(cache, &pages, buckets, true) && cpus.misses() == misses;
        assert_eq!(child(sees), 0, "CPU {cpu}");
        if cpu % 32 == 0 {
            // The control: it must notice a write, and also that of another CPU's bucket.
            let blind = || hits(cache, &pages, buckets, false);
            assert_eq!(child(blind), -libc::SIGSEGV, "CPU {cpu}");
            let other = cpus.installed((cpu + 1) % CPUS);
            assert_eq!(child(|| hits(cache, &pages, other, true)), -libc::SIGSEGV, "CPU {cpu}");
        }
    }
}

/// One CPU.
#[derive(Clone, Copy)]
struct One;

impl CurrentCpu for One {
    fn cpus(&self) -> usize {
        1
    }

    fn current(&self) -> usize {
        0
    }
}

/// The access of `C` on one CPU, with what was installed there noted.
struct Noted<C> {
    access: C,
    installed: Cell<[(usize, usize); 2]>,
}

// SAFETY: forwards to an implementation that keeps the contract.
unsafe impl<C: PerCpu> PerCpu for Noted<C> {
    fn cpus(&self) -> usize {
        self.access.cpus()
    }

    fn pop(&self, slots: Slots<'_>) -> Option<Item> {
        self.access.pop(slots)
    }

    unsafe fn push(&self, slots: Slots<'_>, item: Item) -> bool {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.access.push(slots, item) }
    }

    fn swap(&self, slots: Slots<'_>, which: Which, new: Owned) -> Result<Owned, Owned> {
        let bytes = if new.is_none() { 0 } else { 16 + 8 * usize::from(new.capacity()) };
        let raw = new.into_raw();
        let mut pair = self.installed.get();
        pair[usize::from(which == Which::Free)] = (raw.addr().get(), bytes);
        self.installed.set(pair);
        // SAFETY: it is the bucket that was given up a moment ago.
        self.access.swap(slots, which, unsafe { Owned::from_raw(raw) })
    }

    fn fence(&self, slots: Slots<'_>, cpu: usize) -> bool {
        self.access.fence(slots, cpu)
    }

    fn mode(&self) -> &'static str {
        self.access.mode()
    }
}

/// How a child ends that hits by this access, with its own buckets writable.
fn ends<C: PerCpu>(access: C) -> i32 {
    let noted = Noted { access, installed: Cell::new([(0, 0); 2]) };
    let pages = OwnPages::default();
    let cache = warm(&noted, &pages, 0..1, |_| ());
    child(|| hits(cache, &pages, noted.installed.get(), true))
}

#[test]
fn sequences_write_to_their_buckets_only_and_locks_to_their_slot_too() {
    // A lock is part of the slot: which is a line of the CPU's own, but read-only here.
    assert_eq!(ends(CpuLocks::new(One)), -libc::SIGSEGV);
    #[cfg(target_arch = "x86_64")]
    {
        let cpus = PerCpu::cpus(&Host.cpus());
        let Some(access) = uma::cache::Rseq::available(cpus) else {
            println!("NOT TESTED: this machine has no restartable sequences");
            return;
        };
        let on_one_cpu = move || {
            // The hits find what was installed before, so the thread must stay where it is.
            crate::clock::pin(crate::clock::cpus()[0]);
            ends(access)
        };
        assert_eq!(std::thread::spawn(on_one_cpu).join().unwrap(), 0);
    }
}

/// With the bookkeeping memory that zones have, which packs pieces closely.
#[test]
fn no_two_cpus_have_buckets_on_one_line() {
    for bucket in [1, 2, 4, 8, 16, 30, 62, 126, 254] {
        let cpus = Virtual::new();
        let config = CacheConfig::with_bucket(bucket);
        let cache = cache(64, &cpus, Host.metadata(), config);
        let mut items = Vec::new();
        for cpu in 0..CPUS {
            cpus.turn(cpu);
            let some = (0..2 * bucket).map(|_| cache.alloc(Request::NOWAIT).unwrap());
            items.extend(some.collect::<Vec<_>>().into_iter().map(|item| (cpu, item)));
        }
        for (cpu, item) in items {
            cpus.turn(cpu);
            // SAFETY: it came from there, and goes back once.
            unsafe { cache.free(item) };
        }
        let mut lines = (0..CPUS)
            .flat_map(|cpu| cpus.installed(cpu))
            .filter(|&(_, bytes)| bytes != 0)
            .map(|(at, bytes)| at / 64..=(at + bytes - 1) / 64)
            .collect::<Vec<_>>();
        assert!(lines.len() > CPUS, "{} buckets of {bucket}", lines.len());
        lines.sort_unstable_by_key(|lines| *lines.start());
        for pair in lines.windows(2) {
            assert!(pair[0].end() < pair[1].start(), "buckets of {bucket} share line {pair:?}");
        }
    }
}
