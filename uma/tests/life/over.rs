//! Zones over a source of the user's.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use uma::core::{AllocError, FnSource, Item, ItemSource, Process, Request, Share, Shared, Stats};
use uma::{CacheZone, RawZone, Reclaim, ZoneFlags};
use uma_testkit::hooks::Hook;
use uma_testkit::{Pool, machine};

use crate::toy::{On, Toy, counting, give, layout, take, telling, told};

fn pool(most: usize) -> &'static Pool {
    Box::leak(Box::new(Pool::new(layout(96, 16), most, 8)))
}

/// FreeBSD accepts init and fini for such zones, and never calls them.
#[test]
fn init_and_fini_are_called() {
    let toy = Toy::new();
    let pool = pool(100);
    let zone = RawZone::over_in("over", pool, On(&toy)).bucket(0);
    // SAFETY: the hooks touch nothing.
    let zone = unsafe { zone.hooks(telling("over")) }.build().unwrap();
    let one = take(&zone, 1);
    give(&zone, one);
    assert_eq!(told(), ["over init", "over ctor", "over dtor", "over fini"]);
    drop(zone);
    assert_eq!(pool.out(), 0);
    toy.assert_clean();
}

/// FreeBSD's reclaim forgot such zones.
#[test]
fn it_is_listed_limited_and_reclaimed_like_any_other() {
    let toy = Toy::new();
    let (pool, hooks) = (pool(100), counting());
    let zone = RawZone::over_in("over", pool, On(&toy)).bucket(8).max_items(40);
    // SAFETY: the hooks touch nothing.
    let zone = unsafe { zone.hooks(hooks) }.build().unwrap();
    assert_eq!((toy.names(), zone.flags()), (vec!["over".into()], ZoneFlags::CACHE));
    let items = take(&zone, 40);
    assert!(items.iter().all(|item| item.addr() % 16 == 0));
    assert_eq!(zone.alloc(Request::NOWAIT).unwrap_err().reason(), AllocError::Limit);
    let stats = zone.stats();
    assert_eq!((stats.size, stats.align, stats.limit, stats.used()), (96, 16, 40, 40));
    assert_eq!((stats.slabs, stats.bytes), (0, 0));
    give(&zone, items);
    let held = pool.out();
    assert!(held != 0 && zone.stats().cached == held as u64);
    toy.registry.reclaim(Reclaim::Drain);
    assert!(pool.out() < held);
    toy.registry.reclaim(Reclaim::DrainCpu);
    assert_eq!(pool.out(), 0);
    assert_eq!(zone.prealloc(1).unwrap_err().reason(), AllocError::Unsupported);
    zone.set_max_items(None).unwrap();
    let items = take(&zone, 100);
    give(&zone, items);
    zone.try_destroy().unwrap();
    hooks.assert_balanced();
    toy.assert_clean();
}

#[test]
fn a_refused_init_gives_the_item_back_to_the_source() {
    let toy = Toy::new();
    let (pool, hooks) = (pool(100), counting());
    let zone = RawZone::over_in("over", pool, On(&toy)).bucket(0);
    // SAFETY: the hooks touch nothing.
    let zone = unsafe { zone.hooks(hooks) }.build().unwrap();
    hooks.refuse_at(Hook::Init, 1);
    assert_eq!(zone.alloc(Request::WAIT).unwrap_err().reason(), AllocError::Refused);
    assert_eq!((pool.out(), zone.stats().fails), (0, 1));
    drop(zone);
    toy.assert_clean();
}

#[test]
fn busy_and_leaking_zones_are_told() {
    let toy = Toy::new();
    let pool = pool(100);
    let zone = RawZone::over_in("over", pool, On(&toy)).build().unwrap();
    let items = take(&zone, 3);
    let busy = zone.try_destroy().unwrap_err();
    assert_eq!(busy.to_string(), "3 items of zone \"over\" are in use");
    drop(busy);
    let report = toy.reports.lock().unwrap().pop().unwrap();
    assert!(report.contains("\"over\" was destroyed with 3 items in use"), "{report}");
    assert_eq!((pool.out(), toy.names().len()), (3, 0));
    drop(items);
    std::mem::forget(toy);
}

