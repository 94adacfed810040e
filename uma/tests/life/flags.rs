//! Each flag does what it says.

use uma::core::{AllocError, ConfigFault, PageError, Request};
use uma::{RawZone, Reclaim, ZoneFlags};
use uma_testkit::machine;

use crate::toy::{CPUS, On, Toy, bytes, give, layout, take};

fn zone<'a>(toy: &'a Toy, size: usize, flags: ZoneFlags) -> RawZone<On<'a>> {
    RawZone::builder_in("flags", layout(size, 8), On(toy)).flags(flags).build().unwrap()
}

#[test]
fn zinit_zeroes_when_the_slab_is_made_and_not_again() {
    let toy = Toy::new();
    let zone = zone(&toy, 100, ZoneFlags::ZINIT);
    let items = take(&zone, 300);
    assert!(items.iter().all(|&item| bytes(item, 100) == [0; 100]));
    let one = items[0];
    for &item in &items {
        bytes(item, 100).fill(9);
    }
    give(&zone, items[1..].to_vec());
    zone.reclaim(Reclaim::DrainCpu);
    // Those of the slab that is still there are as they were freed.
    let mate = take(&zone, 1);
    assert_eq!(bytes(mate[0], 100), [9; 100]);
    give(&zone, mate);
    give(&zone, vec![one]);
    drop(zone);
    toy.assert_clean();
}

#[test]
fn nofree_gives_no_slab_back() {
    let toy = Toy::new();
    let zone = zone(&toy, 100, ZoneFlags::NOFREE);
    let items = take(&zone, 1000);
    give(&zone, items);
    let held = toy.bytes();
    zone.reclaim(Reclaim::DrainCpu);
    toy.registry.reclaim(Reclaim::DrainCpu);
    // (Bookkeeping is not pages here.)
    assert_eq!((toy.bytes(), zone.stats().slabs > 1), (held, true));
    drop(zone);
    toy.assert_clean();
}

/// The zone writes no byte of a slab of items that nobody may touch, from its first use to its end.
#[test]
fn notouch_items_are_never_written() {
    let toy = Toy::new();
    let flags = ZoneFlags::NOTOUCH;
    let builder = || RawZone::builder_in("flags", layout(256, 8), On(&toy)).flags(flags);
    let zone = builder().build().unwrap();
    let items = take(&zone, 64);
    let first = items.iter().map(|item| item.addr()).min().unwrap();
    let mut written = 0;
    for (n, &item) in items.iter().enumerate() {
        assert!((item.addr() - first) % 256 == 0, "a header is between items");
        bytes(item, 256).fill(n as u8);
        written += 1;
    }
    give(&zone, items.clone());
    zone.reclaim(Reclaim::Trim);
    let again = take(&zone, 64);
    for &item in &again {
        // Whatever was written last is there, unless the slab went and came back.
        let was = items.iter().position(|&other| other == item);
        assert!(was.is_none_or(|n| bytes(item, 256) == [n as u8; 256]));
    }
    assert_eq!(written, 64);
    give(&zone, again);
    drop(zone);
    for flags in [ZoneFlags::OFFPAGE, ZoneFlags::NOTOUCH] {
        let before = toy.metadata.0.outstanding().runs;
        let zone = builder().flags(flags).bucket(0).build().unwrap();
        let one = take(&zone, 1);
        // The zone, its table of headers, and a header.
        assert!(toy.metadata.0.outstanding().runs >= before + 3, "{flags}");
        give(&zone, one);
    }
    toy.assert_clean();
}

#[test]
fn contig_items_stay_within_a_page() {
    let toy = Toy::new();
    for size in [24, 700, 1500, 3000, 4000, 4096] {
        let zone = zone(&toy, size, ZoneFlags::CONTIG);
        let items = take(&zone, 40);
        for item in &items {
            assert_eq!(item.addr() / 4096, (item.addr() + size - 1) / 4096, "{size}");
        }
        give(&zone, items);
    }
    toy.assert_clean();
}

#[test]
fn cachespread_begins_at_many_lines() {
    let toy = Toy::new();
    let lines = |flags| {
        let zone = zone(&toy, 1024, flags);
        let items = take(&zone, 64);
        let mut lines: Vec<_> = items.iter().map(|item| item.addr() % 4096 / 64).collect();
        lines.sort_unstable();
        lines.dedup();
        give(&zone, items);
        lines.len()
    };
    let (plain, spread) = (lines(ZoneFlags::empty()), lines(ZoneFlags::CACHESPREAD));
    assert!(plain <= 4 && spread >= 40, "{plain} lines, or {spread}");
    toy.assert_clean();
}

