//! Every method of the typed faces does what the zone below does, and platforms that stand before another
//! pass everything on.

use std::alloc::Layout;
use std::borrow::{Borrow, BorrowMut};
use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RawMutex;
use uma::core::{
    AllocError, FnHooks, Item, ItemSource, Name, NoSleep, PageSupplier, Process, Reclaim, Refused,
    Request, Stats,
};
use uma::debug::{FRAMES, Report, Verdict};
use uma::mmap::MmapPages;
use uma::{
    AtLimit, Hardening, Host, HostAccess, ObjectCache, Park, Platform, RawZone, Registry,
    WithPages, Zone, ZoneBox,
};
use uma_testkit::{Fake, HeapMeta};

const SOON: Duration = Duration::from_millis(5);

fn two() -> Option<NonZeroU64> {
    NonZeroU64::new(2)
}

#[test]
fn zones_of_values() {
    let zone = Zone::<u64>::builder("faces")
        .max_items(8)
        .max_cached(100)
        .bucket(4)
        .warning("too many faces")
        .warning_interval(Duration::from_secs(1000))
        .hardening(Hardening::RELEASE)
        .on_misuse(|_| Verdict::Ignore)
        .maxaction(&|_: AtLimit| ())
        .build()
        .unwrap();
    assert_eq!((zone.name().as_str(), zone.max_items()), ("faces", NonZeroU64::new(8)));
    zone.set_max_items(two()).unwrap();
    zone.set_max_cached(Some(50)).unwrap();
    assert_eq!((zone.max_items(), zone.as_raw().max_cached()), (two(), Some(50)));
    let (one, two) =
        (zone.alloc(1).unwrap(), zone.alloc_until(2, Park::deadline_in(SOON)).unwrap());
    let late = zone.alloc_until(3, Park::deadline_in(SOON)).unwrap_err();
    assert_eq!((late.value, late.error.reason()), (3, AllocError::TimedOut));
    let late = zone.alloc_for(3, SOON).unwrap_err();
    assert_eq!((late.value, late.error.reason()), (3, AllocError::TimedOut));
    let error = zone.wait_for_room(Park::deadline_in(SOON)).unwrap_err();
    assert_eq!(error.reason(), AllocError::TimedOut);
    assert_eq!((zone.cur_items(), zone.exhausted()), (2, false));
    drop(one);
    zone.wait_for_room(Park::deadline_in(SOON)).unwrap();
    drop(zone.alloc_for(1, SOON).unwrap());
    // If the value does not come about, its place is free again.
    let unborn = uma_testkit::caught(|| zone.alloc_with(|| panic!("as planned")).map(drop));
    assert!(unborn.is_err_and(|panic| panic.is_planned()));
    let made = zone.alloc_with(|| 7).unwrap();
    assert_eq!((*made + *two, zone.stats().used()), (9, 2));
    drop((made, two));
    assert_eq!(zone.cur_items(), 0);
}

#[test]
fn boxes_are_their_values() {
    let zone = Zone::<String>::builder("boxes").build().unwrap();
    let mut hello = zone.alloc("hello".to_owned()).unwrap();
    hello.push('!');
    hello.as_mut().push('!');
    BorrowMut::<String>::borrow_mut(&mut hello).push('?');
    assert_eq!(AsRef::<String>::as_ref(&hello), "hello!!?");
    assert_eq!(Borrow::<String>::borrow(&hello), "hello!!?");
    assert_eq!(
        (hello.to_string(), format!("{hello:?}")),
        ("hello!!?".into(), "\"hello!!?\"".into())
    );
    let same = zone.alloc("hello!!?".to_owned()).unwrap();
    assert!(hello == same && std::ptr::eq(ZoneBox::zone(&same), &raw const zone));
    let pinned = ZoneBox::into_pin(same);
    assert_eq!(pinned.len(), 8);
    drop(pinned);
    let raw = ZoneBox::into_raw(hello);
    // SAFETY: it came from `into_raw` of a box of this zone just now.
    let hello = unsafe { zone.box_from_raw(raw) };
    assert_eq!(ZoneBox::into_inner(hello), "hello!!?");
    assert_eq!(zone.cur_items(), 0);
    // A leaked value lives as long as the zone, and is reported by it.
    let kept = ZoneBox::leak(zone.alloc(String::new()).unwrap());
    kept.push('x');
    assert_eq!((kept.as_str(), zone.cur_items()), ("x", 1));
    // SAFETY: the reference is not used any more, so the value has one owner again.
    drop(unsafe { zone.box_from_raw(kept.into()) });
}

