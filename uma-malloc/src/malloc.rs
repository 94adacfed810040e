//! The instance: allocation, and free by pointer alone.
//!
//! What a hit does, in order:
//!
//! ```text
//!   alloc   class by size; pop from the zone's bucket of this CPU; the mark must be there: take it off
//!   free    tag of the pointer's granule = class; does an item begin there; the mark must not be there:
//!           put it on; push into the zone's bucket of this CPU
//! ```
//!
//! Everything else is out of line. There are no locks in this crate: the map and the records of large runs
//! are changed by single atomic operations.

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use uma::core::{AllocError, ConfigFault, Name, PageSupplier, Reclaim, Request};
use uma::{DefaultPlatform, Platform};

use crate::classes::{MAX_CLASSES, SizeClasses};
use crate::error::{Fault, MallocError, MallocFault, Misuse};
use crate::map::{GRANULE, LARGE, NOTHING};
use crate::pinned::{Core, CorePtr};
use crate::stats::MallocStats;
use crate::sync::{AtomicPtr, AtomicU64, Ordering};

/// Largest alignment, in bytes.
const MAX_ALIGN: usize = isize::MAX.unsigned_abs() / 2 + 1;

/// Where a pointer leads.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// To an item of a class.
    Class(usize),
    /// To a large run.
    Large,
}

/// General-purpose allocation from zones of size classes, and from pages for what is larger.
///
/// An instance is a `static` or a value; there can be many, each with zones and figures of its own, on
/// one platform or on several. It takes no memory before its first use. Memory goes back to the instance
/// that it came from, on any thread.
///
/// ```
/// use uma_malloc::{Malloc, Request, SizeClasses};
///
/// static HEAP: Malloc = Malloc::new("heap", SizeClasses::GENERAL);
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let at = HEAP.alloc(100, Request::NOWAIT)?;
/// // SAFETY: the memory is ours, has 100 bytes, and is used no more after it was freed.
/// unsafe {
///     at.write_bytes(1, 100);
///     assert_eq!(HEAP.usable_size(at)?, 112);
///     let at = HEAP.realloc(at, 5000, Request::NOWAIT)?;
///     assert_eq!(at.add(99).read(), 1);
///     HEAP.free(at);
/// }
/// assert_eq!(HEAP.stats().used(), 0);
/// # Ok(()) }
/// ```
///
/// # Sizes
///
/// Up to the largest class of the table, a size is served by the smallest class that holds it, at the
/// alignment of that class. What is larger, or aligned to more than any class that holds it, is a run of whole
/// pages. A size of 0 is served as the smallest class; what 0 means to callers of `kmem_alloc`
/// or `kmalloc` is for their faces to say.
///
/// # Misuse
///
/// These are found, and reported by [`try_free`](Self::try_free) as a [`Misuse`], by the others as a panic
/// with its text, and nothing is done to the memory:
///
/// - a pointer that is not the instance's: always, without touching what it points to;
/// - one that is not to the beginning of an allocation: always (of two allocations, it may be the
///   beginning of the wrong one);
/// - one that is free already: as long as nobody has written over the mark in its first word, and its
///   pages have not gone back to the system meanwhile ([`reclaim`](Self::reclaim)). If an item comes up for
///   allocation without its mark it is reported ([`Platform::report`]), counted
///   ([`MallocStats::corrupt`]), and never handed out again. What slips through both is found by the slab
///   when the item gets there, which panics;
/// - [`free_sized`](Self::free_sized) with a size of another class, or of a large run with any other size.
///
/// # Dropping
///
/// Zones with items in use report them, as does the instance for large runs; the memory of these stays.
pub struct Malloc<P: Platform = DefaultPlatform> {
    core: AtomicPtr<Core<P>>,
    fails: AtomicU64,
    pub(crate) table: &'static SizeClasses,
    pub(crate) name: Name,
    pub(crate) platform: P,
}

// SAFETY: what the pointer leads to consists of the map, zones, counters and the platform, all of which
// may be shared by threads and sent between them.
unsafe impl<P: Platform> Send for Malloc<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for Malloc<P> {}

