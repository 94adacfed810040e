//! Maps in a process that is copied while other threads are at work on them.
#![cfg(target_os = "linux")]

use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::lock_api::{GuardNoSend, RawMutex};
use uma_backend_mmap::HugePages;
use uma_backend_mmap::map::{KmFlags, Map, MapConfig, MapFault};
use uma_backend_mmap::sys::{Errno, Kernel, System};
use uma_core::Process;

const PAGE: usize = 4 << 10;

/// A system whose calls take their time, and which knows how many are under way.
#[derive(Default)]
struct Slow {
    begun: AtomicBool,
    under_way: AtomicUsize,
    /// Refuses memory.
    empty: AtomicBool,
}

impl Slow {
    fn take<T>(&self, call: impl FnOnce() -> T) -> T {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        self.begun.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(2));
        let result = call();
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

// SAFETY: forwards to the system, or does nothing and says so.
unsafe impl System for &'static Slow {
    fn map(&self, len: usize) -> Result<NonNull<u8>, Errno> {
        Kernel.map(len)
    }

    fn reserve(&self, len: usize) -> Result<NonNull<u8>, Errno> {
        Kernel.reserve(len)
    }

    unsafe fn lock(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: passed on to the caller.
        self.take(|| unsafe { Kernel.lock(at, len) })
    }

    unsafe fn unlock(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: as above.
        self.take(|| unsafe { Kernel.unlock(at, len) })
    }

    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: as above.
        unsafe { Kernel.unmap(at, len) }
    }

    unsafe fn discard(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: as above.
        self.take(|| unsafe { Kernel.discard(at, len) })
    }

    unsafe fn wall(&self, _: NonNull<u8>, _: usize) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: as above.
        self.take(|| unsafe { Kernel.protect(at, len) })
    }

    unsafe fn unwall(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        if self.empty.load(Ordering::SeqCst) {
            return Err(libc::ENOMEM);
        }
        // SAFETY: as above.
        self.take(|| unsafe { Kernel.unwall(at, len) })
    }

    unsafe fn huge(&self, _: NonNull<u8>, _: usize, _: HugePages) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn name(&self, _: NonNull<u8>, _: usize, _: &CStr) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn dump(&self, _: NonNull<u8>, _: usize, _: bool) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }
}

type Maps = Map<parking_lot::RawMutex, &'static Slow>;

fn slow() -> &'static Slow {
    Box::leak(Box::default())
}

fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(100), "it never came about");
        thread::yield_now();
    }
}

fn free(map: &Maps, at: NonNull<u8>, size: usize, flags: KmFlags) {
    // SAFETY: what the tests free is theirs, whole, and not used any more.
    unsafe { map.free(at, size, flags).unwrap() }
}

/// Forks, as far as locks go, as soon as another thread has begun a call in the middle of `work`.
fn during(map: &Maps, slow: &Slow, work: impl FnOnce() + Send) {
    slow.begun.store(false, Ordering::SeqCst);
    thread::scope(|scope| {
        scope.spawn(work);
        until(|| slow.begun.load(Ordering::SeqCst));
        map.prefork();
        let under_way = slow.under_way.load(Ordering::SeqCst);
        slow.begun.store(false, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(10));
        let begun = slow.begun.load(Ordering::SeqCst);
        // SAFETY: `prefork` was called above, on this thread.
        unsafe { map.postfork(Process::Original) };
        assert_eq!(under_way, 0, "a call is under way");
        assert!(!begun, "a call began during the fork");
    });
}

#[test]
fn nothing_is_in_hand_when_a_process_is_copied() {
    let slow = slow();
    let map = Maps::with_system(MapConfig::new("test"), 16 * PAGE, slow).unwrap();
    let bare = map.alloc(4 * PAGE, 0, KmFlags::VAONLY).unwrap().expose_provenance().get();
    let bare = || NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(bare)).unwrap();
    for flags in [KmFlags::WIRED, KmFlags::PAGEABLE, KmFlags::PAGEABLE | KmFlags::WAITVA] {
        during(&map, slow, || {
            let at = map.alloc(PAGE, 0, flags).unwrap();
            free(&map, at, PAGE, flags - KmFlags::WAITVA);
        });
    }
    // SAFETY: the range is ours, and one thread is at it.
    during(&map, slow, || unsafe {
        map.enter(bare(), 0, 2 * PAGE).unwrap();
        map.remove(bare(), 0, 4 * PAGE).unwrap();
    });
    let at = map.alloc(PAGE, 0, KmFlags::PAGEABLE).unwrap();
    let addr = at.expose_provenance().get();
    during(&map, slow, || {
        let at = NonNull::new(std::ptr::with_exposed_provenance_mut(addr)).unwrap();
        let _ = map.set_pageable(at, PAGE, false);
        let _ = map.set_pageable(at, PAGE, true);
    });
    free(&map, at, PAGE, KmFlags::PAGEABLE);
    free(&map, bare(), 4 * PAGE, KmFlags::VAONLY);
    assert_eq!((map.stats().in_use, map.stats().committed), (0, 0));
}