#[test]
fn values_without_a_size_have_places() {
    let zone = Zone::<()>::builder("nothing").build().unwrap();
    let places: HashSet<_> = (0..100).map(|_| ZoneBox::into_raw(zone.alloc(()).unwrap())).collect();
    assert_eq!(places.len(), 100);
    for place in places {
        // SAFETY: it came from `into_raw` of this zone, and once.
        drop(unsafe { zone.box_from_raw(place) });
    }
}

#[test]
fn caches_of_objects() {
    static REFUSES: AtomicBool = AtomicBool::new(true);
    let cache = ObjectCache::<Vec<u8>>::builder("faces of objects")
        .try_init(|| if REFUSES.load(Ordering::Relaxed) { Err(Refused) } else { Ok(Vec::new()) })
        .try_ctor(|object| if object.len() > 2 { Err(Refused) } else { Ok(()) })
        .dtor(|object| object.truncate(3))
        .max_items(2)
        .max_cached(1000)
        .warning("too many")
        .warning_interval(Duration::from_secs(1000))
        .maxaction(&|_| ())
        .bucket(1)
        .hardening(Hardening::RELEASE)
        .on_misuse(|_| Verdict::Ignore)
        .build()
        .unwrap();
    assert_eq!((cache.name().as_str(), cache.max_items()), ("faces of objects", two()));
    assert_eq!(cache.get().unwrap_err().reason(), AllocError::Refused, "its init refused");
    REFUSES.store(false, Ordering::Relaxed);
    let mut one = cache.get_until(Park::deadline_in(SOON)).unwrap();
    one.extend([1, 2, 3, 4]);
    let raw = uma::Cached::into_raw(one);
    // SAFETY: it came from `into_raw` of an object of this cache just now.
    let one = unsafe { uma::Cached::from_raw(&cache, raw) };
    assert_eq!((one.len(), format!("{one:?}")), (4, "[1, 2, 3, 4]".to_owned()));
    let other = cache.try_get().unwrap();
    let late = cache.get_until(Park::deadline_in(SOON)).unwrap_err();
    assert_eq!(late.reason(), AllocError::TimedOut);
    assert_eq!(cache.get_for(SOON).unwrap_err().reason(), AllocError::TimedOut);
    let late = cache.wait_for_room(Park::deadline_in(SOON)).unwrap_err();
    assert_eq!(late.reason(), AllocError::TimedOut);
    assert!(!cache.exhausted() && cache.cur_items() == 2);
    drop(other);
    cache.wait_for_room(Park::deadline_in(SOON)).unwrap();
    // What comes back too long is refused by its ctor, and gone.
    drop(one);
    let refused = (0..3).filter(|_| cache.try_get().is_err()).count();
    assert_eq!(refused, 1);
    cache.set_max_items(None).unwrap();
    cache.set_max_cached(None).unwrap();
    cache.reclaim(Reclaim::DrainCpu);
    assert_eq!((cache.max_items(), cache.stats().slabs), (None, 0));
    // Hooks are handles: a copy makes the same objects.
    let plain = ObjectCache::<u8>::builder("plain").init(|| 9).ctor(|object| *object += 1);
    let plain = plain.build().unwrap();
    assert_eq!(*plain.get().unwrap(), 10);
}

#[test]
fn the_short_ways() {
    let zone = RawZone::builder("short", Layout::new::<u64>()).build().unwrap();
    // Nothing is cached yet, so the short way has nothing and takes nothing.
    assert!(zone.alloc_cached().is_null());
    let items: Vec<*mut u8> = (0..3).map(|_| zone.alloc_or_null(Request::NOWAIT)).collect();
    for &item in &items {
        let item = Item::new(std::ptr::NonNull::new(item).unwrap());
        // SAFETY: the item came from this zone; what is not taken is freed.
        unsafe {
            if !zone.free_cached(item) {
                zone.free(item);
            }
        }
    }
    let again = zone.alloc_cached();
    assert!(again.is_null() || items.contains(&again));
    if let Some(item) = std::ptr::NonNull::new(again) {
        // SAFETY: the item came from this zone and is used no more.
        unsafe { zone.free(Item::new(item)) };
    }
    // Zones with a ctor have no short way.
    // SAFETY: hooks that do nothing suit every item.
    let zone = unsafe {
        RawZone::builder("long", Layout::new::<u64>()).hooks(FnHooks::NONE).build().unwrap()
    };
    let item = zone.alloc(Request::NOWAIT).unwrap();
    // SAFETY: the item came from this zone and is used no more.
    unsafe {
        assert!(zone.alloc_cached().is_null() && !zone.free_cached(item));
        zone.free(item);
    }
    assert_eq!(zone.cur_items(), 0);
}

