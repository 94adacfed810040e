//! What the zones of the classes stand on: the platform of the instance, with pages that are entered in its
//! map.
//!
//! Policy is a type: a class's zone is an ordinary `RawZone` whose platform differs from the instance's in
//! the supplier of pages alone. That takes each run from the supplier below, tags its granules with the
//! class, and takes the tags off before the run goes back.

use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

use uma::core::{
    Decommit, Hooks, Item, PageError, PageRun, PageSupplier, Protect, Refused, Regions, Request,
};
use uma::{Platform, Registry};

use crate::map::{NOTHING, PageMap, REST, tag_of};

/// A way to the map of an instance.
///
/// Invariant, kept by whoever makes one: the map is there for as long as this or a copy of it is used.
struct Way<P: Platform>(NonNull<PageMap<P::Metadata>>);

impl<P: Platform> Clone for Way<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Platform> Copy for Way<P> {}

// SAFETY: a map may be shared by threads, as a platform's metadata may.
unsafe impl<P: Platform> Send for Way<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for Way<P> {}

/// Pages for one class.
#[derive(Clone)]
pub(crate) struct ClassPages<P: Platform> {
    pages: P::Pages,
    map: Way<P>,
    /// The byte of the first granule of a run, and of the others.
    first: u8,
    rest: u8,
}

impl<P: Platform> ClassPages<P> {
    fn map(&self) -> &PageMap<P::Metadata> {
        // SAFETY: the invariant of `Way`.
        unsafe { self.map.0.as_ref() }
    }
}

// SAFETY: passes runs through unchanged from a supplier that keeps the contract. The map and the metadata
// below it do not unwind, and lead to no zone.
unsafe impl<P: Platform> PageSupplier for ClassPages<P> {
    fn page_size(&self) -> usize {
        self.pages.page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        let run = self.pages.alloc_pages(layout, request)?;
        let start = run.base().addr().get();
        if !self.map().cover(start, layout.size()) {
            // SAFETY: it came from there just now.
            unsafe { self.pages.free_pages(run) };
            return Err(PageError::Exhausted);
        }
        self.map().set(start, layout.size(), self.first, self.rest);
        Ok(run)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        self.map().set(run.base().addr().get(), run.layout().size(), NOTHING, NOTHING);
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.pages.free_pages(run) }
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        self.pages.decommits()
    }

    fn protects(&self) -> Option<&dyn Protect> {
        self.pages.protects()
    }

    fn regions(&self) -> Option<&dyn Regions> {
        self.pages.regions()
    }
}

/// The platform of one class's zone.
#[derive(Clone)]
pub(crate) struct ClassPlatform<P: Platform> {
    platform: P,
    map: Way<P>,
    class: usize,
    /// Slabs hold one item each.
    alone: bool,
}

impl<P: Platform> ClassPlatform<P> {
    /// # Safety
    ///
    /// The map is there as long as the zone on this platform gets pages or gives some back.
    pub(crate) unsafe fn new(
        platform: P,
        map: NonNull<PageMap<P::Metadata>>,
        class: usize,
        alone: bool,
    ) -> Self {
        Self { platform, map: Way(map), class, alone }
    }
}

// SAFETY: forwards to a platform that keeps the contract; pages go back to where they came from.
unsafe impl<P: Platform> Platform for ClassPlatform<P> {
    type Pages = ClassPages<P>;
    type Cpus = P::Cpus;
    type Lock = P::Lock;
    type Sleep = P::Sleep;
    type Metadata = P::Metadata;

    fn pages(&self) -> ClassPages<P> {
        let first = tag_of(self.class);
        let rest = if self.alone { first | REST } else { first };
        ClassPages { pages: self.platform.pages(), map: self.map, first, rest }
    }

    fn cpus(&self) -> P::Cpus {
        self.platform.cpus()
    }

    fn sleep(&self) -> P::Sleep {
        self.platform.sleep()
    }

    fn metadata(&self) -> P::Metadata {
        self.platform.metadata()
    }

    fn registry(&self) -> &Registry<P::Lock> {
        self.platform.registry()
    }

    fn largest_slab(&self) -> usize {
        self.platform.largest_slab()
    }

    fn relax(&self) {
        self.platform.relax();
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        self.platform.report(message);
    }
}

/// Marks free items.
///
/// The first word of an item that is in a cache is the instance's secret and the item's address, mixed.
/// It is put there when an item leaves its slab and when it is freed, and taken away when it is handed
/// out. So an item that is freed twice carries its mark the second time, and one that is about to be
/// handed out without its mark is in use, or was written to after it was freed.
#[derive(Clone, Copy)]
pub(crate) struct Marks {
    secret: usize,
}

impl Marks {
    pub(crate) const fn new(secret: usize) -> Self {
        Self { secret }
    }

    #[inline(always)]
    fn mark(self, at: NonNull<u8>) -> usize {
        at.addr().get() ^ self.secret
    }

    /// # Safety
    ///
    /// The caller has the item, which has room for a word and is aligned for it.
    #[inline(always)]
    pub(crate) unsafe fn is_marked(self, at: NonNull<u8>) -> bool {
        // Volatile: the user may never have written to it, and the compiler may know that.
        // SAFETY: passed on to the caller.
        unsafe { at.cast::<usize>().read_volatile() == self.mark(at) }
    }

    /// # Safety
    ///
    /// As [`is_marked`](Self::is_marked).
    #[inline(always)]
    pub(crate) unsafe fn put(self, at: NonNull<u8>) {
        // SAFETY: passed on to the caller.
        unsafe { at.cast::<usize>().write(self.mark(at)) }
    }

    /// Takes the mark off, and returns whether it was there.
    ///
    /// # Safety
    ///
    /// As [`is_marked`](Self::is_marked).
    #[inline(always)]
    pub(crate) unsafe fn take(self, at: NonNull<u8>) -> bool {
        // SAFETY: passed on to the caller.
        unsafe {
            let was = self.is_marked(at);
            if was {
                at.cast::<usize>().write(0);
            }
            was
        }
    }
}

impl Hooks for Marks {
    const HAS_CTOR: bool = false;

    #[inline]
    unsafe fn init(&self, item: Item, _: Request) -> Result<(), Refused> {
        // SAFETY: the item is the caller's; classes are multiples of 8 bytes, and aligned to that.
        unsafe { self.put(item.as_non_null()) };
        Ok(())
    }
}
