//! The only file of this crate that names shared cells, so that a model checker can take their place.

pub(crate) use core::sync::atomic::{
    AtomicI64, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering,
};