/// A zone is a source, over which others stand: its powers are passed on, but for forks, which find it in
/// the registry.
#[test]
fn zones_as_sources() {
    static BELOW: RawZone = RawZone::builder("below", Layout::new::<[u64; 4]>()).lazy();
    let source: &RawZone = &BELOW;
    // Before its first use there is nothing to do.
    source.prefork();
    // SAFETY: `prefork` was called.
    unsafe { source.postfork(Process::Original) };
    source.settle();
    assert!(!source.wanted());
    let mut stats = Stats::default();
    source.visit_stats(&mut stats);
    let item = ItemSource::alloc(&source, Request::NOWAIT).unwrap();
    source.prefork();
    // SAFETY: as above.
    unsafe { source.postfork(Process::Original) };
    source.settle();
    // SAFETY: the item came from there, and goes back once.
    unsafe { ItemSource::discard(&source, item) };
    let item = source.alloc_or_flush(Request::NOWAIT, &mut || ()).unwrap();
    // SAFETY: as above.
    unsafe { ItemSource::free(&source, item) };
    ItemSource::reclaim(&source, Reclaim::DrainCpu);
    source.visit_stats(&mut stats);
    assert_eq!((stats.size, BELOW.cur_items(), BELOW.stats().slabs), (32, 0, 0));

    let over = RawZone::over("over", source).bucket(0).max_items(1).build().unwrap();
    let item = ItemSource::alloc(&over, Request::NOWAIT).unwrap();
    assert_eq!((over.cur_items(), BELOW.cur_items()), (1, 1));
    // SAFETY: the item came from this zone, and goes back once.
    unsafe { ItemSource::discard(&over, item) };
    assert_eq!((over.cur_items(), BELOW.cur_items()), (0, 0));
    let item = over.alloc(Request::NOWAIT).unwrap();
    // SAFETY: as above.
    unsafe { ItemSource::free(&over, item) };
    assert_eq!((over.cur_items(), BELOW.cur_items()), (0, 0));
    drop(over);
    BELOW.reclaim(Reclaim::DrainCpu);

    // The same for a zone on the slabs of another, whose item its ctor refuses.
    unsafe fn refuse(_: *mut (), _: Item, _: *mut (), _: Request) -> Result<(), Refused> {
        Err(Refused)
    }
    let hooks = FnHooks { ctor: Some(refuse), ..FnHooks::NONE };
    // SAFETY: the hooks touch no item.
    let second = unsafe { BELOW.secondary("second").bucket(0).hooks(hooks).build().unwrap() };
    assert_eq!(second.alloc(Request::NOWAIT).unwrap_err().reason(), AllocError::Refused);
    assert_eq!(second.cur_items(), 0);
    drop(second);
    BELOW.reclaim(Reclaim::DrainCpu);
    assert_eq!(BELOW.stats().slabs, 0, "the refused item went all the way");
}

/// A zone that warns of its limit does so also for a zone that stands on it, and zeroes as it is asked.
#[test]
fn a_source_that_warns() {
    static BELOW: RawZone = RawZone::builder("scarce", Layout::new::<[u64; 4]>())
        .max_items(1)
        .warning("scarce")
        .warning_interval(Duration::from_secs(1000))
        .bucket(0)
        .lazy();
    let over = RawZone::over("plenty", &BELOW).bucket(0).build().unwrap();
    for _ in 0..2 {
        let item = over.alloc(Request::NOWAIT.zeroed()).unwrap();
        // SAFETY: the item is ours, and zeroed.
        assert_eq!(unsafe { item.cast::<[u64; 4]>().read() }, [0; 4]);
        assert_eq!(over.alloc(Request::NOWAIT).unwrap_err().reason(), AllocError::Limit);
        // SAFETY: as above; it goes back once.
        unsafe {
            item.cast::<[u64; 4]>().write([7; 4]);
            over.free(item);
        }
    }
    // Items between guard pages are zeroed, too.
    let sampled = RawZone::builder("sampled", Layout::new::<[u64; 4]>());
    let sampled = sampled.hardening(Hardening::sampled(1)).build().unwrap();
    for _ in 0..100 {
        let item = sampled.alloc(Request::NOWAIT.zeroed()).unwrap();
        // SAFETY: as above.
        unsafe {
            assert_eq!(item.cast::<[u64; 4]>().read(), [0; 4]);
            item.cast::<[u64; 4]>().write([7; 4]);
            sampled.free(item);
        }
    }
}

#[test]
fn errors_say_where_they_come_from() {
    let zone = Zone::<u64>::builder("told").max_items(1).build().unwrap();
    let _one = zone.alloc(1).unwrap();
    let rejected = zone.try_alloc(2).unwrap_err();
    assert_eq!(rejected.to_string(), rejected.error.to_string());
    let error = rejected.source().unwrap().downcast_ref::<uma::ZoneError>().unwrap();
    assert_eq!((error.zone().as_str(), error.item()), ("told", Layout::new::<u64>()));
    let reason = error.source().unwrap().downcast_ref::<AllocError>().unwrap();
    assert_eq!(*reason, AllocError::Limit);
    assert_eq!(uma::ZoneError::from(rejected).reason(), AllocError::Limit);
    let busy = zone.as_raw().wait_unused(Park::deadline_in(SOON)).unwrap_err();
    assert_eq!((busy.zone().as_str(), busy.items(), busy.addresses().len()), ("told", 1, 1));
    assert!(busy.to_string().contains("1 items of zone \"told\""), "{busy}");
}

