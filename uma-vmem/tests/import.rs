//! Arenas over arenas: spans come, and go back whole.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::RawMutex;
use uma_core::{NoSleep, Request};
use uma_testkit::{HeapMeta, Rng};
use uma_vmem::{
    Arena, ArenaConfig, Constraints, Import, NoParent, Policy, SegmentKind, Span, VmemError,
    VmemFault,
};

type Over<P> = Arena<RawMutex, HeapMeta, NoSleep, P>;

const NOW: Request = Request::NOWAIT;
const POLICIES: [Policy; 4] = [Policy::Instant, Policy::Best, Policy::First, Policy::Next];

fn root(quantum: usize, base: usize, size: usize) -> Over<NoParent> {
    let config = ArenaConfig::new("root", quantum).unwrap();
    Arena::create(config, base, size, HeapMeta::new(), NoSleep).unwrap()
}

fn over<P: Import>(parent: P, config: ArenaConfig) -> Over<P> {
    Arena::xcreate(config, parent, HeapMeta::new(), NoSleep)
}

fn config(name: &str, quantum: usize) -> ArenaConfig {
    ArenaConfig::new(name, quantum).unwrap()
}

#[test]
fn spans_are_imported_with_surplus_and_go_back_whole() {
    let root = root(0x4000, 0x10_0000, 0x10_0000);
    let child = over(&root, config("child", 0x1000));
    // Three quanta of the child; four of them are one of the parent.
    let a = child.alloc(0x3000, Policy::Instant, NOW).unwrap();
    assert_eq!((child.stats().imported, root.stats().in_use), (0x4000, 0x4000));
    // The surplus serves the next.
    let b = child.alloc(0x1000, Policy::Instant, NOW).unwrap();
    assert_eq!(b, a + 0x3000);
    assert_eq!(child.stats().imports, 1);
    child.free(a, 0x3000).unwrap();
    assert_eq!(root.stats().in_use, 0x4000);
    child.free(b, 0x1000).unwrap();
    assert_eq!((child.stats().imported, root.stats().in_use), (0, 0));
    assert_eq!((child.stats().releases, child.stats().size), (1, 0));
}

#[test]
fn constraints_and_imports() {
    let root = root(0x1000, 0x1_0000, 0x10_0000);
    let child = over(&root, config("child", 0x1000));
    let none = Constraints::new();
    // For an alignment and a phase it imports; for a boundary and for bounds it does not.
    let shifted = none.align(0x1_0000).phase(0x3000);
    let at = child.xalloc(0x2000, shifted, Policy::Best, NOW).unwrap();
    assert_eq!(at % 0x1_0000, 0x3000);
    assert_eq!(child.stats().imported, 0x5000);
    for bound in [none.nocross(0x1_0000), none.range(1, usize::MAX), none.range(0, 0xff_ffff)] {
        let error = child.xalloc(0x4000, bound, Policy::Best, NOW).unwrap_err();
        assert_eq!(error.fault, VmemFault::Exhausted { size: 0x4000, free: 0x3000 });
    }
    child.xfree(at, 0x2000).unwrap();
    let large = over(&root, config("large", 0x1000).min_import(0x2_0000));
    let at = large.alloc(1, Policy::Instant, NOW).unwrap();
    assert_eq!(large.stats().imported, 0x2_0000);
    large.free(at, 1).unwrap();
    assert_eq!(root.stats().in_use, 0);
}

#[test]
fn what_leaks_stays_allocated_in_the_parent() {
    let root = root(1, 0, 100);
    let child = over(&root, config("child", 1));
    let at = child.alloc(10, Policy::Instant, NOW).unwrap();
    assert_eq!(child.destroy(|segment| assert_eq!(segment.addr, at)).unwrap_err().segments, 1);
    assert_eq!(root.stats().in_use, 10);
    root.free(at, 10).unwrap();
}

#[test]
fn a_span_that_the_parent_does_not_take_back() {
    let root = root(1, 0, 100);
    let child = over(&root, config("child", 1));
    let at = child.alloc(10, Policy::Instant, NOW).unwrap();
    root.free(at, 10).unwrap();
    let error = child.free(at, 10).unwrap_err();
    assert_eq!(error.fault, VmemFault::NotTaken { base: at, size: 10 });
    assert_eq!(error.arena.as_str(), "child");
    assert_eq!((child.stats().size, child.stats().in_use), (0, 0));
}

