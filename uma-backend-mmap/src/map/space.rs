//! What a map is made of: addresses, the arena that allocates them, and the marks.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use uma_core::{Deadline, RawMutex, Request, Sleep};
use uma_vmem::{Arena, ArenaConfig, Constraints, Policy, SegmentKind, VmemError, VmemFault};

use super::host::{Park, TagPages};
use super::marks::{Head, Marks};
use super::stats::{Figures, less, more};
use super::{KmFlags, MapConfig, MapFault, MapFlags, MapSegment, MapStats, MapType};
use crate::sync::{Arc, AtomicBool, Ordering};
use crate::sys::{Errno, System, page_size};

/// Where the addresses come from, and go to.
enum Origin<L: RawMutex, S: System + Clone> {
    /// A mapping of our own, which has a page more at both ends.
    Mapping,
    /// A part of another map.
    Parent(Arc<Space<L, S>>),
}

/// The first byte of a map, with the provenance of all of it.
#[derive(Clone, Copy)]
struct Base(NonNull<u8>);

// SAFETY: it is only an address with a right to use what is behind it, which is that of the map's users.
unsafe impl Send for Base {}
// SAFETY: as above.
unsafe impl Sync for Base {}

/// A map. The arena comes before the origin, and both after [`Drop`] has seen them.
pub(super) struct Space<L: RawMutex, S: System + Clone> {
    pub(super) config: MapConfig,
    pub(super) arena: Arena<L, TagPages<S>, Park>,
    marks: Marks<S>,
    base: Base,
    size: usize,
    page: usize,
    figures: Figures,
    /// Whether something that is free may be accessible, since the system refused to change that.
    exposed: AtomicBool,
    /// Whether leaks were reported.
    pub(super) told: AtomicBool,
    system: S,
    origin: Origin<L, S>,
}

/// An allocation that makes sense.
struct Want {
    of_type: MapType,
    /// In whole pages, without a guard page and with it.
    size: usize,
    len: usize,
    /// The first address is `phase` behind a multiple of `align`.
    align: usize,
    phase: usize,
}

/// The smallest address from `from` on that is `phase` behind a multiple of `align`, a power of two.
fn phase_up(from: usize, align: usize, phase: usize) -> Option<usize> {
    from.checked_add(phase.wrapping_sub(from) & (align - 1))
}

impl<L: RawMutex, S: System + Clone> Space<L, S> {
    /// A map with a mapping of its own.
    pub(super) fn reserve(config: MapConfig, size: usize, system: S) -> Result<Self, MapFault> {
        let page = page_size();
        let size = whole(size, page)?;
        let all = size + 2 * page;
        let at = system.reserve(all).map_err(|errno| MapFault::System {
            call: "mmap",
            size: all,
            errno,
        })?;
        // SAFETY: there is a page more at either end.
        let base = unsafe { at.add(page) };
        Self::over(config, base, size, system.clone(), Origin::Mapping).inspect_err(|_| {
            // SAFETY: the whole mapping, which nobody knows. If the system refuses, it is lost.
            let _ = unsafe { system.unmap(at, all) };
        })
    }

    /// A map of a part of another one.
    pub(super) fn carve(
        parent: &Arc<Self>,
        min: Option<usize>,
        size: usize,
        config: MapConfig,
    ) -> Result<Self, MapFault> {
        let page = parent.page;
        let len = whole(size, page)?;
        let constraints = match min {
            None => Constraints::new(),
            Some(min) => {
                let foreign = MapFault::Foreign { addr: min, size };
                let fits = min.is_multiple_of(page)
                    && min >= parent.min()
                    && parent.max().checked_sub(min).is_some_and(|rest| rest >= len);
                if !fits {
                    return Err(foreign);
                }
                let first = parent.place(min, len);
                Constraints::new().range(first, first + (len - 1))
            }
        };
        let taken = parent.arena.xalloc(len, constraints, Policy::Instant, Request::NOWAIT);
        let place = taken.map_err(|error| match (min, parent.refused(size, error)) {
            (Some(addr), MapFault::Exhausted { .. }) => MapFault::Taken { addr, size },
            (_, fault) => fault,
        })?;
        let addr = parent.place(place, len);
        let origin = Origin::Parent(Arc::clone(parent));
        let made = Self::over(config, parent.at(addr), len, parent.system.clone(), origin);
        match made {
            Ok(space) => {
                let exposed = parent.exposed.load(Ordering::Relaxed);
                space.exposed.store(exposed, Ordering::Relaxed);
                let head = Head { of_type: MapType::Submap, locked: false, pages: len / page };
                parent.marks.set(parent.index(addr), Some(head));
                Ok(space)
            }
            Err(fault) => {
                parent.give_back(addr, len);
                Err(fault)
            }
        }
    }

