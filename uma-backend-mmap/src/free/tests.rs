//! Everything against an array of pages.

use std::ops::Range;

use super::*;

/// All pages are the system's huge ones: who touches one gets all the others of the block, which are resident
/// then, though they read as zero.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Page {
    Used,
    Clean,
    CleanResident,
    Dirty,
}

/// Takes pages for a run.
fn carve(books: &mut Books, model: &mut [Page], range: Range<usize>) -> usize {
    let dirty = books.map().take(range.clone());
    books.map().touch(range.clone());
    model[range.clone()].fill(Page::Used);
    let end = range.end.next_multiple_of(BLOCK).min(model.len());
    for page in &mut model[range.start / BLOCK * BLOCK..end] {
        if *page == Page::Clean {
            *page = Page::CleanResident;
        }
    }
    dirty
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

/// The memory that a map needs.
struct Books {
    used: Vec<u64>,
    dirty: Vec<u64>,
    blocks: Vec<Block>,
    groups: Vec<Group>,
    sums: Sums,
    /// The block that a sweep is in.
    swept: Option<usize>,
}

impl Books {
    fn new(pages: usize) -> Self {
        let Room { words, blocks, groups } = room_for(pages);
        let mut books = Self {
            used: vec![0; words],
            dirty: vec![0; words],
            blocks: vec![Block::FREE; blocks],
            groups: vec![Group { head: 0, longest: 0, tail: 0 }; groups],
            sums: Sums { pages, ..Sums::default() },
            swept: None,
        };
        books.map().begin();
        books
    }

    fn map(&mut self) -> PageMap<'_> {
        let Self { used, dirty, blocks, groups, sums, .. } = self;
        PageMap { used, dirty, blocks, groups, sums }
    }

    /// Bits, summaries and sums against a model.
    fn check(&self, model: &[Page]) {
        for at in 0..self.used.len() * 64 {
            let page = model.get(at).copied().unwrap_or(Page::Used);
            assert_eq!(is_set(&self.used, at), page == Page::Used, "page {at} used");
            assert_eq!(is_set(&self.dirty, at), page == Page::Dirty, "page {at} dirty");
        }
        let count = |wanted| model.iter().filter(|&&page| page == wanted).count();
        for (at, page) in model.iter().enumerate() {
            let touched = self.blocks[at / BLOCK].touched || self.swept == Some(at / BLOCK);
            assert!(
                touched || *page != Page::CleanResident,
                "page {at} is resident, and forgotten"
            );
        }
        let touched = self.blocks.iter().filter(|block| block.touched);
        assert_eq!(self.sums.touched, touched.count());
        assert_eq!(self.sums.used, count(Page::Used));
        assert_eq!(self.sums.dirty, count(Page::Dirty));
        let extent = |pages: Range<usize>| {
            let pages = pages.map(|at| model.get(at).copied().unwrap_or(Page::Used));
            let pages: Vec<Page> = pages.collect();
            let head = pages.iter().take_while(|&&page| page != Page::Used).count();
            let tail = pages.iter().rev().take_while(|&&page| page != Page::Used).count();
            let longest = pages.split(|&page| page == Page::Used).map(<[Page]>::len).max();
            let dirty = pages.iter().filter(|&&page| page == Page::Dirty).count();
            [head, longest.unwrap_or(0), tail, dirty]
        };
        for (index, block) in self.blocks.iter().enumerate() {
            let counted = [block.head, block.longest, block.tail, block.dirty].map(usize::from);
            assert_eq!(counted, extent(index * BLOCK..(index + 1) * BLOCK), "block {index}");
        }
        let end = self.used.len() * 64;
        for (index, group) in self.groups.iter().enumerate() {
            let counted = [group.head, group.longest, group.tail].map(|n| n as usize);
            let [head, longest, tail, _] =
                extent(index * GROUP_PAGES..end.min((index + 1) * GROUP_PAGES));
            assert_eq!(counted, [head, longest, tail], "group {index}");
        }
    }
}

