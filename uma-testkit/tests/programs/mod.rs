//! What programs are run on: one function for each kind of thing under test. It takes a program and
//! panics if what it builds does anything wrong.
//!
//! The property tests (`tests/ops.rs`) and the fuzz targets (`fuzz/`, which includes this directory) are
//! two drivers of these functions; a failing program that is pasted into a test is a third.
//!
//! | function | on what |
//! |---|---|
//! | [`layout::slab_layout`] | slab layouts, and a keg of each |
//! | [`keg::keg_ops`] | a keg over a bounded supplier |
//! | [`cache::cache_ops`] | bucket caches over a pool |
//! | [`zone::zone_ops`] | a whole zone, with hooks |
//! | [`typed::typed`] | zones of a type and object caches, on a platform |
//! | [`malloc::malloc_ops`] | size classes and large runs, on a platform |
//! | [`suppliers::static_exhaustion`] | pages from a region, and a keg there |
//! | [`suppliers::mmap_budget`] | pages from the system, in tiny chunks |
//! | [`limits::limits`] | zones in groups, and tasks that wait |
//! | [`misuse::misuse`] | one wrong free |
//! | [`compat::compat`] | the interfaces of other systems, in `uma-kmem-compat` |
//! | [`mt::mt_replay`] | zones that threads use in turns |
//! | [`vmem::vmem_ops`] | an arena, beside the model of `uma-vmem` |
#![allow(unreachable_pub, reason = "it is a module here, and part of a library in `fuzz/`")]

pub mod cache;
pub mod compat;
pub mod keg;
pub mod layout;
pub mod limits;
pub mod malloc;
pub mod misuse;
pub mod mt;
pub mod suppliers;
pub mod typed;
pub mod vmem;
pub mod zone;

use std::alloc::Layout;

use uma_keg::{SlabConfig, SlabLayout};
use uma_testkit::ops::Config;

/// The layout of the items.
fn item(config: &Config) -> Layout {
    let (size, align) = config.item();
    Layout::from_size_align(size, align).expect("an alignment of at most 4096")
}

/// How they lie in slabs.
fn slab(config: &Config) -> SlabLayout {
    let mut slab = SlabConfig::new().page_size(config.page_size());
    slab = slab.largest_slab(config.largest_slab());
    if config.outside || config.no_touch {
        slab = slab.outside_headers();
    }
    if config.no_touch {
        slab = slab.no_touch();
    }
    SlabLayout::new(item(config), slab).expect("a layout that is served")
}
