//! What uvm_km(9) says, a test for each sentence that says something to users, in its order.
//!
//! Sentences about the kernel's page daemon and interrupts are read as the module `map` reads them.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use uma_backend_mmap::map::{
    KmFlags, Map, MapConfig, MapError, MapFault, MapFlags, MapSegment, MapType,
};
use uma_core::Name;

const PAGE: usize = 4 << 10;
const MIB: usize = 1 << 20;
const WIRED: KmFlags = KmFlags::WIRED;
const PAGEABLE: KmFlags = KmFlags::PAGEABLE;
const VAONLY: KmFlags = KmFlags::VAONLY;
const TYPES: [KmFlags; 3] = [WIRED, PAGEABLE, VAONLY];

fn map(size: usize) -> Map {
    Map::new(MapConfig::new("test"), size).unwrap()
}

/// Whether the system can read there.
fn readable(at: NonNull<u8>) -> bool {
    let (_read, write) = std::io::pipe().unwrap();
    // SAFETY: the system looks whether it may read a byte there.
    unsafe { libc::write(write.as_raw_fd(), at.as_ptr().cast(), 1) == 1 }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, MapError>, fault: MapFault) {
    let error = result.unwrap_err();
    assert_eq!(error.fault, fault);
    assert_eq!(error.to_string(), format!("map \"test\": {fault}"));
}

fn free(map: &Map, at: NonNull<u8>, size: usize, flags: KmFlags) -> Result<(), MapError> {
    // SAFETY: no test uses what it has freed, and what is not allocated is refused.
    unsafe { map.free(at, size, flags) }
}

fn fill(at: NonNull<u8>, len: usize, byte: u8) {
    // SAFETY: the tests call it for accessible memory that they have.
    unsafe { at.write_bytes(byte, len) };
}

fn all(at: NonNull<u8>, len: usize, byte: u8) -> bool {
    // SAFETY: as above; memory of the system is initialised.
    let bytes = unsafe { std::slice::from_raw_parts(at.as_ptr(), len) };
    bytes.chunks(PAGE).all(|page| page == &[byte; PAGE][..page.len()])
}

fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(100), "it never came about");
        thread::yield_now();
    }
}

/// "Note that this is a raw allocator": ranges are whole pages, and do not overlap.
#[test]
fn allocates_size_bytes_in_map() {
    let map = map(MIB);
    for flags in TYPES {
        let mut held = BTreeSet::new();
        for size in [1, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE] {
            let at = map.alloc(size, 0, flags).unwrap();
            assert!(map.contains(at.addr().get()) && map.contains(at.addr().get() + size - 1));
            assert!(at.addr().get().is_multiple_of(PAGE));
            for page in 0..size.div_ceil(PAGE) {
                assert!(held.insert(at.addr().get() + page * PAGE), "overlap");
            }
        }
        assert_eq!(map.stats().in_use, held.len() * PAGE);
        let mut seen = Vec::new();
        map.walk(|segment| seen.push(segment)).unwrap();
        assert_eq!(seen.iter().map(|segment| segment.size).sum::<usize>(), held.len() * PAGE);
        for MapSegment { addr, size, .. } in seen {
            let at = NonNull::new(std::ptr::with_exposed_provenance_mut(addr)).unwrap();
            free(&map, at, size, flags).unwrap();
        }
        assert_eq!((map.stats().in_use, map.stats().committed), (0, 0));
    }
    refused(map.alloc(0, 0, WIRED), MapFault::ZeroSize);
    for size in [MIB + 1, usize::MAX - PAGE, usize::MAX] {
        for flags in [WIRED, WIRED | KmFlags::WAITVA] {
            refused(map.alloc(size, 0, flags), MapFault::TooLarge { size, map: MIB });
        }
    }
    map.destroy(|leak| panic!("{leak:?}")).unwrap();
}

#[test]
fn the_first_address_is_aligned_according_to_align() {
    for flags in [MapFlags::PAGEABLE, MapFlags::PAGEABLE | MapFlags::TOPDOWN] {
        let map = Map::new(MapConfig::new("test").flags(flags), 64 * MIB).unwrap();
        for align in (12..23).map(|bits| 1 << bits) {
            for size in [PAGE, 3 * PAGE] {
                for kind in TYPES {
                    let at = map.alloc(size, align, kind).unwrap();
                    assert!(at.addr().get().is_multiple_of(align), "{at:?} for {align:#x}");
                }
            }
        }
    }
}