    fn over(
        config: MapConfig,
        base: NonNull<u8>,
        size: usize,
        system: S,
        origin: Origin<L, S>,
    ) -> Result<Self, MapFault> {
        let page = page_size();
        let colors = config.colors;
        if !colors.is_power_of_two() || colors.checked_mul(page).is_none() {
            return Err(MapFault::BadColors(colors));
        }
        let name = config.name;
        let arena_config =
            ArenaConfig::new(name.as_str(), page).map_err(|_| MapFault::BadAlign(page))?;
        let tags = TagPages(system.clone());
        let arena = Arena::create(arena_config, base.addr().get(), size, tags, Park::new())
            .map_err(|_| MapFault::Metadata)?;
        let marks = Marks::new(system.clone(), size / page, page)
            .map_err(|errno| MapFault::System { call: "mmap", size, errno })?;
        Ok(Self {
            config,
            arena,
            marks,
            base: Base(base),
            size,
            page,
            figures: Figures::new(),
            exposed: AtomicBool::new(false),
            told: AtomicBool::new(false),
            system,
            origin,
        })
    }

    pub(super) fn min(&self) -> usize {
        self.base.0.addr().get()
    }

    pub(super) fn max(&self) -> usize {
        self.min() + self.size
    }

    /// The pointer to an address of the map.
    fn at(&self, addr: usize) -> NonNull<u8> {
        // No address of a mapping is 0.
        self.base.0.with_addr(NonZeroUsize::new(addr).unwrap_or(self.base.0.addr()))
    }

    fn index(&self, addr: usize) -> usize {
        (addr - self.min()) / self.page
    }

    /// Where the arena has the range of `len` at `addr`, and the other way round. An arena fills from low
    /// addresses; a map that is to be filled from the top has them mirrored.
    fn place(&self, addr: usize, len: usize) -> usize {
        if self.config.flags.contains(MapFlags::TOPDOWN) {
            self.min() + (self.max() - (addr + len))
        } else {
            addr
        }
    }

    fn give_back(&self, addr: usize, len: usize) {
        let freed = self.arena.free(self.place(addr, len), len);
        debug_assert!(freed.is_ok(), "{freed:?}");
    }

    /// What the arena says, in the map's words.
    fn refused(&self, size: usize, error: VmemError) -> MapFault {
        match error.fault {
            VmemFault::Exhausted { free, .. } => MapFault::Exhausted { size, free },
            VmemFault::Busy => MapFault::Busy,
            VmemFault::Metadata => MapFault::Metadata,
            // Nothing else is left by the checks before.
            _ => MapFault::TooLarge { size, map: self.size },
        }
    }

    fn check(&self, size: usize, align: usize, flags: KmFlags) -> Result<Want, MapFault> {
        let page = self.page;
        let of_type = flags.of_type().ok_or(MapFault::BadFlags(flags))?;
        if flags.contains(KmFlags::ZERO) && of_type != MapType::Wired {
            return Err(MapFault::ZeroNotWired(flags));
        }
        let may_page = self.config.flags.contains(MapFlags::PAGEABLE) && !self.intrsafe();
        if of_type == MapType::Pageable && !may_page {
            return Err(MapFault::NotPageable);
        }
        let too_large = MapFault::TooLarge { size, map: self.size };
        let asked = size;
        let size = whole(asked, page).map_err(|fault| match fault {
            MapFault::TooLarge { .. } => too_large,
            fault => fault,
        })?;
        let len = size + if self.config.guards { page } else { 0 };
        let (align, phase) = if flags.contains(KmFlags::COLORMATCH) {
            let all = self.config.colors * page;
            if !align.is_multiple_of(page) || align >= all {
                return Err(MapFault::BadColor(align));
            }
            (all, align)
        } else if align == 0 {
            (page, 0)
        } else if align.is_power_of_two() && align >= page {
            (align, 0)
        } else {
            return Err(MapFault::BadAlign(align));
        };
        let first = phase_up(self.min(), align, phase).ok_or(too_large)?;
        if first.checked_add(len).is_none_or(|end| end > self.max()) {
            return Err(too_large);
        }
        Ok(Want { of_type, size, len, align, phase })
    }

    fn intrsafe(&self) -> bool {
        self.config.flags.contains(MapFlags::INTRSAFE)
    }

