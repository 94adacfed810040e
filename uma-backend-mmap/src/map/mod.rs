//! Maps of address space: uvm_km(9) of NetBSD, in a process.
//!
//! A [`Map`] reserves a range of addresses and allocates ranges of whole pages of it: wired memory,
//! pageable memory, or addresses only. It is the raw allocator below others; for anything else there
//! are zones and [`MmapPages`](crate::MmapPages).
//!
//! ```text
//!   one mapping, reserved without access
//!   +------+---------+---------+------+----------+-----------------------------+---------+------+
//!   | wall |  wired  | va only | free | pageable |           submap            |  free   | wall |
//!   +------+---------+---------+------+----------+-----------------------------+---------+------+
//!          |  r w    |   ---   | ---  |   r w    |  as its own allocations are |   ---   |
//!          `- min                                                                        `- max
//!   apart: an arena (uma-vmem) of the free ranges, and marks of what is allocated where
//! ```
//!
//! # Invariants
//!
//! - What is free reads as zero as soon as it is accessible, and is inaccessible but where the system
//!   refused to make it so ([`MapStats::protects_refused`]).
//! - Where an allocation begins, and only there, is a mark with its type and size. It is written after the
//!   range was taken and cleared before it is given back, by whoever has the range.
//! - A submap is an allocation of its parent and keeps the parent's addresses reserved.
//!
//! # Locks
//!
//! That of the arena, a leaf. All system calls are made without it. A fork waits for calls that are under way
//! ([`Map::prefork`]). Freeing claims the mark first, so of
//! two threads that free the same range one gets an error, and nothing is taken from a third who has it
//! by then.
//!
//! # What is not as in the original
//!
//! Where that asserts or does not look, here is a [`MapError`]: a size of 0, an alignment, several types,
//! `ZERO` without `WIRED`, another size or type at free, addresses freed with memory still entered. Memory
//! that the system refuses is asked for again from time to time (there is no page daemon to wait for),
//! with [`KmFlags::CANFAIL`] not at all: a process cannot know what could be reclaimed. Submaps end when
//! they are dropped. There is no `UVM_KMF_EXEC`.
//!
//! The crate's other refusals count and are borne; so they are here, see [`MapStats`].

mod access;
mod alloc;
mod config;
mod enter;
mod error;
mod fork;
mod host;
mod marks;
mod shared;
mod space;
mod stats;

use std::fmt;
use std::ptr::NonNull;

use uma_core::{Name, Process, RawMutex};
use uma_vmem::SegmentKind;

pub use config::{KmFlags, MapConfig, MapFlags, MapType};
pub use error::{MapError, MapFault, MapLeaked};
pub use stats::MapStats;

use crate::sync::{DefaultLock, Ordering};
use crate::sys::{Kernel, System};
use space::{SharedSpace, Space};

/// An allocation, as [`Map::walk`] reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSegment {
    /// The first address.
    pub addr: usize,
    /// How many bytes, in whole pages, without a guard page.
    pub size: usize,
    /// The type that it was allocated with.
    pub of_type: MapType,
}

/// A range of address space that is allocated in pages: `struct vm_map`, as uvm_km(9) uses it.
///
/// ```
/// use uma_backend_mmap::map::{KmFlags, Map, MapConfig};
///
/// let map = Map::new(MapConfig::new("kernel"), 1 << 30)?;
/// let at = map.alloc(1 << 20, 0, KmFlags::PAGEABLE | KmFlags::WAITVA)?;
/// // SAFETY: the memory is ours and zero-filled; it is freed once, and not used after that.
/// unsafe {
///     assert_eq!(at.read(), 0);
///     assert!(map.free(at, 1 << 20, KmFlags::WIRED).is_err());
///     map.free(at, 1 << 20, KmFlags::PAGEABLE)?;
/// }
/// map.destroy(|leaked| println!("{leaked:?}"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Wired memory
///
/// It is committed and locked by mlock(2). If the system refuses that, which it does beyond
/// `RLIMIT_MEMLOCK`, it is counted ([`MapStats::locks_refused`]) and the allocation succeeds: the memory
/// comes as it is touched, and may be paged out.
///
/// # Mappings
///
/// Two neighbours that differ in whether they are accessible or locked are two mappings for the system, of
/// which it allows a process some tens of thousands (`vm.max_map_count`). Beyond that it refuses to make
/// pages accessible: allocations fail with [`MapFault::System`], or wait.
///
/// # Dropping
///
/// If everything is free, the addresses go back to the system, or to the parent. If not, they stay
/// reserved, so that what was allocated can still be used; [`MapConfig::on_leak`] hears of it. The
/// addresses of a parent stay until the last of its submaps is dropped.
///
/// `L` is the lock of the arena; `S` stands for the system, and is another only in tests.
pub struct Map<L: RawMutex = DefaultLock, S: System + Clone = Kernel> {
    space: SharedSpace<L, S>,
}