#[test]
fn specify_0_if_no_alignment_is_necessary() {
    let map = map(4 * PAGE);
    for _ in 0..4 {
        map.alloc(PAGE, 0, VAONLY).unwrap();
    }
    refused(map.alloc(PAGE, 0, VAONLY), MapFault::Exhausted { size: PAGE, free: 0 });
}

#[test]
fn the_alignment_must_be_a_multiple_of_page_size() {
    let map = map(MIB);
    for align in [1, 8, PAGE / 2, PAGE + 1, 3 * PAGE, usize::MAX] {
        refused(map.alloc(PAGE, align, WIRED), MapFault::BadAlign(align));
    }
    // It could never be met.
    let align = 1 << 62;
    refused(
        map.alloc(PAGE, align, WIRED | KmFlags::WAITVA),
        MapFault::TooLarge { size: PAGE, map: MIB },
    );
}

#[test]
fn the_allocation_type_should_be_one_of() {
    let map = map(MIB);
    for flags in [KmFlags::empty(), KmFlags::NOWAIT, WIRED | PAGEABLE, WIRED | PAGEABLE | VAONLY] {
        refused(map.alloc(PAGE, 0, flags), MapFault::BadFlags(flags));
    }
}

#[test]
fn wired_memory() {
    let map = map(MIB);
    let at = map.alloc(4 * PAGE, 0, WIRED).unwrap();
    let stats = map.stats();
    assert_eq!((stats.committed, stats.locked), (4 * PAGE, 4 * PAGE * usize::from(there(at, 4))));
    if stats.locks_refused != 0 {
        println!("the system does not lock memory for this process: only half of the test ran");
    }
    fill(at, 4 * PAGE, 1);
    free(&map, at, 4 * PAGE, WIRED).unwrap();
    let stats = map.stats();
    assert_eq!((stats.committed, stats.locked, stats.discards_refused), (0, 0, 0));
    assert!(!readable(at));
}

/// Whether so many pages are resident, untouched as they are.
fn there(at: NonNull<u8>, pages: usize) -> bool {
    let mut seen = vec![0; pages];
    // SAFETY: there is a byte for each page.
    assert_eq!(unsafe { libc::mincore(at.as_ptr().cast(), pages * PAGE, seen.as_mut_ptr()) }, 0);
    seen.iter().all(|page| page & 1 != 0)
}

#[test]
fn demand_paged_zero_filled_memory() {
    let map = map(16 * PAGE);
    for round in 1..20 {
        let at = map.alloc(16 * PAGE, 0, PAGEABLE).unwrap();
        assert!(!there(at, 16), "there before it is touched");
        assert!(all(at, 16 * PAGE, 0));
        fill(at, 16 * PAGE, round);
        free(&map, at, 16 * PAGE, PAGEABLE).unwrap();
    }
}

#[test]
fn virtual_address_only_no_physical_pages_are_mapped() {
    let map = map(1 << 40);
    let at = map.alloc(1 << 39, 0, VAONLY).unwrap();
    assert!(!readable(at));
    assert_eq!(map.stats().committed, 0);
    free(&map, at, 1 << 39, VAONLY).unwrap();
}

#[test]
fn it_is_the_callers_responsibility_to_enter_page_mappings() {
    let map = map(MIB);
    let at = map.alloc(8 * PAGE, 0, VAONLY).unwrap();
    // SAFETY: the range is ours, and this thread alone is at it.
    unsafe {
        let two = map.enter(at, 2 * PAGE, 2 * PAGE).unwrap();
        assert_eq!(two, at.add(2 * PAGE));
        assert!(all(two, 2 * PAGE, 0));
        fill(two, 2 * PAGE, 7);
        assert!(!readable(at.add(PAGE)) && !readable(at.add(4 * PAGE)));
        // What is there already stays.
        map.enter(at, 3 * PAGE, 2 * PAGE).unwrap();
        assert!(all(two, 2 * PAGE, 7) && all(at.add(4 * PAGE), PAGE, 0));
        assert_eq!(map.stats().committed, 3 * PAGE);
        map.remove(at, 0, 4 * PAGE).unwrap();
        assert!(!readable(two) && readable(at.add(4 * PAGE)));
        map.remove(at, 0, 8 * PAGE).unwrap();
        map.enter(at, 2 * PAGE, PAGE).unwrap();
        assert!(all(two, PAGE, 0));
        map.remove(at, 0, 8 * PAGE).unwrap();
        map.enter(at, 8 * PAGE, 0).unwrap();

        let base = at.addr().get();
        for (offset, len) in
            [(0, 9 * PAGE), (8 * PAGE, PAGE), (1, PAGE), (0, 1), (PAGE, usize::MAX)]
        {
            let fault = MapFault::Foreign { addr: base + offset, size: len };
            refused(map.enter(at, offset, len), fault);
            refused(map.remove(at, offset, len), fault);
        }
        refused(
            map.enter(at.add(PAGE), 0, PAGE),
            MapFault::NotAllocated { addr: base + PAGE, size: PAGE },
        );
        let wired = map.alloc(PAGE, 0, WIRED).unwrap();
        let (given, allocated) = (MapType::VaOnly, MapType::Wired);
        let fault = MapFault::WrongType { addr: wired.addr().get(), given, allocated };
        refused(map.enter(wired, 0, PAGE), fault);
        refused(map.remove(wired, 0, PAGE), fault);
    }
    assert_eq!(map.stats().committed, PAGE);
    free(&map, at, 8 * PAGE, VAONLY).unwrap();
}

