//! Object caches: values that stay constructed between uses.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::num::NonZeroU64;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::time::Duration;

use uma_core::{ConfigError, Deadline, Hooks, Item, Name, Reclaim, Refused, Request, Stats};

use uma_cache::bucket::capacity_for;
use uma_debug::{Hardening, Report, Verdict};

use crate::raw::{Config, OwnSlabs, RawZone, RawZoneBuilder};
use crate::zone::item_of;
use crate::{AtLimit, DefaultPlatform, GroupIn, Platform, ZoneError};

/// How the objects of a cache are made and made ready: init, ctor and dtor in terms of a type. Fini is
/// the type's own `Drop`.
///
/// Implement it for a type of your own where function pointers are not enough, because making an
/// object needs something that is only known at run time, which a closure would capture.
///
/// ```
/// use uma::{ObjectCache, ObjectHooks, Refused};
///
/// #[derive(Clone)]
/// struct Buffers { size: usize }
///
/// impl ObjectHooks<Vec<u8>> for Buffers {
///     fn init(&self) -> Result<Vec<u8>, Refused> {
///         let mut buffer = Vec::new();
///         buffer.try_reserve_exact(self.size).map_err(|_| Refused)?;
///         Ok(buffer)
///     }
///     fn dtor(&self, buffer: &mut Vec<u8>) {
///         buffer.clear();
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let read_from_a_file = 5000;
/// let buffers: ObjectCache<Vec<u8>, Buffers> =
///     ObjectCache::builder("buffer").hooks(Buffers { size: read_from_a_file }).build()?;
/// assert!(buffers.get()?.capacity() >= 5000);
/// # Ok(()) }
/// ```
pub trait ObjectHooks<T> {
    /// Makes an object. Runs when memory enters the cache, for whole batches ahead of need.
    ///
    /// # Errors
    ///
    /// [`Refused`] if it cannot.
    fn init(&self) -> Result<T, Refused>;

    /// Makes an object ready for one use.
    ///
    /// # Errors
    ///
    /// [`Refused`] if it cannot; the object is then dropped.
    fn ctor(&self, object: &mut T) -> Result<(), Refused> {
        let _ = object;
        Ok(())
    }

    /// Brings an object back to the state in which `init` left it.
    fn dtor(&self, object: &mut T) {
        let _ = object;
    }
}

/// [`ObjectHooks`] as function pointers.
pub struct FnObject<T> {
    init: Init<T>,
    ctor: Option<Ctor<T>>,
    dtor: Option<fn(&mut T)>,
}

enum Init<T> {
    Always(fn() -> T),
    Maybe(fn() -> Result<T, Refused>),
}

enum Ctor<T> {
    Always(fn(&mut T)),
    Maybe(fn(&mut T) -> Result<(), Refused>),
}

// Written out, since a derive would ask for `T: Clone`.
impl<T> Clone for FnObject<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for FnObject<T> {}

impl<T> Clone for Init<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Init<T> {}

impl<T> Clone for Ctor<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ctor<T> {}

impl<T> ObjectHooks<T> for FnObject<T> {
    fn init(&self) -> Result<T, Refused> {
        match self.init {
            Init::Always(init) => Ok(init()),
            Init::Maybe(init) => init(),
        }
    }

    #[inline(always)]
    fn ctor(&self, object: &mut T) -> Result<(), Refused> {
        match self.ctor {
            None => Ok(()),
            Some(Ctor::Always(ctor)) => {
                ctor(object);
                Ok(())
            }
            Some(Ctor::Maybe(ctor)) => ctor(object),
        }
    }

    #[inline(always)]
    fn dtor(&self, object: &mut T) {
        if let Some(dtor) = self.dtor {
            dtor(object);
        }
    }
}

impl<T> fmt::Debug for FnObject<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnObject").finish_non_exhaustive()
    }
}

/// [`ObjectHooks`] as hooks of a zone: where pointers become references.
///
/// They suit items of the layout of a `T` that are never zeroed, which is why the zone of an object
/// cache is not to be had as a raw one.
pub(crate) struct TypedHooks<T, O> {
    object: O,
    values: PhantomData<fn(T) -> T>,
}

impl<T, O: Clone> Clone for TypedHooks<T, O> {
    fn clone(&self) -> Self {
        Self { object: self.object.clone(), values: PhantomData }
    }
}

impl<T, O: ObjectHooks<T>> Hooks for TypedHooks<T, O> {
    unsafe fn init(&self, item: Item, _: Request) -> Result<(), Refused> {
        let object = self.object.init()?;
        // SAFETY: the item is memory of the layout of a `T`, and the caller's alone.
        unsafe { item.cast::<T>().write(object) };
        Ok(())
    }

    unsafe fn fini(&self, item: Item) {
        // SAFETY: `init` has written a `T`, and every use since left a valid one.
        unsafe { item.cast::<T>().drop_in_place() };
    }

    #[inline(always)]
    unsafe fn ctor(&self, item: Item, _: *mut (), _: Request) -> Result<(), Refused> {
        // SAFETY: as in `fini`; the caller has the item to itself.
        self.object.ctor(unsafe { item.cast::<T>().as_mut() })
    }

    #[inline(always)]
    unsafe fn dtor(&self, item: Item, _: *mut ()) {
        // SAFETY: as in `ctor`.
        self.object.dtor(unsafe { item.cast::<T>().as_mut() });
    }
}

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

/// Describes an [`ObjectCache`]; `O` says how objects are made, once that is known.
#[must_use = "a builder makes nothing until `build`"]
pub struct ObjectCacheBuilder<T, O = (), P: Platform = DefaultPlatform> {
    raw: RawZoneBuilder<P, O>,
    values: PhantomData<fn() -> T>,
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

impl<T, O, P: Platform> fmt::Debug for ObjectCacheBuilder<T, O, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectCacheBuilder").field(&self.raw.config).finish()
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
