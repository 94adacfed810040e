//! Items: allocated and freed, also those with a copy for each CPU, and those that readers may still look at.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use uma::core::{Item, Request};
use uma::{ZoneError, ZoneFlags as EngineFlags};

use super::{Kind, Zone};
use crate::freebsd::deferred::{Deferred, DoubleFree};
use crate::freebsd::{M, SYSTEM, waitok};

impl Zone {
    /// An item, or `None` (`uma_zalloc`).
    #[inline]
    pub fn alloc(&self, flags: M) -> Option<NonNull<u8>> {
        // SAFETY: whoever made the zone with callbacks gave such that take null, or vouches for its users.
        unsafe { self.alloc_arg(ptr::null_mut(), flags) }
    }

    /// An item, whose ctor is passed `arg` (`uma_zalloc_arg`). `None` if a callback refused; without
    /// [`M::WAITOK`], also if the limit is reached or there are no pages. With it, both are waited for, as
    /// `freebsd.waitok` has it; no pages are with [`M::NOVM`].
    ///
    /// # Safety
    ///
    /// `arg` is what the ctor expects.
    #[inline]
    pub unsafe fn alloc_arg(&self, arg: *mut c_void, flags: M) -> Option<NonNull<u8>> {
        if self.smr.get().is_some() {
            self.misuse("uma_zalloc_arg", "is a zone with SMR: use uma_zalloc_smr");
            return None;
        }
        if flags.contains(M::ZERO) && self.flags().contains(EngineFlags::PCPU) {
            let what = "has copies for CPUs, of which this would zero one: use uma_zalloc_pcpu";
            self.misuse("uma_zalloc_arg", what);
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.take("uma_zalloc_arg", arg, flags) }
    }

    /// # Safety
    ///
    /// As [`alloc_arg`](Self::alloc_arg).
    #[inline]
    unsafe fn take(&self, function: &str, arg: *mut c_void, flags: M) -> Option<NonNull<u8>> {
        let request = flags.request();
        // SAFETY: the caller's duty is passed on unchanged.
        let result = unsafe {
            match &self.kind {
                Kind::Own(zone) => zone.alloc_arg(arg.cast(), request),
                Kind::Called(zone) => zone.alloc_arg(arg.cast(), request),
                Kind::Other(zone) => zone.alloc(arg.cast(), request),
            }
        };
        match result {
            Ok(item) => Some(item.as_non_null()),
            Err(error) => {
                // SAFETY: the caller's duty is passed on unchanged.
                let again = || unsafe { self.engine().alloc(arg.cast(), request) };
                self.insist(function, request, error, again)
            }
        }
    }

    /// An allocation has failed: if it may wait for pages, tries as hard as the policy has it.
    #[cold]
    #[inline(never)]
    fn insist(
        &self,
        function: &str,
        request: Request,
        error: ZoneError,
        again: impl Fn() -> Result<Item, ZoneError>,
    ) -> Option<NonNull<u8>> {
        if !request.may_wait() || !request.may_take_pages() {
            return None;
        }
        let want = |error: &ZoneError| error.reason().into();
        let item = waitok::insist(function, error, want, &self.shared.waits, again)?;
        Some(item.as_non_null())
    }

    /// Frees an item (`uma_zfree`).
    ///
    /// # Safety
    ///
    /// It came from this zone and is used no more.
    #[inline]
    pub unsafe fn free(&self, item: NonNull<u8>) {
        // SAFETY: the caller's duty is passed on unchanged; the rest as in `alloc`.
        unsafe { self.free_arg(item, ptr::null_mut()) }
    }

