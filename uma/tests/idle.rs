//! What a zone costs that nobody uses: its own memory, and what it takes from the platform's metadata and pages.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Mutex;

use uma::cache::PerCpu;
use uma::core::{Metadata, Request};
use uma::{Host, ObjectCache, Platform, RawZone, Reclaim, Registry, Zone};

/// The host's metadata, and what is out of it.
struct Counting(Mutex<Vec<usize>>);

static METADATA: Counting = Counting(Mutex::new(Vec::new()));

// SAFETY: forwards to an implementation that keeps the contract.
unsafe impl Metadata for Counting {
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.alloc_meta_for(layout, Request::NOWAIT)
    }

    fn alloc_meta_for(&self, layout: Layout, request: Request) -> Option<NonNull<u8>> {
        let memory = Host.metadata().alloc_meta_for(layout, request)?;
        self.0.lock().unwrap().push(layout.size());
        Some(memory)
    }

    unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
        let mut out = self.0.lock().unwrap();
        let place = out.iter().position(|&size| size == layout.size()).unwrap();
        out.swap_remove(place);
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { Host.metadata().free_meta(at, layout) }
    }
}

#[derive(Clone, Copy)]
struct Counted;

// SAFETY: every method leads to a static.
unsafe impl Platform for Counted {
    type Pages = <Host as Platform>::Pages;
    type Cpus = <Host as Platform>::Cpus;
    type Lock = <Host as Platform>::Lock;
    type Sleep = <Host as Platform>::Sleep;
    type Metadata = &'static Counting;

    fn pages(&self) -> Self::Pages {
        Host.pages()
    }

    fn cpus(&self) -> Self::Cpus {
        Host.cpus()
    }

    fn sleep(&self) -> Self::Sleep {
        Host.sleep()
    }

    fn metadata(&self) -> Self::Metadata {
        &METADATA
    }

    fn registry(&self) -> &Registry<Self::Lock> {
        static HOST: Host = Host::new();
        HOST.registry()
    }
}

fn out() -> Vec<usize> {
    METADATA.0.lock().unwrap().clone()
}

/// `docs/design.md` tells these figures.
#[test]
fn what_an_idle_zone_costs() {
    let sizes = [size_of::<RawZone>(), size_of::<Zone<u64>>(), size_of::<ObjectCache<u64>>()];
    println!("itself: RawZone {}, Zone<u64> {}, ObjectCache<u64> {}", sizes[0], sizes[1], sizes[2]);
    if usize::BITS == 64 {
        assert!(sizes[0] <= 320 && sizes[1] <= 320 && sizes[2] <= 352, "{sizes:?}");
    }
    let layout = Layout::from_size_align(64, 8).unwrap();
    let builder = || RawZone::builder_in("idle", layout, Counted);
    let unused = builder().lazy();
    unused.reclaim(Reclaim::DrainCpu);
    assert_eq!(out(), [0; 0], "a zone that was never used has nothing but itself");
    drop(unused);

    let zone = builder().build().unwrap();
    let built = out();
    println!("built: {built:?} of metadata, {} of pages", zone.stats().bytes);
    assert!(built.len() == 1 && built[0] <= 1024, "its pinned part: {built:?}");
    let items: Vec<_> = (0..5000).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect();
    // SAFETY: the items came from the zone.
    items.into_iter().for_each(|item| unsafe { zone.free(item) });
    assert!(out().len() > 2 && zone.stats().bytes != 0);
    zone.reclaim(Reclaim::DrainCpu);
    let mut drained = out();
    println!("drained: {drained:?} of metadata, {} of pages", zone.stats().bytes);
    assert_eq!(zone.stats().bytes, 0);
    drained.retain(|&size| size != built[0]);
    assert_eq!(drained, [64 * Host.cpus().cpus()], "a cache line for each CPU");
    drop(zone);
    assert_eq!(out(), [0; 0]);
}