#[test]
fn it_is_the_callers_responsibility_to_clean_up_the_mappings_before_freeing() {
    let map = map(MIB);
    let at = map.alloc(8 * PAGE, 0, VAONLY).unwrap();
    // SAFETY: the range is ours.
    unsafe { map.enter(at, 0, 3 * PAGE).unwrap() };
    let fault = MapFault::Entered { addr: at.addr().get(), pages: 3 };
    refused(free(&map, at, 8 * PAGE, VAONLY), fault);
    assert!(readable(at), "an error changes nothing");
    // SAFETY: as above.
    unsafe { map.remove(at, 0, 3 * PAGE).unwrap() };
    free(&map, at, 8 * PAGE, VAONLY).unwrap();
}

/// UVM_KMF_CANFAIL is about memory, and so among the refusals (`tests/map_refusals.rs`). Room is waited for
/// all the same.
#[test]
fn can_fail_and_waitva_waits_for_room() {
    waits(WIRED | KmFlags::WAITVA | KmFlags::CANFAIL);
}

#[test]
fn request_zero_filled_memory() {
    let map = map(4 * PAGE);
    for round in 1..20 {
        let at = map.alloc(4 * PAGE, 0, WIRED | KmFlags::ZERO).unwrap();
        assert!(all(at, 4 * PAGE, 0));
        fill(at, 4 * PAGE, round);
        free(&map, at, 4 * PAGE, WIRED).unwrap();
    }
}

#[test]
fn zero_is_only_supported_for_wired() {
    let map = map(MIB);
    for flags in [PAGEABLE | KmFlags::ZERO, VAONLY | KmFlags::ZERO] {
        refused(map.alloc(PAGE, 0, flags), MapFault::ZeroNotWired(flags));
    }
}

/// A full map, and a lock that others hold for long: neither is waited for.
#[test]
fn trylock_fails_if_it_cannot_lock_the_map_without_sleeping() {
    type Held = Map<HeldLock, uma_backend_mmap::sys::Kernel>;
    let map =
        Held::with_system(MapConfig::new("test"), MIB, uma_backend_mmap::sys::Kernel).unwrap();
    for flags in TYPES {
        HELD.store(true, Ordering::Relaxed);
        let busy = map.alloc(PAGE, 0, flags | KmFlags::TRYLOCK | KmFlags::WAITVA);
        HELD.store(false, Ordering::Relaxed);
        refused(busy, MapFault::Busy);
        map.alloc(PAGE, 0, flags | KmFlags::TRYLOCK).unwrap();
    }
    let free = MIB - 3 * PAGE;
    map.alloc(free, 0, VAONLY).unwrap();
    let full = MapFault::Exhausted { size: PAGE, free: 0 };
    refused(map.alloc(PAGE, 0, WIRED | KmFlags::TRYLOCK | KmFlags::WAITVA), full);
}

static HELD: AtomicBool = AtomicBool::new(false);

/// A lock that cannot be had while `HELD`.
struct HeldLock(parking_lot::RawMutex);

// SAFETY: it is the lock within, but for refusing to try.
unsafe impl lock_api::RawMutex for HeldLock {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(<parking_lot::RawMutex as lock_api::RawMutex>::INIT);
    type GuardMarker = lock_api::GuardSend;

    fn lock(&self) {
        self.0.lock();
    }

    fn try_lock(&self) -> bool {
        !HELD.load(Ordering::Relaxed) && self.0.try_lock()
    }

    unsafe fn unlock(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.0.unlock() };
    }
}

#[test]
fn nowait_fails_immediately_if_no_memory_is_available() {
    let map = map(4 * PAGE);
    map.alloc(3 * PAGE, 0, VAONLY).unwrap();
    for flags in TYPES {
        let flags = flags | KmFlags::NOWAIT | KmFlags::WAITVA;
        refused(map.alloc(2 * PAGE, 0, flags), MapFault::Exhausted { size: 2 * PAGE, free: PAGE });
    }
    assert_eq!(map.stats().fails, 3);
}

