//! Finds misuse of zones: double frees, wild and wrong frees, writes past an item's end and after its free,
//! leaks.
//!
//! A zone cannot know what a program does with an item, but much of it shows: at the free, when the item is
//! allocated again, or at once if the item lies between guard pages. [`Hardening`] says what to look at;
//! [`Checks`] does it, for one zone, and tells a [`Witness`] in a [`Report`].
//!
//! | part | finds | when |
//! |---|---|---|
//! | live marks | double free, free of another zone's item, of no item, of the middle of one | at the free |
//! | red zones | writes before and behind an item | at the free |
//! | fill, sums | writes after free | at the next allocation of the item, or when it leaves the zone |
//! | quarantine | makes it likely that such a write comes before the next allocation | |
//! | guard pool | writes and reads past an item and after its free, of one item in many | at the access |
//! | owners | who allocated and who freed the item of a report or a leak | |
//!
//! # Where it stands
//!
//! ```text
//!   user
//!    |   take_back, hand_out      double frees are found before dtor runs
//!   ctor / dtor
//!    |   rest, wake               quarantine, fill
//!   BucketCache
//!    |   Watched                  items that leave the caches
//!   Limited, Constructed
//!    |   Padded                   red zones
//!   Keg
//! ```
//!
//! `uma` puts a zone together like this at run time. For a stack written out as a type there is [`Checked`],
//! the whole as one layer over any source.
//!
//! # Features
//!
//! `asan`: with [`Hardening::ASAN`], AddressSanitizer is told which items are free, so that it reports uses
//! of them, and around them, at once. It does nothing in a program that is built without the sanitizer.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
extern crate std;

mod checked;
mod checks;
mod pads;
mod pattern;
mod poison;
mod pool;
mod quarantine;
mod report;
mod sync;
mod table;
mod tier;
mod watched;
mod witness;

pub use checked::Checked;
pub use checks::{Checks, Subject};
pub use pads::{Padded, Pads};
pub use pool::{GuardPool, Known, SLOTS};
pub use report::{Fault, Report, Verdict};
pub use tier::{Fill, Hardening};
pub use watched::Watched;
pub use witness::{FRAMES, Trace, Witness};

/// Whether this program runs under AddressSanitizer and the feature `asan` is on, so that
/// [`Hardening::ASAN`] has an effect.
pub fn has_sanitizer() -> bool {
    poison::is_on()
}
