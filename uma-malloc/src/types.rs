//! Types of memory: who uses how much of it, as in malloc(9).

use core::fmt;
use core::ptr::NonNull;

use uma::Platform;
use uma::core::{Name, Request};

use crate::error::{MallocError, Misuse};
use crate::malloc::Malloc;
use crate::sync::{AtomicI64, AtomicU64, Ordering};

/// Counters are spread over so many cache lines.
const STRIPES: usize = 16;
/// A stripe's balance enters the common one when it is this far from zero, in bytes.
const BATCH: i64 = 4096;

/// A named type of memory, and how much of it is in use (`struct malloc_type`, `MALLOC_DEFINE`).
///
/// The counters are spread over cache lines that threads are spread over, so that they hardly meet. Sums are
/// exact when nobody allocates or frees meanwhile. The high water is too low by at most 64 KiB, since
/// it is taken from a sum that stripes add to in batches.
///
/// ```
/// use uma_malloc::{Malloc, MallocType, Request, SizeClasses};
///
/// static HEAP: Malloc = Malloc::new("malloc", SizeClasses::MALLOC9);
/// static M_TEMP: MallocType = MallocType::new("temp", "short-lived buffers");
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let at = HEAP.alloc_type(100, &M_TEMP, Request::WAIT)?;
/// assert_eq!(M_TEMP.stats().bytes, 128);
/// // SAFETY: the memory is used no more.
/// unsafe { HEAP.free_type(at, &M_TEMP) };
/// assert_eq!(M_TEMP.stats().bytes, 0);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct MallocType {
    name: Name,
    description: &'static str,
    stripes: [Stripe; STRIPES],
    /// Bytes in use, less the balances of stripes.
    bytes: AtomicI64,
    high: AtomicI64,
    sizes: AtomicU64,
}

#[derive(Debug)]
#[repr(align(64))]
struct Stripe {
    allocs: AtomicU64,
    frees: AtomicU64,
    balance: AtomicI64,
}

impl Stripe {
    const fn new() -> Self {
        Self { allocs: AtomicU64::new(0), frees: AtomicU64::new(0), balance: AtomicI64::new(0) }
    }
}

/// Figures of a type of memory (`vmstat -m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TypeStats {
    /// The type's name.
    pub name: Name,
    /// Allocations that succeeded.
    pub allocs: u64,
    /// Allocations that were freed.
    pub frees: u64,
    /// Bytes in use, by the sizes of classes and runs.
    pub bytes: u64,
    /// The most that were, less at most 64 KiB.
    pub high: u64,
    /// The sizes that were allocated: bit `n` for sizes above `2^(n-1)` up to `2^n`.
    pub sizes: u64,
}

impl TypeStats {
    /// Allocations in use.
    pub const fn used(&self) -> u64 {
        self.allocs.saturating_sub(self.frees)
    }
}

impl fmt::Display for TypeStats {
    /// A line of `vmstat -m`: name, allocations and KiB in use, requests, and sizes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, bytes, allocs, .. } = self;
        write!(f, "{name:>16} {:>6} {:>5}K {allocs:>8} ", self.used(), bytes.div_ceil(1024))?;
        let mut before = "";
        for power in (0..64).filter(|power| self.sizes >> power & 1 != 0) {
            write!(f, "{before}{}", 1_u64 << power)?;
            before = ",";
        }
        Ok(())
    }
}

/// A type of memory ended with some of it in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeLeak {
    /// The type's name.
    pub name: Name,
    /// Allocations in use.
    pub used: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl fmt::Display for TypeLeak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, used, bytes } = self;
        write!(f, "memory type \"{name}\" leaked {used} allocations of {bytes} bytes")
    }
}

impl core::error::Error for TypeLeak {}

impl MallocType {
    /// A type of which nothing is in use.
    pub const fn new(name: &str, description: &'static str) -> Self {
        Self {
            name: Name::new(name),
            description,
            stripes: [const { Stripe::new() }; STRIPES],
            bytes: AtomicI64::new(0),
            high: AtomicI64::new(0),
            sizes: AtomicU64::new(0),
        }
    }

