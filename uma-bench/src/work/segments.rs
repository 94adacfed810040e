//! Arenas with more and more segments: an allocation and its free, in the arena and through a quantum
//! cache. It should not change.
//!
//! An arena has segments of 1 to 4 pages, and has seen as many frees as it has segments. What is allocated
//! and freed at once is always the same page, whose tags stay in the cache of the CPU: that shows the work
//! alone. A random segment of a million is in no cache, nor is anything beside it; so that is set against
//! [`MISSES`] steps of a walk, each to where the last one says, through memory as large as the books.

use std::hint::black_box;
use std::sync::Arc;

use uma::cache::{BucketCache, CacheConfig};
use uma::core::{ItemSource, NoSleep, Request};
use uma::{Host, Platform};
use uma_vmem::{Arena, ArenaConfig, Constraints, Policy, QuantumSource};

use crate::rounds::{Contest, Figure, Random};
use crate::subject::out_of_memory;
use crate::sync::Mutex;
use crate::team::Member;
use crate::work::Bench;

const COUNTS: [usize; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];
const STEPS: usize = 20_000;
const PAGE: usize = 4096;
const NOW: Request = Request::NOWAIT;

/// Lines of the books that an allocation and a free of random segments touch and that the twenty before
/// did not, from 10,000 segments on: 10.4 to 11.
const MISSES: usize = 10;

type Lock = <Host as Platform>::Lock;
type Metadata = <Host as Platform>::Metadata;
type Pages = Arena<Lock, Metadata, NoSleep>;

pub(crate) fn run(bench: &mut Bench) {
    let few = Arc::new(Worn::new(COUNTS[0]));
    for count in COUNTS {
        let worn = Arc::new(Worn::new(count));
        let bytes = worn.arena.stats().meta_bytes;
        let each = vec![bytes as f64 / count as f64];
        let figures = vec![Figure::new("tags and table", each)];
        bench.keep("arena, books for each of the segments", count, 1, "bytes", figures);

        let mut contest = Contest::new(1);
        lane(&mut contest, "bare arena", &worn, same);
        lane(&mut contest, "aligned to two pages", &worn, aligned);
        lane(&mut contest, "quantum cache", &worn, cached);
        if count == COUNTS[5] {
            lane(&mut contest, "10 segments", &few, same);
        }
        bench.contest("arena, more and more segments", count, 1, contest);

        let mut contest = Contest::new(1);
        lane(&mut contest, "random segment", &worn, random);
        let lines = Arc::new(Mutex::new(Walk::new(bytes)));
        contest.lane("ten misses", move |member| {
            let mut walk = lines.lock().expect("no job panics");
            time(member, || walk.steps(MISSES))
        });
        bench.contest("arena, random of more and more segments", count, 1, contest);
    }
}

fn lane(
    contest: &mut Contest,
    name: &'static str,
    worn: &Arc<Worn>,
    job: fn(&Worn, &Member) -> f64,
) {
    let worn = Arc::clone(worn);
    contest.lane(name, move |member| job(&worn, member));
}

/// Nanoseconds for one piece of work.
fn time(member: &Member, mut work: impl FnMut()) -> f64 {
    (0..STEPS / 10).for_each(|_| work());
    let time = member.time(|| (0..STEPS).for_each(|_| work()));
    time.as_nanos() as f64 / STEPS as f64
}

/// An arena that has been in use.
struct Worn {
    arena: Pages,
    live: Mutex<Live>,
}

/// What is allocated, by address and size.
struct Live {
    segments: Vec<(usize, usize)>,
    random: Random,
}

impl Live {
    fn take(&mut self, arena: &Pages) -> (usize, usize) {
        let size = (self.random.below(4) + 1) * PAGE;
        (alloc(arena, size), size)
    }

    fn replace(&mut self, arena: &Pages) {
        let which = self.random.below(self.segments.len());
        let (at, size) = self.segments[which];
        free(arena, at, size);
        self.segments[which] = self.take(arena);
    }
}

fn alloc(arena: &Pages, size: usize) -> usize {
    arena.alloc(size, Policy::Instant, NOW).unwrap_or_else(|_| out_of_memory())
}

fn free(arena: &Pages, at: usize, size: usize) {
    arena.free(at, size).expect("it was allocated with this size");
}

impl Worn {
    fn new(count: usize) -> Self {
        let config = ArenaConfig::new("bench", PAGE).expect("a power of two");
        let size = (count * 8 + 64) * PAGE;
        let arena = Arena::create(config, 1 << 40, size, Host.metadata(), NoSleep);
        let arena = arena.unwrap_or_else(|_| out_of_memory());
        let mut live = Live { segments: Vec::with_capacity(count), random: Random::new(1) };
        for _ in 0..count {
            let segment = live.take(&arena);
            live.segments.push(segment);
        }
        (0..count).for_each(|_| live.replace(&arena));
        Self { arena, live: Mutex::new(live) }
    }
}

fn same(worn: &Worn, member: &Member) -> f64 {
    time(member, || {
        let at = alloc(&worn.arena, black_box(PAGE));
        free(&worn.arena, black_box(at), PAGE);
    })
}

fn aligned(worn: &Worn, member: &Member) -> f64 {
    let constraints = Constraints::new().align(2 * PAGE);
    time(member, || {
        let at = worn.arena.xalloc(black_box(PAGE), constraints, Policy::Instant, NOW);
        let at = at.unwrap_or_else(|_| out_of_memory());
        free(&worn.arena, black_box(at), PAGE);
    })
}

fn random(worn: &Worn, member: &Member) -> f64 {
    let mut live = worn.live.lock().expect("no job panics");
    time(member, || live.replace(&worn.arena))
}

fn cached(worn: &Worn, member: &Member) -> f64 {
    let source = QuantumSource::identifiers(&worn.arena, 1).expect("one quantum is a size");
    let config = CacheConfig::with_bucket(62);
    let cache: BucketCache<_, _, Lock, Metadata> =
        BucketCache::new(&source, Host.cpus(), Host.metadata(), config);
    time(member, || {
        let item = cache.alloc(black_box(NOW)).unwrap_or_else(|_| out_of_memory());
        // SAFETY: it was allocated just now.
        unsafe { cache.free(black_box(item)) };
    })
}

/// A ring through all lines of some memory, in random order.
struct Walk {
    lines: Vec<Line>,
    at: usize,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line {
    next: usize,
}

impl Walk {
    fn new(bytes: usize) -> Self {
        let count = bytes.div_ceil(size_of::<Line>()).max(1);
        let mut order = (0..count).collect::<Vec<_>>();
        Random::new(3).shuffle(&mut order);
        let mut lines = vec![Line { next: 0 }; count];
        for (at, &line) in order.iter().enumerate() {
            lines[line].next = order[(at + 1) % count];
        }
        Self { lines, at: 0 }
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.at = self.lines[self.at].next;
        }
        black_box(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_sees_every_line() {
        let mut walk = Walk::new(1000 * 64);
        let mut seen = vec![false; 1000];
        for _ in 0..1000 {
            walk.steps(1);
            assert!(!std::mem::replace(&mut seen[walk.at], true));
        }
    }

    #[test]
    fn a_worn_arena_has_what_is_live() {
        let worn = Worn::new(1000);
        let live = worn.live.lock().unwrap();
        let sum = live.segments.iter().map(|&(_, size)| size).sum::<usize>();
        let stats = worn.arena.stats();
        assert_eq!((stats.segments, stats.in_use), (1000, sum));
        assert_eq!(stats.frees, 1000);
    }
}