#[test]
fn pcpu_items_have_a_copy_for_each_cpu() {
    let toy = Toy::new();
    let zone = zone(&toy, 8, ZoneFlags::PCPU);
    let dirty = zone.alloc_pcpu(Request::NOWAIT).unwrap();
    assert_eq!(zone.pcpu_copies(), CPUS);
    let copy = |item, cpu| bytes(zone.pcpu_copy(item, cpu).unwrap().into(), 8);
    (0..CPUS).for_each(|cpu| copy(dirty, cpu).fill(cpu as u8 + 1));
    assert_eq!(zone.pcpu_copy(dirty, 0), Some(dirty.as_non_null()));
    assert_eq!(zone.pcpu_copy(dirty, CPUS), None);
    give(&zone, vec![dirty]);
    // The same again, zeroed: for every CPU.
    let clean = zone.alloc_pcpu(Request::NOWAIT.zeroed()).unwrap();
    assert_eq!(clean, dirty);
    assert!((0..CPUS).all(|cpu| copy(clean, cpu) == [0; 8]));
    let many: Vec<_> = (0..100).map(|_| zone.alloc_pcpu(Request::NOWAIT).unwrap()).collect();
    // Small ones share pages, but not with those of other CPUs.
    assert_eq!(zone.stats().slabs, 1);
    for cpu in 1..CPUS {
        let distance = copy(clean, cpu).as_ptr().addr() - clean.addr();
        assert!(distance >= 4096 && distance.is_multiple_of(4096));
    }
    give(&zone, many);
    give(&zone, vec![clean]);
    drop(zone);

    let plain = RawZone::builder_in("plain", layout(8, 8), On(&toy)).build().unwrap();
    let error = plain.alloc_pcpu(Request::NOWAIT).unwrap_err();
    assert_eq!((error.reason(), plain.pcpu_copies()), (AllocError::Unsupported, 1));
    drop(plain);
    toy.assert_clean();
}

#[test]
fn bucket_flags_say_how_large_buckets_are() {
    let toy = Toy::new();
    for (flags, size) in [
        (ZoneFlags::NOBUCKET, 0),
        (ZoneFlags::MAXBUCKET, 254),
        (ZoneFlags::MINBUCKET, 2),
        (ZoneFlags::empty(), 30),
    ] {
        let zone = zone(&toy, 512, flags);
        let items = take(&zone, 1);
        give(&zone, items);
        let stats = zone.stats();
        assert_eq!(stats.bucket_size, size, "{flags}");
        assert_eq!(stats.cached == 0, size == 0, "{flags}");
        // The smallest do not grow, whatever is asked of them.
        let items = take(&zone, 2000);
        give(&zone, items);
        if flags == ZoneFlags::MINBUCKET {
            assert_eq!(zone.stats().bucket_size, 2);
            assert!(zone.stats().cached <= 3 * (2 * 2 + 64), "{}", zone.stats().cached);
        }
    }
    toy.assert_clean();
}

#[test]
fn unmanaged_and_notrim_are_spared() {
    let toy = Toy::new();
    for (flags, trimmed, drained) in [
        (ZoneFlags::empty(), true, true),
        (ZoneFlags::NOTRIM, false, true),
        (ZoneFlags::UNMANAGED, false, false),
    ] {
        let zone = zone(&toy, 512, flags);
        let hold = || {
            let items = take(&zone, 2000);
            give(&zone, items);
            (zone.stats().free(), toy.bytes())
        };
        let held = hold();
        for _ in 0..60 {
            toy.registry.reclaim(Reclaim::Trim);
            toy.registry.reclaim(Reclaim::Idle);
        }
        assert_eq!(zone.stats().free() < held.0, trimmed, "{flags}");
        let held = hold();
        toy.registry.reclaim(Reclaim::Drain);
        assert_eq!(toy.bytes() < held.1, drained, "{flags}");
        let held = hold();
        toy.registry.reclaim(Reclaim::DrainCpu);
        assert_eq!(toy.bytes() < held.1, drained, "{flags}");
        // By itself it does what it is told.
        zone.reclaim(Reclaim::DrainCpu);
        assert_eq!(toy.bytes(), 0, "{flags}");
    }
    toy.assert_clean();
}

