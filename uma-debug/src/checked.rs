//! All checks as one layer over a source.

use core::alloc::Layout;
use core::mem::MaybeUninit;

use lock_api::RawMutex;
use uma_core::{AllocError, Item, ItemSource, Metadata, Process, Reclaim, Request, Stats};

use crate::sync::{Ordering, fence};
use crate::watched::Discard;
use crate::{Checks, Witness};

/// [`Checks`] in front of any source, on top of a stack of layers.
///
/// If the checks have red zones, a [`Padded`](crate::Padded) stands below. If contents are checked, a
/// [`Watched`](crate::Watched) stands above the first layer that does not keep what a free item holds: a keg
/// that is drained, or hooks.
///
/// Give every item back through this layer alone.
pub struct Checked<'c, S: ItemSource, L: RawMutex, M: Metadata, W: Witness> {
    source: S,
    checks: &'c Checks<L, M, W>,
}

impl<'c, S: ItemSource, L: RawMutex, M: Metadata, W: Witness> Checked<'c, S, L, M, W> {
    /// Puts checks on top of `source`.
    ///
    /// # Safety
    ///
    /// The checks are made for items of the layout of `source` (their pads say how they lie in what the
    /// source's items are cut from), and contents are kept as described above.
    pub const unsafe fn new(source: S, checks: &'c Checks<L, M, W>) -> Self {
        Self { source, checks }
    }

    /// The source below.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// The checks.
    pub const fn checks(&self) -> &'c Checks<L, M, W> {
        self.checks
    }

    /// Gives back what is in quarantine.
    fn flush(&self) {
        // SAFETY: what was in quarantine belongs to the checks, and came from the source.
        self.checks.flush(&mut |item| unsafe { self.source.free(item) });
    }

    fn ready(&self, item: Item) -> Result<Item, AllocError> {
        let back = Back { source: &self.source, item };
        // SAFETY: the item came from the source just now.
        unsafe {
            self.checks.wake(item)?;
            self.checks.hand_out(item);
        }
        core::mem::forget(back);
        Ok(item)
    }
}

/// Gives an item back if it does not come to be handed out.
struct Back<'a, S: ItemSource> {
    source: &'a S,
    item: Item,
}

impl<S: ItemSource> Drop for Back<'_, S> {
    fn drop(&mut self) {
        // SAFETY: the item came from the source, and went to nobody.
        unsafe { self.source.free(self.item) };
    }
}

/// Part of a batch, given back if the rest unwinds.
struct Part<'a, 'c, S: ItemSource, L: RawMutex, M: Metadata, W: Witness> {
    checked: &'a Checked<'c, S, L, M, W>,
    items: &'a mut [MaybeUninit<Item>],
    count: usize,
}

impl<S: ItemSource, L: RawMutex, M: Metadata, W: Witness> Drop for Part<'_, '_, S, L, M, W> {
    fn drop(&mut self) {
        // SAFETY: so many were allocated, and have gone to nobody.
        unsafe { self.checked.release(self.items[..self.count].assume_init_ref()) };
    }
}

/// Items that are being freed, all of them also if the free of one unwinds. (If another one's does, too,
/// the process ends.)
struct Rest<'a, 'c, S: ItemSource, L: RawMutex, M: Metadata, W: Witness> {
    checked: &'a Checked<'c, S, L, M, W>,
    items: &'a [Item],
}

impl<S: ItemSource, L: RawMutex, M: Metadata, W: Witness> Drop for Rest<'_, '_, S, L, M, W> {
    fn drop(&mut self) {
        while let Some((&item, rest)) = self.items.split_first() {
            let rest = Rest { checked: self.checked, items: rest };
            // SAFETY: the caller of `release` gave them up, and each goes once.
            unsafe { self.checked.free(item) };
            self.items = rest.items;
            core::mem::forget(rest);
        }
    }
}