/// Without UVM_KMF_WAITVA it fails for want of room, although it might wait for memory.
#[test]
fn without_waitva_room_is_not_waited_for() {
    let map = map(4 * PAGE);
    map.alloc(4 * PAGE, 0, VAONLY).unwrap();
    for flags in TYPES {
        refused(map.alloc(PAGE, 0, flags), MapFault::Exhausted { size: PAGE, free: 0 });
    }
}

fn waits(flags: KmFlags) {
    let map = map(4 * PAGE);
    let at = map.alloc(4 * PAGE, 0, VAONLY).unwrap();
    let addr = at.addr().get();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| map.alloc(2 * PAGE, 0, flags).unwrap().addr().get());
        until(|| map.stats().waiting == 1);
        thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        free(&map, at, 4 * PAGE, VAONLY).unwrap();
        assert_eq!(waiting.join().unwrap(), addr);
    });
    assert_eq!((map.stats().waits, map.stats().fails), (1, 0));
}

#[test]
fn waitva_sleeps_to_wait_for_the_virtual_address_resources() {
    for flags in TYPES {
        waits(flags | KmFlags::WAITVA);
    }
}

#[test]
fn sleep_indefinitely_until_the_allocation_succeeds() {
    let map = map(8 * PAGE);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..4_usize {
            let (map, done) = (&map, &done);
            scope.spawn(move || {
                let mut round = thread;
                while !done.load(Ordering::Relaxed) {
                    round += 1;
                    let (flags, size) = (TYPES[round % 2], (1 + round % 5) * PAGE);
                    let at = map.alloc(size, 0, flags | KmFlags::WAITVA).unwrap();
                    fill(at, size, thread as u8 + 1);
                    thread::yield_now();
                    assert!(all(at, size, thread as u8 + 1));
                    free(map, at, size, flags).unwrap();
                }
            });
        }
        until(|| map.stats().waits > 100);
        done.store(true, Ordering::Relaxed);
    });
    let stats = map.stats();
    assert_eq!((stats.in_use, stats.fails, stats.committed), (0, 0, 0));
}

#[test]
fn colormatch_aligns_to_a_colour() {
    for flags in [MapFlags::PAGEABLE, MapFlags::TOPDOWN] {
        let config = MapConfig::new("test").colors(8).flags(flags);
        let map = Map::new(config, MIB).unwrap();
        for color in (0..8).map(|color| color * PAGE) {
            for size in [PAGE, 3 * PAGE] {
                let at = map.alloc(size, color, VAONLY | KmFlags::COLORMATCH).unwrap();
                assert_eq!(at.addr().get() % (8 * PAGE), color);
            }
        }
        for color in [1, PAGE - 1, 8 * PAGE] {
            let flags = VAONLY | KmFlags::COLORMATCH;
            refused(map.alloc(PAGE, color, flags), MapFault::BadColor(color));
        }
    }
    for colors in [0, 3, 1 << 63] {
        let made = Map::new(MapConfig::new("test").colors(colors), MIB);
        refused(made, MapFault::BadColors(colors));
    }
}

#[test]
fn pageability_of_pageable_can_be_changed() {
    let map = map(MIB);
    let at = map.alloc(4 * PAGE, 0, PAGEABLE).unwrap();
    fill(at, PAGE, 1);
    match map.set_pageable(at, 4 * PAGE, false) {
        Ok(()) => {
            assert_eq!(map.stats().locked, 4 * PAGE);
            assert!(there(at, 4));
            map.set_pageable(at, 4 * PAGE, false).unwrap();
            map.set_pageable(at, 4 * PAGE, true).unwrap();
            assert_eq!(map.stats().locked, 0);
            // Freed locked as it is.
            map.set_pageable(at, 4 * PAGE, false).unwrap();
        }
        Err(error) => println!("only half of the test ran: {error}"),
    }
    assert!(all(at, PAGE, 1));
    free(&map, at, 4 * PAGE, PAGEABLE).unwrap();
    assert_eq!((map.stats().locked, map.stats().discards_refused), (0, 0));
    let wired = map.alloc(PAGE, 0, WIRED).unwrap();
    let (given, allocated) = (MapType::Pageable, MapType::Wired);
    refused(
        map.set_pageable(wired, PAGE, true),
        MapFault::WrongType { addr: wired.addr().get(), given, allocated },
    );
}

