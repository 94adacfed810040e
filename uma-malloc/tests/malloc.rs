//! What an instance does, one thing at a time.

mod common;

use std::alloc::Layout;
use std::ptr::NonNull;

use common::{Held, Machine, On};
use uma::core::{AllocError, PageError};
use uma_malloc::{Fault, Malloc, MallocFault, MallocType, Reclaim, Request, SizeClasses, TypeLeak};
use uma_testkit::{Budget, Fake};

const NOWAIT: Request = Request::NOWAIT;

fn fake() -> Machine<Fake> {
    Machine::new(Fake::new())
}

/// Whether so many bytes are zero.
fn is_zero(at: NonNull<u8>, len: usize) -> bool {
    // SAFETY: the tests ask about memory that is theirs.
    (0..len).all(|offset| unsafe { at.add(offset).read() } == 0)
}

#[test]
fn nothing_is_taken_before_the_first_use_and_nothing_stays() {
    let machine = fake();
    let malloc = Malloc::new_in("lazy", SizeClasses::GENERAL, On(&machine));
    assert_eq!(machine.metadata.outstanding().runs, 0);
    assert_eq!(malloc.stats(), Default::default());
    malloc.reclaim(Reclaim::DrainCpu);
    malloc.for_each_live(|_, _| panic!("nothing is live"));
    assert_eq!(machine.metadata.outstanding().runs, 0);
    let at = malloc.alloc(33, NOWAIT).unwrap();
    assert_eq!(machine.zones(), ["lazy-48"]);
    // SAFETY: the memory is ours.
    unsafe { malloc.free(at) };
    drop(malloc);
    assert_eq!((machine.metadata.outstanding().runs, machine.pages.outstanding().runs), (0, 0));
    assert_eq!(*machine.reports.lock().unwrap(), [""; 0]);
}

#[test]
fn every_class_and_large_sizes_serve_what_was_asked() {
    for table in [SizeClasses::GENERAL, SizeClasses::KMALLOC, SizeClasses::KMEM_ALLOC] {
        let machine = fake();
        let malloc = Malloc::new_in("all", table, On(&machine));
        let mut held = Vec::new();
        let edges = (0..table.count()).map(|class| table.size(class));
        let edges = edges.chain([table.max() + 1, 200_000, 1 << 20, (3 << 20) + 5]);
        for (token, size) in edges.flat_map(|size| [size - 1, size, size + 1]).enumerate() {
            let at = malloc.alloc(size, NOWAIT).unwrap();
            let usable = malloc.usable_size(at).unwrap();
            assert!(usable >= size);
            let align = table.class_of(size).map_or(4096, |class| table.align(class));
            // SAFETY: the memory is ours, all that is usable.
            held.push(unsafe { Held::new(at, usable, align, 3 * token as u64 + 2) });
        }
        assert_eq!(malloc.stats().used(), held.len() as u64);
        assert_eq!(malloc.stats().bytes, held.iter().map(|held| held.size as u64).sum());
        let mut live = Vec::new();
        malloc.for_each_live(|at, size| live.push((at, size)));
        live.sort();
        let mut all: Vec<_> = held.iter().map(|held| (held.at, held.size)).collect();
        all.sort();
        assert_eq!(live, all);
        for held in held {
            held.free(&malloc);
        }
        let stats = malloc.stats();
        assert_eq!((stats.used(), stats.bytes, stats.large, stats.large_bytes), (0, 0, 0, 0));
        malloc.reclaim(Reclaim::DrainCpu);
        assert_eq!(malloc.stats().held, 0);
        assert_eq!(machine.pages.outstanding().runs, 0);
    }
}

