//! `kmem_cache`: objects of one kind.

use core::ffi::CStr;
#[cfg(feature = "capi")]
use core::ffi::c_void;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use std::alloc::Layout;

use uma::core::{ConfigError, Item, Request, Stats};
use uma::{Hardening, RawZone, Reclaim};

use super::ctor::{Construct, Constructor};
use super::pages::Surroundings;
use super::{Gfp, SLAB_DEBUG, SYSTEM, SlabFlags};
#[cfg(feature = "capi")]
use crate::common::Front;
use crate::common::Patience;
use crate::common::memory::{NoMemory, no_zone};
use crate::common::name::Kept;
use crate::sync::{AtomicBool, Ordering};

/// Bytes in a line of the processor's cache.
const CACHE_LINE: usize = 64;
/// Objects are aligned to this at least: `ARCH_SLAB_MINALIGN` of 64-bit machines.
const MIN_ALIGN: usize = 8;

/// A cache of objects of one size (`struct kmem_cache`).
#[repr(C)]
pub struct KmemCache {
    zone: RawZone<Surroundings, Construct>,
    align: usize,
    construct: Construct,
    size: usize,
    flags: SlabFlags,
    /// What may be copied to and from users: offset and size, in bytes.
    user: (usize, usize),
    name: Kept,
    /// Whether it was told that `__GFP_ZERO` goes ill with a constructor.
    warned: AtomicBool,
}

/// What a cache may have beside a name, a size and flags (`struct kmem_cache_args`).
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheArgs {
    /// Alignment in bytes, a power of two, or 0 for whatever is natural: 8.
    pub align: usize,
    /// Offset in bytes of the part that may be copied to and from user space. Kept, and nothing else: see
    /// [`KmemCache::user_region`].
    pub user_offset: usize,
    /// Its size in bytes.
    pub user_size: usize,
    /// Where the free pointer may lie in a free object, which must be one that stays what it is or has a
    /// constructor. There is no free pointer here.
    pub free_pointer_offset: Option<usize>,
    /// So many objects to a sheaf (a bucket, here), or 0 for what suits the size.
    pub sheaf_capacity: u32,
}

/// Why a cache could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateError {
    /// The engine cannot have such objects.
    Config(ConfigError),
    /// There is no name.
    NoName,
    /// The flags hold unknown bits, which are given.
    UnknownFlags(u32),
    /// A free pointer at this offset, in bytes: it lies outside the object, or the cache neither keeps memory
    /// what it is nor has a constructor.
    FreePointer(usize),
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::NoName => f.write_str("it has no name"),
            Self::UnknownFlags(bits) => write!(f, "unknown flags {bits:#x}"),
            Self::FreePointer(at) => write!(f, "no free pointer can lie at offset {at}"),
        }
    }
}

impl core::error::Error for CreateError {}

impl From<ConfigError> for CreateError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// A cache that cannot be destroyed, because objects of it are in use.
#[derive(Debug)]
pub struct StillUsed {
    /// The cache, unharmed.
    pub cache: Box<KmemCache>,
    /// How many objects are in use.
    pub used: u64,
}

impl fmt::Display for StillUsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} objects of {} are in use", self.used, self.cache)
    }
}

impl core::error::Error for StillUsed {}

impl KmemCache {
    /// A cache without a constructor. `align` is in bytes, 0 for the natural one.
    ///
    /// # Errors
    ///
    /// What is wrong with the description, or that there was no memory. With [`SlabFlags::PANIC`], it is the
    /// C function that ends the process, not this one.
    pub fn create(
        name: &str,
        size: usize,
        align: usize,
        flags: SlabFlags,
    ) -> Result<Self, CreateError> {
        let args = CacheArgs { align, ..CacheArgs::default() };
        // SAFETY: there is no constructor.
        unsafe { Self::create_with(name, size, args, None, flags) }
    }

