//! What a map is made of: addresses, the arena that allocates them, and the marks.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use uma_core::{RawMutex, Request};
use uma_vmem::{Arena, ArenaConfig, Constraints, Policy, SegmentKind, VmemError, VmemFault};

use super::fork::Gate;
use super::host::{Park, TagPages};
use super::marks::{Head, Marks};
use super::shared::Shared;
use super::stats::Figures;
use super::{MapConfig, MapFault, MapFlags, MapSegment, MapStats, MapType};
use crate::sync::{AtomicBool, Ordering};
use crate::sys::{System, page_size};

/// Where the addresses come from, and go to.
enum Origin<L: RawMutex, S: System + Clone> {
    /// A mapping of our own, which has a page more at both ends.
    Mapping,
    /// A part of another map.
    Parent(SharedSpace<L, S>),
}

/// A space with its owners, in memory of the system.
pub(super) type SharedSpace<L, S> = Shared<Space<L, S>, TagPages<S>>;

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
    pub(super) marks: Marks<S>,
    base: Base,
    pub(super) size: usize,
    pub(super) page: usize,
    pub(super) figures: Figures,
    /// Who is at work on it.
    pub(super) gate: Gate,
    /// Whether something that is free may be accessible, since the system refused to change that.
    pub(super) exposed: AtomicBool,
    /// Whether leaks were reported.
    pub(super) told: AtomicBool,
    pub(super) system: S,
    origin: Origin<L, S>,
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
        parent: &SharedSpace<L, S>,
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
        let _inside = parent.gate.enter();
        let taken = parent.arena.xalloc(len, constraints, Policy::Instant, Request::NOWAIT);
        let place = taken.map_err(|error| match (min, parent.refused(size, error)) {
            (Some(addr), MapFault::Exhausted { .. }) => MapFault::Taken { addr, size },
            (_, fault) => fault,
        })?;
        let addr = parent.place(place, len);
        let origin = Origin::Parent(parent.clone());
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
            gate: Gate::new(),
            exposed: AtomicBool::new(false),
            told: AtomicBool::new(false),
            system,
            origin,
        })
    }

    /// Lets it have several owners. Without memory for that it ends here: the addresses go back.
    pub(super) fn share(self) -> Result<SharedSpace<L, S>, MapFault> {
        let memory = TagPages(self.system.clone());
        Shared::new(self, memory).ok_or(MapFault::Metadata)
    }

    pub(super) fn min(&self) -> usize {
        self.base.0.addr().get()
    }

    pub(super) fn max(&self) -> usize {
        self.min() + self.size
    }

    /// The pointer to an address of the map.
    pub(super) fn at(&self, addr: usize) -> NonNull<u8> {
        // No address of a mapping is 0.
        self.base.0.with_addr(NonZeroUsize::new(addr).unwrap_or(self.base.0.addr()))
    }

    pub(super) fn index(&self, addr: usize) -> usize {
        (addr - self.min()) / self.page
    }

    /// Where the arena has the range of `len` at `addr`, and the other way round. An arena fills from low
    /// addresses; a map that is to be filled from the top has them mirrored.
    pub(super) fn place(&self, addr: usize, len: usize) -> usize {
        if self.config.flags.contains(MapFlags::TOPDOWN) {
            self.min() + (self.max() - (addr + len))
        } else {
            addr
        }
    }

    pub(super) fn give_back(&self, addr: usize, len: usize) {
        let freed = self.arena.free(self.place(addr, len), len);
        debug_assert!(freed.is_ok(), "{freed:?}");
    }

    /// What the arena says, in the map's words.
    pub(super) fn refused(&self, size: usize, error: VmemError) -> MapFault {
        match error.fault {
            VmemFault::Exhausted { free, .. } => MapFault::Exhausted { size, free },
            VmemFault::Busy => MapFault::Busy,
            VmemFault::Metadata => MapFault::Metadata,
            // Nothing else is left by the checks before.
            _ => MapFault::TooLarge { size, map: self.size },
        }
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
pub(super) fn whole(size: usize, page: usize) -> Result<usize, MapFault> {
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
                let _inside = parent.gate.enter();
                parent.exposed.fetch_or(*self.exposed.get_mut(), Ordering::Relaxed);
                parent.marks.set(parent.index(self.min()), None);
                parent.give_back(self.min(), self.size);
            }
        }
    }
}
