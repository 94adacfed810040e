//! Adaptors, references and shares that only pass on: each method reaches the one below. And what the
//! crate's errors and handles say.

use std::alloc::Layout;
use std::cell::Cell;
use std::error::Error;
use std::num::NonZeroU64;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RawMutex;
use uma_core::{
    AllocError, ConfigError, ConfigFault, Constructed, Counting, Deadline, Decommit, Fallback,
    FnHooks, Grouped, Handover, HandoverError, Hooks, Item, ItemSource, LimitGroup, Limited, Name,
    NoHooks, NoSleep, PageError, PageSupplier, Process, Protect, Quota, Reclaim, Refused, Regions,
    Request, Shared, Sleep, Spin, Zone,
};
use uma_testkit::{Fake, Pool, caught};

const PAGE: usize = 4096;
const RUN: Layout = match Layout::from_size_align(2 * PAGE, PAGE) {
    Ok(layout) => layout,
    Err(_) => panic!(),
};

/// Uses every power of a supplier on a run of it, and looks that `fake` has felt it.
fn powers<P: PageSupplier + Decommit + Protect + Regions>(pages: &P, fake: &Fake) {
    let run = pages.alloc_pages(RUN, Request::NOWAIT).unwrap();
    let (base, calls) = (run.base(), fake.decommit_calls());
    let protected = fake.protected();
    assert!(pages.holds(base.as_ptr()) && !pages.holds(ptr::null()));
    let mut found = 0;
    pages.visit_regions(&mut |region| found += usize::from(region.contains(base.as_ptr(), 1)));
    assert_eq!((found, pages.generation() > 0), (1, true));
    // SAFETY: both pages lie in a run of ours, of which nothing is used.
    unsafe {
        pages.decommit(base, PAGE);
        pages.protect(base, PAGE).unwrap();
    }
    assert!(fake.decommit_calls() > calls && fake.protected() > protected);
    // SAFETY: as above; the run goes back whole and unprotected.
    unsafe {
        pages.unprotect(base, PAGE).unwrap();
        pages.free_pages(run);
    }
    assert_eq!(fake.protected(), protected);
    let relaxed = fake.relaxed();
    pages.relax();
    assert!(fake.relaxed() > relaxed);
}

#[test]
fn powers_reach_the_supplier() {
    let fake = Fake::new();
    powers(&fake, &fake);
    powers(&&fake, &fake);
    powers(&Counting::new(&fake), &fake);
    powers(&Quota::new(Counting::new(&fake), 1 << 20), &fake);
    let second = Fake::new();
    // SAFETY: the two share no memory.
    let both = unsafe { Fallback::new(&fake, &second) };
    powers(&both, &fake);
    assert!(both.regions().is_some() && both.protects().is_some() && both.decommits().is_some());
    assert!(format!("{both:?}").contains("Fallback"));
}

#[test]
fn a_hand_over_tells_of_both() {
    let (first, later) = (Fake::new(), Fake::new());
    let pages = Handover::new(&first);
    let early = pages.alloc_pages(RUN, Request::NOWAIT).unwrap();
    // SAFETY: the two share no memory.
    unsafe { pages.hand_over(&later) }.unwrap();
    let late = pages.alloc_pages(RUN, Request::NOWAIT).unwrap();
    let mut regions = Vec::new();
    pages.visit_regions(&mut |region| {
        regions.push([&early, &late].map(|run| region.contains(run.base().as_ptr(), 1)));
    });
    assert!(regions.contains(&[true, false]) && regions.contains(&[false, true]));
    assert!(format!("{pages:?}").contains("later: Some"));
    // SAFETY: as above.
    let again = unsafe { pages.hand_over(&first) }.unwrap_err();
    assert!(matches!(again, HandoverError::Again(_)));
    assert!(format!("{again:?}").contains("Again") && again.to_string().contains("before"));
    let larger = HandoverError::LargerPages { later: (), size: 4096, pages: 16384 };
    assert!(format!("{larger:?}").contains("16384") && larger.to_string().contains("16384"));
    // SAFETY: each came from there, and goes back once.
    unsafe {
        pages.free_pages(early);
        pages.free_pages(late);
    }
}

#[test]
fn shares_reach_the_source() {
    let source = Shared::new(Pool::new(Layout::new::<u64>(), 10, 4));
    let (one, other) = (source.share(), source.share());
    let items = [
        one.alloc(Request::NOWAIT).unwrap(),
        other.alloc_or_flush(Request::NOWAIT, &mut || ()).unwrap(),
        one.alloc(Request::NOWAIT).unwrap(),
    ];
    assert_eq!((source.source().out(), one.layout()), (3, Layout::new::<u64>()));
    // SAFETY: each came from there, and goes back once.
    unsafe {
        other.free(items[0]);
        one.discard(items[1]);
        other.release(&items[2..]);
    }
    source.source().want(true);
    assert!(one.wanted());
    one.reclaim(Reclaim::Drain);
    one.settle();
    assert_eq!(source.source().out(), 0);
}

