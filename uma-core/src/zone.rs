//! The top of the stack: a name, and what happens at every use.

use core::alloc::Layout;
use core::mem::MaybeUninit;

use crate::sync::{AtomicU64, Ordering, const_unless_modelled};
use crate::{AllocError, Hooks, Item, ItemSource, Name, NoHooks, Process, Reclaim, Request, Stats};

/// A zone: named, with a ctor and a dtor that run at every use, over any [`ItemSource`].
///
/// It is `uma_zone_t` of zone(9) without the memory behind it, which is `S`. A zone is itself a
/// source, so another zone can stand on it.
///
/// ```
/// use uma_core::{Zone, NoHooks};
/// # fn demo<S: uma_core::ItemSource>(source: S) -> Result<(), uma_core::AllocError> {
/// # use uma_core::Request;
/// let zone = Zone::new("node", source);
/// let item = zone.alloc(Request::NOWAIT)?;
/// // SAFETY: the item came from this zone and is used no more.
/// unsafe { zone.free(item) };
/// # Ok(()) }
/// ```
// In this order: what a hit touches is at the front of the source.
#[repr(C)]
#[derive(Debug)]
pub struct Zone<S, H = NoHooks> {
    source: S,
    hooks: H,
    fails: AtomicU64,
    name: Name,
}

impl<S> Zone<S> {
    const_unless_modelled! {
        /// A zone whose items have no ctor or dtor.
        pub const fn new(name: &str, source: S) -> Self {
            // SAFETY: no hooks touch no items.
            unsafe { Self::with_hooks(Name::new(name), source, NoHooks) }
        }
    }
}

impl<S, H> Zone<S, H> {
    const_unless_modelled! {
        /// A zone with hooks, of which it runs ctor and dtor. (Init and fini are run by
        /// [`Constructed`](crate::Constructed), further down.)
        ///
        /// # Safety
        ///
        /// The hooks suit the source: their ctor and dtor touch no more of an item than its layout has, take
        /// a null `arg` from callers that give none, find items as the hooks of `Constructed` below leave
        /// them, and may run on any thread that uses this value.
        pub const unsafe fn with_hooks(name: Name, source: S, hooks: H) -> Self {
            Self { source, hooks, fails: AtomicU64::new(0), name }
        }
    }

    /// The zone's name.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The source below.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// The zone's own hooks.
    pub const fn hooks(&self) -> &H {
        &self.hooks
    }
}

/// Gives an item up if its ctor or dtor does not come to a good end.
struct Discard<'a, S: ItemSource> {
    source: &'a S,
    item: Item,
}

impl<S: ItemSource> Drop for Discard<'_, S> {
    fn drop(&mut self) {
        // SAFETY: the item came from this source and is owned by the zone while a hook runs on it;
        // the guard is forgotten where the item goes another way.
        unsafe { self.source.discard(self.item) }
    }
}

