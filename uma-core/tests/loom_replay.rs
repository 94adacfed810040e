//! Histories in which a model failed are kept, and can be gone through again: shuttle prints one as a line of text, and
//! `loom_support/replays.txt` keeps it. A model of the library that failed once must pass all that is kept of it; the
//! planted fault must fail, or the line has lost its meaning (another shuttle, another body), and shows nothing.
#![cfg(all(shuttle, not(loom)))]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use shuttle::scheduler::RandomScheduler;
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::{Config, FailurePersistence, Runner};

/// A fault on purpose: two threads count, and one does not see the other.
fn a_lost_count() {
    let count = Arc::new(AtomicUsize::new(0));
    let threads = [(); 2].map(|()| {
        let count = count.clone();
        shuttle::thread::spawn(move || {
            let before = count.load(Ordering::SeqCst);
            count.store(before + 1, Ordering::SeqCst);
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(count.load(Ordering::SeqCst), 2, "a lost count");
}

/// What a history of a body ends with.
fn failure(replay: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(replay)).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.into())).unwrap_or_default())
}

/// One test: how shuttle tells of a failure is settled once for the process.
#[test]
fn failures_are_seen_again() {
    what_is_told_of_a_failure_is_enough();
    kept_histories_are_gone_through_again();
}

fn kept_histories_are_gone_through_again() {
    let kept = include_str!("loom_support/replays.txt").lines();
    let mut count = 0;
    for line in kept.filter(|line| !line.starts_with('#')) {
        let (model, history) = line.split_once(' ').expect("a model and a history");
        count += 1;
        match model {
            "a_lost_count" => {
                let said = failure(|| shuttle::replay(a_lost_count, history));
                assert!(said.is_some_and(|said| said.contains("a lost count")), "{line}");
            }
            other => panic!("{other} is no model that is known here"),
        }
    }
    assert!(count > 0);
}

fn what_is_told_of_a_failure_is_enough() {
    let place = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("replay");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).unwrap();
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::File(Some(place.clone()));
    let runner = Runner::new(RandomScheduler::new(1000), config);
    let said = failure(|| {
        runner.run(a_lost_count);
    });
    assert!(said.is_some_and(|said| said.contains("a lost count")), "the fault was not found");
    let file = std::fs::read_dir(&place).unwrap().next().unwrap().unwrap().path();
    println!("kept: a_lost_count {}", std::fs::read_to_string(&file).unwrap().trim());
    let said = failure(|| shuttle::replay_from_file(a_lost_count, &file));
    assert!(said.is_some_and(|said| said.contains("a lost count")), "it was not seen again");
}
