//! The switch for the warnings of all zones, in a program of its own.

use std::process::Command;

use uma::{Zone, set_zone_warnings};

/// Not a test: what the other starts, to look at what it prints.
#[test]
fn a_case() {
    let Ok(case) = std::env::var("UMA_TEST_CASE") else { return };
    let zone = Zone::<u64>::builder("few").max_items(1).warning("too few").build().unwrap();
    let _one = zone.alloc(1).unwrap();
    set_zone_warnings(case == "on");
    assert!(zone.try_alloc(2).is_err());
    assert!(zone.try_alloc(2).is_err());
}

#[test]
fn warnings_are_on_or_off() {
    for (case, count) in [("on", 1), ("off", 0)] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_case", "--nocapture"]).env("UMA_TEST_CASE", case);
        let output = command.output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{err}");
        assert_eq!(err.matches("[zone: few] too few").count(), count, "{err}");
    }
}
