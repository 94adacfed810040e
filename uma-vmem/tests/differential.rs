//! Arenas and their model, at random: 150,000 operations, and five million with `--release`. `UMA_VMEM_OPS` says how
//! many decisions the programs have in each half, two to an operation: with 200,000,000 and `--release`, 48 million
//! operations in half a minute.

mod model;

use model::{Random, run};
use uma_testkit::Rng;

#[test]
fn arenas_do_as_their_model() {
    let long = std::env::var("UMA_VMEM_OPS").ok().map(|ops| ops.parse().expect("a number"));
    let usual = if cfg!(debug_assertions) { 600_000 } else { 20_000_000 };
    let decisions: usize = long.unwrap_or(usual);
    let mut operations = 0;
    for seed in 0..decisions as u64 / 2_000 {
        operations += run(&mut Random { rng: Rng::new(seed), left: 2_000 });
    }
    // Few long ones, in which arenas wear.
    for seed in 0..8 {
        operations += run(&mut Random { rng: Rng::new(!seed), left: decisions / 8 });
    }
    println!("{operations} operations");
    assert!(operations > decisions / 6);
}
