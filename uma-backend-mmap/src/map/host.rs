//! What the arena of a map needs of the process: memory for tags, and a way to wait.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use uma_core::{Deadline, Metadata, Sleep};

use crate::sys::{System, page_size};

/// Memory for tags straight from the system, in whole pages: a block of tags is one page, but the first
/// few.
pub(super) struct TagPages<S>(pub(super) S);

fn rounded(layout: Layout) -> Option<usize> {
    let page = page_size();
    if layout.align() > page {
        return None;
    }
    layout.size().checked_next_multiple_of(page)
}

// SAFETY: each piece is a mapping of its own, at least as large as asked for, and aligned to a page. There
// is no zone in sight, and nothing unwinds.
unsafe impl<S: System> Metadata for TagPages<S> {
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.map(rounded(layout)?).ok()
    }

    unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
        if let Some(len) = rounded(layout) {
            // SAFETY: the caller gives back the whole mapping. If the system refuses, it is lost.
            let _ = unsafe { self.0.unmap(at, len) };
        }
    }
}

/// Waits by parking the thread.
pub(super) struct Park {
    start: Instant,
}

impl Park {
    pub(super) fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Sleep for Park {
    type Waker = Thread;

    fn now(&self) -> u64 {
        // 584 years fit.
        self.start.elapsed().as_nanos() as u64
    }

    fn waker(&self) -> Thread {
        thread::current()
    }

    fn sleep(&self, until: Deadline) {
        match until.nanoseconds() {
            None => thread::park(),
            Some(at) => thread::park_timeout(Duration::from_nanos(at.saturating_sub(self.now()))),
        }
    }

    fn wake(&self, waker: &Thread) {
        waker.unpark();
    }
}
