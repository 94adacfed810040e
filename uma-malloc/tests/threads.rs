//! Threads that allocate and free each other's memory, and processes that are copied meanwhile; on the platform
//! of ordinary processes. `UMA_MALLOC_SECONDS` makes it run for longer than the usual second.

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::Held;
use uma_malloc::{Malloc, MallocType, Reclaim, Request, SizeClasses};
use uma_testkit::{Rng, in_a_copy};

static HEAP: Malloc = Malloc::new("threads", SizeClasses::GENERAL);
static TYPE: MallocType = MallocType::new("threads", "what the threads have");

const THREADS: usize = 4;
/// So many copies are made at least, however long that takes.
const COPIES: usize = 4;

fn seconds() -> Duration {
    let wish = std::env::var("UMA_MALLOC_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(wish.unwrap_or(1))
}

/// A size: small mostly.
fn size(random: &mut Rng) -> usize {
    let powers = if random.one_in(40) { 20 } else { 11 };
    let power = random.below(powers);
    random.below(1 << (power + 1))
}

/// Holds some allocations, and replaces one after another: by its own, or by what others sent.
fn worker(number: usize, over: impl Fn() -> bool, others: &[Sender<Held>], inbox: &Receiver<Held>) {
    let mut random = Rng::new(number as u64 + 1);
    let mut held: Vec<Held> = Vec::new();
    let mut steps = 0_u64;
    while !steps.is_multiple_of(64) || !over() {
        steps += 1;
        if held.len() > 300 || random.one_in(3) && !held.is_empty() {
            let one = held.swap_remove(random.below(held.len()));
            if random.one_in(2) {
                // It may be too late, then the other has ended.
                if let Err(back) = others[random.below(others.len())].send(one) {
                    back.0.free(&HEAP);
                }
            } else {
                one.free(&HEAP);
            }
        } else if random.one_in(8) && !held.is_empty() {
            let index = random.below(held.len());
            let new = size(&mut random);
            let old = &held[index];
            // SAFETY: the memory is ours; a pointer that was replaced is used no more.
            let at = unsafe {
                let layout = std::alloc::Layout::from_size_align(old.size, old.align).unwrap();
                HEAP.realloc_layout(old.at, layout, new, Request::WAIT).unwrap()
            };
            Held { at, ..*old }.verify(new);
            // SAFETY: as above.
            held[index] = unsafe { Held::new(at, new, old.align, random.bits()) };
        } else {
            let size = size(&mut random);
            let powers = if random.one_in(20) { 14 } else { 5 };
            let align = 1 << random.below(powers);
            let at = HEAP.alloc_aligned(size, align, Request::WAIT).unwrap();
            // SAFETY: the memory is ours.
            held.push(unsafe { Held::new(at, size, align, random.bits()) });
        }
        while let Ok(one) = inbox.try_recv() {
            one.free(&HEAP);
        }
        if random.one_in(5000) {
            HEAP.reclaim(Reclaim::DrainCpu);
        }
    }
    for one in held {
        one.free(&HEAP);
    }
}

/// One test, because all share the heap.
#[test]
fn threads_and_forks() {
    let until = Instant::now() + seconds();
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| channel()).unzip();
    let (stop, copies) = (AtomicBool::new(false), AtomicUsize::new(0));
    let over = || Instant::now() >= until && copies.load(Ordering::Relaxed) >= COPIES;
    thread::scope(|scope| {
        let workers: Vec<_> = inboxes
            .into_iter()
            .enumerate()
            .map(|(number, inbox)| {
                let others = senders.clone();
                scope.spawn(move || {
                    worker(number, over, &others, &inbox);
                    drop(others);
                    // Until nobody sends any more.
                    while let Ok(one) = inbox.recv() {
                        one.free(&HEAP);
                    }
                })
            })
            .collect();
        drop(senders);
        let forks = scope.spawn(|| {
            let mut failed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                failed.extend(Some(in_a_copy(in_copy)).filter(|&status| status != 0));
                copies.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
            failed
        });
        let ended: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        let failed = forks.join().unwrap();
        assert!(ended.iter().all(Result::is_ok));
        assert_eq!(failed, [], "what copies ended with");
        println!("{copies:?} copies");
    });
    let stats = HEAP.stats();
    assert_eq!((stats.used(), stats.bytes, stats.large, stats.corrupt), (0, 0, 0, 0));
    assert!(stats.allocs > 1000);
    HEAP.for_each_live(|at, size| panic!("{size} bytes at {at:p} are said to be in use"));
    HEAP.reclaim(Reclaim::DrainCpu);
    assert_eq!(HEAP.stats().held, 0);
    types();
}

/// In a copy of the process everything works, whatever other threads were about.
fn in_copy() -> bool {
    let mut fine = true;
    for size in [10, 100, 1000, 10_000, 65536, 100_000, 5 << 20] {
        for _ in 0..20 {
            let Ok(at) = HEAP.zalloc(size, Request::WAIT) else {
                fine = false;
                continue;
            };
            // SAFETY: the memory is ours.
            unsafe {
                fine &= at.add(size - 1).read() == 0;
                at.write_bytes(1, size);
                fine &= HEAP.try_free(at).is_ok();
            }
        }
    }
    HEAP.reclaim(Reclaim::DrainCpu);
    fine
}

/// Types count what threads have, whoever frees it.
fn types() {
    let (send, receive) = channel::<Held>();
    thread::scope(|scope| {
        scope.spawn(move || {
            for one in receive {
                one.verify(usize::MAX);
                // SAFETY: the memory is ours.
                unsafe { HEAP.free_type(one.at, &TYPE) };
            }
        });
        for number in 0..3 {
            let send = send.clone();
            scope.spawn(move || {
                let mut random = Rng::new(number);
                for _ in 0..2000 {
                    let size = random.below(3000);
                    let at = HEAP.alloc_type(size, &TYPE, Request::WAIT).unwrap();
                    // SAFETY: the memory is ours.
                    send.send(unsafe { Held::new(at, size, 1, 1) }).unwrap();
                }
            });
        }
        drop(send);
    });
    let stats = TYPE.stats();
    assert_eq!((stats.allocs, stats.frees, stats.bytes), (6000, 6000, 0));
    assert!(stats.high > 0);
}
