//! Threads that use zones in every way that the library allows, for ThreadSanitizer to watch.
//!
//! It is a plain program because the test harness itself looks racy to the sanitizer when the standard
//! library is not built for it; for the same reason threads are spawned and joined, zones are statics, and
//! nothing here is shared by `Arc` or scoped threads.
//!
//!     uma-tsan SECONDS          all of it, for so long
//!     uma-tsan race             the control: two threads write to one item, which must be found

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use uma::core::{Item, Request};
use uma::{ObjectCache, RawZone, Reclaim, Zone};

type Node = [u64; 6];

static PLAIN: Zone<Node> = Zone::new("plain");
static STOP: AtomicBool = AtomicBool::new(false);
static DONE: AtomicU64 = AtomicU64::new(0);

/// Numbers that look random: xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        // A remainder of `bound` fits.
        (self.next() % bound as u64) as usize
    }
}

fn main() {
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument == "race" {
        race();
        return;
    }
    let Ok(seconds) = argument.parse() else {
        eprintln!("usage: uma-tsan SECONDS | uma-tsan race");
        std::process::exit(2);
    };
    run(Duration::from_secs(seconds));
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn run(time: Duration) {
    let limited = leak(Zone::<Node>::builder("limited").max_items(40).build().expect("a zone"));
    let objects = leak(
        ObjectCache::<Vec<u64>>::builder("objects")
            .init(|| Vec::with_capacity(8))
            .dtor(|object| object.clear())
            .max_items(500)
            .build()
            .expect("a cache"),
    );
    let layout = core::alloc::Layout::new::<Node>();
    let handed = leak(RawZone::builder("handed over", layout).build().expect("a zone"));

    let mut threads = Vec::new();
    for seed in 1..=3 {
        threads.push(thread::spawn(move || churn(seed)));
        threads.push(thread::spawn(move || wait_at(limited, seed)));
        threads.push(thread::spawn(move || reuse(objects, seed)));
    }
    let (sender, receiver) = channel();
    threads.push(thread::spawn(move || produce(handed, sender)));
    threads.push(thread::spawn(move || consume(handed, receiver)));
    threads.push(thread::spawn(move || look_and_drain(limited)));

    let begin = Instant::now();
    while begin.elapsed() < time {
        thread::sleep(Duration::from_millis(50));
    }
    STOP.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a thread that ended well");
    }

    uma::reclaim(Reclaim::DrainCpu);
    println!("{}", uma::stat());
    for zone in uma::zones() {
        assert_eq!(zone.stats.used(), 0, "{} has items in use", zone.name);
    }
    println!("{} rounds", DONE.load(Ordering::Relaxed));
}