impl<S: ItemSource, H: Hooks> Zone<S, H> {
    /// Allocates an item (`uma_zalloc`). Blocks only if `request` may wait.
    ///
    /// # Errors
    ///
    /// Why there is none. The ctor's refusal is [`AllocError::Refused`], also for a request that may
    /// wait.
    #[inline(always)]
    pub fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        // SAFETY: whoever put the hooks on the zone promised that they take null.
        unsafe { self.alloc_arg(core::ptr::null_mut(), request) }
    }

    /// Allocates an item and passes `arg` to its ctor (`uma_zalloc_arg`).
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc).
    ///
    /// # Safety
    ///
    /// `arg` is what the zone's ctor expects.
    #[inline(always)]
    pub unsafe fn alloc_arg(&self, arg: *mut (), request: Request) -> Result<Item, AllocError> {
        match self.source.alloc(request) {
            // SAFETY: the caller's duty is passed on unchanged.
            Ok(item) => unsafe { self.prepare(item, arg, request) },
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Frees an item (`uma_zfree`).
    ///
    /// # Safety
    ///
    /// The item came from [`alloc`](Self::alloc) of this zone, its pointer is the one returned there
    /// (not one made from a reference), and it is not used or freed again.
    #[inline(always)]
    pub unsafe fn free(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.free_arg(item, core::ptr::null_mut()) }
    }

    /// Frees an item and passes `arg` to its dtor (`uma_zfree_arg`).
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free), and `arg` is what the dtor expects.
    #[inline(always)]
    pub unsafe fn free_arg(&self, item: Item, arg: *mut ()) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.finish(item, arg) };
        // SAFETY: the item came from the source, and the caller gave it up.
        unsafe { self.source.free(item) };
    }

    /// Ends the use of an item that will go back to the source past this zone: runs the dtor. If that
    /// panics, the item has gone back. For callers that know a shorter way to the source's caches.
    ///
    /// # Safety
    ///
    /// As [`free_arg`](Self::free_arg), but the item is still the caller's when this returns.
    #[inline(always)]
    pub unsafe fn finish(&self, item: Item, arg: *mut ()) {
        let doubtful = Discard { source: &self.source, item };
        // SAFETY: the caller gives up an item that went through ctor.
        unsafe { self.hooks.dtor(item, arg) };
        core::mem::forget(doubtful);
    }

    /// Gives back what is held beyond need (`uma_zone_reclaim`). May be slow; never waits for items
    /// in use.
    pub fn reclaim(&self, mode: Reclaim) {
        self.source.reclaim(mode);
    }

    /// The zone's figures.
    pub fn stats(&self) -> Stats {
        let layout = self.source.layout();
        let mut stats = Stats { size: layout.size(), align: layout.align(), ..Stats::default() };
        self.visit_stats(&mut stats);
        stats
    }

    /// Prepares an item that came past this zone, from its source: runs the ctor, then zeroes if asked to
    /// (`M_ZERO` comes after the ctor, as in zone(9)). For callers that know a shorter way to the source's
    /// caches.
    ///
    /// # Errors
    ///
    /// [`AllocError::Refused`] if the ctor does; the item has gone back.
    ///
    /// # Safety
    ///
    /// The item came from the source just now, and `arg` is what the ctor expects.
    #[inline(always)]
    pub unsafe fn prepare(
        &self,
        item: Item,
        arg: *mut (),
        request: Request,
    ) -> Result<Item, AllocError> {
        let doubtful = Discard { source: &self.source, item };
        // SAFETY: the item came through init or the last dtor; the rest is passed on from the caller.
        let made = unsafe { self.hooks.ctor(item, arg, request) };
        if made.is_err() {
            drop(doubtful);
            return Err(self.failed(AllocError::Refused));
        }
        core::mem::forget(doubtful);
        if request.wants_zero() {
            // SAFETY: the item is ours and has the size of the layout.
            unsafe { item.as_ptr().write_bytes(0, self.source.layout().size()) };
        }
        Ok(item)
    }

    /// Counts an allocation that failed past this zone. For callers that know another way to its source.
    #[cold]
    pub fn failed(&self, error: AllocError) -> AllocError {
        self.fails.fetch_add(1, Ordering::Relaxed);
        error
    }
}

/// Ends the use of a batch of items, and gives them back in one go, also if a dtor unwinds.
struct Batch<'a, S: ItemSource, H: Hooks> {
    zone: &'a Zone<S, H>,
    items: &'a [Item],
    /// How many dtors have come to their end.
    done: usize,
}

impl<S: ItemSource, H: Hooks> Batch<'_, S, H> {
    fn run(mut self) {
        while let Some(&item) = self.items.get(self.done) {
            // SAFETY: the caller gave these items up, they went through ctor, and `done` moves on.
            unsafe { self.zone.hooks.dtor(item, core::ptr::null_mut()) };
            self.done += 1;
        }
    }
}

