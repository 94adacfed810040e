//! Quantum caches: segments of one size as items, behind the bucket cache.

mod common;

use std::alloc::Layout;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ptr::NonNull;

use common::Park;
use parking_lot::RawMutex;
use uma_cache::{BucketCache, CacheConfig, CpuLocks, CurrentCpu};
use uma_core::{AllocError, ItemSource, NoSleep, Reclaim, Request};
use uma_testkit::{HeapMeta, caught, conformance};
use uma_vmem::{Arena, ArenaConfig, Policy, QuantumSource, VmemFault};

type Plain = Arena<RawMutex, HeapMeta, NoSleep>;

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

struct Cpus;

impl CurrentCpu for Cpus {
    fn cpus(&self) -> usize {
        2
    }

    fn current(&self) -> usize {
        CPU.get()
    }
}

fn arena(quantum: usize, base: usize, size: usize) -> Plain {
    let config = ArenaConfig::new("quanta", quantum).unwrap();
    Arena::create(config, base, size, HeapMeta::new(), NoSleep).unwrap()
}

const SMALL: CacheConfig = CacheConfig { bucket: 6, max_bucket: 6, depot: 12 };

/// Memory, so that each item can be stamped: an overlap would show.
#[test]
fn segments_of_memory() {
    const QUANTUM: usize = 64;
    let layout = Layout::from_size_align(QUANTUM * 1000, QUANTUM).unwrap();
    // SAFETY: the size is not 0.
    let memory = NonNull::new(unsafe { std::alloc::alloc(layout) }).unwrap();
    {
        let arena = arena(QUANTUM, memory.addr().get(), layout.size());
        for quanta in [1, 3] {
            // SAFETY: the arena has this memory and no other, which outlives it; all is freed in order.
            let source = unsafe { QuantumSource::memory(&arena, quanta, memory) }.unwrap();
            assert_eq!(source.layout().size(), quanta * QUANTUM);
            conformance::item_source(&source);
            conformance::item_source_threads(&source);
            let cache = BucketCache::<_, _, RawMutex, _>::new(
                &source,
                CpuLocks::new(Cpus),
                HeapMeta::new(),
                SMALL,
            );
            conformance::item_source(&cache);
            conformance::item_source_threads(&cache);
            drop(cache);
            assert_eq!(arena.stats().segments, 0);
        }
    }
    // SAFETY: it came from there with this layout.
    unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
}

/// Identifiers at both ends of what there is: 0 has an item, the last one has none.
#[test]
fn identifiers() {
    for (base, count) in [(0, 1000), (usize::MAX - 999, 999)] {
        let arena = arena(1, base, 1000);
        let source = QuantumSource::identifiers(&arena, 1).unwrap();
        assert_eq!(source.layout().size(), 0);
        let cache = BucketCache::<_, _, RawMutex, _>::new(
            &source,
            CpuLocks::new(Cpus),
            HeapMeta::new(),
            SMALL,
        );
        let mut items = Vec::new();
        let error = loop {
            match cache.alloc(Request::NOWAIT) {
                Ok(item) => items.push(item),
                Err(error) => break error,
            }
        };
        assert_eq!(error, AllocError::Limit);
        let numbers: BTreeSet<_> = items.iter().map(|&item| source.addr_of(item)).collect();
        assert_eq!(numbers, (base..base + count).collect());
        for item in items {
            assert_eq!(source.item_at(source.addr_of(item)), Some(item));
            // SAFETY: it came from there, and goes back once.
            unsafe { cache.free(item) };
        }
        // Larger ones, past the cache: what it holds is given back first.
        cache.reclaim(Reclaim::DrainCpu);
        assert_eq!(arena.stats().in_use, 0);
        let at = arena.alloc(500, Policy::Best, Request::NOWAIT).unwrap();
        arena.free(at, 500).unwrap();
    }
    let arena = arena(1, usize::MAX, 1);
    let source = QuantumSource::identifiers(&arena, 1).unwrap();
    assert_eq!(source.alloc(Request::NOWAIT), Err(AllocError::Limit));
    assert_eq!(source.item_at(usize::MAX), None);
}

