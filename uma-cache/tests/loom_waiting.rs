//! Models of callers that wait at a limit below a cache: no item may stay in a cache while somebody
//! waits for one.
//!
//! A sleeper that is not served is a deadlock, which the model checker reports. Each runs with both ways
//! to reach a slot.
//!
//! Run by `ci/loom.sh`.
#![cfg(any(loom, shuttle))]

mod loom_support;

use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::sync::Arc;

use loom_support::{
    Access, Flag, Locks, Notify, Pins, Pool, Stack, TINY, check, join, on, soon, spawn,
};
use uma_cache::CacheConfig;
use uma_core::{ItemSource, Process, Reclaim, Request};

/// Buckets of two items.
const PAIRS: CacheConfig = CacheConfig { bucket: 2, max_bucket: 2, depot: 2 };

/// A model for each way to reach a slot. The number is how often threads are stopped against their will
/// in one history.
macro_rules! models {
    ($($(#[$doc:meta])* fn $name:ident<$access:ident>($stops:literal) $body:block)*) => {
        $(
            $(#[$doc])*
            mod $name {
                use super::*;

                fn body<$access: Access>() $body

                #[test]
                fn locks() {
                    check(concat!(stringify!($name), " (locks)"), $stops, body::<Locks>);
                }

                #[test]
                fn pinned() {
                    check(concat!(stringify!($name), " (pinned)"), $stops, body::<Pins>);
                }
            }
        )*
    };
}

models! {
    /// A free that hits a bucket, or finds it flushed.
    fn a_free_that_hits<C>(3) {
        let stack = Stack::<C>::new(1, PAIRS);
        let item = stack.take(Request::NOWAIT).unwrap();
        let there = stack.clone();
        let sleeper = spawn(move || {
            on(1);
            assert!(there.use_one(Request::WAIT));
        });
        stack.give(item);
        join(sleeper);
        stack.over_after(2);
    }

    /// The same on one CPU.
    fn a_free_on_the_sleepers_cpu<C>(3) {
        let stack = Stack::<C>::new(1, PAIRS);
        let item = stack.take(Request::NOWAIT).unwrap();
        let there = stack.clone();
        let sleeper = spawn(move || {
            on(0);
            assert!(there.use_one(Request::WAIT));
        });
        stack.give(item);
        join(sleeper);
        stack.over_after(2);
    }

    /// A free that has to get itself a bucket first.
    fn a_free_that_trades<C>(3) {
        let stack = Stack::<C>::new(1, TINY);
        let item = stack.take(Request::NOWAIT).unwrap();
        stack.reclaim(Reclaim::DrainCpu);
        let there = stack.clone();
        let sleeper = spawn(move || {
            on(1);
            assert!(there.use_one(Request::WAIT));
        });
        stack.give(item);
        join(sleeper);
        stack.over_after(2);
    }

    /// Frees that fill buckets and leave them to the depot.
    fn frees_by_way_of_the_depot<C>(2) {
        let stack = Stack::<C>::new(3, TINY);
        let items = [(); 3].map(|()| stack.take(Request::NOWAIT).unwrap());
        stack.reclaim(Reclaim::DrainCpu);
        let there = stack.clone();
        let sleeper = spawn(move || {
            on(1);
            assert!(there.use_one(Request::WAIT));
        });
        items.into_iter().for_each(|item| stack.give(item));
        join(sleeper);
        stack.over_after(4);
    }

    /// A batch of frees.
    fn a_batch_of_frees<C>(3) {
        let stack = Stack::<C>::new(2, TINY);
        let items = [(); 2].map(|()| stack.take(Request::NOWAIT).unwrap());
        let there = stack.clone();
        let sleeper = spawn(move || {
            on(1);
            assert!(there.use_one(Request::WAIT));
        });
        // SAFETY: both were taken above.
        unsafe { stack.release(&items) };
        join(sleeper);
        stack.over_after(3);
    }

    /// An allocation fetched more than it needs. The rest is the sleeper's, although nobody frees.
    fn a_refill_takes_no_more_than_its_own<C>(3) {
        let stack = Stack::<C>::new(2, PAIRS);
        let there = stack.clone();
        let sleeper = spawn(move || {
            on(1);
            there.take(Request::WAIT).unwrap()
        });
        let mine = stack.take(Request::WAIT).unwrap();
        let others = join(sleeper);
        stack.give(mine);
        stack.give(others);
        stack.over_after(2);
    }

    /// The same with a batch that comes out of the caches.
    fn a_batch_takes_no_more_than_its_own<C>(3) {
        let stack = Stack::<C>::new(2, PAIRS);
        assert!(stack.use_one(Request::NOWAIT));
        let there = stack.clone();
        let sleeper = spawn(move || {
            on(1);
            there.take(Request::WAIT).unwrap()
        });
        let mut mine = [MaybeUninit::uninit()];
        let count = stack.import(&mut mine, Request::NOWAIT).unwrap_or(0);
        let others = join(sleeper);
        stack.give(others);
        // SAFETY: a source initialises as many as it returns, and they are given up.
        unsafe { stack.release(mine[..count].assume_init_ref()) };
        stack.over_after(2 + count as u64);
    }

    /// All items are in buckets that a census has in hand.
    fn the_census_has_the_item<C>(3) {
        let stack = Stack::<C>::new(1, TINY);
        assert!(stack.use_one(Request::NOWAIT));
        let there = stack.clone();
        let sleeper = spawn(move || {
            on(1);
            assert!(there.use_one(Request::WAIT));
        });
        stack.stats();
        join(sleeper);
        stack.over_after(2);
    }

    /// All items are in buckets that a drain has in hand.
    fn a_drain_has_the_item<C>(3) {
        let stack = Stack::<C>::new(1, TINY);
        assert!(stack.use_one(Request::NOWAIT));
        let there = stack.clone();
        let sleeper = spawn(move || {
            on(1);
            assert!(there.use_one(Request::WAIT));
        });
        stack.reclaim(Reclaim::DrainCpu);
        join(sleeper);
        stack.over_after(2);
    }

    /// All items are in buckets that whoever copies the process has in hand.
    fn a_fork_has_the_item<C>(3) {
        let stack = Stack::<C>::new(1, TINY);
        assert!(stack.use_one(Request::NOWAIT));
        let there = stack.clone();
        let sleeper = spawn(move || {
            on(1);
            assert!(there.use_one(Request::WAIT));
        });
        stack.prefork();
        // SAFETY: just now.
        unsafe { stack.postfork(Process::Original) };
        stack.settle();
        join(sleeper);
        stack.over_after(2);
    }

    /// Two on one CPU free into the same bucket.
    fn two_frees_on_one_cpu<C>(2) {
        let stack = Stack::<C>::new(2, PAIRS);
        let (a, b) = (stack.take(Request::NOWAIT).unwrap(), stack.take(Request::NOWAIT).unwrap());
        let there = stack.clone();
        let sleeper = spawn(move || {
            on(1);
            assert!(there.use_one(Request::WAIT));
        });
        let there = stack.clone();
        let other = spawn(move || {
            on(0);
            there.give(b);
        });
        stack.give(a);
        join(other);
        join(sleeper);
        stack.over_after(3);
    }

    /// Two sleepers, and items for both. Neither frees before the other has its own.
    fn two_sleepers<C>(2) {
        let stack = Stack::<C>::new(2, PAIRS);
        let (a, b) = (stack.take(Request::NOWAIT).unwrap(), stack.take(Request::NOWAIT).unwrap());
        let sleeper = |cpu| {
            let there = stack.clone();
            spawn(move || {
                on(cpu);
                there.take(Request::WAIT).unwrap()
            })
        };
        let (one, two) = (sleeper(0), sleeper(1));
        stack.give(a);
        stack.give(b);
        let (a, b) = (join(one), join(two));
        assert_ne!(a, b);
        stack.give(a);
        stack.give(b);
        stack.over_after(4);
    }

    /// Who came first is served first, whatever way the item takes.
    fn two_sleepers_in_order<C>(2) {
        let stack = Stack::<C>::new(1, TINY);
        let item = stack.take(Request::NOWAIT).unwrap();
        let (enlisted, notify) = (Arc::new(Flag::new()), Arc::new(Notify::new()));
        let served = Arc::new(Flag::new());
        let first = {
            let (stack, served) = (stack.clone(), served.clone());
            let (enlisted, notify) = (enlisted.clone(), notify.clone());
            spawn(move || {
                on(0);
                // The flush runs when the caller has its place in the queue.
                let mut flush = || {
                    enlisted.set();
                    notify.notify();
                };
                let item = stack.alloc_or_flush(Request::WAIT, &mut flush).unwrap();
                served.set();
                flush();
                stack.give(item);
            })
        };
        let second = {
            let stack = stack.clone();
            spawn(move || {
                on(1);
                while !enlisted.is_set() {
                    notify.wait();
                }
                let item = stack.take(Request::WAIT).unwrap();
                assert!(served.is_set(), "the second was served first");
                stack.give(item);
            })
        };
        stack.give(item);
        join(first);
        join(second);
        stack.over_after(3);
    }

    /// One that gives up stands in front of one that does not.
    fn a_deadline_in_front_of_a_sleeper<C>(2) {
        let stack = Stack::<C>::new(1, TINY);
        let item = stack.take(Request::NOWAIT).unwrap();
        let there = stack.clone();
        let impatient = spawn(move || {
            on(0);
            u64::from(there.use_one(Request::until(soon())))
        });
        let there = stack.clone();
        let sleeper = spawn(move || {
            on(1);
            assert!(there.use_one(Request::WAIT));
        });
        stack.give(item);
        let others = join(impatient);
        join(sleeper);
        stack.over_after(2 + others);
    }

    /// A limit that is raised while an item goes into a bucket.
    fn a_raised_limit<C>(2) {
        let stack = Stack::<C>::over(Pool::new(2), 1, TINY);
        let item = stack.take(Request::NOWAIT).unwrap();
        let there = stack.clone();
        let sleeper = spawn(move || {
            on(1);
            assert!(there.use_one(Request::WAIT));
        });
        let there = stack.clone();
        let raiser = spawn(move || there.source().set_max(NonZeroU64::new(2)));
        join(raiser);
        join(sleeper);
        stack.give(item);
        stack.over_after(2);
    }

    /// The source fails while somebody waits: whoever gets the error passes the place on.
    fn a_failing_source<C>(2) {
        let stack = Stack::<C>::new(1, TINY);
        let item = stack.take(Request::NOWAIT).unwrap();
        stack.source().source().fail(2);
        let sleeper = |cpu| {
            let there = stack.clone();
            spawn(move || {
                on(cpu);
                u64::from(there.use_one(Request::WAIT))
            })
        };
        let (one, two) = (sleeper(0), sleeper(1));
        stack.give(item);
        let served = join(one) + join(two);
        assert!(served >= 1);
        stack.over_after(1 + served);
    }
}
