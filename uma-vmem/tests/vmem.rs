//! What the originals do, and what is done where they panic.

use parking_lot::RawMutex;
use uma_core::{NoSleep, Request};
use uma_testkit::HeapMeta;
use uma_vmem::{
    Arena, ArenaConfig, Constraints, Policy, Segment, SegmentKind, VmemError, VmemFault,
};

type Plain = Arena<RawMutex, HeapMeta, NoSleep>;

const NOW: Request = Request::NOWAIT;

fn arena(quantum: usize, base: usize, size: usize) -> Plain {
    let config = ArenaConfig::new("test", quantum).unwrap();
    Arena::create(config, base, size, HeapMeta::new(), NoSleep).unwrap()
}

fn segments(arena: &Plain) -> Vec<(SegmentKind, usize, usize)> {
    let mut seen = Vec::new();
    arena.walk(|Segment { kind, addr, size }| seen.push((kind, addr, size))).unwrap();
    seen
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, VmemError>, fault: VmemFault) {
    let error = result.unwrap_err();
    assert_eq!(error.fault, fault);
    assert_eq!(error.arena.as_str(), "test");
    assert!(error.to_string().starts_with("arena \"test\": "), "{error}");
}

/// Free segments of these sizes at multiples of 2^20, with no way to join.
fn holes(quantum: usize, sizes: &[usize]) -> Plain {
    let config = ArenaConfig::new("test", quantum).unwrap();
    let arena = Arena::new(config, HeapMeta::new(), NoSleep);
    for (at, &size) in sizes.iter().enumerate() {
        arena.add((at + 1) << 20, size).unwrap();
    }
    arena
}

/// Nor does it wait for the lock when it has to get tags and chains first.
#[test]
fn try_xalloc_fails_if_another_has_the_lock() {
    let arena = arena(1, 0, 1 << 20);
    let none = Constraints::new();
    arena.prefork();
    refused(arena.try_xalloc(1, none, Policy::Instant), VmemFault::Busy);
    // SAFETY: this thread called `prefork`.
    unsafe { arena.postfork(uma_core::Process::Original) };
    refused(arena.try_xalloc(1, none.align(3), Policy::Instant), VmemFault::BadAlign(3));
    for at in 0..10_000 {
        assert_eq!(arena.try_xalloc(1, none, Policy::Instant).unwrap(), at);
    }
    let rest = arena.alloc(arena.size(SegmentKind::Free), Policy::Instant, NOW).unwrap();
    let full = VmemFault::Exhausted { size: 1, free: 0 };
    refused(arena.try_xalloc(1, none, Policy::Instant), full);
    assert_eq!((arena.stats().fails, rest), (1, 10_000));
}

#[test]
fn instant_fit_takes_from_the_first_list_that_surely_fits() {
    let two = || holes(1, &[1 << 12, 1 << 15]);
    // From list 2^13 on: the one of 2^15.
    assert_eq!(two().alloc(5000, Policy::Instant, NOW).unwrap(), 2 << 20);
    assert_eq!(two().alloc(4096, Policy::Instant, NOW).unwrap(), 1 << 20);
    // Only the list [4096, 8191] is not empty: it is searched.
    let some = holes(1, &[5000, 5999, 4096]);
    refused(
        some.alloc(6000, Policy::Instant, NOW),
        VmemFault::Exhausted { size: 6000, free: 15095 },
    );
    let some = holes(1, &[5000, 6000, 8191, 4096]);
    let at = some.alloc(6000, Policy::Instant, NOW).unwrap();
    assert!(at == 2 << 20 || at == 3 << 20, "{at:#x}");
    // Rounded up to the quantum it would not fit.
    let rounded = holes(1 << 10, &[5 << 10]);
    refused(
        rounded.alloc(5121, Policy::Instant, NOW),
        VmemFault::Exhausted { size: 5121, free: 5120 },
    );
    assert!(rounded.alloc(4097, Policy::Instant, NOW).is_ok());
}