/// Two functions, and a context, as C gives them. They may have nothing, or say that they gave too much.
#[test]
fn two_functions_are_a_source() {
    struct Context {
        pool: &'static Pool,
        imports: AtomicUsize,
    }

    unsafe fn import(context: *mut (), into: &mut [MaybeUninit<Item>], request: Request) -> usize {
        machine::outside_locks("import runs");
        // SAFETY: the test passes a context.
        let context = unsafe { &*context.cast::<Context>() };
        context.imports.fetch_add(1, Ordering::Relaxed);
        context.pool.import(into, request).unwrap_or(0)
    }

    unsafe fn release(context: *mut (), items: &[Item]) {
        machine::outside_locks("release runs");
        assert!(!items.is_empty());
        // SAFETY: as above, and the items came from the pool.
        unsafe { (*context.cast::<Context>()).pool.release(items) };
    }

    let toy = Toy::new();
    let pool = pool(20);
    let context: &'static _ = Box::leak(Box::new(Context { pool, imports: AtomicUsize::new(0) }));
    // SAFETY: the pool keeps the contract, and any thread may call it.
    let source = unsafe {
        FnSource::new(layout(96, 16), ptr::from_ref(context).cast_mut().cast(), import, release)
    };
    let zone: CacheZone<FnSource, On<'_>> =
        RawZone::over_in("functions", source, On(&toy)).bucket(8).build().unwrap();
    let items = take(&zone, 20);
    assert_eq!(context.imports.load(Ordering::Relaxed), 3);
    assert_eq!(zone.alloc(Request::NOWAIT).unwrap_err().reason(), AllocError::Source);
    // Somebody else's buckets are searched before that is said.
    machine::run_on(1);
    give(&zone, items);
    machine::run_on(2);
    let items = take(&zone, 20);
    give(&zone, items);
    drop(zone);
    assert_eq!(pool.out(), 0);
    toy.assert_clean();
}

/// A source with a lock that fails the test if it is taken twice.
struct Locked {
    pool: &'static Pool,
    lock: lock_api::Mutex<machine::OneThread, ()>,
}

// SAFETY: forwards to the pool.
unsafe impl ItemSource for Locked {
    fn layout(&self) -> std::alloc::Layout {
        self.pool.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        drop(self.lock.lock());
        self.pool.import(into, request)
    }

    unsafe fn release(&self, items: &[Item]) {
        drop(self.lock.lock());
        // SAFETY: passed on.
        unsafe { self.pool.release(items) }
    }

    fn visit_stats(&self, stats: &mut Stats) {
        self.pool.visit_stats(stats);
    }

    fn prefork(&self) {
        std::mem::forget(self.lock.lock());
    }

    unsafe fn postfork(&self, _: Process) {
        // SAFETY: `prefork` forgot the guard.
        unsafe { self.lock.force_unlock() };
    }
}

/// A source under two zones is locked once in a fork, and let go of once.
#[test]
fn a_fork_locks_a_shared_source_once() {
    let toy = Toy::new();
    let pool = pool(100);
    let locked = Locked { pool, lock: lock_api::Mutex::new(()) };
    let shared: &'static Shared<Locked> = Box::leak(Box::new(Shared::new(locked)));
    type Over<'a> = CacheZone<Share<'static, Locked>, On<'a>>;
    let zones: Vec<Over<'_>> = ["one", "two", "three"]
        .into_iter()
        .map(|name| RawZone::over_in(name, shared.share(), On(&toy)).build().unwrap())
        .collect();
    for process in [Process::Original, Process::Copy] {
        let items: Vec<_> = zones.iter().map(|zone| take(zone, 10)).collect();
        toy.registry.prefork();
        assert!(shared.source().lock.is_locked());
        // SAFETY: `prefork` was called just now.
        unsafe { toy.registry.postfork(process) };
        assert!(!shared.source().lock.is_locked());
        assert_eq!(machine::locks_held(), 0);
        zones.iter().zip(items).for_each(|(zone, items)| give(zone, items));
    }
    drop(zones);
    assert_eq!(pool.out(), 0);
    toy.assert_clean();
}
