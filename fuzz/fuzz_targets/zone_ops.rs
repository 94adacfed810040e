//! A whole zone: caches, limit, hooks that refuse and panic, slabs, pages that run out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uma_fuzz::programs;
use uma_testkit::ops::Program;

fuzz_target!(|program: Program| programs::zone::zone_ops(&program));
