//! A fork waits for what other threads do without the lock, so that nothing of it is lost to the copy.
#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use uma_backend_mmap::sys::{Errno, Kernel, System};
use uma_backend_mmap::{Config, HugePages, MmapPages};
use uma_core::{PageSupplier, Request};

/// A system in which mapping, unmapping and decommitting take long.
#[derive(Default)]
struct Slow {
    begun: AtomicBool,
    /// The next call takes until this is taken back.
    held: AtomicBool,
    ended: AtomicBool,
}

impl Slow {
    fn take<T>(&self, call: impl FnOnce() -> T) -> T {
        if !self.begun.swap(true, Ordering::SeqCst) {
            while self.held.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
        }
        thread::sleep(Duration::from_millis(50));
        let result = call();
        self.ended.store(true, Ordering::SeqCst);
        result
    }
}

// SAFETY: forwards to the system, or does nothing and says so.
unsafe impl System for &Slow {
    fn map(&self, len: usize) -> Result<NonNull<u8>, Errno> {
        self.take(|| Kernel.map(len))
    }

    fn reserve(&self, len: usize) -> Result<NonNull<u8>, Errno> {
        Kernel.reserve(len)
    }

    unsafe fn lock(&self, _: NonNull<u8>, _: usize) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn unlock(&self, _: NonNull<u8>, _: usize) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: passed on to the caller.
        self.take(|| unsafe { Kernel.unmap(at, len) })
    }

    unsafe fn discard(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: as above.
        self.take(|| unsafe { Kernel.discard(at, len) })
    }

    unsafe fn wall(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: as above.
        unsafe { Kernel.wall(at, len) }
    }

    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: as above.
        unsafe { Kernel.protect(at, len) }
    }

    unsafe fn unwall(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: as above.
        unsafe { Kernel.unwall(at, len) }
    }

    unsafe fn huge(&self, _: NonNull<u8>, _: usize, _: HugePages) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn dump(&self, at: NonNull<u8>, len: usize, yes: bool) -> Result<(), Errno> {
        // SAFETY: as above.
        unsafe { Kernel.dump(at, len, yes) }
    }

    unsafe fn name(&self, _: NonNull<u8>, _: usize, _: &CStr) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }
}

type Pages<'a> = MmapPages<parking_lot::RawMutex, &'a Slow>;

/// Forks, as far as locks go, while another thread is in the middle of `work`.
fn during(slow: &Slow, pages: &Pages<'_>, work: impl FnOnce() + Send) {
    slow.begun.store(false, Ordering::SeqCst);
    slow.ended.store(false, Ordering::SeqCst);
    thread::scope(|scope| {
        scope.spawn(work);
        while !slow.begun.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        pages.prefork();
        let ended = slow.ended.load(Ordering::SeqCst);
        // SAFETY: `prefork` was called above, on this thread.
        unsafe { pages.postfork() };
        assert!(ended, "the other thread has something in hand");
    });
    let stats = pages.stats();
    assert_eq!(stats.in_use + stats.dirty + stats.clean, stats.reserved);
}

#[test]
fn nothing_is_in_hand_when_a_process_is_copied() {
    let slow = Slow::default();
    let config = Config::DEFAULT.chunks(1 << 20, 1 << 20);
    let pages = Pages::with_system(config, &slow);
    let layout = Layout::from_size_align(1 << 16, 4096).unwrap();
    let take = || pages.alloc_pages(layout, Request::NOWAIT).unwrap();
    // SAFETY: the run is whole, and not used.
    let give = |run| unsafe { pages.free_pages(run) };
    during(&slow, &pages, || give(take()));
    during(&slow, &pages, || pages.decommit_all());
    // Another chunk, since one stays.
    let large = Layout::from_size_align(2 << 20, 4096).unwrap();
    give(pages.alloc_pages(large, Request::NOWAIT).unwrap());
    during(&slow, &pages, || pages.trim());
    assert_eq!((pages.stats().chunks, pages.stats().dirty), (1, 0));
}

/// Nobody begins to give memory back while a fork waits for who does already, or it might wait for ever.
#[test]
fn a_fork_is_not_held_up_by_who_comes_later() {
    let slow = Slow::default();
    let pages = Pages::with_system(Config::DEFAULT.chunks(1 << 20, 1 << 20), &slow);
    let layout = Layout::from_size_align(1 << 16, 4096).unwrap();
    // SAFETY: the run is whole, and not used.
    let dirty = || unsafe { pages.free_pages(pages.alloc_pages(layout, Request::NOWAIT).unwrap()) };
    dirty();
    slow.begun.store(false, Ordering::SeqCst);
    slow.held.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        scope.spawn(|| pages.decommit_all());
        let begun = Instant::now();
        let soon = || begun.elapsed() < Duration::from_secs(10);
        while !slow.begun.load(Ordering::SeqCst) && soon() {
            thread::yield_now();
        }
        scope.spawn(|| {
            pages.prefork();
            // SAFETY: just now, on this thread.
            unsafe { pages.postfork() };
        });
        // From some moment on it does nothing.
        let mut idle = false;
        while !idle && soon() {
            dirty();
            let calls = pages.stats().advises;
            pages.decommit_all();
            idle = pages.stats().advises == calls;
        }
        slow.held.store(false, Ordering::SeqCst);
        assert!(idle, "others go on while a fork waits");
    });
    dirty();
    pages.decommit_all();
    assert_eq!(pages.stats().dirty, 0, "it goes on after the fork");
}