#[test]
fn changing_a_part_of_the_range_is_not_supported() {
    let map = map(MIB);
    let at = map.alloc(4 * PAGE, 0, PAGEABLE).unwrap();
    let addr = at.addr().get();
    for size in [PAGE, 3 * PAGE, 5 * PAGE] {
        let fault = MapFault::WrongSize { addr, size, allocated: 4 * PAGE };
        refused(map.set_pageable(at, size, false), fault);
    }
    // SAFETY: the pointer stays in the allocation.
    let inside = unsafe { at.add(PAGE) };
    let fault = MapFault::NotAllocated { addr: addr + PAGE, size: 3 * PAGE };
    refused(map.set_pageable(inside, 3 * PAGE, false), fault);
    assert_eq!(map.stats().locked, 0);
}

#[test]
fn free_frees_the_memory_range() {
    let map = map(4 * PAGE);
    for flags in TYPES.into_iter().cycle().take(100) {
        let at = map.alloc(4 * PAGE, 0, flags).unwrap();
        free(&map, at, 4 * PAGE, flags).unwrap();
        assert!(!readable(at));
    }
    let stats = map.stats();
    assert_eq!((stats.allocs, stats.frees, stats.segments), (100, 100, 0));
}

#[test]
fn addr_must_be_an_address_returned_by_alloc() {
    let map = map(MIB);
    let at = map.alloc(4 * PAGE, 0, WIRED).unwrap();
    let addr = at.addr().get();
    fill(at, 4 * PAGE, 3);
    // SAFETY: the pointers stay in the allocation, or are not used.
    unsafe {
        let fault = MapFault::NotAllocated { addr: addr + PAGE, size: PAGE };
        refused(map.free(at.add(PAGE), PAGE, WIRED), fault);
        let fault = MapFault::Foreign { addr: addr + 8, size: 4 * PAGE };
        refused(map.free(at.add(8), 4 * PAGE, WIRED), fault);
        let fault = MapFault::Foreign { addr: 8 * PAGE, size: PAGE };
        let low = NonNull::without_provenance(8.try_into().unwrap());
        refused(map.free(low.with_addr((8 * PAGE).try_into().unwrap()), PAGE, WIRED), fault);
        let behind = at.with_addr(map.max().try_into().unwrap());
        let fault = MapFault::Foreign { addr: map.max(), size: PAGE };
        refused(map.free(behind, PAGE, WIRED), fault);
    }
    assert!(all(at, 4 * PAGE, 3), "an error changes nothing");
    free(&map, at, 4 * PAGE, WIRED).unwrap();
    refused(free(&map, at, 4 * PAGE, WIRED), MapFault::NotAllocated { addr, size: 4 * PAGE });
}

/// Also if the two come at the same time.
#[test]
fn freed_twice_one_of_the_two_is_refused() {
    let map = map(MIB);
    for _ in 0..200 {
        let at = map.alloc(2 * PAGE, 0, PAGEABLE).unwrap();
        let addr = at.addr();
        let wins: usize = thread::scope(|scope| {
            let map = &map;
            let threads = [0, 1].map(|_| {
                scope.spawn(move || {
                    let at = NonNull::without_provenance(addr);
                    free(map, at, 2 * PAGE, PAGEABLE).is_ok()
                })
            });
            threads.map(|thread| usize::from(thread.join().unwrap())).into_iter().sum()
        });
        assert_eq!(wins, 1);
    }
    assert_eq!((map.stats().frees, map.stats().committed), (200, 0));
}

#[test]
fn map_and_size_must_be_the_same() {
    let map = map(MIB);
    let other = Map::new(MapConfig::new("test"), MIB).unwrap();
    let sub = map.suballoc(None, 4 * PAGE, MapConfig::new("test")).unwrap();
    let at = map.alloc(4 * PAGE - 1, 0, PAGEABLE).unwrap();
    let addr = at.addr().get();
    for size in [1, 3 * PAGE, 5 * PAGE, usize::MAX] {
        let fault = MapFault::WrongSize { addr, size, allocated: 4 * PAGE };
        refused(free(&map, at, size, PAGEABLE), fault);
    }
    for wrong in [&other, &sub] {
        let fault = MapFault::Foreign { addr, size: 4 * PAGE };
        refused(free(wrong, at, 4 * PAGE, PAGEABLE), fault);
    }
    let within = sub.alloc(PAGE, 0, PAGEABLE).unwrap();
    let (addr, allocated) = (within.addr().get(), MapType::Submap);
    let fault = MapFault::WrongType { addr, given: MapType::Pageable, allocated };
    refused(free(&map, within, PAGE, PAGEABLE), fault);
    free(&sub, within, PAGE, PAGEABLE).unwrap();
    free(&map, at, 4 * PAGE - 1, PAGEABLE).unwrap();
}

