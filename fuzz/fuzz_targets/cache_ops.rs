//! Tiny bucket caches over a pool whose items are allocations of their own; the CPU is a byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uma_fuzz::programs;
use uma_testkit::ops::Program;

fuzz_target!(|program: Program| programs::cache::cache_ops(&program));
