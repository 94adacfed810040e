//! Object caches: values that stay constructed between uses.

mod builder;
mod hooks;

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::num::NonZeroU64;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::time::Duration;

use uma_core::{Deadline, Item, Name, Reclaim, Request, Stats};

pub use builder::ObjectCacheBuilder;
use hooks::TypedHooks;
pub use hooks::{FnObject, ObjectHooks};

use crate::raw::{Config, GroupIn, OwnSlabs, RawZone, RawZoneBuilder};
use crate::zone::item_of;
use crate::{DefaultPlatform, Platform, ZoneError};

/// A cache of constructed objects of type `T`.
///
/// What is expensive to set up and left in the same state by every use (a lock, a buffer, a parser's
/// tables) is set up once, when memory enters the cache, and taken down when it leaves.
///
/// ```
/// use uma::ObjectCache;
///
/// struct Conn { buffer: Vec<u8>, peer: u32 }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let conns = ObjectCache::<Conn>::builder("conn")
///     .init(|| Conn { buffer: Vec::with_capacity(4096), peer: 0 })
///     .dtor(|conn| conn.buffer.clear())
///     .build()?;
///
/// let mut conn = conns.get()?;
/// conn.buffer.extend_from_slice(b"hello");
/// drop(conn);
/// // The next user finds it empty, with its capacity.
/// assert!(conns.get()?.buffer.is_empty() && conns.get()?.buffer.capacity() >= 4096);
/// # Ok(()) }
/// ```
pub struct ObjectCache<T, O = FnObject<T>, P: Platform = DefaultPlatform>
where
    T: Send + 'static,
    O: ObjectHooks<T> + Clone + Send + Sync + 'static,
{
    raw: RawZone<P, TypedHooks<T, O>>,
}

impl<T: Send + 'static> ObjectCache<T> {
    /// Describes a cache on the default platform.
    #[cfg(feature = "std")]
    pub const fn builder(name: &str) -> ObjectCacheBuilder<T> {
        Self::builder_in(name, DefaultPlatform::new())
    }

    /// Describes a cache on a given platform.
    pub const fn builder_in<P: Platform>(name: &str, platform: P) -> ObjectCacheBuilder<T, (), P> {
        let config = Config::new(name, item_of::<T>());
        ObjectCacheBuilder {
            raw: RawZoneBuilder { config, platform, hooks: (), origin: OwnSlabs },
            values: PhantomData,
        }
    }
}

impl<T, O, P: Platform> ObjectCache<T, O, P>
where
    T: Send + 'static,
    O: ObjectHooks<T> + Clone + Send + Sync + 'static,
{
    /// Takes an object. Waits at the cache's limit until one is dropped.
    ///
    /// # Errors
    ///
    /// If there are no pages, or init or ctor refused.
    #[inline(always)]
    pub fn get(&self) -> Result<Cached<'_, T, O, P>, ZoneError> {
        self.take(Request::WAIT)
    }

    /// Takes an object, but does not wait.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), or if the cache is at its limit.
    #[inline(always)]
    pub fn try_get(&self) -> Result<Cached<'_, T, O, P>, ZoneError> {
        self.take(Request::NOWAIT)
    }

    /// Takes an object. Waits at the limit, but no longer than `time`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), or if that time passed.
    pub fn get_for(&self, time: Duration) -> Result<Cached<'_, T, O, P>, ZoneError> {
        self.get_until(Deadline::after(time, &self.raw.platform().sleep()))
    }

    /// Takes an object. Waits at the limit until a point in time on the clock of the platform's
    /// [`Sleep`](uma_core::Sleep) (see [`Deadline::after`], and `Park::deadline_in`).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), or if the deadline passed.
    pub fn get_until(&self, deadline: Deadline) -> Result<Cached<'_, T, O, P>, ZoneError> {
        self.take(Request::until(deadline))
    }

    #[inline(always)]
    fn take(&self, request: Request) -> Result<Cached<'_, T, O, P>, ZoneError> {
        let item = self.raw.alloc(request)?;
        Ok(Cached { pointer: item.cast(), cache: self, owns: PhantomData })
    }

    /// The cache's name.
    pub const fn name(&self) -> &Name {
        self.raw.name()
    }

    /// The cache's figures (see [`Stats`]).
    pub fn stats(&self) -> Stats {
        self.raw.stats()
    }

    /// Gives back what is held beyond need: drops objects that are not in use.
    pub fn reclaim(&self, mode: Reclaim) {
        self.raw.reclaim(mode);
    }

    /// Changes the limit; `None` lifts it.
    ///
    /// # Errors
    ///
    /// If the zone cannot be made.
    pub fn set_max_items(&self, max: Option<NonZeroU64>) -> Result<(), ZoneError> {
        self.raw.set_max_items(max)
    }

    /// The limit, if there is one (`uma_zone_get_max`).
    pub fn max_items(&self) -> Option<NonZeroU64> {
        self.raw.max_items()
    }

    /// Objects in use (`uma_zone_get_cur`). See [`RawZone::cur_items`].
    pub fn cur_items(&self) -> u64 {
        self.raw.cur_items()
    }

    /// The nearest group, of the zone's own and those it is in, that has no room just now. See
    /// [`RawZone::full_group`].
    pub fn full_group(&self) -> Option<&'static GroupIn<P>> {
        self.raw.full_group()
    }

    /// Whether somebody sleeps at the limit, or that of the group (`uma_zone_exhausted`).
    pub fn exhausted(&self) -> bool {
        self.raw.exhausted()
    }

    /// Waits until an object can be had (`uma_zwait`), until a point in time on the clock of the platform's
    /// [`Sleep`](uma_core::Sleep). See [`RawZone::wait_for_room`].
    ///
    /// # Errors
    ///
    /// If the deadline passed, or none could be had for another reason than a limit.
    pub fn wait_for_room(&self, deadline: Deadline) -> Result<(), ZoneError> {
        self.raw.wait_for_room(Request::until(deadline))
    }

    /// Bounds the free objects that are cached (`uma_zone_set_maxcache`). See
    /// [`RawZone::set_max_cached`].
    ///
    /// # Errors
    ///
    /// If the zone is used for the first time by this call and cannot be made.
    pub fn set_max_cached(&self, items: Option<u64>) -> Result<(), ZoneError> {
        self.raw.set_max_cached(items)
    }

    /// Takes an object. At the limit it waits without a thread that sleeps, in order of arrival among threads
    /// and tasks. Dropped before its end, the future has taken nothing: for a deadline, use a timer of your
    /// runtime. See [`RawZone::alloc_async`].
    ///
    /// # Errors
    ///
    /// If there are no pages, or init or ctor refused.
    #[cfg(feature = "async")]
    pub async fn get_async(&self) -> Result<Cached<'_, T, O, P>, ZoneError> {
        let item = self.raw.alloc_async(Request::NOWAIT).await?;
        Ok(Cached { pointer: item.cast(), cache: self, owns: PhantomData })
    }
}

