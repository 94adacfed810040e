//! What a keg costs per item when it is asked in batches, as a cache asks it.
//!
//! `cargo run --release -p uma-keg --example batches [--features hashbrown]`

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use uma_core::{Item, ItemSource, Metadata, PageError, PageRun, PageSupplier, RawMutex, Request};
use uma_keg::{Keg, MetaKegs, SlabConfig};

/// Pages from the global allocator.
#[derive(Clone, Copy)]
struct Heap;

// SAFETY: the global allocator keeps the same promises for non-zero layouts.
unsafe impl PageSupplier for Heap {
    fn page_size(&self) -> usize {
        4096
    }

    fn alloc_pages(&self, layout: Layout, _: Request) -> Result<PageRun, PageError> {
        PageError::check(layout, self.page_size())?;
        // SAFETY: `check` refused a size of zero.
        let base = NonNull::new(unsafe { alloc(layout) }).ok_or(PageError::Exhausted)?;
        // SAFETY: the memory is ours and has this layout.
        Ok(unsafe { PageRun::from_parts(base, layout, false, 0) })
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: the run came from `alloc_pages` above, with this layout.
        unsafe { dealloc(run.base().as_ptr(), run.layout()) }
    }
}

struct Spin(AtomicBool);

// SAFETY: the flag is set by one thread at a time, with acquire and release ordering.
unsafe impl RawMutex for Spin {
    #[allow(clippy::declare_interior_mutable_const, reason = "the trait wants it")]
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = ();

    fn lock(&self) {
        while !self.try_lock() {
            std::hint::spin_loop();
        }
    }

    fn try_lock(&self) -> bool {
        !self.0.swap(true, Ordering::Acquire)
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Nanoseconds per item for an import and a release of `count` items, the best of several rounds.
fn measure<M: Metadata>(keg: &Keg<Heap, Spin, M>, count: usize, shuffled: bool) -> (f64, f64) {
    const TIMES: usize = 2000;
    let mut into = vec![MaybeUninit::uninit(); count];
    let mut best = (f64::MAX, f64::MAX);
    for _ in 0..20 {
        let (mut imports, mut releases) = (0, 0);
        for _ in 0..TIMES {
            let start = Instant::now();
            let mut got = 0;
            while got < count {
                got += keg.import(&mut into[got..], Request::NOWAIT).expect("memory");
            }
            imports += start.elapsed().as_nanos();
            // SAFETY: all of them have been initialised.
            let items: &mut [Item] = unsafe { into.assume_init_mut() };
            if shuffled {
                let mut state = 1_usize;
                for at in (1..count).rev() {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    items.swap(at, (state >> 33) % (at + 1));
                }
            }
            let start = Instant::now();
            // SAFETY: they came from this keg and are used no more.
            unsafe { keg.release(black_box(items)) };
            releases += start.elapsed().as_nanos();
        }
        let items = (TIMES * count) as f64;
        best.0 = best.0.min(imports as f64 / items);
        best.1 = best.1.min(releases as f64 / items);
    }
    best
}

fn main() {
    let meta = MetaKegs::<_, Spin>::new(Heap);
    let config = SlabConfig::new();
    println!("size batch order       ns/import ns/release  slab");
    for (size, count) in [(64, 254), (64, 1), (16, 254), (1024, 16), (4096, 16)] {
        for shuffled in [false, true] {
            let layout = Layout::from_size_align(size, 16).expect("a layout");
            let keg = Keg::with_metadata(Heap, &meta, layout, config).expect("a keg");
            let (import, release) = measure(&keg, count, shuffled);
            let order = if shuffled { "shuffled" } else { "in order" };
            let slab = keg.slab_layout();
            println!(
                "{size:4} {count:5} {order:10} {import:9.2} {release:9.2}  {} KiB {:?}",
                slab.slab_size() >> 10,
                slab.header_place()
            );
        }
    }
}
