//! What zones report, in every form, says what the program did itself.

use std::alloc::Layout;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uma::core::{Item, Request};
use uma::stream::{SECONDARY, SIZES, Stream, StreamError};
use uma::{Host, Platform, RawZone, Reclaim};
use uma_testkit::caught;

/// Whoever looks at all zones takes buckets out for a moment, so tests that count what lies in them go one by
/// one.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Held {
    zone: RawZone,
    items: Vec<Item>,
}

impl Held {
    /// A zone of which `used` items are in use, after `freed` others were freed.
    fn new(name: &str, size: usize, used: usize, freed: usize) -> Self {
        let layout = Layout::from_size_align(size, 8).unwrap();
        let zone = RawZone::builder(name, layout).max_items(100_000).build().unwrap();
        let mut items: Vec<_> =
            (0..used + freed).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect();
        for item in items.drain(used..) {
            // SAFETY: it came from this zone and is used no more.
            unsafe { zone.free(item) };
        }
        Self { zone, items }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for item in self.items.drain(..) {
            // SAFETY: it came from this zone and is used no more.
            unsafe { self.zone.free(item) };
        }
    }
}

#[test]
fn the_stream_says_what_the_program_did() {
    let _alone = alone();
    let one = Held::new("stream one", 100, 321, 123);
    let _two = Held::new("stream two", 4096, 7, 0);
    let bytes = uma::stat_stream();
    let stream = Stream::new(&bytes).unwrap();
    assert_eq!(bytes.len(), SIZES.0 + stream.zones().len() * (SIZES.1 + stream.cpus() * SIZES.2));
    assert_eq!(stream.cpus(), Host.registry_cpus());

    let record = stream.zones().find(|zone| zone.name() == b"stream one").unwrap();
    let [align, size, rsize, maxpages, limit, pages, _, _, bucket, flags] = record.words();
    assert_eq!((align, size, limit, flags & SECONDARY), (7, 100, 100_000, 0));
    assert_eq!(rsize, 104, "the next multiple of the alignment");
    let stats = one.zone.stats();
    assert_eq!(u64::from(pages) * 4096, stats.bytes);
    assert_eq!(bucket, stats.bucket_size);
    assert!(u64::from(maxpages) * 4096 >= 100_000 * 104, "pages for as many as the limit allows");
    assert_eq!(record.counts(), [444, 123, 0, 0, 0, 0]);
    assert_eq!(record.used(), 321);
    assert_eq!(record.free(), stats.free());
    let on_cpus: u64 = record.cpus().map(|[.., cached]| cached).sum();
    assert!(on_cpus > 0, "a CPU that freed items has some in its buckets");
    assert!(on_cpus <= stats.cached);
}

#[test]
fn a_buffer_that_is_too_small_is_refused_with_the_size() {
    let _alone = alone();
    let _zone = Held::new("short", 64, 1, 0);
    let registry = Host.registry();
    let Err(StreamError::Short { needed }) = registry.stream(&mut []) else {
        panic!("a stream in no bytes");
    };
    assert!(needed >= SIZES.0 + SIZES.1);
    let mut almost = vec![0; SIZES.0];
    assert!(matches!(registry.stream(&mut almost), Err(StreamError::Short { .. })));
    // Tests run side by side and make zones, so there is room to spare.
    let length = registry.stream(&mut vec![0; needed * 4]).unwrap();
    assert!(length >= SIZES.0 + SIZES.1);
}

#[test]
fn a_stream_that_is_cut_or_of_another_version_is_refused() {
    let _alone = alone();
    let _zone = Held::new("cut", 64, 1, 0);
    let bytes = uma::stat_stream();
    for length in [0, 3, 15, 16, bytes.len() - 1] {
        assert_eq!(Stream::new(&bytes[..length]).unwrap_err(), StreamError::Truncated, "{length}");
    }
    let mut other = bytes.clone();
    other[..4].copy_from_slice(&2u32.to_ne_bytes());
    assert_eq!(Stream::new(&other).unwrap_err(), StreamError::Version(2));
    let mut huge = bytes;
    huge[4..12].fill(0xff);
    assert_eq!(Stream::new(&huge).unwrap_err(), StreamError::Truncated);
}