impl<T, O, P: Platform> fmt::Debug for ObjectCache<T, O, P>
where
    T: Send + 'static,
    O: ObjectHooks<T> + Clone + Send + Sync + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectCache").field(&self.raw).finish()
    }
}

/// An object in use. Dropping it runs dtor and puts it back, constructed.
pub struct Cached<'c, T, O = FnObject<T>, P: Platform = DefaultPlatform>
where
    T: Send + 'static,
    O: ObjectHooks<T> + Clone + Send + Sync + 'static,
{
    pointer: NonNull<T>,
    cache: &'c ObjectCache<T, O, P>,
    owns: PhantomData<T>,
}

// SAFETY: it has the object to itself, which may be sent (bound of the type), and its cache may be
// used from any thread.
unsafe impl<T, O, P: Platform> Send for Cached<'_, T, O, P>
where
    T: Send + 'static,
    O: ObjectHooks<T> + Clone + Send + Sync + 'static,
{
}
// SAFETY: `&Cached` gives `&T`.
unsafe impl<T, O, P: Platform> Sync for Cached<'_, T, O, P>
where
    T: Send + Sync + 'static,
    O: ObjectHooks<T> + Clone + Send + Sync + 'static,
{
}

impl<'c, T, O, P: Platform> Cached<'c, T, O, P>
where
    T: Send + 'static,
    O: ObjectHooks<T> + Clone + Send + Sync + 'static,
{
    /// The bare pointer, to keep in a structure of your own.
    #[must_use = "an object that is not made a `Cached` again is never put back"]
    pub fn into_raw(this: Self) -> NonNull<T> {
        ManuallyDrop::new(this).pointer
    }

    /// An object in use again, from what [`into_raw`](Self::into_raw) gave.
    ///
    /// # Safety
    ///
    /// `pointer` came from `into_raw` of an object of this cache, and becomes a `Cached` once.
    pub const unsafe fn from_raw(cache: &'c ObjectCache<T, O, P>, pointer: NonNull<T>) -> Self {
        Self { pointer, cache, owns: PhantomData }
    }
}

impl<T, O, P: Platform> Drop for Cached<'_, T, O, P>
where
    T: Send + 'static,
    O: ObjectHooks<T> + Clone + Send + Sync + 'static,
{
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the object came from this cache, and this is the end of its use.
        unsafe { self.cache.raw.free(Item::new(self.pointer.cast())) };
    }
}

impl<T, O, P: Platform> Deref for Cached<'_, T, O, P>
where
    T: Send + 'static,
    O: ObjectHooks<T> + Clone + Send + Sync + 'static,
{
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the object is valid and ours for the time of its use.
        unsafe { self.pointer.as_ref() }
    }
}

impl<T, O, P: Platform> DerefMut for Cached<'_, T, O, P>
where
    T: Send + 'static,
    O: ObjectHooks<T> + Clone + Send + Sync + 'static,
{
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`.
        unsafe { self.pointer.as_mut() }
    }
}

impl<T, O, P: Platform> fmt::Debug for Cached<'_, T, O, P>
where
    T: fmt::Debug + Send + 'static,
    O: ObjectHooks<T> + Clone + Send + Sync + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
