//! The way of an item in a zone that checks: what happens at the edge, and in which order.
//!
//! ```text
//!   plain zone      user <-- ctor / dtor ------------------------- caches      and the short way past all
//!   with checks     user <-- checks -- ctor / dtor -- checks ----- caches      of it, on a hit
//! ```
//!
//! A zone with checks never publishes its front, so every allocation and every free misses it and comes here
//! by the slow paths; the instructions of a plain zone's hit are the same as if there were no checks. The
//! pinned part as a whole is the source that other layers see, with or without checks.

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use uma_core::{AllocError, Hooks, Item, ItemSource, Process, Reclaim, Request, Stats};

use super::edge::Edge;
use super::{Core, Origin};
use crate::Platform;
use crate::sync::{Ordering, fence};

/// Runs what is left to do when it is dropped, also if a hook unwinds.
pub(super) struct Otherwise<F: FnMut()>(pub(super) F);

impl<F: FnMut()> Drop for Otherwise<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl<P: Platform, H: Hooks, O: Origin<P>> Core<P, H, O> {
    /// What looks at every allocation and free, if anything does.
    #[inline]
    pub(super) fn edge(&self) -> Option<&Edge<P>> {
        // SAFETY: `make` put it there, and it goes after the core.
        self.edge.as_ref().map(|edge| unsafe { edge.0.as_ref() })
    }

    /// Allocates an item and passes `arg` to its ctor.
    ///
    /// # Safety
    ///
    /// `arg` is what the zone's ctor expects.
    pub(super) unsafe fn alloc_arg(
        &self,
        arg: *mut (),
        request: Request,
    ) -> Result<Item, AllocError> {
        // SAFETY: passed on from the caller.
        unsafe {
            match self.edge() {
                None => self.zone.alloc_arg(arg, request),
                Some(_) => self.alloc_checked(arg, request, &mut || {}),
            }
        }
    }

    /// Frees an item and passes `arg` to its dtor.
    ///
    /// # Safety
    ///
    /// As [`Zone::free_arg`](uma_core::Zone::free_arg); with checks, misuse is reported.
    pub(super) unsafe fn free_arg(&self, item: Item, arg: *mut ()) {
        // SAFETY: passed on from the caller.
        unsafe {
            match self.edge() {
                None => self.zone.free_arg(item, arg),
                Some(edge) => self.free_checked(edge, item, arg, false),
            }
        }
    }

    /// Gives back to the caches what is in quarantine.
    fn flush(&self, edge: &Edge<P>) {
        // SAFETY: what was in quarantine went through dtor and belongs to the checks.
        edge.checks.flush(&mut |item| unsafe { self.zone.source().free(item) });
    }

    /// An item from the caches or below, on which nothing has been done yet. Failures are not counted.
    pub(super) fn fetch(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        let source = self.zone.source();
        let Some(edge) = self.edge() else { return source.alloc_or_flush(request, flush) };
        source.alloc_or_flush(request, &mut || {
            flush();
            self.flush(edge);
        })
    }

    /// Makes an item that was fetched ready for its user: runs ctor, with the checks around it.
    ///
    /// # Safety
    ///
    /// The item was fetched just now, and `arg` is what the zone's ctor expects.
    pub(super) unsafe fn ready(
        &self,
        item: Item,
        arg: *mut (),
        request: Request,
    ) -> Result<Item, AllocError> {
        let Some(edge) = self.edge() else {
            // SAFETY: passed on from the caller.
            return unsafe { self.zone.prepare(item, arg, request) };
        };
        // SAFETY: the item came from the source just now, and goes back if it goes nowhere else.
        let back = Otherwise(|| unsafe { self.zone.source().free(item) });
        if edge.pool.is_due()
            // SAFETY: passed on from the caller.
            && let Some(result) = unsafe { self.sample(edge, item, arg, request) }
        {
            return match result {
                Ok(sampled) => {
                    core::mem::forget(back);
                    Ok(sampled)
                }
                Err(error) => Err(self.zone.failed(error)),
            };
        }
        // SAFETY: as above.
        unsafe { edge.checks.wake(item) }.map_err(|error| self.zone.failed(error))?;
        core::mem::forget(back);
        // SAFETY: as above; an item whose ctor fails goes back past the checks, as one not in use.
        unsafe {
            let item = self.zone.prepare(item, arg, request)?;
            let doubtful = Otherwise(|| self.zone.discard(item));
            edge.checks.hand_out(item);
            core::mem::forget(doubtful);
            Ok(item)
        }
    }

    /// # Safety
    ///
    /// As [`alloc_arg`](Self::alloc_arg).
    unsafe fn alloc_checked(
        &self,
        arg: *mut (),
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        let item = self.fetch(request, flush).map_err(|error| self.zone.failed(error))?;
        // SAFETY: passed on from the caller.
        unsafe { self.ready(item, arg, request) }
    }

