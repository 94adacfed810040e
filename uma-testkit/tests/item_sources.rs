//! The item source suite on the layers of uma-core, over a simple pool.

mod common;

use std::alloc::Layout;
use std::num::NonZeroU64;

use common::Pool;
use uma_core::{Constructed, Limited, NoSleep, Zone};
use uma_testkit::conformance::{item_source, item_source_threads};
use uma_testkit::hooks::CountingHooks;

type Limit<S> = Limited<S, spin::Mutex<()>, NoSleep>;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

fn endless(size: usize, align: usize) -> Pool {
    Pool::of(layout(size, align), usize::MAX)
}

#[test]
fn a_pool_of_every_shape() {
    for (size, align) in [(1, 1), (7, 1), (8, 8), (48, 16), (64, 64), (4096, 4096), (10_000, 8)] {
        item_source(&endless(size, align));
    }
    item_source_threads(&endless(48, 16));
}

#[test]
fn a_pool_with_an_end() {
    for most in [1, 2, 10, 300] {
        item_source(&Pool::of(layout(24, 8), most));
        item_source_threads(&Pool::of(layout(24, 8), most));
    }
}

#[test]
fn a_limit() {
    for max in [1, 3, 100] {
        let source = Limit::new(endless(40, 8), NonZeroU64::new(max), NoSleep);
        item_source(&source);
        item_source_threads(&source);
        assert_eq!(source.items(), 0);
    }
    item_source(&Limit::new(endless(40, 8), None, NoSleep));
}

#[test]
fn a_zone_with_all_hooks() {
    let hooks = CountingHooks::new();
    {
        let pool = Pool::of(layout(32, 8), 200);
        // SAFETY: these hooks do not touch the items.
        let made = unsafe { Constructed::new(pool, &hooks) };
        let limited = Limit::new(made, NonZeroU64::new(150), NoSleep);
        // SAFETY: as above.
        let zone = unsafe { Zone::with_hooks("test".into(), limited, &hooks) };
        item_source(&zone);
        item_source_threads(&zone);
        hooks.assert_idle();
    }
    hooks.assert_balanced();
    let counts = hooks.counts();
    assert!(counts.ctor > 1000 && counts.dtor > 1000);
}
