//! Runs a program on a page supplier, and compares it with a model of the runs that are out.

use std::alloc::Layout;
use std::ptr::NonNull;

use uma_core::{PageError, PageRun, PageSupplier, Request};

use crate::caught::caught;
use crate::model::Ranges;
use crate::ops::pages::PageOp;
use crate::token;

/// When [`PageRig::check`] is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageMoment {
    /// A run was handed out, and is among those that are.
    Took {
        /// Where it begins.
        start: usize,
        /// What was asked for.
        layout: Layout,
    },
    /// A run was refused.
    Refused {
        /// What was asked for.
        layout: Layout,
        /// Why.
        error: PageError,
    },
    /// Anything else was done.
    Op,
}

/// Looks at the runs that are out, by address.
pub type PageCheck<'a> = &'a dyn Fn(PageMoment, &[(usize, Layout)]);

/// A page supplier under test. What is `None` it cannot do.
pub struct PageRig<'a> {
    /// The supplier.
    pub supplier: &'a dyn PageSupplier,
    /// Gives the memory behind part of a run back; it is zero afterwards.
    pub decommit: Option<&'a dyn Fn(NonNull<u8>, usize)>,
    /// Gives the memory behind everything that is free back.
    pub decommit_all: Option<&'a dyn Fn()>,
    /// Gives back all that is free.
    pub trim: Option<&'a dyn Fn()>,
    /// What this supplier promises beyond the contract.
    pub check: PageCheck<'a>,
}

/// A run that is out. Each page carries a token of its own, or is zero since it was decommitted.
struct Held {
    run: PageRun,
    tokens: Vec<Option<u64>>,
}

struct Runner<'a> {
    rig: &'a PageRig<'a>,
    page: usize,
    held: Vec<Held>,
    ranges: Ranges,
    taken: u64,
}

/// Runs `ops`, and then gives everything back.
///
/// # Panics
///
/// If the supplier does anything that it may not, with the operation that it did it in.
pub fn run_pages(ops: &[PageOp], rig: &PageRig<'_>) {
    let page = rig.supplier.page_size();
    let mut runner = Runner { rig, page, held: Vec::new(), ranges: Ranges::default(), taken: 0 };
    for (index, op) in ops.iter().enumerate() {
        if let Err(panic) = caught(|| runner.step(op)) {
            panic!("operation {index}, PageOp::{op:?}: {panic}");
        }
    }
    runner.verify();
    while !runner.held.is_empty() {
        runner.give(0);
    }
    runner.check(PageMoment::Op);
}

impl Runner<'_> {
    fn step(&mut self, op: &PageOp) {
        match *op {
            PageOp::Alloc { pages, align } => {
                let size = (1 + usize::from(pages) % 32) * self.page;
                let align = match align % 10 {
                    8 => 1,
                    9 => self.page / 2,
                    power => self.page << power,
                };
                let layout = Layout::from_size_align(size, align).expect("a small layout");
                return self.take(layout);
            }
            PageOp::AllocOdd { bytes } => {
                let bytes = usize::from(bytes) % (4 * self.page);
                if bytes == 0 || !bytes.is_multiple_of(self.page) {
                    let layout = Layout::from_size_align(bytes, 1).expect("a small layout");
                    let result = self.rig.supplier.alloc_pages(layout, Request::NOWAIT);
                    assert_eq!(result.map(|run| run.layout()), Err(PageError::BadSize));
                }
            }
            PageOp::Free { i } => self.give(usize::from(i)),
            PageOp::Decommit { i, from, pages } => self.decommit(i, from, pages),
            PageOp::DecommitAll => {
                self.rig.decommit_all.inspect(|all| all());
            }
            PageOp::Trim => {
                self.rig.trim.inspect(|trim| trim());
            }
            PageOp::Verify => self.verify(),
        }
        self.check(PageMoment::Op);
    }

    fn check(&self, moment: PageMoment) {
        let layout = |start: usize| {
            let held = self.held.iter().find(|held| held.run.base().addr().get() == start);
            held.map(|held| (start, held.run.layout()))
        };
        let runs: Vec<_> = self.ranges.starts().filter_map(layout).collect();
        (self.rig.check)(moment, &runs);
    }

    fn take(&mut self, layout: Layout) {
        let run = match self.rig.supplier.alloc_pages(layout, Request::NOWAIT) {
            Ok(run) => run,
            Err(error) => return self.check(PageMoment::Refused { layout, error }),
        };
        assert_eq!(run.layout(), layout, "a run has the layout that was asked for");
        let start = run.base().addr().get();
        assert!(start.is_multiple_of(layout.align()), "{start:#x} is not aligned for {layout:?}");
        self.ranges.insert(start, layout.size());
        if run.is_zeroed() {
            self.assert_zero(run.base(), layout.size());
        }
        let mut held = Held { run, tokens: Vec::new() };
        for index in 0..layout.size() / self.page {
            self.taken += 1;
            held.tokens.push(Some(self.taken));
            // SAFETY: the run is ours and has such a page.
            unsafe { token::stamp(held.run.base().add(index * self.page), self.page, self.taken) };
        }
        self.held.push(held);
        self.check(PageMoment::Took { start, layout });
    }

    fn give(&mut self, i: usize) {
        let Some(index) = i.checked_rem(self.held.len()) else { return };
        let held = self.held.swap_remove(index);
        self.look(&held);
        let run = held.run;
        self.ranges.remove(run.base().addr().get());
        // SAFETY: a run of this supplier, taken apart and put together as a keg does; it is given up here.
        unsafe {
            let run = PageRun::from_parts(run.base(), run.layout(), false, run.flag());
            self.rig.supplier.free_pages(run);
        }
    }

    fn decommit(&mut self, i: u8, from: u8, pages: u8) {
        let Some(decommit) = self.rig.decommit else { return };
        let Some(index) = usize::from(i).checked_rem(self.held.len()) else { return };
        let held = &mut self.held[index];
        let count = held.tokens.len();
        let from = usize::from(from) % count;
        let pages = usize::from(pages) % (count - from + 1);
        // SAFETY: the run has such a page.
        let at = unsafe { held.run.base().add(from * self.page) };
        decommit(at, pages * self.page);
        held.tokens[from..from + pages].fill(None);
        self.look(&self.held[index]);
    }

    fn verify(&self) {
        self.held.iter().for_each(|held| self.look(held));
    }

    fn look(&self, held: &Held) {
        for (index, &token) in held.tokens.iter().enumerate() {
            // SAFETY: the run is ours and has such a page.
            let at = unsafe { held.run.base().add(index * self.page) };
            let Some(token) = token else {
                self.assert_zero(at, self.page);
                continue;
            };
            // SAFETY: the page is ours and was stamped.
            let result = unsafe { token::verify(at, self.page, token) };
            assert_eq!(result, Ok(()), "offset at which page {index} of {:?} changed", held.run);
        }
    }

    fn assert_zero(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: the memory is ours, and whoever says that it is zero has initialised it.
        let bytes = unsafe { std::slice::from_raw_parts(at.as_ptr(), len) };
        let dirty = bytes.iter().position(|&byte| byte != 0);
        assert_eq!(dirty, None, "first byte that is not zero in memory said to be");
    }
}
