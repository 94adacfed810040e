//! Zones on the slabs of another.

use std::cell::Cell;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use uma::core::{AllocError, FnHooks, Process, Refused, Request};
use uma::{RawZone, Reclaim, SecondaryZone, ZoneFlags};
use uma_testkit::machine;

use crate::toy::{On, Toy, bytes, counting, give, layout, take, telling, told};

#[test]
fn hooks_nest_and_each_zone_has_its_own() {
    let toy = Toy::new();
    let primary = RawZone::builder_in("mbuf", layout(256, 64), On(&toy)).bucket(0);
    // SAFETY: the hooks touch nothing.
    let primary = unsafe { primary.hooks(telling("mbuf")) }.build().unwrap();
    // SAFETY: as above.
    let packets = unsafe { primary.secondary("packet").bucket(0).hooks(telling("packet")) };
    let packets = packets.build().unwrap();
    let one = take(&packets, 1);
    assert_eq!(told(), ["mbuf init", "packet init", "packet ctor"]);
    give(&packets, one);
    assert_eq!(told(), ["packet dtor", "packet fini", "mbuf fini"]);
    let one = take(&primary, 1);
    assert_eq!(told(), ["mbuf init", "mbuf ctor"]);
    give(&primary, one);
    drop(packets);
    drop(primary);
    toy.assert_clean();
}

#[test]
fn it_inherits_what_is_about_items_and_has_the_rest_to_itself() {
    let toy = Toy::new();
    let flags = ZoneFlags::NOFREE | ZoneFlags::NOTRIM | ZoneFlags::MALLOC;
    let primary = RawZone::builder_in("primary", layout(200, 32), On(&toy)).flags(flags);
    let primary = primary.max_items(10).build().unwrap();
    let second =
        primary.secondary("second").max_items(3).flags(ZoneFlags::MAXBUCKET).build().unwrap();
    let own = ZoneFlags::NOFREE | ZoneFlags::MALLOC | ZoneFlags::MAXBUCKET | ZoneFlags::SECONDARY;
    assert_eq!((primary.flags(), second.flags()), (flags, own));

    let items = take(&second, 3);
    assert!(items.iter().all(|item| item.addr() % 32 == 0));
    assert_eq!(second.alloc(Request::NOWAIT).unwrap_err().reason(), AllocError::Limit);
    // What the one has does not count for the other.
    let others = take(&primary, 10);
    let (of_primary, of_second) = (primary.stats(), second.stats());
    assert_eq!((of_primary.used(), of_second.used(), of_second.fails), (10, 3, 1));
    assert_eq!((of_second.size, of_second.align, of_second.limit), (200, 32, 3));
    // The slabs are told once.
    assert!(of_primary.bytes != 0 && of_second.bytes == 0 && of_second.keg_free == 0);
    let mut seen = Vec::new();
    toy.registry.visit(&mut |zone| {
        seen.push((zone.name().to_string(), zone.primary().map(|name| name.to_string())));
    });
    let want = [("primary".into(), None), ("second".into(), Some("primary".into()))];
    assert_eq!(seen, want);
    let bad = primary.secondary("bad").flags(ZoneFlags::ZINIT).build().unwrap_err();
    assert!(bad.to_string().contains("a flag about slabs"), "{bad}");
    give(&second, items);
    give(&primary, others);
    drop(second);
    drop(primary);
    toy.assert_clean();
}