#[test]
fn a_phase_and_a_boundary() {
    let arena = arena(0x800, 0x1_0000, 0x1_0000);
    let constraints = Constraints::new().align(0x1000).phase(0x800).nocross(0x2000);
    let mut found = Vec::new();
    for policy in [Policy::Instant, Policy::Best, Policy::First, Policy::Next].repeat(2) {
        found.push(arena.xalloc(0x1800, constraints, policy, NOW).unwrap());
    }
    let missed = arena.xfree(found[1], 0x1800).map(|()| found[1]).unwrap();
    // From the middle of a window on, the aligned place in it would cross its end.
    let late = constraints.range(missed + 0x800, usize::MAX);
    refused(
        arena.xalloc(0x1800, late.range(missed + 0x800, missed + 0x27ff), Policy::First, NOW),
        VmemFault::Exhausted { size: 0x1800, free: 0x1_0000 - 7 * 0x1800 },
    );
    assert_eq!(arena.xalloc(0x1800, constraints, Policy::First, NOW).unwrap(), missed);
    found.sort_unstable();
    let expected: Vec<_> = (0..8).map(|window| 0x1_0000 + window * 0x2000 + 0x800).collect();
    assert_eq!(found, expected);
    refused(
        arena.xalloc(0x1800, constraints, Policy::Best, NOW),
        VmemFault::Exhausted { size: 0x1800, free: 0x4000 },
    );
    for at in found {
        arena.xfree(at, 0x1800).unwrap();
    }
    assert_eq!(segments(&arena), [(SegmentKind::Free, 0x1_0000, 0x1_0000)]);
}

#[test]
fn where_the_originals_panic() {
    let arena = arena(0x1000, 0x10_0000, 0x10_0000);
    let none = Constraints::new();
    let xalloc = |size, constraints| arena.xalloc(size, constraints, Policy::Instant, NOW);
    refused(xalloc(0, none), VmemFault::ZeroSize);
    refused(xalloc(usize::MAX - 100, none), VmemFault::Overflow(usize::MAX - 100));
    refused(xalloc(1, none.align(0x3000)), VmemFault::BadAlign(0x3000));
    refused(xalloc(1, none.align(0x800)), VmemFault::BadAlign(0x800));
    refused(xalloc(1, none.align(0x2000).phase(0x800)), VmemFault::BadPhase(0x800));
    refused(xalloc(1, none.align(0x2000).phase(0x2000)), VmemFault::BadPhase(0x2000));
    refused(xalloc(1, none.nocross(0x5000)), VmemFault::BadNocross(0x5000));
    refused(xalloc(1, none.nocross(0x400)), VmemFault::BadNocross(0x400));
    refused(xalloc(1, none.align(0x4000).nocross(0x2000)), VmemFault::Overconstrained);
    let across = none.align(0x2000).phase(0x1000).nocross(0x2000);
    refused(xalloc(0x1800, across), VmemFault::Overconstrained);
    refused(xalloc(0x2800, none.nocross(0x2000)), VmemFault::Overconstrained);
    refused(xalloc(1, none.range(2, 1)), VmemFault::BadRange { min: 2, max: 1 });

    refused(arena.add(0x40_0000, 0), VmemFault::ZeroSize);
    refused(arena.add(0x40_0800, 0x1000), VmemFault::Unaligned { base: 0x40_0800, size: 0x1000 });
    refused(arena.add(0x40_0000, 0x800), VmemFault::Unaligned { base: 0x40_0000, size: 0x800 });
    let (base, size) = (0usize.wrapping_sub(0x1000), 0x2000);
    refused(arena.add(base, size), VmemFault::TooLarge { base, size });
    let (base, size) = (0x20_0000, 0usize.wrapping_sub(0x20_0000));
    arena.add(base, size).unwrap();
    refused(arena.add(base - 0x1000, size), VmemFault::Overlap { base: base - 0x1000, size });
    // All addresses are one more than there are sizes; but in quanta they can be had.
    arena.add(0, 0x10_0000 - 0x1000).unwrap();
    let (base, size) = (0x10_0000 - 0x1000, 0x1000);
    refused(arena.add(base, size), VmemFault::TooLarge { base, size });

    let at = arena.alloc(0x2345, Policy::Best, NOW).unwrap();
    let allocated = 0x2345;
    for size in [0, 0x2344, 0x3000] {
        refused(arena.free(at, size), VmemFault::WrongSize { addr: at, size, allocated });
    }
    let inside = at + 0x1000;
    refused(arena.free(inside, 0x1000), VmemFault::NotAllocated { addr: inside, size: 0x1000 });
    refused(arena.free(base, 1), VmemFault::Foreign { addr: base, size: 1 });
    arena.free(at, allocated).unwrap();
    refused(arena.free(at, allocated), VmemFault::NotAllocated { addr: at, size: allocated });
    assert_eq!(arena.stats().in_use, 0);
    assert_eq!(arena.stats().fails, 12);

    assert_eq!(ArenaConfig::new("test", 0).unwrap_err().fault, VmemFault::BadQuantum(0));
    refused(ArenaConfig::new("test", 0x1800), VmemFault::BadQuantum(0x1800));
}

