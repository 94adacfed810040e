//! The description of an object cache.

use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;

use uma_cache::bucket::capacity_for;
use uma_core::{ConfigError, Refused};
use uma_debug::{Hardening, Report, Verdict};

use super::ObjectCache;
use super::hooks::{Ctor, FnObject, Init, ObjectHooks, TypedHooks};
use crate::raw::{OwnSlabs, RawZoneBuilder};
use crate::{AtLimit, DefaultPlatform, GroupIn, Platform};

/// Describes an [`ObjectCache`]; `O` says how objects are made, once that is known.
#[must_use = "a builder makes nothing until `build`"]
pub struct ObjectCacheBuilder<T, O = (), P: Platform = DefaultPlatform> {
    pub(super) raw: RawZoneBuilder<P, O>,
    pub(super) values: PhantomData<fn() -> T>,
}

impl<T, P: Platform> ObjectCacheBuilder<T, (), P> {
    /// How an object is made: a function, or a closure that captures nothing. For what is only known at run
    /// time there is [`hooks`](Self::hooks).
    pub fn init(self, init: fn() -> T) -> ObjectCacheBuilder<T, FnObject<T>, P> {
        self.made_by(FnObject { init: Init::Always(init), ctor: None, dtor: None })
    }

    /// How an object is made, if that can fail.
    pub fn try_init(
        self,
        init: fn() -> Result<T, Refused>,
    ) -> ObjectCacheBuilder<T, FnObject<T>, P> {
        self.made_by(FnObject { init: Init::Maybe(init), ctor: None, dtor: None })
    }

    /// How objects are made and made ready, by a type of your own: see [`ObjectHooks`].
    pub fn hooks<O: ObjectHooks<T>>(self, object: O) -> ObjectCacheBuilder<T, O, P> {
        self.made_by(object)
    }

    fn made_by<O>(self, hooks: O) -> ObjectCacheBuilder<T, O, P> {
        let RawZoneBuilder { config, platform, .. } = self.raw;
        let raw = RawZoneBuilder { config, platform, hooks, origin: OwnSlabs };
        ObjectCacheBuilder { raw, values: PhantomData }
    }
}

impl<T, P: Platform> ObjectCacheBuilder<T, FnObject<T>, P> {
    /// What is done to an object at every [`get`](ObjectCache::get).
    pub fn ctor(mut self, ctor: fn(&mut T)) -> Self {
        self.raw.hooks.ctor = Some(Ctor::Always(ctor));
        self
    }

    /// What is done to an object at every [`get`](ObjectCache::get), if that can fail.
    pub fn try_ctor(mut self, ctor: fn(&mut T) -> Result<(), Refused>) -> Self {
        self.raw.hooks.ctor = Some(Ctor::Maybe(ctor));
        self
    }

    /// What is done to an object when its user drops it.
    pub fn dtor(mut self, dtor: fn(&mut T)) -> Self {
        self.raw.hooks.dtor = Some(dtor);
        self
    }
}

impl<T, O, P: Platform> ObjectCacheBuilder<T, O, P> {
    /// At most so many objects may be in use at once. [`ObjectCache::get`] waits there.
    pub fn max_items(mut self, items: u64) -> Self {
        self.raw.config.max_items = Some(items);
        self
    }

    /// At most so many objects are kept that are not in use. See [`RawZoneBuilder::max_cached`].
    pub fn max_cached(mut self, objects: u64) -> Self {
        self.raw = self.raw.max_cached(objects);
        self
    }

    /// Counts the memory of objects in a group; what they own elsewhere does not count. See
    /// [`RawZoneBuilder::group`].
    pub fn group(mut self, group: &'static GroupIn<P>) -> Self
    where
        P: 'static,
    {
        self.raw = self.raw.group(group);
        self
    }

    /// Warns when the limit is reached. See [`RawZoneBuilder::warning`].
    pub fn warning(mut self, text: &'static str) -> Self {
        self.raw = self.raw.warning(text);
        self
    }

    /// The least time from one warning to the next.
    pub fn warning_interval(mut self, interval: Duration) -> Self {
        self.raw = self.raw.warning_interval(interval);
        self
    }

    /// Calls back when the limit is reached. See [`RawZoneBuilder::maxaction`].
    pub fn maxaction(mut self, action: &'static (dyn Fn(AtLimit) + Send + Sync)) -> Self {
        self.raw = self.raw.maxaction(action);
        self
    }

    /// So many objects to a bucket; 0 caches nothing, and every get constructs. Otherwise chosen by the
    /// size of `T` itself, at least 1.
    ///
    /// Objects are made a bucket at a time, ahead of need, so choose few for small types that own much
    /// memory elsewhere.
    pub fn bucket(mut self, items: u16) -> Self {
        self.raw.config.bucket = Some(items);
        self
    }

    /// How much is checked. Otherwise the platform says (see [`Platform::hardening`]).
    pub fn hardening(mut self, hardening: Hardening) -> Self {
        self.raw.config.hardening = Some(hardening);
        self
    }

    /// Who is told of misuse (see [`RawZoneBuilder::on_misuse`]).
    pub fn on_misuse(mut self, on_misuse: fn(&Report<'_>) -> Verdict) -> Self {
        self.raw.config.on_misuse = Some(on_misuse);
        self
    }

    /// Makes the cache and lists it.
    ///
    /// # Errors
    ///
    /// What is wrong with the description, or that there was no memory.
    pub fn build(self) -> Result<ObjectCache<T, O, P>, ConfigError>
    where
        T: Send + 'static,
        O: ObjectHooks<T> + Clone + Send + Sync + 'static,
    {
        let RawZoneBuilder { mut config, platform, hooks, origin } = self.raw;
        let hooks = TypedHooks { object: hooks, values: PhantomData };
        // A cache that keeps nothing would be none.
        config.bucket = config.bucket.or(Some(capacity_for(config.size).max(1)));
        Ok(ObjectCache { raw: RawZoneBuilder { config, platform, hooks, origin }.build()? })
    }
}

impl<T, O, P: Platform> fmt::Debug for ObjectCacheBuilder<T, O, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectCacheBuilder").field(&self.raw.config).finish()
    }
}
