//! What reports, tiers and handles say of themselves; and that a fork leaves every lock as it was.

use std::alloc::Layout;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Mutex;

use parking_lot::RawMutex;
use uma_core::{
    AllocError, Item, ItemSource, Name, PageSupplier, Process, Reclaim, Request, Stats,
};
use uma_debug::{
    Checked, Checks, FRAMES, Fault, Fill, GuardPool, Hardening, Padded, Pads, Report, Subject,
    Trace, Verdict, Watched, Witness,
};
use uma_testkit::{Fake, HeapMeta, Pool, caught};

type Heard = (Name, Option<usize>, usize, Vec<u64>, String);

/// Writes down what a report says through its methods, and prints it in every way.
#[derive(Default)]
struct Scribe(Mutex<Vec<Heard>>);

impl Witness for Scribe {
    fn thread(&self) -> u64 {
        9
    }

    fn trace(&self, frames: &mut [usize; FRAMES]) -> usize {
        frames[0] = 0x77;
        1
    }

    fn misuse(&self, report: &Report<'_>) -> Verdict {
        let who = [Some(report.here()), report.allocated(), report.freed()];
        let threads = who.into_iter().flatten().map(Trace::thread).collect();
        let text = format!("{report} {report:?}");
        self.0.lock().unwrap().push((*report.zone(), report.item(), report.size(), threads, text));
        Verdict::Ignore
    }
}

/// Leaves out whatever can be left out.
struct Mute;

impl Witness for Mute {
    fn misuse(&self, _: &Report<'_>) -> Verdict {
        panic!("as planned")
    }
}

fn subject(pads: Pads) -> Subject {
    let zone = Name::new("told");
    Subject { zone, pads, slab_align: 4096, keeps_state: false, no_touch: false }
}

const ITEM: Layout = Layout::new::<[u64; 3]>();

/// Checks over a pool of the test kit.
fn with<W: Witness>(
    tier: Hardening,
    witness: &W,
    test: impl FnOnce(
        &Checked<'_, Watched<Padded<&Pool>, RawMutex, &HeapMeta, &W>, RawMutex, &HeapMeta, &W>,
        &Pool,
    ),
) {
    let meta = HeapMeta::new();
    let pads = Pads::new(ITEM, &tier).unwrap();
    let pool = Pool::new(pads.outer(), 10, 4);
    let checks = Checks::new(subject(pads), tier, &meta, witness).unwrap();
    // SAFETY: the pool has items of the outer layout; the checks outlive what stands on them.
    let zone = unsafe {
        let watched = Watched::new(Padded::new(&pool, pads), Some(NonNull::from(&checks)));
        Checked::new(watched, &checks)
    };
    test(&zone, &pool);
    drop(zone);
    drop(checks);
    assert_eq!((pool.out(), meta.outstanding().runs), (0, 0));
}

#[test]
fn reports_answer() {
    let scribe = Scribe::default();
    with(Hardening::DEBUG, &scribe, |zone, _| {
        let item = zone.alloc(Request::NOWAIT).unwrap();
        // SAFETY: the item came from there; the second free is the misuse under test.
        unsafe {
            zone.free(item);
            zone.free(item);
        }
        let heard = std::mem::take(&mut *scribe.0.lock().unwrap());
        let [(name, at, size, threads, text)] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!((name.as_str(), *at, *size), ("told", Some(item.addr()), ITEM.size()));
        assert_eq!(threads, &[9, 9, 9], "found, allocated and freed");
        assert!(text.contains("in the slab at") && text.contains("0x77"), "{text}");
        assert!(text.contains("DoubleFree"), "{text}");
    });
}

