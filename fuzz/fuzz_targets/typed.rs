//! Zones of a type and object caches: values that own memory, each dropped once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uma_fuzz::programs;
use uma_testkit::ops::typed::TypedProgram;

fuzz_target!(|program: TypedProgram| programs::typed::typed(&program));
