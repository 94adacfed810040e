//! Pointers that are not what they should be: each gets its report, and nothing else happens.

mod common;

use std::ptr::NonNull;

use common::{Machine, On};
use uma::Platform;
use uma_malloc::{Fault, Malloc, Reclaim, Request, SizeClasses};
use uma_testkit::{Fake, caught};

const NOWAIT: Request = Request::NOWAIT;

/// Frees what may not be freed, and returns what is said.
#[track_caller]
fn refused<P: Platform>(malloc: &Malloc<P>, at: NonNull<u8>) -> Fault {
    let before = malloc.stats();
    // SAFETY: the misuse is one that is found, so nothing is freed.
    let misuse = unsafe { malloc.try_free(at) }.expect_err("it is refused");
    let text = misuse.to_string();
    assert!(text.contains(&format!("{:#x}", at.addr())) && text.contains("\"misuse\""), "{text}");
    // SAFETY: as above.
    let panic = caught(|| unsafe { malloc.free(at) }).expect_err("it panics");
    assert!(panic.message.contains(&text), "{panic}");
    assert_eq!(malloc.stats(), before);
    misuse.fault
}

#[test]
fn pointers_that_are_not_ours() {
    let machine = Machine::new(Fake::new());
    let malloc = Malloc::new_in("misuse", SizeClasses::GENERAL, On(&machine));
    let on_stack = 0_u64;
    let heap = Box::new(0_u64);
    let foreign = || {
        let invalid = [8, 4096, usize::MAX, usize::MAX & !0xfff, 1 << 47, 1 << 63];
        let invalid = invalid
            .into_iter()
            .filter_map(|addr| NonNull::new(std::ptr::without_provenance_mut(addr)));
        invalid.chain([NonNull::from(&on_stack).cast(), NonNull::from(&*heap).cast()])
    };
    // Before the first use, and after.
    for _ in 0..2 {
        for at in foreign() {
            assert_eq!(refused(&malloc, at), Fault::Foreign);
            assert!(malloc.usable_size(at).is_err() && !malloc.contains(at));
        }
        let at = malloc.alloc(100, NOWAIT).unwrap();
        // SAFETY: the memory is ours.
        unsafe { malloc.free(at) };
    }
}

#[test]
fn pointers_into_the_middle() {
    // With small slabs, those of larger items hold one each.
    for largest_slab in [64 << 10, 4096] {
        let machine = Machine { largest_slab, ..Machine::new(Fake::new()) };
        let malloc = Malloc::new_in("misuse", SizeClasses::GENERAL, On(&machine));
        for size in [16, 48, 64, 112, 1000, 4096, 10_240, 65536, 65537, 1 << 20, 9 << 20] {
            let at = malloc.alloc(size, NOWAIT).unwrap();
            let pages = [4096, (size / 2) & !4095];
            let pages = pages.into_iter().filter(|&offset| 0 < offset && offset < size);
            for offset in [1, 8, size / 2 + 1, size - 1].into_iter().chain(pages) {
                // SAFETY: the offset lies in the allocation.
                let inside = unsafe { at.add(offset) };
                assert_eq!(refused(&malloc, inside), Fault::Interior, "{offset} of {size}");
            }
            // SAFETY: the memory is ours.
            unsafe { malloc.free(at) };
        }
    }
}

#[test]
fn double_frees() {
    let machine = Machine::new(Fake::new());
    let malloc = Malloc::new_in("misuse", SizeClasses::GENERAL, On(&machine));
    for size in [1, 16, 100, 4096, 65536] {
        let at = malloc.alloc(size, NOWAIT).unwrap();
        // Its neighbour keeps the slab.
        let other = malloc.alloc(size, NOWAIT).unwrap();
        // SAFETY: the memory is ours, and given up once.
        unsafe { malloc.free(at) };
        assert_eq!(refused(&malloc, at), Fault::DoubleFree, "{size} bytes, in a bucket");
        // SAFETY: the item was freed, which is what is found out.
        let panic = caught(|| unsafe { malloc.realloc(at, size, NOWAIT) });
        assert!(panic.unwrap_err().message.contains("double free"));
        malloc.reclaim(Reclaim::Trim);
        assert_eq!(refused(&malloc, at), Fault::DoubleFree, "{size} bytes, after a trim");
        // SAFETY: as above.
        unsafe { malloc.free(other) };
    }
    let at = malloc.alloc(100_000, NOWAIT).unwrap();
    // SAFETY: the memory is ours, and given up once.
    unsafe { malloc.free(at) };
    assert_eq!(refused(&malloc, at), Fault::Foreign, "a run that is back with the supplier");
}

