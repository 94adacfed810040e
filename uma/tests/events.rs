//! What a subscriber hears of zones.
#![cfg(feature = "tracing")]

use std::alloc::Layout;
use std::fmt::Debug;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Event, Level, Metadata, Subscriber};
use uma::core::{Item, ItemSource, Request};
use uma::{Park, RawZone, Reclaim, Zone, ZoneGroup};
use uma_testkit::caught;

/// Hears every event of the target `uma`.
trait Hears: Send + Sync + 'static {
    fn event(&self, event: &Event<'_>);
}

/// A subscriber that does no more.
struct Heard<T>(T);

impl<T: Hears> Subscriber for Heard<T> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "uma"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.0.event(event);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Writes every event of the target `uma` down, and uses a zone while it does.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<(Level, String)>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}

static SCRATCH: Zone<[u8; 40]> = Zone::new("scratch of the subscriber");

impl Hears for Notes {
    fn event(&self, event: &Event<'_>) {
        let scratch = SCRATCH.alloc([0; 40]);
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push((*event.metadata().level(), text.0));
        drop(scratch);
    }
}

/// One test at a time: of an event that comes up where nobody listens, `tracing` notes so for all threads.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `body` with a subscriber, alone. What a subscriber does in an event is not told to any, and where that is the
/// first of its kind `tracing` takes it that nobody ever wants to hear it, until the next subscriber comes: so that
/// has to be done before.
fn heard_by(subscriber: impl Hears, body: impl FnOnce()) {
    let _alone = alone();
    drop(SCRATCH.alloc([0; 40]));
    with_default(Heard(subscriber), body);
}

#[test]
fn slow_paths_are_heard_and_hits_are_not() {
    let notes = Notes::default();
    heard_by(notes.clone(), || {
        let layout = Layout::from_size_align(64, 8).unwrap();
        let zone = RawZone::builder("heard", layout).max_items(2).build().unwrap();
        for _ in 0..1000 {
            let item = zone.alloc(Request::NOWAIT).unwrap();
            // SAFETY: taken just now.
            unsafe { zone.free(item) };
        }
        let (a, b) = (zone.alloc(Request::NOWAIT).unwrap(), zone.alloc(Request::NOWAIT).unwrap());
        assert!(zone.alloc(Request::NOWAIT).is_err());
        // SAFETY: taken above.
        unsafe { zone.free(a) };
        zone.reclaim(Reclaim::DrainCpu);
        drop(zone);
        let _ = b;
    });
    let notes = std::mem::take(&mut *notes.0.lock().unwrap());
    let heard: Vec<_> = notes.iter().filter(|(_, text)| text.contains("zone=heard")).collect();
    let expected = [
        (Level::DEBUG, "zone made"),
        (Level::DEBUG, "slabs=1 "),
        (Level::WARN, "at its limit"),
        (Level::DEBUG, "reclaimed"),
        (Level::ERROR, "leaked=1"),
    ];
    assert_eq!(heard.len(), expected.len(), "{heard:#?}");
    for ((level, text), (expected, words)) in heard.into_iter().zip(expected) {
        assert!(*level == expected && text.contains(words), "{level} {text}, not {words}");
    }
}

/// Whichever way a zone grows, it is said once for each slab.
#[test]
fn every_slab_is_told_once() {
    let notes = Notes::default();
    heard_by(notes.clone(), || {
        let layout = Layout::from_size_align(1000, 8).unwrap();
        let zone = RawZone::builder("growing", layout).build().unwrap();
        zone.prealloc(1000).unwrap();
        let mut items = [std::mem::MaybeUninit::uninit(); 500];
        let mut all: Vec<_> = (0..1500).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect();
        let count = zone.import(&mut items, Request::NOWAIT).unwrap();
        // SAFETY: a source initialises as many as it returns.
        all.extend(items[..count].iter().map(|item| unsafe { item.assume_init() }));
        let slabs = zone.stats().slabs;
        // SAFETY: the items came from the zone.
        all.into_iter().for_each(|item| unsafe { zone.free(item) });
        let told = notes.0.lock().unwrap().iter().fold(0, |told, (level, text)| {
            let slabs = text.split_once("slabs=").filter(|_| text.contains("zone=growing"));
            let Some((_, slabs)) = slabs else { return told };
            assert_eq!(*level, Level::DEBUG);
            told + slabs.split_once(' ').unwrap().0.parse::<u64>().unwrap()
        });
        assert!(slabs > 20);
        assert_eq!(told, slabs);
    });
}

