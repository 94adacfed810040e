//! Zones of which every item has a copy for each CPU.
//!
//! ```text
//!   slab   | copies for CPU 0       | copies for CPU 1       | copies for CPU 2       |
//!          | a | b | c | d |  ..    | a | b | c | d |  ..    | a | b | c | d |  ..    |
//!            ^ the item               ^ + copy_distance        ^ + 2 * copy_distance
//! ```
//!
//! It is for counters and the like that each CPU, or each thread by some number of its own, changes without
//! disturbing the others: copies for different CPUs never share a page, those of different items for one CPU
//! do, so that a counter of 8 bytes costs 8 bytes for each CPU. A process is not told when it moves to
//! another CPU: change copies atomically, or with restartable sequences, or give each thread a number.

use core::ptr::NonNull;

use uma_core::{AllocError, Hooks, Item, Request};

use super::{Origin, RawZone};
use crate::{Platform, ZoneError, ZoneFlags};

impl<P: Platform, H: Hooks + Clone + Send + Sync + 'static, O: Origin<P>> RawZone<P, H, O> {
    /// Allocates an item of a [`PCPU`](ZoneFlags::PCPU) zone (`uma_zalloc_pcpu`), whose pointer is that of
    /// the copy for CPU 0. If `request` asks for zeros, all copies are zeroed. (A plain
    /// [`alloc`](Self::alloc) would zero that one only.) Free it as any other.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc); [`AllocError::Unsupported`] if the zone has no copies.
    pub fn alloc_pcpu(&self, request: Request) -> Result<Item, ZoneError> {
        if !self.flags().contains(ZoneFlags::PCPU) {
            return Err(self.error(AllocError::Unsupported));
        }
        let item = self.alloc(request)?;
        if request.wants_zero() {
            let size = self.item().map_or(0, |item| item.size());
            for cpu in 1..self.pcpu_copies() {
                if let Some(copy) = self.pcpu_copy(item, cpu) {
                    // SAFETY: the item is ours, and with it its copies, each of its size.
                    unsafe { copy.write_bytes(0, size) };
                }
            }
        }
        Ok(item)
    }

    /// How many copies an item has: one for each CPU of the platform in a [`PCPU`](ZoneFlags::PCPU)
    /// zone, else 1.
    pub fn pcpu_copies(&self) -> usize {
        self.made().and_then(|core| core.slabs()).map_or(1, |slabs| slabs.slab_layout().copies())
    }

    /// The copy of an item for a CPU (`zpcpu_get_cpu`), or `None` if there is none for that. The pointer is
    /// good as long as the item is in use.
    pub fn pcpu_copy(&self, item: Item, cpu: usize) -> Option<NonNull<u8>> {
        let layout = self.made()?.slabs()?.slab_layout();
        if cpu >= layout.copies() {
            return None;
        }
        NonNull::new(item.as_ptr().wrapping_add(cpu * layout.copy_distance()))
    }
}
