//! What a subscriber hears of zones.
#![cfg(feature = "tracing")]

use std::alloc::Layout;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use uma::core::{ItemSource, Request};
use uma::{RawZone, Reclaim, Zone};
use uma_testkit::caught;

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

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "uma"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let scratch = SCRATCH.alloc([0; 40]);
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push((*event.metadata().level(), text.0));
        drop(scratch);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Runs `body` with a subscriber, alone. What a subscriber does in an event is not told to any, and where that is the
/// first of its kind `tracing` takes it that nobody ever wants to hear it, until the next subscriber comes: so that
/// has to be done before.
fn heard_by(subscriber: impl Subscriber + Send + Sync + 'static, body: impl FnOnce()) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    drop(SCRATCH.alloc([0; 40]));
    tracing::subscriber::with_default(subscriber, body);
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

/// A subscriber that unwinds when it hears of slabs.
struct Startled;

impl Subscriber for Startled {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "uma"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        assert!(!text.0.contains("slabs="), "as planned");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
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