/// Gives the spans of a list, one after the other, whatever it is asked for.
struct Crooked {
    gives: RefCell<Vec<Span>>,
    back: RefCell<Vec<Span>>,
}

impl Import for Crooked {
    fn import(&self, _: usize, _: usize, request: Request) -> Option<Span> {
        assert!(!request.may_wait());
        self.gives.borrow_mut().pop()
    }

    fn release(&self, span: Span) -> Result<(), VmemError> {
        self.back.borrow_mut().push(span);
        Ok(())
    }
}

#[test]
fn spans_that_do_not_fit_go_straight_back() {
    let span = |base, size| Span { base, size };
    let wanted = 0x2000;
    let bad = |base, size| VmemFault::BadImport { base, size, wanted };
    let cases = [
        (span(0x8000, 0x1000), bad(0x8000, 0x1000)),
        (span(0x8800, 0x2000), bad(0x8800, 0x2000)),
        (span(0x8000, 0x2800), VmemFault::Unaligned { base: 0x8000, size: 0x2800 }),
        (span(0x10_0000, 0x4000), VmemFault::Overlap { base: 0x10_0000, size: 0x4000 }),
        (
            span(0usize.wrapping_sub(0x1000), 0x2000),
            VmemFault::TooLarge { base: 0usize.wrapping_sub(0x1000), size: 0x2000 },
        ),
    ];
    for (span, fault) in cases {
        let parent = Crooked { gives: RefCell::new(vec![span]), back: RefCell::default() };
        let child = over(&parent, config("child", 0x1000));
        child.add(0x10_1000, 0x1000).unwrap();
        let error = child.alloc(0x2000, Policy::Instant, NOW).unwrap_err();
        assert_eq!(error.fault, fault);
        let is_of_import = matches!(error.fault, VmemFault::BadImport { .. });
        assert_eq!(is_of_import, error.to_string().contains("asked for a span of 0x2000"));
        assert_eq!(*parent.back.borrow(), [span]);
        assert_eq!((child.stats().size, child.stats().fails), (0x1000, 1));
        // Nothing is set aside for it any more: all that it has can be used.
        child.alloc(0x1000, Policy::Instant, NOW).unwrap();
    }
}

/// Unwinds when it is asked, or does something to the arena that asks.
struct Meddler<'a> {
    root: &'a Over<NoParent>,
    child: Cell<Option<&'a Over<Meddler<'a>>>>,
    unwinds: Cell<bool>,
    keeps: Cell<bool>,
    frees: Cell<Option<(usize, usize)>>,
}

impl Import for Meddler<'_> {
    fn import(&self, size: usize, align: usize, request: Request) -> Option<Span> {
        if let Some((at, size)) = self.frees.take() {
            self.child.get().unwrap().free(at, size).unwrap();
        }
        assert!(!self.unwinds.take(), "this parent unwinds");
        Import::import(self.root, size, align, request)
    }

    fn release(&self, span: Span) -> Result<(), VmemError> {
        assert!(!self.keeps.take(), "this parent unwinds, and the span is lost");
        Import::release(self.root, span)
    }
}

#[test]
fn a_parent_is_called_without_the_lock_and_may_unwind() {
    let root = root(1, 0, 1000);
    let (child, unwinds, frees) = (Cell::new(None), Cell::new(true), Cell::new(None));
    let child = over(
        Meddler { root: &root, child, unwinds, keeps: Cell::new(false), frees },
        config("child", 1),
    );
    for _ in 0..100 {
        child.parent().unwinds.set(true);
        let alloc = || child.alloc(10, Policy::Instant, NOW);
        assert!(catch_unwind(AssertUnwindSafe(alloc)).is_err());
    }
    // No tag stays set aside: a single block serves.
    let at = child.alloc(10, Policy::Instant, NOW).unwrap();
    assert!(child.stats().meta_bytes <= 512, "{:?}", child.stats());
    child.free(at, 10).unwrap();
    assert_eq!(root.stats().in_use, 0);
}

