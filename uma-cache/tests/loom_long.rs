//! Long histories, which only shuttle can go through: more threads, more calls, and everything at once.
//!
//! Run by `ci/loom.sh`.
#![cfg(shuttle)]

mod loom_support;

use std::mem::MaybeUninit;

use loom_support::{Access, Locks, Pins, Stack, check, join, on, soon, spawn, touch};
use shuttle::rand::{Rng, thread_rng};
use uma_cache::CacheConfig;
use uma_core::{ItemSource, Reclaim, Request};

const THREADS: usize = 4;
const ROUNDS: usize = 12;
const ITEMS: usize = 3;

/// One call of one thread, on one of two CPUs. Returns how many items it had.
fn one_call<C: Access>(stack: &Stack<C>) -> u64 {
    let mut dice = thread_rng();
    on(dice.gen_range(0..2));
    match dice.gen_range(0..12) {
        0..5 => u64::from(stack.use_one(Request::WAIT)),
        5..7 => u64::from(stack.use_one(Request::NOWAIT)),
        7 => u64::from(stack.use_one(Request::until(soon()))),
        8 => {
            let mut items = [MaybeUninit::uninit(); ITEMS];
            let count = stack.import(&mut items, Request::NOWAIT).unwrap_or(0);
            // SAFETY: a source initialises as many as it returns.
            let items = unsafe { items[..count].assume_init_ref() };
            items.iter().for_each(|&item| touch(item));
            on(dice.gen_range(0..2));
            // SAFETY: they are given up.
            unsafe { stack.release(items) };
            count as u64
        }
        9 => {
            stack.stats();
            0
        }
        10 => {
            stack.reclaim(Reclaim::DrainCpu);
            0
        }
        _ => {
            stack.reclaim(Reclaim::Trim);
            0
        }
    }
}

fn crowd<C: Access>(config: CacheConfig) {
    let stack = Stack::<C>::new(ITEMS, config);
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let stack = stack.clone();
            spawn(move || (0..ROUNDS).map(|_| one_call(&stack)).sum::<u64>())
        })
        .collect();
    let allocs = threads.into_iter().map(join).sum();
    stack.over_after(allocs);
}

const ONES: CacheConfig = CacheConfig { bucket: 1, max_bucket: 2, depot: 1 };
const PAIRS: CacheConfig = CacheConfig { bucket: 2, max_bucket: 2, depot: 2 };

/// More threads than items, all waiting for one another, while buckets are taken away.
#[test]
fn a_crowd_at_the_limit() {
    check("a_crowd_at_the_limit (locks, buckets of 1)", 3, || crowd::<Locks>(ONES));
    check("a_crowd_at_the_limit (locks, buckets of 2)", 3, || crowd::<Locks>(PAIRS));
    check("a_crowd_at_the_limit (pinned, buckets of 1)", 3, || crowd::<Pins>(ONES));
    check("a_crowd_at_the_limit (pinned, buckets of 2)", 3, || crowd::<Pins>(PAIRS));
}