#[test]
fn every_fault_has_its_words() {
    let scribe = Scribe::default();
    with(Hardening::DEBUG, &scribe, |zone, pool| {
        let item = zone.alloc(Request::NOWAIT).unwrap();
        let beside = |offset: isize| NonNull::new(item.as_ptr().wrapping_offset(offset)).unwrap();
        // SAFETY: the red zones are memory of the pool's item; what is freed besides the item is the
        // misuse under test, which does nothing.
        unsafe {
            zone.free(Item::new(beside(8)));
            beside(-1).write(1);
            zone.free(item);
            let item = zone.alloc(Request::NOWAIT).unwrap();
            NonNull::new(item.as_ptr().wrapping_add(ITEM.size())).unwrap().write(2);
            zone.free(item);
            // In quarantine it is still memory of ours.
            item.as_ptr().add(3).write(3);
        }
        assert_eq!(pool.out(), 2);
        zone.reclaim(Reclaim::Drain);
    });
    let all: String = scribe.0.lock().unwrap().iter().map(|heard| heard.4.clone() + "\n").collect();
    for words in ["8 bytes into", "underflow", "overflow", "modified after free"] {
        assert!(all.contains(words), "no \"{words}\" in:\n{all}");
    }
    let faults = [Fault::Underflow(1, 2), Fault::WriteAfterFree(3, 4), Fault::Changed];
    assert!(faults.iter().all(|fault| !format!("{fault:?}").is_empty()));
}

/// A witness that unwinds out of a report: the item is neither lost nor freed.
#[test]
fn a_report_that_unwinds() {
    with(Hardening::DEBUG, &Mute, |zone, pool| {
        let item = zone.alloc(Request::NOWAIT).unwrap();
        // SAFETY: the item came from there; the second free is the misuse under test.
        unsafe {
            zone.free(item);
            assert!(caught(|| zone.free(item)).is_err_and(|panic| panic.is_planned()));
        }
        zone.reclaim(Reclaim::Drain);
        assert_eq!(pool.out(), 0);
        let item = zone.alloc(Request::NOWAIT).unwrap();
        // SAFETY: as above.
        unsafe { zone.free(item) };
    });
    fn says_nothing<W: Witness>(witness: W) {
        let traced = witness.trace(&mut [0; FRAMES]);
        assert_eq!((witness.thread(), traced, witness.owner(1)), (0, 0, None));
    }
    says_nothing(Mute);
    says_nothing::<&Mute>(&Mute);
    struct Shown<'a, W>(&'a W);
    impl<W: Witness> fmt::Display for Shown<'_, W> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.show_frame(0x99, f)
        }
    }
    assert!(Shown(&&Mute).to_string().contains("0x99"));
}

#[test]
fn layers_pass_on() {
    with(Hardening::HARDENED, &Scribe::default(), |zone, pool| {
        let mut into = [const { std::mem::MaybeUninit::uninit() }; 12];
        let got = zone.import(&mut into, Request::NOWAIT).unwrap();
        assert_eq!((got, pool.out()), (10, 10), "as many as there are");
        assert!(zone.import(&mut into[10..], Request::NOWAIT).is_err_and(AllocError::is_shortage));
        // SAFETY: the first ten were written; they go back once.
        unsafe { zone.release(into[..10].assume_init_ref()) };
        // All are in quarantine: free, as far as anybody can tell, and to be had when there are no others.
        let mut stats = Stats::default();
        zone.visit_stats(&mut stats);
        assert_eq!((pool.out(), zone.checks().quarantined(), stats.cached), (10, 10, 10));
        zone.prefork();
        // SAFETY: `prefork` was called.
        unsafe { zone.postfork(Process::Original) };
        assert_eq!(zone.layout(), ITEM);
        // Somebody waits below: what is freed goes there.
        pool.want(true);
        assert!(zone.wanted());
        zone.settle();
        assert_eq!((pool.out(), zone.checks().quarantined()), (0, 0));
        pool.want(false);
        let item = zone.alloc(Request::NOWAIT).unwrap();
        // SAFETY: it came from there, and goes back once.
        unsafe { zone.discard(item) };
        assert_eq!(pool.out(), 0);
        let watched = zone.source();
        let item = watched.alloc(Request::NOWAIT).unwrap();
        // SAFETY: as above.
        unsafe { watched.source().free(item) };
        watched.prefork();
        // SAFETY: as above.
        unsafe { watched.postfork(Process::Original) };
        watched.settle();
        assert!(!watched.wanted());
        let text = format!("{zone:?}");
        for word in ["Checked", "Watched", "Padded", "Pool", "told"] {
            assert!(text.contains(word), "no {word} in {text}");
        }
    });
}

