//! `M_*` and `UMA_ZONE_*`, with FreeBSD's values.

use core::ffi::c_int;

use uma::ZoneFlags as Engine;
use uma::core::Request;

use super::SYSTEM;
use crate::sync::{AtomicUsize, Ordering};

bitflags::bitflags! {
    /// How to allocate: the `M_*` of malloc(9). Exactly one of [`NOWAIT`](Self::NOWAIT) and
    /// [`WAITOK`](Self::WAITOK) belongs there; with both or none it is reported, ten times, and the call may
    /// wait.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct M: u32 {
        /// Fail rather than wait.
        const NOWAIT = 0x1;
        /// Wait, at the zone's limit and for memory: see `freebsd.waitok` in [`policy`](crate::policy).
        const WAITOK = 0x2;
        /// Nothing: no reclaim happens on the way but that before an allocation fails.
        const NORECLAIM = 0x80;
        /// Zeros, after the ctor has run.
        const ZERO = 0x100;
        /// Makes do with memory that is held already, and waits for no other.
        const NOVM = 0x200;
        /// May take what the zone keeps in reserve.
        const USE_RESERVE = 0x400;
        /// Nothing: core dumps are a matter of the zone. Told to page suppliers of zones with
        /// [`ZoneFlags::NODUMP`].
        const NODUMP = 0x800;
        /// Nothing: how to search an address space.
        const FIRSTFIT = 0x1000;
        /// Nothing, as [`FIRSTFIT`](Self::FIRSTFIT).
        const BESTFIT = 0x2000;
        /// Nothing: memory is not executable.
        const EXEC = 0x4000;
        /// Nothing, as [`FIRSTFIT`](Self::FIRSTFIT).
        const NEXTFIT = 0x8000;
        /// Nothing: told to page suppliers of zones whose slabs stay.
        const NEVERFREED = 0x10000;
    }
}

/// How many calls with both or none of `NOWAIT` and `WAITOK` were reported.
static UNCLEAR: AtomicUsize = AtomicUsize::new(0);

impl M {
    /// Whether they are clear and do not ask for zeros: any item that is at hand will do.
    #[cfg(feature = "capi")]
    #[inline(always)]
    pub(super) const fn is_plain(self) -> bool {
        let ways = Self::NOWAIT.bits() | Self::WAITOK.bits();
        (self.bits() & ways).count_ones() == 1 && !self.contains(Self::ZERO)
    }

    /// What they ask of the engine.
    #[inline]
    pub(super) fn request(self) -> Request {
        let mut request = match self.bits() & 3 {
            1 => Request::NOWAIT,
            2 => Request::WAIT,
            _ => self.unclear(),
        };
        if self.contains(Self::ZERO) {
            request = request.zeroed();
        }
        if self.contains(Self::USE_RESERVE) {
            request = request.from_reserve();
        }
        if self.contains(Self::NOVM) {
            request = request.without_pages();
        }
        request
    }

    #[cold]
    #[inline(never)]
    fn unclear(self) -> Request {
        if UNCLEAR.fetch_add(1, Ordering::Relaxed) < 10 {
            let bits = self.bits();
            SYSTEM.report(
                "uma_zalloc",
                format_args!("flags {bits:#x} are to have M_WAITOK or M_NOWAIT, and not both"),
            );
        }
        Request::WAIT
    }

    /// What a callback is told of a request.
    pub(super) fn of(request: Request) -> c_int {
        let mut flags = if request.may_wait() { Self::WAITOK } else { Self::NOWAIT };
        flags.set(Self::ZERO, request.wants_zero());
        flags.set(Self::USE_RESERVE, request.may_use_reserve());
        flags.set(Self::NOVM, !request.may_take_pages());
        flags.set(Self::NODUMP, !request.may_be_dumped());
        flags.set(Self::NEVERFREED, request.is_for_good());
        // The bits are few and low.
        flags.bits() as c_int
    }
}

