//! More CPUs than the machine has: 128 virtual ones, which one thread plays in turn, to count how often an
//! operation leaves its CPU's buckets and how often it takes the depot's lock.
//!
//! ```text
//!   pattern      which virtual CPU does what
//!     |
//!   BucketCache  the real one, over a real keg and real bookkeeping memory
//!     |
//!   Virtual      the slot of the CPU whose turn it is; counts misses, notes what is installed
//!   Counted      the depot's lock, counted
//! ```
//!
//! It is exact and the same in every run, since only one thing happens at a time. What it cannot show is
//! waiting: CPUs never meet at the depot, so buckets do not grow by that, as they would.

use std::alloc::Layout;

use uma::cache::bucket::Owned;
use uma::cache::{BucketCache, CacheConfig, PerCpu, Slots, Which};
use uma::core::{Item, ItemSource, Metadata, RawMutex, Request};
use uma::keg::{Keg, SlabConfig, SlabLayout};
use uma::{Host, Platform};

use crate::rounds::{Figure, Random};
use crate::subject::out_of_memory;
use crate::sync::{AtomicBool, Cell, Ordering};
use crate::work::Bench;

/// How many CPUs there are.
pub(crate) const CPUS: usize = 128;

/// Where the two buckets of a CPU lie: address and bytes.
type Pair = [(usize, usize); 2];

/// Access to the slot of the CPU whose turn it is.
pub(crate) struct Virtual {
    current: Cell<usize>,
    misses: Cell<u64>,
    installed: Vec<Cell<Pair>>,
}

impl Virtual {
    pub(crate) fn new() -> Self {
        let installed = (0..CPUS).map(|_| Cell::new([(0, 0); 2])).collect();
        Self { current: Cell::new(0), misses: Cell::new(0), installed }
    }

    /// Whose turn it is from now on.
    pub(crate) fn turn(&self, cpu: usize) {
        self.current.set(cpu);
    }

    /// Operations that did not find what they wanted in the buckets of their CPU.
    pub(crate) fn misses(&self) -> u64 {
        self.misses.get()
    }

    /// Where the buckets of a CPU lie that were put in last.
    #[cfg(test)]
    pub(crate) fn installed(&self, cpu: usize) -> Pair {
        self.installed[cpu].get()
    }

    fn hit<T>(&self, result: Option<T>) -> Option<T> {
        if result.is_none() {
            self.misses.set(self.misses.get() + 1);
        }
        result
    }
}

// SAFETY: it cannot be shared by threads, and no operation runs within another, so each has its slot to itself
// and none is under way when a fence is asked for.
unsafe impl PerCpu for Virtual {
    fn cpus(&self) -> usize {
        CPUS
    }

    fn pop(&self, slots: Slots<'_>) -> Option<Item> {
        // SAFETY: one thing happens at a time.
        self.hit(slots.get(self.current.get()).and_then(|slot| unsafe { slot.pop() }))
    }

    unsafe fn push(&self, slots: Slots<'_>, item: Item) -> bool {
        // SAFETY: as in `pop`; the item is the caller's to give.
        let push = |slot: &uma::cache::Slot| unsafe { slot.push(item) }.then_some(());
        self.hit(slots.get(self.current.get()).and_then(push)).is_some()
    }

    fn swap(&self, slots: Slots<'_>, which: Which, new: Owned) -> Result<Owned, Owned> {
        let Some(slot) = slots.get(self.current.get()) else { return Err(new) };
        let bytes = if new.is_none() { 0 } else { 16 + 8 * usize::from(new.capacity()) };
        let raw = new.into_raw();
        let place = &self.installed[self.current.get()];
        let mut pair = place.get();
        pair[usize::from(which == Which::Free)] = (raw.addr().get(), bytes);
        place.set(pair);
        // SAFETY: it is the bucket that was given up a moment ago; one thing happens at a time.
        Ok(unsafe { slot.swap(which, Owned::from_raw(raw)) })
    }

