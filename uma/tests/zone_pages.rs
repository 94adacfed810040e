//! Zones with page suppliers of their own, named after the sentences of uma(9) and zone(9) that they keep.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uma::core::{
    AllocError, ConfigFault, Counting, Fallback, Handover, Item, PageError, PageSupplier, Quota,
    Request,
};
use uma::{FnPages, Host, Platform, RawZone, Reclaim, WithPages, Zone, ZoneFlags};
use uma_backend_static::{StaticMemory, StaticPages};
use uma_testkit::{FailNth, Fake, conformance};

const PAGE: usize = 4096;

/// A platform with the pages of `S`, which is leaked.
fn on<S: PageSupplier + Sync>(pages: S) -> (WithPages<Host, &'static S>, &'static S) {
    let pages: &'static S = Box::leak(Box::new(pages));
    (WithPages::new(Host, pages), pages)
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

fn take<P: Platform>(zone: &RawZone<P>, most: usize) -> Vec<Item> {
    (0..most).map_while(|_| zone.alloc(Request::NOWAIT).ok()).collect()
}

fn give<P: Platform>(zone: &RawZone<P>, items: Vec<Item>) {
    // SAFETY: the tests took the items from this zone and use them no more.
    items.into_iter().for_each(|item| unsafe { zone.free(item) });
}

/// What the functions of the tests work on.
#[derive(Default)]
struct Heap {
    /// Runs that are out, with their layouts and flags.
    runs: Mutex<BTreeMap<usize, (Layout, u8)>>,
    calls: AtomicUsize,
    flag: AtomicU8,
    empty: AtomicBool,
    crooked: AtomicBool,
    /// The largest alignment that was asked for.
    align: AtomicUsize,
}

impl Heap {
    fn runs(&self) -> MutexGuard<'_, BTreeMap<usize, (Layout, u8)>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages by the functions below.
    fn pages(&'static self) -> FnPages {
        let context = std::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: the functions keep their promises by the global allocator; the heap is static.
        unsafe { FnPages::new(PAGE, context, allocf, freef) }
    }
}

unsafe fn allocf(context: *mut (), layout: Layout, flag: &mut u8, _: Request) -> *mut u8 {
    // SAFETY: the context is a heap that lives for ever (`pages`).
    let heap = unsafe { &*context.cast::<Heap>() };
    heap.calls.fetch_add(1, Ordering::Relaxed);
    heap.align.fetch_max(layout.align(), Ordering::Relaxed);
    if heap.empty.load(Ordering::Relaxed) {
        return std::ptr::null_mut();
    }
    *flag = heap.flag.fetch_add(1, Ordering::Relaxed);
    // One byte more, so that it can be given out crooked.
    let larger = Layout::from_size_align(layout.size() + 1, layout.align()).unwrap();
    // SAFETY: the size is not zero.
    let mut at = unsafe { std::alloc::alloc(larger) };
    if heap.crooked.load(Ordering::Relaxed) {
        // SAFETY: there is one byte more.
        at = unsafe { at.add(1) };
    }
    heap.runs().insert(at.addr(), (layout, *flag));
    at
}

unsafe fn freef(context: *mut (), run: *mut u8, layout: Layout, flag: u8) {
    // SAFETY: as in `allocf`.
    let heap = unsafe { &*context.cast::<Heap>() };
    let known = heap.runs().remove(&run.addr());
    assert_eq!(known, Some((layout, flag)), "freef got what allocf never gave");
    let larger = Layout::from_size_align(layout.size() + 1, layout.align()).unwrap();
    let whole = run.map_addr(|addr| addr & !(layout.align() - 1));
    // SAFETY: the run came from there, at most one byte behind its beginning.
    unsafe { std::alloc::dealloc(whole, larger) };
}

fn heap() -> &'static Heap {
    Box::leak(Box::default())
}

#[test]
fn functions_keep_the_contract_of_a_page_supplier() {
    let heap = heap();
    conformance::page_supplier(&heap.pages());
    conformance::page_supplier_threads(&heap.pages());
    assert!(heap.runs().is_empty());
}