/// After a class has given its slab back, nothing of it can be freed, and nothing there is looked at.
#[test]
fn pointers_into_slabs_that_went_back() {
    let machine = Machine::new(Fake::new());
    let malloc = Malloc::new_in("misuse", SizeClasses::GENERAL, On(&machine));
    for size in [16, 100, 4096, 65536] {
        let at = malloc.alloc(size, NOWAIT).unwrap();
        // SAFETY: the memory is ours, and given up.
        unsafe { malloc.free(at) };
        malloc.reclaim(Reclaim::DrainCpu);
        assert_eq!(machine.pages.outstanding().runs, 0);
        assert_eq!(refused(&malloc, at), Fault::Foreign);
    }
}

#[test]
fn wrong_sizes() {
    let machine = Machine::new(Fake::new());
    let malloc = Malloc::new_in("misuse", SizeClasses::KMEM_ALLOC, On(&machine));
    for (size, wrong) in [(100, 96), (100, 113), (8, 9), (200_000, 200_001), (200_000, 8)] {
        let at = malloc.alloc(size, NOWAIT).unwrap();
        // SAFETY: the memory is ours; what is refused stays so.
        unsafe {
            let misuse = malloc.try_free_sized(at, wrong).unwrap_err();
            assert_eq!(misuse.fault, Fault::WrongSize { given: wrong });
            assert!(misuse.to_string().contains(&format!("not {wrong}")), "{misuse}");
            let panic = caught(|| malloc.free_sized(at, wrong)).unwrap_err();
            assert!(panic.message.contains(&misuse.to_string()));
            malloc.free_sized(at, size);
        }
    }
    assert_eq!(malloc.stats().used(), 0);
}

/// Somebody writes to an item after it was freed, or frees it twice after that: it is never handed out.
#[test]
fn writes_after_free() {
    let machine = Machine::new(Fake::new());
    let malloc = Malloc::new_in("misuse", SizeClasses::GENERAL, On(&machine));
    machine.pages.allow_leaks();
    machine.metadata.allow_leaks();
    let at = malloc.alloc(64, NOWAIT).unwrap();
    // SAFETY: the slab is still there, so the write goes to memory of the zone.
    unsafe {
        malloc.free(at);
        at.write_bytes(7, 8);
    }
    let mut handed_out = Vec::new();
    for _ in 0..1000 {
        handed_out.push(malloc.alloc(64, NOWAIT).unwrap());
    }
    assert!(!handed_out.contains(&at));
    assert_eq!(malloc.stats().corrupt, 1);
    let reports = std::mem::take(&mut *machine.reports.lock().unwrap());
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert!(report.contains(&format!("{at:p}")) && report.contains("64 bytes"), "{report}");
    for at in handed_out {
        // SAFETY: the memory is ours.
        unsafe { malloc.free(at) };
    }
}

/// A double free that destroyed the mark in between is not handed out twice.
#[test]
fn double_free_without_a_mark() {
    let machine = Machine::new(Fake::new());
    machine.pages.allow_leaks();
    machine.metadata.allow_leaks();
    let malloc = Malloc::new_in("misuse", SizeClasses::GENERAL, On(&machine));
    let at = malloc.alloc(64, NOWAIT).unwrap();
    // SAFETY: as above: the slab is there.
    unsafe {
        malloc.free(at);
        at.write_bytes(7, 8);
        malloc.free(at);
    }
    let mut handed_out = Vec::new();
    for _ in 0..1000 {
        let new = malloc.alloc(64, NOWAIT).unwrap();
        // SAFETY: the memory is ours.
        unsafe { new.write_bytes(1, 64) };
        handed_out.push(new);
    }
    assert_eq!(handed_out.iter().filter(|&&other| other == at).count(), 1);
    assert_eq!(malloc.stats().corrupt, 1);
    std::mem::forget(malloc);
}