    /// Takes a range, which is nobody else's then. Returns its first address.
    fn take(&self, want: &Want, flags: KmFlags, never: bool) -> Result<usize, MapFault> {
        let phase = if self.config.flags.contains(MapFlags::TOPDOWN) {
            // The mirrored place of an address that is `phase` behind a multiple of `align`.
            let mirror = self.min().wrapping_add(self.max()).wrapping_sub(want.len);
            mirror.wrapping_sub(want.phase) & (want.align - 1)
        } else {
            want.phase
        };
        let constraints = Constraints::new().align(want.align).phase(phase);
        let place = if flags.contains(KmFlags::TRYLOCK) {
            self.arena.try_xalloc(want.len, constraints, Policy::Instant)
        } else {
            let waits = flags.contains(KmFlags::WAITVA) && !never;
            let request = if waits { Request::WAIT } else { Request::NOWAIT };
            self.arena.xalloc(want.len, constraints, Policy::Instant, request)
        };
        let place = place.map_err(|error| self.refused(want.size, error))?;
        Ok(self.place(place, want.len))
    }

    /// Before the system is asked again.
    fn pause(&self) {
        more(&self.figures.retries, 1);
        let park = Park::new();
        park.sleep(Deadline::at(park.now().saturating_add(self.config.retry)));
    }

    pub(super) fn alloc(
        &self,
        size: usize,
        align: usize,
        flags: KmFlags,
    ) -> Result<NonNull<u8>, MapFault> {
        let want = self.check(size, align, flags)?;
        let never = flags.intersects(KmFlags::NOWAIT | KmFlags::TRYLOCK) || self.intrsafe();
        let may_fail = never || flags.contains(KmFlags::CANFAIL);
        let addr = loop {
            match self.take(&want, flags, never) {
                Err(MapFault::Metadata) if !may_fail => self.pause(),
                taken => break taken?,
            }
        };
        let (at, exposed) = (self.at(addr), self.exposed.load(Ordering::Relaxed));
        let bare = want.of_type == MapType::VaOnly;
        if exposed {
            let from = if bare { 0 } else { want.size };
            // SAFETY: the range is ours, and nothing is in it.
            let _ = unsafe { self.hide(at.add(from), want.len - from) };
        }
        let mut locked = false;
        if !bare {
            // SAFETY: the range is ours.
            while let Err(errno) = unsafe { self.show(at, want.size) } {
                if may_fail || !matches!(errno, libc::ENOMEM | libc::EAGAIN) {
                    // A part of it may be accessible.
                    // SAFETY: as above, and nothing is in it.
                    let _ = unsafe { self.hide(at, want.size) };
                    self.give_back(addr, want.len);
                    return Err(MapFault::System { call: "mprotect", size: want.size, errno });
                }
                self.pause();
            }
            more(&self.figures.committed, want.size);
            // SAFETY: the range is ours, and accessible.
            locked = want.of_type == MapType::Wired && unsafe { self.lock(at, want.size) }.is_ok();
        }
        let head = Head { of_type: want.of_type, locked, pages: want.size / self.page };
        self.marks.set(self.index(addr), Some(head));
        Ok(at)
    }

    /// The page at which what is asked about begins, if it lies in the map.
    fn find(&self, addr: usize, size: usize) -> Result<usize, MapFault> {
        if addr < self.min() || addr >= self.max() || !addr.is_multiple_of(self.page) {
            return Err(MapFault::Foreign { addr, size });
        }
        Ok(self.index(addr))
    }

    /// Claims an allocation for a change of all of it.
    fn claim(&self, addr: usize, size: usize, given: MapType) -> Result<Head, MapFault> {
        let index = self.find(addr, size)?;
        let none = MapFault::NotAllocated { addr, size };
        self.marks.claim(index, none, MapFault::InUse { addr }, |head| {
            let allocated = head.pages * self.page;
            if head.of_type != given {
                return Err(MapFault::WrongType { addr, given, allocated: head.of_type });
            }
            if size.checked_next_multiple_of(self.page) != Some(allocated) {
                return Err(MapFault::WrongSize { addr, size, allocated });
            }
            Ok(())
        })
    }

