//! The description of a zone of values.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::time::Duration;

use uma_core::{ConfigError, NoHooks};
use uma_debug::{Hardening, Report, Verdict};

use super::Zone;
use crate::raw::RawZoneBuilder;
use crate::{AtLimit, DefaultPlatform, GroupIn, Platform};

/// Describes a [`Zone`].
#[must_use = "a builder makes nothing until `build`"]
pub struct ZoneBuilder<T, P: Platform = DefaultPlatform> {
    pub(super) raw: RawZoneBuilder<P, NoHooks>,
    pub(super) values: PhantomData<fn() -> T>,
}

impl<T, P: Platform> ZoneBuilder<T, P> {
    /// At most so many values may exist at once. [`Zone::alloc`] waits there.
    pub const fn max_items(self, items: u64) -> Self {
        Self { raw: self.raw_parts().max_items(items), values: PhantomData }
    }

    /// All memory for so many values is had when the zone is made, and never more. See
    /// [`RawZoneBuilder::backing`].
    pub const fn backing(self, items: u64) -> Self {
        Self { raw: self.raw_parts().backing(items), values: PhantomData }
    }

    /// At most so many free items are cached. See [`RawZoneBuilder::max_cached`].
    pub const fn max_cached(self, items: u64) -> Self {
        Self { raw: self.raw_parts().max_cached(items), values: PhantomData }
    }

    /// Counts the zone's items in a group. See [`RawZoneBuilder::group`].
    pub const fn group(self, group: &'static GroupIn<P>) -> Self
    where
        P: 'static,
    {
        Self { raw: self.raw_parts().group(group), values: PhantomData }
    }

    /// Warns when the limit is reached. See [`RawZoneBuilder::warning`].
    pub const fn warning(self, text: &'static str) -> Self {
        Self { raw: self.raw_parts().warning(text), values: PhantomData }
    }

    /// The least time from one warning to the next.
    pub const fn warning_interval(self, interval: Duration) -> Self {
        Self { raw: self.raw_parts().warning_interval(interval), values: PhantomData }
    }

    /// Calls back when the limit is reached. See [`RawZoneBuilder::maxaction`].
    pub const fn maxaction(self, action: &'static (dyn Fn(AtLimit) + Send + Sync)) -> Self {
        Self { raw: self.raw_parts().maxaction(action), values: PhantomData }
    }

    /// So many items to a bucket; 0 caches nothing. Otherwise chosen by size.
    pub const fn bucket(self, items: u16) -> Self {
        Self { raw: self.raw_parts().bucket(items), values: PhantomData }
    }

    /// How much is checked. Otherwise the platform says (see [`Platform::hardening`]).
    pub const fn hardening(self, hardening: Hardening) -> Self {
        Self { raw: self.raw_parts().hardening(hardening), values: PhantomData }
    }

    /// Who is told of misuse (see [`RawZoneBuilder::on_misuse`]).
    pub const fn on_misuse(self, on_misuse: fn(&Report<'_>) -> Verdict) -> Self {
        Self { raw: self.raw_parts().on_misuse(on_misuse), values: PhantomData }
    }

    /// Makes the zone and lists it.
    ///
    /// # Errors
    ///
    /// What is wrong with the description, or that there was no memory.
    pub fn build(self) -> Result<Zone<T, P>, ConfigError> {
        Ok(Zone { raw: self.raw.build()?, values: PhantomData })
    }

    const fn raw_parts(self) -> RawZoneBuilder<P, NoHooks> {
        // A const fn cannot drop `self`, so the one field is read out.
        let this = ManuallyDrop::new(self);
        // SAFETY: `ManuallyDrop` is `repr(transparent)`; the field is read once, `this` never dropped.
        unsafe { (&raw const (*(&raw const this).cast::<Self>()).raw).read() }
    }
}

impl<T, P: Platform> fmt::Debug for ZoneBuilder<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ZoneBuilder").field(&self.raw.config).finish()
    }
}