/// The limit that was reached may be that of a group, which is named.
#[test]
fn the_group_at_its_limit_is_named() {
    static OUTER: ZoneGroup = ZoneGroup::new("outer", NonZeroU64::new(100), Park);
    static INNER: ZoneGroup = ZoneGroup::within(&OUTER, "inner", NonZeroU64::new(1000), Park);
    let notes = Notes::default();
    heard_by(notes.clone(), || {
        let layout = Layout::from_size_align(64, 8).unwrap();
        let zone = RawZone::builder("grouped", layout).group(&INNER).build().unwrap();
        let item = zone.alloc(Request::NOWAIT).unwrap();
        assert!(zone.alloc(Request::NOWAIT).is_err());
        let soon = Request::until(Park::deadline_in(Duration::from_millis(2)));
        assert!(zone.alloc(soon).is_err());
        // SAFETY: it came from there and was not used.
        unsafe { zone.free(item) };
        for kind in ["no item", "waiting for an item"] {
            let notes = notes.0.lock().unwrap();
            let mut told = notes
                .iter()
                .filter(|(_, text)| text.contains(kind) && text.contains("zone=grouped"));
            assert!(told.next().unwrap().1.contains("group=outer"), "{kind}: {notes:?}");
        }
    });
}

/// Who waits at a limit, until a deadline or without, is told of before he waits, and once.
#[test]
fn who_waits_at_a_limit_is_heard() {
    let _alone = alone();
    let notes = Notes::default();
    let layout = Layout::from_size_align(64, 8).unwrap();
    let zone = RawZone::builder("crowded", layout).max_items(1).build().unwrap();
    let waiting = || {
        let is = |(level, text): &(Level, String)| {
            *level == Level::WARN && text.contains("waiting for an item zone=crowded")
        };
        notes.0.lock().unwrap().iter().filter(|note| is(note)).count()
    };
    with_default(Heard(notes.clone()), || {
        let item = zone.alloc(Request::WAIT).unwrap();
        assert!(zone.alloc(Request::NOWAIT).is_err());
        assert_eq!(waiting(), 0, "nobody waited");
        let soon = Request::until(Park::deadline_in(Duration::from_millis(2)));
        assert!(zone.alloc(soon).is_err());
        assert_eq!(waiting(), 1);
        let again = thread::scope(|scope| {
            let zone = &zone;
            scope.spawn(move || {
                while !zone.exhausted() {
                    thread::yield_now();
                }
                // SAFETY: taken above.
                unsafe { zone.free(item) };
            });
            zone.alloc(Request::WAIT).unwrap()
        });
        assert_eq!(waiting(), 2);
        #[cfg(feature = "async")]
        {
            let mut task = Box::pin(zone.alloc_async(Request::NOWAIT));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(task.as_mut().poll(&mut context).is_pending());
            assert!(task.as_mut().poll(&mut context).is_pending());
            assert_eq!(waiting(), 3);
        }
        // SAFETY: taken above.
        unsafe { zone.free(again) };
        let free = zone.alloc(Request::WAIT).unwrap();
        // SAFETY: as above.
        unsafe { zone.free(free) };
        assert_eq!(waiting(), 2 + usize::from(cfg!(feature = "async")), "one was free");
    });
}

const TWO: Layout = Layout::new::<[u64; 8]>();
static USED: RawZone = RawZone::builder("used", TWO).max_items(2).warning("too few").lazy();

/// Uses the zone that the event is about, in every way, and notes what the event was.
#[derive(Clone, Default)]
struct User(Arc<Mutex<Vec<String>>>);

impl Hears for User {
    fn event(&self, event: &Event<'_>) {
        if let Ok(item) = USED.alloc(Request::NOWAIT) {
            // SAFETY: taken just now.
            unsafe { USED.free(item) };
        }
        USED.reclaim(Reclaim::Drain);
        uma::reclaim(Reclaim::DrainCpu);
        assert!(uma::stat().to_string().contains("used") && USED.stats().limit == 2);
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
}

/// Every event once. (One that comes up for the first time while a subscriber is busy with
/// another, `tracing` takes for one that nobody listens to.)
fn every_event_once() {
    let zone = RawZone::builder("before", TWO).max_items(1).warning("silence").build().unwrap();
    let item = zone.alloc(Request::NOWAIT).unwrap();
    assert!(zone.alloc(Request::NOWAIT).is_err());
    let soon = Park::deadline_in(Duration::from_millis(1));
    assert!(zone.alloc(Request::until(soon)).is_err());
    // SAFETY: taken above.
    unsafe { zone.free(item) };
    zone.reclaim(Reclaim::DrainCpu);
}

/// No event comes under a lock: not one of the zone's, nor of those that all zones have in common.
#[test]
fn a_subscriber_uses_the_zone_of_the_event() {
    let _alone = alone();
    with_default(Heard(Notes::default()), every_event_once);
    let (user, (done, finished)) = (User::default(), mpsc::channel());
    let heard = user.0.clone();
    let worker = thread::spawn(move || {
        with_default(Heard(user), || {
            let items = [1, 2].map(|_| USED.alloc(Request::NOWAIT).unwrap());
            assert!(USED.alloc(Request::NOWAIT).is_err());
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !USED.exhausted() {
                        thread::yield_now();
                    }
                    // SAFETY: taken above.
                    unsafe { USED.free(items[0]) };
                });
                let item = USED.alloc(Request::WAIT).unwrap();
                // SAFETY: taken just now, and above.
                unsafe { USED.free_many(&[item, items[1]]) };
            });
            USED.reclaim(Reclaim::DrainCpu);
            uma::reclaim(Reclaim::Drain);
        });
        done.send(()).unwrap();
    });
    match finished.recv_timeout(Duration::from_secs(120)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs after {:?}", heard.lock()),
        _ => worker.join().unwrap(),
    }
    let heard = heard.lock().unwrap();
    for kind in ["zone made", "slabs made", "no item", "at its limit", "waiting", "reclaimed"] {
        assert!(heard.iter().any(|text| text.contains(kind)), "no {kind} in {heard:?}");
    }
}

