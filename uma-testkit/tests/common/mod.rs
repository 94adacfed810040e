//! A source of items for the tests: every item an allocation of its own.

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};

use uma_core::{AllocError, Item, ItemSource, Metadata, PageError, Request};
use uma_testkit::HeapMeta;

pub(crate) struct Pool {
    layout: Layout,
    heap: HeapMeta,
    left: AtomicUsize,
}

impl Pool {
    /// At most `most` items at once.
    pub(crate) fn of(layout: Layout, most: usize) -> Self {
        Self { layout, heap: HeapMeta::new(), left: AtomicUsize::new(most) }
    }
}

// SAFETY: items come from the heap, which keeps these promises; `import` fills in as many as it says.
unsafe impl ItemSource for Pool {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn import(&self, into: &mut [MaybeUninit<Item>], _: Request) -> Result<usize, AllocError> {
        let take_one = |left: usize| left.checked_sub(1);
        let mut count = 0;
        for slot in into {
            if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one).is_err() {
                break;
            }
            let at = self.heap.alloc_meta(self.layout).ok_or(AllocError::Metadata)?;
            slot.write(Item::new(at));
            count += 1;
        }
        if count == 0 { Err(PageError::Exhausted.into()) } else { Ok(count) }
    }

    unsafe fn release(&self, items: &[Item]) {
        for item in items {
            // SAFETY: the caller gives up items that came from `import`.
            unsafe { self.heap.free_meta(item.as_non_null(), self.layout) };
            self.left.fetch_add(1, Ordering::SeqCst);
        }
    }
}