/// `uma_zone_set_allocf`, `uma_zone_set_freef`: "replace a zone's default slab allocation or free functions".
#[test]
fn set_allocf_and_set_freef_replace_the_functions_that_allocate_and_free_slabs() {
    let heap = heap();
    let (platform, _) = on(heap.pages());
    let zone = RawZone::builder_in("fn pages", layout(200), platform).build().unwrap();
    assert_eq!(heap.calls.load(Ordering::Relaxed), 0, "before there is need");
    let items = take(&zone, 1000);
    assert_eq!(items.len(), 1000);
    for item in &items {
        let runs = heap.runs();
        let (&base, &(run, _)) = runs.range(..=item.addr()).next_back().unwrap();
        assert!(item.addr() + 200 <= base + run.size(), "an item from elsewhere");
    }
    assert!(heap.runs().len() > 1 && zone.stats().bytes > 200_000);
    give(&zone, items);
    zone.reclaim(Reclaim::DrainCpu);
    // `freef` checks that size and flags are those that `allocf` set: the `pflag` of 2002.
    assert_eq!((heap.runs().len(), zone.stats().bytes), (0, 0));
}

/// "allocf ... may return NULL": the allocation fails, and nothing else.
#[test]
fn an_allocf_that_returns_null_fails_the_allocation_alone() {
    let heap = heap();
    let (platform, _) = on(heap.pages());
    let zone = RawZone::builder_in("null", layout(3000), platform).bucket(0).build().unwrap();
    let some = take(&zone, 3);
    heap.empty.store(true, Ordering::Relaxed);
    let more = take(&zone, 1000);
    let error = zone.alloc(Request::WAIT).unwrap_err();
    assert_eq!(error.reason(), AllocError::Pages(PageError::Exhausted));
    heap.empty.store(false, Ordering::Relaxed);
    let last = take(&zone, 50);
    assert_eq!((some.len(), last.len()), (3, 50));
    [some, more, last].into_iter().for_each(|items| give(&zone, items));
    drop(zone);
    assert!(heap.runs().is_empty());
}

#[test]
fn what_allocf_returns_unaligned_goes_back_to_freef() {
    let heap = heap();
    let (platform, pages) = on(heap.pages());
    let zone = RawZone::builder_in("crooked", layout(100), platform).build().unwrap();
    heap.crooked.store(true, Ordering::Relaxed);
    let error = zone.alloc(Request::NOWAIT).unwrap_err();
    assert_eq!(error.reason(), AllocError::Pages(PageError::BadAlign));
    assert!(heap.runs().is_empty() && pages.page_size() == PAGE);
    heap.crooked.store(false, Ordering::Relaxed);
    let items = take(&zone, 1);
    give(&zone, items);
}

/// The `uma_alloc` of the originals has a size and no alignment, and returns pages.
#[test]
fn slabs_of_one_page_need_no_more_alignment_than_that() {
    let heap = heap();
    let (platform, _) = on(heap.pages());
    for size in [1, 24, 100, 500, 1365, 2048, 4000, 4096, 4097, 9000, 20_000, 65_537, 200_000] {
        let zone = RawZone::builder_in("aligned", layout(size), platform.largest_slab(PAGE));
        let zone = zone.build().unwrap();
        let items = take(&zone, 3);
        assert_eq!(items.len(), 3);
        give(&zone, items);
    }
    assert_eq!(heap.align.load(Ordering::Relaxed), PAGE);
    assert!(heap.runs().is_empty());
}

#[test]
fn pages_larger_than_a_slab_would_be_make_the_slab_larger() {
    for page in [64, 256, 16 << 10, 64 << 10, 256 << 10] {
        let (platform, pages) = on(Fake::with_page_size(page));
        let zone = RawZone::builder_in("large pages", layout(100), platform).build().unwrap();
        let items = take(&zone, 200);
        assert_eq!(items.len(), 200, "on pages of {page} bytes");
        give(&zone, items);
        drop(zone);
        assert_eq!(pages.outstanding().runs, 0);
    }
}

