//! A keg alone, over a supplier that has an end and fails.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uma_fuzz::programs;
use uma_testkit::ops::Program;

fuzz_target!(|program: Program| programs::keg::keg_ops(&program));