#[test]
fn ways_to_wait() {
    static TIME: AtomicUsize = AtomicUsize::new(5);
    let spin = Spin::new(|| TIME.fetch_add(1, Ordering::Relaxed) as u64);
    fn use_up<Z: Sleep>(sleep: Z, now: u64) {
        assert_eq!((sleep.now(), Z::CAN_SLEEP), (now, true));
        sleep.wake(&sleep.waker());
        sleep.sleep(Deadline::at(9));
    }
    use_up(spin, 5);
    use_up::<&Spin>(&spin, 6);
    assert_eq!((NoSleep.now(), NoSleep::CAN_SLEEP), (0, false));
    NoSleep.wake(&NoSleep.waker());
    NoSleep.sleep(Deadline::at(9));
    // A caller at a limit spins until its deadline.
    let limit = NonZeroU64::new(1);
    let zone = Limited::<_, RawMutex, _>::new(Pool::new(RUN, 2, 1), limit, spin);
    let item = zone.alloc(Request::WAIT).unwrap();
    let late = zone.alloc(Request::until(Deadline::at(TIME.load(Ordering::Relaxed) as u64 + 50)));
    assert_eq!(late.unwrap_err(), AllocError::TimedOut);
    assert!(TIME.load(Ordering::Relaxed) > 50);
    // SAFETY: it came from there, and goes back once.
    unsafe { zone.free(item) };
}

#[test]
fn hooks_by_functions() {
    unsafe fn note(context: *mut (), what: u64) {
        // SAFETY: the context of these hooks is a cell.
        let notes = unsafe { &*context.cast::<Cell<u64>>() };
        notes.set(notes.get() * 10 + what);
    }
    unsafe fn init(context: *mut (), _: Item, _: Request) -> Result<(), Refused> {
        // SAFETY: passed on.
        unsafe { note(context, 1) };
        Ok(())
    }
    unsafe fn ctor(context: *mut (), _: Item, arg: *mut (), _: Request) -> Result<(), Refused> {
        // SAFETY: passed on.
        unsafe { note(context, 2) };
        if arg.is_null() { Ok(()) } else { Err(Refused) }
    }
    unsafe fn dtor(context: *mut (), _: Item, _: *mut ()) {
        // SAFETY: passed on.
        unsafe { note(context, 3) };
    }
    unsafe fn fini(context: *mut (), _: Item) {
        // SAFETY: passed on.
        unsafe { note(context, 4) };
    }
    let notes = Cell::new(0_u64);
    let context = ptr::from_ref(&notes).cast_mut().cast();
    let hooks =
        FnHooks { context, init: Some(init), fini: Some(fini), ctor: Some(ctor), dtor: Some(dtor) };
    assert!(hooks.keeps_state() && !FnHooks::NONE.keeps_state());
    for hooks in [hooks, FnHooks { fini: None, ..hooks }, FnHooks::NONE] {
        notes.set(0);
        let pool = Pool::new(Layout::new::<u64>(), 4, 1);
        // SAFETY: the hooks touch no item, and their context lives long enough.
        let zone = unsafe {
            let constructed = Constructed::new(&pool, &hooks);
            Zone::with_hooks(Name::from("hooked"), constructed, &hooks)
        };
        let item = zone.alloc(Request::NOWAIT).unwrap();
        // SAFETY: it came from there, and goes back once; the argument is what these hooks want.
        unsafe {
            zone.free(item);
            let refused = zone.alloc_arg(ptr::dangling_mut::<u8>().cast(), Request::NOWAIT);
            match refused {
                Err(error) => assert_eq!(error, AllocError::Refused),
                Ok(item) => zone.free_arg(item, ptr::null_mut()),
            }
        }
        let expected = match (hooks.init, hooks.fini) {
            (None, _) => 0,
            (_, None) => 12_312,
            _ => 1_234_124,
        };
        assert_eq!((notes.get(), pool.out()), (expected, 0));
    }
    // SAFETY: it does nothing.
    unsafe { NoHooks.init(Item::new(ptr::NonNull::dangling()), Request::NOWAIT) }.unwrap();
}