#[test]
fn every_alignment_up_to_4_mib() {
    let machine = fake();
    let malloc = Malloc::new_in("aligned", SizeClasses::GENERAL, On(&machine));
    for power in 0..=22 {
        for size in [0, 1, 24, 100, 1000, 5000, 70_000] {
            let layout = Layout::from_size_align(size, 1 << power).unwrap();
            let at = malloc.alloc_layout(layout, NOWAIT).unwrap();
            // SAFETY: the memory is ours.
            unsafe {
                let held = Held::new(at, size, 1 << power, 5);
                let at = malloc.realloc_layout(at, layout, size * 2 + 1, NOWAIT).unwrap();
                Held { at, ..held }.verify(usize::MAX);
                assert_eq!(at.addr().get() % layout.align(), 0);
                let layout = Layout::from_size_align(size * 2 + 1, 1 << power).unwrap();
                malloc.free_layout(at, layout);
            }
        }
    }
    assert_eq!(malloc.stats().used(), 0);
}

#[test]
fn zeroed_memory_is_zero_when_it_was_used_before() {
    let machine = fake();
    let malloc = Malloc::new_in("zero", SizeClasses::GENERAL, On(&machine));
    for size in [1, 8, 16, 100, 4096, 65536, 70_000, 1 << 20] {
        for _ in 0..3 {
            let at = malloc.zalloc(size, NOWAIT).unwrap();
            let usable = malloc.usable_size(at).unwrap();
            assert!(is_zero(at, usable), "{size} bytes");
            // SAFETY: the memory is ours.
            unsafe {
                at.write_bytes(0xff, usable);
                malloc.free(at);
            }
        }
    }
}

#[test]
fn absurd_sizes_change_nothing() {
    let machine = fake();
    let malloc = Malloc::new_in("absurd", SizeClasses::GENERAL, On(&machine));
    let at = malloc.alloc(10, NOWAIT).unwrap();
    let before = (machine.metadata.outstanding(), machine.pages.outstanding());
    let max = isize::MAX as usize;
    for size in [usize::MAX, usize::MAX - 4095, max + 1, max, max - 4094] {
        let error = malloc.alloc(size, NOWAIT).unwrap_err();
        assert_eq!(error.fault, MallocFault::TooLarge);
        let text = error.to_string();
        assert!(text.contains(&size.to_string()) && text.contains("\"absurd\""), "{text}");
        // SAFETY: the memory is ours, and stays so.
        let error = unsafe { malloc.realloc(at, size, NOWAIT) }.unwrap_err();
        assert_eq!(error.fault, MallocFault::TooLarge);
        assert!(malloc.alloc_or_null(size, NOWAIT).is_null());
    }
    for align in [0, 3, 48, usize::MAX] {
        let error = malloc.alloc_aligned(64, align, NOWAIT).unwrap_err();
        assert_eq!(error.fault, MallocFault::BadAlign);
        assert!(error.to_string().contains("power of two"));
    }
    assert_eq!((machine.metadata.outstanding(), machine.pages.outstanding()), before);
    // No object, but perhaps an address: the supplier is asked.
    let error = malloc.alloc_aligned(64, 1 << 62, NOWAIT).unwrap_err();
    assert!(matches!(error.fault, MallocFault::Alloc(_) | MallocFault::TooLarge), "{error}");
    let stats = malloc.stats();
    assert_eq!((stats.used(), stats.fails), (1, 20));
    // SAFETY: the memory is ours.
    unsafe { malloc.free(at) };
}

#[test]
fn realloc_stays_where_it_can() {
    let machine = fake();
    let malloc = Malloc::new_in("realloc", SizeClasses::GENERAL, On(&machine));
    // SAFETY: the memory is ours all along; a pointer that realloc replaced is used no more.
    unsafe {
        let at = malloc.alloc(100, NOWAIT).unwrap();
        assert_eq!(malloc.realloc(at, 112, NOWAIT).unwrap(), at);
        assert_eq!(malloc.realloc(at, 97, NOWAIT).unwrap(), at);
        let held = Held::new(at, 97, 1, 7);
        let moved = malloc.realloc(at, 113, NOWAIT).unwrap();
        assert_ne!(moved, at);
        let held = Held { at: moved, ..held };
        held.verify(usize::MAX);
        // Up to a run of pages, to another, and back.
        let large = malloc.realloc(moved, 100_000, NOWAIT).unwrap();
        Held { at: large, ..held }.verify(usize::MAX);
        assert_eq!(malloc.usable_size(large).unwrap(), 102_400);
        assert_eq!(malloc.realloc(large, 102_400, NOWAIT).unwrap(), large);
        let larger = malloc.realloc(large, 500_000, NOWAIT).unwrap();
        let held = Held::new(larger, 500_000, 4096, 8);
        let calls = machine.pages.decommit_calls();
        assert_eq!(malloc.realloc(larger, 300_000, NOWAIT).unwrap(), larger);
        assert_eq!(machine.pages.decommit_calls(), calls + 1, "the tail goes back");
        held.verify(300_000);
        assert_eq!(malloc.realloc(larger, 500_000, NOWAIT).unwrap(), larger);
        held.verify(300_000);
        malloc.realloc(larger, 300_001, NOWAIT).unwrap();
        let small = malloc.realloc(larger, 50, NOWAIT).unwrap();
        Held { at: small, size: 50, ..held }.free(&malloc);
    }
    let stats = malloc.stats();
    assert_eq!((stats.used(), stats.large_bytes), (0, 0));
}

