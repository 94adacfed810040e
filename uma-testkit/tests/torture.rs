//! Runs the torture test of the per-CPU protocol, and its negative control.
//!
//! `UMA_TORTURE_SECONDS` says how long each run takes (5 by default).

use std::process::{Command, Output};

/// Ends with this where there are no restartable sequences.
const NOT_HERE: i32 = 3;

fn torture(mode: &str, seconds: &str) -> Output {
    let output =
        Command::new(env!("CARGO_BIN_EXE_torture")).args([mode, seconds]).output().unwrap();
    let (out, err) = (&output.stdout, &output.stderr);
    print!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    output
}

fn seconds() -> String {
    std::env::var("UMA_TORTURE_SECONDS").unwrap_or_else(|_| "5".to_owned())
}

#[test]
fn rseq_loses_nothing() {
    let code = torture("rseq", &seconds()).status.code();
    if code == Some(NOT_HERE) {
        println!("NOT TESTED: this machine has no restartable sequences");
        return;
    }
    assert_eq!(code, Some(0));
}

#[test]
fn locks_lose_nothing() {
    assert_eq!(torture("locks", &seconds()).status.code(), Some(0));
}

/// Without the fence an item is handed out twice, or a bucket is torn: if the run does not notice,
/// the runs above prove nothing. It ends when it notices, which takes a second, or more where others want the CPUs.
#[test]
fn without_the_fence_it_fails() {
    let code = torture("nofence", "300").status.code();
    if code == Some(NOT_HERE) {
        println!("NOT TESTED: this machine has no restartable sequences");
        return;
    }
    assert_ne!(code, Some(0), "the negative control went well");
}
