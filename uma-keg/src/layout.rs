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
//!
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

use core::alloc::Layout;

use uma_core::{ConfigFault, Request};

use crate::divide::{DIVIDENDS, Reciprocal};
use crate::slab::{BINS, HEADER_ALIGN, header_size};

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

/// What a keg wants of its slabs beside the items' layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlabConfig {
    page_size: usize,
    no_touch: bool,
    outside: bool,
    kept_outside: bool,
    random: bool,
    guard: bool,
    largest: usize,
    one_run: bool,
    spread: bool,
    copies: usize,
    upkeep: Upkeep,
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
    const NONE: Self = Self { zeroed: false, kept: false, undumped: false };

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
    /// [`SlabLayout::copy_distance`] times `n` bytes behind it.
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
    /// - [`ConfigFault::NoMemory`] for those if `config` does not allow headers outside either.
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
            return Err(ConfigFault::NoMemory);
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

/// One way to lay out a slab.
#[derive(Clone, Copy)]
struct Choice {
    slab: usize,
    items: usize,
    place: HeaderPlace,
    header: usize,
    /// Bytes of items, and of all that is taken for them.
    used: u64,
    total: u64,
}

impl Choice {
    /// Whether it wastes at most 1 %.
    const fn is_good(&self) -> bool {
        self.used * 100 >= self.total * 99
    }

    /// Whether it wastes less than 2 %.
    const fn is_fair(&self) -> bool {
        self.used * 50 > self.total * 49
    }

    const fn wastes_less_than(&self, other: &Self) -> bool {
        self.used * other.total > other.used * self.total
    }
}

/// Keeps the better of two, the earlier if they are equal.
const fn better(old: Option<Choice>, new: Option<Choice>) -> Option<Choice> {
    match (old, new) {
        (Some(a), Some(b)) if b.wastes_less_than(&a) => Some(b),
        (Some(a), _) => Some(a),
        (None, b) => b,
    }
}

struct Search {
    size: usize,
    stride: usize,
    page: usize,
    inside: bool,
    outside: bool,
    largest: usize,
    /// The smallest slab that holds an item, whatever it wastes.
    one_run: bool,
}

impl Search {
    const fn best(&self) -> Choice {
        let small = if self.size > self.most() { self.alone() } else { self.small() };
        let Some(small) = small else {
            // `new` sees to it that one of the two header places is allowed.
            panic!("some slab holds one item");
        };
        if self.one_run || self.largest < SMALL_SLAB {
            return small;
        }
        if small.is_fair() || self.stride <= SMALL_SLAB / 4 {
            return self.unpinned(small);
        }
        self.larger(small)
    }

    /// Step 5.
    const fn unpinned(&self, choice: Choice) -> Choice {
        let may = self.outside && choice.place.is_inside() && choice.items > 1;
        let pins = choice.slab > self.page && self.stride >= self.page / 16;
        match self.fill(choice.slab, HeaderPlace::Outside) {
            Some(other) if may && pins && (other.is_good() || !choice.wastes_less_than(&other)) => {
                other
            }
            _ => choice,
        }
    }

    /// The largest slab of steps 1 to 3.
    const fn most(&self) -> usize {
        if self.one_run || self.page > self.largest { self.page } else { self.largest }
    }

    /// Steps 1 to 3, and the least waste of all.
    const fn small(&self) -> Option<Choice> {
        // An item of nearly 64 KiB with a header inside needs a little more.
        let mut least = self.alone();
        let mut pass = 0;
        while pass < 4 {
            let place = if pass % 2 == 0 { HeaderPlace::Inside } else { HeaderPlace::Outside };
            let powers = pass < 2;
            let mut fair = None;
            let mut slab = self.page;
            while slab <= self.most() && self.allows(place) {
                let choice = self.fill(slab, place);
                if let Some(choice) = choice {
                    if choice.is_good() {
                        return Some(choice);
                    }
                    if fair.is_none() && choice.is_fair() {
                        fair = Some(choice);
                    }
                }
                least = better(choice, least);
                slab = if powers { slab * 2 } else { slab + self.page };
            }
            if fair.is_some() {
                return fair;
            }
            pass += 1;
        }
        least
    }

    /// A slab of one item.
    const fn alone(&self) -> Option<Choice> {
        let mut inside = None;
        if self.inside {
            let slab = (self.size + header_size(1)).next_multiple_of(self.page);
            inside = self.put(slab, 1, HeaderPlace::Inside);
        }
        match inside {
            Some(choice) if choice.is_fair() => return inside,
            _ => {}
        }
        let mut outside = None;
        if self.outside {
            let slab = self.size.next_multiple_of(self.page);
            outside = self.put(slab, 1, HeaderPlace::Outside);
        }
        better(inside, outside)
    }

    /// Powers of two above 64 KiB, up to eight items, where they waste less.
    const fn larger(&self, small: Choice) -> Choice {
        let mut best = small;
        let mut slab = SMALL_SLAB * 2;
        while slab <= MAX_SHARED && slab <= self.stride * 8 {
            let mut place = HeaderPlace::Inside;
            loop {
                if slab.is_multiple_of(self.page)
                    && self.allows(place)
                    && let Some(choice) = self.fill(slab, place)
                    && choice.wastes_less_than(&best)
                {
                    if choice.is_fair() {
                        return choice;
                    }
                    best = choice;
                }
                if !place.is_inside() {
                    break;
                }
                place = HeaderPlace::Outside;
            }
            slab *= 2;
        }
        best
    }

    const fn allows(&self, place: HeaderPlace) -> bool {
        if place.is_inside() { self.inside } else { self.outside }
    }

    /// As many items as a slab of this size holds, or `None` if not one.
    const fn fill(&self, slab: usize, place: HeaderPlace) -> Option<Choice> {
        if place.is_inside() {
            let Some(room) = slab.checked_sub(header_size(0) + self.size) else {
                return None;
            };
            // Of n items all but the last take a stride, and each at least one bit of header: this
            // is never too few, and too many only by what the header is rounded up.
            let mut items = (room + self.stride) * 8 / (self.stride * 8 + 1);
            while items != 0 && (items - 1) * self.stride + self.size + header_size(items) > slab {
                items -= 1;
            }
            self.put(slab, items, place)
        } else {
            let Some(room) = slab.checked_sub(self.size) else {
                return None;
            };
            self.put(slab, room / self.stride + 1, place)
        }
    }

    const fn put(&self, slab: usize, items: usize, place: HeaderPlace) -> Option<Choice> {
        if items == 0 {
            return None;
        }
        let header = header_size(items);
        let outside = if place.is_inside() { 0 } else { header };
        let (used, total) = ((items * self.size) as u64, (slab + outside) as u64);
        Some(Choice { slab, items, place, header, used, total })
    }
}