    /// The type's name.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// What it is for.
    pub const fn description(&self) -> &'static str {
        self.description
    }

    /// The stripe of this thread, more or less: by where its stack is.
    #[inline]
    fn stripe(&self) -> &Stripe {
        let here = 0_u8;
        let stack = core::ptr::from_ref(&here).addr() >> 16;
        let mixed = stack.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize);
        &self.stripes[mixed >> (usize::BITS - STRIPES.ilog2())]
    }

    /// Counts an allocation of `bytes` bytes (`malloc_type_allocated`).
    #[inline]
    pub fn allocated(&self, bytes: usize) {
        let stripe = self.stripe();
        stripe.allocs.fetch_add(1, Ordering::Relaxed);
        // The power of two that is no less, also above the largest that a `usize` holds.
        let bit = 1 << (usize::BITS - (bytes.max(1) - 1).leading_zeros()).min(63);
        if self.sizes.load(Ordering::Relaxed) & bit == 0 {
            self.sizes.fetch_or(bit, Ordering::Relaxed);
        }
        self.balance(stripe, bytes as i64);
    }

    /// Counts a free of `bytes` bytes (`malloc_type_freed`).
    #[inline]
    pub fn freed(&self, bytes: usize) {
        let stripe = self.stripe();
        stripe.frees.fetch_add(1, Ordering::Relaxed);
        self.balance(stripe, -(bytes as i64));
    }

    #[inline]
    fn balance(&self, stripe: &Stripe, bytes: i64) {
        let now = stripe.balance.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
        if now.unsigned_abs() >= BATCH.unsigned_abs() {
            self.settle(stripe);
        }
    }

    /// Adds a stripe's balance to the common one.
    #[cold]
    fn settle(&self, stripe: &Stripe) {
        let moved = stripe.balance.swap(0, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(moved, Ordering::Relaxed).wrapping_add(moved);
        if bytes > self.high.load(Ordering::Relaxed) {
            self.high.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    /// The figures.
    pub fn stats(&self) -> TypeStats {
        let sum = |of: fn(&Stripe) -> &AtomicU64| {
            self.stripes.iter().map(|stripe| of(stripe).load(Ordering::Relaxed)).sum()
        };
        for stripe in &self.stripes {
            self.settle(stripe);
        }
        // First frees, so that there are not more of them than allocations.
        let frees = sum(|stripe| &stripe.frees);
        let allocs = sum(|stripe| &stripe.allocs);
        let figure = |value: &AtomicI64| value.load(Ordering::Relaxed).max(0).unsigned_abs();
        TypeStats {
            name: self.name,
            allocs,
            frees,
            bytes: figure(&self.bytes),
            high: figure(&self.high),
            sizes: self.sizes.load(Ordering::Relaxed),
        }
    }

    /// Ends the type (`MALLOC_UNINIT`, `malloc_uninit`).
    ///
    /// # Errors
    ///
    /// [`TypeLeak`] if memory of the type is in use. It stays so.
    pub fn destroy(self) -> Result<(), TypeLeak> {
        let stats = self.stats();
        match stats.used() {
            0 => Ok(()),
            used => Err(TypeLeak { name: self.name, used, bytes: stats.bytes }),
        }
    }
}

impl<P: Platform> Malloc<P> {
    /// Allocates memory of a type (malloc(9)).
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc); nothing is counted then.
    #[inline]
    pub fn alloc_type(
        &self,
        size: usize,
        of: &MallocType,
        request: Request,
    ) -> Result<NonNull<u8>, MallocError> {
        let at = self.alloc(size, request)?;
        // It was allocated just now.
        let usable = match self.table.class_of(size) {
            Some(class) => self.table.size(class),
            None => self.usable_size(at).unwrap_or(size),
        };
        of.allocated(usable);
        Ok(at)
    }

    /// Frees memory of a type (free(9)).
    ///
    /// # Panics
    ///
    /// As [`free`](Self::free); nothing is counted then.
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free).
    #[inline]
    pub unsafe fn free_type(&self, at: NonNull<u8>, of: &MallocType) {
        // SAFETY: the caller's duty is passed on unchanged.
        match unsafe { self.release(at) } {
            Ok(bytes) => of.freed(bytes),
            Err(fault) => self.refuse(at, fault),
        }
    }

    /// [`free_type`](Self::free_type), or what is wrong with the pointer.
    ///
    /// # Errors
    ///
    /// [`Misuse`], and nothing has been done.
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free).
    #[inline]
    pub unsafe fn try_free_type(&self, at: NonNull<u8>, of: &MallocType) -> Result<(), Misuse> {
        // SAFETY: the caller's duty is passed on unchanged.
        match unsafe { self.release(at) } {
            Ok(bytes) => {
                of.freed(bytes);
                Ok(())
            }
            Err(fault) => Err(self.misuse(at, fault)),
        }
    }

    /// Changes the size of memory of a type (realloc(9)). See [`realloc`](Self::realloc).
    ///
    /// # Errors
    ///
    /// As [`realloc`](Self::realloc); nothing is counted then.
    ///
    /// # Panics
    ///
    /// As [`realloc`](Self::realloc).
    ///
    /// # Safety
    ///
    /// As [`realloc`](Self::realloc).
    pub unsafe fn realloc_type(
        &self,
        at: NonNull<u8>,
        size: usize,
        of: &MallocType,
        request: Request,
    ) -> Result<NonNull<u8>, MallocError> {
        let before = match self.usable_size(at) {
            Ok(before) => before,
            Err(misuse) => self.refuse(at, misuse.fault),
        };
        // SAFETY: the caller's duty is passed on unchanged.
        let new = unsafe { self.realloc(at, size, request) }?;
        if new != at {
            of.freed(before);
            of.allocated(self.usable_size(new).unwrap_or(size));
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_all_powers_are_noted() {
        for (bytes, bit) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (usize::MAX, 63)] {
            let of = MallocType::new("sizes", "");
            of.allocated(bytes);
            assert_eq!(of.stats().sizes, 1 << bit, "{bytes}");
        }
    }

    /// However threads meet on one stripe, no byte is lost, and the high water is near enough.
    #[test]
    fn nothing_is_lost_on_a_stripe() {
        let of = MallocType::new("stripe", "");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for step in 0..50_000 {
                        of.balance(&of.stripes[0], if step % 2 == 0 { 5000 } else { -5000 });
                    }
                });
            }
        });
        let high = of.stats().high;
        assert_eq!(of.stats().bytes, 0);
        // What is in use, what threads are about to move, and what is in stripes.
        assert!(high <= 8 * 5000 + STRIPES as u64 * 4096, "{high}");
    }
}
