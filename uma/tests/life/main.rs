//! What becomes of zones and of their items: hooks and their failures, destruction, flags, zones on the
//! slabs of another, zones over a source.
//!
//! One thread, whose CPU the test chooses; a lock that is taken twice panics, and a hook or a supplier that is
//! called with one held is noted.

mod destroy;
mod flags;
mod matrix;
mod over;
mod secondary;
mod toy;