/// Gives back what is in quarantine if somebody waits, also if a hook unwinds before.
struct PassOn<'a, 'c, S: ItemSource, L: RawMutex, M: Metadata, W: Witness>(
    &'a Checked<'c, S, L, M, W>,
);

impl<S: ItemSource, L: RawMutex, M: Metadata, W: Witness> Drop for PassOn<'_, '_, S, L, M, W> {
    fn drop(&mut self) {
        // Whoever waits flushed after it said so; we put the item in before we look.
        fence(Ordering::SeqCst);
        if self.0.source.wanted() {
            self.0.flush();
        }
    }
}

/// Has the source give back what it holds.
struct Below<'a, S: ItemSource>(&'a S, Reclaim);

impl<S: ItemSource> Drop for Below<'_, S> {
    fn drop(&mut self) {
        self.0.reclaim(self.1);
    }
}

/// Has the source settle.
struct Settle<'a, S: ItemSource>(&'a S);

impl<S: ItemSource> Drop for Settle<'_, S> {
    fn drop(&mut self) {
        self.0.settle();
    }
}

// SAFETY: items pass through unchanged; one that is refused is not handed out and goes back. What is in
// quarantine is out as far as the source is concerned, and given back when the source is short of items.
unsafe impl<S: ItemSource, L: RawMutex, M: Metadata, W: Witness> ItemSource
    for Checked<'_, S, L, M, W>
{
    fn layout(&self) -> Layout {
        self.source.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        let request = request.without_waiting();
        let mut part = Part { checked: self, items: into, count: 0 };
        while part.count < part.items.len() {
            match self.alloc(request) {
                Ok(item) => _ = part.items[part.count].write(item),
                Err(error) if part.count == 0 => return Err(error),
                Err(_) => break,
            }
            part.count += 1;
        }
        let count = part.count;
        core::mem::forget(part);
        Ok(count)
    }

    unsafe fn release(&self, items: &[Item]) {
        drop(Rest { checked: self, items });
    }

    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        self.alloc_or_flush(request, &mut || {})
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        let mut flush_all = || {
            flush();
            self.flush();
        };
        self.ready(self.source.alloc_or_flush(request, &mut flush_all)?)
    }

    unsafe fn free(&self, item: Item) {
        // SAFETY: passed on from the caller; what comes out of quarantine is ours to give back.
        unsafe {
            if !self.checks.take_back(item) {
                return;
            }
            let _pass_on = PassOn(self);
            if let Some(out) = self.checks.rest(item) {
                self.source.free(out);
            }
        }
    }

    unsafe fn discard(&self, item: Item) {
        // SAFETY: passed on from the caller.
        unsafe {
            if self.checks.take_back(item) {
                let _discard = Discard { source: &self.source, item };
                self.checks.leave(item);
            }
        }
    }

    fn wanted(&self) -> bool {
        self.source.wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        // What is below gives back its own also if a hook unwinds here.
        let _below = Below(&self.source, mode);
        if mode >= Reclaim::Drain {
            self.flush();
        }
    }

    fn visit_stats(&self, stats: &mut Stats) {
        self.source.visit_stats(stats);
        self.checks.account(stats);
    }

    fn prefork(&self) {
        self.checks.prefork();
        self.source.prefork();
    }

    unsafe fn postfork(&self, process: Process) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            self.source.postfork(process);
            self.checks.postfork();
        }
    }

    fn settle(&self) {
        // What was in quarantine may be in a cache below then, also if a hook unwinds here.
        let _below = Settle(&self.source);
        if self.source.wanted() {
            self.flush();
        }
    }
}

impl<S: ItemSource, L: RawMutex, M: Metadata, W: Witness> Drop for Checked<'_, S, L, M, W> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl<S, L, M, W> core::fmt::Debug for Checked<'_, S, L, M, W>
where
    S: ItemSource + core::fmt::Debug,
    L: RawMutex,
    M: Metadata,
    W: Witness,
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Checked")
            .field("source", &self.source)
            .field("checks", &self.checks)
            .finish()
    }
}