#[cfg(feature = "std")]
impl Malloc {
    /// An instance on the default platform. Its zones are named `name`, a hyphen, and the size.
    pub const fn new(name: &str, table: &'static SizeClasses) -> Self {
        Self::new_in(name, table, DefaultPlatform::new())
    }
}

impl<P: Platform> Malloc<P> {
    /// An instance on a platform.
    pub const fn new_in(name: &str, table: &'static SizeClasses, platform: P) -> Self {
        let core = AtomicPtr::new(ptr::null_mut());
        let (fails, name) = (AtomicU64::new(0), Name::new(name));
        Self { core, fails, table, name, platform }
    }

    /// The instance's name.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Its size classes.
    pub const fn classes(&self) -> &'static SizeClasses {
        self.table
    }

    /// What it stands on.
    pub const fn platform(&self) -> &P {
        &self.platform
    }

    /// The pinned part, if the instance was used.
    #[inline(always)]
    pub(crate) fn made(&self) -> Option<CorePtr<P>> {
        NonNull::new(self.core.load(Ordering::Acquire)).map(CorePtr)
    }

    /// The pinned part, made if need be.
    #[inline(always)]
    fn core(&self) -> Result<CorePtr<P>, MallocFault> {
        match self.made() {
            Some(core) => Ok(core),
            None => self.make(),
        }
    }

    #[cold]
    #[inline(never)]
    fn make(&self) -> Result<CorePtr<P>, MallocFault> {
        let made = CorePtr::make(&self.name, self.table, &self.platform);
        let core = made.map_err(|fault| match fault {
            ConfigFault::NoMemory => MallocFault::Alloc(AllocError::Metadata),
            _ => MallocFault::Alloc(AllocError::Unsupported),
        })?;
        let (null, new) = (ptr::null_mut(), core.0.as_ptr());
        match self.core.compare_exchange(null, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(core),
            Err(other) => {
                // SAFETY: nobody has seen it.
                unsafe { core.destroy(self.table.count()) };
                self.made().ok_or_else(|| {
                    debug_assert!(!other.is_null());
                    MallocFault::Alloc(AllocError::Metadata)
                })
            }
        }
    }

    /// The shared fields of a core.
    #[inline(always)]
    pub(crate) fn fields(&self, core: CorePtr<P>) -> &Core<P> {
        // SAFETY: it is ours, and stays until the instance is dropped.
        unsafe { core.0.as_ref() }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn error(&self, size: usize, align: usize, fault: MallocFault) -> MallocError {
        self.fails.fetch_add(1, Ordering::Relaxed);
        MallocError { name: self.name, size, align, fault }
    }

    /// Allocates `size` bytes, aligned as their class is ([`SizeClasses::align`]), or to a page. Blocks
    /// only if the platform's page supplier does, for requests that may wait. The contents are unspecified
    /// unless the request [wants zeros](Request::zeroed); then all usable bytes are zero.
    ///
    /// Before it fails for want of memory, every class gives back what it caches.
    ///
    /// # Errors
    ///
    /// Why there is none; nothing has changed then.
    #[inline(always)]
    pub fn alloc(&self, size: usize, request: Request) -> Result<NonNull<u8>, MallocError> {
        if let Some(class) = self.table.class_of(size)
            && let Some(item) = self.pop(class, request)
        {
            return Ok(item);
        }
        self.alloc_slow(size, 1, request)
    }

    /// Allocates memory of a layout. Any alignment that the platform's page supplier has can be had;
    /// above a page each allocation is a run of pages.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc).
    #[inline(always)]
    pub fn alloc_layout(
        &self,
        layout: Layout,
        request: Request,
    ) -> Result<NonNull<u8>, MallocError> {
        if let Some(class) = self.table.class_for(layout.size(), layout.align())
            && let Some(item) = self.pop(class, request)
        {
            return Ok(item);
        }
        self.alloc_slow(layout.size(), layout.align(), request)
    }

    /// [`alloc_layout`](Self::alloc_layout) for a size and an alignment that may make none.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc); [`MallocFault::BadAlign`] if the alignment is not a power of two.
    #[inline]
    pub fn alloc_aligned(
        &self,
        size: usize,
        align: usize,
        request: Request,
    ) -> Result<NonNull<u8>, MallocError> {
        match Layout::from_size_align(size, align) {
            Ok(layout) => self.alloc_layout(layout, request),
            Err(_) => self.alloc_slow(size, align, request),
        }
    }

    /// [`alloc`](Self::alloc), zeroed (`kmem_zalloc`, `kzalloc`).
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc).
    #[inline]
    pub fn zalloc(&self, size: usize, request: Request) -> Result<NonNull<u8>, MallocError> {
        self.alloc(size, request.zeroed())
    }

    /// [`alloc`](Self::alloc), or null: for callers, as those at a C boundary, that do not ask why.
    #[inline(always)]
    pub fn alloc_or_null(&self, size: usize, request: Request) -> *mut u8 {
        if let Some(class) = self.table.class_of(size)
            && let Some(item) = self.pop(class, request)
        {
            return item.as_ptr();
        }
        self.alloc_or_null_slow(size, request)
    }

    #[cold]
    #[inline(never)]
    fn alloc_or_null_slow(&self, size: usize, request: Request) -> *mut u8 {
        self.alloc_slow(size, 1, request).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    /// A marked item from the class's cache, if all is there and nothing more is asked for.
    #[inline(always)]
    fn pop(&self, class: usize, request: Request) -> Option<NonNull<u8>> {
        if request.wants_zero() {
            return None;
        }
        let core = self.made()?;
        // SAFETY: the core is ours, and the table has the class.
        let item = unsafe { core.class(class) }.zone.alloc_or_null(Request::NOWAIT);
        let item = NonNull::new(item)?;
        // SAFETY: the item is ours, and its class has room for a word.
        if unsafe { self.fields(core).marks.take(item) } {
            Some(item)
        } else {
            self.corrupt(core, class, item);
            None
        }
    }

    /// Says that an item came up for allocation without its mark. It is kept from circulation: it may be in
    /// use.
    #[cold]
    #[inline(never)]
    fn corrupt(&self, core: CorePtr<P>, class: usize, item: NonNull<u8>) {
        self.fields(core).counters.corrupt.fetch_add(1, Ordering::Relaxed);
        self.platform.report(format_args!(
            "\"{}\": the free item at {item:p} of {} bytes was written to after it was freed, or freed \
             twice; it is set aside",
            self.name,
            self.table.size(class)
        ));
    }

    /// The long way: checks, zeros, large sizes, the first use, and shortage.
    #[cold]
    #[inline(never)]
    fn alloc_slow(
        &self,
        size: usize,
        align: usize,
        request: Request,
    ) -> Result<NonNull<u8>, MallocError> {
        self.alloc_any(size, align, request).map_err(|fault| self.error(size, align, fault))
    }

    fn alloc_any(
        &self,
        size: usize,
        align: usize,
        request: Request,
    ) -> Result<NonNull<u8>, MallocFault> {
        if !align.is_power_of_two() {
            return Err(MallocFault::BadAlign);
        }
        if size > isize::MAX.unsigned_abs() || align > MAX_ALIGN {
            return Err(MallocFault::TooLarge);
        }
        let core = self.core()?;
        let class = self.table.class_for(size, align);
        let attempt = || match class {
            Some(class) => self.alloc_class(core, class, request),
            None => self.alloc_large(core, size, align, request),
        };
        match attempt() {
            Err(MallocFault::Alloc(error)) if error.is_shortage() => {
                self.reclaim(Reclaim::DrainCpu);
                attempt()
            }
            result => result,
        }
    }

    fn alloc_class(
        &self,
        core: CorePtr<P>,
        class: usize,
        request: Request,
    ) -> Result<NonNull<u8>, MallocFault> {
        let plain =
            if request.may_wait() { Request::until(request.deadline()) } else { Request::NOWAIT };
        loop {
            // SAFETY: the core is ours, and the table has the class.
            let item = unsafe { core.class(class) }.zone.alloc(plain);
            let item = item.map_err(|error| MallocFault::Alloc(error.reason()))?.as_non_null();
            // SAFETY: the item is ours, and its class has room for a word.
            if unsafe { self.fields(core).marks.take(item) } {
                if request.wants_zero() {
                    // SAFETY: the item is ours and has the size of its class.
                    unsafe { item.write_bytes(0, self.table.size(class)) };
                }
                return Ok(item);
            }
            self.corrupt(core, class, item);
        }
    }

    fn alloc_large(
        &self,
        core: CorePtr<P>,
        size: usize,
        align: usize,
        request: Request,
    ) -> Result<NonNull<u8>, MallocFault> {
        let core = self.fields(core);
        let pages = self.platform.pages();
        let page = pages.page_size().max(GRANULE);
        let layout = size
            .max(1)
            .checked_next_multiple_of(page)
            .and_then(|run| Layout::from_size_align(run, align.max(page)).ok())
            .ok_or(MallocFault::TooLarge)?;
        let run = pages
            .alloc_pages(layout, request)
            .map_err(|error| MallocFault::Alloc(AllocError::Pages(error)))?;
        let (base, flag, zeroed) = (run.base(), run.flag(), run.is_zeroed());
        let start = base.addr().get();
        if !core.map.cover_large(start) {
            // SAFETY: it came from there just now.
            unsafe { pages.free_pages(run) };
            return Err(MallocFault::Alloc(AllocError::Metadata));
        }
        if request.wants_zero() && !zeroed {
            // SAFETY: the run is ours.
            unsafe { base.write_bytes(0, layout.size()) };
        }
        // SAFETY: the run is ours; it is put together again in `free_large`.
        unsafe { core.map.enter(base, size, layout, flag) };
        core.counters.took(layout.size());
        Ok(base)
    }

    /// The tag of what a pointer leads to, and the class if that is a slab of one.
    #[inline(always)]
    pub(crate) fn class_at(&self, core: CorePtr<P>, at: NonNull<u8>) -> (u8, Option<usize>) {
        let tag = self.fields(core).map.tag(at.addr().get());
        // Other tags of slabs than those of the table's classes are never set.
        let class = usize::from(tag).wrapping_sub(1);
        (tag, (class < MAX_CLASSES).then_some(class))
    }

    /// Whether an item of this class begins there.
    ///
    /// # Safety
    ///
    /// `class_at` found the class there.
    #[inline(always)]
    pub(crate) unsafe fn begins(&self, core: CorePtr<P>, class: usize, at: NonNull<u8>) -> bool {
        // SAFETY: the core is ours, and has the classes that are in its map.
        unsafe { core.class(class) }.cut.begins_at(at.addr().get())
    }

    /// Where a pointer leads, without touching what it points to.
    #[inline]
    pub(crate) fn locate(&self, core: CorePtr<P>, at: NonNull<u8>) -> Result<Place, Fault> {
        match self.class_at(core, at) {
            // SAFETY: the class was found there.
            (_, Some(class)) if unsafe { self.begins(core, class, at) } => Ok(Place::Class(class)),
            (LARGE, _) if at.addr().get().is_multiple_of(GRANULE) => Ok(Place::Large),
            // The middle of a large run looks like nothing; see `misuse`.
            (NOTHING, _) => Err(Fault::Foreign),
            _ => Err(Fault::Interior),
        }
    }

    /// The size of the large run that an address lies in. Looks at all of them.
    pub(crate) fn large_around(&self, core: CorePtr<P>, addr: usize) -> Option<usize> {
        let mut found = None;
        self.fields(core).map.for_each_large(&mut |record| {
            let run = record.run.load(Ordering::Relaxed);
            if addr.wrapping_sub(record.base.load(Ordering::Relaxed).addr()) < run {
                found = Some(record.size.load(Ordering::Relaxed));
            }
        });
        found
    }

    /// The size that was asked for of the large run that begins here.
    pub(crate) fn large_size(&self, core: CorePtr<P>, at: NonNull<u8>) -> Option<usize> {
        let record = self.fields(core).map.record(at.addr().get())?;
        Some(record.size.load(Ordering::Relaxed))
    }

    /// How many bytes may be used (`malloc_usable_size`, `ksize`): the size of the class, or of the run.
    ///
    /// # Errors
    ///
    /// [`Misuse`] if no allocation begins there. One that is free is not told apart.
    pub fn usable_size(&self, at: NonNull<u8>) -> Result<usize, Misuse> {
        self.made()
            .ok_or(Fault::Foreign)
            .and_then(|core| self.usable(core, at))
            .map_err(|fault| self.misuse(at, fault))
    }

    pub(crate) fn usable(&self, core: CorePtr<P>, at: NonNull<u8>) -> Result<usize, Fault> {
        match self.locate(core, at)? {
            Place::Class(class) => Ok(self.table.size(class)),
            Place::Large => {
                let record = self.fields(core).map.record(at.addr().get());
                Ok(record.ok_or(Fault::Foreign)?.run.load(Ordering::Relaxed))
            }
        }
    }

    /// Whether an allocation begins there, in use or lately freed. Never touches what it points to.
    pub fn contains(&self, at: NonNull<u8>) -> bool {
        self.made().is_some_and(|core| self.locate(core, at).is_ok())
    }

    /// Makes every class give back what it holds beyond need. Large runs go back when they are freed.
    pub fn reclaim(&self, mode: Reclaim) {
        let Some(core) = self.made() else { return };
        for class in 0..self.table.count() {
            // SAFETY: the core is ours, and the table has the class.
            unsafe { core.class(class) }.zone.reclaim(mode);
        }
    }

    /// The instance's figures. Those of each class are in the platform's registry of zones, and so in
    /// `uma::stat()`.
    pub fn stats(&self) -> MallocStats {
        let fails = self.fails.load(Ordering::Relaxed);
        let mut stats = MallocStats { fails, ..MallocStats::default() };
        let Some(core) = self.made() else { return stats };
        for class in 0..self.table.count() {
            // SAFETY: the core is ours, and the table has the class.
            stats.add(&unsafe { core.class(class) }.zone.stats());
        }
        self.fields(core).counters.fill(&mut stats);
        stats
    }

    /// Calls `visit` with the address and the usable size of every allocation in use, for reports of leaks:
    /// class by class, then large runs. Caches are emptied first. `visit` may use the instance; what is
    /// allocated or freed meanwhile may be visited or not.
    pub fn for_each_live(&self, mut visit: impl FnMut(NonNull<u8>, usize)) {
        let Some(core) = self.made() else { return };
        self.reclaim(Reclaim::DrainCpu);
        for class in 0..self.table.count() {
            let size = self.table.size(class);
            // SAFETY: the core is ours, and the table has the class.
            let zone = &unsafe { core.class(class) }.zone;
            zone.for_each_live(|item| visit(item.as_non_null(), size));
        }
        self.fields(core).map.for_each_large(&mut |record| {
            let run = record.run.load(Ordering::Relaxed);
            if let Some(at) = NonNull::new(record.base.load(Ordering::Relaxed)) {
                visit(at, run);
            }
        });
    }
}

impl<P: Platform> Drop for Malloc<P> {
    fn drop(&mut self) {
        let Some(core) = NonNull::new(*self.core.get_mut()).map(CorePtr) else { return };
        let mut stats = MallocStats::default();
        self.fields(core).counters.fill(&mut stats);
        if stats.large != 0 {
            self.platform.report(format_args!(
                "\"{}\" was destroyed with {} large runs of {} bytes in use, whose memory stays",
                self.name, stats.large, stats.large_bytes
            ));
        }
        // SAFETY: the instance is being dropped, so nobody uses it.
        unsafe { core.destroy(self.table.count()) };
    }
}

impl<P: Platform> core::fmt::Debug for Malloc<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Malloc")
            .field("name", &self.name)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
