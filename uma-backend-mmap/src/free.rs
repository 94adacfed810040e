//! Which memory is free, and which of it is dirty. Addresses only: it knows no pointers.
//!
//! ```text
//!   spans   start -> length       as much free memory as there is in one piece of one chunk
//!   sizes   (length, start)       the same, in the order of best fit and lowest address
//!   dirty   start -> length       the parts of spans that may not read as zero
//! ```
//!
//! # Invariants
//!
//! - Two spans touch only where one chunk ends and another begins; so do two dirty ranges, or where
//!   they were cut apart.
//! - Each dirty range lies inside one span.
//!
//! Operations are logarithmic in the number of spans, but for an alignment above the page size where
//! many spans have the wrong phase, and but for `take_dirty`, which looks at every dirty range. This is the one part of the crate that allocates, and stands
//! behind this small face so that another can take its place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Spans that are tried for a better fit before one is taken that is surely large enough.
const TRIES: usize = 8;

/// Memory that was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) start: usize,
    /// Whether all of it reads as zero.
    pub(crate) clean: bool,
}

#[derive(Debug)]
pub(crate) struct FreeMap {
    spans: BTreeMap<usize, usize>,
    sizes: BTreeSet<(usize, usize)>,
    dirty: BTreeMap<usize, usize>,
    free_bytes: usize,
    dirty_bytes: usize,
}

impl FreeMap {
    pub(crate) const fn new() -> Self {
        Self {
            spans: BTreeMap::new(),
            sizes: BTreeSet::new(),
            dirty: BTreeMap::new(),
            free_bytes: 0,
            dirty_bytes: 0,
        }
    }

    /// Free bytes, dirty ones included.
    pub(crate) fn free_bytes(&self) -> usize {
        self.free_bytes
    }

    /// Free bytes that may not read as zero.
    pub(crate) fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Takes `size` bytes aligned to `align`: from the smallest span that will do, or nearly, and
    /// among those of one size from the lowest. All addresses are multiples of `page`.
    pub(crate) fn take(&mut self, size: usize, align: usize, page: usize) -> Option<Taken> {
        let (span, start) = self.fit(size, align, page)?;
        self.cut(span, start, size);
        let clean = !self.scrub(start..start + size);
        Some(Taken { start, clean })
    }

    /// Makes `range` free. It lies inside the chunk of the addresses `chunk`.
    pub(crate) fn give(&mut self, range: Range<usize>, dirty: bool, chunk: &Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.free_bytes += range.len();
        if dirty {
            self.dirty_bytes += range.len();
            let joined = join(&mut self.dirty, &range, chunk, |_| ());
            self.dirty.insert(joined.start, joined.len());
        }
        let sizes = &mut self.sizes;
        let joined = join(&mut self.spans, &range, chunk, |gone| {
            sizes.remove(&gone);
        });
        self.insert(joined.start, joined.len());
    }

    /// Takes dirty memory out until at most `keep` bytes of it are left, from the spans that have
    /// most of it, so that few pieces come out. A piece may have clean memory in its middle. `keep`
    /// is whole pages.
    pub(crate) fn take_dirty(&mut self, keep: usize) -> Vec<Range<usize>> {
        if self.dirty_bytes <= keep {
            return Vec::new();
        }
        let mut pieces = self.dirty_pieces();
        pieces.sort_unstable_by_key(|piece| std::cmp::Reverse(piece.0));
        let mut taken = Vec::new();
        for (bytes, mut range) in pieces {
            let excess = self.dirty_bytes.saturating_sub(keep);
            if excess == 0 {
                break;
            }
            if bytes > excess {
                range.start = self.dirty_tail(&range, excess);
            }
            self.remove(range.clone());
            taken.push(range);
        }
        taken
    }

    /// Whether the whole range is free, in one span.
    pub(crate) fn is_span(&self, range: &Range<usize>) -> bool {
        self.spans.get(&range.start) == Some(&range.len())
    }

    /// Takes out a range of one span.
    pub(crate) fn remove(&mut self, range: Range<usize>) {
        let span = self.spans.range(..=range.start).next_back().map(|(&start, &len)| (len, start));
        if let Some(span) = span {
            self.cut(span, range.start, range.len());
            self.scrub(range);
        }
    }

    /// Where to cut `range`, so that the end of it has `bytes` that are dirty. Low addresses are used
    /// again first, so they stay.
    fn dirty_tail(&self, range: &Range<usize>, mut bytes: usize) -> usize {
        for (&start, &len) in self.dirty.range(range.clone()).rev() {
            if len >= bytes {
                return start + len - bytes;
            }
            bytes -= len;
        }
        range.start
    }

