//! The only file of this crate that names shared cells, so that a model checker can take their place.

pub(crate) use lock_api::{Mutex, MutexGuard};
pub(crate) use parking_lot::RawMutex as DefaultLock;
#[cfg(feature = "maps")]
pub(crate) use std::sync::atomic::{AtomicBool, fence};
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
