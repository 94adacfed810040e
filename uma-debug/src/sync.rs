//! The only file of this crate that names shared cells, so that a model checker can take their place.

pub(crate) use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use lock_api::Mutex;
