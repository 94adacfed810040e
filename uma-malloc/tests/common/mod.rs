//! A platform to test instances on: any supplier of pages, and books that tell whether everything came back.
#![allow(dead_code, reason = "each test uses some of it")]

use std::fmt;
use std::ptr::NonNull;
use std::sync::Mutex;

use parking_lot::RawMutex;
use uma::cache::{CpuLocks, CurrentCpu};
use uma::core::PageSupplier;
use uma::{Park, Platform, Registry};
use uma_malloc::Malloc;
use uma_testkit::{HeapMeta, token};

/// One CPU, so that what is cached where does not depend on the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OneCpu;

impl CurrentCpu for OneCpu {
    fn cpus(&self) -> usize {
        1
    }

    fn current(&self) -> usize {
        0
    }

    fn relax(&self) {
        std::thread::yield_now();
    }
}

/// What instances under test stand on.
pub(crate) struct Machine<P> {
    pub(crate) pages: P,
    pub(crate) metadata: HeapMeta,
    pub(crate) largest_slab: usize,
    pub(crate) reports: Mutex<Vec<String>>,
    pub(crate) registry: Registry<RawMutex>,
}

impl<P> Machine<P> {
    pub(crate) fn new(pages: P) -> Self {
        let (metadata, registry) = (HeapMeta::new(), Registry::new());
        Self { pages, metadata, largest_slab: 64 << 10, reports: Mutex::default(), registry }
    }

    pub(crate) fn zones(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.registry.visit(&mut |zone| names.push(zone.name().to_string()));
        names
    }
}

/// A machine, as a platform.
pub(crate) struct On<'a, P>(pub(crate) &'a Machine<P>);

impl<P> Clone for On<'_, P> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

// SAFETY: every method leads to the same machine.
unsafe impl<'a, P: PageSupplier + Send + Sync> Platform for On<'a, P> {
    type Pages = &'a P;
    type Cpus = CpuLocks<OneCpu>;
    type Lock = RawMutex;
    type Sleep = Park;
    type Metadata = &'a HeapMeta;

    fn pages(&self) -> &'a P {
        &self.0.pages
    }

    fn cpus(&self) -> Self::Cpus {
        CpuLocks::new(OneCpu)
    }

    fn sleep(&self) -> Park {
        Park
    }

    fn metadata(&self) -> &'a HeapMeta {
        &self.0.metadata
    }

    fn registry(&self) -> &Registry<RawMutex> {
        &self.0.registry
    }

    fn largest_slab(&self) -> usize {
        self.0.largest_slab
    }

    fn relax(&self) {
        std::thread::yield_now();
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        self.0.reports.lock().unwrap().push(message.to_string());
    }
}

/// An allocation with a token all over it. It may be handed to another thread.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) at: NonNull<u8>,
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) token: u64,
}

// SAFETY: it stands for memory that is its holder's alone.
unsafe impl Send for Held {}

impl Held {
    /// Stamps memory.
    ///
    /// # Safety
    ///
    /// It is the caller's, and has `size` bytes.
    pub(crate) unsafe fn new(at: NonNull<u8>, size: usize, align: usize, token: u64) -> Self {
        assert!(at.addr().get().is_multiple_of(align), "{at:p} is not aligned to {align}");
        // SAFETY: passed on to the caller.
        unsafe { token::stamp(at, size, token) };
        Self { at, size, align, token }
    }

    /// Checks the first `len` bytes, or all there are.
    #[track_caller]
    pub(crate) fn verify(&self, len: usize) {
        let Self { at, size, align, token } = *self;
        // SAFETY: the memory is ours and was stamped. Words are stamped alone, so a part verifies.
        let found = unsafe { token::verify(at, len.min(size), token) };
        assert_eq!(found, Ok(()), "{size} bytes aligned to {align} at {at:p} were written to");
    }

    pub(crate) fn free<P: Platform>(self, malloc: &Malloc<P>) {
        self.verify(usize::MAX);
        // SAFETY: the memory is ours, and given up.
        unsafe {
            match self.token % 3 {
                0 if self.align == 1 => malloc.free_sized(self.at, self.size),
                1 => {
                    let layout = std::alloc::Layout::from_size_align(self.size, self.align);
                    malloc.free_layout(self.at, layout.unwrap());
                }
                _ => malloc.free(self.at),
            }
        }
    }
}
