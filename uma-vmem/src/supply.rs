//! Memory for the books: got before the lock is taken for good, and given back without it.

use uma_core::{Metadata, RawMutex, Sleep};

use crate::arena::{Held, State};
use crate::segments::MOST_TAGS;
use crate::sync::Mutex;
use crate::tag::Memory;
use crate::{Arena, Import, VmemError, VmemFault};

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Arena<L, M, W, P> {
    /// Takes the lock with at least `tags` tags spare that are promised to nobody. Gets memory for them
    /// and for the table without the lock.
    pub(crate) fn lock_for(&self, tags: usize) -> Result<Held<'_, L, W>, VmemError> {
        self.lock_by(tags, |state| Some(state.lock()))
    }

    /// The same, by a way to take the lock that may fail: with [`Busy`](VmemFault::Busy).
    pub(crate) fn lock_by<'a>(
        &'a self,
        tags: usize,
        lock: impl Fn(&'a Mutex<L, State<W::Waker>>) -> Option<Held<'a, L, W>>,
    ) -> Result<Held<'a, L, W>, VmemError> {
        debug_assert!(tags <= MOST_TAGS);
        let mut table_asked = false;
        loop {
            let state = lock(&self.state).ok_or_else(|| self.error(VmemFault::Busy))?;
            let piece = if table_asked { None } else { state.segments.table.next_piece() };
            if let Some(layout) = piece {
                drop(state);
                table_asked = true;
                self.grow_table(layout, &lock);
                continue;
            }
            if !state.segments.pool.short_of(tags) {
                return Ok(state);
            }
            let layout = state.segments.pool.next_block();
            drop(state);
            let memory = layout
                .and_then(|layout| Some(Memory { at: self.metadata.alloc_meta(layout)?, layout }));
            let Some(memory) = memory else {
                return Err(self.error(VmemFault::Metadata));
            };
            let Some(mut state) = lock(&self.state) else {
                self.discard(memory);
                return Err(self.error(VmemFault::Busy));
            };
            // SAFETY: the metadata supplier gave it to us alone, with the layout asked for.
            unsafe { state.segments.pool.add_block(memory) };
        }
    }

    #[cold]
    fn grow_table<'a>(
        &'a self,
        layout: core::alloc::Layout,
        lock: &impl Fn(&'a Mutex<L, State<W::Waker>>) -> Option<Held<'a, L, W>>,
    ) {
        let memory = self.metadata.alloc_meta(layout).map(|at| Memory { at, layout });
        let Some(mut state) = lock(&self.state) else {
            // The next caller asks again.
            return memory.into_iter().for_each(|memory| self.discard(memory));
        };
        let Some(memory) = memory else {
            // Longer chains will do until it is asked again.
            return state.segments.table.no_piece();
        };
        // SAFETY: the metadata supplier gave it to us alone, with the layout asked for.
        let unneeded = unsafe { state.segments.table.add_piece(memory) };
        drop(state);
        if let Some(memory) = unneeded {
            self.discard(memory);
        }
    }

    /// Gives bookkeeping memory back.
    pub(crate) fn discard(&self, memory: Memory) {
        // SAFETY: it came from this metadata supplier with this layout, and left the books before.
        unsafe { self.metadata.free_meta(memory.at, memory.layout) };
    }
}
