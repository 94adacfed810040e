//! How items lie in slabs, and why so.
//!
//! A slab is one run of pages cut into items of one *stride*, the item size rounded up to the
//! alignment. There is no smaller unit and no link in free items: a bitmap in the slab's *header* says
//! which are free. The header lies in one of two places:
//!
//! ```text
//!   inside   |item|item|item| ... |item|pad| header |      the header ends where the slab ends
//!            ^ base, aligned to the next power of two >= slab size
//!
//!   outside  |item|item|item| ... |item|item| pad |        header in memory from `Metadata`
//!
//!   alone    |item                    |pad| header |       one item: its address is the slab's base
//! ```
//!
//! The last item needs its size and not its stride, so the header may lie in its padding.
//!
//! # From an item to its header
//!
//! The slab's base is the item's address with the low bits masked off, or the address itself where
//! a slab holds one item. An inside header is found at a fixed distance from there; an outside header
//! by a table that maps bases to headers (feature `hashbrown`).
//!
//! # Which layout is chosen
//!
//! *Waste* is `1 - items * size / (slab bytes + outside header bytes)`.
//!
//! 1. Among slabs of a power of two of pages up to 64 KiB with the header inside: the smallest that
//!    wastes at most 1 %, else the smallest that wastes under 2 %.
//! 2. The same with the header outside. It comes second because it costs a table look-up per free.
//! 3. The same among slabs of any number of pages, inside, then outside. They come after powers of two
//!    because they are aligned like the next one, which suppliers find harder to pack.
//! 4. Else whichever of all these wastes least; and where fewer than four items fit in 64 KiB, also
//!    compared with powers of two that hold up to eight items.
//! 5. If that is an inside header in a slab of several pages, of items of a sixteenth of a page or more,
//!    and there is no bound on slabs, it goes outside after all where the slab then wastes at most 1 %,
//!    or no more than before. Inside it would keep a page from being given back that most likely has no
//!    item in use when few are. (It is no slower: the look-up costs less than the memory access to a
//!    header on a page of its own.)
//!
//! Items over 64 KiB start from a slab of their own, rounded up to pages, and take step 4's larger
//! slabs if that wastes 2 % or more and they waste less.
//!
//! Small slabs are preferred because a zone of few items should not hold more pages than it needs.

mod config;
mod search;

use core::alloc::Layout;

use uma_core::ConfigFault;

pub use config::SlabConfig;
use config::Upkeep;
use search::{Choice, Search};

use crate::divide::{DIVIDENDS, Reciprocal};
use crate::slab::{BINS, HEADER_ALIGN};

/// Largest item, in bytes: 1 GiB, or 64 MiB where addresses have 32 bits.
pub const MAX_ITEM_SIZE: usize = if usize::BITS < 64 { 1 << 26 } else { 1 << 30 };
/// Largest item alignment, in bytes.
pub const MAX_ITEM_ALIGN: usize = 1 << 21;

/// Up to this size slabs are chosen freely (if pages are not larger still).
const SMALL_SLAB: usize = 64 << 10;
const MAX_PAGE: usize = 2 << 20;
/// What the next cache line is apart, on most machines.
const CACHE_LINE: usize = 64;
/// Slabs of several items, or of copies, are not larger than this.
const MAX_SHARED: usize = 8 << 20;
/// No slab is, so that offsets can be divided exactly.
const MAX_SLAB: usize = MAX_ITEM_SIZE + 2 * MAX_PAGE;
const _: () = assert!(MAX_SLAB < DIVIDENDS && MAX_SHARED < MAX_SLAB);

const HAS_MAP: bool = cfg!(feature = "hashbrown");

/// Where a slab's header lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderPlace {
    /// At the end of the slab.
    Inside,
    /// In memory of its own, from [`Metadata`](uma_core::Metadata).
    Outside,
}

impl HeaderPlace {
    const fn is_inside(self) -> bool {
        matches!(self, Self::Inside)
    }
}

/// How the items of one keg lie in its slabs. The module's source has the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlabLayout {
    item: Layout,
    slab: Layout,
    stride: usize,
    items: usize,
    place: HeaderPlace,
    header: Layout,
    by_stride: Reciprocal,
    bin_factor: u64,
    base_mask: usize,
    random: bool,
    guard: usize,
    copies: usize,
    upkeep: Upkeep,
}

