//! Memory of any size that is freed with its size, as `kmem_alloc` and `umem_alloc` have it.
//!
//! The size that memory was allocated with is written behind it, wherever there is room:
//!
//! ```text
//!   | size ............ | slack ........... |      slack of 8 or more: the last 8 bytes are the tag
//!   | size ......................... | 1-7  |      less: so many bytes of the tag
//!   | size ............................... |      none: nothing
//! ```
//!
//! The tag is made of a secret, the address and the size, so that no memory holds it by chance. Where there is no
//! room for a whole one, 8 zero bytes take the place of what an earlier use may have left there. So a free with
//! another size is found out, and so is most writing past the end; not found is, of sizes 1 to 7 bytes below
//! that of their class, a free with the size of the class. A heap with guards finds that, too: it makes room for a
//! whole tag everywhere.

use core::ptr::NonNull;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use uma::Reclaim;
use uma::core::{AllocError, Request};
use uma_malloc::{Malloc, MallocError, MallocFault, SizeClasses};

use super::System;
use super::fork::once;
use super::objects::{Pages, Shared, Surroundings};
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// Bytes of a tag.
const TAG: usize = 8;

/// A heap of one system.
pub(crate) struct Heap {
    malloc: Malloc<Surroundings>,
    system: &'static System,
    fails: AtomicU64,
    guards: AtomicBool,
}

impl Heap {
    pub(crate) const fn new(
        name: &str,
        classes: &'static SizeClasses,
        pages: &'static Shared,
        system: &'static System,
    ) -> Self {
        let surroundings = Surroundings::new(Pages::Heap(pages), system);
        let malloc = Malloc::new_in(name, classes, surroundings);
        let (fails, guards) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { malloc, system, fails, guards }
    }

    /// Memory of so many bytes, which are not 0, aligned as its class is, or to `align` if that is not 0.
    pub(crate) fn alloc(
        &self,
        size: usize,
        align: usize,
        request: Request,
    ) -> Result<NonNull<u8>, AllocError> {
        let guard = if self.guards.load(Ordering::Relaxed) { TAG } else { 0 };
        let with = size.saturating_add(guard);
        let got = match align {
            0 => self.malloc.alloc(with, request),
            align => self.malloc.alloc_aligned(with, align, request),
        };
        match got {
            Ok(at) => {
                self.mark(at, size);
                Ok(at)
            }
            Err(MallocError { fault, .. }) => {
                self.fails.fetch_add(1, Ordering::Relaxed);
                Err(match fault {
                    MallocFault::Alloc(reason) => reason,
                    _ => AllocError::Unsupported,
                })
            }
        }
    }

    /// Writes the tag behind memory of so many bytes.
    fn mark(&self, at: NonNull<u8>, size: usize) {
        let Ok(all) = self.malloc.usable_size(at) else { return };
        // SAFETY: all of it is the caller's of `alloc`, who does not have it yet; no more than `all` bytes are
        // touched, and at least 8 are there, as in every class.
        unsafe {
            let end = at.add(all).cast::<[u8; TAG]>().sub(1);
            let slack = (all - size).min(TAG);
            if slack == TAG {
                end.write(tag(at, size));
            } else if size >= TAG {
                end.cast::<[u8; TAG]>().write_unaligned([0; TAG]);
                let bytes = tag(at, size);
                at.add(size).copy_from_nonoverlapping(NonNull::from(&bytes).cast(), slack);
            }
        }
    }

    /// Whether memory carries the tag of this size, as far as there is room for one.
    ///
    /// # Safety
    ///
    /// The memory has `all` bytes, no fewer than `size`, and nobody writes to it.
    unsafe fn is_marked(&self, at: NonNull<u8>, size: usize, all: usize) -> bool {
        let slack = (all - size).min(TAG);
        let from = if slack == TAG { all - TAG } else { size };
        let mut bytes = [0; TAG];
        // SAFETY: the bytes lie between `size` and `all`.
        unsafe { at.add(from).copy_to_nonoverlapping(NonNull::from(&mut bytes).cast(), slack) };
        bytes[..slack] == tag(at, size)[..slack] || (size < TAG && slack < TAG)
    }

    /// Frees memory of so many bytes. Tells of what is none, or has another size, and leaves it alone then.
    ///
    /// # Safety
    ///
    /// If it is memory of this heap, nobody uses it any more.
    pub(crate) unsafe fn free(&self, function: &'static str, at: NonNull<u8>, size: usize) {
        let all = match self.malloc.usable_size(at) {
            Ok(all) => all,
            Err(misuse) => return self.system.misuse(function, format_args!("{misuse}")),
        };
        // SAFETY: the memory has `all` bytes.
        if size > all || size == 0 || !unsafe { self.is_marked(at, size, all) } {
            return self.wrong_size(function, at, size, all);
        }
        if size == all
            && let Some(other) = self.other_size(at, all)
        {
            let address = at.addr();
            return self.system.misuse(
                function,
                format_args!("{address:#x}: freed with {size} bytes, allocated with {other}"),
            );
        }
        // SAFETY: the caller's duty is passed on unchanged.
        if let Err(misuse) = unsafe { self.malloc.try_free(at) } {
            self.system.misuse(function, format_args!("{misuse}"));
        }
    }

    /// The size of which memory carries a whole tag.
    fn other_size(&self, at: NonNull<u8>, all: usize) -> Option<usize> {
        // SAFETY: the memory has `all` bytes, 8 at least.
        let found = unsafe { at.add(all).cast::<[u8; TAG]>().sub(1).read() };
        let size = (u64::from_ne_bytes(found) ^ key(at)) as usize;
        (size != 0 && size <= all.saturating_sub(TAG) && found == tag(at, size)).then_some(size)
    }

    #[cold]
    fn wrong_size(&self, function: &'static str, at: NonNull<u8>, size: usize, all: usize) {
        let address = at.addr();
        match self.other_size(at, all) {
            Some(other) => self.system.misuse(
                function,
                format_args!("{address:#x}: freed with {size} bytes, allocated with {other}"),
            ),
            None => self.system.misuse(
                function,
                format_args!(
                    "{address:#x}: freed with {size} bytes, which is not its size (of {all} at most), or it \
                     was written to past its end"
                ),
            ),
        }
    }

    /// From now on there is a whole tag behind everything.
    pub(crate) fn guard(&self) {
        self.guards.store(true, Ordering::Relaxed);
    }

    pub(crate) fn reclaim(&self, mode: Reclaim) {
        self.malloc.reclaim(mode);
    }

    pub(crate) fn used(&self) -> u64 {
        self.malloc.stats().used()
    }

    /// Allocations and frees, ever.
    pub(crate) fn traffic(&self) -> u64 {
        let stats = self.malloc.stats();
        stats.allocs + stats.frees
    }
}

/// The secret of the process, and the address.
fn key(at: NonNull<u8>) -> u64 {
    static SECRET: OnceLock<u64> = OnceLock::new();
    // The upper half only, and then the address: so the size can be read out of a tag.
    let secret = *once(&SECRET, || RandomState::new().hash_one(TAG));
    secret ^ (at.addr().get() as u64).rotate_left(17)
}

fn tag(at: NonNull<u8>, size: usize) -> [u8; TAG] {
    (key(at) ^ size as u64).to_ne_bytes()
}