    fn fence(&self, _: Slots<'_>, _: usize) -> bool {
        true
    }

    fn mode(&self) -> &'static str {
        "virtual"
    }
}

thread_local! {
    static LOCKED: Cell<u64> = const { Cell::new(0) };
}

/// A lock that counts how often it is taken on this thread.
pub(crate) struct Counted(AtomicBool);

// SAFETY: whoever changes the word from `false` has the lock until it is stored again.
unsafe impl RawMutex for Counted {
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = <<Host as Platform>::Lock as RawMutex>::GuardMarker;

    fn lock(&self) {
        while !self.try_lock() {
            std::hint::spin_loop();
        }
    }

    fn try_lock(&self) -> bool {
        let taken = !self.0.swap(true, Ordering::Acquire);
        LOCKED.set(LOCKED.get() + u64::from(taken));
        taken
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

type Slabs = Keg<<Host as Platform>::Pages, <Host as Platform>::Lock, <Host as Platform>::Metadata>;

/// A cache whose slots are those of the virtual CPUs.
pub(crate) type Cache<C, M> = BucketCache<Slabs, C, Counted, M>;

/// A cache of items of `size` bytes.
pub(crate) fn cache<C: PerCpu, M: Metadata>(
    size: usize,
    cpus: C,
    metadata: M,
    config: CacheConfig,
) -> Cache<C, M> {
    let item = Layout::from_size_align(size, 8).ok();
    let layout = item.and_then(|item| SlabLayout::new(item, SlabConfig::new()).ok());
    let Some(layout) = layout else { unreachable!("the sizes are constants that suit a slab") };
    BucketCache::new(
        Keg::with_layout(Host.pages(), Host.metadata(), layout),
        cpus,
        metadata,
        config,
    )
}

/// What a pattern is played on.
struct Game<'v> {
    cpus: &'v Virtual,
    cache: Cache<&'v Virtual, <Host as Platform>::Metadata>,
    operations: Cell<u64>,
}

impl Game<'_> {
    fn alloc(&self, cpu: usize) -> Item {
        self.cpus.turn(cpu);
        self.operations.set(self.operations.get() + 1);
        match self.cache.alloc(Request::NOWAIT) {
            Ok(item) => item,
            Err(_) => out_of_memory(),
        }
    }

    fn free(&self, cpu: usize, item: Item) {
        self.cpus.turn(cpu);
        self.operations.set(self.operations.get() + 1);
        // SAFETY: patterns free what they have allocated, once.
        unsafe { self.cache.free(item) }
    }
}

