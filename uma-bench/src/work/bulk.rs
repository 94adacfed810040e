//! 50 items by one call, against 50 calls. Only uma is measured: mallocs have no such call.

use std::mem::MaybeUninit;

use uma::core::{Item, ItemSource, Request};

use crate::rounds::Contest;
use crate::subject::{HasZone, Size, out_of_memory};
use crate::team::Member;
use crate::work::Bench;

const COUNT: usize = 50;
const TIMES: usize = 2000;

pub(crate) fn run(bench: &mut Bench) {
    for threads in bench.threads.clone() {
        one::<64>(bench, threads);
        one::<256>(bench, threads);
    }
}

fn one<const N: usize>(bench: &mut Bench, threads: usize)
where
    Size<N>: HasZone,
{
    let mut contest = Contest::new(threads);
    contest.lane("one call", |member| time(member, in_one::<N>));
    contest.lane("50 calls", |member| time(member, one_by_one::<N>));
    let figures = contest.run(&mut bench.team, bench.rounds);
    bench.keep("bulk of 50", N, threads, "ns", figures);
}

/// Nanoseconds for an item.
fn time(member: &Member, work: fn(&mut [MaybeUninit<Item>; COUNT])) -> f64 {
    let mut items = [MaybeUninit::uninit(); COUNT];
    (0..TIMES / 10).for_each(|_| work(&mut items));
    let time = member.time(|| (0..TIMES).for_each(|_| work(&mut items)));
    time.as_nanos() as f64 / (TIMES * COUNT) as f64
}

fn in_one<const N: usize>(items: &mut [MaybeUninit<Item>; COUNT])
where
    Size<N>: HasZone,
{
    let zone = Size::<N>::zone().as_raw();
    let mut have = 0;
    while have < COUNT {
        match zone.import(&mut items[have..], Request::NOWAIT) {
            Ok(count) => have += count,
            Err(_) => out_of_memory(),
        }
    }
    for (word, item) in items.iter().enumerate() {
        // SAFETY: all have been written; each is ours and has room for a word.
        unsafe { item.assume_init().cast::<u64>().write_volatile(word as u64) };
    }
    // SAFETY: all came from this zone just now.
    unsafe { zone.release(items.assume_init_ref()) };
}

fn one_by_one<const N: usize>(items: &mut [MaybeUninit<Item>; COUNT])
where
    Size<N>: HasZone,
{
    let zone = Size::<N>::zone().as_raw();
    for place in &mut *items {
        match zone.alloc(Request::NOWAIT) {
            Ok(item) => place.write(item),
            Err(_) => out_of_memory(),
        };
    }
    for (word, item) in items.iter().enumerate() {
        // SAFETY: as above.
        unsafe { item.assume_init().cast::<u64>().write_volatile(word as u64) };
    }
    for item in items {
        // SAFETY: as above.
        unsafe { zone.free(item.assume_init()) };
    }
}
