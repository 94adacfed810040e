//! Pages from a small region: to the last one, the lowest first, at any alignment; and a keg there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uma_fuzz::programs;
use uma_testkit::ops::{Program, pages::PageProgram};

fuzz_target!(|program: (PageProgram, Program)| {
    programs::suppliers::static_exhaustion(&program.0, &program.1)
});
