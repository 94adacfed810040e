//! What a map asks of the system for pages that it has mapped, and the figures of that.

use std::ptr::NonNull;

use uma_core::RawMutex;

use super::space::Space;
use super::stats::{less, more};
use crate::sync::Ordering;
use crate::sys::{Errno, System};

impl<L: RawMutex, S: System + Clone> Space<L, S> {
    /// Makes pages accessible.
    ///
    /// # Safety
    ///
    /// They are in the map.
    pub(super) unsafe fn show(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: passed on to the caller.
        self.figures.commit.count(unsafe { self.system.unwall(at, len) })
    }

    /// Makes pages inaccessible.
    ///
    /// # Safety
    ///
    /// They are in the map, and nobody touches them.
    pub(super) unsafe fn hide(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        if len == 0 {
            return Ok(());
        }
        // SAFETY: passed on to the caller.
        let hidden = self.figures.protect.count(unsafe { self.system.protect(at, len) });
        hidden.inspect_err(|_| self.exposed.store(true, Ordering::Relaxed))
    }

    /// Makes pages read as zero, without their memory if the system takes it.
    ///
    /// # Safety
    ///
    /// They are in the map, accessible, and nobody misses what is in them.
    pub(super) unsafe fn clear(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: passed on to the caller.
        unsafe {
            if self.figures.discard.count(self.system.discard(at, len)).is_err() {
                at.write_bytes(0, len);
            }
        }
    }

    /// Locks pages in memory. If that fails, none is.
    ///
    /// # Safety
    ///
    /// They are in the map, and accessible.
    pub(super) unsafe fn lock(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        // SAFETY: passed on to the caller.
        let locked = self.figures.lock.count(unsafe { self.system.lock(at, len) });
        match locked {
            Ok(()) => more(&self.figures.locked, len),
            // SAFETY: as above. They may be marked as locked already.
            Err(_) => drop(unsafe { self.system.unlock(at, len) }),
        }
        locked
    }

    /// Ends that. If the system refuses, the pages stay in memory; nobody is the worse for it.
    ///
    /// # Safety
    ///
    /// They are in the map, and locked.
    pub(super) unsafe fn unlock(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: passed on to the caller.
        let _ = self.figures.lock.count(unsafe { self.system.unlock(at, len) });
        less(&self.figures.locked, len);
    }
}
