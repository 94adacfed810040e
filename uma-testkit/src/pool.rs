//! A source of items that checks its caller.

use std::alloc::Layout;
use std::mem::MaybeUninit;

use uma_core::{AllocError, Item, ItemSource, Metadata, PageError, Request, Stats};

use crate::sync::{AtomicBool, AtomicUsize, Ordering};
use crate::{FailPlan, HeapMeta, machine};

/// Supplies every item as an allocation of its own, so that memory checkers see each overrun and each
/// use after free. Giving back what is not out panics.
///
/// It gives at most so many items in one batch, and fails by a [`FailPlan`].
pub struct Pool {
    layout: Layout,
    heap: HeapMeta,
    left: AtomicUsize,
    batch: usize,
    plan: FailPlan,
    wanted: AtomicBool,
}

impl Pool {
    /// At most `most` items at once, and `batch` in one import.
    pub fn new(layout: Layout, most: usize, batch: usize) -> Self {
        Self {
            layout,
            heap: HeapMeta::new(),
            left: AtomicUsize::new(most),
            batch: batch.max(1),
            plan: FailPlan::new(),
            wanted: AtomicBool::new(false),
        }
    }

    /// Items that are out.
    pub fn out(&self) -> usize {
        self.heap.outstanding().runs
    }

    /// Items that there are still.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    /// Lets it be dropped with items outstanding.
    pub fn allow_leaks(&self) {
        self.heap.allow_leaks();
    }

    /// Which imports fail.
    pub fn plan(&self) -> &FailPlan {
        &self.plan
    }

    /// Says that somebody waits for an item, or no longer does.
    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::SeqCst);
    }
}

// SAFETY: items come from the heap, which keeps these promises; `import` fills in as many as it says. It
// unwinds only if its caller broke the contract.
unsafe impl ItemSource for Pool {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn import(&self, into: &mut [MaybeUninit<Item>], _: Request) -> Result<usize, AllocError> {
        machine::outside_locks("items are imported");
        assert!(!into.is_empty(), "an import of no items");
        if self.plan.call() {
            return Err(PageError::Exhausted.into());
        }
        let mut count = 0;
        for slot in into.iter_mut().take(self.batch) {
            let taken = self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if taken.is_err() {
                break;
            }
            let Some(at) = self.heap.alloc_meta(self.layout) else {
                self.left.fetch_add(1, Ordering::SeqCst);
                break;
            };
            slot.write(Item::new(at));
            count += 1;
        }
        if count == 0 { Err(PageError::Exhausted.into()) } else { Ok(count) }
    }

    unsafe fn release(&self, items: &[Item]) {
        machine::outside_locks("items are released");
        for item in items {
            // SAFETY: the caller gives up items that came from `import`, with this layout.
            unsafe { self.heap.free_meta(item.as_non_null(), self.layout) };
            self.left.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    fn visit_stats(&self, stats: &mut Stats) {
        stats.size = self.layout.size();
        stats.align = self.layout.align();
        stats.keg_free = self.left() as u64;
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("out", &self.out()).finish_non_exhaustive()
    }
}
