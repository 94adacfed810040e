//! What the fuzz targets run programs on.
//!
//! It is the very code that the property tests of `uma-testkit` use. A target is a few lines: it turns
//! the fuzzer's bytes into a program (`uma_testkit::ops`) and calls one of these functions.
//!
//! | target | function |
//! |---|---|
//! | `keg_layout` | [`programs::layout::slab_layout`] |
//! | `keg_ops` | [`programs::keg::keg_ops`] |
//! | `cache_ops` | [`programs::cache::cache_ops`] |
//! | `zone_ops` | [`programs::zone::zone_ops`] |
//! | `limits` | [`programs::limits::limits`] |
//! | `malloc_ops` | [`programs::malloc::malloc_ops`] |
//! | `typed` | [`programs::typed::typed`] |
//! | `static_exhaustion` | [`programs::suppliers::static_exhaustion`] |
//! | `mmap_budget` | [`programs::suppliers::mmap_budget`] |
//! | `misuse` | [`programs::misuse::misuse`] |
//! | `kmem_compat` | [`programs::compat::compat`] |
//! | `mt_replay` | [`programs::mt::mt_replay`] |
//! | `vmem_ops` | [`programs::vmem::vmem_ops`] |
//!
//! `ci/fuzz.sh` builds and runs them all. When one fails, it prints the program as Rust: paste it into a
//! test that calls the same function, and keep that.

#[path = "../../uma-testkit/tests/programs/mod.rs"]
pub mod programs;
