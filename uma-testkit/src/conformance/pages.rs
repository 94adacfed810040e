//! The suite for page suppliers.

use std::alloc::Layout;
use std::ptr::NonNull;

use uma_core::{PageError, PageRun, PageSupplier, Request};

use super::THREADS;
use super::extents::Extents;
use crate::sync::Mutex;
use crate::{Rng, token};

/// Bytes at either end of every page that carry the owner's token.
const STAMP: usize = 64;
const MIB: usize = 1 << 20;

/// Checks a page supplier, alone on one thread: sizes, alignments, refusals, that live runs do not
/// overlap and keep their contents, and that the zeroed flag is honest.
///
/// Beyond the first page the supplier may be exhausted at any time.
///
/// # Panics
///
/// If the supplier does not keep the contract of [`PageSupplier`].
pub fn page_supplier(supplier: &(impl PageSupplier + ?Sized)) {
    let pages = Pages::new(supplier);
    pages.size();
    pages.first_page();
    pages.refusals();
    pages.shapes();
    pages.together();
    pages.recycling();
    for seed in 1..=3 {
        pages.interleaving(&mut Rng::new(seed), 3000, None);
    }
}

/// Checks a page supplier that several threads use at once, with runs freed on other threads than
/// they were taken on.
///
/// # Panics
///
/// If the supplier does not keep the contract of [`PageSupplier`].
pub fn page_supplier_threads(supplier: &(impl PageSupplier + Sync + ?Sized)) {
    let pages = Pages::new(supplier);
    let shared = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            let (pages, shared) = (&pages, &shared);
            scope.spawn(move || {
                pages.interleaving(&mut Rng::new(100 + seed), 2000, Some(shared));
            });
        }
    });
    shared.into_inner().into_iter().for_each(|held| pages.give(held));
    pages.first_page();
}

/// Checks that a supplier that has an end comes back from it: after all pages were taken one by one
/// and given back in any order there are as many again, in as long runs as before.
///
/// # Panics
///
/// If the supplier does not keep the contract of [`PageSupplier`], or has more than 65,536 pages.
pub fn page_supplier_exhaustion(supplier: &(impl PageSupplier + ?Sized)) {
    let pages = Pages::new(supplier);
    let mut rng = Rng::new(7);
    let mut held = pages.drain();
    let total = held.len();
    assert!(total > 0, "the supplier has no page at all");
    held.drain(..).for_each(|run| pages.give(run));
    let longest = pages.longest(total);

    for round in 0..3 {
        let mut held = pages.drain();
        assert_eq!(held.len(), total, "pages that can be had in round {round}");
        // Every second one by address: as many single pages must be had again.
        held.sort_by_key(|held| held.run.base());
        let mut index = 0_usize;
        let (kept, out): (Vec<_>, Vec<_>) = held.into_iter().partition(|_| {
            index += 1;
            index.is_multiple_of(2)
        });
        let freed = out.len();
        out.into_iter().for_each(|run| pages.give(run));
        let mut again = pages.drain();
        assert_eq!(again.len(), freed, "pages that can be had with every second one in use");
        again.extend(kept);
        while !again.is_empty() {
            let index = rng.below(again.len());
            pages.give(again.swap_remove(index));
        }
        assert_eq!(pages.longest(total), longest, "pages in the longest run, after fragmentation");
    }
}

/// A run that is out, and the token that its pages carry.
struct Held {
    run: PageRun,
    token: u64,
}

struct Pages<'a, P: ?Sized> {
    supplier: &'a P,
    page: usize,
    extents: Extents,
}

impl<'a, P: PageSupplier + ?Sized> Pages<'a, P> {
    fn new(supplier: &'a P) -> Self {
        Self { supplier, page: supplier.page_size(), extents: Extents::default() }
    }

    fn layout(&self, pages: usize, align: usize) -> Layout {
        Layout::from_size_align(pages * self.page, align).expect("a layout that the suite asks for")
    }