    /// A cache of everything that `kmem_cache_create` takes.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    ///
    /// # Safety
    ///
    /// The constructor takes a pointer to memory of `size` bytes with unspecified contents, touches no more of
    /// it, and may run on any thread.
    pub unsafe fn create_with(
        name: &str,
        size: usize,
        args: CacheArgs,
        ctor: Option<Constructor>,
        flags: SlabFlags,
    ) -> Result<Self, CreateError> {
        let unknown = flags.bits() & !SlabFlags::all().bits();
        if unknown != 0 {
            return Err(CreateError::UnknownFlags(unknown));
        }
        let typesafe = flags.contains(SlabFlags::TYPESAFE_BY_RCU);
        if let Some(at) = args.free_pointer_offset {
            let fits = at.checked_add(size_of::<*const ()>()).is_some_and(|end| end <= size);
            if !fits || !(typesafe || ctor.is_some()) {
                return Err(CreateError::FreePointer(at));
            }
        }
        let align = Self::alignment(size, args.align, flags);
        // A size of zero stays one, to be refused.
        let (construct, memory) = Construct::new(ctor, size, typesafe && size != 0);
        let no_memory = |NoMemory| no_zone(name, size, align);
        let kept = Kept::new(name).map_err(no_memory)?;
        let surroundings = Surroundings::new(typesafe).map_err(no_memory)?;
        let mut zone =
            RawZone::builder_in(name, Layout::new::<()>(), surroundings).size_align(memory, align);
        if let Some(hardening) = Self::hardening(flags) {
            zone = zone.hardening(hardening);
        }
        if args.sheaf_capacity != 0 {
            zone = zone.bucket(u16::try_from(args.sheaf_capacity).unwrap_or(u16::MAX));
        }
        // SAFETY: the caller vouches for the constructor; the memory has room for its mark.
        let zone = unsafe { zone.hooks(construct) }.build()?;
        let inside = |end: usize| end <= size;
        let user = match args.user_offset.checked_add(args.user_size).is_some_and(inside) {
            true if args.user_size != 0 => (args.user_offset, args.user_size),
            _ => (0, 0),
        };
        if user != (args.user_offset, args.user_size) {
            let (at, bytes) = (args.user_offset, args.user_size);
            SYSTEM.report(
                "kmem_cache_create_usercopy",
                format_args!("\"{name}\": no part of {bytes} bytes at {at}; none may be copied"),
            );
        }
        let warned = AtomicBool::new(false);
        Ok(Self { zone, align, construct, size, flags, user, name: kept, warned })
    }

    /// What is checked, if the flags or the policy ask for it; else it is as for all zones.
    fn hardening(flags: SlabFlags) -> Option<Hardening> {
        let mut flags = flags;
        if SLAB_DEBUG.get() == "on" && !flags.contains(SlabFlags::NO_USER_FLAGS) {
            flags |= SlabFlags::CONSISTENCY_CHECKS;
        }
        if !flags.intersects(SlabFlags::DEBUG) {
            return None;
        }
        // Free objects keep their state here, so they are summed up and not filled. Where memory stays what it
        // is, somebody may rightly touch them.
        let sums = flags.contains(SlabFlags::POISON) && !flags.contains(SlabFlags::TYPESAFE_BY_RCU);
        let hardening = Hardening::RELEASE
            .live(true)
            .red_zones(flags.contains(SlabFlags::RED_ZONE))
            .owners(flags.contains(SlabFlags::STORE_USER));
        Some(if sums { hardening.sums(true) } else { hardening })
    }

    /// The alignment of objects: what was asked for, and at least 8.
    fn alignment(size: usize, asked: usize, flags: SlabFlags) -> usize {
        let mut align = MIN_ALIGN;
        if flags.contains(SlabFlags::HWCACHE_ALIGN) {
            let mut line = CACHE_LINE;
            while size <= line / 2 && line > MIN_ALIGN {
                line /= 2;
            }
            align = line;
        }
        // What is no power of two stays that, to be refused.
        if asked > align || (asked != 0 && !asked.is_power_of_two()) { asked } else { align }
    }

    /// An object, or `None` (`kmem_cache_alloc`).
    #[inline]
    pub fn alloc(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        NonNull::new(self.alloc_or_null(gfp))
    }

    /// An object, or null.
    #[inline(always)]
    pub(super) fn alloc_or_null(&self, gfp: Gfp) -> *mut u8 {
        let object = self.alloc_cached(gfp);
        if object.is_null() { self.alloc_slow(gfp) } else { object }
    }

