//! Every system call of a map refused in turn: nothing is lost, and everything works again afterwards.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use uma_backend_mmap::HugePages;
use uma_backend_mmap::map::{KmFlags, Map, MapConfig, MapError, MapFault};
use uma_backend_mmap::sys::{Errno, Kernel, System};

const PAGE: usize = 4 << 10;
const KINDS: [&str; 8] =
    ["map", "reserve", "unmap", "discard", "protect", "unwall", "lock", "unlock"];

/// A system that refuses calls, and knows what is mapped.
#[derive(Default)]
struct Refusing(Mutex<Book>, Gate);

/// Calls to lock pages that wait until they may go on.
#[derive(Default)]
struct Gate {
    shut: AtomicBool,
    waiting: AtomicBool,
}

#[derive(Default)]
struct Book {
    calls: [usize; KINDS.len()],
    refused: usize,
    /// Which kind, from which call on, up to which.
    plan: Option<(usize, usize, usize)>,
    errno: Errno,
    /// How far a refused call to protect has come before.
    half_way: usize,
    mapped: BTreeMap<usize, usize>,
}

fn kind_of(name: &str) -> usize {
    KINDS.iter().position(|&kind| kind == name).unwrap()
}

impl Refusing {
    /// Counts a call and says whether it is to be made.
    fn may(&self, kind: &str) -> Result<(), Errno> {
        let kind = kind_of(kind);
        let mut book = self.0.lock().unwrap();
        let call = book.calls[kind];
        book.calls[kind] += 1;
        match book.plan {
            Some((planned, from, to)) if planned == kind && (from..to).contains(&call) => {
                book.refused += 1;
                Err(book.errno)
            }
            _ => Ok(()),
        }
    }

    fn plan(&self, kind: &str, from: usize, to: usize, errno: Errno) {
        let mut book = self.0.lock().unwrap();
        book.plan = Some((kind_of(kind), from, to));
        book.errno = errno;
    }

    fn note(&self, at: NonNull<u8>, len: usize) -> NonNull<u8> {
        self.0.lock().unwrap().mapped.insert(at.addr().get(), len);
        at
    }
}

// SAFETY: forwards to the system, or does nothing and says so.
unsafe impl System for &'static Refusing {
    fn map(&self, len: usize) -> Result<NonNull<u8>, Errno> {
        self.may("map")?;
        Ok(self.note(Kernel.map(len)?, len))
    }

    fn reserve(&self, len: usize) -> Result<NonNull<u8>, Errno> {
        self.may("reserve")?;
        Ok(self.note(Kernel.reserve(len)?, len))
    }

    unsafe fn lock(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        self.may("lock")?;
        let gate = &self.1;
        while gate.shut.load(Ordering::Acquire) {
            gate.waiting.store(true, Ordering::Release);
            thread::yield_now();
        }
        // SAFETY: passed on to the caller.
        unsafe { Kernel.lock(at, len) }
    }

    unsafe fn unlock(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        self.may("unlock")?;
        // SAFETY: as above.
        unsafe { Kernel.unlock(at, len) }
    }

    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        self.may("unmap")?;
        let known = self.0.lock().unwrap().mapped.remove(&at.addr().get());
        assert_eq!(known, Some(len), "not a whole mapping");
        // SAFETY: as above.
        unsafe { Kernel.unmap(at, len) }
    }

    unsafe fn discard(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        self.may("discard")?;
        // SAFETY: as above.
        unsafe { Kernel.discard(at, len) }
    }

    unsafe fn wall(&self, _: NonNull<u8>, _: usize) -> Result<(), Errno> {
        unreachable!("a map has no such walls")
    }

    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        if let Err(errno) = self.may("protect") {
            let half_way = self.0.lock().unwrap().half_way.min(len);
            if half_way != 0 {
                // SAFETY: a part of what the caller gives up.
                unsafe { Kernel.protect(at, half_way)? };
            }
            return Err(errno);
        }
        // SAFETY: as above.
        unsafe { Kernel.protect(at, len) }
    }

    unsafe fn unwall(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        self.may("unwall")?;
        // SAFETY: as above.
        unsafe { Kernel.unwall(at, len) }
    }

    unsafe fn huge(&self, _: NonNull<u8>, _: usize, _: HugePages) -> Result<(), Errno> {
        unreachable!("a map wishes for nothing")
    }

    unsafe fn dump(&self, _: NonNull<u8>, _: usize, _: bool) -> Result<(), Errno> {
        unreachable!("a map says nothing about dumps")
    }

    unsafe fn name(&self, _: NonNull<u8>, _: usize, _: &CStr) -> Result<(), Errno> {
        unreachable!("as above")
    }
}