#[test]
fn flags_must_be_the_allocation_type_used() {
    let map = map(MIB);
    let of = [MapType::Wired, MapType::Pageable, MapType::VaOnly];
    for (flags, allocated) in TYPES.into_iter().zip(of) {
        let at = map.alloc(PAGE, 0, flags).unwrap();
        let addr = at.addr().get();
        for (other, given) in TYPES.into_iter().zip(of).filter(|&(other, _)| other != flags) {
            refused(free(&map, at, PAGE, other), MapFault::WrongType { addr, given, allocated });
        }
        for bad in [KmFlags::empty(), flags | KmFlags::NOWAIT, WIRED | PAGEABLE] {
            refused(free(&map, at, PAGE, bad), MapFault::BadFlags(bad));
        }
        free(&map, at, PAGE, flags).unwrap();
    }
}

#[test]
fn suballoc_allocates_submap_from_map() {
    let map = map(MIB);
    let sub = map.suballoc(None, 16 * PAGE, MapConfig::new("sub")).unwrap();
    assert_eq!((map.stats().in_use, sub.stats().size), (16 * PAGE, 16 * PAGE));
    for flags in TYPES {
        let at = sub.alloc(2 * PAGE, 0, flags).unwrap();
        assert!(sub.contains(at.addr().get()) && map.contains(at.addr().get()));
        free(&sub, at, 2 * PAGE, flags).unwrap();
    }
    // What is allocated within the submap is none of the parent's.
    let subsub = sub.suballoc(None, 8 * PAGE, MapConfig::new("subsub")).unwrap();
    let at = subsub.alloc(8 * PAGE, 0, WIRED).unwrap();
    fill(at, 8 * PAGE, 1);
    let mut seen = Vec::new();
    map.walk(|MapSegment { addr, size, of_type }| seen.push((addr, size, of_type))).unwrap();
    assert_eq!(seen, [(sub.min(), 16 * PAGE, MapType::Submap)]);
    // The addresses stay as long as somebody has a part of them.
    drop(map);
    drop(sub);
    assert!(all(at, 8 * PAGE, 1));
    let again = subsub.suballoc(None, PAGE, MapConfig::new("test"));
    assert_eq!(again.unwrap_err().fault, MapFault::Exhausted { size: PAGE, free: 0 });
    free(&subsub, at, 8 * PAGE, WIRED).unwrap();
}

#[test]
fn fixed_causes_min_to_specify_the_beginning() {
    for flags in [MapFlags::PAGEABLE, MapFlags::PAGEABLE | MapFlags::TOPDOWN] {
        let map = Map::new(MapConfig::new("test").flags(flags), MIB).unwrap();
        let config = MapConfig::new("sub");
        let min = map.min() + 16 * PAGE;
        let sub = map.suballoc(Some(min), 16 * PAGE, config).unwrap();
        assert_eq!((sub.min(), sub.max()), (min, min + 16 * PAGE));
        for (addr, size) in [(min, PAGE), (min - PAGE, 2 * PAGE), (sub.max() - PAGE, 4 * PAGE)] {
            refused(map.suballoc(Some(addr), size, config), MapFault::Taken { addr, size });
        }
        let max = map.max();
        for (addr, size) in [
            (min + 1, PAGE),
            (map.min() - PAGE, PAGE),
            (max, PAGE),
            (max - PAGE, 2 * PAGE),
            (0, PAGE),
            (usize::MAX - PAGE + 1, PAGE),
        ] {
            refused(map.suballoc(Some(addr), size, config), MapFault::Foreign { addr, size });
        }
        refused(map.suballoc(Some(min), 0, config), MapFault::ZeroSize);
        refused(map.suballoc(None, PAGE, config.colors(3)), MapFault::BadColors(3));
        // It ends with the value, and its addresses can be had again.
        drop(sub);
        let sub = map.suballoc(Some(min - PAGE), 20 * PAGE, config).unwrap();
        drop(sub);
        assert_eq!(map.stats().in_use, 0);
    }
}