/// The lowest place by the model.
fn lowest(model: &[Page], size: usize, align: usize, phase: usize) -> Option<usize> {
    (phase..(model.len() + 1).saturating_sub(size))
        .step_by(align)
        .find(|&at| model[at..at + size].iter().all(|&page| page != Page::Used))
}

/// What a piece must be, whatever the choice; and takes it out.
fn take_piece(books: &mut Books, model: &mut [Page], piece: &Piece, before: usize) {
    let pages = &mut model[piece.pages.clone()];
    assert!(piece.next < before && piece.next <= piece.pages.start);
    assert!(!pages.contains(&Page::Used));
    assert_eq!(piece.dirty, pages.iter().filter(|&&page| page == Page::Dirty).count());
    assert_eq!(books.map().take(piece.pages.clone()), piece.dirty);
    pages.fill(Page::Used);
    books.check(model);
}

/// Whether a piece begins and ends with dirty pages, or with blocks.
fn is_tight(model: &[Page], Range { start, end }: Range<usize>) -> bool {
    (start.is_multiple_of(BLOCK) || model[start] == Page::Dirty)
        && (end.is_multiple_of(BLOCK) || model[end - 1] == Page::Dirty)
}

fn all_kinds_of_calls(pages: usize, calls: usize) {
    let seed = pages as u64 + 1;
    let mut random = Random(seed);
    let mut books = Books::new(pages);
    let mut model = vec![Page::Clean; pages];
    let mut held: Vec<Range<usize>> = Vec::new();
    let large = pages / 4;
    for _ in 0..calls {
        match random.below(21) {
            0..9 => {
                let most = [4, 70, large.max(1)][random.below(3)];
                let size = 1 + random.below(most);
                let align = 1 << random.below(8);
                let phase = random.below(align);
                let found = books.map().find(size, align, phase);
                let longest = model.split(|&page| page == Page::Used).map(<[Page]>::len).max();
                assert_eq!(Some(books.map().longest()), longest);
                assert_eq!(found, lowest(&model, size, align, phase), "{size} pages, {align}");
                let Some(at) = found else { continue };
                let range = at..at + size;
                let dirty = model[range.clone()].iter().filter(|&&page| page == Page::Dirty);
                let dirty = dirty.count();
                assert_eq!(carve(&mut books, &mut model, range.clone()), dirty);
                held.push(range);
            }
            9..17 if !held.is_empty() => {
                let range = held.swap_remove(random.below(held.len()));
                // If not dirty, it was decommitted by whoever had it.
                let dirty = random.below(4) > 0;
                model[range.clone()].fill(if dirty { Page::Dirty } else { Page::Clean });
                books.map().give(range.clone(), dirty);
                let free = |page: &&Page| **page != Page::Used;
                let before = model[..range.start].iter().rev().take_while(free).count();
                let after = model[range.end..].iter().take_while(free).count();
                let length = before + range.len() + after;
                let limit = random.below(2 * length);
                assert_eq!(books.map().exceeds(&range, limit), length > limit);
            }
            17 => {
                let (mut before, excess) = (usize::MAX, 1 + random.below(600));
                let mut found = Vec::new();
                while let Some(piece) = books.map().dirty_blocks(before, excess) {
                    assert!(is_tight(&model, piece.pages.clone()));
                    take_piece(&mut books, &mut model, &piece, before);
                    before = piece.next;
                    found.push(piece);
                }
                for block in model.chunks_exact(BLOCK) {
                    let free = !block.contains(&Page::Used);
                    assert!(!free || !block.contains(&Page::Dirty), "a whole block was left");
                }
                give_back(&mut books, &mut model, found, &mut random);
            }
            18 => {
                let least = [1, 8, 64][random.below(3)];
                let (mut before, excess) = (usize::MAX, least + random.below(300));
                let mut found = Vec::new();
                while let Some(piece) = books.map().dirty_piece(before, least, excess) {
                    assert!((least..=excess).contains(&piece.dirty));
                    assert_eq!(piece.pages.start / BLOCK, (piece.pages.end - 1) / BLOCK);
                    assert_eq!(model[piece.pages.start], Page::Dirty);
                    assert_eq!(model[piece.pages.end - 1], Page::Dirty);
                    take_piece(&mut books, &mut model, &piece, before);
                    before = piece.next;
                    found.push(piece);
                }
                assert!(least > 1 || !model.contains(&Page::Dirty), "a dirty page was left");
                give_back(&mut books, &mut model, found, &mut random);
            }
            19 => {
                let (mut before, mut open) = (usize::MAX, false);
                let mut found = Vec::new();
                while let Some(piece) = books.map().resident_piece(before, &mut open) {
                    assert!(open || is_tight(&model, piece.pages.clone()));
                    books.swept = Some(piece.pages.start / BLOCK);
                    take_piece(&mut books, &mut model, &piece, before);
                    before = piece.next;
                    found.push(piece);
                    // Some go back before all are found.
                    if random.below(4) == 0 {
                        give_back(&mut books, &mut model, std::mem::take(&mut found), &mut random);
                    }
                }
                books.swept = None;
                let is_left = |page: &Page| *page == Page::CleanResident;
                assert!(!model.iter().any(is_left), "a resident page was left");
                give_back(&mut books, &mut model, found, &mut random);
            }
            _ => {}
        }
        books.check(&model);
    }
}

