//! Memory for buckets and slots.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;
use std::sync::Mutex;

use uma_core::Metadata;

/// The heap; but nothing is given back to it before the end, so that whoever uses a bucket too late
/// finds the bucket that was, and the model checker notices. It is not part of what is modelled.
#[derive(Default)]
pub(crate) struct Heap {
    blocks: Mutex<Blocks>,
}

#[derive(Default)]
struct Blocks {
    live: Vec<(NonNull<u8>, Layout)>,
    gone: Vec<(NonNull<u8>, Layout)>,
}

// SAFETY: the pointers are only kept, and given back at the end.
unsafe impl Send for Blocks {}

// SAFETY: memory of the global allocator, each block given out once.
unsafe impl Metadata for Heap {
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: neither buckets nor slots are of size zero.
        let block = NonNull::new(unsafe { alloc(layout) })?;
        self.blocks.lock().unwrap().live.push((block, layout));
        Some(block)
    }

    unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
        let mut blocks = self.blocks.lock().unwrap();
        let place = blocks.live.iter().position(|&block| block == (at, layout));
        let block = blocks.live.swap_remove(place.expect("memory that is out, with its layout"));
        blocks.gone.push(block);
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let blocks = self.blocks.get_mut().unwrap();
        assert!(blocks.live.is_empty(), "buckets or slots were lost");
        for (block, layout) in blocks.gone.drain(..) {
            // SAFETY: allocated above with this layout, and given back.
            unsafe { dealloc(block.as_ptr(), layout) };
        }
    }
}
