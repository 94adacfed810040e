//! An arena beside a set of intervals: every answer is right, and every failure necessary.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uma_fuzz::programs;
use uma_testkit::ops::decisions::Decisions;

fuzz_target!(|decisions: Decisions| programs::vmem::vmem_ops(&decisions));