/// Panics at one event, as planned.
#[derive(Clone)]
struct Panicking(Arc<AtomicUsize>);

impl Hears for Panicking {
    fn event(&self, _: &Event<'_>) {
        assert_ne!(self.0.fetch_sub(1, Ordering::Relaxed), 0, "as planned");
    }
}

/// A subscriber that panics at the k-th event, for every k: no item is lost, and no zone stays behind.
#[test]
fn a_subscriber_that_panics_loses_nothing() {
    let _alone = alone();
    std::panic::set_hook(Box::new(|panic| {
        if !panic.payload_as_str().unwrap_or_default().contains("as planned") {
            eprintln!("{panic}");
        }
    }));
    let layout = Layout::from_size_align(1000, 8).unwrap();
    for event in 0.. {
        let left = Arc::new(AtomicUsize::new(event));
        let zone = RawZone::builder("panics", layout).max_items(100).build();
        // The first use is heard.
        let zone = zone.unwrap();
        let give = |item: Item| {
            // SAFETY: all are taken from the zone, and given up.
            unsafe { zone.free(item) };
        };
        with_default(Heard(Panicking(left.clone())), || {
            let mut held = Vec::new();
            for _ in 0..40 {
                if let Ok(Ok(item)) = catch_unwind(AssertUnwindSafe(|| zone.alloc(Request::NOWAIT)))
                {
                    held.push(item);
                }
            }
            // The second is beyond the limit, unless the first came to nothing.
            for _ in 0..2 {
                let mut more = [std::mem::MaybeUninit::uninit(); 50];
                let many = || zone.alloc_many(&mut more, Request::NOWAIT);
                if let Ok(Ok(())) = catch_unwind(AssertUnwindSafe(many)) {
                    // SAFETY: all of them were allocated.
                    held.extend(more.iter().map(|item| unsafe { item.assume_init() }));
                }
            }
            assert_eq!(zone.stats().used(), held.len() as u64);
            held.into_iter().for_each(give);
            let _ = catch_unwind(AssertUnwindSafe(|| zone.reclaim(Reclaim::DrainCpu)));
        });
        assert_eq!(zone.stats().used(), 0);
        let all: Vec<_> = (0..101).map_while(|_| zone.alloc(Request::NOWAIT).ok()).collect();
        assert_eq!(all.len(), 100, "after a panic at event {event}");
        all.into_iter().for_each(give);
        let ended = with_default(Heard(Panicking(left.clone())), || {
            catch_unwind(AssertUnwindSafe(|| drop(zone)))
        });
        assert!(uma::zones().iter().all(|zone| zone.name.as_str() != "panics"));
        let left = left.load(Ordering::Relaxed);
        if left < usize::MAX / 2 {
            assert!(ended.is_ok() && event > 4, "only {event} events");
            break;
        }
    }
}

/// A subscriber that unwinds when it hears of slabs.
struct Startled;

impl Hears for Startled {
    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        assert!(!text.0.contains("slabs="), "as planned");
    }
}

/// What was allocated when a subscriber unwinds goes back, and what is destroyed is.
#[test]
fn a_subscriber_that_unwinds() {
    let layout = Layout::from_size_align(1000, 8).unwrap();
    let zone = RawZone::builder("startling", layout).build().unwrap();
    heard_by(Startled, || {
        let mut items = [std::mem::MaybeUninit::uninit(); 500];
        assert!(caught(|| zone.import(&mut items, Request::NOWAIT)).is_err());
        zone.reclaim(Reclaim::DrainCpu);
        assert_eq!((zone.stats().used(), zone.stats().bytes), (0, 0));
        assert!(caught(|| zone.alloc(Request::NOWAIT)).is_err());
        zone.reclaim(Reclaim::DrainCpu);
        assert_eq!((zone.stats().used(), zone.stats().bytes), (0, 0));
    });
}