type Maps = Map<parking_lot::RawMutex, &'static Refusing>;

fn system() -> &'static Refusing {
    Box::leak(Box::default())
}

fn all(at: NonNull<u8>, len: usize, byte: u8) -> bool {
    // SAFETY: the tests call it for accessible memory that they have; memory of the system is
    // initialised.
    let bytes = unsafe { std::slice::from_raw_parts(at.as_ptr(), len) };
    bytes.iter().all(|&other| other == byte)
}

fn tolerable(error: &MapError) {
    assert!(matches!(error.fault, MapFault::System { .. } | MapFault::Metadata), "{error}");
}

/// Something of everything. Refused allocations are left out, refused changes tried again.
fn work(map: &Maps) {
    let config = MapConfig::new("sub");
    let sub = map.suballoc(None, 16 * PAGE, config).inspect_err(tolerable).ok();
    for map in [Some(map), sub.as_ref()].into_iter().flatten() {
        let mut held = Vec::new();
        let types = [KmFlags::WIRED, KmFlags::PAGEABLE, KmFlags::VAONLY];
        for round in 0..12_usize {
            let (flags, size) = (types[round % 3], (1 + round % 2) * PAGE);
            match map.alloc(size, 0, flags | KmFlags::CANFAIL) {
                Ok(at) => held.push((at, size, flags)),
                Err(error) => tolerable(&error),
            }
            if round == 7 {
                held.drain(..).for_each(|one| use_and_free(map, one));
            }
        }
        held.drain(..).for_each(|one| use_and_free(map, one));
        let stats = map.stats();
        assert_eq!((stats.committed, stats.locked), (0, 0), "{stats:?}");
    }
    drop(sub);
    assert_eq!(map.stats().in_use, 0);
}

fn use_and_free(map: &Maps, (at, size, flags): (NonNull<u8>, usize, KmFlags)) {
    // SAFETY: the range is ours, this thread alone is at it, and does not use it when it is freed.
    unsafe {
        if flags == KmFlags::VAONLY {
            // Twice: what is entered for the second time is what was removed.
            for _ in 0..2 {
                while map.enter(at, 0, size).inspect_err(tolerable).is_err() {}
                assert!(all(at, size, 0), "what is entered is not zero");
                at.write_bytes(5, size);
                while map.remove(at, 0, size).inspect_err(tolerable).is_err() {}
            }
        } else {
            assert!(all(at, size, 0), "it is not zero");
            at.write_bytes(5, size);
        }
        if flags == KmFlags::PAGEABLE {
            let _ = map.set_pageable(at, size, false).inspect_err(tolerable);
            assert!(all(at, size, 5));
        }
        map.free(at, size, flags).unwrap();
    }
}

/// Works with calls `from..to` of one kind refused, and once more without. Returns how many calls of each
/// kind the first work makes.
fn work_refused(kind: usize, from: usize, to: usize) -> [usize; KINDS.len()] {
    let system = system();
    system.plan(KINDS[kind], from, to, libc::ENOMEM);
    let map = match Maps::with_system(MapConfig::new("test"), 40 * PAGE, system) {
        Ok(map) => map,
        Err(error) => {
            tolerable(&error);
            assert!(system.0.lock().unwrap().mapped.is_empty(), "a mapping is left");
            return [0; KINDS.len()];
        }
    };
    work(&map);
    let (calls, refused) = {
        let mut book = system.0.lock().unwrap();
        book.plan = None;
        (book.calls, book.refused)
    };
    work(&map);
    map.destroy(|leak| panic!("{leak:?}")).unwrap();
    let left = system.0.lock().unwrap().mapped.len();
    let lost = if KINDS[kind] == "unmap" { refused } else { 0 };
    assert_eq!(left, lost, "mappings are left");
    calls
}

