//! What stands for the default platform where there is none.

use core::alloc::Layout;
use core::ptr::NonNull;

use uma_cache::{CpuLocks, CurrentCpu};
use uma_core::{Metadata, NoSleep, PageError, PageRun, PageSupplier, RawMutex, Request};

use crate::{Platform, Registry};

/// No platform: without the feature `std` there is no default, and zones name their own. This type has
/// no values.
#[derive(Clone, Copy, Debug)]
pub enum Unset {}

// SAFETY: there is no value, so nothing is ever promised.
unsafe impl PageSupplier for Unset {
    fn page_size(&self) -> usize {
        match *self {}
    }
    fn alloc_pages(&self, _: Layout, _: Request) -> Result<PageRun, PageError> {
        match *self {}
    }
    unsafe fn free_pages(&self, _: PageRun) {
        match *self {}
    }
}

// SAFETY: there is no value, so nothing is ever promised.
unsafe impl Metadata for Unset {
    fn alloc_meta(&self, _: Layout) -> Option<NonNull<u8>> {
        match *self {}
    }
    unsafe fn free_meta(&self, _: NonNull<u8>, _: Layout) {
        match *self {}
    }
}

impl CurrentCpu for Unset {
    fn cpus(&self) -> usize {
        match *self {}
    }
    fn current(&self) -> usize {
        match *self {}
    }
}

/// A lock that nothing can lock, because nothing stands on [`Unset`].
#[derive(Debug)]
pub struct NoLock(());

// SAFETY: `try_lock` never grants access, and `lock` never returns, so exclusion holds.
unsafe impl RawMutex for NoLock {
    const INIT: Self = Self(());
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        unreachable!("nothing stands on the platform `Unset`");
    }
    fn try_lock(&self) -> bool {
        false
    }
    unsafe fn unlock(&self) {}
}

// SAFETY: there is no value, so nothing is ever promised.
unsafe impl Platform for Unset {
    type Pages = Self;
    type Cpus = CpuLocks<Self>;
    type Lock = NoLock;
    type Sleep = NoSleep;
    type Metadata = Self;

    fn pages(&self) -> Self {
        match *self {}
    }
    fn cpus(&self) -> CpuLocks<Self> {
        match *self {}
    }
    fn sleep(&self) -> NoSleep {
        match *self {}
    }
    fn metadata(&self) -> Self {
        match *self {}
    }
    fn registry(&self) -> &Registry<NoLock> {
        match *self {}
    }
}