bitflags::bitflags! {
    /// How a zone is to be: the `UMA_ZONE_*` of today. See [`uma::ZoneFlags`] for what they do here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ZoneFlags: u32 {
        /// Reclaims over all zones leave it alone.
        const UNMANAGED = 0x1;
        /// Items are zeros when their slab is made.
        const ZINIT = 0x2;
        /// Items of at most a page lie within one.
        const CONTIG = 0x4;
        /// The zone never touches the memory of items.
        const NOTOUCH = 0x8;
        /// Nothing: for malloc(9).
        const MALLOC = 0x10;
        /// Slabs are never given back.
        const NOFREE = 0x20;
        /// Nothing: no lock order is checked.
        const MTXCLASS = 0x40;
        /// Headers lie in slabs, and buckets come from memory that is held.
        const VM = 0x80;
        /// Nothing: pages have no structures.
        const NOTPAGE = 0x100;
        /// Told of zones on the slabs of another; not to be asked for.
        const SECONDARY = 0x200;
        /// No buckets.
        const NOBUCKET = 0x400;
        /// Buckets of the largest size.
        const MAXBUCKET = 0x800;
        /// Buckets of the smallest size (of FreeBSD 12).
        const MINBUCKET = 0x1000;
        /// Items begin at many cache lines.
        const CACHESPREAD = 0x2000;
        /// Not in core dumps.
        const NODUMP = 0x4000;
        /// A copy of every item for each CPU.
        const PCPU = 0x8000;
        /// Nothing: there is one domain.
        const FIRSTTOUCH = 0x1_0000;
        /// Nothing: there is one domain.
        const ROUNDROBIN = 0x2_0000;
        /// Frees are deferred until no reader is left: see [`Smr`](super::Smr).
        const SMR = 0x4_0000;
        /// Nothing: for sanitizers of the kernel.
        const NOKASAN = 0x8_0000;
        /// Trims over all zones leave it alone.
        const NOTRIM = 0x10_0000;
    }
}

bitflags::bitflags! {
    /// How a zone is to be: the `UMA_ZONE_*` of 2002, which have values of their own.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ZoneFlags2002: u32 {
        /// Nothing, as in 2002.
        const PAGEABLE = 0x1;
        /// Items are zeros when their slab is made.
        const ZINIT = 0x2;
        /// Nothing, as in 2002.
        const STATIC = 0x4;
        /// Headers lie outside of slabs. (In 2002 nobody looked at it.)
        const OFFPAGE = 0x8;
        /// Nothing: for malloc(9).
        const MALLOC = 0x10;
        /// Slabs are never given back.
        const NOFREE = 0x20;
    }
}

/// Translates each flag that is set.
macro_rules! translated {
    ($flags:expr, $($flag:ident)*) => {{
        let (flags, mut engine) = ($flags, Engine::empty());
        $(if flags.contains(Self::$flag) {
            engine |= Engine::$flag;
        })*
        engine
    }};
}

impl ZoneFlags {
    /// The engine's flags.
    pub(super) fn engine(self) -> Engine {
        translated!(self, UNMANAGED ZINIT CONTIG NOTOUCH MALLOC NOFREE MTXCLASS VM NOTPAGE SECONDARY NOBUCKET
            MAXBUCKET MINBUCKET CACHESPREAD NODUMP PCPU FIRSTTOUCH ROUNDROBIN NOKASAN NOTRIM)
    }
}

impl ZoneFlags2002 {
    /// The engine's flags.
    pub(super) fn engine(self) -> Engine {
        translated!(self, PAGEABLE ZINIT STATIC OFFPAGE MALLOC NOFREE)
    }
}

/// The mask of the processor's cache lines.
static LINE: AtomicUsize = AtomicUsize::new(63);

/// The alignment mask that stands for cache lines (`uma_get_cache_align_mask`, `UMA_ALIGN_CACHE`): 63 unless
/// set.
pub fn cache_align_mask() -> usize {
    LINE.load(Ordering::Relaxed)
}

/// Sets the alignment mask for cache lines (`uma_set_cache_align_mask`). Of zones made from now on.
///
/// # Errors
///
/// If it is not one less than a power of two, or above `i32::MAX`.
pub fn set_cache_align_mask(mask: usize) -> Result<(), uma::core::ConfigFault> {
    uma::align_of_mask(mask)?;
    LINE.store(mask, Ordering::Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_one_of_the_engine() {
        for (name, flag) in ZoneFlags::all().iter_names() {
            let engine = flag.engine();
            // SMR is ours.
            let same = engine.iter_names().map(|(name, _)| name).eq([name]);
            assert!(same || flag == ZoneFlags::SMR, "{name}: {engine}");
        }
        for (name, flag) in ZoneFlags2002::all().iter_names() {
            assert!(flag.engine().iter_names().map(|(name, _)| name).eq([name]), "{name}");
        }
    }
}
