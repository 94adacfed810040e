//! Forks before any zone was used: the locks of pages and metadata are taken long before that, and nobody in the
//! copy waits for a thread that is gone. A program of its own, in which nothing else uses zones.
#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use uma::core::{Metadata, PageSupplier, Request};
use uma::{Host, Platform};
use uma_testkit::in_a_copy;

fn use_pages() -> bool {
    let layout = Layout::from_size_align(Host.pages().page_size(), 1).unwrap();
    let run = Host.pages().alloc_pages(layout, Request::NOWAIT);
    // SAFETY: the run is whole, and nobody uses it.
    run.map(|run| unsafe { Host.pages().free_pages(run) }).is_ok()
}

fn use_metadata() -> bool {
    let layout = Layout::new::<[u64; 4]>();
    let memory = Host.metadata().alloc_meta(layout);
    // SAFETY: it came from there with this layout, and nobody uses it.
    memory.map(|at| unsafe { Host.metadata().free_meta(at, layout) }).is_some()
}

fn use_registry() -> bool {
    Host.registry().visit(&mut |zone| panic!("nobody made the zone {}", zone.name()));
    true
}

const USES: [fn() -> bool; 3] = [use_pages, use_metadata, use_registry];

#[test]
fn before_the_first_zone() {
    let (stop, ready) = (AtomicBool::new(false), Barrier::new(USES.len() + 1));
    let mut ended = Vec::new();
    std::thread::scope(|scope| {
        for use_one in USES {
            let (stop, ready) = (&stop, &ready);
            scope.spawn(move || {
                ready.wait();
                while !stop.load(Ordering::Relaxed) {
                    assert!(use_one());
                }
            });
        }
        ready.wait();
        // One copy that waits for ever is enough to know.
        while ended.len() < 20 && ended.iter().all(|&status| status == 0) {
            ended.push(in_a_copy(|| USES.iter().all(|use_one| use_one())));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(ended, [0; 20], "what copies ended with");
}
