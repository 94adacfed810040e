//! An arena beside its model: the very program that the tests of `uma-vmem` run.

use uma_testkit::ops::decisions::Decisions;

#[path = "../../../uma-vmem/tests/model/mod.rs"]
mod model;

/// Operations on an arena; after each, arena and model agree.
pub fn vmem_ops(decisions: &Decisions) {
    model::run(&mut model::Bytes(&decisions.0));
}