impl Map {
    /// A map of `size` bytes, rounded up to whole pages, somewhere in the process.
    ///
    /// # Errors
    ///
    /// [`ZeroSize`](MapFault::ZeroSize), [`TooLarge`](MapFault::TooLarge),
    /// [`BadColors`](MapFault::BadColors), [`Metadata`](MapFault::Metadata); [`System`](MapFault::System)
    /// if there are not so many addresses.
    pub fn new(config: MapConfig, size: usize) -> Result<Self, MapError> {
        Self::with_system(config, size, Kernel)
    }
}

impl<L: RawMutex> Map<L> {
    /// [`new`](Map::new), with a lock of one's own.
    ///
    /// # Errors
    ///
    /// As [`new`](Map::new).
    pub fn with_lock(config: MapConfig, size: usize) -> Result<Self, MapError> {
        Self::with_system(config, size, Kernel)
    }
}

impl<L: RawMutex, S: System + Clone> Map<L, S> {
    /// A map over another system: for tests.
    #[doc(hidden)]
    pub fn with_system(config: MapConfig, size: usize, system: S) -> Result<Self, MapError> {
        let made = Space::reserve(config, size, system).and_then(Space::share);
        match made {
            Ok(space) => Ok(Self { space }),
            Err(fault) => Err(MapError { map: config.name, fault }),
        }
    }

    fn told<T>(&self, result: Result<T, MapFault>) -> Result<T, MapError> {
        result.map_err(|fault| MapError { map: self.name(), fault })
    }

    /// Allocates `size` bytes, rounded up to whole pages (`uvm_km_alloc`).
    ///
    /// The first address is a multiple of `align`, which is a power of two and no less than a page; 0 if
    /// any will do. With [`COLORMATCH`](KmFlags::COLORMATCH) it is a colour instead. `flags` are one type
    /// and any of the others.
    ///
    /// If there is no room, it waits with [`WAITVA`](KmFlags::WAITVA), unless told
    /// [`NOWAIT`](KmFlags::NOWAIT) or [`TRYLOCK`](KmFlags::TRYLOCK), and fails without. If there is no
    /// memory, it waits and tries again, also without `WAITVA`, unless told `NOWAIT`, `TRYLOCK` or
    /// [`CANFAIL`](KmFlags::CANFAIL). So with `WAITVA` and none of those it never fails for either, but
    /// may sleep for ever.
    ///
    /// Pageable memory is zero-filled, and so is wired memory with [`ZERO`](KmFlags::ZERO).
    ///
    /// # Errors
    ///
    /// [`ZeroSize`](MapFault::ZeroSize), [`TooLarge`](MapFault::TooLarge),
    /// [`BadAlign`](MapFault::BadAlign), [`BadColor`](MapFault::BadColor),
    /// [`BadFlags`](MapFault::BadFlags), [`ZeroNotWired`](MapFault::ZeroNotWired),
    /// [`NotPageable`](MapFault::NotPageable), [`Exhausted`](MapFault::Exhausted),
    /// [`Busy`](MapFault::Busy) only with `TRYLOCK`, [`Metadata`](MapFault::Metadata),
    /// [`System`](MapFault::System).
    pub fn alloc(
        &self,
        size: usize,
        align: usize,
        flags: KmFlags,
    ) -> Result<NonNull<u8>, MapError> {
        self.told(self.space.alloc(size, align, flags))
    }

