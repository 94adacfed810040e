//! Prefilled sheaves: objects set aside, so that taking them cannot fail.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

use super::{Gfp, KmemCache};

/// Objects of one cache, set aside (`struct slab_sheaf`). Dropping it gives them back
/// (`kmem_cache_return_sheaf`).
#[derive(Debug)]
pub struct Sheaf<'c> {
    cache: &'c KmemCache,
    objects: Vec<NonNull<u8>>,
}

// SAFETY: the objects are the sheaf's alone, and caches may be used from any thread.
unsafe impl Send for Sheaf<'_> {}

impl KmemCache {
    /// A sheaf of `count` objects, or `None` (`kmem_cache_prefill_sheaf`).
    pub fn prefill_sheaf(&self, gfp: Gfp, count: usize) -> Option<Sheaf<'_>> {
        let mut sheaf = Sheaf { cache: self, objects: Vec::new() };
        sheaf.refill(gfp, count).then_some(sheaf)
    }
}

impl<'c> Sheaf<'c> {
    /// Brings it to `count` objects at least (`kmem_cache_refill_sheaf`). Returns whether that was possible;
    /// if not, it has what it had.
    pub fn refill(&mut self, gfp: Gfp, count: usize) -> bool {
        let missing = count.saturating_sub(self.objects.len());
        if missing == 0 {
            return true;
        }
        if self.objects.try_reserve(missing).is_err() {
            return false;
        }
        // Zeroed as they are taken, if at all: they may have been in use meanwhile.
        let gfp = gfp.difference(Gfp::ZERO);
        let room: &mut [MaybeUninit<NonNull<u8>>] =
            &mut self.objects.spare_capacity_mut()[..missing];
        let filled = self.cache.alloc_bulk(gfp, room);
        // SAFETY: so many were initialised, from the front.
        unsafe { self.objects.set_len(self.objects.len() + filled) };
        filled == missing
    }

    /// Takes an object (`kmem_cache_alloc_from_sheaf`), zeroed if `gfp` says so. `None` if there is none left.
    pub fn alloc(&mut self, gfp: Gfp) -> Option<NonNull<u8>> {
        let object = self.objects.pop()?;
        if gfp.contains(Gfp::ZERO) && !self.cache.has_constructor() {
            // SAFETY: the object is ours and so large.
            unsafe { object.write_bytes(0, self.cache.size()) };
        }
        Some(object)
    }

    /// How many objects are left (`kmem_cache_sheaf_size`).
    pub fn size(&self) -> usize {
        self.objects.len()
    }

    /// The cache they are of.
    pub const fn cache(&self) -> &'c KmemCache {
        self.cache
    }
}

impl Drop for Sheaf<'_> {
    fn drop(&mut self) {
        // SAFETY: they came from this cache, and nobody has taken them.
        unsafe { self.cache.free_bulk(&self.objects) };
    }
}