#[test]
fn items_on_cpus_add_up() {
    let _alone = alone();
    let cpu = stay_on_last_cpu();
    let held = Held::new("cpus", 64, 10, 500);
    let (mut sum, mut cpus) = (0, Vec::new());
    visit(&held.zone, &mut |at, items| {
        assert_eq!(items != 0, at == cpu, "only the CPU that freed them holds items");
        cpus.push(at);
        sum += items;
    });
    assert_eq!(cpus, (0..Host.registry_cpus()).collect::<Vec<_>>(), "every CPU once, in order");
    held.zone.reclaim(Reclaim::Drain);
    assert_eq!(held.zone.stats().cached, sum, "the depot is empty, the rest is on CPUs");
}

/// What users did is counted exactly while others count too, and while caches are drained.
#[test]
fn counts_are_exact_beside_others_that_count() {
    let _alone = alone();
    let held = Held::new("counted by many", 64, 100, 900);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let count = || {
            for _ in 0..2_000 {
                let stats = held.zone.stats();
                assert_eq!((stats.allocs, stats.used()), (1_000, 100));
            }
        };
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                held.zone.reclaim(Reclaim::Trim);
                std::thread::yield_now();
            }
        });
        let all = [scope.spawn(count), scope.spawn(count)];
        let all = all.map(|thread| thread.join());
        done.store(true, Ordering::Relaxed);
        assert!(all.iter().all(Result::is_ok));
    });
}

#[test]
fn a_visitor_that_panics_loses_no_items() {
    let _alone = alone();
    let held = Held::new("visited", 64, 10, 500);
    let before = held.zone.stats();
    let panicked =
        catch_unwind(AssertUnwindSafe(|| visit(&held.zone, &mut |_, _| panic!("no more"))));
    assert!(panicked.is_err());
    assert_eq!(held.zone.stats(), before);
}

fn visit(zone: &RawZone, each: &mut dyn FnMut(usize, u64)) {
    Host.registry().visit(&mut |other| {
        if other.name() == *zone.name() {
            other.visit_cpus(each);
        }
    });
}

#[test]
fn json_says_the_same_and_parses() {
    let _alone = alone();
    let name = "a \"q\\uote\"\n\u{1}é";
    let held = Held::new(name, 48, 17, 5);
    for text in [uma::stat().json().to_string(), Host.registry().json().to_string()] {
        let zones: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let zone = zones.iter().find(|zone| zone["name"] == name).unwrap();
        let stats = held.zone.stats();
        for (key, value) in [
            ("size", 48),
            ("align", 8),
            ("limit", 100_000),
            ("used", 17),
            ("allocs", 22),
            ("frees", 5),
            ("free", stats.free()),
            ("keg_free", stats.keg_free),
            ("bytes", stats.bytes),
            ("efficiency", u64::from(stats.efficiency())),
        ] {
            assert_eq!(zone[key], value, "{key}");
        }
        assert_eq!(zone["mode"], stats.mode);
        assert_eq!((&zone["flags"], zone.get("primary")), (&"".into(), None));
    }
    let kept = RawZone::builder("kept", Layout::new::<u64>());
    let kept = kept.flags(uma::ZoneFlags::ZINIT | uma::ZoneFlags::NOFREE).build().unwrap();
    let second = kept.secondary("kept second").build().unwrap();
    let zones: Vec<serde_json::Value> =
        serde_json::from_str(&uma::stat().json().to_string()).unwrap();
    let zone = |name| zones.iter().find(|zone| zone["name"] == name).unwrap();
    assert_eq!(zone("kept")["flags"], "ZINIT | NOFREE");
    assert_eq!(zone("kept second")["flags"], "ZINIT | NOFREE | SECONDARY");
    assert_eq!(zone("kept second")["primary"], "kept");
    drop((second, kept));
    let none: Vec<serde_json::Value> =
        serde_json::from_str(&uma::Json::new(&[] as &[uma::ZoneInfo]).to_string()).unwrap();
    assert!(none.is_empty());
}

