//! General-purpose allocation: size classes and large runs, over a supplier that has an end and fails.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uma_fuzz::programs;
use uma_testkit::ops::malloc::MallocProgram;

fuzz_target!(|program: MallocProgram| programs::malloc::malloc_ops(&program));
