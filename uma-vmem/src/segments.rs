//! The books of an arena: what is done under its lock.
//!
//! Every segment is in the address list, after the tag of its span:
//!
//! ```text
//!   first --> [span A] - [alloc] - [free] - [alloc] - [span B] - [free] --> none
//!              |                                       |
//!              `- in the tree of spans ----------------'
//!   and each free one in a list by size, each allocated one in the table by address
//! ```
//!
//! # Invariants
//!
//! - The segments of a span follow one another without a gap and make up the span.
//! - Two free segments of one span are never neighbours.
//! - Spans and free segments begin and end at multiples of the quantum. An allocated segment begins at
//!   one, its tag has the size asked for, and it has the addresses up to the next multiple too.
//! - `size` is the sum of the spans, `in_use` that of the allocated segments, rounded up.
//!
//! Nothing here calls anything outside of this crate, or needs memory: tags were made sure of before.

use crate::VmemFault;
use crate::cursor::{Cursor, Cursors, ROTOR};
use crate::fit::{Policy, Want, round_up};
use crate::free::{FreeLists, list_of};
use crate::import::Span;
use crate::spans::Spans;
use crate::table::Table;
use crate::tag::{Kind, Memory, Pool, Seg};

/// Tags that an allocation takes at most: for the segment, and for what is left of it on one side.
pub(crate) const TAKE_TAGS: usize = 2;
/// Tags that a span takes: its own, and that of its first segment.
pub(crate) const SPAN_TAGS: usize = 2;
/// Most tags that anybody asks for at once.
pub(crate) const MOST_TAGS: usize = TAKE_TAGS + SPAN_TAGS;

pub(crate) struct Segments {
    pub(crate) pool: Pool,
    pub(crate) table: Table,
    pub(crate) cursors: Cursors,
    free: FreeLists,
    spans: Spans,
    first: Option<Seg>,
    last: Option<Seg>,
    quantum: usize,
    pub(crate) size: usize,
    pub(crate) in_use: usize,
    pub(crate) peak: usize,
    pub(crate) imported: usize,
}

impl Segments {
    pub(crate) const fn new(quantum: usize) -> Self {
        Self {
            pool: Pool::new(),
            table: Table::new(quantum),
            cursors: Cursors::new(),
            free: FreeLists::new(),
            spans: Spans::new(),
            first: None,
            last: None,
            quantum,
            size: 0,
            in_use: 0,
            peak: 0,
            imported: 0,
        }
    }

    pub(crate) const fn spans(&self) -> usize {
        self.spans.len()
    }

    pub(crate) const fn free_size(&self) -> usize {
        self.size - self.in_use
    }

    /// Puts `new` into the address list behind `seg`, or at the end.
    fn link_after(&mut self, seg: Option<Seg>, new: Seg) {
        let seg = seg.or(self.last);
        let next = seg.and_then(|seg| seg.after.get());
        new.before.set(seg);
        new.after.set(next);
        match seg {
            Some(seg) => seg.after.set(Some(new)),
            None => self.first = Some(new),
        }
        match next {
            Some(next) => next.before.set(Some(new)),
            None => self.last = Some(new),
        }
    }

    /// Takes a tag out of the address list and gives it back.
    ///
    /// # Safety
    ///
    /// The tag is in use and, but for the address list, in no list, tree, table or cursor.
    unsafe fn unlink(&mut self, seg: Seg) {
        let (before, after) = (seg.before.get(), seg.after.get());
        match before {
            Some(before) => before.after.set(after),
            None => self.first = after,
        }
        match after {
            Some(after) => after.before.set(before),
            None => self.last = before,
        }
        // SAFETY: it came from the pool, and its last mention is gone.
        unsafe { self.pool.give(seg) };
    }

    /// A tag for something, which goes into the address list behind `seg`, or at the end.
    fn new_tag(&mut self, kind: Kind, start: usize, size: usize, behind: Option<Seg>) -> Seg {
        let Some(tag) = self.pool.take() else {
            unreachable!("the caller made sure that there are enough tags")
        };
        tag.kind.set(kind);
        tag.start.set(start);
        tag.size.set(size);
        tag.imported.set(false);
        self.link_after(behind, tag);
        tag
    }