    /// The dirty memory of each span: how much, and from where to where.
    fn dirty_pieces(&self) -> Vec<(usize, Range<usize>)> {
        let mut pieces: Vec<(usize, Range<usize>)> = Vec::new();
        let mut span_end = 0;
        for (&start, &len) in &self.dirty {
            match pieces.last_mut() {
                Some((bytes, piece)) if start < span_end => {
                    *bytes += len;
                    piece.end = start + len;
                }
                _ => {
                    let span = self.spans.range(..=start).next_back();
                    span_end = span.map_or(start + len, |(&at, &len)| at + len);
                    pieces.push((len, start..start + len));
                }
            }
        }
        pieces
    }

    /// A span (length, start) and the address inside of it.
    fn fit(&self, size: usize, align: usize, page: usize) -> Option<((usize, usize), usize)> {
        let place = |&(len, start): &(usize, usize)| {
            let at = start.checked_next_multiple_of(align)?;
            (at - start <= len - size).then_some(((len, start), at))
        };
        let enough = size.checked_add(align - page)?;
        let mut near = self.sizes.range((size, 0)..);
        near.by_ref()
            .take(TRIES)
            .find_map(place)
            .or_else(|| self.sizes.range((enough, 0)..).next().and_then(place))
            .or_else(|| near.find_map(place))
    }

    /// Takes `size` bytes at `at` out of a span, which is given as (length, start).
    fn cut(&mut self, span: (usize, usize), at: usize, size: usize) {
        let (len, start) = span;
        self.sizes.remove(&span);
        self.free_bytes -= size;
        let tail = start + len - (at + size);
        if at > start {
            // The head keeps its key.
            self.insert(start, at - start);
        } else {
            self.spans.remove(&start);
        }
        if tail > 0 {
            self.insert(at + size, tail);
        }
    }

    fn insert(&mut self, start: usize, len: usize) {
        self.spans.insert(start, len);
        self.sizes.insert((len, start));
    }

    /// Removes the dirty marks from a range and says whether there were any.
    fn scrub(&mut self, range: Range<usize>) -> bool {
        let mut found = false;
        while let Some((&start, &len)) = self.dirty.range(..range.end).next_back() {
            let end = start + len;
            if end <= range.start {
                break;
            }
            found = true;
            if start < range.start {
                self.dirty.insert(start, range.start - start);
            } else {
                self.dirty.remove(&start);
            }
            if end > range.end {
                self.dirty.insert(range.end, end - range.end);
            }
            self.dirty_bytes -= end.min(range.end) - start.max(range.start);
        }
        found
    }
}

