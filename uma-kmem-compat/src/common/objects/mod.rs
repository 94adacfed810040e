//! Object caches as Solaris has them, in the kernel and in libumem: with constructed objects, memory that is
//! asked back, and objects that move.
//!
//! ```text
//!   KmemCache, UmemCache --- Counted --> Objects <--- Weak --- the list of all (reap, upkeep)
//!                                      |  zone: slabs, or pages for large objects
//!                                      |  moves: the move callback and what it said
//!                                      `- pages: reserve, and what is held while objects move
//! ```
//!
//! The list, the queue of the upkeep and the books of moves are under one lock, a leaf (see `lock`).

mod hooks;
mod list;
mod lock;
#[cfg_attr(not(feature = "solaris"), allow(unreachable_pub, reason = "only Solaris moves objects"))]
mod moves;
mod pages;
mod underway;
mod upkeep;

use core::alloc::Layout;
use core::ffi::c_int;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use std::ffi::CStr;

use uma::core::{AllocError, ConfigError, ConfigFault, Item, Name, Request, Stats};
use uma::{Hardening, RawZone, RawZoneBuilder, Reclaim};

use hooks::Construct;
pub use hooks::{Callbacks, Constructor, Destructor, ReclaimCallback};
pub(crate) use list::{for_each, reap, reap_all};
#[cfg(feature = "solaris")]
pub use moves::{Answer, MoveCallback};
pub(crate) use pages::{Backing, Pages, Shared, Surroundings};
pub(crate) use upkeep::{Heap, active, defragment_later, look_after, reap_later, start};

use super::System;
use super::memory::{Alone, Counted, NoMemory, no_zone};
use super::name::Kept;
use crate::sync::{AtomicU64, Ordering};
use moves::Moves;
use pages::Large;

type Slabs = RawZone<Surroundings, Construct>;
type Runs = RawZone<Surroundings, Construct, uma::Over<Large>>;

enum Zone {
    Slabs(Slabs),
    Runs(Runs),
}

/// Does the same with either kind of zone.
macro_rules! zone {
    ($objects:expr, $zone:ident => $body:expr) => {
        match &$objects.zone {
            Zone::Slabs($zone) => $body,
            Zone::Runs($zone) => $body,
        }
    };
}

/// A cache of objects of one size.
pub(crate) struct Objects {
    zone: Zone,
    align: usize,
    size: usize,
    callbacks: Callbacks,
    system: &'static System,
    surroundings: Surroundings,
    name: Kept,
    moves: Moves,
    counts: Counts,
}

/// What is counted here because the engine does not know of it.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) reaps: AtomicU64,
    pub(crate) scans: AtomicU64,
    /// Allocations and frees at the last look.
    seen: AtomicU64,
    /// Most objects that were seen in existence.
    most: AtomicU64,
}

/// What a cache is made of.
pub(crate) struct Wanted<'a> {
    pub(crate) system: &'static System,
    pub(crate) name: &'a str,
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) callbacks: Callbacks,
    /// What a constructor is told of a request.
    pub(crate) flags: fn(Request) -> c_int,
    /// Whether the CPUs have caches.
    pub(crate) magazines: bool,
    /// Whether free objects are never written to.
    pub(crate) untouched: bool,
    pub(crate) hardening: Option<Hardening>,
    pub(crate) backing: Option<Counted<dyn Backing>>,
}

impl Objects {
    /// Makes a cache and lists it.
    ///
    /// # Errors
    ///
    /// What is wrong with the description, or that there was no memory.
    ///
    /// # Safety
    ///
    /// The callbacks take objects of that size, touch no more of them, and may run on any thread as long as
    /// the cache exists.
    pub(crate) unsafe fn create(wanted: Wanted<'_>) -> Result<Counted<Self>, ConfigError> {
        let Wanted { system, name, size, align, callbacks, flags, .. } = wanted;
        let no_memory = |NoMemory| no_zone(name, size, align);
        let kept = Kept::new(name).map_err(no_memory)?;
        let shared = Counted::new(Shared::new(wanted.backing.clone())).map_err(no_memory)?;
        let surroundings = Surroundings::new(Pages::Cache(shared), system);
        let construct = Construct { callbacks, flags, untouched: wanted.untouched };
        let fault = |fault| ConfigError { zone: Name::new(name), size, align, fault };
        let zone = if size <= uma::keg::MAX_ITEM_SIZE {
            let zone = RawZone::builder_in(name, Layout::new::<()>(), surroundings.clone())
                .size_align(size, align);
            let zone = fitted(zone, &wanted);
            // SAFETY: the caller vouches for the callbacks.
            Zone::Slabs(unsafe { zone.hooks(construct) }.build()?)
        } else {
            if !align.is_power_of_two() {
                return Err(fault(ConfigFault::BadAlign));
            }
            let object = Layout::from_size_align(size, align).ok();
            let large =
                object.and_then(|object| Large::new(object, uma::Platform::pages(&surroundings)));
            let large = large.ok_or_else(|| fault(ConfigFault::Overflow))?;
            let zone = fitted(RawZone::over_in(name, large, surroundings.clone()), &wanted);
            // SAFETY: as above.
            Zone::Runs(unsafe { zone.hooks(construct) }.build()?)
        };
        let (moves, counts) = (Moves::new(), Counts::default());
        let objects =
            Self { zone, align, size, callbacks, system, surroundings, name: kept, moves, counts };
        let objects = Counted::new(objects).map_err(no_memory)?;
        list::add(&objects).map_err(no_memory)?;
        Ok(objects)
    }