    /// Takes a run, checks it, and stamps it.
    fn take(&self, layout: Layout, token: u64) -> Result<Held, PageError> {
        let run = match self.supplier.alloc_pages(layout, Request::NOWAIT) {
            Ok(run) => run,
            Err(error) => {
                match error {
                    PageError::Exhausted | PageError::System(_) => {}
                    PageError::BadAlign => {
                        assert!(layout.align() > self.page, "BadAlign for {layout:?}");
                    }
                    _ => panic!("{error:?} for {layout:?}, which is a whole number of pages"),
                }
                return Err(error);
            }
        };
        assert_eq!(run.layout(), layout, "a run has the layout that was asked for");
        let start = run.base().addr().get();
        assert!(start.is_multiple_of(layout.align()), "{start:#x} is not aligned for {layout:?}");
        self.extents.insert("run", start, layout.size());
        if run.is_zeroed() {
            // SAFETY: the run is ours; a supplier that says zeroed has initialised it.
            let bytes = unsafe { std::slice::from_raw_parts(run.base().as_ptr(), layout.size()) };
            // In pieces, since comparing slices is fast also without optimisation.
            let dirty = bytes.chunks(64).position(|piece| *piece != [0; 64][..piece.len()]);
            assert_eq!(dirty, None, "64-byte piece that is not zero in a run flagged as zeroed");
        }
        let held = Held { run, token };
        for (at, len, token) in self.stamps(&held) {
            // SAFETY: the run is ours, and this lies inside of it.
            unsafe { token::stamp(at, len, token) };
        }
        Ok(held)
    }

    /// Where a run carries tokens, and which.
    fn stamps(&self, held: &Held) -> impl Iterator<Item = (NonNull<u8>, usize, u64)> {
        let (base, token, page) = (held.run.base(), held.token, self.page);
        let len = STAMP.min(page / 2);
        (0..held.run.layout().size()).step_by(page).flat_map(move |offset| {
            // SAFETY: these offsets lie inside the run.
            let (head, tail) = unsafe { (base.add(offset), base.add(offset + page - len)) };
            let token = token.wrapping_add(offset as u64);
            [(head, len, token), (tail, len, !token)]
        })
    }

    #[track_caller]
    fn verify(&self, held: &Held) {
        for (at, len, token) in self.stamps(held) {
            // SAFETY: the run is ours, this lies inside of it and was stamped.
            let result = unsafe { token::verify(at, len, token) };
            assert_eq!(
                result,
                Ok(()),
                "contents of a live run changed at {at:?} of {:?}",
                held.run
            );
        }
    }

    /// Verifies a run and gives it back as a keg does, put together from parts.
    #[track_caller]
    fn give(&self, held: Held) {
        self.verify(&held);
        let run = held.run;
        self.extents.remove(run.base().addr().get());
        // SAFETY: a run of this supplier, taken apart and put together; it is given up here.
        unsafe {
            let run = PageRun::from_parts(run.base(), run.layout(), false, run.flag());
            self.supplier.free_pages(run);
        }
    }

    fn size(&self) {
        assert!(self.page.is_power_of_two(), "a page of {} bytes", self.page);
        assert_eq!(self.supplier.page_size(), self.page, "the page size is always the same");
    }

    fn first_page(&self) {
        for align in [1, self.page] {
            let held = self.take(self.layout(1, align), 1);
            self.give(held.expect("a supplier at rest has a page to give"));
        }
    }

    fn refusals(&self) {
        for size in [0, 1, self.page / 2, self.page - 1, self.page + 1, self.page * 3 / 2] {
            if size != 0 && size.is_multiple_of(self.page) {
                continue;
            }
            for align in [1, self.page, self.page * 2] {
                let layout = Layout::from_size_align(size, align).expect("a valid layout");
                let result = self.supplier.alloc_pages(layout, Request::NOWAIT);
                assert_eq!(
                    result.map(|run| run.layout()),
                    Err(PageError::BadSize),
                    "for {size} bytes with pages of {}",
                    self.page
                );
            }
        }
    }