/// Who waits through a cache gets what other CPUs hold, and what is freed while it waits.
#[test]
fn waiting_empties_the_cache() {
    let config = ArenaConfig::new("quanta", 1).unwrap();
    let arena = Arena::<RawMutex, _, _>::create(config, 0, 8, HeapMeta::new(), Park).unwrap();
    let source = QuantumSource::identifiers(&arena, 1).unwrap();
    let cache =
        BucketCache::<_, _, RawMutex, _>::new(&source, CpuLocks::new(Cpus), HeapMeta::new(), SMALL);
    let take = || cache.alloc(Request::WAIT).unwrap();
    let mut items: Vec<_> = (0..8).map(|_| take()).collect();
    // SAFETY: it was allocated above and goes back once, as all below.
    let give = |item| unsafe { cache.free(item) };
    (0..4).for_each(|_| give(items.pop().unwrap()));
    // The other CPU finds nothing of its own.
    CPU.set(1);
    items.extend((0..4).map(|_| take()));
    assert_eq!(arena.stats().segments, 8);
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(take)).collect();
        while arena.waiting() < 3 {
            std::thread::yield_now();
        }
        assert!(cache.wanted());
        (0..3).for_each(|_| give(items.pop().unwrap()));
        items.extend(waiters.into_iter().map(|waiter| waiter.join().unwrap()));
    });
    items.into_iter().for_each(give);
    drop(cache);
    assert_eq!(arena.stats().in_use, 0);
}

#[test]
fn what_makes_no_source() {
    let arena = arena(1 << 12, 0, 1 << 20);
    let fault = |quanta| QuantumSource::identifiers(&arena, quanta).map(|_| ()).unwrap_err().fault;
    assert_eq!(fault(0), VmemFault::ZeroSize);
    assert_eq!(fault(1 << 52), VmemFault::Overflow(usize::MAX));
}

#[test]
fn an_item_that_goes_back_twice() {
    let arena = arena(1, 10, 10);
    let source = QuantumSource::identifiers(&arena, 2).unwrap();
    let item = source.alloc(Request::NOWAIT).unwrap();
    // SAFETY: the first time it is right; the second time is what is tested, and items are no memory here.
    let panic = caught(|| unsafe {
        source.free(item);
        source.free(item);
    });
    let message = panic.unwrap_err().to_string();
    assert!(message.contains("arena \"quanta\": free of 0x2 at 0xa"), "{message}");
    assert_eq!(arena.stats().in_use, 0);
}

/// One of a batch that was freed before keeps none of the others.
#[test]
fn a_batch_with_an_item_that_goes_back_twice() {
    let arena = arena(1, 10, 10);
    let source = QuantumSource::identifiers(&arena, 1).unwrap();
    let items: Vec<_> = (0..5).map(|_| source.alloc(Request::NOWAIT).unwrap()).collect();
    // SAFETY: as above.
    let panic = caught(|| unsafe {
        source.free(items[1]);
        source.free(items[3]);
        source.release(&items);
    });
    let message = panic.unwrap_err().to_string();
    assert!(message.contains("arena \"quanta\": free of 0x1 at 0xb"), "{message}");
    assert_eq!(arena.stats().in_use, 0);
}

/// Quantum caches are at least 2.5 times as fast as the arena. On a busy machine that may show in one of a few
/// tries only.
#[test]
fn faster_than_the_arena() {
    if cfg!(debug_assertions) {
        return println!("NOT RUN: times are measured in release only");
    }
    const PAIRS: u32 = 100_000;
    let arena = arena(4096, 0x1000, 4096 << 14);
    let held: Vec<_> =
        (0..1000).map(|_| arena.alloc(4096, Policy::Instant, Request::NOWAIT).unwrap()).collect();
    held.iter().step_by(2).for_each(|&at| arena.free(at, 4096).unwrap());
    let source = QuantumSource::identifiers(&arena, 1).unwrap();
    let cache =
        BucketCache::<_, _, RawMutex, _>::new(&source, CpuLocks::new(Cpus), HeapMeta::new(), SMALL);
    let least = |mut pair: Box<dyn FnMut() + '_>| {
        (0..9)
            .map(|_| {
                let start = std::time::Instant::now();
                (0..PAIRS).for_each(|_| pair());
                start.elapsed()
            })
            .min()
            .unwrap()
    };
    let is_faster = || {
        let bare = least(Box::new(|| {
            let at = arena.alloc(4096, Policy::Instant, Request::NOWAIT).unwrap();
            arena.free(at, 4096).unwrap();
        }));
        let cached = least(Box::new(|| {
            let item = cache.alloc(Request::NOWAIT).unwrap();
            // SAFETY: it was allocated just now.
            unsafe { cache.free(item) };
        }));
        println!("arena {:?} a pair, quantum cache {:?}", bare / PAIRS, cached / PAIRS);
        cached * 5 < bare * 2
    };
    assert!((0..10).any(|_| is_faster()), "the times are above");
}