    /// An object that is at hand, or null: the whole of a hit.
    #[inline(always)]
    fn alloc_cached(&self, gfp: Gfp) -> *mut u8 {
        if gfp.contains(Gfp::ZERO) { ptr::null_mut() } else { self.zone.alloc_cached() }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(&self, gfp: Gfp) -> *mut u8 {
        // Whether it may wait makes no difference: there is no limit to wait at.
        let request = self.request(gfp);
        let attempt = || self.zone.alloc(request).ok();
        self.insist(gfp, attempt).map_or(ptr::null_mut(), Item::as_ptr)
    }

    /// What `gfp` asks of the engine. Zeros are not for objects that have a constructor.
    fn request(&self, gfp: Gfp) -> Request {
        if !gfp.contains(Gfp::ZERO) {
            return Request::NOWAIT;
        }
        if self.construct.is_some() {
            if !self.warned.swap(true, Ordering::Relaxed) {
                SYSTEM.misuse(
                    "kmem_cache_alloc",
                    format_args!("__GFP_ZERO has no effect on {self}, which has a constructor"),
                );
            }
            return Request::NOWAIT;
        }
        Request::NOWAIT.zeroed()
    }

    /// Tries as hard as `gfp` has it.
    pub(super) fn insist<T>(&self, gfp: Gfp, attempt: impl Fn() -> Option<T>) -> Option<T> {
        insist(gfp, format_args!("{self}"), attempt)
    }

    /// Frees an object (`kmem_cache_free`).
    ///
    /// # Safety
    ///
    /// It came from this cache and is not used or freed any more.
    #[inline]
    pub unsafe fn free(&self, object: NonNull<u8>) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.zone.free(Item::new(object)) }
    }

    /// Has a front lead to the zone.
    ///
    /// # Safety
    ///
    /// As [`RawZone::lend_front`].
    #[cfg(feature = "capi")]
    pub(super) unsafe fn lend_front(&self, front: &Front) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.zone.lend_front(front) };
    }

    /// Whether a pointer has the alignment of an object.
    #[cfg(feature = "capi")]
    #[inline(always)]
    pub(super) fn is_aligned(&self, object: *const c_void) -> bool {
        object.addr() & (self.align - 1) == 0
    }

    /// Fills `into` with objects, or does nothing (`kmem_cache_alloc_bulk`). Returns how many: all or none.
    pub fn alloc_bulk(&self, gfp: Gfp, into: &mut [MaybeUninit<NonNull<u8>>]) -> usize {
        // SAFETY: an `Item` is a `NonNull<u8>` (`repr(transparent)`).
        let into = unsafe { &mut *(ptr::from_mut(into) as *mut [MaybeUninit<Item>]) };
        let request = self.request(gfp);
        let cell = core::cell::RefCell::new(into);
        let attempt = || {
            let mut into = cell.borrow_mut();
            self.zone.alloc_many(&mut into, request).ok().map(|()| into.len())
        };
        self.insist(gfp, attempt).unwrap_or(0)
    }

    /// Frees many objects (`kmem_cache_free_bulk`).
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free), for each.
    pub unsafe fn free_bulk(&self, objects: &[NonNull<u8>]) {
        // SAFETY: an `Item` is a `NonNull<u8>` (`repr(transparent)`); the rest is passed on.
        unsafe { self.zone.free_many(&*(ptr::from_ref(objects) as *const [Item])) }
    }

    /// Gives back what is free (`kmem_cache_shrink`). Returns whether nothing is left.
    pub fn shrink(&self) -> bool {
        self.zone.reclaim(Reclaim::DrainCpu);
        if let Some(kept) = self.zone.platform().kept() {
            kept.flush();
        }
        self.zone.stats().slabs == 0
    }

    /// Calls `visit` with every object in use, after emptying the caches.
    pub fn for_each_used(&self, mut visit: impl FnMut(NonNull<u8>)) {
        self.zone.reclaim(Reclaim::DrainCpu);
        self.zone.for_each_live(|item| visit(item.as_non_null()));
    }

    /// Ends the cache (`kmem_cache_destroy`).
    ///
    /// # Errors
    ///
    /// If objects are in use: the cache, unharmed, and how many. (A cache that is dropped instead says so and
    /// leaves their memory alone.)
    pub fn destroy(self) -> Result<(), StillUsed> {
        match self.zone.stats().used() {
            0 => Ok(()),
            used => Err(StillUsed { cache: Box::new(self), used }),
        }
    }

    /// The size that was asked for, in bytes (`kmem_cache_size`).
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The alignment of objects, in bytes.
    pub const fn align(&self) -> usize {
        self.align
    }

    /// The flags that it was made with.
    pub const fn flags(&self) -> SlabFlags {
        self.flags
    }

    /// Whether it has a constructor.
    pub const fn has_constructor(&self) -> bool {
        self.construct.is_some()
    }

    /// The part of an object that may be copied to and from user space: offset and size, in bytes.
    pub const fn user_region(&self) -> (usize, usize) {
        self.user
    }

    /// The name, whole.
    pub fn name(&self) -> &CStr {
        &self.name
    }

    /// The figures of its zone.
    pub fn stats(&self) -> Stats {
        self.zone.stats()
    }
}

/// Names the cache in reports.
impl fmt::Display for KmemCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cache \"{}\"", self.name.as_text())
    }
}

impl fmt::Debug for KmemCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KmemCache")
            .field("name", &self.name)
            .field("size", &self.size)
            .field("align", &self.align())
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

/// Tries once; where `gfp` allows it, drains all caches and tries again; where it demands it, goes on for
/// ever. `whose` says from what something is wanted.
pub(super) fn insist<T>(
    gfp: Gfp,
    whose: fmt::Arguments<'_>,
    attempt: impl Fn() -> Option<T>,
) -> Option<T> {
    let nofail = gfp.contains(Gfp::NOFAIL);
    let mut result = attempt();
    if result.is_none()
        && gfp.contains(Gfp::DIRECT_RECLAIM)
        && (nofail || !gfp.contains(Gfp::NORETRY))
    {
        uma::reclaim(Reclaim::DrainCpu);
        result = attempt();
    }
    if result.is_none() && nofail {
        SYSTEM.report("__GFP_NOFAIL", format_args!("there is no memory for {whose}; waiting"));
        let mut patience = Patience::new();
        while result.is_none() {
            if patience.wait() && gfp.contains(Gfp::DIRECT_RECLAIM) {
                uma::reclaim(Reclaim::DrainCpu);
            }
            result = attempt();
        }
    }
    result
}