impl SlabLayout {
    /// Chooses the slab for items of layout `item`.
    ///
    /// ```
    /// use core::alloc::Layout;
    /// use uma_keg::{SlabConfig, SlabLayout};
    ///
    /// const NODE: SlabLayout = match SlabLayout::new(Layout::new::<[u64; 8]>(), SlabConfig::new()) {
    ///     Ok(layout) => layout,
    ///     Err(_) => panic!("no such slab"),
    /// };
    /// assert_eq!((NODE.slab_size(), NODE.items()), (8192, 127));
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ConfigFault::ZeroSize`], [`ConfigFault::SizeTooLarge`], [`ConfigFault::AlignTooLarge`];
    /// - [`ConfigFault::SizeTooLarge`] for copies that together are above 8 MiB, and
    ///   [`ConfigFault::ZeroSize`] for none;
    /// - [`ConfigFault::BadAlign`] for a page size that is not a power of two from 64 bytes to 2 MiB;
    /// - [`ConfigFault::NeedsFeature`] for items that may not be touched or headers kept outside, without `hashbrown`;
    /// - [`ConfigFault::Conflict`] for items that may not be touched if `config` does not allow headers outside,
    ///   as that of [`Keg::new`](crate::Keg::new) does not.
    pub const fn new(item: Layout, config: SlabConfig) -> Result<Self, ConfigFault> {
        if item.size() == 0 {
            return Err(ConfigFault::ZeroSize);
        }
        if item.size() > MAX_ITEM_SIZE {
            return Err(ConfigFault::SizeTooLarge(MAX_ITEM_SIZE));
        }
        if item.align() > MAX_ITEM_ALIGN {
            return Err(ConfigFault::AlignTooLarge(MAX_ITEM_ALIGN));
        }
        let page = config.page_size;
        if !page.is_power_of_two() || page < 64 || page > MAX_PAGE {
            return Err(ConfigFault::BadAlign);
        }
        let no_inside = config.no_touch || config.kept_outside;
        if no_inside && !HAS_MAP {
            return Err(ConfigFault::NeedsFeature("hashbrown"));
        }
        if no_inside && !config.outside {
            // Who keeps headers outside allows it as well, so it is the other wish.
            let untouched = "items that may not be touched";
            return Err(ConfigFault::Conflict("headers inside slabs", untouched));
        }
        // Neither overflows: the size is at most 1 GiB and the alignment at most 2 MiB.
        let mut stride = item.size().next_multiple_of(item.align());
        if config.spread {
            let line = if item.align() > CACHE_LINE { item.align() } else { CACHE_LINE };
            stride = stride.next_multiple_of(line);
            if (stride / line).is_multiple_of(2) {
                stride += line;
            }
        }
        let search = Search {
            size: item.size(),
            stride,
            page,
            inside: !no_inside,
            outside: config.outside && HAS_MAP,
            largest: config.largest,
            // Copies lie a slab apart each, so those are as small as can be, too.
            one_run: config.one_run || config.copies > 1,
        };
        let mut choice = search.best();
        match choice.slab.checked_mul(config.copies) {
            Some(0) => return Err(ConfigFault::ZeroSize),
            Some(slab) if config.copies == 1 || slab <= MAX_SHARED => choice.slab = slab,
            _ => return Err(ConfigFault::SizeTooLarge(MAX_SHARED / config.copies)),
        }
        let mut layout = Self::from_choice(item, stride, page, choice);
        layout.random = config.random;
        layout.guard = if config.guard { page } else { 0 };
        layout.copies = config.copies;
        layout.upkeep = config.upkeep;
        Ok(layout)
    }

    const fn from_choice(item: Layout, stride: usize, page: usize, choice: Choice) -> Self {
        let Choice { slab: size, items, place, header, .. } = choice;
        let alone = items == 1;
        let mut align = if alone { page } else { size.next_power_of_two() };
        if align < item.align() {
            align = item.align();
        }
        let (Ok(slab), Ok(header)) =
            (Layout::from_size_align(size, align), Layout::from_size_align(header, HEADER_ALIGN))
        else {
            panic!("a slab is little larger than an item may be");
        };
        Self {
            item,
            slab,
            stride,
            items,
            place,
            header,
            by_stride: Reciprocal::new(stride),
            bin_factor: ((BINS as u64) << 32) / items as u64,
            base_mask: if alone { usize::MAX } else { !(align - 1) },
            random: false,
            guard: 0,
            copies: 1,
            upkeep: Upkeep::NONE,
        }
    }

    /// The items' layout.
    pub const fn item(&self) -> Layout {
        self.item
    }

    /// Distance from one item to the next, in bytes.
    pub const fn stride(&self) -> usize {
        self.stride
    }

    /// Size and alignment of the page run that is one slab.
    pub const fn slab(&self) -> Layout {
        self.slab
    }

    /// The page run of a slab with a guard page behind it.
    pub(crate) const fn guarded_slab(&self) -> Layout {
        match Layout::from_size_align(self.slab.size() + self.guard, self.slab.align()) {
            Ok(layout) => layout,
            Err(_) => panic!("a slab is little larger than an item may be"),
        }
    }

    /// Bytes of guard page wished for behind each slab.
    pub const fn guard(&self) -> usize {
        self.guard
    }

    /// Whether items are taken from a slab in no order.
    pub const fn has_random_slots(&self) -> bool {
        self.random
    }

    /// Bytes of pages in a slab.
    pub const fn slab_size(&self) -> usize {
        self.slab.size()
    }

    /// Alignment of a slab.
    pub const fn slab_align(&self) -> usize {
        self.slab.align()
    }

    /// Items in a slab.
    pub const fn items(&self) -> usize {
        self.items
    }

    /// Where the header lies.
    pub const fn header_place(&self) -> HeaderPlace {
        self.place
    }

    /// Size and alignment of a slab's header.
    pub const fn header(&self) -> Layout {
        self.header
    }

    /// Distance from the slab's base to an inside header, in bytes.
    pub const fn header_offset(&self) -> Option<usize> {
        match self.place {
            HeaderPlace::Inside => Some(self.slab.size() - self.header.size()),
            HeaderPlace::Outside => None,
        }
    }

    /// How many copies there are of every item, 1 unless [`SlabConfig::copies`] asked for more.
    pub const fn copies(&self) -> usize {
        self.copies
    }

    /// Distance from one copy of an item to the next, in bytes.
    pub const fn copy_distance(&self) -> usize {
        self.slab.size() / self.copies
    }

    /// What is done with slabs.
    pub(crate) const fn upkeep(&self) -> Upkeep {
        self.upkeep
    }

    /// Bytes from the base that belong to items and their copies, or to nobody.
    pub(crate) const fn items_size(&self) -> usize {
        match self.header_offset() {
            Some(header) => header,
            None => self.slab.size(),
        }
    }

    /// Part of the memory that no item uses, in thousandths, rounded up. An outside header counts as
    /// memory.
    pub const fn waste_permille(&self) -> u32 {
        let total = (self.slab.size() + self.outside_bytes()) as u64;
        let used = (self.items * self.item.size() * self.copies) as u64;
        // At most 1000.
        ((total - used) * 1000).div_ceil(total) as u32
    }

    /// Bytes of header that a slab takes from `Metadata`.
    pub const fn outside_bytes(&self) -> usize {
        if self.place.is_inside() { 0 } else { self.header.size() }
    }

    /// Whether partly used slabs can have whole pages of this size without an item in use. If so, slabs
    /// begin where a page does: those of several items are aligned to their size or more.
    pub(crate) const fn has_spare_pages(&self, page: usize) -> bool {
        let may = !self.upkeep.zeroed && !self.upkeep.kept && self.copies == 1;
        may && self.items > 1 && self.slab.size() > page
    }

    /// The offset at which item `end` begins; behind the last item, that of the header or of the end.
    pub(crate) const fn offset_of(&self, end: usize) -> usize {
        match self.header_offset() {
            _ if end < self.items => end * self.stride,
            Some(header) => header,
            None => self.slab.size(),
        }
    }

    /// The address at which the slab of the item at `addr` begins, if `addr` is that of an item.
    #[inline]
    pub(crate) const fn base_of(&self, addr: usize) -> usize {
        addr & self.base_mask
    }

    /// The index of the item at `offset` from the base, if one begins there.
    #[inline]
    pub(crate) const fn index_of(&self, offset: usize) -> Option<usize> {
        if offset >= self.slab.size() {
            return None;
        }
        let index = self.by_stride.divide(offset);
        if index < self.items && index * self.stride == offset { Some(index) } else { None }
    }

    /// The bin for a slab that is neither free nor full: `used * BINS / items`, without dividing.
    #[inline]
    pub(crate) const fn bin(&self, used: usize) -> usize {
        ((used as u64 * self.bin_factor) >> 32) as usize
    }
}