    /// Adds a span. Takes `SPAN_TAGS` tags.
    pub(crate) fn add(&mut self, span: Span, imported: bool) -> Result<(), VmemFault> {
        let Span { base, size } = span;
        if size == 0 {
            return Err(VmemFault::ZeroSize);
        }
        if (base | size) & (self.quantum - 1) != 0 {
            return Err(VmemFault::Unaligned { base, size });
        }
        let Some(last) = base.checked_add(size - 1) else {
            return Err(VmemFault::TooLarge { base, size });
        };
        if self.spans.overlaps(base, last) {
            return Err(VmemFault::Overlap { base, size });
        }
        let Some(total) = self.size.checked_add(size) else {
            return Err(VmemFault::TooLarge { base, size });
        };
        let tag = self.new_tag(Kind::Span, base, size, None);
        tag.imported.set(imported);
        self.spans.insert(tag);
        let seg = self.new_tag(Kind::Free, base, size, None);
        self.free.insert(seg);
        self.size = total;
        if imported {
            self.imported += size;
        }
        Ok(())
    }

    /// Finds a place and allocates it. Takes at most `TAKE_TAGS` tags.
    pub(crate) fn take(&mut self, want: &Want) -> Option<usize> {
        let (seg, at) = self.search(want)?;
        let taken = self.carve(seg, at, want);
        if want.policy == Policy::Next {
            self.cursors.set(ROTOR, Cursors::after(taken));
        }
        Some(at)
    }

    /// Finds a place.
    pub(crate) fn search(&mut self, want: &Want) -> Option<(Seg, usize)> {
        match want.policy {
            Policy::Instant => self.certain(want).or_else(|| self.scan(want, false)),
            Policy::First => self.scan(want, false),
            Policy::Best => self.scan(want, true),
            Policy::Next => self.next(want),
        }
    }

    fn fit(want: &Want, seg: Seg) -> Option<(Seg, usize)> {
        want.fit(seg.start.get(), seg.last(), 0).map(|at| (seg, at))
    }

    /// The first segment of the first list all of whose segments are large enough, unless it lies where
    /// it may not.
    fn certain(&self, want: &Want) -> Option<(Seg, usize)> {
        let enough = want.real.checked_add(want.slack)?;
        let exact = enough.is_power_of_two();
        let list = if exact { list_of(enough) } else { list_of(enough) + 1 };
        Self::fit(want, self.free.first_from(list)?)
    }