#[test]
fn both_ends_of_the_range() {
    let last = arena(1, usize::MAX - 9, 10);
    let all: Vec<_> = (0..10).map(|_| last.alloc(1, Policy::Next, NOW).unwrap()).collect();
    assert_eq!(all, (usize::MAX - 9..=usize::MAX).collect::<Vec<_>>());
    assert!(last.contains(usize::MAX, 1) && !last.contains(usize::MAX, 2));
    for at in all {
        last.free(at, 1).unwrap();
    }
    let top = last.xalloc(1, Constraints::new().range(usize::MAX, usize::MAX), Policy::First, NOW);
    assert_eq!(top.unwrap(), usize::MAX);
    let zero = arena(1, 0, 4);
    assert_eq!(zero.alloc(4, Policy::Instant, NOW).unwrap(), 0);
    zero.free(0, 4).unwrap();
    // All addresses but one.
    let all = arena(1, 0, usize::MAX);
    assert_eq!(all.alloc(usize::MAX, Policy::Best, NOW).unwrap(), 0);
    refused(all.alloc(1, Policy::Best, NOW), VmemFault::Exhausted { size: 1, free: 0 });
    all.free(0, usize::MAX).unwrap();
    // Beyond what can be aligned, or kept off a boundary, there is nothing.
    let none = Constraints::new();
    let half = 1 << (usize::BITS - 1);
    let one = all.xalloc(1, none.align(half).range(1, usize::MAX), Policy::Best, NOW).unwrap();
    assert_eq!(one, half);
    refused(
        all.xalloc(1, none.align(half).range(half + 1, usize::MAX), Policy::Best, NOW),
        VmemFault::Exhausted { size: 1, free: usize::MAX - 1 },
    );
}

#[test]
fn next_fit_does_not_come_back_soon() {
    let pids = arena(1, 1, 100);
    for round in 0..3 {
        for pid in 1..=100 {
            assert_eq!(pids.alloc(1, Policy::Next, NOW).unwrap(), pid, "round {round}");
            pids.free(pid, 1).unwrap();
        }
    }
    // Beside it, another policy takes what was freed last.
    assert_eq!(pids.alloc(1, Policy::Instant, NOW).unwrap(), 1);
    assert_eq!(pids.alloc(1, Policy::Next, NOW).unwrap(), 2);
}

#[test]
fn leaks_are_reported() {
    let arena = arena(16, 0, 1 << 10);
    let some = [5, 16, 100].map(|size| (arena.alloc(size, Policy::Instant, NOW).unwrap(), size));
    arena.free(some[1].0, 16).unwrap();
    let mut seen = Vec::new();
    let leaked = arena.destroy(|segment| seen.push((segment.addr, segment.size))).unwrap_err();
    assert_eq!(seen, [some[0], some[2]]);
    assert_eq!((leaked.segments, leaked.size), (2, 128));
    assert_eq!(
        leaked.to_string(),
        "arena \"test\": destroyed with 2 segments of 0x80 in all leaked"
    );
    assert_eq!(self::arena(1, 0, 1).destroy(|_| panic!("nothing leaked")), Ok(()));
}