    /// An item between guard pages in the place of `shadow`; `None` if there is no room, or its init
    /// refused. In any case but that of success, `shadow` is the caller's as before.
    ///
    /// # Safety
    ///
    /// As [`alloc_arg`](Self::alloc_arg); and the caller owns `shadow`.
    #[cold]
    unsafe fn sample(
        &self,
        edge: &Edge<P>,
        shadow: Item,
        arg: *mut (),
        request: Request,
    ) -> Option<Result<Item, AllocError>> {
        let (hooks, pool) = (self.zone.hooks(), &edge.pool);
        let item = pool.place(shadow, &edge.checks.here())?;
        // SAFETY: the item was placed just now; its shadow stays with the caller.
        let bury = Otherwise(|| _ = unsafe { pool.bury(item) });
        // SAFETY: the item is memory of the zone's layout and ours.
        if H::HAS_INIT && unsafe { hooks.init(item, request) }.is_err() {
            return None;
        }
        // SAFETY: `init` made it.
        let fini = Otherwise(|| unsafe { finish(hooks, item) });
        // SAFETY: as above; the rest is passed on from the caller. Only what init made goes to fini, and
        // what ctor refused does not go to dtor.
        if unsafe { hooks.ctor(item, arg, request) }.is_err() {
            return Some(Err(AllocError::Refused));
        }
        core::mem::forget((fini, bury));
        if request.wants_zero() {
            // SAFETY: as above.
            unsafe { item.as_ptr().write_bytes(0, self.layout().size()) };
        }
        Some(Ok(item))
    }

    /// Frees an item; `doubtful` if no cache may keep it.
    ///
    /// # Safety
    ///
    /// As [`free_arg`](Self::free_arg).
    unsafe fn free_checked(&self, edge: &Edge<P>, item: Item, arg: *mut (), doubtful: bool) {
        let source = self.zone.source();
        // SAFETY: passed on from the caller; what passes the checks is an item in use, and given up.
        unsafe {
            if edge.pool.contains(item.addr()) {
                self.free_sampled(edge, item, arg);
                return;
            }
            if !edge.checks.take_back(item) {
                return;
            }
            if doubtful {
                let _discard = Otherwise(|| source.discard(item));
                self.zone.hooks().dtor(item, arg);
                return;
            }
            self.zone.finish(item, arg);
        }
        // Also if a hook unwinds below, of an item that makes room in quarantine.
        let _pass_on = Otherwise(|| {
            if edge.checks.hardening().quarantined() == 0 {
                return;
            }
            // Whoever waits flushed after it said so; the item was in quarantine before we look.
            fence(Ordering::SeqCst);
            if source.wanted() {
                self.flush(edge);
            }
        });
        // SAFETY: as above.
        unsafe {
            if let Some(out) = edge.checks.rest(item) {
                source.free(out);
            }
        }
    }

    /// # Safety
    ///
    /// As [`free_arg`](Self::free_arg), for an address in the pool.
    #[cold]
    unsafe fn free_sampled(&self, edge: &Edge<P>, item: Item, arg: *mut ()) {
        let (hooks, pool) = (self.zone.hooks(), &edge.pool);
        let known = pool.explain(item.addr());
        // SAFETY: passed on from the caller.
        let taken = unsafe { pool.take_back(item, &edge.checks.here()) };
        let report = |fault| {
            let Some(known) = known else { return };
            let (allocated, freed) = (known.allocated, known.freed);
            edge.checks.report_of(fault, item.addr(), Some(known.item), allocated, freed);
        };
        if let Err(fault) = taken {
            report(fault);
            return;
        }
        // SAFETY: the item was taken back just now.
        let again = Otherwise(|| unsafe { pool.keep(item) });
        // SAFETY: as above.
        if let Some(fault) = unsafe { pool.look(item) } {
            report(fault);
        }
        core::mem::forget(again);
        let _bury = Otherwise(|| {
            // SAFETY: the item was taken back, and its user, dtor and fini are done with it. The shadow
            // came from the source, and has been nobody's since.
            unsafe {
                if let Some(shadow) = pool.bury(item) {
                    self.zone.source().free(shadow);
                }
            }
        });
        // SAFETY: the item is ours, and went through init and ctor.
        unsafe {
            let _fini = Otherwise(|| finish(hooks, item));
            hooks.dtor(item, arg);
        }
    }

    /// Whether an address lies in an item of the zone that is in use; without checks, in use or cached.
    pub(super) fn holds(&self, address: usize) -> bool {
        match self.edge() {
            Some(edge) if edge.checks.hardening().is_live() => edge.holds(address),
            edge => {
                let sampled = edge.is_some_and(|edge| edge.pool.holds(address));
                let item = NonNull::new(ptr::without_provenance_mut(address)).map(Item::new);
                sampled
                    || item.zip(self.own_slabs()).is_some_and(|(item, slabs)| slabs.contains(item))
            }
        }
    }

