//! Memory that goes back by itself in quiet times.

use std::time::{Duration, Instant};

use uma::{Maintenance, Reclaim, Zone};

#[test]
fn a_maintenance_thread_gives_back_what_nobody_needs() {
    let zone = Zone::<[u64; 16]>::builder("spike").build().unwrap();
    let spike: Vec<_> = (0..100_000).map(|n| zone.alloc([n; 16]).unwrap()).collect();
    drop(spike);
    let held = zone.stats().bytes;
    assert!(held > 12_000_000, "{held} bytes");

    let upkeep = Maintenance::start(Duration::from_millis(5)).unwrap();
    let begin = Instant::now();
    // What CPUs hold in their buckets stays, and pins a few slabs.
    while zone.stats().bytes > held / 4 {
        assert!(begin.elapsed() < Duration::from_secs(100), "{} bytes stay", zone.stats().bytes);
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(upkeep);
    zone.reclaim(Reclaim::DrainCpu);
    assert_eq!(zone.stats().bytes, 0);
}