    /// # Safety
    ///
    /// As [`Map::free`](super::Map::free).
    pub(super) unsafe fn free(
        &self,
        addr: usize,
        size: usize,
        flags: KmFlags,
    ) -> Result<(), MapFault> {
        let given = flags.of_type().ok_or(MapFault::BadFlags(flags))?;
        if flags.iter().count() != 1 {
            return Err(MapFault::BadFlags(flags));
        }
        let head = self.claim(addr, size, given)?;
        let (index, size) = (self.index(addr), head.pages * self.page);
        let at = self.at(addr);
        if given == MapType::VaOnly {
            let pages = self.marks.count(index);
            if pages != 0 {
                self.marks.set(index, Some(head));
                return Err(MapFault::Entered { addr, pages });
            }
        } else {
            // SAFETY: the range is claimed, so it is what was allocated, and accessible; the caller
            // gives it up.
            unsafe {
                if head.locked {
                    self.unlock(at, size);
                }
                self.clear(at, size);
                let _ = self.hide(at, size);
            }
            less(&self.figures.committed, size);
        }
        self.marks.set(index, None);
        self.give_back(addr, size + if self.config.guards { self.page } else { 0 });
        Ok(())
    }

    /// The pages of a part of a range of addresses.
    fn part(&self, addr: usize, offset: usize, len: usize) -> Result<(usize, usize), MapFault> {
        let index = self.find(addr, len)?;
        let head = self.marks.head(index).ok_or(MapFault::NotAllocated { addr, size: len })?;
        let (given, allocated) = (MapType::VaOnly, head.of_type);
        if allocated != given {
            return Err(MapFault::WrongType { addr, given, allocated });
        }
        let fits = offset.is_multiple_of(self.page)
            && len.is_multiple_of(self.page)
            && offset.checked_add(len).is_some_and(|end| end <= head.pages * self.page);
        if !fits {
            return Err(MapFault::Foreign { addr: addr.saturating_add(offset), size: len });
        }
        Ok((index, index + offset / self.page))
    }

    /// # Safety
    ///
    /// As [`Map::enter`](super::Map::enter).
    pub(super) unsafe fn enter(
        &self,
        addr: usize,
        offset: usize,
        len: usize,
    ) -> Result<NonNull<u8>, MapFault> {
        let (head, first) = self.part(addr, offset, len)?;
        let at = self.at(addr + offset);
        if len == 0 {
            return Ok(at);
        }
        // SAFETY: the range is the caller's.
        if let Err(errno) = unsafe { self.show(at, len) } {
            let pages = first..first + len / self.page;
            for page in pages.filter(|&page| !self.marks.is_entered(page)) {
                // SAFETY: a page of the caller's in which nothing is.
                let _ = unsafe { self.hide(self.at(self.min() + page * self.page), self.page) };
            }
            return Err(MapFault::System { call: "mprotect", size: len, errno });
        }
        let pages = first..first + len / self.page;
        let new = pages.filter(|&page| self.marks.enter(head, page, true)).count();
        more(&self.figures.committed, new * self.page);
        Ok(at)
    }

