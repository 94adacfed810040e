//! What some suppliers can do beside supplying pages.
//!
//! Each power is an extension trait of [`PageSupplier`], and a method there says whether a supplier has
//! it: [`decommits`](PageSupplier::decommits), [`protects`](PageSupplier::protects),
//! [`regions`](PageSupplier::regions). All are safe to share as `&dyn`.

use core::ptr::NonNull;

use crate::{PageError, PageSupplier};

/// Gives back the memory behind whole pages inside a live run, which stays allocated.
///
/// ```text
///   |  page  |  page  |  page  |  page  |  page  |     a run, allocated all the time
///               ^ at, for len: 2 pages
///   |  kept  | no memory until written |  kept   |     afterwards
/// ```
///
/// # Safety
///
/// An implementation promises that a range given to [`decommit`](Self::decommit) stays part of its run,
/// valid for reads and writes at once and as long as the run lives, and that nothing outside of the range
/// changes. What cannot be promised for want of memory must not be implemented: a write to such a
/// page has no way to fail.
pub unsafe trait Decommit: PageSupplier {
    /// Gives back the memory behind `len` bytes at `at`. What they held is lost: afterwards their
    /// contents are unspecified, as those of a fresh run.
    ///
    /// It is a matter of cost only: a call may do nothing, but for the contents. A `len` of 0 does
    /// nothing.
    ///
    /// # Safety
    ///
    /// `at` and `len` are multiples of [`page_size`](PageSupplier::page_size), the range lies inside one
    /// live run of this supplier, none of it is [protected](Protect), and nobody reads or writes it
    /// during the call.
    unsafe fn decommit(&self, at: NonNull<u8>, len: usize);

    /// Passes a moment, while another thread is in [`decommit`](Self::decommit) and must be waited for. Give
    /// the CPU away if you can.
    fn relax(&self) {
        core::hint::spin_loop();
    }
}

/// Makes whole pages inside a live run inaccessible, and accessible again: guard pages.
///
/// ```text
///   |  page  |  page  |  page  |  page  |  guard |     whoever runs over the end stops here
///                                       ^ at, for len: 1 page
/// ```
///
/// # Safety
///
/// An implementation promises that a protected range stays part of its run and keeps its contents,
/// that after [`unprotect`](Self::unprotect) it is valid for reads and writes again, and that nothing
/// outside of the range changes. It should stop any access to what is protected; a fake may be content
/// to notice it.
pub unsafe trait Protect: PageSupplier {
    /// Makes `len` bytes at `at` inaccessible. A `len` of 0 does nothing. May be called on what is
    /// protected already.
    ///
    /// # Errors
    ///
    /// [`PageError::System`] if the system refused, as it may for want of entries in its tables. Any
    /// page of the range may then be protected or not: call [`unprotect`](Self::unprotect) before it
    /// is used.
    ///
    /// # Safety
    ///
    /// `at` and `len` are multiples of [`page_size`](PageSupplier::page_size), the range lies inside one
    /// live run of this supplier, and nobody reads or writes it from now on until it is unprotected.
    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError>;

    /// Makes `len` bytes at `at` accessible again, with the contents that they had. A `len` of 0 does
    /// nothing. May be called on what is not protected.
    ///
    /// # Errors
    ///
    /// As [`protect`](Self::protect); the range must not be used then, nor its run be given back.
    ///
    /// # Safety
    ///
    /// `at` and `len` are multiples of the page size, and the range lies inside one live run of this
    /// supplier.
    unsafe fn unprotect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError>;
}

/// A piece of memory that a supplier carves runs from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first byte. The pointer may be used for the runs inside only by who owns them.
    pub base: NonNull<u8>,
    /// Length in bytes.
    pub len: usize,
}

// SAFETY: an address and a length, which give no access by themselves.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Whether `len` bytes at `at` lie inside.
    pub fn contains(&self, at: *const u8, len: usize) -> bool {
        let offset = at.addr().wrapping_sub(self.base.addr().get());
        offset <= self.len && len <= self.len - offset
    }
}

