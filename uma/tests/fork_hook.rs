//! A hook that forks while its thread drains caches at the limit of a group: in the copy that thread goes
//! on from there.
#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use uma::core::{FnHooks, Item, Request};
use uma::{Park, RawZone, ZoneGroup};

static GROUP: ZoneGroup = ZoneGroup::new("forks", NonZeroU64::new(64), Park);
/// Whether the next fini forks, and what that said.
static FORKS: AtomicBool = AtomicBool::new(false);
static PID: AtomicI32 = AtomicI32::new(-1);

unsafe fn fork(_: *mut (), _: Item) {
    if FORKS.swap(false, Ordering::Relaxed) {
        // SAFETY: the copy uses zones, which are made for that, and leaves without running destructors.
        PID.store(unsafe { libc::fork() }, Ordering::Relaxed);
        if PID.load(Ordering::Relaxed) == 0 {
            // SAFETY: asks for a signal that ends a copy which waits for ever.
            unsafe { libc::alarm(100) };
        }
    }
}

/// The first zone caches all that the group has room for; its fini forks when the second asks for an item.
/// Returns the status of the copy, in which the same must be so as in the original.
fn forked_out_of(request: Request) -> i32 {
    let layout = Layout::new::<[u64; 8]>();
    let hooks = FnHooks { fini: Some(fork), ..FnHooks::NONE };
    // SAFETY: the hook touches nothing of an item.
    let first = unsafe { RawZone::builder("forks", layout).group(&GROUP).hooks(hooks) };
    let first = first.build().unwrap();
    let second = RawZone::builder("asks", layout).group(&GROUP).build().unwrap();
    // SAFETY: it came from there and was not used.
    unsafe { first.free(first.alloc(Request::NOWAIT).unwrap()) };
    FORKS.store(true, Ordering::Relaxed);
    let item = second.alloc(request);
    let pid = PID.load(Ordering::Relaxed);
    let good = item.is_ok_and(|item| {
        // SAFETY: it came from there and is not used any more.
        unsafe { second.free(item) };
        // Nobody wants it any more, so it stays in a cache.
        (GROUP.bytes(), second.stats().cached) == (64, 1)
    });
    if pid == 0 {
        // The first zone can leave the group: nobody looks at it.
        drop(first);
        // SAFETY: ends the copy.
        unsafe { libc::_exit(i32::from(!good)) }
    }
    assert!(good && pid > 0, "in the original");
    let mut status = 0;
    // SAFETY: waits for the child that was made above.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status
}

#[test]
fn a_fork_out_of_a_fini_for_one_who_does_not_wait_and_for_one_who_does() {
    assert_eq!(forked_out_of(Request::NOWAIT), 0, "about to fail");
    assert_eq!(forked_out_of(Request::WAIT), 0, "waiting");
}
