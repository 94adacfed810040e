//! Items of one layout, in batches: the seam between all layers.

use core::alloc::Layout;
use core::mem::MaybeUninit;

use crate::{AllocError, Item, Reclaim, Request, Stats};

/// Which of two processes goes on after fork(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// The one that was there before, with all its threads.
    Original,
    /// The new one, with none but the thread that made it: whoever waited is gone.
    Copy,
}

/// A source of items of one layout: `uma_import` and `uma_release` of FreeBSD's zones, made the one
/// trait that every layer implements and stands on.
///
/// A keg is a source, so is a bucket cache in front of it, a limit around it, and a zone on top.
/// To put a cache or a limit around a pool of your own, implement the three required methods.
///
/// # Ownership
///
/// An item belongs to the source, or to the caller that got it from `import` or `alloc` until it goes
/// back by `release`, `free` or `discard`. Adaptors own what they hold. An item is given back to the
/// source (by value of this type) that it came from, possibly on another thread.
///
/// # Safety
///
/// An implementation promises that
///
/// - items it hands out are valid for reads and writes of `layout().size()` bytes, aligned to
///   `layout().align()`, and overlap no other item that is out;
/// - `import` returns at most `into.len()` and has initialised that many leading elements;
/// - it keeps no access to an item while it is out;
/// - if a method unwinds, nothing was handed out by it, and what it was given back is back (or
///   leaked, never handed out twice).
///
/// An adaptor must pass on [`wanted`](Self::wanted) and [`alloc_or_flush`](Self::alloc_or_flush) to
/// the source below it, or callers that wait at a limit below it may wait for ever.
pub unsafe trait ItemSource {
    /// The layout of every item.
    fn layout(&self) -> Layout;

    /// Takes up to `into.len()` items, at least one, and returns how many.
    ///
    /// Never waits for an item to be freed, whatever `request` says: fewer items at once are better
    /// than more items later. `into` must not be empty.
    ///
    /// # Errors
    ///
    /// If not even one item could be had, why.
    fn import(&self, into: &mut [MaybeUninit<Item>], request: Request)
    -> Result<usize, AllocError>;

    /// Gives items back.
    ///
    /// # Safety
    ///
    /// The caller owns every one of them, they came from this source and differ from one another. The
    /// slice may be empty.
    unsafe fn release(&self, items: &[Item]);

    /// Takes one item. Waits at a limit if `request` may.
    ///
    /// # Errors
    ///
    /// Why there is none.
    #[inline]
    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        let mut one = [MaybeUninit::uninit()];
        self.import(&mut one, request)?;
        // SAFETY: by the contract of the trait a successful import of a slice of one returned one,
        // and has initialised it.
        Ok(unsafe { one[0].assume_init() })
    }

    /// Takes one item; but before it fails for want of one, and before it waits, calls `flush`, in
    /// which the caller gives back the free items that it holds itself.
    ///
    /// It is what makes a limit of N exactly N: caches above a limit hold items that count against it.
    /// While a caller waits, [`wanted`](Self::wanted) is true, from before `flush` is called.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc).
    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        match self.alloc(request) {
            Err(error) if error.is_shortage() => {
                flush();
                self.alloc(request)
            }
            result => result,
        }
    }

    /// Gives one item back.
    ///
    /// # Safety
    ///
    /// As [`release`](Self::release).
    #[inline]
    unsafe fn free(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.release(&[item]) }
    }

    /// Gives one item back that no cache may keep, because its constructed state is in doubt: its
    /// ctor refused or its dtor panicked.
    ///
    /// # Safety
    ///
    /// As [`release`](Self::release).
    unsafe fn discard(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.free(item) }
    }

    /// Whether somebody waits for an item to come back. Caches above must then pass frees on, and
    /// hold nothing.
    fn wanted(&self) -> bool {
        false
    }

    /// Gives back what is held beyond need. May be slow, never waits for items in use.
    fn reclaim(&self, mode: Reclaim) {
        let _ = mode;
    }

    /// Fills in what this source knows of the zone, after asking the source below it.
    fn visit_stats(&self, stats: &mut Stats) {
        let _ = stats;
    }

    /// Takes every lock of this source and of those below it, and keeps them: for a copy of the
    /// process to be made (fork(2)) in which nothing is half done. A source without locks has nothing
    /// to do, and a reference leaves it to the owner. Until [`postfork`](Self::postfork) every other call
    /// may block.
    fn prefork(&self) {}

    /// Lets go of what [`prefork`](Self::prefork) took, in the process or in its copy.
    ///
    /// # Safety
    ///
    /// This thread, or the one that it is the copy of, called `prefork`, and this was not called since.
    unsafe fn postfork(&self, process: Process) {
        let _ = process;
    }

    /// Passes items on for which somebody waits, after [`postfork`](Self::postfork) and with every lock
    /// let go of: a caller that began to wait meanwhile may have found the caches empty because their
    /// items were being set aside.
    fn settle(&self) {}
}

/// A batch on its way to the caller, given back if what is left to do unwinds: room that goes back wakes
/// others.
pub(crate) struct Taken<'a, S: ItemSource> {
    source: &'a S,
    items: &'a [MaybeUninit<Item>],
}

impl<'a, S: ItemSource> Taken<'a, S> {
    /// # Safety
    ///
    /// The items are initialised, came from `source` in the state in which it hands them out, and are the caller's.
    pub(crate) const unsafe fn new(source: &'a S, items: &'a [MaybeUninit<Item>]) -> Self {
        Self { source, items }
    }

    pub(crate) const fn hand_out(self) {
        core::mem::forget(self);
    }
}

impl<S: ItemSource> Drop for Taken<'_, S> {
    fn drop(&mut self) {
        // SAFETY: see `new`.
        unsafe { self.source.release(self.items.assume_init_ref()) };
    }
}

// SAFETY: forwards every method, also the provided ones, to an implementation that keeps the
// contract. Two stacks over `&source` share it, which the contract allows: it is by value of source.
unsafe impl<S: ItemSource + ?Sized> ItemSource for &S {
    fn layout(&self) -> Layout {
        (**self).layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        (**self).import(into, request)
    }

    unsafe fn release(&self, items: &[Item]) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).release(items) }
    }

    #[inline]
    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        (**self).alloc(request)
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        (**self).alloc_or_flush(request, flush)
    }

    #[inline]
    unsafe fn free(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).free(item) }
    }

    unsafe fn discard(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).discard(item) }
    }

    fn wanted(&self) -> bool {
        (**self).wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        (**self).reclaim(mode);
    }

    fn visit_stats(&self, stats: &mut Stats) {
        (**self).visit_stats(stats);
    }

    fn settle(&self) {
        (**self).settle();
    }

    // `prefork` and `postfork` are not passed on: a source that several stacks share by reference has an
    // owner, who takes its locks once.
}
