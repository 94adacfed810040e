//! Pages from the system in tiny chunks: what is said to be zero is, and the figures add up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uma_fuzz::programs;
use uma_testkit::ops::pages::PageProgram;

fuzz_target!(|program: PageProgram| programs::suppliers::mmap_budget(&program));