/// What nobody needs for 45 periods goes by quarters, although nothing is short.
#[test]
fn what_is_idle_for_long_goes() {
    let toy = Toy::new();
    let zone = zone(&toy, 512, ZoneFlags::empty());
    let items = take(&zone, 4000);
    give(&zone, items);
    let held = zone.stats().cached;
    let mut periods = 0;
    while zone.stats().cached == held {
        toy.registry.reclaim(Reclaim::Idle);
        periods += 1;
        assert!(periods < 200, "nothing goes");
    }
    assert!(periods > 45, "after {periods} periods already");
    // At most a quarter goes at once, in whole buckets; and as the need of old is forgotten, all goes.
    let left = zone.stats().cached;
    assert!(left < held && left > held * 2 / 3, "{left} of {held} left");
    for _ in 0..200 {
        toy.registry.reclaim(Reclaim::Idle);
    }
    // Nobody reaches into the buckets of CPUs for that; and one that is more than a quarter of the rest stays.
    let left = zone.stats().cached;
    assert!(left < held / 8 && left > 0, "{left} of {held} left");
    drop(zone);
    toy.assert_clean();
}

/// Buckets of a zone that serves page suppliers never lead to one, headers lie in slabs.
#[test]
fn vm_zones_ask_no_supplier_for_buckets() {
    use uma::cache::CpuLocks;
    use uma::core::NoSleep;
    use uma::keg::MetaKegs;
    use uma::{Platform, Registry};
    use uma_backend_static::{StaticMemory, StaticPages};
    use uma_testkit::machine::{Cpus, OneThread};

    static MEMORY: StaticMemory<{ 4 << 20 }> = StaticMemory::new();
    static PAGES: StaticPages<spin::Mutex<()>> = StaticPages::new(&MEMORY);
    // Bookkeeping has pages of its own here, so that one sees who took them.
    static BOOKS: StaticMemory<{ 1 << 20 }> = StaticMemory::new();
    static BOOK_PAGES: StaticPages<spin::Mutex<()>> = StaticPages::new(&BOOKS);
    static METADATA: MetaKegs<&StaticPages<spin::Mutex<()>>, spin::Mutex<()>> =
        MetaKegs::new(&BOOK_PAGES);
    static REGISTRY: Registry<OneThread> = Registry::new();

    #[derive(Clone, Copy)]
    struct Board;

    // SAFETY: every method leads to a static.
    unsafe impl Platform for Board {
        type Pages = &'static StaticPages<spin::Mutex<()>>;
        type Cpus = CpuLocks<Cpus>;
        type Lock = OneThread;
        type Sleep = NoSleep;
        type Metadata = &'static MetaKegs<&'static StaticPages<spin::Mutex<()>>, spin::Mutex<()>>;
        fn pages(&self) -> Self::Pages {
            &PAGES
        }
        fn cpus(&self) -> Self::Cpus {
            CpuLocks::new(Cpus(CPUS))
        }
        fn sleep(&self) -> NoSleep {
            NoSleep
        }
        fn metadata(&self) -> Self::Metadata {
            &METADATA
        }
        fn registry(&self) -> &Registry<OneThread> {
            &REGISTRY
        }
    }

    machine::reset();
    let plain = || RawZone::builder_in("vm", layout(64, 8), Board);
    let zone = plain().flags(ZoneFlags::VM).build().unwrap();
    let held = METADATA.bytes();
    let cycle = |zone: &RawZone<Board>| {
        let items: Vec<_> = (0..5000).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect();
        // SAFETY: the items came from the zone.
        items.into_iter().for_each(|item| unsafe { zone.free(item) });
    };
    cycle(&zone);
    assert_eq!(METADATA.bytes(), held, "a bucket, a slot or a header took pages");
    let usual = plain().build().unwrap();
    cycle(&usual);
    assert!(METADATA.bytes() > held, "so that is what would have been seen");
    // What others left it may use.
    usual.reclaim(Reclaim::DrainCpu);
    let held = METADATA.bytes();
    cycle(&zone);
    assert_eq!(METADATA.bytes(), held);
    assert!(zone.stats().bucket_size != 0 && zone.stats().cached != 0);
}

#[test]
fn no_pages_for_a_request_without() {
    let toy = Toy::new();
    let zone = zone(&toy, 64, ZoneFlags::NOBUCKET);
    let frugal = Request::WAIT.without_pages();
    let error = zone.alloc(frugal).unwrap_err().reason();
    assert_eq!((error, toy.bytes()), (AllocError::Pages(PageError::Exhausted), 0));
    zone.prealloc(1).unwrap();
    let item = zone.alloc(frugal).unwrap();
    give(&zone, vec![item]);
    drop(zone);
    toy.assert_clean();
}

