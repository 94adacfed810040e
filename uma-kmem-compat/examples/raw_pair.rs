//! Prints the nanoseconds of the processor for one `RawZone::alloc` and one `free`, on hits: what `bench/pair.c` is measured by.

use std::alloc::Layout;
use std::hint::black_box;

use uma_kmem_compat::uma::RawZone;
use uma_kmem_compat::uma::core::Request;

/// Nanoseconds that this thread has run for, as `bench/pair.c` has it.
fn now() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the time.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

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
    let start = now();
    pair(pairs);
    println!("{:.3}", (now() - start) / pairs as f64);
    Ok(())
}