/// `uma_zone_reserve_kva`: "the zone's slabs are pre-allocated ... for the specified number of items".
#[test]
fn a_zone_with_backing_has_all_it_needs_when_it_is_made_and_asks_for_no_more() {
    let (platform, pages) = on(FailNth::new(Counting::new(Fake::new())));
    for (size, count) in [(48, 1), (48, 1000), (700, 333), (5000, 40), (70_000, 3)] {
        pages.never();
        let zone = RawZone::builder_in("backed", layout(size), platform).backing(count);
        let zone = zone.build().unwrap();
        // Nothing is to be had from now on, and nothing asked for.
        pages.fail_from(1);
        let held = pages.inner().counts();
        for round in 0..3 {
            let all = take(&zone, usize::MAX);
            assert_eq!(all.len() as u64, count, "round {round}");
            assert_eq!(zone.alloc(Request::NOWAIT).unwrap_err().reason(), AllocError::Limit);
            give(&zone, all);
            // A NOFREE zone: drains leave its slabs alone.
            let modes = [Reclaim::Trim, Reclaim::Drain, Reclaim::DrainCpu];
            zone.reclaim(modes[round]);
            assert_eq!(pages.inner().counts(), held);
        }
        assert_eq!(pages.calls(), 0, "it asked for pages later");
        let stats = zone.stats();
        assert_eq!((stats.limit, stats.bytes as usize), (count, held.bytes));
        drop(zone);
        assert_eq!(pages.inner().counts().bytes, 0);
    }
}

/// "It also makes the zone NOFREE", and in 2013 and later the limit is one of items.
#[test]
fn a_backing_is_a_hard_limit_on_every_cpu() {
    let (platform, _) = on(Fake::new());
    let zone = RawZone::builder_in("hard", layout(64), platform).backing(500).build().unwrap();
    let most = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..50 {
                    let items = take(&zone, 100 + round);
                    most.fetch_max(zone.stats().used() as usize, Ordering::Relaxed);
                    give(&zone, items);
                }
            });
        }
    });
    assert!(most.load(Ordering::Relaxed) <= 500);
    // Free items on whatever CPU are found.
    let all = take(&zone, usize::MAX);
    assert_eq!(all.len(), 500);
    // A limit that is lifted brings no more slabs.
    let per_slab = zone.stats().bytes as usize / 64;
    zone.set_max_items(None).unwrap();
    let more = take(&zone, 10_000);
    assert!(500 + more.len() <= per_slab, "{} more", more.len());
    let error = zone.alloc(Request::WAIT).unwrap_err();
    assert_eq!(error.reason(), AllocError::Pages(PageError::Exhausted));
    assert!(zone.prealloc(1).is_err());
    give(&zone, more);
    give(&zone, all);
    zone.set_max_items(NonZeroU64::new(10)).unwrap();
    zone.reclaim(Reclaim::DrainCpu);
    let few = take(&zone, 20);
    assert_eq!(few.len(), 10);
    give(&zone, few);
}

/// `uma_zone_set_obj`, `uma_zone_reserve_kva`: 0 if it could not be reserved.
#[test]
fn a_backing_that_cannot_be_had_fails_then_and_keeps_nothing() {
    let (platform, pages) = on(FailNth::new(Fake::new()));
    for k in 1.. {
        pages.fail_at(k);
        let zone = RawZone::builder_in("unbacked", layout(1000), platform).backing(1000).build();
        let failed = pages.failed();
        pages.never();
        match zone {
            Ok(zone) => {
                assert_eq!(failed, 0);
                assert!(k > 10, "it had its pages in {} requests", k - 1);
                drop(zone);
                break;
            }
            Err(error) => {
                let exhausted = AllocError::Pages(PageError::Exhausted);
                assert_eq!(error.fault, ConfigFault::NoBacking(exhausted));
                let text = error.to_string();
                assert!(text.contains("unbacked") && text.contains("all its items"), "{text}");
            }
        }
        assert_eq!(pages.inner().outstanding().runs, 0, "after request {k} had failed");
    }
    let none = RawZone::builder_in("none", layout(8), platform).backing(0).build().unwrap_err();
    assert_eq!(none.fault, ConfigFault::ZeroLimit);
    // A zone that is made at its first use says it there.
    pages.fail_from(1);
    let late = Zone::<[u64; 4], _>::builder_in("late", platform).backing(10).build().unwrap_err();
    assert!(matches!(late.fault, ConfigFault::NoBacking(_)));
    let late = RawZone::builder_in("late", layout(32), platform).backing(10).lazy();
    let error = late.alloc(Request::NOWAIT).unwrap_err();
    assert_eq!(error.reason(), AllocError::Pages(PageError::Exhausted));
    pages.never();
    let items = take(&late, 20);
    assert_eq!(items.len(), 10, "and may come about later");
    give(&late, items);
}

