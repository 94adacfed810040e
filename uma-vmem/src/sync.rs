//! The only file of this crate that names shared cells, so that a model checker can take their place.

pub(crate) use core::cell::Cell;
pub(crate) use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(crate) use lock_api::{Mutex, MutexGuard};
