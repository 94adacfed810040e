//! The zones of the engine that stand behind a zone of this face, whatever their type.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::num::NonZeroU64;
use core::ptr::NonNull;
use std::alloc::Layout;

use uma::core::{AllocError, Deadline, Hooks, Item, ItemSource, Name, Reclaim, Request, Stats};
use uma::{InUse, Origin, RawZone, ZoneError};

use super::M;
use super::callbacks::{Called, Import, Release};
use super::pages::Surroundings;
#[cfg(feature = "capi")]
use crate::common::Front;

/// A zone on slabs of its own.
pub(super) type Own<const CTOR: bool> = RawZone<Surroundings, Called<CTOR>>;

/// What a zone is asked for where its type is not known.
pub(super) trait Engine: Send + Sync {
    /// # Safety
    ///
    /// As [`RawZone::alloc_arg`].
    unsafe fn alloc(&self, arg: *mut (), request: Request) -> Result<Item, ZoneError>;
    /// # Safety
    ///
    /// As [`RawZone::free_arg`].
    unsafe fn free(&self, item: Item, arg: *mut ());
    /// # Safety
    ///
    /// As [`RawZone::lend_front`].
    #[cfg(feature = "capi")]
    unsafe fn lend_front(&self, front: &Front);
    fn pcpu_copy(&self, item: Item, cpu: usize) -> Option<NonNull<u8>>;
    fn name(&self) -> Name;
    fn flags(&self) -> uma::ZoneFlags;
    fn stats(&self) -> Stats;
    fn reclaim(&self, mode: Reclaim);
    fn prealloc(&self, items: u64) -> Result<(), ZoneError>;
    fn set_reserve(&self, items: u64) -> Result<(), ZoneError>;
    fn set_max(&self, items: NonZeroU64) -> Result<(), ZoneError>;
    fn max(&self) -> Option<NonZeroU64>;
    fn set_max_cached(&self, items: u64) -> Result<(), ZoneError>;
    fn exhausted(&self) -> bool;
    fn wait_for_room(&self, request: Request) -> Result<(), ZoneError>;
    fn wait_unused(&self, until: Deadline) -> Result<(), InUse>;
}

impl<H, O> Engine for RawZone<Surroundings, H, O>
where
    H: Hooks + Clone + Send + Sync + 'static,
    O: Origin<Surroundings>,
{
    #[inline]
    unsafe fn alloc(&self, arg: *mut (), request: Request) -> Result<Item, ZoneError> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.alloc_arg(arg, request) }
    }

    #[inline]
    unsafe fn free(&self, item: Item, arg: *mut ()) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.free_arg(item, arg) }
    }

    #[cfg(feature = "capi")]
    unsafe fn lend_front(&self, front: &Front) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.lend_front(front) };
    }

    fn pcpu_copy(&self, item: Item, cpu: usize) -> Option<NonNull<u8>> {
        self.pcpu_copy(item, cpu)
    }

    fn name(&self) -> Name {
        *self.name()
    }

    fn flags(&self) -> uma::ZoneFlags {
        self.flags()
    }

    fn stats(&self) -> Stats {
        self.stats()
    }

    fn reclaim(&self, mode: Reclaim) {
        self.reclaim(mode);
    }

    fn prealloc(&self, items: u64) -> Result<(), ZoneError> {
        self.prealloc(items)
    }

    fn set_reserve(&self, items: u64) -> Result<(), ZoneError> {
        self.set_reserve(items)
    }

    fn set_max(&self, items: NonZeroU64) -> Result<(), ZoneError> {
        self.set_max_items(Some(items))
    }

    fn max(&self) -> Option<NonZeroU64> {
        self.max_items()
    }

    fn set_max_cached(&self, items: u64) -> Result<(), ZoneError> {
        self.set_max_cached(Some(items))
    }

    fn exhausted(&self) -> bool {
        self.exhausted()
    }

    fn wait_for_room(&self, request: Request) -> Result<(), ZoneError> {
        self.wait_for_room(request)
    }

    fn wait_unused(&self, until: Deadline) -> Result<(), InUse> {
        self.wait_unused(until)
    }
}

/// The two functions of a cache zone, as a source.
#[derive(Clone, Copy)]
pub(super) struct Imported {
    pub(super) item: Layout,
    pub(super) arg: *mut c_void,
    pub(super) import: Import,
    pub(super) release: Release,
}

// SAFETY: whoever made the zone vouches that the functions may be called on any thread, with this argument.
unsafe impl Send for Imported {}
// SAFETY: as above.
unsafe impl Sync for Imported {}

// SAFETY: whoever made the zone vouches that the functions hand out items of their own, each once until it is
// released. One that unwinds hands out nothing, and what it was to take is lost.
unsafe impl ItemSource for Imported {
    fn layout(&self) -> Layout {
        self.item
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        let room = into.len().min(c_int::MAX as usize);
        let store: *mut *mut c_void = into.as_mut_ptr().cast();
        // Nobody is told of rubbish: what a function leaves out reads null.
        // SAFETY: there is room for so many pointers.
        unsafe { store.write_bytes(0, room) };
        // SAFETY: as above; any domain will do, -1.
        let count = unsafe { (self.import)(self.arg, store, room as c_int, -1, M::of(request)) };
        let count = usize::try_from(count).unwrap_or(0).min(room);
        // SAFETY: all of them were written.
        let stored = unsafe { core::slice::from_raw_parts(store, count) };
        // An item is not null: what comes after such a one is lost to the zone.
        match stored.iter().position(|item| item.is_null()).unwrap_or(count) {
            0 => Err(AllocError::Source),
            count => Ok(count),
        }
    }

    unsafe fn release(&self, items: &[Item]) {
        // The function may write to the array, as FreeBSD's may.
        let mut some = [core::ptr::null_mut(); 32];
        for items in items.chunks(some.len()) {
            for (place, item) in some.iter_mut().zip(items) {
                *place = item.as_ptr().cast();
            }
            // SAFETY: the caller gives them up.
            unsafe { (self.release)(self.arg, some.as_mut_ptr(), items.len() as c_int) };
        }
    }
}
