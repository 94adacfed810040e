//! Memory that goes back by itself in quiet times.

use std::alloc::Layout;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use uma::core::{Hooks, Item, Request};
use uma::{Host, Maintenance, RawZone, Reclaim, Zone};

/// One at a time: each looks at what all zones hold.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_maintenance_thread_gives_back_what_nobody_needs() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Panics when an item is taken apart, if it is to: only once, since a second panic would end the process.
#[derive(Clone)]
struct Stubborn;

static TO_PANIC: AtomicBool = AtomicBool::new(false);
static PANICS: AtomicUsize = AtomicUsize::new(0);

impl Hooks for Stubborn {
    unsafe fn fini(&self, _: Item) {
        if TO_PANIC.swap(false, Ordering::Relaxed) {
            PANICS.fetch_add(1, Ordering::Relaxed);
            panic!("as planned");
        }
    }
}

/// A zone whose fini panics keeps none of the others from giving back, by a reclaim of all or by a thread.
#[test]
fn a_fini_that_panics_stops_no_other_zone() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    std::panic::set_hook(Box::new(|panic| {
        if !panic.payload_as_str().unwrap_or_default().contains("as planned") {
            eprintln!("{panic}");
        }
    }));
    let layout = Layout::from_size_align(1000, 8).unwrap();
    let plain = |name| RawZone::builder(name, layout).build().unwrap();
    let before = plain("before");
    // SAFETY: it touches no item.
    let stubborn = unsafe { RawZone::builder("stubborn", layout).hooks(Stubborn) };
    let stubborn = stubborn.build().unwrap();
    let behind = plain("behind");
    fn fill<H: Hooks + Clone + Send + Sync>(zone: &RawZone<Host, H>) {
        let items: Vec<_> = (0..2000).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect();
        // SAFETY: taken above.
        items.into_iter().for_each(|item| unsafe { zone.free(item) });
    }
    fill(&before);
    fill(&stubborn);
    fill(&behind);
    TO_PANIC.store(true, Ordering::Relaxed);
    let panic = catch_unwind(|| uma::reclaim(Reclaim::DrainCpu)).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"as planned"));
    assert_eq!((before.stats().bytes, behind.stats().bytes, stubborn.stats().cached), (0, 0, 0));

    fill(&before);
    fill(&stubborn);
    fill(&behind);
    let (held, panics) = (before.stats().bytes, PANICS.load(Ordering::Relaxed));
    let upkeep = Maintenance::start(Duration::from_millis(5)).unwrap();
    let begin = Instant::now();
    // Panics in several rounds; and the estimate falls by a quarter in each.
    while PANICS.load(Ordering::Relaxed) < panics + 3
        || before.stats().bytes > held / 2
        || behind.stats().bytes > held / 2
    {
        let late = begin.elapsed() > Duration::from_secs(60);
        TO_PANIC.store(!late, Ordering::Relaxed);
        assert!(!late, "nothing goes back");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(upkeep);
    TO_PANIC.store(false, Ordering::Relaxed);
}
