//! Walks through the segments of an arena.
//!
//! The callback runs without the lock (`VMEM_REENTRANT` of Solaris, always): segments are copied out one
//! at a time, and a [cursor](crate::cursor) keeps the place between. A segment that is there from
//! beginning to end and does not change is reported exactly once. Of one that is cut or joined meanwhile
//! only addresses are reported that come after those reported before.

use uma_core::{Metadata, RawMutex, Sleep};

use crate::cursor::{Cursor, Cursors};
use crate::tag::Kind;
use crate::{Arena, Import, VmemError, VmemFault};

/// What a segment is: `VMEM_ALLOC` and `VMEM_FREE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Somebody has it.
    Allocated,
    /// Nobody has it.
    Free,
}

/// A segment, as a walk reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Whether it is allocated.
    pub kind: SegmentKind,
    /// The first address.
    pub addr: usize,
    /// How many: of an allocated one as asked for, not rounded up.
    pub size: usize,
}

/// A cursor in use, given back at the end, also by unwinding.
struct Walk<'a, L: RawMutex, M: Metadata, W: Sleep, P: Import> {
    arena: &'a Arena<L, M, W, P>,
    cursor: usize,
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Drop for Walk<'_, L, M, W, P> {
    fn drop(&mut self) {
        self.arena.state.lock().segments.cursors.set(self.cursor, Cursor::Idle);
    }
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Arena<L, M, W, P> {
    /// Calls `report` for every segment, free ones too (`vmem_walk`), span by span in the order in which
    /// they were added, and by address in each. No lock is held meanwhile: `report` may use the arena.
    ///
    /// # Errors
    ///
    /// [`TooManyWalks`](VmemFault::TooManyWalks) if four are under way already.
    pub fn walk(&self, mut report: impl FnMut(Segment)) -> Result<(), VmemError> {
        let mut state = self.state.lock();
        let Some(cursor) = state.segments.cursors.open() else {
            drop(state);
            return Err(self.error(VmemFault::TooManyWalks));
        };
        if let Some(first) = state.segments.first() {
            state.segments.cursors.set(cursor, Cursor::At(first, first.start.get()));
        }
        drop(state);
        let walk = Walk { arena: self, cursor };
        while let Some(segment) = self.segment_at(walk.cursor) {
            report(segment);
        }
        Ok(())
    }

    /// The segment that a cursor is at, or what is left of it. Moves the cursor behind it.
    fn segment_at(&self, cursor: usize) -> Option<Segment> {
        let mut state = self.state.lock();
        let cursors = &mut state.segments.cursors;
        loop {
            let Cursor::At(seg, at) = cursors.get(cursor) else { return None };
            cursors.set(cursor, Cursors::after(seg));
            let allocated = seg.kind.get() == Kind::Allocated;
            let kind = if allocated { SegmentKind::Allocated } else { SegmentKind::Free };
            // What lies before the cursor was reported as something else. If the cursor is in what an
            // allocated segment was rounded up by, nothing is left.
            let size = seg.size.get().saturating_sub(at - seg.start.get());
            if size != 0 {
                return Some(Segment { kind, addr: at, size });
            }
        }
    }
}
