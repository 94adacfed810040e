//! The only file of this crate that names shared cells, so that a model checker can take their place.

pub(crate) use core::cell::UnsafeCell;
#[cfg(feature = "std")]
pub(crate) use core::sync::atomic::AtomicU8;
pub(crate) use core::sync::atomic::fence;
pub(crate) use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
pub(crate) use lock_api::Mutex;