/// How many calls of each kind there are if none is refused.
fn calls() -> [usize; KINDS.len()] {
    let calls = work_refused(0, usize::MAX, usize::MAX);
    println!("calls made: {KINDS:?} {calls:?}");
    assert!(calls.iter().all(|&calls| calls > 0), "{calls:?}");
    calls
}

#[test]
fn every_call_refused_once() {
    for (kind, calls) in calls().into_iter().enumerate() {
        for call in 0..calls {
            work_refused(kind, call, call + 1);
        }
    }
}

#[test]
fn all_calls_refused_from_one_on() {
    for (kind, calls) in calls().into_iter().enumerate() {
        // What is entered and removed is tried until it is.
        if !["unwall", "protect"].contains(&KINDS[kind]) {
            for call in 0..calls {
                work_refused(kind, call, usize::MAX);
            }
        }
    }
}

/// What a map keeps its books in is mapped too: without that there is no map, no submap, and, once the books are full, no
/// range; and each time nothing is left of the attempt.
#[test]
fn no_memory_for_its_books() {
    let config = || MapConfig::new("test");
    let books = |from: usize| {
        let system = system();
        system.plan("map", from, usize::MAX, libc::ENOMEM);
        (Maps::with_system(config(), 1000 * PAGE, system), system)
    };
    // Tags of the arena come first, then what says which page belongs to what, then what the owners share.
    let needed = (0..).find(|&from| books(from).0.is_ok()).unwrap();
    let faults: Vec<MapFault> = (0..needed)
        .map(|from| {
            let (made, system) = books(from);
            assert!(system.0.lock().unwrap().mapped.is_empty(), "a mapping is left");
            made.err().unwrap().fault
        })
        .collect();
    assert_eq!((faults[0], faults[needed - 1]), (MapFault::Metadata, MapFault::Metadata));

    let (map, system) = books(usize::MAX);
    let map = map.unwrap();
    let made = || system.0.lock().unwrap().calls[kind_of("map")];
    let refuse_from = |call| system.plan("map", call, usize::MAX, libc::ENOMEM);
    let before = made();
    drop(map.suballoc(None, 16 * PAGE, config()).unwrap());
    let last = made() - before - 1;
    refuse_from(made() + last);
    let error = map.suballoc(None, 16 * PAGE, config()).err().unwrap();
    assert_eq!((error.fault, map.stats().in_use), (MapFault::Metadata, 0));

    // Every other page free, so that each takes tags of its own.
    refuse_from(made());
    let mut held = Vec::new();
    let error = loop {
        match map.alloc(PAGE, 2 * PAGE, KmFlags::VAONLY | KmFlags::CANFAIL) {
            Ok(at) => held.push(at),
            Err(error) => break error,
        }
    };
    assert_eq!(error.fault, MapFault::Metadata, "{} ranges", held.len());
    assert_eq!(map.stats().in_use, held.len() * PAGE);
    system.0.lock().unwrap().plan = None;
    held.push(map.alloc(PAGE, 2 * PAGE, KmFlags::VAONLY | KmFlags::CANFAIL).unwrap());
    for at in held {
        // SAFETY: the range is ours, and nobody uses it.
        unsafe { map.free(at, PAGE, KmFlags::VAONLY).unwrap() };
    }
    map.destroy(|leak| panic!("{leak:?}")).unwrap();
    assert!(system.0.lock().unwrap().mapped.is_empty(), "a mapping is left");
}