#[test]
fn what_was_freed_meanwhile_is_taken_and_the_span_goes_back() {
    let root = Box::leak(Box::new(root(1, 0, 1000)));
    let (child, unwinds, frees) = (Cell::new(None), Cell::new(false), Cell::new(None));
    let child = over(
        Meddler { root, child, unwinds, keeps: Cell::new(false), frees },
        config("child", 1).min_import(20),
    );
    let child = &*Box::leak(Box::new(child));
    child.parent().child.set(Some(child));
    let a = child.alloc(10, Policy::Instant, NOW).unwrap();
    let b = child.alloc(10, Policy::Instant, NOW).unwrap();
    child.parent().frees.set(Some((a, 10)));
    assert_eq!(child.alloc(10, Policy::Instant, NOW).unwrap(), a);
    assert_eq!((child.stats().imports, root.stats().in_use), (1, 20));
    // If the parent unwinds as it takes the span back, the segment is free again, and the span lost.
    child.parent().frees.set(Some((a, 10)));
    child.parent().keeps.set(true);
    let alloc = || child.alloc(10, Policy::Instant, NOW);
    assert!(catch_unwind(AssertUnwindSafe(alloc)).is_err());
    assert_eq!((child.stats().in_use, root.stats().in_use), (10, 40));
    child.free(b, 10).unwrap();
    assert_eq!((child.stats().size, root.stats().in_use), (0, 20));
}

/// Three levels at random: nothing overlaps, what a child has is what its parent gave it, and no imported
/// span is kept for nothing.
#[test]
fn nested_arenas_at_random() {
    let rounds = if cfg!(debug_assertions) { 8 } else { 30 };
    for seed in 0..rounds {
        let mut rng = Rng::new(seed);
        let base = [0, 1 << 30, 0usize.wrapping_sub(1 << 16)][rng.below(3)];
        let root = root(64, base, 1 << 16);
        let (middle_quantum, low_quantum) = ([16, 64, 256][rng.below(3)], [1, 16][rng.below(2)]);
        let middle = over(&root, config("middle", middle_quantum).min_import(rng.below(2) * 1024));
        let low = over(&middle, config("low", low_quantum).min_import(rng.below(2) * 100));
        let mut live: Vec<(usize, usize, bool)> = Vec::new();
        for _ in 0..2000 {
            if rng.one_in(2) || live.is_empty() {
                let size = rng.below(700) + 1;
                let policy = rng.pick(&POLICIES);
                let align = 256 << rng.below(3);
                let constraints = if rng.one_in(3) {
                    Constraints::new().align(align)
                } else {
                    Constraints::new()
                };
                let from_low = rng.one_in(2);
                let got = if from_low {
                    low.xalloc(size, constraints, policy, NOW)
                } else {
                    middle.xalloc(size, constraints, policy, NOW)
                };
                match got {
                    Ok(at) => live.push((at, size, from_low)),
                    Err(error) => {
                        assert!(matches!(error.fault, VmemFault::Exhausted { .. }), "{error}");
                    }
                }
            } else {
                let (at, size, from_low) = live.swap_remove(rng.below(live.len()));
                if from_low { low.free(at, size) } else { middle.free(at, size) }.unwrap();
            }
            let ranges: BTreeMap<_, _> = live.iter().map(|&(at, size, _)| (at, size)).collect();
            assert_eq!(ranges.len(), live.len());
            let ends = ranges.iter().zip(ranges.keys().skip(1));
            ends.for_each(|((at, size), next)| assert!(at + size <= *next, "{at:#x} {next:#x}"));
            assert_eq!(root.stats().in_use, middle.stats().size);
            let lows = live.iter().filter(|entry| !entry.2).count();
            assert_eq!(middle.stats().segments, lows + low.stats().spans);
        }
        for arena in [&middle.stats(), &low.stats()] {
            assert!(arena.spans <= arena.segments, "{arena:?}");
        }
        // No free segment is as large as a whole span: each span begins where something imported does.
        let mut whole = 0;
        root.walk(|segment| {
            if segment.kind == SegmentKind::Allocated {
                let mut used = false;
                let ours = |at| (segment.addr..=segment.addr + (segment.size - 1)).contains(&at);
                live.iter().for_each(|&(at, ..)| used |= ours(at));
                whole += usize::from(!used);
            }
        })
        .unwrap();
        assert_eq!(whole, 0, "seed {seed}: spans of which nothing is in use");
        for (at, size, from_low) in live {
            if from_low { low.free(at, size) } else { middle.free(at, size) }.unwrap();
        }
        assert_eq!((low.stats().size, middle.stats().size, root.stats().in_use), (0, 0, 0));
    }
}