/// Whoever waits, for room or for memory, does not hold up a fork, and goes on after it.
#[test]
fn who_waits_is_not_waited_for() {
    let slow = slow();
    let config = MapConfig::new("test").retry_every(1_000_000);
    let map = Maps::with_system(config, 4 * PAGE, slow).unwrap();
    let all = map.alloc(4 * PAGE, 0, KmFlags::VAONLY).unwrap();
    thread::scope(|scope| {
        let room =
            scope.spawn(|| map.alloc(PAGE, 0, KmFlags::PAGEABLE | KmFlags::WAITVA).unwrap().addr());
        until(|| map.stats().waiting == 1);
        map.prefork();
        // SAFETY: `prefork` was called above, on this thread.
        unsafe { map.postfork(Process::Original) };
        assert_eq!(map.stats().waiting, 1);
        slow.empty.store(true, Ordering::SeqCst);
        free(&map, all, 4 * PAGE, KmFlags::VAONLY);
        // It has room now, and waits for memory.
        until(|| map.stats().retries > 3);
        map.prefork();
        // SAFETY: as above.
        unsafe { map.postfork(Process::Original) };
        slow.empty.store(false, Ordering::SeqCst);
        let at = all.with_addr(room.join().unwrap());
        free(&map, at, PAGE, KmFlags::PAGEABLE);
    });
    assert_eq!(map.stats().in_use, 0);
}

/// TRYLOCK does not wait for a fork to be over either.
#[test]
fn trylock_fails_during_a_fork() {
    let map = Maps::with_system(MapConfig::new("test"), 4 * PAGE, slow()).unwrap();
    map.prefork();
    let error = map.alloc(PAGE, 0, KmFlags::WIRED | KmFlags::TRYLOCK).unwrap_err();
    assert_eq!(error.fault, MapFault::Busy);
    // SAFETY: `prefork` was called above, on this thread.
    unsafe { map.postfork(Process::Original) };
    assert!(map.alloc(PAGE, 0, KmFlags::PAGEABLE | KmFlags::TRYLOCK).is_ok());
}

/// A lock whose whole state is one word: in a copy nobody is missing from its queue.
struct OneWord(AtomicBool);

// SAFETY: one thread at a time changes the word from false to true, and only its holder changes it back.
unsafe impl RawMutex for OneWord {
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            thread::yield_now();
        }
    }

    fn try_lock(&self) -> bool {
        !self.0.swap(true, Ordering::Acquire)
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Real copies, made while others allocate and free: the copy has a map that works, with everything in it
/// that this thread has.
#[test]
fn a_copy_goes_on() {
    // Room for three of the four others: one waits. The rest is for the copies.
    let map = Map::<OneWord>::with_lock(MapConfig::new("test"), 72 * PAGE).unwrap();
    let mine = map.alloc(4 * PAGE, 0, KmFlags::PAGEABLE).unwrap();
    // SAFETY: four pages that are ours.
    unsafe { mine.write_bytes(7, 4 * PAGE) };
    let done = AtomicBool::new(false);
    let copies = thread::scope(|scope| {
        for flags in [KmFlags::WIRED, KmFlags::PAGEABLE, KmFlags::PAGEABLE, KmFlags::VAONLY] {
            let (map, done) = (&map, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let at = map.alloc(20 * PAGE, 0, flags | KmFlags::WAITVA).unwrap();
                    // SAFETY: whole, ours, and not used any more.
                    unsafe { map.free(at, 20 * PAGE, flags).unwrap() };
                }
            });
        }
        let copies: Vec<_> = (0..50).map(|_| status_of_a_copy(&map, mine)).collect();
        done.store(true, Ordering::Relaxed);
        copies
    });
    assert_eq!(copies, [0; 50]);
    assert_eq!(map.stats().in_use, 4 * PAGE);
}

/// Makes a copy, which uses the map. Neither it nor the map uses the heap then.
fn status_of_a_copy(map: &Map<OneWord>, mine: NonNull<u8>) -> libc::c_int {
    map.prefork();
    // SAFETY: the copy calls nothing but the map, which uses no heap and was made ready, and ends.
    let copy = unsafe { libc::fork() };
    assert!(copy >= 0, "no copy could be made");
    let process = if copy == 0 { Process::Copy } else { Process::Original };
    // SAFETY: `prefork` was called above, on this thread.
    unsafe { map.postfork(process) };
    if copy == 0 {
        // SAFETY: as above; it ends here.
        unsafe {
            libc::alarm(100);
            libc::_exit(work_of_a_copy(map, mine).err().unwrap_or(0));
        }
    }
    let mut status = -1;
    // SAFETY: the status is writable.
    assert_eq!(unsafe { libc::waitpid(copy, &raw mut status, 0) }, copy);
    status
}

/// What a copy does. The number of the step that failed.
fn work_of_a_copy(map: &Map<OneWord>, mine: NonNull<u8>) -> Result<(), libc::c_int> {
    let check = |step, well: bool| if well { Ok(()) } else { Err(step) };
    check(1, map.stats().waiting == 0)?;
    // SAFETY: the copy has the four pages, too; what it allocates and frees is its own.
    unsafe {
        check(2, mine.read() == 7 && mine.add(4 * PAGE - 1).read() == 7)?;
        for flags in [KmFlags::WIRED, KmFlags::PAGEABLE] {
            let at = map.alloc(PAGE, 0, flags).map_err(|_| 3)?;
            check(4, at.read() == 0)?;
            at.write(1);
            map.free(at, PAGE, flags).map_err(|_| 5)?;
        }
        map.free(mine, 4 * PAGE, KmFlags::PAGEABLE).map_err(|_| 6)?;
        // A copy of the copy could be made: nobody is inside.
        map.prefork();
        map.postfork(Process::Original);
    }
    Ok(())
}
