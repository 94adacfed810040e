//! A global allocator that fails when it is told to, and counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Handles are never freed: they are aligned to this, and nothing else is.
const HANDLE: usize = 64;

struct Failing;

thread_local! {
    /// How many allocations of this thread succeed before one fails; none does at less than 0.
    pub(crate) static LEFT: Cell<i64> = const { Cell::new(-1) };
    /// How many fail from there.
    pub(crate) static MOST: Cell<u64> = const { Cell::new(1) };
    pub(crate) static FAILED: Cell<u64> = const { Cell::new(0) };
    /// What happens in the middle of the next allocation of this thread.
    pub(crate) static MEANWHILE: Cell<Option<fn()>> = const { Cell::new(None) };
}
/// Blocks that are allocated, but for handles.
pub(crate) static BLOCKS: AtomicI64 = AtomicI64::new(0);

fn fails() -> bool {
    let left = LEFT.get();
    if left < 0 {
        return false;
    }
    if left > 0 {
        LEFT.set(left - 1);
        return false;
    }
    FAILED.set(FAILED.get() + 1);
    if FAILED.get() >= MOST.get() {
        LEFT.set(-1);
    }
    if SHOWN.load(Ordering::Relaxed) {
        let left = LEFT.replace(-1);
        let trace = std::backtrace::Backtrace::force_capture();
        let _ = writeln!(std::io::stderr(), "{trace}");
        LEFT.set(left);
    }
    true
}

/// Whether the places of failures are shown.
pub(crate) static SHOWN: AtomicBool = AtomicBool::new(false);

// SAFETY: the system's, or null, which is allowed.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(meanwhile) = MEANWHILE.take() {
            meanwhile();
        }
        if fails() {
            return null_mut();
        }
        BLOCKS.fetch_add(i64::from(layout.align() != HANDLE), Ordering::Relaxed);
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BLOCKS.fetch_sub(i64::from(layout.align() != HANDLE), Ordering::Relaxed);
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if fails() {
            return null_mut();
        }
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static GLOBAL: Failing = Failing;
