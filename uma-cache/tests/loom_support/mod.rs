//! What the models of the cache stand on, beside what those of the limit do.
#![allow(dead_code, unused_imports, reason = "each file of models uses a part of it")]

#[path = "../../../uma-core/tests/loom_support/mod.rs"]
mod common;
mod cpu;
mod heap;
mod stack;

pub(crate) use common::{Flag, Lock, Notify, Parking, Pool, check, join, soon, spawn, touch};
pub(crate) use cpu::{Chosen, Kernel, on};
pub(crate) use heap::Heap;
pub(crate) use stack::{Access, Cache, Locks, Pins, Shared, Stack, TINY};
