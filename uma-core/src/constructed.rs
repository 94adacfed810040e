//! Items kept constructed: init when an item comes up from below, fini when it goes back.

use core::alloc::Layout;
use core::mem::MaybeUninit;

use crate::{AllocError, Hooks, Item, ItemSource, Process, Reclaim, Request, Stats};

/// Runs [`Hooks::init`] on every item that comes up from `S` and [`Hooks::fini`] on every item that
/// goes back.
///
/// With a cache above it, items stay constructed between uses: that is the point of a zone. With a
/// source below it that is itself constructed, the hooks nest, as those of a secondary zone do.
///
/// If `init` refuses in the middle of a batch, the items before it are handed out and the rest go
/// back untouched. If a hook panics, every item of the batch goes back (each one constructed is taken
/// apart first) and the panic goes on.
#[derive(Debug)]
pub struct Constructed<S, H> {
    source: S,
    hooks: H,
}

impl<S, H> Constructed<S, H> {
    /// Puts `hooks` around `source`.
    ///
    /// # Safety
    ///
    /// The hooks suit the source: their init and fini touch no more of an item than its layout has, and
    /// may run on any thread that uses this value.
    pub const unsafe fn new(source: S, hooks: H) -> Self {
        Self { source, hooks }
    }

    /// The source below.
    pub const fn source(&self) -> &S {
        &self.source
    }
}

/// Gives a half-constructed batch back if `init` unwinds.
struct Rollback<'a, S: ItemSource, H: Hooks> {
    below: &'a Constructed<S, H>,
    items: &'a [Item],
    constructed: usize,
}

impl<S: ItemSource, H: Hooks> Drop for Rollback<'_, S, H> {
    fn drop(&mut self) {
        let (done, raw) = self.items.split_at(self.constructed);
        // SAFETY: `import` took all of these from the source just now and has handed out none; the
        // `done` ones went through init. The two halves do not overlap.
        unsafe {
            self.below.source.release(raw);
            self.below.release(done);
        }
    }
}

/// Takes items apart and gives them back, also if a `fini` unwinds.
struct Teardown<'a, S: ItemSource, H: Hooks> {
    below: &'a Constructed<S, H>,
    items: &'a [Item],
    next: usize,
    /// Whether caches below may not keep them either.
    discard: bool,
}

impl<S: ItemSource, H: Hooks> Teardown<'_, S, H> {
    fn run(&mut self) {
        while let Some(&item) = self.items.get(self.next) {
            self.next += 1;
            // SAFETY: the caller of `release` gave up these items, which came up through init; the
            // index has moved on, so none is taken apart twice.
            unsafe { self.below.hooks.fini(item) };
        }
    }
}

impl<S: ItemSource, H: Hooks> Drop for Teardown<'_, S, H> {
    fn drop(&mut self) {
        // After a panic of one fini the others still run; a second panic aborts, as it does when
        // the elements of a `Vec` are dropped.
        self.run();
        // SAFETY: the caller of `release` or `discard` gave these up, and they came from the source.
        unsafe {
            if self.discard {
                self.items.iter().for_each(|&item| self.below.source.discard(item));
            } else {
                self.below.source.release(self.items);
            }
        }
    }
}

impl<S: ItemSource, H: Hooks> Constructed<S, H> {
    /// Runs init over a batch fresh from the source and returns how many are constructed, from the
    /// front; the rest has gone back.
    fn construct(&self, items: &[Item], request: Request) -> Result<usize, AllocError> {
        let mut batch = Rollback { below: self, items, constructed: 0 };
        for &item in items {
            // SAFETY: the item came from the source just now, so it is memory of the zone's layout
            // and ours alone.
            if unsafe { self.hooks.init(item, request) }.is_err() {
                break;
            }
            batch.constructed += 1;
        }
        let constructed = batch.constructed;
        if constructed < items.len() {
            batch.items = &items[..constructed];
            // SAFETY: these came from the source and were not initialised.
            unsafe { self.source.release(&items[constructed..]) };
        }
        core::mem::forget(batch);
        if constructed == 0 { Err(AllocError::Refused) } else { Ok(constructed) }
    }
}

// SAFETY: items pass through unchanged; the guards above give back every item of a batch that is not
// handed out, also on unwinding. `wanted` and `alloc_or_flush` are passed on.
unsafe impl<S: ItemSource, H: Hooks> ItemSource for Constructed<S, H> {
    fn layout(&self) -> Layout {
        self.source.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        let count = self.source.import(into, request)?;
        if !H::HAS_INIT {
            return Ok(count);
        }
        // SAFETY: the source has initialised the first `count` elements (contract of `ItemSource`).
        let items = unsafe { into[..count].assume_init_ref() };
        self.construct(items, request)
    }

    unsafe fn release(&self, items: &[Item]) {
        if H::HAS_INIT {
            Teardown { below: self, items, next: 0, discard: false }.run();
        } else {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { self.source.release(items) }
        }
    }

    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        let item = self.source.alloc(request)?;
        if H::HAS_INIT {
            self.construct(&[item], request)?;
        }
        Ok(item)
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        let item = self.source.alloc_or_flush(request, flush)?;
        if H::HAS_INIT {
            self.construct(&[item], request)?;
        }
        Ok(item)
    }

    unsafe fn discard(&self, item: Item) {
        if H::HAS_INIT {
            let one = [item];
            let mut end = Teardown { below: self, items: &one, next: 0, discard: true };
            end.run();
        } else {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { self.source.discard(item) };
        }
    }

    fn wanted(&self) -> bool {
        self.source.wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        self.source.reclaim(mode);
    }

    fn visit_stats(&self, stats: &mut Stats) {
        self.source.visit_stats(stats);
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
