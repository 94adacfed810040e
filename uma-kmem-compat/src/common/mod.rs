//! What all faces share: the boundary to C, handles, names, reports and policies.
//!
//! A face uses it like this. Its `SYSTEM` says who speaks and what misuse leads to. A C function is
//! `#[unsafe(no_mangle)] extern "C"`, named with the system's prefix, and its body runs in [`boundary`]. What C
//! holds by a pointer lies in a [`Handles`], and comes back through `get`, which checks it. C's names become
//! Rust's by [`text`]. What the user did wrong goes to [`System::misuse`], which returns only if the policy
//! says that life goes on.
#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "not every set of faces needs all of it"
)]

mod boundary;
#[cfg(feature = "capi")]
mod capi;
pub(crate) mod fork;
#[cfg(feature = "capi")]
mod handle;
#[cfg(any(feature = "solaris", feature = "umem"))]
pub(crate) mod heap;
mod leaked;
pub(crate) mod memory;
pub(crate) mod name;
#[cfg(any(feature = "solaris", feature = "umem"))]
pub(crate) mod objects;
mod patience;
pub mod policy;
mod report;
mod runs;
mod surroundings;

#[cfg(feature = "capi")]
pub(crate) use self::{
    handle::{BadHandle, Front, Handle, Handles, unusable},
    name::text,
};
pub(crate) use boundary::boundary;
pub(crate) use leaked::Sample;
pub(crate) use patience::Patience;
pub(crate) use policy::Switch;
pub(crate) use report::{Line, System};
pub(crate) use runs::Runs;
pub(crate) use surroundings::as_the_host;