/// Pages of a zone that is not to be dumped are asked for so, and those of slabs that stay are said to stay.
#[test]
fn suppliers_are_told_of_dumps_and_of_slabs_that_stay() {
    use std::alloc::{self, Layout};
    use std::sync::Mutex;
    use uma::{FnPages, Host, WithPages};

    static ASKED: Mutex<Vec<Request>> = Mutex::new(Vec::new());

    unsafe fn allocf(_: *mut (), layout: Layout, _: &mut u8, request: Request) -> *mut u8 {
        ASKED.lock().unwrap().push(request);
        // SAFETY: a run has a size.
        unsafe { alloc::alloc(layout) }
    }

    unsafe fn freef(_: *mut (), run: *mut u8, layout: Layout, _: u8) {
        // SAFETY: it came from `allocf`, with this layout.
        unsafe { alloc::dealloc(run, layout) }
    }

    // SAFETY: the heap supplies what is asked for, on any thread; all copies lead there.
    let pages = unsafe { FnPages::new(4096, std::ptr::null_mut(), allocf, freef) };
    // SAFETY: as above.
    let platform = unsafe { WithPages::from_parts(Host, pages) };
    for (flags, dumped, for_good) in [
        (ZoneFlags::empty(), true, false),
        (ZoneFlags::NODUMP, false, false),
        (ZoneFlags::NOFREE, true, true),
        (ZoneFlags::NODUMP | ZoneFlags::NOFREE, false, true),
    ] {
        let zone = RawZone::builder_in("told", layout(64, 8), platform).flags(flags);
        let zone = zone.build().unwrap();
        zone.prealloc(1).unwrap();
        let items: Vec<_> = (0..500).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect();
        let asked = std::mem::take(&mut *ASKED.lock().unwrap());
        assert!(asked.len() > 1);
        let told = |request: &Request| (request.may_be_dumped(), request.is_for_good());
        assert!(asked.iter().all(|request| told(request) == (dumped, for_good)), "{flags}");
        // SAFETY: the items came from the zone.
        items.into_iter().for_each(|item| unsafe { zone.free(item) });
    }
}

/// Flags that say nothing here are accepted all the same, alone and together, and all are told again.
#[test]
fn accepted_flags_are_told_by_name() {
    let toy = Toy::new();
    let idle = ZoneFlags::MALLOC
        | ZoneFlags::PAGEABLE
        | ZoneFlags::STATIC
        | ZoneFlags::NOTPAGE
        | ZoneFlags::FIRSTTOUCH
        | ZoneFlags::MTXCLASS
        | ZoneFlags::NOKASAN
        | ZoneFlags::NODUMP;
    let flags = idle | ZoneFlags::NOFREE;
    let zone = zone(&toy, 64, flags);
    let items = take(&zone, 10);
    give(&zone, items);
    assert_eq!(zone.flags(), flags);
    assert_eq!((ZoneFlags::NOFREE | ZoneFlags::ZINIT).to_string(), "ZINIT | NOFREE");
    let mut seen = Vec::new();
    toy.registry.visit(&mut |zone| seen.push((zone.flags(), zone.primary())));
    assert_eq!(seen, [(flags, None)]);
    let both = RawZone::builder_in("robin", layout(64, 8), On(&toy)).flags(ZoneFlags::ROUNDROBIN);
    drop(both.build().unwrap());
    drop(zone);
    toy.assert_clean();
}

#[test]
fn flags_that_exclude_each_other_are_refused() {
    let toy = Toy::new();
    for (flags, one, other) in [
        (ZoneFlags::NOBUCKET | ZoneFlags::MAXBUCKET, "NOBUCKET", "MAXBUCKET"),
        (ZoneFlags::NOBUCKET | ZoneFlags::MINBUCKET, "NOBUCKET", "MINBUCKET"),
        (ZoneFlags::MINBUCKET | ZoneFlags::MAXBUCKET, "MINBUCKET", "MAXBUCKET"),
        (ZoneFlags::ZINIT | ZoneFlags::NOTOUCH, "ZINIT", "NOTOUCH"),
        (ZoneFlags::VM | ZoneFlags::NOTOUCH, "VM", "NOTOUCH"),
        (ZoneFlags::VM | ZoneFlags::OFFPAGE, "VM", "OFFPAGE"),
        (ZoneFlags::FIRSTTOUCH | ZoneFlags::ROUNDROBIN, "FIRSTTOUCH", "ROUNDROBIN"),
        (ZoneFlags::CACHE, "SECONDARY or CACHE", "a zone of another kind"),
        (ZoneFlags::SECONDARY, "SECONDARY or CACHE", "a zone of another kind"),
    ] {
        let builder = RawZone::builder_in("bad", layout(64, 8), On(&toy)).flags(flags);
        let error = builder.build().unwrap_err();
        assert_eq!(error.fault, ConfigFault::Conflict(one, other));
        assert!(error.to_string().ends_with(&format!("{one} and {other} exclude each other")));
    }
    toy.assert_clean();
}
