//! What a map is made with, and what may be asked of it.

use bitflags::bitflags;
use uma_core::Name;

use super::MapSegment;

bitflags! {
    /// How to allocate: one type, and any of the others (`UVM_KMF_*` of uvm_km(9)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct KmFlags: u32 {
        /// A type: memory that is there at once and stays (`UVM_KMF_WIRED`). See
        /// [`Map`](super::Map#wired-memory) on what a process can promise of that.
        const WIRED = 1 << 0;
        /// A type: zero-filled memory that comes as it is touched (`UVM_KMF_PAGEABLE`).
        const PAGEABLE = 1 << 1;
        /// A type: addresses only (`UVM_KMF_VAONLY`). [`Map::enter`](super::Map::enter) puts memory
        /// there, and [`Map::remove`](super::Map::remove) takes it away, which the caller does before
        /// freeing the range.
        const VAONLY = 1 << 2;
        /// May fail for want of memory, although it might wait (`UVM_KMF_CANFAIL`).
        const CANFAIL = 1 << 3;
        /// Zero-filled (`UVM_KMF_ZERO`). Only with `WIRED`.
        const ZERO = 1 << 4;
        /// Fails if it would have to sleep for the map's lock (`UVM_KMF_TRYLOCK`). It does not wait for
        /// anything else either.
        const TRYLOCK = 1 << 5;
        /// Fails at once if there is no room or no memory (`UVM_KMF_NOWAIT`).
        const NOWAIT = 1 << 6;
        /// Waits for room until somebody frees it (`UVM_KMF_WAITVA`).
        const WAITVA = 1 << 7;
        /// `align` is not an alignment but the colour of the first page: its offset from a multiple of
        /// all colours ([`MapConfig::colors`]), in bytes (`UVM_KMF_COLORMATCH`).
        const COLORMATCH = 1 << 8;
    }

    /// What a map is for (`VM_MAP_*` of uvm_km(9)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MapFlags: u32 {
        /// There may be pageable memory in it (`VM_MAP_PAGEABLE`).
        const PAGEABLE = 1 << 0;
        /// For callers who must not sleep (`VM_MAP_INTRSAFE`): no allocation waits for room or memory,
        /// and there is no pageable memory, whatever else the flags say. The lock may still have to be
        /// waited for, for a moment; signal handlers must stay away.
        const INTRSAFE = 1 << 1;
        /// Allocates from the highest addresses down (`VM_MAP_TOPDOWN`).
        const TOPDOWN = 1 << 2;
    }
}

/// The type of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MapType {
    /// [`KmFlags::WIRED`].
    Wired,
    /// [`KmFlags::PAGEABLE`].
    Pageable,
    /// [`KmFlags::VAONLY`].
    VaOnly,
    /// Another map, which [`Map::suballoc`](super::Map::suballoc) made.
    Submap,
}

const TYPES: KmFlags = KmFlags::WIRED.union(KmFlags::PAGEABLE).union(KmFlags::VAONLY);

impl KmFlags {
    /// The type, if there is just one.
    pub(super) fn of_type(self) -> Option<MapType> {
        match self & TYPES {
            Self::WIRED => Some(MapType::Wired),
            Self::PAGEABLE => Some(MapType::Pageable),
            Self::VAONLY => Some(MapType::VaOnly),
            _ => None,
        }
    }
}

/// Name and settings of a map.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MapConfig {
    /// What the map is called, in errors and reports.
    pub name: Name,
    /// What it is for.
    pub flags: MapFlags,
    /// Whether an inaccessible page follows each allocation. It takes up address space, no memory.
    pub guards: bool,
    /// How many pages until the colours begin anew, for [`KmFlags::COLORMATCH`]: a power of two.
    pub colors: usize,
    /// Nanoseconds after which the system is asked again for memory that it refused, by an allocation that
    /// may wait.
    pub retry: u64,
    /// Is told each allocation that is still there when the map is dropped, and the map's name.
    pub leaked: Option<fn(&Name, MapSegment)>,
}

impl MapConfig {
    /// A map of this name in which memory may be pageable, without guard pages and colours, which asks for
    /// memory again after 10 ms, and tells nobody of leaks.
    pub const fn new(name: &str) -> Self {
        Self {
            name: Name::new(name),
            flags: MapFlags::PAGEABLE,
            guards: false,
            colors: 1,
            retry: 10_000_000,
            leaked: None,
        }
    }

    /// The same, for what `flags` say.
    pub const fn flags(self, flags: MapFlags) -> Self {
        Self { flags, ..self }
    }

    /// The same, with an inaccessible page behind each allocation, or without.
    pub const fn guards(self, guards: bool) -> Self {
        Self { guards, ..self }
    }

    /// The same, with pages of so many colours.
    pub const fn colors(self, colors: usize) -> Self {
        Self { colors, ..self }
    }

    /// The same, asking for memory again every so many nanoseconds.
    pub const fn retry_every(self, nanoseconds: u64) -> Self {
        Self { retry: nanoseconds, ..self }
    }

    /// The same, with `leaked` told of what is left when the map is dropped.
    pub const fn on_leak(self, leaked: fn(&Name, MapSegment)) -> Self {
        Self { leaked: Some(leaked), ..self }
    }
}
