//! What others can do with a slab while its free pages are given back, which happens without the lock.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::logged::{Logged, base_of, check_pages, keg, one_slab, spare};
use common::{Lock, count_locks, give, stats, take, take_all};
use uma_core::{AllocError, Item, ItemSource, PageError, Reclaim, Request};
use uma_keg::Keg;
use uma_testkit::{Rng, token};

/// Waits until something is so; not for ever.
fn soon(so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not come to be so");
        std::thread::yield_now();
    }
}

/// While a slab is away: nothing is taken from it, its items can come back and be looked up, others
/// may drain too, and the counts are right.
#[test]
fn while_a_slab_is_away() {
    let pages = Logged::new();
    let keg = keg(&pages, 200);
    let slab = *keg.slab_layout();
    let each = slab.items();
    let items = one_slab(&keg);
    let base = items[0].addr();
    let (live, free) = (&items[..10], &items[10..]);
    give(&keg, free);
    let mut other = Vec::new();
    pages.during_drain(&keg, || {
        assert_eq!((stats(&keg).slabs, stats(&keg).keg_free), (1, free.len() as u64));
        assert!(keg.contains(live[0]) && !keg.contains(free[0]));
        let mut seen = 0;
        keg.for_each_live(|_| seen += 1);
        assert_eq!(seen, 10);
        // What is taken comes from elsewhere.
        other = take_all(&keg, 5);
        assert!(other.iter().all(|&item| base_of(&slab, item) != base));
        assert_eq!((stats(&keg).slabs, keg.live()), (2, 15));
        give(&keg, &live[..2]);
        assert_eq!((keg.live(), stats(&keg).keg_free), (13, 2 * each as u64 - 13));
        assert!(!keg.contains(live[0]) && keg.contains(live[2]));
        // Double frees are found there too.
        assert!(catch_unwind(AssertUnwindSafe(|| give(&keg, &live[..1]))).is_err());
        // Another drain leaves this slab alone.
        pages.ranges();
        keg.reclaim(Reclaim::DrainCpu);
        let ranges = pages.ranges();
        let here = base..base + slab.slab_size();
        assert!(!ranges.is_empty() && ranges.iter().all(|(at, _)| !here.contains(at)));
        pages.ranges();
    });
    // It has changed since it went away, so it is still to be looked at, and then no more.
    pages.ranges();
    keg.reclaim(Reclaim::Drain);
    let left = live[2..].iter().map(|item| item.addr());
    assert_eq!(pages.ranges(), spare(&slab, 4096, base, left));
    keg.reclaim(Reclaim::Drain);
    assert_eq!(pages.ranges(), []);
    give(&keg, &live[2..]);
    give(&keg, &other);
    assert_eq!((keg.live(), stats(&keg).keg_free), (0, 2 * each as u64));
}

#[test]
fn a_slab_that_becomes_wholly_free_while_away_goes_back() {
    let pages = Logged::new();
    let keg = keg(&pages, 200);
    let items = one_slab(&keg);
    give(&keg, &items[1..]);
    pages.during_drain(&keg, || {
        give(&keg, &items[..1]);
        // It is not there for the asking, neither for a drain nor for an allocation.
        keg.reclaim(Reclaim::Trim);
        assert_eq!((stats(&keg).slabs, keg.live()), (1, 0));
    });
    assert_eq!((stats(&keg).slabs, pages.fake.outstanding().runs), (0, 0));
}

/// Without pages for another slab, who may wait gets what was away, and others are told no.
#[test]
fn no_pages_while_a_slab_is_away() {
    let pages = Logged::new();
    let keg = keg(&pages, 200);
    let items = one_slab(&keg);
    give(&keg, &items[1..]);
    pages.exhausted.store(true, Ordering::SeqCst);
    let got = std::thread::scope(|scope| {
        let mut waiting = None;
        pages.during_drain(&keg, || {
            let refused = AllocError::Pages(PageError::Exhausted);
            assert_eq!(take(&keg, 1, Request::NOWAIT), Err(refused));
            waiting = Some(scope.spawn(|| take(&keg, 1, Request::WAIT)));
            soon(|| {
                assert!(!waiting.as_ref().unwrap().is_finished());
                pages.fake.relaxed() != 0
            });
        });
        waiting.unwrap().join().unwrap().unwrap()
    });
    give(&keg, &got);
    give(&keg, &items[..1]);
}