/// Takes the neighbours of `range` out of `map` if they touch it inside of `chunk`, calls `gone` with
/// (length, start) of each, and returns them joined.
fn join(
    map: &mut BTreeMap<usize, usize>,
    range: &Range<usize>,
    chunk: &Range<usize>,
    mut gone: impl FnMut((usize, usize)),
) -> Range<usize> {
    let Range { mut start, mut end } = *range;
    if start > chunk.start
        && let Some((&at, &len)) = map.range(..start).next_back()
        && at + len == start
    {
        map.remove(&at);
        gone((len, at));
        start = at;
    }
    if end < chunk.end
        && let Some(len) = map.remove(&end)
    {
        gone((len, end));
        end += len;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: usize = 200;
    /// Two chunks that touch.
    const CHUNKS: [Range<usize>; 2] = [1000..1080, 1080..1200];

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Page {
        Used,
        Clean,
        Dirty,
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 16) as usize % bound
        }
    }

    fn chunk_of(at: usize) -> &'static Range<usize> {
        if CHUNKS[0].contains(&at) { &CHUNKS[0] } else { &CHUNKS[1] }
    }

    /// Lengths and starts of the free spans by the model.
    fn spans(model: &[Page]) -> BTreeSet<(usize, usize)> {
        let mut spans = BTreeSet::new();
        for chunk in &CHUNKS {
            let mut at = chunk.start;
            while at < chunk.end {
                let free = (at..chunk.end).take_while(|&p| model[p - 1000] != Page::Used).count();
                if free > 0 {
                    spans.insert((free, at));
                }
                at += free + 1;
            }
        }
        spans
    }

    fn check(map: &FreeMap, model: &[Page]) {
        let expected = spans(model);
        assert_eq!(map.sizes, expected);
        assert!(map.spans.iter().map(|(&start, &len)| (len, start)).eq({
            let mut by_start: Vec<_> = expected.iter().copied().collect();
            by_start.sort_by_key(|span| span.1);
            by_start
        }));
        let mut dirty = vec![false; PAGES];
        for (&start, &len) in &map.dirty {
            assert!(len > 0);
            for page in start..start + len {
                assert!(!std::mem::replace(&mut dirty[page - 1000], true), "dirty twice");
            }
        }
        let modelled: Vec<bool> = model.iter().map(|&page| page == Page::Dirty).collect();
        assert_eq!(dirty, modelled);
        assert_eq!(map.dirty_bytes, modelled.iter().filter(|&&dirty| dirty).count());
        assert_eq!(map.free_bytes, model.iter().filter(|&&page| page != Page::Used).count());
    }

    /// Everything against an array of pages. Pages are one byte long here.
    #[test]
    fn against_a_plain_array() {
        let mut random = Random(0x1234_5678_9abc_def1);
        let mut map = FreeMap::new();
        let mut model = vec![Page::Clean; PAGES];
        CHUNKS.iter().for_each(|chunk| map.give(chunk.clone(), false, chunk));
        let mut held: Vec<Range<usize>> = Vec::new();
        for _ in 0..30_000 {
            match random.below(20) {
                0..9 => {
                    let (size, align) = (1 + random.below(20), 1 << random.below(5));
                    let fits = |&(len, start): &(usize, usize)| {
                        start.next_multiple_of(align) + size <= start + len
                    };
                    let best = spans(&model).into_iter().find(fits);
                    let taken = map.take(size, align, 1);
                    assert_eq!(taken.is_some(), best.is_some());
                    let Some(Taken { start, clean }) = taken else { continue };
                    assert!(start.is_multiple_of(align));
                    if align == 1 {
                        assert_eq!(Some(start), best.map(|span| span.1), "not the best fit");
                    }
                    let pages = &mut model[start - 1000..start - 1000 + size];
                    assert!(!pages.contains(&Page::Used));
                    assert_eq!(clean, !pages.contains(&Page::Dirty));
                    pages.fill(Page::Used);
                    held.push(start..start + size);
                }
                9..18 if !held.is_empty() => {
                    let range = held.swap_remove(random.below(held.len()));
                    let dirty = random.below(4) > 0;
                    model[range.start - 1000..range.end - 1000].fill(if dirty {
                        Page::Dirty
                    } else {
                        Page::Clean
                    });
                    map.give(range.clone(), dirty, chunk_of(range.start));
                }
                18 => {
                    let keep = random.below(40);
                    let pieces = map.take_dirty(keep);
                    assert!(map.dirty_bytes <= keep);
                    for piece in &pieces {
                        let pages = &mut model[piece.start - 1000..piece.end - 1000];
                        assert_eq!(pages.first(), Some(&Page::Dirty));
                        assert_eq!(pages.last(), Some(&Page::Dirty));
                        assert!(!pages.contains(&Page::Used));
                        pages.fill(Page::Used);
                    }
                    check(&map, &model);
                    for piece in pieces {
                        model[piece.start - 1000..piece.end - 1000].fill(Page::Clean);
                        map.give(piece.clone(), false, chunk_of(piece.start));
                    }
                }
                _ => {
                    for chunk in &CHUNKS {
                        let pages = &model[chunk.start - 1000..chunk.end - 1000];
                        assert_eq!(map.is_span(chunk), !pages.contains(&Page::Used));
                    }
                }
            }
            check(&map, &model);
        }
    }

    #[test]
    fn decommits_the_largest_pieces_first() {
        let chunk = 0..1000;
        let mut map = FreeMap::new();
        for range in [10..20, 100..200, 300..305] {
            map.give(range, true, &chunk);
        }
        let mut take = |keep| {
            let pieces = map.take_dirty(keep).into_iter();
            pieces.map(|piece| (piece.start, piece.end)).collect::<Vec<_>>()
        };
        assert_eq!(take(100), [(185, 200)], "the end of it will do");
        assert_eq!(take(15), [(100, 185)]);
        assert_eq!(take(15), []);
        assert_eq!(take(0), [(10, 20), (300, 305)]);

        map.give(200..300, false, &chunk);
        map.give(10..20, true, &chunk);
        map.give(300..320, true, &chunk);
        map.give(180..200, true, &chunk);
        let mut keep = |bytes| map.take_dirty(bytes).remove(0);
        assert_eq!(keep(25), 195..320, "a gap in the dirty memory goes with it");
        assert_eq!(keep(10), 180..195);
    }

    #[test]
    fn an_alignment_that_the_near_spans_miss() {
        let chunk = 0..100_000;
        let mut map = FreeMap::new();
        for at in 0..50 {
            map.give(at * 32 + 1..at * 32 + 18, false, &chunk);
        }
        assert_eq!(map.take(16, 16, 1), None);
        map.give(50 * 32..50 * 32 + 18, false, &chunk);
        assert_eq!(map.take(16, 16, 1).map(|taken| taken.start), Some(50 * 32));
        map.give(9001..9040, false, &chunk);
        assert_eq!(map.take(16, 16, 1).map(|taken| taken.start), Some(9008));
    }
}