/// Members of groups: a settle that unwinds leaves nobody counted in, so that the member can leave.
#[test]
fn groups_and_members() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    unsafe fn settle(_: *const ()) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        panic!("as planned");
    }
    let root = LimitGroup::<RawMutex, _>::new("root", NonZeroU64::new(64), NoSleep);
    let group = LimitGroup::within(&root, "leaf", None, NoSleep);
    assert_eq!((group.name().as_str(), group.max_bytes()), ("leaf", None));
    assert!(group.parent().is_some_and(|parent| ptr::eq(parent, &raw const root)));
    let pools = [(); 2].map(|()| Pool::new(Layout::new::<[u64; 4]>(), 10, 1));
    let [one, other] = [&pools[0], &pools[1]].map(|pool| Grouped::new(pool, Some(&group)));
    assert!(one.group().is_some() && ptr::eq(*one.source(), &raw const pools[0]));
    // SAFETY: both stay in place, and leave below.
    unsafe {
        one.join(ptr::null(), settle);
        other.join(ptr::null(), settle);
    }
    let items = [one.alloc(Request::NOWAIT).unwrap(), other.alloc(Request::NOWAIT).unwrap()];
    assert_eq!((group.bytes(), root.bytes(), one.sleepers()), (64, 64, 0));
    // Those that have something are asked before this one fails.
    let failed = caught(|| one.alloc_or_flush(Request::NOWAIT, &mut || ()));
    assert!(failed.is_err_and(|panic| panic.is_planned()));
    assert!(CALLS.load(Ordering::Relaxed) >= 1);
    // SAFETY: each came from there, and goes back once.
    unsafe {
        one.free(items[0]);
        other.discard(items[1]);
    }
    assert!(format!("{one:?} {group:?}").contains("leaf"));
    one.prefork();
    // SAFETY: `prefork` was called.
    unsafe { one.postfork(Process::Original) };
    one.settle();
    // Out of the middle, and the last; each waits for nobody.
    one.leave(|| panic!("somebody is counted in"));
    other.leave(|| panic!("somebody is counted in"));
    assert_eq!((root.bytes(), pools[0].out() + pools[1].out()), (0, 0));
    let alone = Grouped::<_, RawMutex, NoSleep>::new(&pools[0], None);
    alone.leave(|| ());
    let item = alone.alloc(Request::NOWAIT).unwrap();
    // SAFETY: as above.
    unsafe { alone.free(item) };
}

#[test]
fn errors_are_told_apart() {
    let pages = [
        PageError::Exhausted,
        PageError::BadSize,
        PageError::BadAlign,
        PageError::System(12),
        PageError::System(22),
        PageError::Unsupported,
    ];
    let mut texts: Vec<String> = pages.iter().map(ToString::to_string).collect();
    assert_eq!(AllocError::from(pages[0]).to_string(), texts[0]);
    texts.extend(
        [
            AllocError::Limit,
            AllocError::GroupLimit,
            AllocError::TimedOut,
            AllocError::Metadata,
            AllocError::Source,
            AllocError::from(Refused),
            AllocError::Unsupported,
        ]
        .map(|error| error.to_string()),
    );
    let faults = [
        ConfigFault::ZeroSize,
        ConfigFault::BadAlign,
        ConfigFault::AlignTooLarge(1),
        ConfigFault::SizeTooLarge(1),
        ConfigFault::Overflow,
        ConfigFault::ZeroLimit,
        ConfigFault::NeedsFeature("some"),
        ConfigFault::Conflict("one", "other"),
        ConfigFault::NoMemory,
    ];
    for fault in faults {
        let error = ConfigError { zone: Name::new("odd"), size: 77, align: 8, fault };
        let text = error.to_string();
        assert!(text.contains("\"odd\"") && text.contains("77-byte"), "{text}");
        assert_eq!(error.source().unwrap().to_string(), fault.to_string());
        texts.push(fault.to_string());
    }
    texts.push(Refused.to_string());
    let count = texts.len();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), count, "two errors say the same");
    let shortages =
        [AllocError::Limit, AllocError::Source, AllocError::Pages(PageError::System(12))];
    assert!(shortages.iter().all(|error| error.is_shortage()));
    assert!(!AllocError::Pages(PageError::BadAlign).is_shortage());
}

#[test]
fn handles_can_be_printed() {
    let request = Request::until(Deadline::at(7)).zeroed().from_reserve().without_pages();
    let text = format!("{request:?}");
    for word in ["wait: true", "zero: true", "reserve: true", "pages: false", "Some(7)"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    assert_eq!(format!("{:?}", Name::from("n\"")), "\"n\\\"\"");
    let limited = Limited::<_, RawMutex, _>::new(FnHooks::NONE, NonZeroU64::new(3), NoSleep);
    assert!(format!("{limited:?}").contains("max: Some(3)"));
    let item = Item::new(ptr::NonNull::dangling());
    assert!(format!("{item:?}").starts_with("Item("));
}
