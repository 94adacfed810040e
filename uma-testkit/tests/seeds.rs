//! The seeds of the fuzz targets, run on stable Rust: what the fuzzer found worth keeping is a test too.
#![cfg(feature = "arbitrary")]

mod programs;

use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use uma_testkit::caught;

/// Runs the seeds of one target, each made into a program as the target does it.
fn replay<P: for<'a> Arbitrary<'a> + std::fmt::Debug>(target: &str, run: impl Fn(&P)) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut count = 0;
    for seed in std::fs::read_dir(&seeds).expect("there is a directory of seeds") {
        let path = seed.expect("a directory can be read").path();
        let bytes = std::fs::read(&path).expect("a seed can be read");
        let Ok(program) = P::arbitrary_take_rest(Unstructured::new(&bytes)) else { continue };
        if let Err(panic) = caught(|| run(&program)) {
            panic!("{}: {panic}\n{program:?}", path.display());
        }
        count += 1;
    }
    assert!(count > 5, "only {count} seeds of {target} are programs");
}

macro_rules! seeds {
    ($($target:ident: $program:ty => $run:expr;)+) => {
        $(#[test]
        fn $target() {
            replay::<$program>(stringify!($target), $run);
        })+

        /// Each directory of seeds is of a target that is replayed here.
        #[test]
        fn all_are_replayed() {
            let targets = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/fuzz_targets");
            for target in std::fs::read_dir(targets).expect("there is a directory of targets") {
                let path = target.expect("a directory can be read").path();
                let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
                assert!([$(stringify!($target)),+].contains(&name), "{name} is not replayed");
            }
        }
    };
}

use uma_testkit::ops::Program;
use uma_testkit::ops::compat::CompatProgram;
use uma_testkit::ops::decisions::Decisions;
use uma_testkit::ops::layout::Layouts;
use uma_testkit::ops::limits::LimitProgram;
use uma_testkit::ops::malloc::MallocProgram;
use uma_testkit::ops::misuse::Misuse;
use uma_testkit::ops::mt::MtProgram;
use uma_testkit::ops::pages::PageProgram;
use uma_testkit::ops::typed::TypedProgram;

seeds! {
    keg_layout: Layouts => programs::layout::slab_layout;
    keg_ops: Program => programs::keg::keg_ops;
    cache_ops: Program => programs::cache::cache_ops;
    zone_ops: Program => programs::zone::zone_ops;
    limits: LimitProgram => programs::limits::limits;
    malloc_ops: MallocProgram => programs::malloc::malloc_ops;
    typed: TypedProgram => programs::typed::typed;
    static_exhaustion: (PageProgram, Program) =>
        |(pages, keg)| programs::suppliers::static_exhaustion(pages, keg);
    mmap_budget: PageProgram => programs::suppliers::mmap_budget;
    misuse: Misuse => programs::misuse::misuse;
    kmem_compat: CompatProgram => programs::compat::compat;
    mt_replay: MtProgram => programs::mt::mt_replay;
    vmem_ops: Decisions => programs::vmem::vmem_ops;
}
