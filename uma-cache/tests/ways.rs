//! Ways to the slots: by reference as directly, and the copy of the way that a hit takes.

use std::alloc::Layout;

use parking_lot::RawMutex;
use uma_cache::{BucketCache, CacheConfig, CpuLocks, CurrentCpu, Front, PerCpu};
use uma_core::{ItemSource, Process, Reclaim, Request};
use uma_testkit::{HeapMeta, Pool};

#[derive(Clone, Copy, Debug)]
struct OneCpu;

impl CurrentCpu for OneCpu {
    fn cpus(&self) -> usize {
        1
    }

    fn current(&self) -> usize {
        0
    }
}

const SMALL: CacheConfig = CacheConfig { bucket: 4, max_bucket: 4, depot: 2 };

/// Items go around by the cache and by its front, and come back.
fn around<C: PerCpu + Copy>(ways: C, hits_are_sure: bool) {
    let (pool, meta) = (Pool::new(Layout::new::<u64>(), 100, 8), HeapMeta::new());
    let front = Front::new();
    let cache = BucketCache::<_, C, RawMutex, _>::new(&pool, ways, &meta, SMALL);
    // SAFETY: it is always this cache, and the front is not used after it.
    unsafe { front.publish(&cache) };
    assert!(front.pop().is_none(), "there are no slots yet");
    for _ in 0..3 {
        let items: Vec<_> = (0..30).map(|_| cache.alloc(Request::NOWAIT).unwrap()).collect();
        for item in items {
            // SAFETY: it came from there, and goes back once.
            unsafe { cache.free(item) };
        }
    }
    // SAFETY: as above.
    unsafe { front.publish(&cache) };
    let mut hits = 0;
    for _ in 0..100 {
        let item = front.pop().inspect(|_| hits += 1);
        let item = item.unwrap_or_else(|| cache.alloc(Request::NOWAIT).unwrap());
        // SAFETY: it came from there; what is not taken is given back the long way.
        unsafe {
            if !front.push(item) {
                cache.free(item);
            }
        }
    }
    assert!(hits == 100 || !hits_are_sure && hits > 0, "{hits} hits of 100");
    cache.prefork();
    // SAFETY: `prefork` was called.
    unsafe { cache.postfork(Process::Original) };
    cache.reclaim(Reclaim::DrainCpu);
    assert_eq!(pool.out(), 0);
    assert!(!ways.mode().is_empty() && ways.cpus() > 0);
    ways.relax();
    drop(cache);
    assert_eq!((pool.out(), meta.outstanding().runs), (0, 0));
}

#[test]
fn locks() {
    around(CpuLocks::new(OneCpu), true);
}

#[test]
fn by_reference() {
    let ways = CpuLocks::new(OneCpu);
    around::<&CpuLocks<OneCpu>>(&ways, false);
}

#[cfg(all(
    feature = "rseq",
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64"
))]
#[test]
fn sequences() {
    let cpus = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
    let cpus = cpus.trim().rsplit('-').next().unwrap().parse::<usize>().unwrap() + 1;
    match uma_cache::Rseq::available(cpus) {
        // The thread may be moved to another CPU at any time.
        Some(ways) => {
            around(ways, false);
            around::<&uma_cache::Rseq>(&ways, false);
            assert_eq!(PerCpu::short(&&ways), ways.short(), "it is as short by reference");
        }
        None => println!("NOT RUN: there are no restartable sequences here"),
    }
    // Slots for no CPU at all: nothing can be had.
    assert!(uma_cache::Rseq::available(0).is_none());
}
