//! Many items at once, and items set aside.

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use uma_core::{AllocError, Hooks, Item, ItemSource, Metadata, NoHooks, Request};

use crate::{Origin, OwnSlabs, Platform, RawZone, Zone, ZoneBox, ZoneError};

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static, O: Origin<P>> RawZone<P, H, O> {
    /// Allocates up to `into.len()` items, at least one, and returns how many: the first so many
    /// elements are initialised. It costs much less than one by one, and never waits.
    ///
    /// # Errors
    ///
    /// If not even one item could be had, why.
    pub fn alloc_some(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, ZoneError> {
        if into.is_empty() {
            return Ok(0);
        }
        self.import(into, request).map_err(|reason| self.error(reason))
    }

    /// Allocates `into.len()` items, or none (`kmem_cache_alloc_bulk`). Never waits.
    ///
    /// # Errors
    ///
    /// If not all could be had, why the first missing one could not.
    pub fn alloc_many(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<(), ZoneError> {
        let mut part = Part { zone: self, items: into, count: 0 };
        while part.count < part.items.len() {
            part.count += self.alloc_some(&mut part.items[part.count..], request)?;
        }
        core::mem::forget(part);
        Ok(())
    }

    /// Frees items (`kmem_cache_free_bulk`).
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free), for each of them.
    pub unsafe fn free_many(&self, items: &[Item]) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.release(items) };
    }

    /// Sets `count` items aside, so that taking them cannot fail: for code that must not fail half way
    /// (Linux' prefilled sheaves). Their ctor runs now. Never waits.
    ///
    /// # Errors
    ///
    /// If not all could be had, or there is no memory to list them.
    pub fn prefill(
        &self,
        count: usize,
        request: Request,
    ) -> Result<Prefilled<'_, P, H, O>, ZoneError> {
        let no_memory = || self.error(AllocError::Metadata);
        let mut list = Prefilled { zone: self, items: NonNull::dangling(), left: 0, capacity: 0 };
        if count == 0 {
            return Ok(list);
        }
        let layout = Layout::array::<Item>(count).map_err(|_| no_memory())?;
        let memory = self.platform().metadata().alloc_meta(layout).ok_or_else(no_memory)?;
        (list.items, list.capacity) = (memory.cast(), count);
        // SAFETY: the memory is ours and has room for so many.
        let room = unsafe { core::slice::from_raw_parts_mut(list.items.cast().as_ptr(), count) };
        self.alloc_many(room, request)?;
        list.left = count;
        Ok(list)
    }
}

/// Part of a batch, given back unless the whole comes about.
struct Part<'z, 'i, P: Platform, H: Hooks + Clone + Send + Sync + 'static, O: Origin<P>> {
    zone: &'z RawZone<P, H, O>,
    items: &'i mut [MaybeUninit<Item>],
    count: usize,
}

impl<P, H, O> Drop for Part<'_, '_, P, H, O>
where
    P: Platform,
    H: Hooks + Clone + Send + Sync + 'static,
    O: Origin<P>,
{
    fn drop(&mut self) {
        // SAFETY: the first `count` were initialised by `alloc_some`, and have gone to nobody.
        unsafe { self.zone.free_many(self.items[..self.count].assume_init_ref()) };
    }
}

/// Items set aside by [`RawZone::prefill`]. What is left when it is dropped goes back.
#[derive(Debug)]
pub struct Prefilled<
    'z,
    P: Platform = crate::DefaultPlatform,
    H: Hooks + Clone + Send + Sync + 'static = NoHooks,
    O: Origin<P> = OwnSlabs,
> {
    zone: &'z RawZone<P, H, O>,
    items: NonNull<Item>,
    left: usize,
    capacity: usize,
}

// SAFETY: it owns its list and the items in it, and zones may be used from any thread.
unsafe impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static, O: Origin<P>> Send
    for Prefilled<'_, P, H, O>
{
}

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static, O: Origin<P>> Prefilled<'_, P, H, O> {
    /// How many items are left.
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Takes an item, unless they are used up. It is the caller's like any other of the zone.
    pub const fn take(&mut self) -> Option<Item> {
        let Some(left) = self.left.checked_sub(1) else { return None };
        self.left = left;
        // SAFETY: the first `left` elements are initialised, and this one was the last of them.
        Some(unsafe { self.items.add(left).read() })
    }
}

impl<P, H, O> Drop for Prefilled<'_, P, H, O>
where
    P: Platform,
    H: Hooks + Clone + Send + Sync + 'static,
    O: Origin<P>,
{
    fn drop(&mut self) {
        struct List<'z, P: Platform>(&'z P, NonNull<Item>, usize);

        impl<P: Platform> Drop for List<'_, P> {
            fn drop(&mut self) {
                if let (Ok(layout), true) = (Layout::array::<Item>(self.2), self.2 != 0) {
                    // SAFETY: `prefill` got the memory with this layout.
                    unsafe { self.0.metadata().free_meta(self.1.cast(), layout) };
                }
            }
        }

        // The list goes also if a hook unwinds below.
        let _list = List(self.zone.platform(), self.items, self.capacity);
        // SAFETY: the first `left` elements are items that nobody has taken.
        unsafe {
            self.zone.free_many(core::slice::from_raw_parts(self.items.as_ptr(), self.left));
        }
    }
}

/// Room for values, set aside by [`Zone::prefill`].
#[derive(Debug)]
pub struct Reserved<'z, T, P: Platform = crate::DefaultPlatform> {
    zone: &'z Zone<T, P>,
    items: Prefilled<'z, P, NoHooks>,
}

impl<T, P: Platform> Zone<T, P> {
    /// Sets room for `count` values aside, so that placing them cannot fail. Never waits.
    ///
    /// ```
    /// # let zone = uma::Zone::<u64>::builder("leaf").build()?;
    /// let mut room = zone.prefill(3)?;
    /// // From here on, nothing can fail three times.
    /// let leaf = room.place(7).expect("there was room for three");
    /// assert_eq!((*leaf, room.left()), (7, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is not so much room.
    pub fn prefill(&self, count: usize) -> Result<Reserved<'_, T, P>, ZoneError> {
        let items = self.as_raw().prefill(count, Request::NOWAIT)?;
        Ok(Reserved { zone: self, items })
    }
}

impl<'z, T, P: Platform> Reserved<'z, T, P> {
    /// How many values there is room for.
    pub const fn left(&self) -> usize {
        self.items.left()
    }

    /// Places a value.
    ///
    /// # Errors
    ///
    /// The value, if the room is used up.
    pub fn place(&mut self, value: T) -> Result<ZoneBox<'z, T, P>, T> {
        match self.items.take() {
            Some(item) => Ok(self.zone.fill(item, value)),
            None => Err(value),
        }
    }
}