#[test]
fn if_fixed_is_false_any_address_will_be_allocated_and_start_and_end_returned() {
    let map = map(16 * PAGE);
    let config = MapConfig::new("sub");
    let subs: Vec<_> = (0..4).map(|_| map.suballoc(None, 4 * PAGE, config).unwrap()).collect();
    let bounds: BTreeSet<_> = subs.iter().map(|sub| (sub.min(), sub.max())).collect();
    assert_eq!(bounds.len(), 4);
    assert!(bounds.iter().all(|&(min, max)| map.contains(min) && max - min == 4 * PAGE));
    let exhausted = MapFault::Exhausted { size: PAGE, free: 0 };
    refused(map.suballoc(None, PAGE, config), exhausted);
    // Who waits for room in the parent gets what a submap had.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| map.alloc(4 * PAGE, 0, WIRED | KmFlags::WAITVA).is_ok());
        until(|| map.stats().waiting == 1);
        drop(subs);
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn vm_map_pageable_entries_in_the_map_may_be_paged_out() {
    let map = map(MIB);
    let may = map.suballoc(None, 4 * PAGE, MapConfig::new("test")).unwrap();
    may.alloc(PAGE, 0, PAGEABLE).unwrap();
    let none = MapConfig::new("test").flags(MapFlags::empty());
    let may_not = map.suballoc(None, 4 * PAGE, none).unwrap();
    refused(may_not.alloc(PAGE, 0, PAGEABLE), MapFault::NotPageable);
    may_not.alloc(PAGE, 0, WIRED).unwrap();
}

#[test]
fn vm_map_intrsafe_never_sleeps() {
    let map = map(MIB);
    let flags = MapFlags::INTRSAFE | MapFlags::PAGEABLE;
    let sub = map.suballoc(None, 4 * PAGE, MapConfig::new("test").flags(flags)).unwrap();
    refused(sub.alloc(PAGE, 0, PAGEABLE), MapFault::NotPageable);
    sub.alloc(4 * PAGE, 0, WIRED).unwrap();
    let full = MapFault::Exhausted { size: PAGE, free: 0 };
    refused(sub.alloc(PAGE, 0, WIRED | KmFlags::WAITVA), full);
}

#[test]
fn vm_map_topdown_a_top_down_mapping_is_arranged() {
    let config = MapConfig::new("test").flags(MapFlags::TOPDOWN).guards(true);
    let map = Map::new(config, 32 * PAGE).unwrap();
    let mut top = map.max();
    let mut held = Vec::new();
    for size in [PAGE, 3 * PAGE, 5 * PAGE] {
        let at = map.alloc(size, 0, WIRED).unwrap();
        assert_eq!(at.addr().get() + size + PAGE, top);
        top = at.addr().get();
        fill(at, size, 1);
        // SAFETY: the pointer goes to the end of the allocation.
        assert!(!readable(unsafe { at.add(size) }), "the guard page is behind it");
        held.push((at, size));
    }
    let mut seen = BTreeSet::new();
    map.walk(|segment| {
        seen.insert((segment.addr, segment.size));
    })
    .unwrap();
    assert_eq!(seen, held.iter().map(|&(at, size)| (at.addr().get(), size)).collect());
    held.into_iter().for_each(|(at, size)| free(&map, at, size, WIRED).unwrap());
    assert_eq!(map.stats().in_use, 0);
}

#[test]
fn guard_pages_and_walls() {
    let map = Map::new(MapConfig::new("test").guards(true), 8 * PAGE).unwrap();
    let held = [0; 4].map(|_| map.alloc(PAGE, 0, WIRED).unwrap());
    for at in held {
        // SAFETY: the pointers stay in the mapping of the map.
        unsafe { assert!(readable(at) && !readable(at.add(PAGE)) && !readable(at.sub(PAGE))) };
    }
    assert_eq!(map.stats().in_use, 8 * PAGE);
    refused(map.alloc(8 * PAGE, 0, WIRED), MapFault::TooLarge { size: 8 * PAGE, map: 8 * PAGE });
}

/// uvm_km_va_starved_p: less than a tenth is free.
#[test]
fn starved_if_less_than_a_tenth_is_free() {
    let map = map(100 * PAGE);
    assert!(!map.starved());
    map.alloc(90 * PAGE, 0, VAONLY).unwrap();
    assert!(!map.starved());
    let at = map.alloc(PAGE, 0, VAONLY).unwrap();
    assert!(map.starved());
    free(&map, at, PAGE, VAONLY).unwrap();
    assert!(!map.starved());
}

static LEAKS: Mutex<Vec<(String, usize, MapType)>> = Mutex::new(Vec::new());

fn note(name: &Name, segment: MapSegment) {
    LEAKS.lock().unwrap().push((name.to_string(), segment.addr, segment.of_type));
}

#[test]
fn leaks_are_reported_and_stay_where_they_are() {
    let map = Map::new(MapConfig::new("whole").on_leak(note), MIB).unwrap();
    let sub = map.suballoc(None, 8 * PAGE, MapConfig::new("part").on_leak(note)).unwrap();
    let (bare, wired) = (map.alloc(PAGE, 0, VAONLY).unwrap(), sub.alloc(PAGE, 0, WIRED).unwrap());
    fill(wired, PAGE, 9);
    let min = sub.min();
    drop(map);
    assert_eq!(*LEAKS.lock().unwrap(), [], "the submap keeps its parent");
    drop(sub);
    let (bare, wired_at) = (bare.addr().get(), wired.addr().get());
    let mut leaks = std::mem::take(&mut *LEAKS.lock().unwrap());
    leaks[1..].sort_by_key(|leak| leak.2 != MapType::Submap);
    let whole = |addr, of_type| ("whole".to_owned(), addr, of_type);
    let part = ("part".to_owned(), wired_at, MapType::Wired);
    assert_eq!(leaks, [part, whole(min, MapType::Submap), whole(bare, MapType::VaOnly)]);
    assert!(all(wired, PAGE, 9));

    let map = Map::new(MapConfig::new("told").on_leak(note), MIB).unwrap();
    map.alloc(3 * PAGE, 0, PAGEABLE).unwrap();
    let mut told = Vec::new();
    let error = map.destroy(|segment| told.push(segment.size)).unwrap_err();
    assert_eq!(told, [3 * PAGE]);
    let text = "map \"told\": destroyed with 1 allocations of 0x3000 in all leaked";
    assert_eq!(error.to_string(), text);
    assert_eq!(*LEAKS.lock().unwrap(), [], "told once");
}

#[test]
fn sizes_of_maps() {
    refused(Map::new(MapConfig::new("test"), 0), MapFault::ZeroSize);
    let most = (isize::MAX as usize + 1) - 4 * PAGE;
    for size in [most + 1, usize::MAX] {
        refused(Map::new(MapConfig::new("test"), size), MapFault::TooLarge { size, map: most });
    }
    let error = Map::new(MapConfig::new("test"), most).unwrap_err();
    let (call, size) = ("mmap", most + 2 * PAGE);
    assert_eq!(error.fault, MapFault::System { call, size, errno: libc::ENOMEM });
    assert!(error.to_string().contains("mmap of 0x7fffffffffffe000: "), "{error}");
    assert_eq!(map(1).stats().size, PAGE);
}

/// Four threads, in a map and its submap: every page is its owner's, and zero when it comes.
#[test]
fn at_random_by_several_threads() {
    let config = MapConfig::new("test").guards(true);
    let map = Map::new(config, 256 * PAGE).unwrap();
    let top = config.flags(MapFlags::PAGEABLE | MapFlags::TOPDOWN);
    let sub = map.suballoc(None, 128 * PAGE, top).unwrap();
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let map = if thread % 2 == 0 { &map } else { &sub };
            scope.spawn(move || work_at_random(map, thread + 1));
        }
    });
    for map in [&sub, &map] {
        let stats = map.stats();
        assert_eq!((stats.committed, stats.locked, stats.fails == 0), (0, 0, false), "{stats:?}");
    }
    assert_eq!(sub.stats().in_use, 0);
    drop(sub);
    map.destroy(|leak| panic!("{leak:?}")).unwrap();
}