/// Without memory for its table the checks refuse, and the item goes back.
#[test]
fn no_memory_for_marks() {
    let meta = HeapMeta::new();
    let scribe = Scribe::default();
    let pads = Pads::new(ITEM, &Hardening::DEBUG).unwrap();
    let pool = Pool::new(pads.outer(), 10, 4);
    let checks = Checks::<RawMutex, _, _>::new(subject(pads), Hardening::DEBUG, &meta, &scribe);
    let checks = checks.unwrap();
    // SAFETY: as in `with`.
    let zone = unsafe {
        Checked::new(Watched::new(Padded::new(&pool, pads), Some(NonNull::from(&checks))), &checks)
    };
    meta.fail_from(1);
    assert_eq!(zone.alloc(Request::NOWAIT), Err(AllocError::Metadata));
    assert_eq!(pool.out(), 0);
    meta.never();
    let item = zone.alloc(Request::NOWAIT).unwrap();
    // SAFETY: it came from there, and goes back once.
    unsafe { zone.free(item) };
}

#[test]
fn tiers_are_mixtures() {
    let none = Hardening::default();
    assert_eq!((none, none.is_checking()), (Hardening::RELEASE, false));
    let all = none
        .live(true)
        .red_zones(true)
        .fill(Fill::Zeros)
        .sums(true)
        .owners(true)
        .quarantine(5)
        .divisor(2)
        .sample(100)
        .outside_headers(true)
        .random_slots(true)
        .guard_slabs(true);
    assert!(all.is_checking() && all.is_live() && all.has_red_zones());
    assert!(all.has_outside_headers() && all.has_random_slots() && all.has_guard_slabs());
    assert_eq!((all.quarantined(), all.one_in()), (5, 100));
    assert_ne!(all, none);
    for (word, tier) in [
        ("release", Some(Hardening::RELEASE)),
        ("hardened", Some(Hardening::HARDENED)),
        ("debug", Some(Hardening::DEBUG)),
        ("sampled/7", Some(Hardening::sampled(7))),
        ("sampled/0", None),
        ("sampled/x", None),
        ("moon", None),
    ] {
        assert_eq!(Hardening::parse(word).filter(|_| tier.is_some()), tier, "{word}");
    }
    assert!(format!("{all:?}").contains("Hardening"));
}

#[test]
fn a_pool_in_a_fork() {
    let pages = Fake::new();
    let pool = GuardPool::<RawMutex, _>::new(&pages, ITEM, 1);
    pool.prefork();
    // SAFETY: `prefork` was called.
    unsafe { pool.postfork() };
    assert!(format!("{pool:?}").contains("GuardPool"));
    assert!(!pool.contains(0) && !pool.holds(1) && pool.explain(2).is_none());
    let shadow = Item::new(NonNull::<u64>::dangling().cast());
    let item = pool.place(shadow, &Trace::default()).unwrap();
    let known = pool.explain(item.addr()).unwrap();
    assert!(known.live && format!("{known:?}").contains("live: true"));
    let mut live = 0;
    pool.for_each_live(&mut |address, _| live += usize::from(address == item.addr()));
    assert_eq!(live, 1);
    // SAFETY: the item came from the pool, and is used no more.
    unsafe {
        pool.take_back(item, &Trace::default()).unwrap();
        assert_eq!(pool.look(item), None);
        assert_eq!(pool.bury(item), Some(shadow));
    }
    assert!(pages.page_size() > 0);
}