/// Allocates, checks and frees, with up to 300 items at a time.
fn churn(seed: u64) {
    let mut random = Random(seed);
    let mut held = Vec::new();
    while !STOP.load(Ordering::Relaxed) {
        if held.len() < 300 && !random.next().is_multiple_of(3) {
            let mark = random.next();
            held.push((PLAIN.alloc([mark; 6]).expect("memory"), mark));
        } else if !held.is_empty() {
            let (node, mark) = held.swap_remove(random.below(held.len()));
            assert_eq!(*node, [mark; 6]);
        }
        DONE.fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes more, all threads together, than the limit allows at times, and so waits.
fn wait_at(zone: &'static Zone<Node>, seed: u64) {
    let mut random = Random(seed ^ 0x1234_5678);
    while !STOP.load(Ordering::Relaxed) {
        // At most 13 each: three threads never all wait for ever.
        let count = 1 + random.below(13);
        let nodes: Vec<_> = (0..count)
            .map(|at| match random.below(2) {
                0 => zone.alloc([at as u64; 6]).expect("an item, after waiting"),
                _ => loop {
                    if let Ok(node) = zone.try_alloc([at as u64; 6]) {
                        break node;
                    }
                    thread::yield_now();
                },
            })
            .collect();
        for (at, node) in nodes.iter().enumerate() {
            assert_eq!(**node, [at as u64; 6]);
        }
        drop(nodes);
        DONE.fetch_add(1, Ordering::Relaxed);
    }
}

/// Objects that stay constructed.
fn reuse(objects: &'static ObjectCache<Vec<u64>>, seed: u64) {
    let mut random = Random(seed ^ 0x8765_4321);
    while !STOP.load(Ordering::Relaxed) {
        let mut some: Vec<_> =
            (0..random.below(20)).map(|_| objects.get().expect("an object")).collect();
        for object in &mut some {
            assert!(object.is_empty(), "the dtor has cleared it");
            object.push(random.next());
        }
        drop(some);
        DONE.fetch_add(1, Ordering::Relaxed);
    }
}

/// A queue of items between two threads: a ring of one atomic word each, and whether no more come.
struct Ring([core::sync::atomic::AtomicPtr<u8>; 64], AtomicBool);

fn channel() -> (&'static Ring, &'static Ring) {
    let places = [const { core::sync::atomic::AtomicPtr::new(core::ptr::null_mut()) }; 64];
    let ring: &'static Ring = leak(Ring(places, AtomicBool::new(false)));
    (ring, ring)
}

fn produce(zone: &'static RawZone, ring: &'static Ring) {
    let mut at = 0;
    while !STOP.load(Ordering::Relaxed) {
        let place = &ring.0[at % ring.0.len()];
        if !place.load(Ordering::Acquire).is_null() {
            thread::yield_now();
            continue;
        }
        let item = zone.alloc(Request::NOWAIT).expect("memory");
        // SAFETY: the item is ours and has room for a node.
        unsafe { item.as_ptr().cast::<Node>().write([at as u64; 6]) };
        place.store(item.as_ptr(), Ordering::Release);
        at += 1;
    }
    ring.1.store(true, Ordering::Release);
}

fn consume(zone: &'static RawZone, ring: &'static Ring) {
    let mut at = 0;
    loop {
        let last = ring.1.load(Ordering::Acquire);
        let place = &ring.0[at % ring.0.len()];
        let item = place.swap(core::ptr::null_mut(), Ordering::AcqRel);
        if let Some(item) = core::ptr::NonNull::new(item) {
            // SAFETY: the producer wrote a node and gave the item up.
            unsafe {
                assert_eq!(item.cast::<Node>().read(), [at as u64; 6]);
                zone.free(Item::new(item));
            }
            at += 1;
        } else if last {
            return;
        } else {
            thread::yield_now();
        }
    }
}

/// Statistics, reclaims and limits, all the while; and zones that come and go.
fn look_and_drain(limited: &'static Zone<Node>) {
    let mut random = Random(99);
    while !STOP.load(Ordering::Relaxed) {
        match random.below(6) {
            0 => uma::reclaim(Reclaim::DrainCpu),
            1 => uma::reclaim(Reclaim::Drain),
            2 => uma::reclaim(Reclaim::Trim),
            3 => uma::maintain(),
            4 => {
                let most = core::num::NonZeroU64::new(40 + random.next() % 20);
                limited.set_max_items(most).expect("a zone that is there");
            }
            _ => {
                let zone = Zone::<[u64; 3]>::builder("passing").build().expect("a zone");
                let items: Vec<_> = (0..50).map(|_| zone.alloc([7; 3]).expect("memory")).collect();
                drop(items);
            }
        }
        assert!(uma::stat().to_string().contains("plain"));
        DONE.fetch_add(1, Ordering::Relaxed);
    }
}

/// The control: what the sanitizer must find.
fn race() {
    struct Shared(Item);
    // SAFETY: not so: this is the fault that is planted.
    unsafe impl Send for Shared {}
    let zone: &'static RawZone = leak(
        RawZone::builder("raced", core::alloc::Layout::new::<Node>()).build().expect("a zone"),
    );
    let item = zone.alloc(Request::NOWAIT).expect("memory");
    let writers = [1, 2].map(|mark: u64| {
        let shared = Shared(item);
        thread::spawn(move || {
            let shared = shared;
            for _ in 0..100_000 {
                // SAFETY: the memory is there; that two threads write to it is the fault.
                unsafe { shared.0.as_ptr().cast::<u64>().write_volatile(mark) };
            }
        })
    });
    for writer in writers {
        writer.join().expect("a thread that ended well");
    }
}
