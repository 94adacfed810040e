//! Zones that real threads use in turns: which one, and where it is interrupted, is data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uma_fuzz::programs;
use uma_testkit::ops::mt::MtProgram;

fuzz_target!(|program: MtProgram| programs::mt::mt_replay(&program));