/// What a fork copies has every slab in its place.
#[test]
fn a_fork_waits_for_the_slab_that_is_away_and_for_no_more() {
    static LOOKED: AtomicU64 = AtomicU64::new(0);
    let pages = Logged::new();
    let keg = keg(&pages, 200);
    let mut items = take_all(&keg, 40 * keg.slab_layout().items());
    let mut rng = Rng::new(3);
    while items.len() > 400 {
        give(&keg, &[items.swap_remove(rng.below(items.len()))]);
    }
    let free = stats(&keg).keg_free;
    std::thread::scope(|scope| {
        let mut forking = None;
        pages.during_drain(&keg, || {
            forking = Some(scope.spawn(|| {
                count_locks(&LOOKED);
                keg.prefork();
                let calls = pages.log.lock().unwrap().len();
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(pages.log.lock().unwrap().len(), calls, "nothing is under way");
                // SAFETY: as it must be.
                unsafe { keg.postfork(uma_core::Process::Original) };
                calls
            }));
            // It has said that it wants to fork, and seen that a slab is away.
            soon(|| {
                assert!(!forking.as_ref().unwrap().is_finished());
                LOOKED.load(Ordering::SeqCst) >= 2 && pages.fake.relaxed() != 0
            });
            assert_eq!(pages.log.lock().unwrap().len(), 1);
        });
        let calls = forking.unwrap().join().unwrap();
        assert_eq!(calls, 1, "calls before the lock was had");
        assert_eq!(pages.log.lock().unwrap().len(), calls, "the drain has ended");
    });
    assert_eq!((stats(&keg).keg_free, keg.live()), (free, 400));
    // The next does all that is left, also in the slab that was away.
    keg.reclaim(Reclaim::Drain);
    check_pages(keg.slab_layout(), &items.iter().map(|&item| (item, 0)).collect::<Vec<_>>());
    give(&keg, &items);
    keg.reclaim(Reclaim::Drain);
    assert_eq!(stats(&keg).slabs, 0);
}

/// It must not, but if it does no slab is lost.
#[test]
fn a_supplier_that_panics() {
    let pages = Logged::new();
    let keg = keg(&pages, 200);
    let items = one_slab(&keg);
    give(&keg, &items[1..]);
    pages.panics.store(true, Ordering::SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| keg.reclaim(Reclaim::Drain))).is_err());
    let again = take_all(&keg, items.len() - 1);
    assert_eq!(stats(&keg).slabs, 1);
    give(&keg, &again);
    keg.reclaim(Reclaim::Drain);
    check_pages(keg.slab_layout(), &[(items[0], 0)]);
    give(&keg, &items[..1]);
    keg.reclaim(Reclaim::Drain);
    assert_eq!(stats(&keg).slabs, 0);
}

/// Threads that allocate, free and drain: nobody's token is ever hurt.
#[test]
fn stress() {
    for size in [64, 200, 1000] {
        let pages = Logged::new();
        let keg = keg(&pages, size);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3_u64)
                .map(|thread| {
                    let keg = &keg;
                    scope.spawn(move || work(keg, thread))
                })
                .collect();
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        keg.reclaim(Reclaim::Drain);
                        pages.log.lock().unwrap().clear();
                    }
                });
            }
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    keg.prefork();
                    // SAFETY: as it must be.
                    unsafe { keg.postfork(uma_core::Process::Original) };
                    keg.for_each_live(|_| ());
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
            let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            done.store(true, Ordering::Relaxed);
            results.into_iter().for_each(|result| result.unwrap());
        });
        assert_eq!(keg.live(), 0);
        keg.reclaim(Reclaim::Drain);
        let figures = stats(&keg);
        assert_eq!((figures.slabs, figures.keg_free), (0, 0));
    }
}

fn work(keg: &Keg<&Logged, Lock>, thread: u64) {
    let size = keg.layout().size();
    let mut rng = Rng::new(thread);
    let mut held: Vec<(Item, u64)> = Vec::new();
    for round in 0..3000_u64 {
        if rng.one_in(2) && held.len() < 2000 {
            for item in take(keg, 1 + rng.below(60), Request::NOWAIT).unwrap() {
                let token = round << 8 | thread;
                // SAFETY: the item is ours.
                unsafe { token::stamp(item.as_non_null(), size, token) };
                held.push((item, token));
            }
        } else {
            for _ in 0..rng.below(60.min(held.len() + 1)) {
                let (item, token) = held.swap_remove(rng.below(held.len()));
                // SAFETY: the item is ours and was stamped.
                unsafe { token::verify(item.as_non_null(), size, token) }.unwrap();
                give(keg, &[item]);
            }
        }
    }
    for (item, token) in held {
        // SAFETY: the item is ours and was stamped.
        unsafe { token::verify(item.as_non_null(), size, token) }.unwrap();
        give(keg, &[item]);
    }
}