/// A platform that notes what it is asked.
struct Asked {
    pages: Fake,
    metadata: HeapMeta,
    registry: Registry<RawMutex>,
    calls: AtomicUsize,
}

impl Asked {
    fn new() -> Self {
        Self {
            pages: Fake::new(),
            metadata: HeapMeta::new(),
            registry: Registry::new(),
            calls: AtomicUsize::new(0),
        }
    }

    fn note(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy)]
struct Asking<'a>(&'a Asked);

// SAFETY: every method leads to the same place.
unsafe impl<'a> Platform for Asking<'a> {
    type Pages = &'a Fake;
    type Cpus = HostAccess;
    type Lock = RawMutex;
    type Sleep = NoSleep;
    type Metadata = &'a HeapMeta;

    fn pages(&self) -> &'a Fake {
        &self.0.pages
    }
    fn cpus(&self) -> HostAccess {
        Host.cpus()
    }
    fn sleep(&self) -> NoSleep {
        NoSleep
    }
    fn metadata(&self) -> &'a HeapMeta {
        &self.0.metadata
    }
    fn registry(&self) -> &Registry<RawMutex> {
        &self.0.registry
    }
    fn largest_slab(&self) -> usize {
        8192
    }
    fn relax(&self) {
        self.0.note();
    }
    fn hardening(&self, _: &Name) -> Hardening {
        Hardening::DEBUG
    }
    fn misuse(&self, report: &Report<'_>) -> Verdict {
        self.0.note();
        assert!(report.to_string().contains("frame of somebody"), "{report}");
        Verdict::Ignore
    }
    fn thread(&self) -> u64 {
        42
    }
    fn trace(&self, frames: &mut [usize; FRAMES]) -> usize {
        frames[0] = 7;
        1
    }
    fn show_frame(&self, frame: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "frame of somebody: {frame}")
    }
    fn report(&self, message: fmt::Arguments<'_>) {
        assert!(message.to_string().contains("hello"));
        self.0.note();
    }
}

/// Asks a platform everything, and has a zone on it report a double free.
fn ask<P: Platform>(platform: P, asked: &Asked, largest_slab: usize) {
    platform.relax();
    platform.report(format_args!("hello"));
    assert_eq!((platform.thread(), platform.largest_slab()), (42, largest_slab));
    assert_eq!(platform.trace(&mut [0; FRAMES]), 1);
    let before = asked.calls.load(Ordering::Relaxed);
    assert_eq!(before, 2);
    let zone = RawZone::builder_in("asked", Layout::new::<[u64; 3]>(), platform).build().unwrap();
    let item = zone.alloc(Request::NOWAIT).unwrap();
    // SAFETY: the item came from this zone; the second free is the misuse under test, which does nothing.
    unsafe {
        zone.free(item);
        zone.free(item);
    }
    assert_eq!(asked.calls.load(Ordering::Relaxed), before + 1, "it was told of the double free");
    assert_eq!(zone.cur_items(), 0);
    drop(zone);
    asked.calls.store(0, Ordering::Relaxed);
    assert_eq!(asked.metadata.outstanding().runs, 0);
    assert_eq!(asked.pages.outstanding().runs, 0);
}

#[test]
fn platforms_that_pass_everything_on() {
    static OTHER: MmapPages = MmapPages::new();
    let asked = Asked::new();
    ask(Asking(&asked), &asked, 8192);
    let asking = Asking(&asked);
    ask::<&Asking<'_>>(&asking, &asked, 8192);
    ask(WithPages::new(Asking(&asked), &OTHER), &asked, 8192);
    ask(WithPages::new(Asking(&asked), &OTHER).largest_slab(OTHER.page_size()), &asked, 4096);
    assert_eq!(OTHER.stats().in_use, 0);
}

#[test]
fn set_aside() {
    let zone = Zone::<u64>::builder("aside").max_items(3).build().unwrap();
    let mut room = zone.prefill(3).unwrap();
    assert!(zone.prefill(1).is_err());
    let one = room.place(1).unwrap();
    assert_eq!((*one, room.left(), zone.cur_items()), (1, 2, 3));
    drop(room);
    drop(one);
    let mut none = zone.prefill(0).unwrap();
    assert_eq!(none.place(5).map(drop), Err(5));
    assert_eq!(zone.cur_items(), 0);
}
