//! Places in the address list that stay valid while segments come and go.
//!
//! A cursor is an address, and the segment that has it. Whenever a segment is cut or swallowed, the
//! cursors in it are told. There is one for next fit, and a few for walks.

use crate::tag::{Kind, Seg};

/// Walks that can be under way at the same time.
const WALKS: usize = 4;
/// The cursor of next fit: the end of what was allocated last.
pub(crate) const ROTOR: usize = WALKS;

/// Where a cursor is.
#[derive(Clone, Copy)]
pub(crate) enum Cursor {
    /// Nobody uses it.
    Idle,
    /// Before the first span, or after the last one.
    Outside,
    /// At this address, which is in this segment.
    At(Seg, usize),
}

pub(crate) struct Cursors {
    all: [Cursor; WALKS + 1],
    /// How many are in a segment: there is mostly nobody to tell.
    inside: usize,
}

impl Cursors {
    pub(crate) const fn new() -> Self {
        Self { all: [Cursor::Idle; WALKS + 1], inside: 0 }
    }

    pub(crate) fn get(&self, which: usize) -> Cursor {
        self.all[which]
    }

    pub(crate) fn set(&mut self, which: usize, to: Cursor) {
        let inside = |cursor| usize::from(matches!(cursor, Cursor::At(..)));
        self.inside = self.inside + inside(to) - inside(self.all[which]);
        self.all[which] = to;
    }

    /// Takes a cursor for a walk, if there is one left.
    pub(crate) fn open(&mut self) -> Option<usize> {
        let idle = |cursor: &Cursor| matches!(cursor, Cursor::Idle);
        let which = self.all[..WALKS].iter().position(idle)?;
        self.all[which] = Cursor::Outside;
        Some(which)
    }

    /// A place at the beginning of the segment that follows `seg` in the list: the next one, or that
    /// after the next span.
    pub(crate) fn after(seg: Seg) -> Cursor {
        let next = seg.after.get();
        let next = match next {
            Some(span) if span.kind.get() == Kind::Span => span.after.get(),
            next => next,
        };
        next.map_or(Cursor::Outside, |seg| Cursor::At(seg, seg.start.get()))
    }

    fn each(&mut self, of: Seg, change: impl Fn(usize) -> Cursor) {
        if self.inside == 0 {
            return;
        }
        for which in 0..self.all.len() {
            if let Cursor::At(seg, at) = self.all[which]
                && seg == of
            {
                self.set(which, change(at));
            }
        }
    }

    /// `seg` was cut: it and its new neighbours from `first` on have its addresses now.
    pub(crate) fn cut(&mut self, seg: Seg, first: Seg) {
        self.each(seg, |at| {
            let mut piece = first;
            // The pieces follow one another without a gap, so the last one to begin at or below has it.
            while let Some(next) = piece.after.get() {
                if next.kind.get() == Kind::Span || next.start.get() > at {
                    break;
                }
                piece = next;
            }
            Cursor::At(piece, at)
        });
    }

    /// `into` has the addresses of `gone` now.
    pub(crate) fn merged(&mut self, gone: Seg, into: Seg) {
        self.each(gone, |at| Cursor::At(into, at));
    }

    /// The only segment of a span is about to go with it.
    pub(crate) fn span_goes(&mut self, seg: Seg) {
        self.each(seg, |_| Self::after(seg));
    }

    /// Nobody else is there (see `Arena::postfork`): only the place of next fit remains.
    pub(crate) fn close_walks(&mut self) {
        for which in 0..WALKS {
            self.set(which, Cursor::Idle);
        }
    }
}