    /// Looks through the lists of segments that could be large enough.
    fn scan(&mut self, want: &Want, best: bool) -> Option<(Seg, usize)> {
        for list in self.free.candidates(want.real) {
            let mut found: Option<(Seg, usize)> = None;
            let mut largest = 0;
            let mut next = self.free.head(list);
            while let Some(seg) = next {
                next = seg.right.get();
                let size = seg.size.get();
                largest = largest.max(size);
                if found.is_some_and(|(found, _)| found.size.get() <= size) {
                    continue;
                }
                if let Some(fit) = Self::fit(want, seg) {
                    if !best || size == want.real {
                        return Some(fit);
                    }
                    found = Some(fit);
                }
            }
            self.free.note_largest(list, largest);
            // Later lists have larger ones only.
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Goes through the address list, from where the last one by this policy ended.
    fn next(&self, want: &Want) -> Option<(Seg, usize)> {
        self.free.candidates(want.real).next()?;
        let first = self.first?.after.get()?;
        let (start, from) = match self.cursors.get(ROTOR) {
            Cursor::At(seg, at) => (seg, at),
            _ => (first, 0),
        };
        let is_free = |seg: Seg| seg.kind.get() == Kind::Free;
        if is_free(start)
            && let Some(at) = want.fit(start.start.get(), start.last(), from)
        {
            return Some((start, at));
        }
        let mut seg = start.after.get().unwrap_or(first);
        while seg != start {
            if is_free(seg)
                && let Some(fit) = Self::fit(want, seg)
            {
                return Some(fit);
            }
            seg = seg.after.get().unwrap_or(first);
        }
        is_free(start).then(|| Self::fit(want, start)).flatten()
    }

    /// Allocates a part of a free segment:
    ///
    /// ```text
    ///   [           free seg           ]      1 tag
    ///   [ left |  allocated   |  right ]      1, 2 or 3 tags; `seg` stays with what is left
    /// ```
    fn carve(&mut self, seg: Seg, at: usize, want: &Want) -> Seg {
        let (start, size) = (seg.start.get(), seg.size.get());
        let left = at - start;
        let right = size - left - want.real;
        let taken = if left == 0 && right == 0 {
            self.free.remove(seg);
            seg.kind.set(Kind::Allocated);
            seg.size.set(want.size);
            seg
        } else if left == 0 {
            // In front of `seg`, where there is at least the tag of the span.
            let taken = self.new_tag(Kind::Allocated, at, want.size, seg.before.get());
            // What is right of it begins before the end of the address range.
            seg.start.set(at + want.real);
            self.free.resize(seg, right);
            self.cursors.cut(seg, taken);
            taken
        } else {
            let taken = self.new_tag(Kind::Allocated, at, want.size, Some(seg));
            self.free.resize(seg, left);
            if right != 0 {
                let rest = self.new_tag(Kind::Free, at + want.real, right, Some(taken));
                self.free.insert(rest);
            }
            self.cursors.cut(seg, seg);
            taken
        };
        self.table.insert(taken);
        self.in_use += want.real;
        self.peak = self.peak.max(self.in_use);
        taken
    }

    /// Frees an allocated segment and joins it with free neighbours. Returns the segment that it is in
    /// now.
    pub(crate) fn release(&mut self, addr: usize, size: usize) -> Result<Seg, VmemFault> {
        let Some(seg) = self.table.find(addr) else {
            return Err(match self.spans.containing(addr, addr) {
                Some(_) => VmemFault::NotAllocated { addr, size },
                None => VmemFault::Foreign { addr, size },
            });
        };
        let allocated = seg.size.get();
        if size != allocated {
            return Err(VmemFault::WrongSize { addr, size, allocated });
        }
        self.table.remove(seg);
        let mut real = self.occupied(allocated);
        self.in_use -= real;
        seg.kind.set(Kind::Free);
        let free = |seg: &Seg| seg.kind.get() == Kind::Free;
        if let Some(next) = seg.after.get().filter(free) {
            real += next.size.get();
            self.free.remove(next);
            self.cursors.merged(next, seg);
            // SAFETY: it left the free list and the cursors just now.
            unsafe { self.unlink(next) };
        }
        match seg.before.get().filter(free) {
            Some(before) => {
                self.cursors.merged(seg, before);
                // SAFETY: it left the table and the cursors, and was not put into a free list.
                unsafe { self.unlink(seg) };
                self.free.resize(before, before.size.get() + real);
                Ok(before)
            }
            None => {
                seg.size.set(real);
                self.free.insert(seg);
                Ok(seg)
            }
        }
    }

    /// How many addresses an allocated segment of `size` has.
    pub(crate) fn occupied(&self, size: usize) -> usize {
        // It was rounded up when it was allocated, so it can be.
        round_up(size, self.quantum).unwrap_or(size)
    }

    /// If `seg` is a whole imported span that is free, takes the span out, to be given back.
    pub(crate) fn retire(&mut self, seg: Seg) -> Option<Span> {
        if seg.kind.get() != Kind::Free {
            return None;
        }
        let tag = seg.before.get()?;
        if tag.kind.get() != Kind::Span || !tag.imported.get() || tag.size != seg.size {
            return None;
        }
        let span = Span { base: tag.start.get(), size: tag.size.get() };
        self.free.remove(seg);
        self.spans.remove(tag);
        self.cursors.span_goes(seg);
        // SAFETY: the segment left its list, the tag of the span its tree, and the cursors have moved
        // on; none is ever in the tag of a span.
        unsafe {
            self.unlink(seg);
            self.unlink(tag);
        }
        self.size -= span.size;
        self.imported -= span.size;
        Some(span)
    }

    /// The same for the span that has an address.
    pub(crate) fn retire_at(&mut self, addr: usize) -> Option<Span> {
        let first = self.spans.containing(addr, addr)?.after.get()?;
        self.retire(first)
    }

    pub(crate) fn contains(&self, addr: usize, size: usize) -> bool {
        let Some(last) = size.checked_sub(1).and_then(|less| addr.checked_add(less)) else {
            return false;
        };
        self.spans.containing(addr, last).is_some()
    }

    /// Memory that is not needed any more, a piece at a time.
    pub(crate) fn surplus(&mut self) -> Option<Memory> {
        self.pool.surplus().or_else(|| self.table.surplus())
    }

    /// The address list's first segment.
    pub(crate) fn first(&self) -> Option<Seg> {
        self.first?.after.get()
    }

    /// All memory, a piece at a time: for the end of the arena.
    ///
    /// # Safety
    ///
    /// No other method but this one is called afterwards.
    pub(crate) unsafe fn dismantle(&mut self) -> Option<Memory> {
        // SAFETY: passed on to the caller.
        unsafe { self.table.dismantle().or_else(|| self.pool.dismantle()) }
    }
}
