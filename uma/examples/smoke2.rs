//! smoke
use std::time::Instant;
use uma::*;
fn main() { if std::env::args().count() > 1 { std::thread::spawn(run).join().unwrap() } else { run() } }
fn run() {
    static Z: Zone<[u64; 8]> = Zone::new("node"); let z = &Z;
    println!("{:?}", z.as_raw());
    for _ in 0..3 {
        let n = 20_000_000u64;
        let at = Instant::now();
        for i in 0..n {
            std::hint::black_box(z.alloc([i; 8]).unwrap());
        }
        println!("zone {:.2} ns", at.elapsed().as_nanos() as f64 / n as f64);
        let at = Instant::now();
        for i in 0..n {
            std::hint::black_box(Box::new([i; 8]));
        }
        println!("box {:.2} ns", at.elapsed().as_nanos() as f64 / n as f64);
        let r = z.as_raw();
        let at = Instant::now();
        for _ in 0..n {
            let i = r.alloc(uma::core::Request::NOWAIT).unwrap();
            unsafe { r.free(std::hint::black_box(i)) };
        }
        println!("raw {:.2} ns", at.elapsed().as_nanos() as f64 / n as f64);
    }
    println!("{}", stat());
}
