//! A group's limit that is changed before the group has a zone: a fork knows nothing of its locks then, and the
//! copy waits for none.
#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};

use uma::core::Request;
use uma::{Park, RawZone, ZoneGroup};
use uma_testkit::in_a_copy;

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
            ended.push(in_a_copy(use_group));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(ended, [0; 50], "what copies ended with");
}
