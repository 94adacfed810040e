//! The shared cells of this crate.
#![allow(unused_imports, reason = "not every set of features needs all of them")]

pub(crate) use core::cell::UnsafeCell;
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