    /// The zone's figures.
    pub(super) fn stats(&self) -> Stats {
        let mut stats = self.zone.stats();
        if let Some(edge) = self.edge() {
            edge.checks.account(&mut stats);
        }
        stats
    }
}

/// Part of a batch, given back unless the whole comes about: a ctor may unwind.
struct Part<'a, P: Platform, H: Hooks, O: Origin<P>> {
    core: &'a Core<P, H, O>,
    items: &'a mut [MaybeUninit<Item>],
    count: usize,
}

impl<P: Platform, H: Hooks, O: Origin<P>> Drop for Part<'_, P, H, O> {
    fn drop(&mut self) {
        // SAFETY: so many were allocated, and have gone to nobody.
        unsafe { self.core.release(self.items[..self.count].assume_init_ref()) };
    }
}

/// Items that are being freed, all of them also if a dtor unwinds.
struct Rest<'a, P: Platform, H: Hooks, O: Origin<P>> {
    core: &'a Core<P, H, O>,
    items: &'a [Item],
}

impl<P: Platform, H: Hooks, O: Origin<P>> Rest<'_, P, H, O> {
    fn free(&mut self) {
        while let Some((&item, rest)) = self.items.split_first() {
            self.items = rest;
            // SAFETY: the caller of `release` gave them up, and each goes once.
            unsafe { self.core.free(item) };
        }
    }
}

impl<P: Platform, H: Hooks, O: Origin<P>> Drop for Rest<'_, P, H, O> {
    fn drop(&mut self) {
        self.free();
    }
}

/// Takes an item apart, if it was put together.
///
/// # Safety
///
/// As [`Hooks::fini`].
unsafe fn finish<H: Hooks>(hooks: &H, item: Item) {
    if H::HAS_INIT {
        // SAFETY: passed on from the caller.
        unsafe { hooks.fini(item) };
    }
}

// SAFETY: without checks the zone does it all. With checks items come from the same source, or from the
// pool, whose items overlap with none; an item on which something fails goes back; and one that is given
// back is accepted only if it is in use.
unsafe impl<P: Platform, H: Hooks, O: Origin<P>> ItemSource for Core<P, H, O> {
    fn layout(&self) -> Layout {
        self.zone.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        if self.edge().is_none() {
            return self.zone.import(into, request);
        }
        let request = request.without_waiting();
        let mut part = Part { core: self, items: into, count: 0 };
        while let Some(place) = part.items.get_mut(part.count) {
            // SAFETY: the hooks take null, as promised when they were put on the zone.
            match unsafe { self.alloc_checked(ptr::null_mut(), request, &mut || {}) } {
                Ok(item) => _ = place.write(item),
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
        match self.edge() {
            // SAFETY: the caller's duty is passed on unchanged.
            None => unsafe { self.zone.release(items) },
            Some(_) => Rest { core: self, items }.free(),
        }
    }

    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        // SAFETY: the hooks take null, as promised when they were put on the zone.
        unsafe { self.alloc_arg(ptr::null_mut(), request) }
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        match self.edge() {
            None => self.zone.alloc_or_flush(request, flush),
            // SAFETY: as above.
            Some(_) => unsafe { self.alloc_checked(ptr::null_mut(), request, flush) },
        }
    }

    unsafe fn free(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.free_arg(item, ptr::null_mut()) };
    }

    unsafe fn discard(&self, item: Item) {
        match self.edge() {
            // SAFETY: the caller's duty is passed on unchanged.
            None => unsafe { self.zone.discard(item) },
            // SAFETY: as above.
            Some(edge) => unsafe { self.free_checked(edge, item, ptr::null_mut(), true) },
        }
    }

    fn wanted(&self) -> bool {
        self.zone.wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        /// The caches and what is below give back their own also if a hook unwinds before.
        struct Below<'a, S: ItemSource>(&'a S, Reclaim);

        impl<S: ItemSource> Drop for Below<'_, S> {
            fn drop(&mut self) {
                self.0.reclaim(self.1);
            }
        }

        let _below = Below(&self.zone, mode);
        if let Some(edge) = self.edge()
            && mode >= Reclaim::Drain
        {
            self.flush(edge);
        }
    }

    fn visit_stats(&self, stats: &mut Stats) {
        self.zone.visit_stats(stats);
    }

    fn prefork(&self) {
        if let Some(edge) = self.edge() {
            edge.pool.prefork();
            edge.checks.prefork();
        }
        self.zone.prefork();
    }

    unsafe fn postfork(&self, process: Process) {
        if process == Process::Copy {
            self.alarm.nobody_acts();
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            self.zone.postfork(process);
            if let Some(edge) = self.edge() {
                edge.checks.postfork();
                edge.pool.postfork();
            }
        }
    }

    fn settle(&self) {
        // What was in quarantine may be in the caches then, also if a hook unwinds here.
        let _below = Otherwise(|| self.zone.settle());
        if let Some(edge) = self.edge()
            && self.zone.wanted()
        {
            self.flush(edge);
        }
    }
}