#[test]
fn realloc_to_an_alignment_moves_where_it_must() {
    let machine = fake();
    let malloc = Malloc::new_in("aligned", SizeClasses::GENERAL, On(&machine));
    for (size, align) in [(40, 64), (3000, 4096), (100_000, 1 << 20)] {
        let at = malloc.alloc(size, NOWAIT).unwrap();
        // SAFETY: the memory is ours.
        let held = unsafe { Held::new(at, size, 1, size as u64) };
        // SAFETY: as above; it fails.
        let error = unsafe { malloc.realloc_aligned(at, size, 3, NOWAIT) }.unwrap_err();
        assert_eq!(error.fault, MallocFault::BadAlign);
        held.verify(usize::MAX);
        // SAFETY: as above; the old pointer is used no more.
        let at = unsafe { malloc.realloc_aligned(at, size - 1, align, NOWAIT) }.unwrap();
        let held = Held { at, size: size - 1, align, ..held };
        assert!(at.addr().get().is_multiple_of(align));
        held.verify(usize::MAX);
        // SAFETY: as above. It has the alignment, so it stays.
        assert_eq!(unsafe { malloc.realloc_aligned(at, size - 1, align, NOWAIT) }.unwrap(), at);
        held.free(&malloc);
    }
    assert_eq!(malloc.stats().used(), 0);
}

#[test]
fn what_is_zeroed_and_freed_leaves_nothing_behind() {
    let machine = fake();
    let malloc = Malloc::new_in("secret", SizeClasses::GENERAL, On(&machine));
    let at = malloc.alloc(1000, NOWAIT).unwrap();
    let usable = malloc.usable_size(at).unwrap();
    // SAFETY: the memory is ours, all that is usable; what is refused is left alone.
    unsafe {
        at.write_bytes(0x55, usable);
        assert_eq!(malloc.try_free_zeroed(at.add(8)).unwrap_err().fault, Fault::Interior);
        assert_eq!(at.add(8).read(), 0x55);
        malloc.try_free_zeroed(at).unwrap();
        assert_eq!(malloc.try_free_zeroed(at).unwrap_err().fault, Fault::DoubleFree);
    }
    let again = malloc.alloc(1000, NOWAIT).unwrap();
    assert_eq!(again, at, "on one CPU what was freed last comes first");
    assert!(is_zero(again, usable));
    // SAFETY: the memory is ours.
    unsafe { malloc.free(again) };
    assert_eq!(malloc.stats().used(), 0);
}

#[test]
fn before_it_fails_every_class_gives_back_what_it_caches() {
    let machine = Machine::new(Budget::new(Fake::new(), 1 << 20));
    let malloc = Malloc::new_in("tight", SizeClasses::GENERAL, On(&machine));
    let fill = |size: usize| {
        let mut held = Vec::new();
        loop {
            match malloc.alloc(size, NOWAIT) {
                Ok(at) => held.push(at),
                Err(error) => {
                    let exhausted = AllocError::Pages(PageError::Exhausted);
                    assert_eq!(error.fault, MallocFault::Alloc(exhausted));
                    break held;
                }
            }
        }
    };
    for size in [64, 1000, 20_000, 100_000, 64] {
        let held = fill(size);
        assert!(held.len() * size > 700 << 10, "{} of {size} bytes in 1 MiB", held.len());
        for at in held {
            // SAFETY: the memory is ours.
            unsafe { malloc.free(at) };
        }
    }
    assert_eq!(malloc.stats().used(), 0);
}

