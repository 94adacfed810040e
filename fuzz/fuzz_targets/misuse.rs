//! One wrong free: the keg says exactly what it is, and works on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uma_fuzz::programs;
use uma_testkit::ops::misuse::Misuse;

fuzz_target!(|program: Misuse| programs::misuse::misuse(&program));
