//! One wrong free.

use super::{Config, debug_with_type};

/// Items are taken, some of them are given back, and then something is that may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Misuse {
    /// How the stack is built. Nothing is cached.
    pub config: Config,
    /// How many items are taken.
    pub taken: u8,
    /// Of each 64 in a row, which are given back.
    pub back: u64,
    /// What is wrong.
    pub wrong: Wrong,
    /// Which item it is done to.
    pub i: u8,
    /// Distance from the item's start, for [`Wrong::Interior`].
    pub offset: u16,
    /// How many good items go back in the same batch, before and after.
    pub before: u8,
    /// See `before`.
    pub after: u8,
}

/// What is wrong with a free.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Wrong {
    /// The item was given back before.
    Again,
    /// It is twice in one batch.
    TwiceAtOnce,
    /// The pointer is not to the start of the item.
    Interior,
    /// It is an item of another keg of the same layout.
    Foreign,
    /// It is no item at all.
    Nothing,
}

debug_with_type!(Wrong { Again, TwiceAtOnce, Interior, Foreign, Nothing });
