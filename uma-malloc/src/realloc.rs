//! Allocations that change their size.

use core::alloc::Layout;
use core::ptr::NonNull;

use uma::Platform;
use uma::core::{PageSupplier, Request};

use crate::error::{MallocError, MallocFault};
use crate::malloc::{Malloc, Place};
use crate::map::GRANULE;
use crate::pinned::CorePtr;
use crate::sync::Ordering;

impl<P: Platform> Malloc<P> {
    /// Changes the size of an allocation, and returns where it is now: in the same place if the new size is of
    /// the same class, or if it is still large and fits the run. A run that shrinks gives the memory behind
    /// its last pages back, if the page supplier can take it; it keeps the addresses. Contents stay, up to the
    /// smaller size; what is beyond is unspecified, also if the request wants zeros.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc); the allocation is unchanged.
    ///
    /// # Panics
    ///
    /// As [`free`](Self::free).
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free), but if this fails or returns the same pointer the memory stays the caller's.
    #[inline]
    pub unsafe fn realloc(
        &self,
        at: NonNull<u8>,
        size: usize,
        request: Request,
    ) -> Result<NonNull<u8>, MallocError> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.change(at, size, 1, request) }
    }

    /// [`realloc`](Self::realloc) for memory of a layout: the new one has its alignment.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc); the allocation is unchanged.
    ///
    /// # Panics
    ///
    /// As [`free`](Self::free).
    ///
    /// # Safety
    ///
    /// As [`realloc`](Self::realloc).
    #[inline]
    pub unsafe fn realloc_layout(
        &self,
        at: NonNull<u8>,
        old: Layout,
        size: usize,
        request: Request,
    ) -> Result<NonNull<u8>, MallocError> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.change(at, size, old.align(), request) }
    }

    /// [`realloc`](Self::realloc) to an alignment, which the allocation need not have had: then it moves.
    ///
    /// # Errors
    ///
    /// As [`alloc_aligned`](Self::alloc_aligned); the allocation is unchanged.
    ///
    /// # Panics
    ///
    /// As [`free`](Self::free).
    ///
    /// # Safety
    ///
    /// As [`realloc`](Self::realloc).
    pub unsafe fn realloc_aligned(
        &self,
        at: NonNull<u8>,
        size: usize,
        align: usize,
        request: Request,
    ) -> Result<NonNull<u8>, MallocError> {
        if !align.is_power_of_two() {
            return Err(self.error(size, align, MallocFault::BadAlign));
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.change(at, size, align, request) }
    }

    /// # Safety
    ///
    /// As [`realloc`](Self::realloc); the alignment is a power of two.
    unsafe fn change(
        &self,
        at: NonNull<u8>,
        size: usize,
        align: usize,
        request: Request,
    ) -> Result<NonNull<u8>, MallocError> {
        let Some(core) = self.made() else { self.refuse(at, crate::Fault::Foreign) };
        let place = self.locate(core, at).unwrap_or_else(|fault| self.refuse(at, fault));
        let class = self.table.class_for(size, align);
        let usable = match place {
            Place::Class(old) => {
                // SAFETY: passed on to the caller; an item begins there.
                if unsafe { self.fields(core).marks.is_marked(at) } {
                    self.refuse(at, crate::Fault::DoubleFree);
                }
                if class == Some(old) {
                    return Ok(at);
                }
                self.table.size(old)
            }
            Place::Large => {
                let run = self.usable(core, at).unwrap_or_else(|fault| self.refuse(at, fault));
                if class.is_none() && size <= run && at.addr().get().is_multiple_of(align) {
                    // SAFETY: passed on to the caller.
                    unsafe { self.resize_run(core, at, size, run) };
                    return Ok(at);
                }
                run
            }
        };
        if size > isize::MAX.unsigned_abs() {
            return Err(self.error(size, align, MallocFault::TooLarge));
        }
        let new = self.alloc_aligned(size, align, request)?;
        // SAFETY: both are the caller's and have so many bytes; they are two allocations.
        unsafe {
            new.copy_from_nonoverlapping(at, usable.min(size));
            self.free(at);
        }
        Ok(new)
    }

    /// Enters the new size of a large run that stays where it is.
    ///
    /// # Safety
    ///
    /// The caller has the run, which has `run` bytes, at least `size`.
    unsafe fn resize_run(&self, core: CorePtr<P>, at: NonNull<u8>, size: usize, run: usize) {
        let Some(record) = self.fields(core).map.record(at.addr().get()) else { return };
        let before = record.size.swap(size, Ordering::Relaxed);
        let pages = self.platform.pages();
        let page = pages.page_size().max(GRANULE);
        // The size is no more than that of the run, which is a multiple of the page size.
        let (keep, had) = (size.next_multiple_of(page), before.next_multiple_of(page).min(run));
        if keep < had
            && let Some(supplier) = pages.decommits()
        {
            // SAFETY: whole pages of a live run, behind what the caller goes on to use.
            unsafe { supplier.decommit(at.add(keep), run - keep) };
        }
    }
}