/// The callback may do what it likes with the arena, and does not hear of an address twice.
#[test]
fn walks_let_others_work() {
    let arena = arena(1, 0, 1000);
    for _ in 0..500 {
        arena.alloc(2, Policy::Next, NOW).unwrap();
    }
    let mut covered = 0;
    arena
        .walk(|Segment { kind, addr, size }| {
            assert_eq!(addr, covered);
            covered += size;
            if kind == SegmentKind::Allocated {
                arena.free(addr, size).unwrap();
                // Joins what was reported with what was not yet.
                let ahead = (addr + 40) & !1;
                let _ = arena.free(ahead, 2);
                let _ = arena.free(addr + 36, 2);
            }
        })
        .unwrap();
    assert_eq!(covered, 1000);
    assert_eq!(segments(&arena), [(SegmentKind::Free, 0, 1000)]);

    let nested = |walks: usize| {
        fn go(arena: &Plain, walks: usize) -> Result<(), VmemError> {
            let mut result = Ok(());
            arena.walk(|_| {
                if walks > 1 {
                    result = go(arena, walks - 1);
                }
            })?;
            result
        }
        go(&arena, walks)
    };
    nested(4).unwrap();
    refused(nested(5), VmemFault::TooManyWalks);
    nested(4).unwrap();
}

/// No memory for tags at the k-th request: an error, and nothing is lost.
#[test]
fn bookkeeping_fails_at_every_point() {
    for fail in 1.. {
        let meta = HeapMeta::new();
        let config = ArenaConfig::new("test", 1).unwrap();
        let arena = Arena::<RawMutex, _, _>::new(config, &meta, NoSleep);
        meta.fail_at(fail);
        let mut failed = 0;
        while let Err(error) = arena.add(0, 10_000) {
            assert_eq!(error.fault, VmemFault::Metadata);
            failed += 1;
        }
        let mut live = Vec::new();
        while live.len() < 1000 {
            match arena.alloc(3, Policy::Instant, NOW) {
                Ok(at) => live.push(at),
                Err(error) => {
                    assert_eq!(error.fault, VmemFault::Metadata);
                    failed += 1;
                }
            }
        }
        for at in live {
            arena.free(at, 3).unwrap();
        }
        assert_eq!(arena.stats().in_use, 0);
        let whole = arena.alloc(10_000, Policy::Best, NOW).unwrap();
        arena.free(whole, 10_000).unwrap();
        let asked = meta.calls();
        drop(arena);
        assert_eq!(meta.outstanding().runs, 0);
        if asked < fail {
            assert!(failed == 0 && fail > 20, "{fail}");
            break;
        }
    }
}

/// What a segment costs does not grow with their number, and goes back.
#[test]
fn bookkeeping_is_bounded_and_goes_back() {
    let meta = HeapMeta::new();
    let config = ArenaConfig::new("test", 1).unwrap();
    let arena = Arena::<RawMutex, _, _>::new(config, &meta, NoSleep);
    arena.add(0, 1 << 20).unwrap();
    let mut live = Vec::new();
    for count in [10, 1_000, 20_000] {
        while live.len() < count {
            live.push(arena.alloc(2, Policy::Instant, NOW).unwrap());
        }
        let stats = arena.stats();
        assert_eq!(stats.meta_bytes, meta.outstanding().bytes);
        // 56 bytes of tag, 8 to 16 of table; and a block or two to spare.
        let each = if size_of::<usize>() == 8 { 74 } else { 40 };
        assert!(stats.meta_bytes <= each * count + 8192, "{stats:?}");
    }
    for at in live {
        arena.free(at, 2).unwrap();
    }
    assert!(arena.stats().meta_bytes <= 3 * 4096, "{:?}", arena.stats());
}