#[test]
fn the_primary_may_go_first() {
    let toy = Toy::new();
    let hooks = counting();
    let primary = RawZone::builder_in("first", layout(64, 8), On(&toy));
    // SAFETY: the hooks touch nothing.
    let primary = unsafe { primary.hooks(hooks) }.build().unwrap();
    let second = primary.secondary("second").build().unwrap();
    let third = primary.secondary("third").build().unwrap();
    let mine = take(&primary, 5);
    let items = take(&second, 5);
    for &item in &items {
        bytes(item, 64).fill(3);
    }
    give(&primary, mine);
    // Those of the others are not its own.
    primary.try_destroy().unwrap();
    assert_eq!(toy.names(), ["second", "third"]);
    assert!(items.iter().all(|&item| bytes(item, 64) == [3; 64]));
    let more = take(&third, 200);
    give(&second, items);
    drop(second);
    // A fork still locks the slabs, and once.
    toy.registry.prefork();
    assert!(machine::locks_held() > 3);
    // SAFETY: `prefork` was called just now.
    unsafe { toy.registry.postfork(Process::Original) };
    assert_eq!(machine::locks_held(), 0);
    give(&third, more);
    third.reclaim(Reclaim::DrainCpu);
    assert_eq!(toy.bytes(), 0, "the last one drains the slabs");
    drop(third);
    hooks.assert_balanced();
    toy.assert_clean();
}

#[test]
fn a_primary_with_items_in_use_reports_its_own_only() {
    let toy = Toy::new();
    let primary = RawZone::builder_in("first", layout(64, 8), On(&toy)).build().unwrap();
    let second = primary.secondary("second").build().unwrap();
    let (lost, items) = (take(&primary, 2), take(&second, 7));
    let busy = primary.try_destroy().unwrap_err();
    assert_eq!((busy.in_use.items(), busy.in_use.addresses().len()), (2, 0));
    drop(busy);
    let report = toy.reports.lock().unwrap().pop().unwrap();
    assert!(report.contains("\"first\" was destroyed with 2 items in use"), "{report}");
    bytes(lost[0], 64).fill(1);
    give(&second, items);
    let more = take(&second, 100);
    give(&second, more);
    toy.registry.prefork();
    // SAFETY: `prefork` was called just now.
    unsafe { toy.registry.postfork(Process::Copy) };
    drop(second);
    assert_eq!(toy.names(), [""; 0]);
    std::mem::forget(toy);
}

/// Two zones, one keg: its lock is taken once, which a lock that panics when it is taken twice proves.
#[test]
fn a_fork_locks_shared_slabs_once() {
    let toy = Toy::new();
    let primary = RawZone::builder_in("primary", layout(64, 8), On(&toy)).build().unwrap();
    let locks = |toy: &Toy| {
        toy.registry.prefork();
        let held = machine::locks_held();
        // SAFETY: `prefork` was called just now.
        unsafe { toy.registry.postfork(Process::Original) };
        toy.registry.settle();
        assert_eq!(machine::locks_held(), 0);
        held
    };
    let alone = locks(&toy);
    let second = primary.secondary("second").build().unwrap();
    let both = locks(&toy);
    // The two locks of a cache and one of a limit more, and no second keg.
    assert_eq!(both, alone + 3);
    let items = take(&second, 10);
    give(&second, items);
    drop(second);
    drop(primary);
    toy.assert_clean();
}

/// The primary's caches are asked before an allocation fails for want of pages.
#[test]
fn what_the_primary_caches_can_be_had() {
    let toy = Toy::new();
    let primary = RawZone::builder_in("primary", layout(512, 8), On(&toy)).build().unwrap();
    let second = primary.secondary("second").build().unwrap();
    let one = take(&second, 1);
    give(&second, one);
    toy.pages.0.set_max(toy.bytes());
    let mut all = Vec::new();
    while let Ok(item) = primary.alloc(Request::NOWAIT) {
        all.push(item);
    }
    let count = all.len();
    give(&primary, all);
    assert!(primary.stats().cached > 0);
    let all = take(&second, count);
    give(&second, all);
    drop((primary, second));
    toy.assert_clean();
}