#[test]
fn types_know_who_uses_what() {
    let machine = fake();
    let malloc = Malloc::new_in("malloc", SizeClasses::MALLOC9, On(&machine));
    let temp = MallocType::new("temp", "buffers");
    let mut held = Vec::new();
    for size in [1, 16, 17, 300, 65536, 65537] {
        held.push(malloc.alloc_type(size, &temp, NOWAIT).unwrap());
    }
    let stats = temp.stats();
    let bytes = 16 + 16 + 32 + 384 + 65536 + 69632;
    assert_eq!((stats.allocs, stats.frees, stats.bytes, stats.high), (6, 0, bytes, bytes));
    assert_eq!(stats.sizes, 1 << 4 | 1 << 5 | 1 << 9 | 1 << 16 | 1 << 17);
    let line = stats.to_string();
    assert!(line.trim().starts_with("temp") && line.ends_with("16,32,512,65536,131072"), "{line}");
    // SAFETY: the memory is ours.
    unsafe {
        held[0] = malloc.realloc_type(held[0], 100, &temp, NOWAIT).unwrap();
        assert_eq!(temp.stats().bytes, bytes - 16 + 128);
        for at in held.drain(1..) {
            malloc.free_type(at, &temp);
        }
    }
    assert_eq!((temp.stats().used(), temp.stats().bytes), (1, 128));
    assert!(malloc.alloc_type(usize::MAX, &temp, NOWAIT).is_err());
    assert!(temp.stats().high >= bytes);
    // SAFETY: the memory is ours.
    unsafe { malloc.try_free_type(held[0], &temp).unwrap() };
    let other = MallocType::new("other", "");
    let at = malloc.alloc_type(5, &other, NOWAIT).unwrap();
    assert_eq!(temp.destroy(), Ok(()));
    let leak = other.destroy().unwrap_err();
    assert_eq!(leak, TypeLeak { name: "other".into(), used: 1, bytes: 16 });
    assert!(leak.to_string().contains("\"other\" leaked 1 allocations of 16 bytes"));
    // SAFETY: the memory is ours.
    unsafe { malloc.free(at) };
}

#[test]
fn instances_are_apart() {
    let machine = fake();
    let one = Malloc::new_in("one", SizeClasses::GENERAL, On(&machine));
    let two = Malloc::new_in("two", SizeClasses::KMALLOC, On(&machine));
    let (a, b) = (one.alloc(64, NOWAIT).unwrap(), two.alloc(64, NOWAIT).unwrap());
    assert!(one.contains(a) && two.contains(b) && !one.contains(b) && !two.contains(a));
    // SAFETY: the memory is ours; what is refused stays so.
    unsafe {
        assert!(one.try_free(b).is_err() && two.try_free(a).is_err());
        one.free(a);
        two.free(b);
    }
}

#[test]
fn a_leak_is_reported_and_its_memory_stays() {
    let machine = fake();
    machine.pages.allow_leaks();
    machine.metadata.allow_leaks();
    let malloc = Malloc::new_in("leaky", SizeClasses::GENERAL, On(&machine));
    let small = malloc.alloc(64, NOWAIT).unwrap();
    let large = malloc.alloc(100_000, NOWAIT).unwrap();
    drop(malloc);
    // SAFETY: the memory stays ours.
    unsafe {
        small.write_bytes(1, 64);
        large.write_bytes(1, 100_000);
    }
    let reports = machine.reports.lock().unwrap();
    let said = |words: &str| reports.iter().any(|report| report.contains(words));
    assert!(said("1 large runs of 102400 bytes"), "{reports:?}");
    assert!(said("\"leaky-64\"") && said(&format!("{:#x}", small.addr())), "{reports:?}");
}
