//! A fork while another thread looks at a zone: that thread is not in the copy, where the zone can still be
//! destroyed.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use uma::core::{Request, Shared};
use uma::{AtLimit, Host, Platform, RawZone, Reclaim, Zone};

/// What became of a copy that runs `child`: its wait status.
fn in_a_copy(child: impl FnOnce()) -> i32 {
    uma_testkit::in_a_copy(|| {
        child();
        true
    })
}

#[test]
fn a_zone_that_was_looked_at_can_be_destroyed_in_the_copy() {
    static STEP: AtomicU8 = AtomicU8::new(0);
    let zone = Zone::<[u64; 4]>::builder("looked at").build().unwrap();
    drop(zone.alloc([1; 4]).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            Host.registry().visit(&mut |other| {
                if other.name().as_str() == "looked at" {
                    STEP.store(1, Ordering::SeqCst);
                    let begin = Instant::now();
                    while STEP.load(Ordering::SeqCst) == 1
                        && begin.elapsed() < Duration::from_secs(30)
                    {
                        std::thread::yield_now();
                    }
                }
            });
        });
        while STEP.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let zone = &zone;
        let status = in_a_copy(|| {
            // SAFETY: the copy leaves without dropping it once more.
            drop(unsafe { std::ptr::read(zone) });
            assert!(uma::zones().iter().all(|other| other.name.as_str() != "looked at"));
        });
        STEP.store(2, Ordering::SeqCst);
        assert_eq!(status, 0, "the copy waited for a thread that it does not have");
    });
}

#[test]
fn a_fork_out_of_a_visit() {
    let zone = Zone::<[u64; 5]>::builder("forks").build().unwrap();
    drop(zone.alloc([1; 5]).unwrap());
    let mut status = None;
    Host.registry().visit(&mut |other| {
        if other.name().as_str() == "forks" {
            status = Some(in_a_copy(|| uma::reclaim(Reclaim::DrainCpu)));
        }
    });
    assert_eq!(status, Some(0));
}

/// An action that runs on another thread when the process is copied does not run in the copy for ever.
#[test]
fn an_action_that_another_thread_is_in_runs_in_the_copy() {
    static STEP: AtomicU8 = AtomicU8::new(0);
    static ACT: fn(AtLimit) = |_| {
        let step = STEP.fetch_add(1, Ordering::SeqCst);
        let begin = Instant::now();
        while step == 0
            && STEP.load(Ordering::SeqCst) == 1
            && begin.elapsed() < Duration::from_secs(30)
        {
            std::thread::yield_now();
        }
    };
    let zone = Zone::<[u64; 6]>::builder("acts").max_items(1).maxaction(&ACT).build().unwrap();
    let _only = zone.alloc([1; 6]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(zone.try_alloc([2; 6]).is_err()));
        while STEP.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let status = in_a_copy(|| {
            assert!(zone.try_alloc([3; 6]).is_err());
            assert_eq!(STEP.load(Ordering::SeqCst), 2);
        });
        STEP.store(2, Ordering::SeqCst);
        assert_eq!(status, 0, "the copy did not act");
    });
}

/// A zone under others is locked by its own place in the registry, and so not once more from above.
#[test]
fn a_fork_with_a_zone_that_is_shared_as_a_source() {
    static BELOW: Shared<RawZone> =
        Shared::new(RawZone::builder("below", std::alloc::Layout::new::<u64>()).lazy());
    // In a copy, since this process could wait for ever.
    let status = in_a_copy(|| {
        let above = RawZone::over("above", BELOW.share()).build().unwrap();
        let give_and_take = || {
            let item = above.alloc(Request::NOWAIT).unwrap();
            // SAFETY: it came from there and is not used any more.
            unsafe { above.free(item) };
            uma::reclaim(Reclaim::DrainCpu);
        };
        give_and_take();
        assert_eq!(in_a_copy(give_and_take), 0);
    });
    assert_eq!(status, 0);
}
