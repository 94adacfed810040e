//! In the copy of a process: a thread that waits for a lock of the platform for the first time when there is no memory
//! left. (In an original it may not: there `parking_lot` takes some for it.)
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use lock_api::RawMutex;
use uma::{HostLock, Zone};
use uma_testkit::in_a_copy;

static NODES: Zone<u64> = Zone::new("node");
static TAKEN: HostLock = HostLock::INIT;
static READY: Barrier = Barrier::new(2);

/// Takes all memory that the C library has for this thread, and all that it could get.
fn eat() {
    // SAFETY: the limit is readable; what is allocated is never used.
    unsafe {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: libc::RLIM_INFINITY };
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &raw const none), 0);
        for size in [1 << 20, 1 << 12, 256, 64, 32, 24, 8] {
            while !std::hint::black_box(libc::malloc(size)).is_null() {}
            while !std::hint::black_box(libc::calloc(1, size)).is_null() {}
        }
    }
}

/// Not a test: what the others start.
#[test]
fn a_case() {
    match std::env::var("UMA_TEST_CASE").as_deref() {
        Ok("copy") => {
            // A zone is used, so forks are known.
            drop(NODES.alloc(1));
            let status = in_a_copy(|| {
                wait();
                false
            });
            assert_eq!(status, 0, "the copy");
        }
        Ok(case) => panic!("no case {case}"),
        Err(_) => {}
    }
}

/// A thread waits without memory, and ends the process. This is the first lock it takes at all.
fn wait() {
    TAKEN.lock();
    let waiter = thread::spawn(|| {
        eat();
        READY.wait();
        TAKEN.lock();
        // SAFETY: held just now.
        unsafe {
            TAKEN.unlock();
            libc::write(1, c"waited".as_ptr().cast(), 6);
            libc::_exit(0);
        }
    });
    READY.wait();
    thread::sleep(Duration::from_millis(100));
    // SAFETY: held by this thread.
    unsafe { TAKEN.unlock() };
    let _ = waiter.join();
}

fn outcome(case: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_case", "--nocapture"]).env("UMA_TEST_CASE", case);
    let output = command.output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("waited"), "{}: {err}", output.status);
}

#[test]
fn a_lock_is_waited_for_without_memory() {
    outcome("copy");
}
