//! Programs for zones of a Rust type, and for object caches.

use std::fmt;

use super::{Mode, write_rust};

/// What a typed zone and an object cache are to do.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct TypedProgram {
    /// How they are built.
    pub config: TypedConfig,
    /// What is done to them.
    pub ops: Vec<TypedOp>,
}

impl fmt::Debug for TypedProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_rust(f, "TypedProgram", &self.config, "TypedOp", &self.ops)
    }
}

/// How a typed zone and an object cache are built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct TypedConfig {
    /// CPUs, less one, of four.
    pub cpus: u8,
    /// Items in a bucket, of nine; 9 for what suits the size.
    pub bucket: u8,
    /// Most values at once; 0 for no limit.
    pub limit: u8,
    /// Slabs that there are pages for.
    pub slabs: u8,
}

impl TypedConfig {
    /// Whether free items are marked for a sanitizer, and looked up at each free.
    pub const fn checked(&self) -> bool {
        self.cpus >= 128
    }
}

/// One thing to do to a typed zone or an object cache. `i` picks a value that is out; `text` is what
/// a value is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[allow(missing_docs, reason = "the fields are explained above")]
pub enum TypedOp {
    /// Boxes a value.
    Alloc {
        cpu: u8,
        text: u8,
    },
    /// Boxes a value that is made in place; making it may panic.
    AllocWith {
        cpu: u8,
        text: u8,
        panics: bool,
    },
    /// Drops a box; the value's drop may panic.
    Drop {
        cpu: u8,
        i: u8,
        panics: bool,
    },
    /// Takes a value out of its box.
    IntoInner {
        cpu: u8,
        i: u8,
    },
    /// Makes a box into a pointer and back.
    Raw {
        i: u8,
    },
    /// Changes a value.
    Change {
        i: u8,
        text: u8,
    },
    /// Sets room aside and uses some of it.
    Prefill {
        cpu: u8,
        count: u8,
        used: u8,
    },
    /// Takes an object.
    Get {
        cpu: u8,
        text: u8,
    },
    /// Puts an object back.
    Put {
        cpu: u8,
        i: u8,
    },
    /// Making an object fails, or making it ready.
    InitRefuses {
        k: u8,
    },
    InitPanics {
        k: u8,
    },
    CtorRefuses {
        k: u8,
    },
    CtorPanics {
        k: u8,
    },
    DtorPanics {
        k: u8,
    },
    /// Changes both limits; 0 lifts them.
    SetLimit {
        max: u8,
    },
    /// A request for pages fails.
    PagesFail {
        k: u8,
    },
    /// A request for bookkeeping memory fails.
    MetadataFail {
        k: u8,
    },
    /// Gives back what is held beyond need.
    Reclaim {
        mode: Mode,
    },
    /// Checks values and counts.
    Verify,
}
