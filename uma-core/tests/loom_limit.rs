//! Models of the limit: the word of items and sleepers, the queue, and handing over.
//!
//! Run by `ci/loom.sh`.
#![cfg(any(loom, shuttle))]

mod loom_support;

use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::sync::Arc;

use loom_support::{Flag, Lock, Notify, Parking, Pool, check, join, soon, spawn, touch};
use uma_core::{AllocError, Item, ItemSource, Limited, Process, Request};

type Limit = Limited<Pool, Lock, Parking>;

fn limit(max: u64, pool: Pool) -> Arc<Limit> {
    Arc::new(Limited::new(pool, NonZeroU64::new(max), Parking))
}

fn take(limit: &Limit, request: Request) -> Result<Item, AllocError> {
    let item = limit.alloc(request)?;
    touch(item);
    Ok(item)
}

fn give(limit: &Limit, item: Item) {
    touch(item);
    // SAFETY: every caller took it from this limit and gives it up.
    unsafe { limit.free(item) };
}

/// Everything is back, and nobody waits.
fn over(limit: &Limit) {
    assert_eq!((limit.items(), limit.sleepers()), (0, 0));
    assert!(!limit.wanted());
}

/// Whoever waits is woken by a free, whenever it comes.
#[test]
fn a_free_serves_the_sleeper() {
    check("a_free_serves_the_sleeper", 3, || {
        let limit = limit(1, Pool::new(1));
        let item = take(&limit, Request::NOWAIT).unwrap();
        let there = limit.clone();
        let sleeper = spawn(move || {
            let item = take(&there, Request::WAIT).unwrap();
            give(&there, item);
        });
        give(&limit, item);
        join(sleeper);
        over(&limit);
    });
}

/// Never more than the limit are out, and a batch takes what room there is.
#[test]
fn takers_share_the_room() {
    check("takers_share_the_room", 3, || {
        let limit = limit(2, Pool::new(3));
        let there = limit.clone();
        let other = spawn(move || {
            let mut items = [MaybeUninit::uninit(); 2];
            let count = there.import(&mut items, Request::NOWAIT).unwrap_or(0);
            assert!(there.items() <= 2);
            // SAFETY: a source initialises as many as it returns, and they are given up.
            unsafe { there.release(items[..count].assume_init_ref()) };
            count
        });
        let mine = take(&limit, Request::NOWAIT);
        assert!(limit.items() <= 2);
        if let Ok(item) = mine {
            give(&limit, item);
        }
        let others = join(other);
        assert!(others == 2 || mine.is_ok(), "the room went to nobody");
        over(&limit);
    });
}

/// The one who came first has the item first.
#[test]
fn sleepers_are_served_in_order() {
    check("sleepers_are_served_in_order", 3, || {
        let limit = limit(1, Pool::new(1));
        let item = take(&limit, Request::NOWAIT).unwrap();
        let (enlisted, notify) = (Arc::new(Flag::new()), Arc::new(Notify::new()));
        let served = Arc::new(Flag::new());
        let first = {
            let (limit, served) = (limit.clone(), served.clone());
            let (enlisted, notify) = (enlisted.clone(), notify.clone());
            spawn(move || {
                // The flush runs when the caller has its place in the queue.
                let mut flush = || {
                    enlisted.set();
                    notify.notify();
                };
                let item = limit.alloc_or_flush(Request::WAIT, &mut flush).unwrap();
                served.set();
                flush();
                give(&limit, item);
            })
        };
        let second = {
            let limit = limit.clone();
            spawn(move || {
                while !enlisted.is_set() {
                    notify.wait();
                }
                let item = take(&limit, Request::WAIT).unwrap();
                assert!(served.is_set(), "the second was served first");
                give(&limit, item);
            })
        };
        give(&limit, item);
        join(first);
        join(second);
        over(&limit);
    });
}

/// Two frees at once serve two sleepers.
#[test]
fn two_frees_serve_two_sleepers() {
    check("two_frees_serve_two_sleepers", 3, || {
        let limit = limit(2, Pool::new(2));
        let (a, b) =
            (take(&limit, Request::NOWAIT).unwrap(), take(&limit, Request::NOWAIT).unwrap());
        let sleeper = || {
            let limit = limit.clone();
            // It keeps the item, so the other cannot live on it.
            spawn(move || take(&limit, Request::WAIT).unwrap())
        };
        let (one, two) = (sleeper(), sleeper());
        // SAFETY: both were taken above and are given up.
        unsafe { limit.release(&[a, b]) };
        let (a, b) = (join(one), join(two));
        assert_ne!(a, b);
        give(&limit, a);
        give(&limit, b);
        over(&limit);
    });
}

