//! Page suppliers: a region that has an end, and the system in tiny chunks.

use std::alloc::Layout;
use std::ptr::NonNull;

use uma_backend_mmap::{Config as MmapConfig, HugePages, MmapPages};
use uma_backend_static::StaticPages;
use uma_core::{PageError, PageSupplier};
use uma_testkit::machine::{self, OneThread};
use uma_testkit::ops::Program;
use uma_testkit::ops::pages::{PageConfig, PageProgram};
use uma_testkit::{PageMoment, PageRig, run_pages};

use super::keg::keg_on;

/// Runs a program on a supplier over a small region, at any alignment, which is held to what it
/// documents: the lowest run that fits is taken, and none is refused that there is. Then, on the same
/// region, a keg.
pub fn static_exhaustion(program: &PageProgram, keg: &Program) {
    match program.config.page % 3 {
        0 => on_region::<64>(program),
        1 => on_region::<256>(program),
        _ => on_region::<4096>(program),
    }
    // A keg takes pages of its own size or less.
    let memory = Region::new(&program.config, 256);
    // SAFETY: as in `on_region`.
    let pages = unsafe { StaticPages::<OneThread, 256>::from_raw(memory.base, memory.len) };
    keg_on(keg, &pages, None, &|_, stats| {
        let now = pages.stats();
        assert_eq!(((now.total - now.free) * 256) as u64, stats.bytes, "bytes of pages");
    });
    assert_eq!(pages.stats().free, pages.stats().total, "pages that did not come back");
}

/// Memory that is not zero, with a head and a tail beside the whole pages.
struct Region {
    whole: NonNull<u8>,
    layout: Layout,
    base: NonNull<u8>,
    len: usize,
}

impl Region {
    fn new(config: &PageConfig, page: usize) -> Self {
        let (head, tail) = (usize::from(config.head) % page, usize::from(config.tail) % page);
        let len = usize::from(config.pages) * page + tail;
        // The memory ends where the region does, so that a memory checker sees what goes beyond.
        let layout = Layout::from_size_align(head + len.max(1), 4096).expect("little memory");
        // SAFETY: the size is not zero.
        let whole = NonNull::new(unsafe { std::alloc::alloc(layout) }).expect("memory");
        // SAFETY: the memory is ours, and begins with so many bytes.
        let base = unsafe {
            whole.write_bytes(0xa5, layout.size());
            whole.add(head)
        };
        Self { whole, layout, base, len }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: it was allocated in `new` with this layout.
        unsafe { std::alloc::dealloc(self.whole.as_ptr(), self.layout) };
    }
}

fn on_region<const PAGE: usize>(program: &PageProgram) {
    machine::reset();
    let memory = Region::new(&program.config, PAGE);
    // SAFETY: the memory is nobody else's, and outlives the supplier and its runs.
    let pages = unsafe { StaticPages::<OneThread, PAGE>::from_raw(memory.base, memory.len) };
    let total = pages.stats().total;
    // Where the pages begin is the supplier's to say. All of the region but less than a page at either
    // end, and its books, is to be had: a bit for each page, in words, and a word.
    let books = (memory.len / PAGE).div_ceil(64) * 8 + 8 + 2 * 8;
    assert!((total + 2) * PAGE + books > memory.len, "only {total} pages of {} bytes", memory.len);
    let end = (memory.base.addr().get() + memory.len) / PAGE * PAGE;
    let region = Pages { first: end - total * PAGE, total, page: PAGE };
    let check = |moment: PageMoment, runs: &[(usize, Layout)]| {
        let (stats, free) = (pages.stats(), region.free(runs, None));
        assert_eq!(stats.total, total);
        assert_eq!(stats.free, free.iter().filter(|&&free| free).count(), "free pages");
        let largest = free.split(|&free| !free).map(<[bool]>::len).max().unwrap_or(0);
        assert_eq!(stats.largest, largest, "pages in the longest free run");
        match moment {
            PageMoment::Took { start, layout } => {
                assert!(pages.contains(std::ptr::without_provenance(start)));
                assert_eq!(region.lowest(runs, Some(start), layout), Some(start), "the lowest");
            }
            PageMoment::Refused { layout, error } => {
                assert_eq!(region.lowest(runs, None, layout), None, "{error:?} for {layout:?}");
                let ever = region.aligned(layout).next().is_some();
                let why =
                    if ever || total == 0 { PageError::Exhausted } else { PageError::BadAlign };
                assert_eq!(error, why, "for {layout:?}");
            }
            PageMoment::Op => {}
        }
    };
    let rig =
        PageRig { supplier: &pages, decommit: None, decommit_all: None, trim: None, check: &check };
    run_pages(&program.ops, &rig);
    assert_eq!(machine::locks_held(), 0);
}

