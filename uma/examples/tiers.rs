//! What each tier of checks costs: nanoseconds for an allocation and a free together.
//!
//! ```sh
//! cargo run --release -p uma --example tiers
//! ```
//!
//! *pair* frees what it has just allocated. *churn* replaces a random one of 10,000 items, and writes to each
//! item it gets. The figure is the median of eleven rounds in which all tiers take turns, on one thread, in time
//! that the thread ran.

use std::alloc::Layout;

use uma::core::{Item, Request};
use uma::{Hardening, RawZone};

const ROUNDS: usize = 11;
const HELD: usize = 10_000;

fn tiers() -> [(&'static str, Hardening); 8] {
    let hardened = Hardening::HARDENED;
    [
        ("release", Hardening::RELEASE),
        ("sampled/5000", Hardening::sampled(5000)),
        ("live marks alone", Hardening::RELEASE.live(true)),
        ("hardened, no zeros", hardened.fill(uma::debug::Fill::Nothing)),
        ("hardened, no quarantine", hardened.quarantine(0)),
        ("hardened", hardened),
        ("debug, no owners", Hardening::DEBUG.sums(false).owners(false)),
        ("debug", Hardening::DEBUG),
    ]
}

fn alloc(zone: &RawZone) -> Item {
    zone.alloc(Request::NOWAIT).expect("there is memory")
}

fn free(zone: &RawZone, item: Item) {
    // SAFETY: the item came from the zone, and is used no more.
    unsafe { zone.free(item) };
}

fn pair(zone: &RawZone, count: usize) {
    for _ in 0..count {
        free(zone, std::hint::black_box(alloc(zone)));
    }
}

fn churn(zone: &RawZone, held: &mut [Item], random: &mut u64, count: usize) {
    for _ in 0..count {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        // The remainder is below the length.
        let place = &mut held[(*random % HELD as u64) as usize];
        free(zone, *place);
        *place = alloc(zone);
        // SAFETY: the item is ours.
        unsafe { place.as_ptr().write_volatile(1) };
    }
}

/// Nanoseconds that this thread has run.
fn clock() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Nanoseconds for each of `count` times what `work` does.
fn measure(count: usize, work: impl FnOnce(usize)) -> f64 {
    let start = clock();
    work(count);
    (clock() - start) / count as f64
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{:<26}{:>6} {:>10} {:>10}", "tier", "bytes", "pair ns", "churn ns");
    for size in [64, 256, 1024] {
        let layout = Layout::from_size_align(size, 8)?;
        let mut zones = Vec::new();
        for (name, tier) in tiers() {
            let zone = RawZone::builder(name, layout).hardening(tier).build()?;
            let held: Vec<Item> = (0..HELD).map(|_| alloc(&zone)).collect();
            zones.push((name, zone, held, [0.0; ROUNDS], [0.0; ROUNDS]));
        }
        let mut random = 0x2545_f491_4f6c_dd1d;
        for round in 0..ROUNDS {
            for (_, zone, held, pairs, churns) in &mut zones {
                pairs[round] = measure(100_000, |count| pair(zone, count));
                churns[round] = measure(50_000, |count| churn(zone, held, &mut random, count));
            }
        }
        for (name, zone, held, mut pairs, mut churns) in zones {
            let (pair, churn) = (median(&mut pairs), median(&mut churns));
            println!("{name:<26}{size:>6} {pair:>10.1} {churn:>10.1}");
            held.into_iter().for_each(|item| free(&zone, item));
        }
    }
    Ok(())
}
