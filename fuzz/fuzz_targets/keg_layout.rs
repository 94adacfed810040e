//! Any size, alignment, page size and wish: items fit in their slabs, and little is wasted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uma_fuzz::programs;
use uma_testkit::ops::layout::Layouts;

fuzz_target!(|program: Layouts| programs::layout::slab_layout(&program));