impl<S: ItemSource, H: Hooks> Drop for Batch<'_, S, H> {
    fn drop(&mut self) {
        let (done, rest) = self.items.split_at(self.done);
        // SAFETY: the caller gave these up, they came from the source, and their dtor has run.
        unsafe { self.zone.source.release(done) };
        // After a panic: the item whose dtor it was is in doubt, and the others are still in use.
        if let Some((&doubtful, rest)) = rest.split_first() {
            // SAFETY: the caller gave it up, and it came from the source.
            unsafe { self.zone.source.discard(doubtful) };
            Batch { zone: self.zone, items: rest, done: 0 }.run();
        }
    }
}

// SAFETY: items pass through unchanged; every item on which a hook fails or unwinds goes back.
unsafe impl<S: ItemSource, H: Hooks> ItemSource for Zone<S, H> {
    fn layout(&self) -> Layout {
        self.source.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        let count = self.source.import(into, request).map_err(|error| self.failed(error))?;
        // SAFETY: the source has initialised the first `count` elements.
        let items = unsafe { into[..count].assume_init_ref() };
        let mut batch = Unwind { zone: self, items, ready: 0, taken: 0 };
        for &item in items {
            batch.taken += 1;
            // SAFETY: the item came from the source just now; the hooks take null, as promised when they
            // were put on the zone.
            let prepared = unsafe { self.prepare(item, core::ptr::null_mut(), request) };
            if let Err(error) = prepared {
                // Those that are ready are the caller's, unless the rest unwinds as it goes back.
                let Unwind { ready, taken, .. } = batch;
                batch.items = &items[..taken];
                // SAFETY: these came from the source and their ctor has not run.
                unsafe { self.source.release(&items[taken..]) };
                core::mem::forget(batch);
                return if ready == 0 { Err(error) } else { Ok(ready) };
            }
            batch.ready += 1;
        }
        core::mem::forget(batch);
        Ok(count)
    }

    unsafe fn release(&self, items: &[Item]) {
        Batch { zone: self, items, done: 0 }.run();
    }

    #[inline]
    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        Self::alloc(self, request)
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        match self.source.alloc_or_flush(request, flush) {
            // SAFETY: as in `import`.
            Ok(item) => unsafe { self.prepare(item, core::ptr::null_mut(), request) },
            Err(error) => Err(self.failed(error)),
        }
    }

    #[inline]
    unsafe fn free(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { Self::free(self, item) }
    }

    unsafe fn discard(&self, item: Item) {
        // This zone's own ctor did its work, so its dtor undoes it; then no cache keeps the item.
        let _discard = Discard { source: &self.source, item };
        // SAFETY: the caller gives up an item that went through ctor.
        unsafe { self.hooks.dtor(item, core::ptr::null_mut()) };
    }

    fn wanted(&self) -> bool {
        self.source.wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        self.source.reclaim(mode);
    }

    fn visit_stats(&self, stats: &mut Stats) {
        self.source.visit_stats(stats);
        stats.fails += self.fails.load(Ordering::Relaxed);
    }

    fn prefork(&self) {
        self.source.prefork();
    }

    unsafe fn postfork(&self, process: Process) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.source.postfork(process) }
    }

    fn settle(&self) {
        self.source.settle();
    }
}

/// Gives a batch back if a ctor unwinds in the middle of it. The item whose ctor it was is neither
/// ready nor rest: it has been discarded.
struct Unwind<'a, S: ItemSource, H: Hooks> {
    zone: &'a Zone<S, H>,
    items: &'a [Item],
    ready: usize,
    taken: usize,
}

impl<S: ItemSource, H: Hooks> Drop for Unwind<'_, S, H> {
    fn drop(&mut self) {
        // SAFETY: these came from the source, have been handed to nobody, and their ctor has not run;
        // those before `ready` went through ctor.
        unsafe {
            self.zone.source.release(&self.items[self.taken..]);
            self.zone.release(&self.items[..self.ready]);
        }
    }
}