    /// Every size at every alignment, one at a time, twice to see memory that was used before.
    fn shapes(&self) {
        let aligns: Vec<usize> = std::iter::successors(Some(self.page), |align| Some(align * 2))
            .take_while(|&align| align <= 2 * MIB)
            .chain([1, 64])
            .collect();
        for pages in [1, 2, 3, 4, 5, 8, 16, 17, 64, 100, 512] {
            for &align in &aligns {
                for _ in 0..2 {
                    let held = self.take(self.layout(pages, align), align as u64);
                    held.into_iter().for_each(|held| self.give(held));
                }
            }
        }
    }

    /// Many runs at once, given back in another order.
    fn together(&self) {
        let mut rng = Rng::new(11);
        let mut held = Vec::new();
        for index in 0..200 {
            let align = self.page << rng.below(5);
            held.extend(self.take(self.layout(1 + rng.below(12), align), index));
            if rng.one_in(16) {
                held.iter().for_each(|held| self.verify(held));
            }
        }
        assert!(!held.is_empty(), "none of 200 small runs could be had");
        while !held.is_empty() {
            let index = rng.below(held.len());
            self.give(held.swap_remove(index));
        }
    }

    /// What can be had once can be had any number of times.
    fn recycling(&self) {
        for pages in [1, 4, 16] {
            let layout = self.layout(pages, self.page);
            let Ok(first) = self.take(layout, 1) else { continue };
            self.give(first);
            for round in 0..2000 {
                let held = self.take(layout, round);
                self.give(held.unwrap_or_else(|error| {
                    panic!("{error:?} for {layout:?} after {round} times of taking and freeing it")
                }));
            }
        }
    }

    /// Takes and gives at random. What is in `shared` is anybody's to give back.
    fn interleaving(&self, rng: &mut Rng, steps: usize, shared: Option<&Mutex<Vec<Held>>>) {
        let mut held = Vec::new();
        let mut bytes = 0;
        for _ in 0..steps {
            if rng.below(100) < 55 && bytes < 16 * MIB {
                let pages = if rng.one_in(20) { 1 + rng.below(256) } else { 1 + rng.below(16) };
                let align = self.page << rng.pick(&[0, 0, 0, 1, 2, 4]);
                match self.take(self.layout(pages, align), rng.bits()) {
                    Ok(new) => {
                        bytes += new.run.layout().size();
                        held.push(new);
                    }
                    Err(error) => assert!(
                        pages > 1 || align > self.page || !held.is_empty() || shared.is_some(),
                        "{error:?} for one page of a supplier at rest"
                    ),
                }
            } else if !held.is_empty() {
                let index = rng.below(held.len());
                let old: Held = held.swap_remove(index);
                bytes -= old.run.layout().size();
                match shared {
                    Some(shared) if rng.one_in(2) => shared.lock().push(old),
                    _ => self.give(old),
                }
            }
            if let Some(shared) = shared
                && rng.one_in(3)
            {
                let taken = shared.lock().pop();
                taken.into_iter().for_each(|held| self.give(held));
            }
            if rng.one_in(200) {
                held.iter().for_each(|held| self.verify(held));
            }
        }
        held.into_iter().for_each(|held| self.give(held));
    }

    /// All single pages that there are.
    fn drain(&self) -> Vec<Held> {
        let mut held = Vec::new();
        while let Ok(run) = self.take(self.layout(1, self.page), held.len() as u64) {
            held.push(run);
            assert!(held.len() <= 1 << 16, "the supplier has no end");
        }
        held
    }

    /// Pages in the longest run that can be had of `total` that are free.
    fn longest(&self, total: usize) -> usize {
        let fits = |&pages: &usize| {
            let held = self.take(self.layout(pages, self.page), 0);
            held.map(|held| self.give(held)).is_ok()
        };
        (1..=total).rev().find(fits).unwrap_or(0)
    }
}