/// A deadline and a grant at the same moment: it is the one or the other.
#[test]
fn a_deadline_meets_a_grant() {
    check("a_deadline_meets_a_grant", 3, || {
        let limit = limit(1, Pool::new(1));
        let item = take(&limit, Request::NOWAIT).unwrap();
        let there = limit.clone();
        let sleeper = spawn(move || match take(&there, Request::until(soon())) {
            Ok(item) => give(&there, item),
            Err(error) => assert_eq!(error, AllocError::TimedOut),
        });
        give(&limit, item);
        join(sleeper);
        over(&limit);
        let item = take(&limit, Request::NOWAIT).unwrap();
        give(&limit, item);
    });
}

/// Whoever stands behind one that gives up is served all the same.
#[test]
fn a_deadline_in_front_of_a_sleeper() {
    check("a_deadline_in_front_of_a_sleeper", 3, || {
        let limit = limit(1, Pool::new(1));
        let item = take(&limit, Request::NOWAIT).unwrap();
        let impatient = {
            let limit = limit.clone();
            spawn(move || {
                if let Ok(item) = take(&limit, Request::until(soon())) {
                    give(&limit, item);
                }
            })
        };
        let sleeper = {
            let limit = limit.clone();
            spawn(move || give(&limit, take(&limit, Request::WAIT).unwrap()))
        };
        give(&limit, item);
        join(impatient);
        join(sleeper);
        over(&limit);
    });
}

/// Raising the limit serves who waits, also while another item comes back.
#[test]
fn a_raised_limit_serves_sleepers() {
    check("a_raised_limit_serves_sleepers", 2, || {
        let limit = limit(1, Pool::new(3));
        let item = take(&limit, Request::NOWAIT).unwrap();
        let sleeper = || {
            let limit = limit.clone();
            spawn(move || take(&limit, Request::WAIT).unwrap())
        };
        let (one, two) = (sleeper(), sleeper());
        let raiser = {
            let limit = limit.clone();
            spawn(move || limit.set_max(NonZeroU64::new(2)))
        };
        give(&limit, item);
        join(raiser);
        let (a, b) = (join(one), join(two));
        assert_eq!(limit.items(), 2);
        give(&limit, a);
        give(&limit, b);
        over(&limit);
    });
}

/// A limit that is lowered and raised again, with nobody but the one who does it to serve the sleeper.
#[test]
fn the_limit_goes_down_and_up() {
    check("the_limit_goes_down_and_up", 3, || {
        let limit = limit(2, Pool::new(2));
        let item = take(&limit, Request::NOWAIT).unwrap();
        let there = limit.clone();
        let sleeper = spawn(move || give(&there, take(&there, Request::WAIT).unwrap()));
        limit.set_max(NonZeroU64::new(1));
        limit.set_max(None);
        join(sleeper);
        give(&limit, item);
        over(&limit);
    });
}

/// If the source fails the one who was granted a place, the place goes to the next.
#[test]
fn a_failed_grant_is_passed_on() {
    check("a_failed_grant_is_passed_on", 3, || {
        let limit = limit(1, Pool::new(1));
        let item = take(&limit, Request::NOWAIT).unwrap();
        // The limit asks twice.
        limit.source().fail(2);
        let sleeper = || {
            let limit = limit.clone();
            spawn(move || match take(&limit, Request::WAIT) {
                Ok(item) => {
                    give(&limit, item);
                    true
                }
                Err(error) => {
                    assert_ne!(error, AllocError::Limit);
                    false
                }
            })
        };
        let (one, two) = (sleeper(), sleeper());
        give(&limit, item);
        assert!(join(one) != join(two), "one of them meets the failure, the other does not");
        over(&limit);
    });
}

/// While the process is copied nothing is half done, and afterwards all goes on.
#[test]
fn a_fork_beside_a_sleeper() {
    check("a_fork_beside_a_sleeper", 3, || {
        let limit = limit(1, Pool::new(1));
        let item = take(&limit, Request::NOWAIT).unwrap();
        let sleeper = {
            let limit = limit.clone();
            spawn(move || give(&limit, take(&limit, Request::WAIT).unwrap()))
        };
        let forking = {
            let limit = limit.clone();
            spawn(move || {
                limit.prefork();
                // SAFETY: just now.
                unsafe { limit.postfork(Process::Original) };
            })
        };
        give(&limit, item);
        join(sleeper);
        join(forking);
        over(&limit);
    });
}
