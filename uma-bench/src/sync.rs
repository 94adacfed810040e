//! The only file of this crate that names shared cells.

pub(crate) use std::cell::{Cell, UnsafeCell};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(crate) use std::sync::{Mutex, OnceLock};
