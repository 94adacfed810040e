//! Models of who owns which bucket: slots, depot, drains and the census.
//!
//! Each runs with both ways to reach a slot. An item that two threads use, or a bucket that two touch,
//! is a data race, and lost items, lost buckets and wrong counts are found at the end.
//!
//! Run by `ci/loom.sh`.
#![cfg(any(loom, shuttle))]

mod loom_support;

use std::mem::MaybeUninit;

use loom_support::{Access, Locks, Pins, Pool, Shared, Stack, TINY, check, join, on, spawn, touch};
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
    /// Two threads on one CPU take and free: a thread that is preempted anywhere.
    fn two_on_one_cpu<C>(3) {
        let stack = Stack::<C>::new(2, TINY);
        assert!(stack.use_one(Request::NOWAIT));
        let there = stack.clone();
        let other = spawn(move || {
            on(0);
            u64::from(there.use_one(Request::NOWAIT))
        });
        let mine = u64::from(stack.use_one(Request::NOWAIT));
        let others = join(other);
        stack.over_after(1 + mine + others);
    }

    /// The same, each on a CPU of its own, and one is moved to the other's between its two calls.
    fn a_thread_migrates<C>(3) {
        let stack = Stack::<C>::new(2, TINY);
        assert!(stack.use_one(Request::NOWAIT));
        let there = stack.clone();
        let other = spawn(move || {
            on(1);
            let Ok(item) = there.take(Request::NOWAIT) else { return 0 };
            on(0);
            there.give(item);
            1
        });
        let mine = u64::from(stack.use_one(Request::NOWAIT));
        let others = join(other);
        stack.over_after(1 + mine + others);
    }

    /// Frees and allocations that hit, while another CPU takes the buckets away.
    fn hits_against_a_drain<C>(3) {
        let stack = Stack::<C>::new(3, PAIRS);
        let item = stack.take(Request::NOWAIT).unwrap();
        let there = stack.clone();
        let other = spawn(move || {
            on(1);
            there.reclaim(Reclaim::DrainCpu);
        });
        stack.give(item);
        let again = u64::from(stack.use_one(Request::NOWAIT));
        join(other);
        stack.over_after(1 + again);
    }

    /// An allocation that fetches a batch, while another CPU drains.
    fn a_refill_against_a_drain<C>(3) {
        let stack = Stack::<C>::new(3, PAIRS);
        let there = stack.clone();
        let other = spawn(move || {
            on(1);
            there.reclaim(Reclaim::DrainCpu);
        });
        let mine = u64::from(stack.use_one(Request::NOWAIT));
        join(other);
        stack.over_after(mine);
    }

    /// An allocation that fetches a batch, while another CPU forbids that anything is cached.
    fn a_refill_against_a_bound<C>(2) {
        let stack = Stack::<C>::new(3, PAIRS);
        let there = stack.clone();
        let other = spawn(move || {
            on(1);
            there.set_max_cached(Some(0));
        });
        let mine = u64::from(stack.use_one(Request::NOWAIT));
        join(other);
        assert_eq!(stack.stats().cached, 0, "a bucket that is too large was left in its slot");
        stack.over_after(mine);
    }

    /// Buckets that go to the depot and come from it, while it is trimmed.
    fn the_depot_against_a_trim<C>(2) {
        let stack = Stack::<C>::new(3, TINY);
        let items = [(); 3].map(|()| stack.take(Request::NOWAIT).unwrap());
        let there = stack.clone();
        let other = spawn(move || {
            on(1);
            there.reclaim(Reclaim::Trim);
            u64::from(there.use_one(Request::NOWAIT))
        });
        items.into_iter().for_each(|item| stack.give(item));
        let others = join(other);
        stack.over_after(3 + others);
    }

    /// The census takes buckets and puts them back, while they are used.
    fn the_census_against_hits<C>(3) {
        let stack = Stack::<C>::new(2, PAIRS);
        let item = stack.take(Request::NOWAIT).unwrap();
        let there = stack.clone();
        let other = spawn(move || {
            on(1);
            let stats = there.stats();
            // What is cached may be counted twice, on its way from a slot to the depot.
            assert!(stats.frees <= 2 && stats.allocs <= 2, "{stats:?}");
        });
        stack.give(item);
        let again = u64::from(stack.use_one(Request::NOWAIT));
        join(other);
        stack.over_after(1 + again);
    }

    /// The census and a drain of the same buckets.
    fn the_census_against_a_drain<C>(2) {
        let stack = Stack::<C>::new(2, PAIRS);
        assert!(stack.use_one(Request::NOWAIT));
        let (one, two) = (stack.clone(), stack.clone());
        let census = spawn(move || {
            on(1);
            one.stats();
        });
        let drain = spawn(move || two.reclaim(Reclaim::DrainCpu));
        let again = u64::from(stack.use_one(Request::NOWAIT));
        join(census);
        join(drain);
        stack.over_after(1 + again);
    }

    /// Where nobody allocates or frees, the census is exact, whoever else drains or counts.
    fn the_census_beside_others<C>(2) {
        let stack = Stack::<C>::new(2, PAIRS);
        let item = stack.take(Request::NOWAIT).unwrap();
        assert!(stack.use_one(Request::NOWAIT));
        let (one, two) = (stack.clone(), stack.clone());
        let census = spawn(move || {
            on(1);
            let stats = one.stats();
            assert_eq!((stats.allocs, stats.used()), (2, 1), "{stats:?}");
        });
        let drain = spawn(move || two.reclaim(Reclaim::DrainCpu));
        let stats = stack.stats();
        assert_eq!((stats.allocs, stats.used()), (2, 1), "{stats:?}");
        join(census);
        join(drain);
        stack.give(item);
        stack.over_after(2);
    }

    /// Batches through the slots and the depot, beside single items on the same CPU.
    fn batches_on_one_cpu<C>(3) {
        let stack = Stack::<C>::new(3, TINY);
        assert!(stack.use_one(Request::NOWAIT));
        let there = stack.clone();
        let other = spawn(move || {
            on(0);
            let mut items = [MaybeUninit::uninit(); 2];
            let count = there.import(&mut items, Request::NOWAIT).unwrap_or(0);
            // SAFETY: a source initialises as many as it returns.
            let items = unsafe { items[..count].assume_init_ref() };
            items.iter().for_each(|&item| touch(item));
            // SAFETY: they are given up.
            unsafe { there.release(items) };
            count as u64
        });
        let mine = u64::from(stack.use_one(Request::NOWAIT));
        let others = join(other);
        stack.over_after(1 + mine + others);
    }

    /// Two first callers make the slots.
    fn the_slots_are_made_once<C>(3) {
        let stack = Stack::<C>::new(2, TINY);
        let there = stack.clone();
        let other = spawn(move || {
            on(1);
            u64::from(there.use_one(Request::NOWAIT))
        });
        let mine = u64::from(stack.use_one(Request::NOWAIT));
        let others = join(other);
        assert!(mine + others >= 1);
        stack.over_after(mine + others);
    }

    /// The source fails once, to either of two.
    fn a_failing_import<C>(3) {
        let stack = Stack::<C>::over(Pool::new(2), 2, TINY);
        assert!(stack.use_one(Request::NOWAIT));
        stack.reclaim(Reclaim::DrainCpu);
        stack.source().source().fail(1);
        let there = stack.clone();
        let other = spawn(move || {
            on(0);
            u64::from(there.use_one(Request::NOWAIT))
        });
        let mine = u64::from(stack.use_one(Request::NOWAIT));
        let others = join(other);
        stack.over_after(1 + mine + others);
    }

    /// A late free, and the end of the cache by whoever lets go of it last: nothing is in its slots then that the
    /// end does not see, and all is back.
    fn a_late_free_against_the_end<C>(3) {
        let stack = Stack::<C>::new(2, TINY);
        let item = stack.take(Request::NOWAIT).unwrap();
        let mine = Shared::new(stack, 1);
        let theirs = mine.clone();
        let other = spawn(move || {
            on(1);
            theirs.give(item);
        });
        if mine.use_one(Request::NOWAIT) {
            mine.one_more();
        }
        drop(mine);
        join(other);
    }

    /// While the process is copied nothing moves, and nothing is lost.
    fn a_fork_beside_an_allocation<C>(3) {
        let stack = Stack::<C>::new(2, TINY);
        assert!(stack.use_one(Request::NOWAIT));
        let there = stack.clone();
        let other = spawn(move || {
            on(1);
            there.prefork();
            // SAFETY: just now.
            unsafe { there.postfork(Process::Original) };
            there.settle();
        });
        let mine = u64::from(stack.use_one(Request::NOWAIT));
        join(other);
        stack.over_after(1 + mine);
    }

    /// While the process is copied the first allocation makes the slots: none of their locks is let go of by who
    /// did not take it.
    fn a_fork_beside_the_first_allocation<C>(3) {
        let stack = Stack::<C>::new(2, TINY);
        let there = stack.clone();
        let other = spawn(move || {
            on(0);
            there.prefork();
            // SAFETY: just now.
            unsafe { there.postfork(Process::Original) };
            there.settle();
            u64::from(there.use_one(Request::NOWAIT))
        });
        let mine = u64::from(stack.use_one(Request::NOWAIT));
        let others = join(other);
        stack.over_after(mine + others);
    }
}
