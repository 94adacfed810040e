//! Pages with a log of what is decommitted, and what that should be.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use uma_core::{
    Decommit, Item, ItemSource, Metadata, PageError, PageRun, PageSupplier, Reclaim, Request,
};
use uma_keg::{Keg, SlabConfig, SlabLayout};
use uma_testkit::Fake;

use super::{Lock, assert_no_lock, layout, take_all};

/// Runs of a [`Fake`], with a log of what was decommitted. A decommit can be made to stop half way.
pub(crate) struct Logged {
    pub(crate) fake: Fake,
    pub(crate) log: Mutex<Vec<(usize, usize)>>,
    pub(crate) exhausted: AtomicBool,
    pub(crate) panics: AtomicBool,
    /// The next decommit is to pause.
    pauses: AtomicBool,
    /// One does, until this is taken back.
    paused: AtomicBool,
}

/// While this exists a thread is in a decommit.
pub(crate) struct Paused<'a>(&'a Logged);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.paused.store(false, Ordering::SeqCst);
    }
}

impl Logged {
    pub(crate) fn new() -> Self {
        Self::with_page(4096)
    }

    pub(crate) fn with_page(page: usize) -> Self {
        Self {
            fake: Fake::with_page_size(page),
            log: Mutex::default(),
            exhausted: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            pauses: AtomicBool::new(false),
            paused: AtomicBool::new(false),
        }
    }

    /// Calls `test` while another thread, which drains, is in its first decommit.
    pub(crate) fn during_drain(&self, keg: &Keg<&Self, Lock>, test: impl FnOnce()) {
        self.pauses.store(true, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let drain = scope.spawn(|| keg.reclaim(Reclaim::Drain));
            while !self.paused.load(Ordering::SeqCst) {
                assert!(!drain.is_finished(), "nothing was decommitted");
                std::thread::sleep(Duration::from_millis(1));
            }
            let paused = Paused(self);
            test();
            drop(paused);
        });
    }

    /// Ranges decommitted since the last call, by address.
    pub(crate) fn ranges(&self) -> Vec<(usize, usize)> {
        let mut ranges = std::mem::take(&mut *self.log.lock().unwrap());
        ranges.sort_unstable();
        ranges
    }
}

// SAFETY: as `Fake`.
unsafe impl PageSupplier for Logged {
    fn page_size(&self) -> usize {
        self.fake.page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        assert_no_lock();
        if self.exhausted.load(Ordering::SeqCst) {
            return Err(PageError::Exhausted);
        }
        self.fake.alloc_pages(layout, request)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        assert_no_lock();
        // SAFETY: passed on to the caller.
        unsafe { self.fake.free_pages(run) }
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        Some(self)
    }
}

// SAFETY: as `Fake`.
unsafe impl Decommit for Logged {
    unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        assert_no_lock();
        self.log.lock().unwrap().push((at.addr().get(), len));
        if self.pauses.swap(false, Ordering::SeqCst) {
            self.paused.store(true, Ordering::SeqCst);
            while self.paused.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(!self.panics.swap(false, Ordering::SeqCst), "on purpose");
        // SAFETY: passed on to the caller.
        unsafe { self.fake.decommit(at, len) }
    }

    fn relax(&self) {
        assert_no_lock();
        self.fake.relax();
    }
}

pub(crate) fn keg<P: PageSupplier>(pages: P, size: usize) -> Keg<P, Lock> {
    Keg::new(pages, layout(size, 8), SlabConfig::new()).unwrap()
}

/// The items of one slab, by address.
pub(crate) fn one_slab<P: PageSupplier, M: Metadata>(keg: &Keg<P, Lock, M>) -> Vec<Item> {
    let mut items = take_all(keg, keg.slab_layout().items());
    items.sort_unstable_by_key(|item| item.addr());
    items
}

/// Where the slab of an item begins. (Slabs of one item are not looked at here.)
pub(crate) fn base_of(slab: &SlabLayout, item: Item) -> usize {
    item.addr() & !(slab.slab_align() - 1)
}

/// The pages of a slab at `base` that have no byte of an item in use or of the header, as ranges. What
/// is left over behind an item counts as part of it.
pub(crate) fn spare(
    slab: &SlabLayout,
    page: usize,
    base: usize,
    live: impl Iterator<Item = usize>,
) -> Vec<(usize, usize)> {
    let mut kept = vec![false; slab.slab_size() / page];
    let mut keep = |from: usize, to: usize| kept[from / page..=(to - 1) / page].fill(true);
    let last = (slab.items() - 1) * slab.stride();
    for at in live.map(|addr| addr - base) {
        keep(at, if at == last { slab.slab_size() } else { at + slab.stride() });
    }
    if let Some(header) = slab.header_offset() {
        keep(header, slab.slab_size());
    }
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (index, kept) in kept.into_iter().enumerate() {
        let at = base + index * page;
        match ranges.last_mut() {
            _ if kept => {}
            Some((start, len)) if *start + *len == at => *len += page,
            _ => ranges.push((at, page)),
        }
    }
    ranges
}

/// Looks at every slab that has items in use.
pub(crate) fn check_pages(slab: &SlabLayout, held: &[(Item, u64)]) {
    let mut slabs: BTreeMap<usize, Vec<Item>> = BTreeMap::new();
    for &(item, _) in held {
        slabs.entry(base_of(slab, item)).or_default().push(item);
    }
    for (base, items) in slabs {
        if items.len() == slab.items() {
            continue;
        }
        for (at, len) in spare(slab, 4096, base, items.iter().map(|item| item.addr())) {
            // SAFETY: part of a slab that the keg holds, all of which was written.
            let bytes = unsafe { std::slice::from_raw_parts(items[0].as_ptr().with_addr(at), len) };
            assert!(bytes.iter().all(|&byte| byte == Fake::DECOMMITTED), "{at:#x} is still there");
        }
    }
}