    /// Frees an item, whose dtor is passed `arg` (`uma_zfree_arg`).
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free), and `arg` is what the dtor expects.
    #[inline]
    pub unsafe fn free_arg(&self, item: NonNull<u8>, arg: *mut c_void) {
        if self.smr.get().is_some() {
            self.misuse("uma_zfree_arg", "is a zone with SMR: use uma_zfree_smr");
            return;
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.give(Item::new(item), arg) }
    }

    /// # Safety
    ///
    /// As [`free_arg`](Self::free_arg).
    #[inline]
    unsafe fn give(&self, item: Item, arg: *mut c_void) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            match &self.kind {
                Kind::Own(zone) => zone.free_arg(item, arg.cast()),
                Kind::Called(zone) => zone.free_arg(item, arg.cast()),
                Kind::Other(zone) => zone.free(item, arg.cast()),
            }
        }
    }

    /// An item of a zone with [`ZoneFlags::PCPU`](crate::freebsd::ZoneFlags::PCPU) (`uma_zalloc_pcpu`): the pointer
    /// is that of the first CPU's copy. With [`M::ZERO`] all copies are zeros.
    pub fn alloc_pcpu(&self, flags: M) -> Option<NonNull<u8>> {
        // SAFETY: as in `alloc`.
        unsafe { self.alloc_pcpu_arg(ptr::null_mut(), flags) }
    }

    /// [`alloc_pcpu`](Self::alloc_pcpu) with an argument for the ctor (`uma_zalloc_pcpu_arg`), which sees the first
    /// copy.
    ///
    /// # Safety
    ///
    /// As [`alloc_arg`](Self::alloc_arg).
    pub unsafe fn alloc_pcpu_arg(&self, arg: *mut c_void, flags: M) -> Option<NonNull<u8>> {
        const NAME: &str = "uma_zalloc_pcpu_arg";
        if !self.flags().contains(EngineFlags::PCPU) {
            self.misuse(NAME, "has no copies for CPUs");
            return None;
        }
        // SAFETY: the caller's duty is passed on unchanged.
        let item = unsafe { self.take(NAME, arg, flags) }?;
        if flags.contains(M::ZERO) {
            let size = self.stats().size;
            let copies = (1..).map_while(|cpu| self.pcpu_copy(item, cpu));
            // SAFETY: the item is ours, and with it its copies, each of its size.
            copies.for_each(|copy| unsafe { copy.write_bytes(0, size) });
        }
        Some(item)
    }

    /// The copy of an item for a CPU (`zpcpu_get_cpu`), if there is one.
    pub fn pcpu_copy(&self, item: NonNull<u8>, cpu: usize) -> Option<NonNull<u8>> {
        self.engine().pcpu_copy(Item::new(item), cpu)
    }

    fn deferred(&self, function: &str) -> Option<&Deferred> {
        let deferred = self.smr.get();
        if deferred.is_none() {
            self.misuse(function, "has no SMR");
        }
        deferred
    }

    pub(super) fn expired(&self) -> impl Fn(Item) {
        // SAFETY: the item was given to `free_smr`, and readers have ended.
        |item| unsafe { self.give(item, ptr::null_mut()) }
    }

    /// An item of a zone with SMR (`uma_zalloc_smr`).
    pub fn alloc_smr(&self, flags: M) -> Option<NonNull<u8>> {
        const NAME: &str = "uma_zalloc_smr";
        let deferred = self.deferred(NAME)?;
        let request = flags.request();
        let null = ptr::null_mut();
        // SAFETY: as in `alloc`.
        let attempt = |request| unsafe { self.engine().alloc(null, request) };
        // What was freed may be all that there is.
        let first = match attempt(request.without_waiting()) {
            Ok(item) => return Some(item.as_non_null()),
            Err(error) => error,
        };
        if !first.reason().is_shortage() {
            return None;
        }
        if !request.may_wait() || deferred.smr.entered() {
            deferred.flush(false, self.expired());
            return attempt(request.without_waiting()).ok().map(Item::as_non_null);
        }
        // SAFETY: as in `alloc`.
        let wait = || unsafe { self.take(NAME, null.cast(), flags) };
        deferred.while_waiting(self.expired(), wait)
    }

    /// Frees an item of a zone with SMR, when nobody who may look at it is left (`uma_zfree_smr`): the dtor runs
    /// then. Not to be called in a section of the zone's [`Smr`](crate::freebsd::Smr).
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free), but for readers who are in a section now.
    pub unsafe fn free_smr(&self, item: NonNull<u8>) {
        const NAME: &str = "uma_zfree_smr";
        let Some(deferred) = self.deferred(NAME) else { return };
        if deferred.smr.entered() {
            self.misuse(NAME, "cannot take an item in a section of its SMR");
        }
        if let Err(DoubleFree) = deferred.push(Item::new(item), self.expired()) {
            let name = self.name();
            SYSTEM.misuse(
                NAME,
                format_args!("zone \"{name}\": double free of the item at {item:p}, for which readers are waited"),
            );
        }
    }
}
