//! The interfaces of other systems, each against the same model, and against the engine.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uma_fuzz::programs;
use uma_testkit::ops::compat::CompatProgram;

fuzz_target!(|program: CompatProgram| programs::compat::compat(&program));
