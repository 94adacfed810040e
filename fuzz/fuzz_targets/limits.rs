//! Zones with limits of items, bytes and caches, in groups, with tasks that wait and are dropped.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uma_fuzz::programs;
use uma_testkit::ops::limits::LimitProgram;

fuzz_target!(|program: LimitProgram| programs::limits::limits(&program));