/// Decommitted, or refused: then all of a piece is dirty.
fn give_back(books: &mut Books, model: &mut [Page], pieces: Vec<Piece>, random: &mut Random) {
    for piece in pieces {
        let refused = random.below(4) == 0;
        model[piece.pages.clone()].fill(if refused { Page::Dirty } else { Page::Clean });
        books.map().give(piece.pages, refused);
    }
}

#[test]
fn against_a_plain_array() {
    // Less than a block, blocks, and groups and a bit.
    for (pages, calls) in [(1, 500), (63, 500), (64, 500), (300, 1500), (1024, 1500), (1900, 1500)]
    {
        all_kinds_of_calls(pages, calls);
    }
    all_kinds_of_calls(2 * GROUP_PAGES + 1000, 200);
}

#[test]
fn decommits_whole_blocks_then_large_pieces_from_the_end() {
    let mut books = Books::new(4 * BLOCK);
    let mut give = |range: Range<usize>| {
        books.map().take(range.clone());
        books.map().give(range, true);
    };
    give(BLOCK..3 * BLOCK);
    give(3 * BLOCK + 100..3 * BLOCK + 164);
    books.map().take(0..1);
    books.map().take(4 * BLOCK - 1..4 * BLOCK);

    let piece = |pages, dirty, next| Some(Piece { pages, dirty, next });
    let mut map = books.map();
    assert_eq!(map.dirty_blocks(usize::MAX, 1), piece(2 * BLOCK..3 * BLOCK, BLOCK, 2 * BLOCK));
    assert_eq!(map.dirty_blocks(2 * BLOCK, 1), piece(BLOCK..2 * BLOCK, BLOCK, BLOCK));
    assert_eq!(map.dirty_blocks(BLOCK, 1), None);
    let all = BLOCK..3 * BLOCK + 164;
    assert_eq!(map.dirty_blocks(usize::MAX, 2000), piece(all, 2 * BLOCK + 64, BLOCK));

    let tail = 3 * BLOCK + 154..3 * BLOCK + 164;
    assert_eq!(map.dirty_piece(usize::MAX, 8, 10), piece(tail, 10, 3 * BLOCK + 154));
    assert_eq!(
        map.dirty_piece(3 * BLOCK + 154, 64, 64),
        piece(2 * BLOCK + 448..3 * BLOCK, 64, 2 * BLOCK + 448)
    );
}

#[test]
fn an_alignment_that_the_near_pieces_miss() {
    let mut books = Books::new(1000);
    books.map().take(0..1000);
    for at in 0..20 {
        books.map().give(at * 32 + 1..at * 32 + 18, false);
    }
    assert_eq!(books.map().find(16, 16, 0), None);
    assert_eq!(books.map().find(16, 16, 1), Some(1));
    books.map().give(20 * 32..20 * 32 + 18, false);
    assert_eq!(books.map().find(16, 16, 0), Some(20 * 32));
}