    /// # Safety
    ///
    /// As [`Map::remove`](super::Map::remove).
    pub(super) unsafe fn remove(
        &self,
        addr: usize,
        offset: usize,
        len: usize,
    ) -> Result<(), MapFault> {
        let (head, first) = self.part(addr, offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let at = self.at(addr + offset);
        let pages = first..first + len / self.page;
        // SAFETY: the range is the caller's, who gives up what is in it.
        let discarded = unsafe { self.figures.discard.count(self.system.discard(at, len)) };
        if discarded.is_err() {
            for page in pages.clone().filter(|&page| self.marks.is_entered(page)) {
                // SAFETY: as above; what is entered is accessible.
                unsafe { self.at(self.min() + page * self.page).write_bytes(0, self.page) };
            }
        }
        // SAFETY: nobody uses the range any more.
        unsafe { self.hide(at, len) }.map_err(|errno| MapFault::System {
            call: "mprotect",
            size: len,
            errno,
        })?;
        let gone = pages.filter(|&page| self.marks.enter(head, page, false)).count();
        less(&self.figures.committed, gone * self.page);
        Ok(())
    }

    pub(super) fn set_pageable(
        &self,
        addr: usize,
        size: usize,
        pageable: bool,
    ) -> Result<(), MapFault> {
        let head = self.claim(addr, size, MapType::Pageable)?;
        let (at, size) = (self.at(addr), head.pages * self.page);
        // SAFETY: a range that is allocated, and accessible; it is claimed, so it stays so.
        let done = unsafe {
            match (pageable, head.locked) {
                (true, true) => {
                    self.unlock(at, size);
                    Ok(())
                }
                (false, false) => self.lock(at, size),
                _ => Ok(()),
            }
        };
        let locked = if done.is_ok() { !pageable } else { head.locked };
        self.marks.set(self.index(addr), Some(Head { locked, ..head }));
        done.map_err(|errno| MapFault::System { call: "mlock", size, errno })
    }

    /// Makes pages accessible.
    ///
    /// # Safety
    ///
    /// They are in the map.
    unsafe fn show(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: passed on to the caller.
        self.figures.commit.count(unsafe { self.system.unwall(at, len) })
    }

    /// Makes pages inaccessible.
    ///
    /// # Safety
    ///
    /// They are in the map, and nobody touches them.
    unsafe fn hide(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        if len == 0 {
            return Ok(());
        }
        // SAFETY: passed on to the caller.
        let hidden = self.figures.protect.count(unsafe { self.system.protect(at, len) });
        hidden.inspect_err(|_| self.exposed.store(true, Ordering::Relaxed))
    }

    /// Makes pages read as zero, without their memory if the system takes it.
    ///
    /// # Safety
    ///
    /// They are in the map, accessible, and nobody misses what is in them.
    unsafe fn clear(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: passed on to the caller.
        unsafe {
            if self.figures.discard.count(self.system.discard(at, len)).is_err() {
                at.write_bytes(0, len);
            }
        }
    }

    /// Locks pages in memory. If that fails, none is.
    ///
    /// # Safety
    ///
    /// They are in the map, and accessible.
    unsafe fn lock(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: passed on to the caller.
        let locked = self.figures.lock.count(unsafe { self.system.lock(at, len) });
        match locked {
            Ok(()) => more(&self.figures.locked, len),
            // SAFETY: as above. They may be marked as locked already.
            Err(_) => drop(unsafe { self.system.unlock(at, len) }),
        }
        locked
    }

    /// Ends that. If the system refuses, the pages stay in memory; nobody is the worse for it.
    ///
    /// # Safety
    ///
    /// They are in the map, and locked.
    unsafe fn unlock(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: passed on to the caller.
        let _ = self.figures.lock.count(unsafe { self.system.unlock(at, len) });
        less(&self.figures.locked, len);
    }

    pub(super) fn walk(&self, mut report: impl FnMut(MapSegment)) -> Result<(), MapFault> {
        let walked = self.arena.walk(|segment| {
            if segment.kind != SegmentKind::Allocated {
                return;
            }
            let addr = self.place(segment.addr, segment.size);
            // There is none while the allocation is being made or freed.
            if let Some(head) = self.marks.head(self.index(addr)) {
                let size = head.pages * self.page;
                report(MapSegment { addr, size, of_type: head.of_type });
            }
        });
        walked.map_err(|_| MapFault::Busy)
    }

    pub(super) fn stats(&self) -> MapStats {
        let (arena, own) = (self.arena.stats(), &self.figures);
        MapStats {
            size: arena.size,
            in_use: arena.in_use,
            peak: arena.peak,
            segments: arena.segments,
            committed: own.committed.load(Ordering::Relaxed),
            locked: own.locked.load(Ordering::Relaxed),
            allocs: arena.allocs,
            frees: arena.frees,
            fails: arena.fails,
            waits: arena.waits,
            waiting: arena.waiting,
            retries: own.retries.load(Ordering::Relaxed) as u64,
            commits_refused: own.commit.refused(),
            protects_refused: own.protect.refused(),
            discards_refused: own.discard.refused(),
            locks_refused: own.lock.refused(),
            meta_bytes: arena.meta_bytes,
        }
    }
}

/// `size` in whole pages. No larger than an object can be, with three pages to spare.
fn whole(size: usize, page: usize) -> Result<usize, MapFault> {
    let most = (isize::MAX as usize + 1) - 4 * page;
    match size {
        0 => Err(MapFault::ZeroSize),
        size if size > most => Err(MapFault::TooLarge { size, map: most }),
        size => Ok(size.next_multiple_of(page)),
    }
}

impl<L: RawMutex, S: System + Clone> Drop for Space<L, S> {
    fn drop(&mut self) {
        if self.arena.stats().segments != 0 {
            // What is there may be used for ever. The addresses stay.
            if let (Some(leaked), false) = (self.config.leaked, *self.told.get_mut()) {
                let name = self.config.name;
                let _ = self.walk(|segment| leaked(&name, segment));
            }
            return;
        }
        match &self.origin {
            Origin::Mapping => {
                let (page, all) = (self.page, self.size + 2 * self.page);
                // SAFETY: the whole mapping, which begins a page before the map, and in which nothing
                // is allocated. If the system refuses, it is lost.
                let _ = unsafe { self.system.unmap(self.base.0.sub(page), all) };
            }
            Origin::Parent(parent) => {
                parent.exposed.fetch_or(*self.exposed.get_mut(), Ordering::Relaxed);
                parent.marks.set(parent.index(self.min()), None);
                parent.give_back(self.min(), self.size);
            }
        }
    }
}
