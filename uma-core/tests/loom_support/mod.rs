//! What the models stand on: the model checker's own lock, sleep and cells behind the traits of the
//! family, and a pool of items that notices when one is used by two.
#![allow(dead_code, unused_imports, reason = "each file of models uses a part of it")]

mod checker;
mod lock;
mod pool;
mod sleep;

pub(crate) use checker::{
    Flag, Mutex, Notify, Owners, check, join, spawn, thread_local, yield_now,
};
pub(crate) use lock::Lock;
pub(crate) use pool::{Pool, touch};
pub(crate) use sleep::{Parking, soon};
