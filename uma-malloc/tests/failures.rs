//! Memory runs out at every place once: nothing is lost, and what was there stays.

mod common;

use common::{Held, Machine, On};
use uma_malloc::{Malloc, MallocFault, Reclaim, Request, SizeClasses};
use uma_testkit::{FailNth, Fake};

const NOWAIT: Request = Request::NOWAIT;

/// A bit of everything. What fails is left out; what came is checked, and goes back.
fn exercise(machine: &Machine<FailNth<Fake>>) -> usize {
    let malloc = Malloc::new_in("failing", SizeClasses::GENERAL, On(machine));
    let mut held = Vec::new();
    let mut failed = 0;
    let mut sizes = vec![1, 64, 64, 100, 5000, 30_000, 70_000, 200_000];
    sizes.extend((0..30).map(|n| n * 23));
    for (token, size) in sizes.into_iter().enumerate() {
        match malloc.alloc(size, NOWAIT) {
            // SAFETY: the memory is ours.
            Ok(at) => held.push(unsafe { Held::new(at, size, 1, token as u64) }),
            Err(error) => {
                assert!(
                    matches!(error.fault, MallocFault::Alloc(why) if why.is_shortage()),
                    "{error}"
                );
                failed += 1;
            }
        }
    }
    for (index, held) in held.iter_mut().enumerate() {
        let size = held.size * 2 + index;
        // SAFETY: the memory is ours; a pointer that was replaced is used no more.
        match unsafe { malloc.realloc(held.at, size, NOWAIT) } {
            Ok(at) => {
                let old = Held { at, token: held.token, ..*held };
                old.verify(size);
                // SAFETY: the memory is ours.
                *held = unsafe { Held::new(at, size, 1, held.token) };
            }
            Err(_) => {
                held.verify(usize::MAX);
                failed += 1;
            }
        }
    }
    let stats = malloc.stats();
    assert_eq!((stats.used(), stats.fails), (held.len() as u64, failed as u64));
    for held in held {
        held.free(&malloc);
    }
    assert_eq!((malloc.stats().used(), malloc.stats().bytes), (0, 0));
    malloc.reclaim(Reclaim::DrainCpu);
    assert_eq!(machine.pages.inner().outstanding().runs, 0);
    failed
}

/// Runs the exercise with each k-th call failing, alone (which a second try gets over, mostly) and
/// with all that follow.
fn at_every_place(plan: impl Fn(&Machine<FailNth<Fake>>) -> &uma_testkit::FailPlan) {
    for ever in [false, true] {
        let mut places = 0;
        let mut failures = 0;
        for k in 1.. {
            let machine = Machine::new(FailNth::new(Fake::new()));
            if ever {
                plan(&machine).fail_from(k);
            } else {
                plan(&machine).fail_at(k);
            }
            failures += exercise(&machine);
            assert_eq!(machine.metadata.outstanding().runs, 0, "the {k}th call failed");
            assert_eq!(*machine.reports.lock().unwrap(), [""; 0]);
            if plan(&machine).failed() == 0 {
                break;
            }
            places += 1;
        }
        assert!(places > 20, "only {places} places");
        assert!(failures > 0 || !ever);
    }
}

#[test]
fn pages_fail_at_every_place() {
    at_every_place(|machine| &machine.pages);
}

#[test]
fn metadata_fails_at_every_place() {
    at_every_place(|machine| &machine.metadata);
}