/// Tells what memory all runs lie in, for those who must know it beforehand: a kernel in which buffers
/// are registered (io_uring), a device that is to reach them.
///
/// To register: read [`generation`](Self::generation), visit, register what was visited. When a buffer
/// is to be used and the generation is another, do so again.
///
/// # Safety
///
/// An implementation promises that every live run lies inside one region; that a region is neither
/// moved nor changed nor given up while a run inside it is live; that regions do not overlap; and that
/// the generation grows whenever a region comes or goes, at the latest before the first run inside it is
/// returned.
pub unsafe trait Regions: PageSupplier {
    /// A number that grows whenever a region comes or goes.
    fn generation(&self) -> u64;

    /// Calls `visit` for every region there is, without a lock held: regions may come and go meanwhile,
    /// and the generation tells.
    fn visit_regions(&self, visit: &mut dyn FnMut(Region));

    /// Whether `at` lies in one of the regions. Visits them all, unless the supplier knows a shorter way.
    ///
    /// Where suppliers share no memory it tells whose a live run is.
    fn holds(&self, at: *const u8) -> bool {
        let mut holds = false;
        self.visit_regions(&mut |region| holds |= region.contains(at, 1));
        holds
    }
}

/// The methods of [`PageSupplier`] by which an adaptor passes on the powers of the supplier below it, of
/// which it passes runs through unchanged.
macro_rules! says_what {
    ($inner:ident) => {
        fn decommits(&self) -> Option<&dyn Decommit> {
            self.$inner.decommits()
        }

        fn protects(&self) -> Option<&dyn Protect> {
            self.$inner.protects()
        }

        fn regions(&self) -> Option<&dyn Regions> {
            self.$inner.regions()
        }
    };
}

/// The powers themselves, for such an adaptor.
macro_rules! has_powers_of {
    ($inner:ident in $adaptor:ident) => {
        // SAFETY: runs are those of the supplier below, which keeps the contract.
        unsafe impl<S: Decommit> Decommit for $adaptor<S> {
            unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
                // SAFETY: the caller's duty is passed on unchanged.
                unsafe { self.$inner.decommit(at, len) }
            }

            fn relax(&self) {
                self.$inner.relax();
            }
        }

        // SAFETY: as above.
        unsafe impl<S: Protect> Protect for $adaptor<S> {
            unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
                // SAFETY: the caller's duty is passed on unchanged.
                unsafe { self.$inner.protect(at, len) }
            }

            unsafe fn unprotect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
                // SAFETY: the caller's duty is passed on unchanged.
                unsafe { self.$inner.unprotect(at, len) }
            }
        }

        // SAFETY: as above.
        unsafe impl<S: Regions> Regions for $adaptor<S> {
            fn generation(&self) -> u64 {
                self.$inner.generation()
            }

            fn visit_regions(&self, visit: &mut dyn FnMut(Region)) {
                self.$inner.visit_regions(visit);
            }

            fn holds(&self, at: *const u8) -> bool {
                self.$inner.holds(at)
            }
        }
    };
}

pub(crate) use {has_powers_of, says_what};

// SAFETY: forwards to an implementation that keeps the contract.
unsafe impl<P: Decommit + ?Sized> Decommit for &P {
    unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).decommit(at, len) }
    }

    fn relax(&self) {
        (**self).relax();
    }
}

// SAFETY: forwards to an implementation that keeps the contract.
unsafe impl<P: Protect + ?Sized> Protect for &P {
    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).protect(at, len) }
    }

    unsafe fn unprotect(&self, at: NonNull<u8>, len: usize) -> Result<(), PageError> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).unprotect(at, len) }
    }
}

// SAFETY: forwards to an implementation that keeps the contract.
unsafe impl<P: Regions + ?Sized> Regions for &P {
    fn generation(&self) -> u64 {
        (**self).generation()
    }

    fn visit_regions(&self, visit: &mut dyn FnMut(Region)) {
        (**self).visit_regions(visit);
    }

    fn holds(&self, at: *const u8) -> bool {
        (**self).holds(at)
    }
}
