//! Freeing, and what is said about pointers that cannot be freed.

use core::alloc::Layout;
use core::ptr::NonNull;

use uma::Platform;
use uma::core::{PageRun, PageSupplier};

use crate::error::{Fault, Misuse};
use crate::malloc::{Malloc, Place};
use crate::map::REST;
use crate::pinned::CorePtr;

impl<P: Platform> Malloc<P> {
    /// Frees memory, by its pointer alone (`kfree`).
    ///
    /// # Panics
    ///
    /// If the pointer is none of an allocation in use, as far as that is found (see
    /// [`Malloc`](Self#misuse)). [`try_free`](Self::try_free) returns an error instead.
    ///
    /// # Safety
    ///
    /// If the pointer is that of an allocation of this instance in use, its memory is used no more. The
    /// pointer is the one that was handed out, or has its provenance.
    #[inline(always)]
    pub unsafe fn free(&self, at: NonNull<u8>) {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Err(fault) = unsafe { self.release(at) } {
            self.refuse(at, fault);
        }
    }

    /// Frees memory, or says what is wrong with the pointer.
    ///
    /// # Errors
    ///
    /// [`Misuse`], and nothing has been done.
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free).
    #[inline(always)]
    pub unsafe fn try_free(&self, at: NonNull<u8>) -> Result<(), Misuse> {
        // SAFETY: the caller's duty is passed on unchanged.
        match unsafe { self.release(at) } {
            Ok(_) => Ok(()),
            Err(fault) => Err(self.misuse(at, fault)),
        }
    }

    /// Overwrites all bytes that may be used with zeros and frees the memory (`kfree_sensitive`), or says
    /// what is wrong with the pointer.
    ///
    /// # Errors
    ///
    /// [`Misuse`], and nothing has been done.
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free).
    pub unsafe fn try_free_zeroed(&self, at: NonNull<u8>) -> Result<(), Misuse> {
        let freed = self.made().ok_or(Fault::Foreign).and_then(|core| {
            let size = self.usable(core, at)?;
            let is_item = matches!(self.locate(core, at)?, Place::Class(_));
            // SAFETY: an item of a class begins there, and has room for a word; the slab is there.
            if is_item && unsafe { self.fields(core).marks.is_marked(at) } {
                return Err(Fault::DoubleFree);
            }
            for offset in 0..size {
                // SAFETY: the caller gives the memory up, which has so many bytes. Volatile, because nobody
                // seems to read it.
                unsafe { at.add(offset).write_volatile(0) };
            }
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { self.release(at) }
        });
        freed.map(drop).map_err(|fault| self.misuse(at, fault))
    }

    /// Frees memory whose size the caller knows (`kmem_free`), as it was given to [`alloc`](Self::alloc) or
    /// [`realloc`](Self::realloc). The check costs little: whether that size leads to the same class, or for a
    /// large run whether it is the very size.
    ///
    /// # Panics
    ///
    /// As [`free`](Self::free), and if the size is found to be another.
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free).
    #[inline(always)]
    pub unsafe fn free_sized(&self, at: NonNull<u8>, size: usize) {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Err(fault) = unsafe { self.release_sized(at, size, 1) } {
            self.refuse(at, fault);
        }
    }

    /// [`free_sized`](Self::free_sized), or what is wrong with the pointer or the size.
    ///
    /// # Errors
    ///
    /// [`Misuse`], and nothing has been done.
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free).
    #[inline(always)]
    pub unsafe fn try_free_sized(&self, at: NonNull<u8>, size: usize) -> Result<(), Misuse> {
        // SAFETY: the caller's duty is passed on unchanged.
        match unsafe { self.release_sized(at, size, 1) } {
            Ok(_) => Ok(()),
            Err(fault) => Err(self.misuse(at, fault)),
        }
    }

    /// Frees memory of a layout, as it was given to [`alloc_layout`](Self::alloc_layout) or
    /// [`realloc_layout`](Self::realloc_layout), with the check of [`free_sized`](Self::free_sized).
    ///
    /// # Panics
    ///
    /// As [`free_sized`](Self::free_sized).
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free).
    #[inline(always)]
    pub unsafe fn free_layout(&self, at: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's duty is passed on unchanged.
        if let Err(fault) = unsafe { self.release_sized(at, layout.size(), layout.align()) } {
            self.refuse(at, fault);
        }
    }

    /// Frees memory and returns how many bytes it had.
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free).
    #[inline(always)]
    pub(crate) unsafe fn release(&self, at: NonNull<u8>) -> Result<usize, Fault> {
        let core = self.made().ok_or(Fault::Foreign)?;
        // SAFETY: the class was found there; the caller's duty is passed on.
        unsafe {
            match self.class_at(core, at) {
                (_, Some(class)) if self.begins(core, class, at) => self.free_item(core, class, at),
                _ => self.release_slow(core, at),
            }
        }
    }

    /// The long way, for large runs and what is refused.
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free).
    #[cold]
    #[inline(never)]
    unsafe fn release_slow(&self, core: CorePtr<P>, at: NonNull<u8>) -> Result<usize, Fault> {
        match self.locate(core, at)? {
            // SAFETY: the caller's duty is passed on; an item of the class begins there.
            Place::Class(class) => unsafe { self.free_item(core, class, at) },
            // SAFETY: the caller's duty is passed on.
            Place::Large => unsafe { self.free_large(core, at) },
        }
    }

    /// # Safety
    ///
    /// As [`free`](Self::free).
    #[inline(always)]
    unsafe fn release_sized(
        &self,
        at: NonNull<u8>,
        size: usize,
        align: usize,
    ) -> Result<usize, Fault> {
        let core = self.made().ok_or(Fault::Foreign)?;
        // SAFETY: the class was found there; the caller's duty is passed on.
        unsafe {
            match self.class_at(core, at) {
                (_, Some(class))
                    if self.begins(core, class, at)
                        && self.table.class_for(size, align) == Some(class) =>
                {
                    self.free_item(core, class, at)
                }
                _ => self.release_sized_slow(core, at, size),
            }
        }
    }

    /// # Safety
    ///
    /// As [`free`](Self::free).
    #[cold]
    #[inline(never)]
    unsafe fn release_sized_slow(
        &self,
        core: CorePtr<P>,
        at: NonNull<u8>,
        size: usize,
    ) -> Result<usize, Fault> {
        match self.locate(core, at)? {
            Place::Large if self.large_size(core, at) == Some(size) => {
                // SAFETY: the caller's duty is passed on.
                unsafe { self.free_large(core, at) }
            }
            _ => Err(Fault::WrongSize { given: size }),
        }
    }

    /// # Safety
    ///
    /// As [`free`](Self::free), and an item of this class begins there.
    #[inline(always)]
    unsafe fn free_item(
        &self,
        core: CorePtr<P>,
        class: usize,
        at: NonNull<u8>,
    ) -> Result<usize, Fault> {
        let marks = self.fields(core).marks;
        // SAFETY: passed on to the caller; items have room for a word. The slab is there.
        if unsafe { marks.is_marked(at) } {
            return Err(Fault::DoubleFree);
        }
        // SAFETY: the caller gives the item up, which came from the zone of its class.
        unsafe {
            marks.put(at);
            core.class(class).zone.free(at.into());
        }
        Ok(self.table.size(class))
    }

    /// # Safety
    ///
    /// As [`free`](Self::free).
    #[inline(never)]
    unsafe fn free_large(&self, core: CorePtr<P>, at: NonNull<u8>) -> Result<usize, Fault> {
        let core = self.fields(core);
        // Another thread may have been quicker to free it.
        let (layout, flag) = core.map.remove(at.addr().get()).ok_or(Fault::DoubleFree)?;
        core.counters.gave(layout.size());
        // SAFETY: the parts of the run that `alloc_large` took apart; who took it out of the map has it.
        unsafe {
            let run = PageRun::from_parts(at, layout, false, flag);
            self.platform.pages().free_pages(run);
        }
        Ok(layout.size())
    }

    /// The report of a fault, with all that can be found out.
    #[cold]
    #[inline(never)]
    pub(crate) fn misuse(&self, at: NonNull<u8>, fault: Fault) -> Misuse {
        let addr = at.addr().get();
        let nothing = Misuse { name: self.name, addr, size: 0, fault };
        let Some(core) = self.made() else { return nothing };
        match usize::from(self.fields(core).map.tag(addr) & !REST).checked_sub(1) {
            Some(class) if class < self.table.count() => {
                Misuse { size: self.table.size(class), ..nothing }
            }
            _ => match self.large_around(core, addr) {
                Some(size) if fault == Fault::Foreign => {
                    Misuse { size, fault: Fault::Interior, ..nothing }
                }
                size => Misuse { size: size.unwrap_or(0), ..nothing },
            },
        }
    }

    /// Ends a call with a panic that says what is wrong.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse(&self, at: NonNull<u8>, fault: Fault) -> ! {
        panic!("uma-malloc: {}", self.misuse(at, fault))
    }
}