    /// An object that is at hand, or null: the whole of a hit.
    #[inline(always)]
    pub(crate) fn alloc_cached(&self) -> *mut u8 {
        zone!(self, zone => zone.alloc_cached())
    }

    /// An object.
    pub(crate) fn alloc(&self, request: Request) -> Result<NonNull<u8>, AllocError> {
        let item = zone!(self, zone => zone.alloc(request));
        item.map(Item::as_non_null).map_err(|error| error.reason())
    }

    /// Has a front lead to the zone.
    ///
    /// # Safety
    ///
    /// As [`RawZone::lend_front`].
    #[cfg(feature = "capi")]
    pub(crate) unsafe fn lend_front(&self, front: &super::Front) {
        // SAFETY: the caller's duty is passed on unchanged.
        zone!(self, zone => unsafe { zone.lend_front(front) });
    }

    /// Frees an object.
    ///
    /// # Safety
    ///
    /// It came from this cache and is not used any more.
    pub(crate) unsafe fn free(&self, object: NonNull<u8>) {
        // SAFETY: the caller's duty is passed on unchanged.
        zone!(self, zone => unsafe { zone.free(Item::new(object)) });
    }

    /// Whether a pointer has the alignment of an object.
    #[inline(always)]
    pub(crate) fn is_aligned(&self, object: *const core::ffi::c_void) -> bool {
        object.addr() & (self.align - 1) == 0
    }

    /// Gives back what is free beyond what the mode leaves.
    pub(crate) fn reclaim(&self, mode: Reclaim) {
        zone!(self, zone => zone.reclaim(mode));
    }

    /// Calls `visit` with every object in use, after emptying the caches. Large ones are not known.
    pub(crate) fn for_each_used(&self, mut visit: impl FnMut(NonNull<u8>)) {
        self.reclaim(Reclaim::DrainCpu);
        zone!(self, zone => zone.for_each_live(|item| visit(item.as_non_null())));
    }

    pub(crate) fn stats(&self) -> Stats {
        zone!(self, zone => zone.stats())
    }

    /// Most objects that were seen in existence, with a look now.
    pub(crate) fn most(&self, now: u64) -> u64 {
        self.counts.most.fetch_max(now, Ordering::Relaxed).max(now)
    }

    pub(crate) const fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) const fn moves(&self) -> &Moves {
        &self.moves
    }

    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    pub(crate) const fn align(&self) -> usize {
        self.align
    }

    pub(crate) const fn callbacks(&self) -> &Callbacks {
        &self.callbacks
    }

    pub(crate) const fn system(&self) -> &'static System {
        self.system
    }

    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    fn shared(&self) -> &Shared {
        self.surroundings.shared()
    }
}

/// What zones of both kinds are told.
fn fitted<P: uma::Platform, H, O>(
    zone: RawZoneBuilder<P, H, O>,
    wanted: &Wanted<'_>,
) -> RawZoneBuilder<P, H, O> {
    let zone = if wanted.magazines { zone } else { zone.bucket(0) };
    match wanted.hardening {
        Some(hardening) => zone.hardening(hardening),
        None => zone,
    }
}

/// A cache, for the one who made it: when this is dropped, the cache ends. Nobody finds it in the list any more, and
/// whoever has found it before has done with it.
#[derive(Debug)]
pub(crate) struct Owner(ManuallyDrop<Counted<Objects>>);

impl Owner {
    pub(crate) fn new(objects: Counted<Objects>) -> Self {
        Self(ManuallyDrop::new(objects))
    }

    /// Ends the cache, when whoever looks at it has done with it: a scan has objects in hand. If objects are in use
    /// then, `stays` says whether the cache goes on; their memory stays in any case.
    ///
    /// # Errors
    ///
    /// How many objects are in use, and the cache if it goes on.
    pub(crate) fn end(
        self,
        stays: impl FnOnce(&Objects, u64) -> bool,
    ) -> Result<(), (u64, Option<Self>)> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: it is not used again.
        let objects = unsafe { ManuallyDrop::take(&mut this.0) };
        let Some(alone) = alone(objects) else { return Ok(()) };
        alone.reclaim(Reclaim::DrainCpu);
        let used = alone.stats().used();
        if used == 0 {
            return Ok(());
        }
        if !stays(&alone, used) {
            return Err((used, None));
        }
        let objects = alone.shared();
        // Not listed, it is not reaped with others: that can be borne.
        let _ = list::add(&objects);
        Err((used, Some(Self::new(objects))))
    }
}

/// The cache itself: nobody finds it in the list any more, and whoever has found it before has done with it. `None` if
/// that does not come about; then it is left as it is.
fn alone(mut objects: Counted<Objects>) -> Option<Alone<Objects>> {
    list::remove(&objects);
    // A round of upkeep is short. In a child of fork(2) it may never end: its thread is not there.
    for _ in 0..10_000 {
        match objects.alone() {
            Ok(alone) => return Some(alone),
            Err(shared) => objects = shared,
        }
        std::thread::sleep(core::time::Duration::from_millis(1));
    }
    objects
        .system
        .report("destroy", format_args!("{objects} is being reaped; it is left as it is"));
    core::mem::forget(objects);
    None
}

impl core::ops::Deref for Owner {
    type Target = Counted<Objects>;

    #[inline(always)]
    fn deref(&self) -> &Counted<Objects> {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: it is not used again.
        let objects = unsafe { ManuallyDrop::take(&mut self.0) };
        drop(alone(objects));
    }
}

/// A null pointer, or one to an object.
pub(crate) fn or_null<E>(object: Result<NonNull<u8>, E>) -> *mut u8 {
    object.map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// Names the cache in reports.
impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cache \"{}\"", self.name.as_text())
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects")
            .field("name", &self.name)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