fn work_at_random(map: &Map, stamp: u8) {
    let mut rng = uma_testkit::Rng::new(u64::from(stamp));
    let mut held: Vec<(NonNull<u8>, usize, KmFlags)> = Vec::new();
    for _ in 0..3000 {
        if held.len() < 24 && rng.below(5) < 3 {
            let (flags, size) = (TYPES[rng.below(3)], (1 + rng.below(6)) * PAGE);
            let Ok(at) = map.alloc(size, PAGE << rng.below(4), flags) else { continue };
            if flags == VAONLY {
                // SAFETY: the range is ours.
                unsafe { map.enter(at, 0, size).unwrap() };
            }
            assert!(all(at, size, 0), "it is not zero");
            fill(at, size, stamp);
            held.push((at, size, flags));
        } else if !held.is_empty() {
            let which = rng.below(held.len());
            let (at, size, flags) = held.swap_remove(which);
            give(map, at, size, flags, stamp);
        }
    }
    held.into_iter().for_each(|(at, size, flags)| give(map, at, size, flags, stamp));
}

fn give(map: &Map, at: NonNull<u8>, size: usize, flags: KmFlags, stamp: u8) {
    assert!(all(at, size, stamp), "somebody else has written there");
    if flags == VAONLY {
        // SAFETY: the range is ours.
        unsafe { map.remove(at, 0, size).unwrap() };
    }
    free(map, at, size, flags).unwrap();
}