#[test]
fn prometheus_tells_zones_of_one_name_apart() {
    let _alone = alone();
    let name = "twin \"\\\n";
    let _first = Held::new(name, 64, 3, 0);
    let _second = Held::new(name, 64, 4, 0);
    let text = uma::stat().prometheus().to_string();
    assert!(text.contains("uma_zone_used{zone=\"twin \\\"\\\\\\n\"} 3\n"), "{text}");
    assert!(text.contains("uma_zone_used{zone=\"twin \\\"\\\\\\n\",nth=\"2\"} 4\n"), "{text}");

    // Every sample once, every family in one piece and with its type before it.
    let mut families = HashMap::new();
    let (mut family, mut samples) = (String::new(), HashMap::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge"].contains(&kind));
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            family = name.to_owned();
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            value.parse::<u64>().unwrap();
            assert_eq!(sample.split_once('{').unwrap().0, family, "a sample outside its family");
            assert!(samples.insert(sample.to_owned(), ()).is_none(), "{sample} twice");
        }
    }
    assert!(families.len() > 10);
}

#[test]
fn sleepers_are_counted_while_they_sleep() {
    let _alone = alone();
    let layout = Layout::new::<[u64; 8]>();
    let zone = RawZone::builder("asleep", layout).max_items(1).build().unwrap();
    let item = zone.alloc(Request::NOWAIT).unwrap();
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| zone.alloc(Request::WAIT).unwrap());
        let begin = Instant::now();
        // Both: it joins the queue before it sleeps, and may be served in between.
        let asleep = || (zone.stats().sleepers, zone.stats().sleeps) == (1, 1);
        while !asleep() && begin.elapsed() < Duration::from_secs(100) {
            std::thread::yield_now();
        }
        assert_eq!(zone.stats().sleepers, 1);
        // SAFETY: the item came from this zone and is used no more.
        unsafe { zone.free(item) };
        let item = sleeper.join().unwrap();
        // SAFETY: as above.
        unsafe { zone.free(item) };
    });
    assert_eq!((zone.stats().sleepers, zone.stats().sleeps), (0, 1));
}

/// Keeps the thread on the last CPU that it may run on, and returns its number.
fn stay_on_last_cpu() -> usize {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None).unwrap();
    let last = (0..CpuSet::MAX_CPU).rev().find(|&cpu| allowed.is_set(cpu)).unwrap();
    let mut only = CpuSet::new();
    only.set(last);
    sched_setaffinity(None, &only).unwrap();
    last
}

/// How many CPUs zones have slots for.
trait Cpus {
    fn registry_cpus(&self) -> usize;
}

impl Cpus for Host {
    fn registry_cpus(&self) -> usize {
        use uma::cache::PerCpu;
        self.cpus().cpus()
    }
}

/// An item that is freed twice is counted twice where frees are, as `Stats` says; but no figure
/// falls below zero, what the slabs say stays right, and so does whether something is in use in the end.
#[test]
fn a_double_free_wraps_nothing() {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if uma::debug::has_sanitizer() {
        eprintln!(
            "NOT RUN: under the sanitizer the checks find the second free first, and end the process"
        );
        return;
    }
    let _alone = alone();
    let layout = Layout::from_size_align(100, 8).unwrap();
    let zone = RawZone::builder("freed twice", layout).bucket(0).max_items(10).build().unwrap();
    let items: Vec<_> = (0..3).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect();
    // SAFETY: the items came from there; those freed once more are the misuse under test, which the slab
    // refuses.
    let free = |item| caught(|| unsafe { zone.free(item) });
    for _ in 0..2 {
        let _ = free(items[0]).inspect_err(|panic| {
            assert!(panic.message.contains("double free"), "{panic}");
            TOLD.store(true, Ordering::Relaxed);
        });
    }
    assert!(TOLD.load(Ordering::Relaxed), "the slab did not find it");
    let stats = zone.stats();
    assert_eq!((stats.allocs, stats.frees, stats.used()), (3, 2, 1), "it counts as a free");
    let slab = u64::from(stats.per_slab) * stats.slabs;
    assert_eq!(slab - stats.keg_free, 2, "items that are out of their slabs");
    items[1..].iter().for_each(|&item| free(item).unwrap());
    assert!(free(items[2]).is_err());
    let stats = zone.stats();
    assert_eq!((stats.used(), stats.cached, stats.keg_free), (0, 0, slab));
    // As many as there may be can be had.
    let all: Vec<_> = (0..11).map_while(|_| zone.alloc(Request::NOWAIT).ok()).collect();
    assert_eq!(all.len(), 10);
    all.into_iter().for_each(|item| free(item).unwrap());
    zone.try_destroy().unwrap();
}
