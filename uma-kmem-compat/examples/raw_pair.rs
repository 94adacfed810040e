//! Prints the nanoseconds of one `RawZone::alloc` and one `free`, on hits: what `bench/pair.c` is measured by.

use std::alloc::Layout;
use std::hint::black_box;
use std::time::Instant;

use uma_kmem_compat::uma::RawZone;
use uma_kmem_compat::uma::core::Request;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pairs: u64 = std::env::args().nth(1).map_or(Ok(50_000_000), |pairs| pairs.parse())?;
    let zone = RawZone::builder("pair", Layout::from_size_align(64, 8)?).build()?;
    let pair = |count| {
        for _ in 0..count {
            let item = black_box(zone.alloc(Request::NOWAIT).expect("an item"));
            // SAFETY: allocated just now.
            unsafe { zone.free(item) };
        }
    };
    pair(1000);
    let start = Instant::now();
    pair(pairs);
    println!("{:.3}", start.elapsed().as_nanos() as f64 / pairs as f64);
    Ok(())
}