/// The pages of a region.
struct Pages {
    first: usize,
    total: usize,
    page: usize,
}

impl Pages {
    /// Which pages are free with these runs out, but for one of them.
    fn free(&self, runs: &[(usize, Layout)], but: Option<usize>) -> Vec<bool> {
        let mut free = vec![true; self.total];
        for &(start, layout) in runs.iter().filter(|&&(start, _)| Some(start) != but) {
            assert!(start >= self.first, "a run outside the region");
            let first = (start - self.first) / self.page;
            free[first..first + layout.size() / self.page].fill(false);
        }
        free
    }

    /// Where in the region a run of this alignment may begin.
    fn aligned(&self, layout: Layout) -> impl Iterator<Item = usize> + '_ {
        (0..self.total)
            .map(|index| self.first + index * self.page)
            .filter(move |start| start.is_multiple_of(layout.align()))
    }

    /// The lowest place for a run.
    fn lowest(
        &self,
        runs: &[(usize, Layout)],
        but: Option<usize>,
        layout: Layout,
    ) -> Option<usize> {
        let free = self.free(runs, but);
        let count = layout.size() / self.page;
        self.aligned(layout).find(|start| {
            let index = (start - self.first) / self.page;
            free.get(index..index + count).is_some_and(|pages| pages.iter().all(|&free| free))
        })
    }
}

/// Runs a program on a supplier that maps small chunks and keeps little, with and without huge pages.
pub fn mmap_budget(program: &PageProgram) {
    machine::reset();
    let config = &program.config;
    let bytes = |pages: u8| usize::from(pages) * 4096;
    // Up to four blocks.
    let shift = config.head % 4;
    let wishes = [HugePages::System, HugePages::Wanted, HugePages::Unwanted];
    let settings = MmapConfig::DEFAULT
        .chunks(bytes(config.pages) << shift, bytes(config.chunk_max) << shift)
        .huge_pages(wishes[usize::from(config.page) % 3])
        .dirty_max(bytes(config.dirty));
    let pages = MmapPages::<OneThread>::with_lock(settings);
    let check = |moment: PageMoment, runs: &[(usize, Layout)]| {
        let stats = pages.stats();
        let used: usize = runs.iter().map(|(_, layout)| layout.size()).sum();
        assert_eq!(stats.in_use, used, "bytes in use: {stats:?}");
        assert_eq!(stats.in_use + stats.dirty + stats.clean, stats.reserved, "{stats:?}");
        assert_eq!(stats.chunks, stats.maps as usize - stats.unmaps as usize, "{stats:?}");
        assert!(stats.refused != 0 || stats.dirty <= settings.dirty_max, "{stats:?}");
        match moment {
            PageMoment::Took { start, .. } => {
                assert!(pages.contains(std::ptr::without_provenance(start)));
            }
            PageMoment::Refused { layout, error } => {
                panic!("{error:?} for {layout:?}, though there is plenty");
            }
            PageMoment::Op => {}
        }
    };
    let rig = PageRig {
        supplier: &pages,
        decommit: Some(&|at, len| {
            // SAFETY: whole pages of a run that is out, as `run_pages` asks for.
            unsafe { pages.decommit(at, len) };
        }),
        decommit_all: Some(&|| {
            pages.decommit_all();
            assert!(pages.stats().dirty == 0 || pages.stats().refused != 0);
        }),
        trim: Some(&|| {
            pages.trim();
            if config.tail % 2 == 1 {
                let was = wishes.iter().position(|&wish| wish == pages.huge_pages());
                pages.set_huge_pages(wishes[(was.expect("one of them") + 1) % 3]);
            }
        }),
        check: &check,
    };
    run_pages(&program.ops, &rig);
    pages.trim();
    let stats = pages.stats();
    assert!(stats.in_use == 0 && stats.chunks <= 1, "after everything came back: {stats:?}");
    assert_eq!((pages.page_size(), machine::locks_held()), (4096, 0));
}