/// What one pattern does. It is played twice, and counted the second time.
type Pattern = fn(&Game<'_>, &mut Vec<Item>, &mut Random);

const PATTERNS: [(&str, Pattern); 6] = [
    ("128 virtual CPUs: pairs", pairs),
    ("128 virtual CPUs: batches of 10,000", batches),
    ("128 virtual CPUs: random walks", walks),
    ("128 virtual CPUs: churn of 100,000", churn),
    ("128 virtual CPUs: freed by the next CPU", handed_on),
    ("128 virtual CPUs: allocated and freed anywhere", anywhere),
];

/// Each allocates and frees at once.
fn pairs(game: &Game<'_>, _: &mut Vec<Item>, _: &mut Random) {
    for _ in 0..1000 {
        for cpu in 0..CPUS {
            game.free(cpu, game.alloc(cpu));
        }
    }
}

/// One after the other allocates 10,000 and then frees them.
fn batches(game: &Game<'_>, held: &mut Vec<Item>, _: &mut Random) {
    for cpu in 0..CPUS {
        held.extend((0..10_000).map(|_| game.alloc(cpu)));
        held.drain(..).for_each(|item| game.free(cpu, item));
    }
}

/// One by chance allocates or frees, by chance, of what all have.
fn walks(game: &Game<'_>, held: &mut Vec<Item>, random: &mut Random) {
    let mut own: Vec<Vec<Item>> = (0..CPUS).map(|_| Vec::new()).collect();
    for _ in 0..500_000 {
        let cpu = random.below(CPUS);
        match own[cpu].pop() {
            Some(item) if random.below(2) == 0 => game.free(cpu, item),
            kept => {
                own[cpu].extend(kept);
                own[cpu].push(game.alloc(cpu));
            }
        }
    }
    held.extend(own.into_iter().flatten());
    held.drain(..).enumerate().for_each(|(at, item)| game.free(at % CPUS, item));
}

/// Of 100,000 items one is replaced, by one CPU by chance.
fn churn(game: &Game<'_>, held: &mut Vec<Item>, random: &mut Random) {
    if held.is_empty() {
        held.extend((0..100_000).map(|at| game.alloc(at % CPUS)));
    }
    for _ in 0..500_000 {
        let (cpu, at) = (random.below(CPUS), random.below(held.len()));
        game.free(cpu, held[at]);
        held[at] = game.alloc(cpu);
    }
}

/// Each allocates what the next one frees.
fn handed_on(game: &Game<'_>, _: &mut Vec<Item>, _: &mut Random) {
    for _ in 0..2000 {
        for cpu in 0..CPUS {
            let item = game.alloc(cpu);
            game.free((cpu + 1) % CPUS, item);
        }
    }
    // So every CPU gets as many as it gives: now every other only allocates.
    for _ in 0..2000 {
        for cpu in (0..CPUS).step_by(2) {
            let item = game.alloc(cpu);
            game.free(cpu + 1, item);
        }
    }
}

/// An item is allocated on one CPU and freed on another, both by chance.
fn anywhere(game: &Game<'_>, _: &mut Vec<Item>, random: &mut Random) {
    for _ in 0..250_000 {
        let item = game.alloc(random.below(CPUS));
        game.free(random.below(CPUS), item);
    }
}

/// Of a thousand operations of a pattern: those that missed, and how often the depot was locked.
pub(crate) fn play(size: usize, pattern: usize) -> (f64, f64) {
    let cpus = Virtual::new();
    let cache = cache(size, &cpus, Host.metadata(), CacheConfig::for_size(size));
    let game = Game { cpus: &cpus, cache, operations: Cell::new(0) };
    let (mut held, mut random) = (Vec::new(), Random::new(1));
    let play = PATTERNS[pattern].1;
    play(&game, &mut held, &mut random);
    let before = (cpus.misses(), LOCKED.get());
    game.operations.set(0);
    play(&game, &mut held, &mut random);
    let thousands = game.operations.get() as f64 / 1000.0;
    let misses = (cpus.misses() - before.0) as f64 / thousands;
    let locked = (LOCKED.get() - before.1) as f64 / thousands;
    held.into_iter().for_each(|item| game.free(0, item));
    (misses, locked)
}

pub(crate) fn run(bench: &mut Bench) {
    for size in [64, 1024, 4096] {
        for (at, &(name, _)) in PATTERNS.iter().enumerate() {
            let (misses, locked) = play(size, at);
            let figures = vec![
                Figure::new("slow paths", vec![misses]),
                Figure::new("locks of the depot", vec![locked]),
            ];
            bench.keep(name, size, CPUS, "per 1000", figures);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a thousand operations so many may leave the CPU's buckets, of the patterns in their order.
    const MISSES: [f64; 6] = [0.0, 4.1, 4.1, 4.1, 8.2, 4.1];

    #[test]
    fn the_depot_is_asked_rarely() {
        for (at, most) in MISSES.into_iter().enumerate() {
            let (misses, locked) = play(64, at);
            println!("{}: {misses:.3} misses and {locked:.3} locks of 1000", PATTERNS[at].0);
            assert!(misses <= most, "{}: {misses} of 1000", PATTERNS[at].0);
            assert!(locked <= 1.5 * misses, "{}: {locked} locks of 1000", PATTERNS[at].0);
        }
    }
}
