//! Zones of a Rust type: each item holds one value.

mod boxed;
mod builder;

use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::num::NonZeroU64;
use core::ptr::NonNull;
use core::time::Duration;

use uma_core::{Deadline, Item, Name, NoHooks, Reclaim, Request, Stats};

pub use boxed::ZoneBox;
pub use builder::ZoneBuilder;

use crate::raw::{Config, GroupIn, OwnSlabs, RawZone, RawZoneBuilder};
use crate::{DefaultPlatform, Platform, Rejected, ZoneError};

/// The layout of an item that holds a `T`. Values without a size take a byte, so that each has an
/// address of its own.
pub(crate) const fn item_of<T>() -> Layout {
    let layout = Layout::new::<T>();
    if layout.size() != 0 {
        return layout;
    }
    match Layout::from_size_align(1, layout.align()) {
        Ok(layout) => layout,
        Err(_) => panic!("the alignment of a type is a power of two"),
    }
}

/// A zone of values of type `T`.
///
/// ```
/// use uma::Zone;
///
/// struct Node { key: u64, next: Option<usize> }
///
/// static NODES: Zone<Node> = Zone::new("node");
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = NODES.alloc(Node { key: 7, next: None })?;
/// assert_eq!(node.key, 7);
/// drop(node);
///
/// let few = Zone::<[u8; 100]>::builder("buffer").max_items(2).build()?;
/// let (a, b) = (few.alloc([1; 100])?, few.alloc([2; 100])?);
/// let c = few.try_alloc([3; 100]).unwrap_err();
/// assert_eq!(c.value, [3; 100]);
/// # drop((a, b)); Ok(()) }
/// ```
///
/// # How long values live
///
/// No longer than their zone, which a [`ZoneBox`] borrows. So a zone is one of these:
///
/// - A `static`. Its boxes are `ZoneBox<'static, T>`: they go into any structure, to any thread or task.
/// - A local variable or a field, which lives longer than what holds the boxes.
/// - Made at run time and kept for good, one for each table, say: `Box::leak` makes a `&'static Zone` of it,
///   whose boxes are as those of a static. It can still be reclaimed.
/// - Made at run time, and ended with the structure that owns both it and the values: that structure keeps
///   [`ZoneBox::into_raw`] pointers, and makes them boxes again in its `Drop`.
///
/// ```
/// use std::collections::HashMap;
/// use uma::{Zone, ZoneBox, ZoneError};
///
/// struct Table { rows: HashMap<u32, ZoneBox<'static, [u8; 200]>>, zone: &'static Zone<[u8; 200]> }
///
/// impl Table {
///     fn new(name: &str) -> Result<Self, uma::ConfigError> {
///         let zone = Box::leak(Box::new(Zone::builder(name).build()?));
///         Ok(Self { rows: HashMap::new(), zone })
///     }
///     fn put(&mut self, key: u32, row: [u8; 200]) -> Result<(), ZoneError> {
///         self.rows.insert(key, self.zone.alloc(row)?);
///         Ok(())
///     }
/// }
/// # let mut table = Table::new("accounts").unwrap();
/// # std::thread::spawn(move || table.put(1, [1; 200])).join().unwrap().unwrap();
/// ```
pub struct Zone<T, P: Platform = DefaultPlatform> {
    raw: RawZone<P, NoHooks>,
    values: PhantomData<fn() -> T>,
}

#[cfg(feature = "std")]
impl<T> Zone<T> {
    /// A zone on the default platform, made at its first use. For statics.
    pub const fn new(name: &str) -> Self {
        Self::new_in(name, DefaultPlatform::new())
    }

    /// Describes a zone on the default platform.
    pub const fn builder(name: &str) -> ZoneBuilder<T> {
        Self::builder_in(name, DefaultPlatform::new())
    }
}

impl<T, P: Platform> Zone<T, P> {
    /// A zone on a given platform, made at its first use. For statics.
    pub const fn new_in(name: &str, platform: P) -> Self {
        let config = Config::new(name, item_of::<T>());
        let builder = RawZoneBuilder { config, platform, hooks: NoHooks, origin: OwnSlabs };
        Self { raw: builder.lazy(), values: PhantomData }
    }

    /// Describes a zone on a given platform.
    pub const fn builder_in(name: &str, platform: P) -> ZoneBuilder<T, P> {
        let config = Config::new(name, item_of::<T>());
        ZoneBuilder {
            raw: RawZoneBuilder { config, platform, hooks: NoHooks, origin: OwnSlabs },
            values: PhantomData,
        }
    }

