//! What an allocation and a free cost, from ten segments to a million, and what quantum caches save.
//!
//! `cargo run --release -p uma-vmem --example segments`
//!
//! With a number of segments it replaces [`ROUND`] random ones of so many, and says nothing: for a tool that
//! counts instructions, see `docs/vmem.md`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::ptr::NonNull;
use std::time::Instant;

use parking_lot::RawMutex;
use uma_cache::{BucketCache, CacheConfig, CpuLocks, CurrentCpu};
use uma_core::{ItemSource, Metadata, NoSleep, Request};
use uma_testkit::Rng;
use uma_vmem::{Arena, ArenaConfig, Constraints, NoParent, Policy, QuantumSource};

struct Heap;

// SAFETY: the system's allocator keeps these promises for sizes other than 0, and no others are asked for.
unsafe impl Metadata for Heap {
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the size is not 0.
        NonNull::new(unsafe { System.alloc(layout) })
    }

    unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
        // SAFETY: it came from `alloc_meta` with this layout.
        unsafe { System.dealloc(at.as_ptr(), layout) }
    }
}

/// One thread, so one CPU.
struct One;

impl CurrentCpu for One {
    fn cpus(&self) -> usize {
        1
    }

    fn current(&self) -> usize {
        0
    }
}

type Plain = Arena<RawMutex, Heap, NoSleep>;

const PAGE: usize = 4096;
const NOW: Request = Request::NOWAIT;

fn arena(pages: usize) -> Plain {
    let config = ArenaConfig::new("address space", PAGE).expect("a power of two");
    Arena::create(config, 1 << 40, pages * PAGE, Heap, NoSleep).expect("there is memory for tags")
}

/// The least of some rounds, in nanoseconds per operation.
fn time(operations: usize, mut round: impl FnMut()) -> f64 {
    let mut least = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        round();
        least = least.min(start.elapsed().as_nanos() as f64 / operations as f64);
    }
    least
}

/// An arena with `count` segments of 1 to 4 pages, which has seen as many frees as there are.
fn worn(count: usize, rng: &mut Rng) -> (Plain, Vec<(usize, usize)>) {
    let arena = arena(count * 8 + 64);
    let mut live = Vec::new();
    for _ in 0..count {
        live.push(pages(&arena, rng));
    }
    for _ in 0..count {
        replace(&arena, &mut live, rng);
    }
    (arena, live)
}

fn pages(arena: &Plain, rng: &mut Rng) -> (usize, usize) {
    let size = (rng.below(4) + 1) * PAGE;
    (arena.alloc(size, Policy::Instant, NOW).expect("there is room"), size)
}

fn replace(arena: &Plain, live: &mut [(usize, usize)], rng: &mut Rng) {
    let which = rng.below(live.len());
    let (at, size) = live[which];
    arena.free(at, size).expect("it is allocated");
    live[which] = pages(arena, rng);
}

const ROUND: usize = 200_000;

/// By name, for tools.
#[inline(never)]
fn replace_random_segments(arena: &Plain, live: &mut [(usize, usize)], rng: &mut Rng) {
    (0..ROUND).for_each(|_| replace(arena, live, rng));
}

fn main() {
    let mut rng = Rng::new(1);
    if let Some(count) = std::env::args().nth(1) {
        let (arena, mut live) = worn(count.parse().expect("a number of segments"), &mut rng);
        return replace_random_segments(&arena, &mut live, &mut rng);
    }
    println!("ns for an allocation and a free (pages of an arena that is in use)");
    println!(
        "{:>10} {:>10} {:>14} {:>12} {:>14} {:>16}",
        "segments", "same one", "random one", "aligned", "slowest 0.1 %", "bytes a segment"
    );
    for count in [10, 100, 1_000, 10_000, 100_000, 1_000_000] {
        let (arena, mut live) = worn(count, &mut rng);
        let same = time(ROUND, || {
            for _ in 0..ROUND {
                let at = arena.alloc(black_box(PAGE), Policy::Instant, NOW).expect("there is room");
                arena.free(at, PAGE).expect("it is allocated");
            }
        });
        let random = time(ROUND, || {
            replace_random_segments(&arena, &mut live, &mut rng);
        });
        let aligned = time(ROUND, || {
            let constraints = Constraints::new().align(2 * PAGE);
            for _ in 0..ROUND {
                let at =
                    arena.xalloc(PAGE, constraints, Policy::Instant, NOW).expect("there is room");
                arena.xfree(at, PAGE).expect("it is allocated");
            }
        });
        let mut each: Vec<u128> = (0..ROUND)
            .map(|_| {
                let start = Instant::now();
                replace(&arena, &mut live, &mut rng);
                start.elapsed().as_nanos()
            })
            .collect();
        each.sort_unstable();
        let stats = arena.stats();
        println!(
            "{count:>10} {same:>10.1} {random:>14.1} {aligned:>12.1} {:>14} {:>16.1}",
            each[ROUND - ROUND / 1000],
            stats.meta_bytes as f64 / count as f64
        );
    }

    println!("\nns for an allocation and a free of one page, arena of 10,000 segments");
    let (arena, _live) = worn(10_000, &mut rng);
    let bare = time(ROUND, || {
        for _ in 0..ROUND {
            let at = arena.alloc(black_box(PAGE), Policy::Instant, NOW).expect("there is room");
            arena.free(black_box(at), PAGE).expect("it is allocated");
        }
    });
    let source: QuantumSource<'_, _, _, _, NoParent> =
        QuantumSource::identifiers(&arena, 1).expect("one quantum is a size");
    let config = CacheConfig::with_bucket(62);
    let cache = BucketCache::<_, _, RawMutex, _>::new(&source, CpuLocks::new(One), Heap, config);
    let cached = time(ROUND, || {
        for _ in 0..ROUND {
            let item = cache.alloc(black_box(NOW)).expect("there is room");
            // SAFETY: it was allocated just now.
            unsafe { cache.free(black_box(item)) };
        }
    });
    println!("arena {bare:.1}, quantum cache {cached:.1}: {:.1} times faster", bare / cached);
    // A hundred at a time, and in the order in which they came.
    let mut held = Vec::new();
    let bare = time(ROUND, || {
        for _ in 0..ROUND / 100 {
            held.extend((0..100).map(|_| arena.alloc(PAGE, Policy::Instant, NOW).expect("room")));
            held.drain(..).for_each(|at| arena.free(at, PAGE).expect("it is allocated"));
        }
    });
    let mut held = Vec::new();
    let cached = time(ROUND, || {
        for _ in 0..ROUND / 100 {
            held.extend((0..100).map(|_| cache.alloc(NOW).expect("there is room")));
            // SAFETY: they were allocated just now.
            held.drain(..).for_each(|item| unsafe { cache.free(item) });
        }
    });
    println!(
        "a hundred at a time: arena {bare:.1}, quantum cache {cached:.1}: {:.1} times faster",
        bare / cached
    );
}