/// mbuf_packet of FreeBSD: its zinit takes a cluster of another zone for every packet, its zfini gives it
/// back; if there is none, the packet goes back too.
#[test]
fn packets_with_clusters() {
    type Raw = RawZone<On<'static>>;
    thread_local! {
        static CLUSTERS: Cell<Option<&'static Raw>> = const { Cell::new(None) };
    }
    fn clusters() -> &'static Raw {
        CLUSTERS.get().expect("the test sets it")
    }

    let on = Toy::leaked();
    let raw: &'static Raw = Box::leak(Box::new(
        RawZone::builder_in("cluster", layout(2048, 2048), on).max_items(10).build().unwrap(),
    ));
    CLUSTERS.set(Some(raw));
    let hooks = FnHooks {
        init: Some(|_, packet, request| {
            machine::outside_locks("zinit runs");
            let cluster = clusters().alloc(request.without_waiting()).map_err(|_| Refused)?;
            // SAFETY: the packet is the hook's, and large enough.
            unsafe { packet.cast::<NonNull<u8>>().write(cluster.as_non_null()) };
            Ok(())
        }),
        fini: Some(|_, packet| {
            machine::outside_locks("zfini runs");
            // SAFETY: init wrote it.
            unsafe { clusters().free(packet.cast::<NonNull<u8>>().read().into()) };
        }),
        ..FnHooks::NONE
    };
    let mbufs = RawZone::builder_in("mbuf", layout(256, 64), on).build().unwrap();
    // SAFETY: the hooks touch the first word of an item, which nobody else writes here.
    let packets = unsafe { mbufs.secondary("packet").bucket(4).hooks(hooks) }.build().unwrap();
    let all = take(&packets, 10);
    assert_eq!(packets.alloc(Request::WAIT).unwrap_err().reason(), AllocError::Refused);
    assert_eq!((clusters().stats().used(), packets.stats().fails), (10, 1));
    let plain = take(&mbufs, 100);
    give(&packets, all);
    // Cached packets keep their clusters, and a drain gives them up.
    assert!(clusters().stats().used() > 0);
    packets.reclaim(Reclaim::DrainCpu);
    assert_eq!(clusters().stats().used(), 0);
    give(&mbufs, plain);
    drop((packets, mbufs));
    clusters().reclaim(Reclaim::DrainCpu);
    assert_eq!((on.0.bytes(), machine::complaints()), (0, vec![]));
}

#[test]
fn statics_need_no_order() {
    static MBUFS: RawZone = RawZone::builder("static mbuf", std::alloc::Layout::new::<[u64; 32]>())
        .flags(ZoneFlags::NOFREE)
        .lazy();
    static PACKETS: SecondaryZone =
        RawZone::secondary_of(&MBUFS, "static packet", uma::Host).max_items(50).lazy();
    assert_eq!(PACKETS.stats().size, 256);
    assert!(PACKETS.flags().contains(ZoneFlags::NOFREE | ZoneFlags::SECONDARY));
    let packet = PACKETS.alloc(Request::NOWAIT).unwrap();
    let told = uma::zones();
    let find = |name: &str| told.iter().find(|zone| zone.name.as_str() == name).copied().unwrap();
    assert_eq!(find("static packet").primary.unwrap().as_str(), "static mbuf");
    assert_eq!(find("static mbuf").flags, ZoneFlags::NOFREE);
    // SAFETY: the item came from there.
    unsafe { PACKETS.free(packet) };
    // Counts are exact when nobody is at work on a zone; another test of this program reclaims all that there are.
    let counts = || (PACKETS.stats().used(), MBUFS.stats().used());
    let begin = Instant::now();
    while counts() != (0, 0) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?} are in use", counts());
        std::thread::yield_now();
    }
}

#[test]
fn a_primary_that_cannot_be_made_says_why() {
    let toy = Toy::new();
    let primary = RawZone::builder_in("nothing", layout(1, 1), On(&toy)).size_align(0, 1).lazy();
    let error = primary.secondary("second").build().unwrap_err();
    assert_eq!(error.fault, uma::core::ConfigFault::ZeroSize);
    assert_eq!(error.zone.as_str(), "second");
    drop(primary);
    toy.assert_clean();
}