#[test]
fn typed_zones_have_a_backing_too() {
    let (platform, pages) = on(Quota::new(Fake::new(), 8 * PAGE));
    let zone = Zone::<String, _>::builder_in("strings", platform.largest_slab(PAGE));
    let zone = zone.backing(300).build().unwrap();
    let used = pages.used();
    let boxes: Vec<_> = (0..300).map(|n| zone.alloc(n.to_string()).unwrap()).collect();
    assert_eq!(zone.try_alloc(String::new()).unwrap_err().error.reason(), AllocError::Limit);
    assert!(boxes.iter().enumerate().all(|(n, text)| **text == n.to_string()));
    assert_eq!((pages.used(), zone.as_raw().flags()), (used, ZoneFlags::NOFREE));
}

/// `uma_startup`, then `uma_startup2`: zones made on boot memory go on with the system's pages.
#[test]
fn a_zone_made_on_boot_memory_goes_on_with_the_later_supplier() {
    static MEMORY: StaticMemory<{ 65 * PAGE }> = StaticMemory::new();
    type Boot = StaticPages<spin::Mutex<()>>;
    let (platform, pages) = on(Handover::<Boot, Counting<Fake>>::new(StaticPages::new(&MEMORY)));
    let boot = pages.first();
    let whole = boot.stats().free;
    let zone = RawZone::builder_in("boot", layout(700), platform).build().unwrap();
    let early = take(&zone, 50);
    assert!(early.iter().all(|item| boot.contains(item.as_ptr())));
    let held = whole - boot.stats().free;
    assert!(held > 0);

    // SAFETY: a fake takes its pages from the heap, and none from the array.
    assert!(unsafe { pages.hand_over(Counting::new(Fake::new())) }.is_ok());
    let later = pages.later().unwrap();
    let late = take(&zone, 500);
    assert_eq!(late.len(), 500);
    assert_eq!(whole - boot.stats().free, held, "no new slab is of boot memory");
    let counts = later.counts();
    assert!(counts.bytes > 300_000 && !boot.contains(late[499].as_ptr()), "{counts:?}");

    // Boot slabs go back to the boot region, whenever they are free, and the others to where they came from.
    // (Some of the later items lie in what was left of boot slabs.)
    let (inside, outside): (Vec<_>, Vec<_>) =
        late.into_iter().partition(|item| boot.contains(item.as_ptr()));
    give(&zone, early);
    give(&zone, inside);
    zone.reclaim(Reclaim::DrainCpu);
    assert_eq!((boot.stats().free, boot.stats().largest), (whole, whole));
    assert!(later.counts().bytes >= outside.len() * 700);
    give(&zone, outside);
    zone.reclaim(Reclaim::DrainCpu);
    assert_eq!((boot.stats().free, later.counts().bytes), (whole, 0));
    // It goes on.
    let again = take(&zone, 10);
    assert_eq!((again.len(), boot.stats().free), (10, whole));
    give(&zone, again);
}

#[test]
fn a_zone_uses_boot_memory_up_before_it_asks_elsewhere() {
    static MEMORY: StaticMemory<{ 17 * PAGE }> = StaticMemory::new();
    let boot: StaticPages<spin::Mutex<()>> = StaticPages::new(&MEMORY);
    // SAFETY: a fake takes its pages from the heap, and none from the array.
    let (platform, pages) = on(unsafe { Fallback::new(boot, Counting::new(Fake::new())) });
    let zone = RawZone::builder_in("both", layout(4000), platform.largest_slab(PAGE));
    let zone = zone.bucket(0).build().unwrap();
    let items = take(&zone, 20);
    let inside = items.iter().filter(|item| pages.first().contains(item.as_ptr())).count();
    assert_eq!((inside, pages.second().counts().runs, items.len()), (16, 4, 20));
    give(&zone, items);
    zone.reclaim(Reclaim::Drain);
    assert_eq!((pages.first().stats().free, pages.second().counts().runs), (16, 0));
}

#[test]
fn zones_on_other_pages_are_listed_with_the_others() {
    let (platform, _) = on(Fake::new());
    let zone = RawZone::builder_in("listed elsewhere", layout(64), platform).build().unwrap();
    let items = take(&zone, 5);
    assert!(uma::stat().to_string().contains("listed elsewhere"));
    give(&zone, items);
}