/// "UVM_KMF_CANFAIL Can fail even if UVM_KMF_NOWAIT is not specified and UVM_KMF_WAITVA is specified."
#[test]
fn canfail_can_fail_even_if_nowait_is_not_specified_and_waitva_is_specified() {
    let system = system();
    let map = Maps::with_system(MapConfig::new("test"), 40 * PAGE, system).unwrap();
    system.plan("unwall", 0, usize::MAX, libc::ENOMEM);
    for flags in [KmFlags::WIRED, KmFlags::PAGEABLE] {
        for may in [KmFlags::CANFAIL, KmFlags::NOWAIT, KmFlags::TRYLOCK] {
            let error = map.alloc(2 * PAGE, 0, flags | may | KmFlags::WAITVA).unwrap_err();
            let (call, size, errno) = ("mprotect", 2 * PAGE, libc::ENOMEM);
            assert_eq!(error.fault, MapFault::System { call, size, errno });
            let text =
                "map \"test\": the system refused mprotect of 0x2000: Cannot allocate memory";
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }
    let stats = map.stats();
    assert_eq!((stats.in_use, stats.committed, stats.commits_refused), (0, 0, 6));
}

/// "If neither UVM_KMF_NOWAIT nor UVM_KMF_CANFAIL are specified and UVM_KMF_WAITVA is specified,
/// uvm_km_alloc() will never fail": for memory too.
#[test]
fn will_never_fail_but_rather_sleep_until_there_is_memory() {
    const FLAGS: KmFlags = KmFlags::WIRED.union(KmFlags::WAITVA);
    let system = system();
    let config = MapConfig::new("test").retry_every(1_000_000);
    for refused in ["unwall", "map"] {
        let map = Maps::with_system(config, 40 * PAGE, system).unwrap();
        let calls = system.0.lock().unwrap().calls[kind_of(refused)];
        system.plan(refused, calls, usize::MAX, libc::ENOMEM);
        thread::scope(|scope| {
            // One page each, so that tags are needed.
            let alloc = || map.alloc(PAGE, 0, FLAGS).is_ok();
            let waiting = scope.spawn(move || (0..40).all(|_| alloc()));
            let start = Instant::now();
            while map.stats().retries < 3 {
                assert!(start.elapsed() < Duration::from_secs(100), "it does not wait ({refused})");
                thread::yield_now();
            }
            assert!(!waiting.is_finished());
            system.0.lock().unwrap().plan = None;
            assert!(waiting.join().unwrap());
        });
        // An error that no waiting mends.
        system.plan("unwall", 0, usize::MAX, libc::EACCES);
        let other = Maps::with_system(config, PAGE, system).unwrap();
        let error = other.alloc(PAGE, 0, FLAGS).unwrap_err();
        assert!(matches!(error.fault, MapFault::System { errno: libc::EACCES, .. }), "{error}");
        system.0.lock().unwrap().plan = None;
    }
}

/// RLIMIT_MEMLOCK: wired in name only, and that is counted.
#[test]
fn wired_memory_that_the_system_does_not_lock() {
    let system = system();
    let map = Maps::with_system(MapConfig::new("test"), 40 * PAGE, system).unwrap();
    system.plan("lock", 0, usize::MAX, libc::ENOMEM);
    let at = map.alloc(4 * PAGE, 0, KmFlags::WIRED | KmFlags::ZERO).unwrap();
    assert!(all(at, 4 * PAGE, 0));
    assert_eq!((map.stats().locked, map.stats().locks_refused), (0, 1));
    let other = map.alloc(PAGE, 0, KmFlags::PAGEABLE).unwrap();
    let error = map.set_pageable(other, PAGE, false).unwrap_err();
    let (call, size, errno) = ("mlock", PAGE, libc::ENOMEM);
    assert_eq!(error.fault, MapFault::System { call, size, errno });
    // SAFETY: both are whole, ours, and not used any more.
    unsafe {
        map.free(at, 4 * PAGE, KmFlags::WIRED).unwrap();
        map.free(other, PAGE, KmFlags::PAGEABLE).unwrap();
    }
    assert_eq!(map.stats().discards_refused, 0);
}

/// What the system did not make inaccessible is so when it is handed out as addresses only.
#[test]
fn addresses_only_are_bare_also_after_a_refusal() {
    let system = system();
    let map = Maps::with_system(MapConfig::new("test"), 4 * PAGE, system).unwrap();
    let at = map.alloc(4 * PAGE, 0, KmFlags::WIRED).unwrap();
    system.plan("protect", 0, 1, libc::ENOMEM);
    // SAFETY: whole, ours, and not used any more.
    unsafe { map.free(at, 4 * PAGE, KmFlags::WIRED).unwrap() };
    assert_eq!(map.stats().protects_refused, 1);
    let before = system.0.lock().unwrap().calls[kind_of("protect")];
    map.alloc(4 * PAGE, 0, KmFlags::VAONLY).unwrap();
    let after = system.0.lock().unwrap().calls[kind_of("protect")];
    assert_eq!(after, before + 1, "it was not tried again");
}

/// What could not be removed counts as entered, and is zero. What is inaccessible of it, since the system had
/// come half way, is accessible again when it is entered.
#[test]
fn what_is_not_removed_is_still_entered() {
    let system = system();
    let map = Maps::with_system(MapConfig::new("test"), 8 * PAGE, system).unwrap();
    let at = map.alloc(8 * PAGE, 0, KmFlags::VAONLY).unwrap();
    // SAFETY: the range is ours, and this thread alone is at it.
    unsafe {
        map.enter(at, 0, 4 * PAGE).unwrap().write_bytes(1, 4 * PAGE);
        for half_way in [0, 2 * PAGE] {
            let calls = system.0.lock().unwrap().calls[kind_of("protect")];
            system.plan("protect", calls, calls + 1, libc::ENOMEM);
            system.0.lock().unwrap().half_way = half_way;
            let error = map.remove(at, 0, 6 * PAGE).unwrap_err();
            let (call, size, errno) = ("mprotect", 6 * PAGE, libc::ENOMEM);
            assert_eq!(error.fault, MapFault::System { call, size, errno });
            assert_eq!(map.stats().committed, 4 * PAGE);
            let freed = map.free(at, 8 * PAGE, KmFlags::VAONLY).unwrap_err();
            assert_eq!(freed.fault, MapFault::Entered { addr: at.addr().get(), pages: 4 });
            assert!(all(at.add(half_way), 4 * PAGE - half_way, 0), "it is not zero");
            map.enter(at, 0, 4 * PAGE).unwrap();
            assert!(all(at, 4 * PAGE, 0), "it is not zero");
            at.write_bytes(1, 4 * PAGE);
        }
        // Without a refusal to discard, and with one.
        let calls = system.0.lock().unwrap().calls[kind_of("discard")];
        system.plan("discard", calls, calls + 1, libc::EINVAL);
        map.remove(at, 0, 8 * PAGE).unwrap();
        map.enter(at, 0, 8 * PAGE).unwrap();
        assert!(all(at, 8 * PAGE, 0), "it is not zero");
        map.remove(at, 0, 8 * PAGE).unwrap();
        map.free(at, 8 * PAGE, KmFlags::VAONLY).unwrap();
    }
    assert_eq!(map.stats().committed, 0);
}

/// While one call changes an allocation no other does: it is refused, and nothing is taken away meanwhile.
#[test]
fn freed_while_another_call_is_at_work() {
    let system = system();
    let map = Maps::with_system(MapConfig::new("test"), 4 * PAGE, system).unwrap();
    let at = map.alloc(4 * PAGE, 0, KmFlags::PAGEABLE).unwrap();
    let addr = at.addr();
    // SAFETY: the memory is ours; it is freed twice in vain, and then once.
    unsafe {
        at.write_bytes(1, 4 * PAGE);
        let gate = &system.1;
        gate.shut.store(true, Ordering::Release);
        thread::scope(|scope| {
            let map = &map;
            let at_work = scope.spawn(move || {
                map.set_pageable(NonNull::without_provenance(addr), 4 * PAGE, false)
            });
            while !gate.waiting.load(Ordering::Acquire) {
                thread::yield_now();
            }
            let freed = map.free(at, 4 * PAGE, KmFlags::PAGEABLE);
            let changed = map.set_pageable(at, 4 * PAGE, true);
            gate.shut.store(false, Ordering::Release);
            let fault = MapFault::InUse { addr: addr.get() };
            assert_eq!((freed.unwrap_err().fault, changed.unwrap_err().fault), (fault, fault));
            // A process that may lock nothing is refused now.
            let _ = at_work.join().unwrap().inspect_err(tolerable);
        });
        assert!(all(at, 4 * PAGE, 1));
        map.free(at, 4 * PAGE, KmFlags::PAGEABLE).unwrap();
    }
    assert_eq!(map.stats().in_use, 0);
}