    /// Puts a value into an item. Waits at the zone's limit until an item is freed.
    ///
    /// # Errors
    ///
    /// If there are no pages; the error holds the value.
    #[inline(always)]
    pub fn alloc(&self, value: T) -> Result<ZoneBox<'_, T, P>, Rejected<T>> {
        self.place(value, Request::WAIT)
    }

    /// Puts a value into an item, but does not wait.
    ///
    /// # Errors
    ///
    /// If the zone is at its limit or there are no pages; the error holds the value.
    #[inline(always)]
    pub fn try_alloc(&self, value: T) -> Result<ZoneBox<'_, T, P>, Rejected<T>> {
        self.place(value, Request::NOWAIT)
    }

    /// Puts a value into an item. Waits at the zone's limit, but no longer than `time`.
    ///
    /// # Errors
    ///
    /// If that time passed or there are no pages; the error holds the value.
    pub fn alloc_for(&self, value: T, time: Duration) -> Result<ZoneBox<'_, T, P>, Rejected<T>> {
        self.alloc_until(value, Deadline::after(time, &self.raw.platform().sleep()))
    }

    /// Puts a value into an item. Waits at the zone's limit until a point in time on the clock of the
    /// platform's [`Sleep`](uma_core::Sleep) (see [`Deadline::after`], and `Park::deadline_in`).
    ///
    /// # Errors
    ///
    /// If the deadline passed or there are no pages; the error holds the value.
    pub fn alloc_until(
        &self,
        value: T,
        deadline: Deadline,
    ) -> Result<ZoneBox<'_, T, P>, Rejected<T>> {
        self.place(value, Request::until(deadline))
    }

    /// Makes a value in an item, once there is one. Waits as [`alloc`](Self::alloc) does. If `make`
    /// panics, the item goes back.
    ///
    /// # Errors
    ///
    /// If there are no pages; then `make` was not called.
    pub fn alloc_with(&self, make: impl FnOnce() -> T) -> Result<ZoneBox<'_, T, P>, ZoneError> {
        let item = self.raw.alloc(Request::WAIT)?;
        let room = Room { zone: self, item };
        let value = make();
        core::mem::forget(room);
        Ok(self.fill(item, value))
    }

    #[inline(always)]
    fn place(&self, value: T, request: Request) -> Result<ZoneBox<'_, T, P>, Rejected<T>> {
        match self.raw.alloc(request) {
            Ok(item) => Ok(self.fill(item, value)),
            Err(error) => Err(Rejected { value, error }),
        }
    }

    #[inline(always)]
    pub(crate) fn fill(&self, item: Item, value: T) -> ZoneBox<'_, T, P> {
        let pointer = item.cast::<T>();
        // SAFETY: the item is ours, and has the size and alignment of a `T` (see `item_of`).
        unsafe { pointer.write(value) };
        ZoneBox { pointer, zone: self, owns: PhantomData }
    }

    /// A box again, from what [`ZoneBox::into_raw`] gave.
    ///
    /// # Safety
    ///
    /// `pointer` came from `into_raw` of a box of this zone, and becomes a box once.
    pub const unsafe fn box_from_raw(&self, pointer: NonNull<T>) -> ZoneBox<'_, T, P> {
        ZoneBox { pointer, zone: self, owns: PhantomData }
    }

    /// The zone below.
    pub const fn as_raw(&self) -> &RawZone<P, NoHooks> {
        &self.raw
    }

    /// The zone's name.
    pub const fn name(&self) -> &Name {
        self.raw.name()
    }

    /// The zone's figures (see [`Stats`]).
    pub fn stats(&self) -> Stats {
        self.raw.stats()
    }

    /// Gives back what is held beyond need.
    pub fn reclaim(&self, mode: Reclaim) {
        self.raw.reclaim(mode);
    }

    /// Changes the limit; `None` lifts it.
    ///
    /// # Errors
    ///
    /// If the zone is used for the first time by this call and cannot be made.
    pub fn set_max_items(&self, max: Option<NonZeroU64>) -> Result<(), ZoneError> {
        self.raw.set_max_items(max)
    }

    /// The limit, if there is one (`uma_zone_get_max`).
    pub fn max_items(&self) -> Option<NonZeroU64> {
        self.raw.max_items()
    }

    /// Values in use (`uma_zone_get_cur`). See [`RawZone::cur_items`].
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

    /// Waits until room for a value can be had (`uma_zwait`), until a point in time on the clock of the platform's
    /// [`Sleep`](uma_core::Sleep). See [`RawZone::wait_for_room`].
    ///
    /// # Errors
    ///
    /// If the deadline passed, or none could be had for another reason than a limit.
    pub fn wait_for_room(&self, deadline: Deadline) -> Result<(), ZoneError> {
        self.raw.wait_for_room(Request::until(deadline))
    }

    /// Bounds the free items that are cached (`uma_zone_set_maxcache`). See
    /// [`RawZone::set_max_cached`].
    ///
    /// # Errors
    ///
    /// If the zone is used for the first time by this call and cannot be made.
    pub fn set_max_cached(&self, items: Option<u64>) -> Result<(), ZoneError> {
        self.raw.set_max_cached(items)
    }

    /// Puts a value into an item. At the zone's limit it waits without a thread that sleeps, in order of
    /// arrival among threads and tasks. Dropped before its end, the future has done nothing but drop the
    /// value: for a deadline, use a timer of your runtime. See [`RawZone::alloc_async`].
    ///
    /// # Errors
    ///
    /// If there are no pages; the error holds the value.
    #[cfg(feature = "async")]
    pub async fn alloc_async(&self, value: T) -> Result<ZoneBox<'_, T, P>, Rejected<T>> {
        match self.raw.alloc_async(Request::NOWAIT).await {
            Ok(item) => Ok(self.fill(item, value)),
            Err(error) => Err(Rejected { value, error }),
        }
    }
}

/// An item to be given back if its value does not come about.
struct Room<'z, T, P: Platform> {
    item: Item,
    zone: &'z Zone<T, P>,
}

impl<T, P: Platform> Drop for Room<'_, T, P> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the item came from this zone and holds no value.
        unsafe { self.zone.raw.free(self.item) };
    }
}

impl<T, P: Platform> fmt::Debug for Zone<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.raw).finish()
    }
}
