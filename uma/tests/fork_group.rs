//! A group's limit that is changed before the group has a zone: a fork knows nothing of its locks then, and the
//! copy waits for none.
#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};

use uma::core::Request;
use uma::{Park, RawZone, ZoneGroup};

static ABOVE: ZoneGroup = ZoneGroup::new("above", NonZeroU64::new(1 << 20), Park);
static GROUP: ZoneGroup =
    ZoneGroup::within(&ABOVE, "without zones", NonZeroU64::new(1 << 20), Park);

fn change_limits() {
    for bytes in [1 << 10, 1 << 20] {
        GROUP.set_max_bytes(NonZeroU64::new(bytes));
        ABOVE.set_max_bytes(NonZeroU64::new(bytes));
        GROUP.write_off();
    }
}

fn use_group() -> bool {
    change_limits();
    let zone = RawZone::builder("first", Layout::new::<[u64; 8]>()).group(&GROUP).build().unwrap();
    let item = zone.alloc(Request::NOWAIT);
    // SAFETY: it came from there and is not used.
    item.map(|item| unsafe { zone.free(item) }).is_ok()
}

#[test]
fn before_the_first_zone_of_a_group() {
    // The handlers of forks are there, but no zone of the group is.
    assert!(uma::zones().is_empty());
    let stop = AtomicBool::new(false);
    let mut ended = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                change_limits();
            }
        });
        // One copy that waits for ever is enough to know.
        while ended.len() < 50 && ended.iter().all(|&status| status == 0) {
            ended.push(fork_once());
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(ended, [0; 50], "what copies ended with");
}

/// What a copy of the process ends with that uses the group.
fn fork_once() -> i32 {
    // SAFETY: the copy uses what is made for that, and leaves at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: a signal ends a copy that waits for ever.
        unsafe { libc::alarm(20) };
        let fine = std::panic::catch_unwind(use_group);
        // SAFETY: ends the copy.
        unsafe { libc::_exit(i32::from(!fine.is_ok_and(|fine| fine))) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}
