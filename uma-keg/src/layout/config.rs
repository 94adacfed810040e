//! What a keg wants of its slabs.

use uma_core::Request;

use super::SMALL_SLAB;

/// What a keg wants of its slabs beside the items' layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlabConfig {
    pub(super) page_size: usize,
    pub(super) no_touch: bool,
    pub(super) outside: bool,
    pub(super) kept_outside: bool,
    pub(super) random: bool,
    pub(super) guard: bool,
    pub(super) largest: usize,
    pub(super) one_run: bool,
    pub(super) spread: bool,
    pub(super) copies: usize,
    pub(super) upkeep: Upkeep,
}

/// What a keg does with slabs beside cutting them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Upkeep {
    /// Fill them with zeros when they are made.
    pub(crate) zeroed: bool,
    /// Never give them back as long as the keg lives.
    pub(crate) kept: bool,
    /// Leave them out of core dumps.
    pub(crate) undumped: bool,
}

impl Upkeep {
    pub(super) const NONE: Self = Self { zeroed: false, kept: false, undumped: false };

    /// The request for the pages of a slab, with what the supplier is to know of it.
    pub(crate) const fn request(&self, request: Request) -> Request {
        let request = if self.kept { request.for_good() } else { request };
        if self.undumped { request.without_dump() } else { request }
    }
}

impl SlabConfig {
    /// Pages of 4096 bytes, items that may be touched, headers inside only.
    pub const fn new() -> Self {
        Self {
            page_size: 4096,
            no_touch: false,
            outside: false,
            kept_outside: false,
            random: false,
            guard: false,
            largest: SMALL_SLAB,
            one_run: false,
            spread: false,
            copies: 1,
            upkeep: Upkeep::NONE,
        }
    }

    /// The supplier's page size, or a multiple of it. A power of two from 64 bytes to 2 MiB.
    pub const fn page_size(self, bytes: usize) -> Self {
        Self { page_size: bytes, ..self }
    }

    /// Slabs of no more than this, where they hold an item at all, whatever they waste: for suppliers
    /// of little memory, of which 64 KiB would be a large part. At most 64 KiB.
    pub const fn largest_slab(self, bytes: usize) -> Self {
        Self { largest: if bytes < SMALL_SLAB { bytes } else { SMALL_SLAB }, ..self }
    }

    /// The keg may not touch the slab's memory (`UMA_ZONE_NOTOUCH`): the header lies outside. A drain
    /// still has the supplier take back pages without items in use, if it is one that can.
    pub const fn no_touch(self) -> Self {
        Self { no_touch: true, ..self }
    }

    /// Headers may lie outside, in memory from [`Metadata`](uma_core::Metadata). Without the feature
    /// `hashbrown` this has no effect.
    pub const fn outside_headers(self) -> Self {
        Self { outside: true, ..self }
    }

    /// Headers lie outside, whatever that wastes: no overflow of an item reaches one.
    pub const fn headers_kept_outside(self, yes: bool) -> Self {
        Self { kept_outside: yes, outside: self.outside || yes, ..self }
    }

    /// Items are taken from a slab in no order, so that nobody can tell which one is next.
    pub const fn random_slots(self, yes: bool) -> Self {
        Self { random: yes, ..self }
    }

    /// Behind each slab lies an inaccessible page, if the supplier
    /// [can protect](uma_core::PageSupplier::protects) it. Where the system refuses to, there is none.
    pub const fn guard_pages(self, yes: bool) -> Self {
        Self { guard: yes, ..self }
    }

    /// Whether the keg may not touch the slab's memory.
    pub const fn is_no_touch(&self) -> bool {
        self.no_touch
    }

    /// Headers inside only, as it is to begin with.
    pub const fn inside_headers(self) -> Self {
        Self { outside: false, kept_outside: false, ..self }
    }

    /// Slabs as small as can be, so that each takes the shortest run of pages, and no item of at most a
    /// page reaches into a second one (`UMA_ZONE_CONTIG`).
    pub const fn contiguous(self) -> Self {
        Self { one_run: true, ..self }
    }

    /// Items begin at ever other cache lines of a page, so that what is used most in each of them does not
    /// meet in the same few sets of a cache (`UMA_ZONE_CACHESPREAD`): the distance between them is an odd
    /// number of cache lines of 64 bytes, or of the alignment if that is more.
    pub const fn spread(self) -> Self {
        Self { spread: true, ..self }
    }

    /// So many copies of every item, one for each CPU (`UMA_ZONE_PCPU`): copy `n` of an item lies
    /// [`SlabLayout::copy_distance`](super::SlabLayout::copy_distance) times `n` bytes behind it.
    pub const fn copies(self, copies: usize) -> Self {
        Self { copies, ..self }
    }

    /// Items are all zeros when their slab is made, and never again made so (`UMA_ZONE_ZINIT`).
    ///
    /// Then pages of partly used slabs are not given back by a drain: what the items in them hold, free or
    /// not, stays until their slab goes.
    pub const fn zeroed(mut self) -> Self {
        self.upkeep.zeroed = true;
        self
    }

    /// Slabs are never given back, nor pages of them, as long as the keg lives (`UMA_ZONE_NOFREE`): what
    /// was an item once stays readable, and holds what an item of the keg held.
    pub const fn kept(mut self) -> Self {
        self.upkeep.kept = true;
        self
    }

    /// Slabs are left out of core dumps, if the supplier can do that (`UMA_ZONE_NODUMP`): it is
    /// [told](uma_core::Request::without_dump).
    pub const fn undumped(mut self) -> Self {
        self.upkeep.undumped = true;
        self
    }
}

impl Default for SlabConfig {
    fn default() -> Self {
        Self::new()
    }
}
