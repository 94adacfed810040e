//! The flags of zone(9).

use core::fmt;

use uma_core::ConfigFault;

bitflags::bitflags! {
    /// How a zone is to be: the `UMA_ZONE_*` of zone(9), of 2002 and today, by the same names.
    ///
    /// Some say what a kernel has and a process has not. They are accepted, so that code can be ported as
    /// it is, and change nothing; each says so.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ZoneFlags: u32 {
        /// Reclaims over all zones leave this one alone; `reclaim` of the zone itself does not.
        const UNMANAGED = 1;
        /// Trims over all zones, as upkeep does them, leave this one alone; drains do not.
        const NOTRIM = 1 << 1;
        /// Items are zeros when their slab is made: once, not at every allocation. What an item holds when
        /// it is freed it holds when it is allocated again, until its slab is given back.
        const ZINIT = 1 << 2;
        /// Slabs are never given back, by no reclaim, until the zone is destroyed: what was an item once is
        /// one as long as there is the zone. That also holds for zones on the same slabs.
        const NOFREE = 1 << 3;
        /// The zone itself never reads or writes the memory of items: headers lie outside. Its hooks may, and
        /// a request for zeros does. Needs the feature `hashbrown`.
        const NOTOUCH = 1 << 4;
        /// Headers lie outside slabs, as for `NOTOUCH`, for other reasons.
        const OFFPAGE = 1 << 5;
        /// An item of at most a page lies within one page, and any item within one run of pages that was asked
        /// for as one. (Runs are contiguous by address. What they are by physical address the system does
        /// not tell a process; within one page they are contiguous.)
        const CONTIG = 1 << 6;
        /// Items begin at ever other cache lines of a page.
        const CACHESPREAD = 1 << 7;
        /// Every item has a copy for each CPU: see [`RawZone::alloc_pcpu`](crate::RawZone::alloc_pcpu).
        const PCPU = 1 << 8;
        /// No buckets: every allocation takes the keg's lock.
        const NOBUCKET = 1 << 9;
        /// Buckets of the largest size from the beginning.
        const MAXBUCKET = 1 << 10;
        /// Buckets of the smallest size, always: little is cached.
        const MINBUCKET = 1 << 11;
        /// The zone serves those who supply pages: headers lie in their slabs, and buckets come from memory
        /// that is held already (`M_NOVM`), never from a page supplier.
        const VM = 1 << 12;
        /// Slabs are left out of core dumps, where the page supplier can do that: that of an ordinary process
        /// can on Linux, and costs a mapping or two for each slab then. Suppliers are told by
        /// [`Request::may_be_dumped`](uma_core::Request::may_be_dumped).
        const NODUMP = 1 << 13;
        /// For malloc(9). Changes nothing: slabs are found by address in every zone.
        const MALLOC = 1 << 14;
        /// Changes nothing: the memory of a process is pageable unless it is locked.
        const PAGEABLE = 1 << 15;
        /// Changes nothing: any zone can be a `static`.
        const STATIC = 1 << 16;
        /// Changes nothing: the suppliers of a process have no structures for pages to begin with.
        const NOTPAGE = 1 << 17;
        /// Changes nothing: a process has one memory domain.
        const FIRSTTOUCH = 1 << 18;
        /// Changes nothing: a process has one memory domain.
        const ROUNDROBIN = 1 << 19;
        /// Changes nothing: no lock order is checked at run time.
        const MTXCLASS = 1 << 20;
        /// Changes nothing by itself; for sanitizers.
        const NOKASAN = 1 << 21;
        /// The zone stands on the slabs of another. Set on such zones, and not to be asked for.
        const SECONDARY = 1 << 22;
        /// The zone stands on a source that is no slabs. Set on such zones, and not to be asked for.
        const CACHE = 1 << 23;
    }
}

impl ZoneFlags {
    /// Those that are about slabs, which zones on the same slabs have in common.
    pub(crate) const SLABS: Self = Self::ZINIT
        .union(Self::NOFREE)
        .union(Self::NOTOUCH)
        .union(Self::OFFPAGE)
        .union(Self::CONTIG)
        .union(Self::CACHESPREAD)
        .union(Self::PCPU)
        .union(Self::NODUMP);
    /// Those that a zone on the slabs of another has from there.
    pub(crate) const INHERITED: Self = Self::SLABS
        .union(Self::MALLOC)
        .union(Self::VM)
        .union(Self::NOTPAGE)
        .union(Self::FIRSTTOUCH)
        .union(Self::ROUNDROBIN)
        .union(Self::NOKASAN);

    const EXCLUSIVE: [(Self, Self, &'static str, &'static str); 9] = [
        (Self::NOBUCKET, Self::MAXBUCKET, "NOBUCKET", "MAXBUCKET"),
        (Self::NOBUCKET, Self::MINBUCKET, "NOBUCKET", "MINBUCKET"),
        (Self::MINBUCKET, Self::MAXBUCKET, "MINBUCKET", "MAXBUCKET"),
        (Self::ZINIT, Self::NOTOUCH, "ZINIT", "NOTOUCH"),
        (Self::VM, Self::NOTOUCH, "VM", "NOTOUCH"),
        (Self::VM, Self::OFFPAGE, "VM", "OFFPAGE"),
        (Self::FIRSTTOUCH, Self::ROUNDROBIN, "FIRSTTOUCH", "ROUNDROBIN"),
        (Self::SLABS, Self::SECONDARY, "a flag about slabs", "a zone on the slabs of another"),
        (Self::SLABS, Self::CACHE, "a flag about slabs", "a zone over a source"),
    ];

    /// What is wrong with these flags, if they are asked for a zone that is of this `kind`.
    pub(crate) fn check(self, kind: Self) -> Result<(), ConfigFault> {
        let kinds = Self::SECONDARY | Self::CACHE;
        if self.intersects(kinds - kind) {
            return Err(ConfigFault::Conflict("SECONDARY or CACHE", "a zone of another kind"));
        }
        let all = self | kind;
        match Self::EXCLUSIVE
            .iter()
            .find(|(one, other, ..)| all.intersects(*one) && all.intersects(*other))
        {
            Some(&(_, _, one, other)) => Err(ConfigFault::Conflict(one, other)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ZoneFlags {
    /// The names, with `|` between them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bitflags::parser::to_writer(self, f)
    }
}

/// The alignment that an alignment mask of zone(9) stands for: one more. (`UMA_ALIGN_PTR` and the
/// like are masks: 7 for 8 bytes.)
///
/// # Errors
///
/// [`ConfigFault::BadAlign`] if that is not a power of two, or the mask above `i32::MAX`.
pub const fn align_of_mask(mask: usize) -> Result<usize, ConfigFault> {
    if mask > i32::MAX as usize || !(mask + 1).is_power_of_two() {
        return Err(ConfigFault::BadAlign);
    }
    Ok(mask + 1)
}