    /// Frees what [`alloc`](Self::alloc) of this map returned (`uvm_km_free`), with the same size, and the
    /// type alone as flags.
    ///
    /// # Errors
    ///
    /// [`BadFlags`](MapFault::BadFlags), [`Foreign`](MapFault::Foreign),
    /// [`NotAllocated`](MapFault::NotAllocated), [`WrongSize`](MapFault::WrongSize),
    /// [`WrongType`](MapFault::WrongType), [`Entered`](MapFault::Entered),
    /// [`InUse`](MapFault::InUse). They change nothing.
    ///
    /// # Safety
    ///
    /// Nobody uses the range any more, nor is another call about it under way but `free`.
    pub unsafe fn free(
        &self,
        at: NonNull<u8>,
        size: usize,
        flags: KmFlags,
    ) -> Result<(), MapError> {
        // SAFETY: passed on to the caller.
        self.told(unsafe { self.space.free(at.addr().get(), size, flags) })
    }

    /// Puts memory behind a part of an address range of type [`VAONLY`](KmFlags::VAONLY), from `offset` on
    /// (`pmap_kenter_pa`, with memory of the map's own choice). It can be read and written then, and is
    /// zero where there was none before.
    ///
    /// # Errors
    ///
    /// [`NotAllocated`](MapFault::NotAllocated), [`WrongType`](MapFault::WrongType);
    /// [`Foreign`](MapFault::Foreign) if the part is not whole pages of the range;
    /// [`System`](MapFault::System), then nothing was entered.
    ///
    /// # Safety
    ///
    /// The caller has the range that begins at `segment`, and no other call about these pages is under way.
    pub unsafe fn enter(
        &self,
        segment: NonNull<u8>,
        offset: usize,
        len: usize,
    ) -> Result<NonNull<u8>, MapError> {
        // SAFETY: passed on to the caller.
        self.told(unsafe { self.space.enter(segment.addr().get(), offset, len) })
    }

