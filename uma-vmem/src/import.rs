//! Where an arena gets its spans from: another arena, or anything else that has integers to lend.

use uma_core::{Metadata, RawMutex, Request, Sleep};

use crate::arena::Held;
use crate::fit::Want;
use crate::segments::MOST_TAGS;
use crate::wait::{Kept, Node};
use crate::{Arena, Constraints, Policy, VmemError, VmemFault};

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first one.
    pub base: usize,
    /// How many.
    pub size: usize,
}

/// A source of spans: the `afunc` and `ffunc` of `vmem_create`, or the import and release functions of
/// `vmem_xcreate`.
///
/// An [`Arena`] is one, so arenas nest; a supplier of address space is another. No lock of the arena
/// that asks is held during a call. A call may unwind: then nothing was imported, or the span is lost
/// to both; and nothing else is.
pub trait Import {
    /// Whether there is anything to import from. Where this is `false` the methods are not called.
    const IMPORTS: bool = true;

    /// A span of `size` or more, which begins at a multiple of `align`, or `None` if there is none just
    /// now. The surplus belongs to the arena that asked, like the rest, until the span goes back whole.
    ///
    /// `size` is a multiple of the quantum of the arena that asks, and so must be the size of the span;
    /// `align` is a power of two and not less than that quantum. `request` never allows to wait: the
    /// arena does that itself.
    fn import(&self, size: usize, align: usize, request: Request) -> Option<Span>;

    /// Takes back a span exactly as `import` returned it.
    ///
    /// # Errors
    ///
    /// If it is not taken: somebody else gave it back already. It is not offered again.
    fn release(&self, span: Span) -> Result<(), VmemError>;
}

impl<I: Import + ?Sized> Import for &I {
    const IMPORTS: bool = I::IMPORTS;

    fn import(&self, size: usize, align: usize, request: Request) -> Option<Span> {
        (**self).import(size, align, request)
    }

    fn release(&self, span: Span) -> Result<(), VmemError> {
        (**self).release(span)
    }
}

/// No parent: the arena has the spans that were added to it, and no others.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoParent;

impl Import for NoParent {
    const IMPORTS: bool = false;

    fn import(&self, _: usize, _: usize, _: Request) -> Option<Span> {
        None
    }

    fn release(&self, _: Span) -> Result<(), VmemError> {
        Ok(())
    }
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Import for Arena<L, M, W, P> {
    /// Rounds the size up to its own quantum and aligns to that at least.
    fn import(&self, size: usize, align: usize, request: Request) -> Option<Span> {
        let size = self.round_up(size)?;
        let constraints = Constraints::new().align(align.max(self.quantum()));
        let base = self.xalloc(size, constraints, Policy::Instant, request).ok()?;
        Some(Span { base, size })
    }

    fn release(&self, span: Span) -> Result<(), VmemError> {
        self.xfree(span.base, span.size)
    }
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Arena<L, M, W, P> {
    /// Asks the parent for a span, and allocates from it, or from what was freed meanwhile.
    ///
    /// A caller that is in the queue passes its node, which then leaves it, unless it is served meanwhile.
    pub(crate) fn import_for(
        &self,
        want: &Want,
        node: Option<&Node<W::Waker>>,
    ) -> Result<Option<usize>, VmemError> {
        let Some(wanted) = self.import_size(want) else { return Ok(None) };
        let promised = self.promise()?;
        let align = want.align;
        let Some(span) = self.parent.import(wanted, align, Request::NOWAIT) else {
            return Ok(None);
        };
        let mut state = promised.redeem();
        let at = match node {
            Some(node) if !self.withdraw(&mut state, node) => node.granted(),
            _ => state.take(want),
        };
        if let Some(at) = at {
            drop(state);
            let kept = Kept { arena: self, at, size: want.size };
            // The caller has what it wanted, whether or not the parent takes the span back.
            let _ = self.give_back(Some(span));
            core::mem::forget(kept);
            return Ok(Some(at));
        }
        let fits = span.size >= wanted && span.base.is_multiple_of(align);
        let bad = VmemFault::BadImport { base: span.base, size: span.size, wanted };
        let added = if fits { state.segments.add(span, true) } else { Err(bad) };
        if let Err(fault) = added {
            drop(state);
            // What was wrong with the span matters more than whether it is taken back.
            let _ = self.give_back(Some(span));
            return Err(self.error(fault));
        }
        state.counts.imports += 1;
        let Some(at) = state.take(want) else {
            // It has every alignment asked for, but not the place: 0 and the last address are not for all.
            let span = self.retire(&mut state, |segments| segments.retire_at(span.base));
            drop(state);
            let _ = self.give_back(span);
            return Err(self.error(bad));
        };
        let woken = state.serve();
        drop(state);
        let kept = Kept { arena: self, at, size: want.size };
        self.wake(woken);
        core::mem::forget(kept);
        Ok(Some(at))
    }

    /// How much to ask the parent for, if it can help.
    fn import_size(&self, want: &Want) -> Option<usize> {
        if !P::IMPORTS || !want.importable {
            return None;
        }
        // The span is aligned, and what is wanted lies `phase` behind its beginning.
        let size = want.real.checked_add(want.phase)?;
        self.round_up(size.max(self.config.min_import))
    }

    /// Has the tags for a span and a segment in it set aside.
    fn promise(&self) -> Result<Promised<'_, L, M, W, P>, VmemError> {
        self.lock_for(MOST_TAGS)?.segments.pool.reserve(MOST_TAGS);
        Ok(Promised(self))
    }
}

/// Tags set aside for an import, also if the parent unwinds.
struct Promised<'a, L: RawMutex, M: Metadata, W: Sleep, P: Import>(&'a Arena<L, M, W, P>);

impl<'a, L: RawMutex, M: Metadata, W: Sleep, P: Import> Promised<'a, L, M, W, P> {
    /// Takes the lock, with the tags at hand.
    fn redeem(self) -> Held<'a, L, W> {
        let mut state = self.0.state.lock();
        state.segments.pool.unreserve(MOST_TAGS);
        core::mem::forget(self);
        state
    }
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Drop for Promised<'_, L, M, W, P> {
    fn drop(&mut self) {
        self.0.state.lock().segments.pool.unreserve(MOST_TAGS);
    }
}
