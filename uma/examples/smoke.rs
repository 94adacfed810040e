//! smoke
use std::time::Instant;
use uma::*;
static NODES: Zone<[u64; 8]> = Zone::new("node");
fn main() {
    for t in [1, 2] {
        std::thread::scope(|s| {
            for _ in 0..t {
                s.spawn(|| {
                    let n = 20_000_000u64;
                    let at = Instant::now();
                    for i in 0..n {
                        std::hint::black_box(NODES.alloc([i; 8]).unwrap());
                    }
                    println!(
                        "{t} threads: pair {:.2} ns",
                        at.elapsed().as_nanos() as f64 / n as f64
                    );
                });
            }
        });
    }
    let at = Instant::now();
    let n = 1_000_000;
    let mut v = Vec::with_capacity(n);
    for i in 0..n {
        v.push(NODES.alloc([i as u64; 8]).unwrap());
    }
    println!("batch alloc {:.2} ns", at.elapsed().as_nanos() as f64 / n as f64);
    println!("{}", stat());
    let at = Instant::now();
    drop(v);
    println!("batch free {:.2} ns", at.elapsed().as_nanos() as f64 / n as f64);
    println!("{}", stat());
    reclaim(Reclaim::Drain);
    println!("{}", stat());
}