    /// Takes it away again (`pmap_kremove`), where there is any.
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter). If the system refuses, the memory still counts as entered, and is zero. A
    /// part of it may be inaccessible already (mprotect(2) changes one mapping after the other); it is
    /// accessible again when it is entered again.
    ///
    /// # Safety
    ///
    /// As [`enter`](Self::enter); and nobody uses these pages any more.
    pub unsafe fn remove(
        &self,
        segment: NonNull<u8>,
        offset: usize,
        len: usize,
    ) -> Result<(), MapError> {
        // SAFETY: passed on to the caller.
        self.told(unsafe { self.space.remove(segment.addr().get(), offset, len) })
    }

    /// Says whether an allocation of type [`PAGEABLE`](KmFlags::PAGEABLE) may be paged out, or is locked in
    /// memory (`uvm_map_pageable`). It may be at first. `size` is that of the allocation: it changes as a
    /// whole.
    ///
    /// # Errors
    ///
    /// [`Foreign`](MapFault::Foreign), [`NotAllocated`](MapFault::NotAllocated),
    /// [`WrongSize`](MapFault::WrongSize), [`WrongType`](MapFault::WrongType),
    /// [`InUse`](MapFault::InUse); [`System`](MapFault::System), also for `RLIMIT_MEMLOCK`. They change
    /// nothing.
    pub fn set_pageable(
        &self,
        at: NonNull<u8>,
        size: usize,
        pageable: bool,
    ) -> Result<(), MapError> {
        self.told(self.space.set_pageable(at.addr().get(), size, pageable))
    }

    /// Allocates a map from this one (`uvm_km_suballoc`), of `size` bytes, rounded up to whole pages: from
    /// the address `min` on if that is said (`fixed`), or anywhere. It never waits.
    ///
    /// # Errors
    ///
    /// [`ZeroSize`](MapFault::ZeroSize), [`BadColors`](MapFault::BadColors);
    /// [`Foreign`](MapFault::Foreign) or [`Taken`](MapFault::Taken) if it cannot be there;
    /// [`Exhausted`](MapFault::Exhausted), [`TooLarge`](MapFault::TooLarge) if it can be nowhere;
    /// [`Metadata`](MapFault::Metadata), [`System`](MapFault::System). (The original panics.) They name
    /// this map.
    pub fn suballoc(
        &self,
        min: Option<usize>,
        size: usize,
        config: MapConfig,
    ) -> Result<Self, MapError> {
        let made = Space::carve(&self.space, min, size, config).and_then(Space::share);
        Ok(Self { space: self.told(made)? })
    }

    /// Whether less than a tenth of the addresses is free (`uvm_km_va_starved_p`): time to give some back.
    pub fn starved(&self) -> bool {
        let figures = self.space.arena.stats();
        figures.free() < figures.size / 10
    }

    /// The name.
    pub fn name(&self) -> Name {
        self.space.config.name
    }

    /// The first address (`vm_map_min`).
    pub fn min(&self) -> usize {
        self.space.min()
    }

    /// The address behind the last (`vm_map_max`).
    pub fn max(&self) -> usize {
        self.space.max()
    }

    /// Whether the map has this address, allocated or not.
    pub fn contains(&self, addr: usize) -> bool {
        (self.min()..self.max()).contains(&addr)
    }

    /// Figures of the moment.
    pub fn stats(&self) -> MapStats {
        self.space.stats()
    }

    /// Calls `report` for every allocation, submaps too, each exactly once if it is there all the time. No
    /// lock is held meanwhile.
    ///
    /// # Errors
    ///
    /// [`Busy`](MapFault::Busy) if four walks are under way already.
    pub fn walk(&self, report: impl FnMut(MapSegment)) -> Result<(), MapError> {
        self.told(self.space.walk(report))
    }

    /// For a copy of the process to be made (fork(2)) in which nothing of the map is half done: waits until
    /// no other thread has anything in hand, system calls included, and keeps them out, and the lock, until
    /// [`postfork`](Self::postfork). This thread calls nothing else of the map meanwhile. A submap is a map
    /// of its own; the order among maps does not matter.
    ///
    /// In the copy all allocations are there, and may be freed. Memory is not locked any more (mlock(2)),
    /// although [`MapStats::locked`] counts it. A range is nobody's there that a thread of the original
    /// has just got for which it waited, or keeps while it waits for memory.
    ///
    /// The lock must be one that can be let go of in a copy. That of `parking_lot`, which [`new`](Map::new) takes,
    /// is not, if other threads wait for a lock of that kind just then: their queue may be copied while it is
    /// changed. `uma::HostLock` is; see [`with_lock`](Map::with_lock).
    pub fn prefork(&self) {
        self.space.gate.shut();
        self.space.arena.prefork();
    }

    /// Lets everybody in again, in the process or in its copy. In the copy, nobody waits.
    ///
    /// # Safety
    ///
    /// This thread, or the one that it is the copy of, called [`prefork`](Self::prefork), and this was not
    /// called since.
    pub unsafe fn postfork(&self, process: Process) {
        // SAFETY: the caller called `prefork`, which locked the arena.
        unsafe { self.space.arena.postfork(process) };
        self.space.gate.open(process);
    }

    /// Ends the map, as dropping it does, and reports what is still allocated, here instead of to
    /// [`MapConfig::on_leak`].
    ///
    /// # Errors
    ///
    /// If there is anything: how many, and how much. It stays where it is. A submap that is not dropped yet
    /// is among them, and goes on.
    pub fn destroy(self, report: impl FnMut(MapSegment)) -> Result<(), MapLeaked> {
        let figures = self.space.arena.stats();
        if figures.segments == 0 {
            return Ok(());
        }
        self.space.told.store(true, Ordering::Relaxed);
        // The map is ours alone: no walk is under way whose place this one could want.
        let _ = self.space.walk(report);
        let size = self.space.arena.size(SegmentKind::Allocated);
        Err(MapLeaked { map: self.name(), segments: figures.segments, size })
    }
}

impl<L: RawMutex, S: System + Clone> fmt::Debug for Map<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("name", &self.name())
            .field("min", &format_args!("{:#x}", self.min()))
            .field("max", &format_args!("{:#x}", self.max()))
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
