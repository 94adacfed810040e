//! Forks under load of zones that share slabs, or a source: in the copy everything works, and every lock
//! was taken once and let go of.
//!
//! Each case runs in a process of its own: this program, started again with `UMA_TEST_CASE` set.
#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use uma::core::{AllocError, Item, ItemSource, NoHooks, Process, Reclaim, Request, Share, Shared};
use uma::{CacheZone, Host, Origin, RawZone, SecondaryZone};
use uma_testkit::in_a_copy;

static MBUFS: RawZone = RawZone::builder("mbuf", Layout::new::<[u64; 32]>()).lazy();
static PACKETS: SecondaryZone = RawZone::secondary_of(&MBUFS, "packet", Host).lazy();
static BUFFERS: RawZone = RawZone::builder("buffer", Layout::new::<[u64; 8]>()).lazy();

/// Items of a zone, under a lock of our own.
struct Guarded(spin::Mutex<()>);

// SAFETY: forwards to a zone.
unsafe impl ItemSource for Guarded {
    fn layout(&self) -> Layout {
        BUFFERS.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        drop(self.0.lock());
        ItemSource::import(&BUFFERS, into, request)
    }

    unsafe fn release(&self, items: &[Item]) {
        drop(self.0.lock());
        // SAFETY: passed on.
        unsafe { ItemSource::release(&BUFFERS, items) }
    }

    fn prefork(&self) {
        std::mem::forget(self.0.lock());
    }

    unsafe fn postfork(&self, _: Process) {
        // SAFETY: `prefork` forgot the guard.
        unsafe { self.0.force_unlock() };
    }
}

static GUARDED: Shared<Guarded> = Shared::new(Guarded(spin::Mutex::new(())));
type Over = CacheZone<Share<'static, Guarded>>;
static ONE: Over = RawZone::over("one", GUARDED.share()).bucket(8).lazy();
static TWO: Over = RawZone::over("two", GUARDED.share()).bucket(8).lazy();

/// Allocates, writes, checks and frees; more than the caches hold.
fn cycle<O: Origin<Host>>(zone: &RawZone<Host, NoHooks, O>, stamp: u64) {
    let items: Vec<_> = (0..400_u64)
        .map(|n| {
            let item = zone.alloc(Request::NOWAIT).unwrap();
            // SAFETY: the item is ours, and at least so large.
            unsafe { item.cast::<u64>().write(stamp ^ n) };
            item
        })
        .collect();
    for (n, item) in items.into_iter().enumerate() {
        // SAFETY: as above; it goes back where it came from.
        unsafe {
            assert_eq!(item.cast::<u64>().read(), stamp ^ n as u64);
            zone.free(item);
        }
    }
}

fn work(stamp: u64) {
    cycle(&PACKETS, stamp);
    cycle(&ONE, stamp + 1);
    cycle(&MBUFS, stamp + 2);
    cycle(&TWO, stamp + 3);
}

fn used() -> u64 {
    PACKETS.stats().used() + MBUFS.stats().used() + ONE.stats().used() + TWO.stats().used()
}

fn fork_under_load() {
    /// Ends the other threads, also if this one panics.
    struct Stop<'a>(&'a AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for n in 0..3 {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    work(n << 32);
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                uma::reclaim(Reclaim::DrainCpu);
                thread::sleep(Duration::from_millis(1));
            }
        });
        for number in 0..30 {
            thread::sleep(Duration::from_millis(3));
            let status = in_a_copy(|| {
                let before = used();
                work(7);
                uma::reclaim(Reclaim::DrainCpu);
                work(8);
                used() == before
            });
            assert_eq!(status, 0, "child {number} ended with status {status:#x}");
        }
    });
    assert_eq!(used(), 0);
    uma::reclaim(Reclaim::DrainCpu);
    uma::reclaim(Reclaim::DrainCpu);
    assert_eq!((MBUFS.stats().slabs, BUFFERS.stats().slabs), (0, 0));
}

#[test]
fn a_case() {
    if std::env::var("UMA_TEST_CASE").as_deref() == Ok("fork") {
        fork_under_load();
    }
}

#[test]
fn copies_of_zones_on_shared_slabs_and_sources_go_on() {
    for mode in ["rseq", "locks"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_case", "--nocapture"]).env("UMA_TEST_CASE", "fork");
        let output = command.env("UMA_PERCPU", mode).output().unwrap();
        let (out, err) = (&output.stdout, &output.stderr);
        print!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
        assert!(output.status.success(), "by {mode}: {}", output.status);
    }
}
