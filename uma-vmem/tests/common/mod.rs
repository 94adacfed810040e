//! How the tests wait.
#![allow(unreachable_pub, dead_code)]

use std::sync::OnceLock;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use uma_core::{Deadline, Sleep};

/// Nanoseconds since somebody asked first.
pub fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Waits by parking.
pub struct Park;

impl Sleep for Park {
    type Waker = Thread;

    fn now(&self) -> u64 {
        now()
    }

    fn waker(&self) -> Thread {
        thread::current()
    }

    fn sleep(&self, until: Deadline) {
        match until.nanoseconds() {
            None => thread::park(),
            Some(at) => thread::park_timeout(Duration::from_nanos(at.saturating_sub(now()))),
        }
    }

    fn wake(&self, waker: &Thread) {
        waker.unpark();
    }
}
