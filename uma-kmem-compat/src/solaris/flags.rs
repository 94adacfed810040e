//! Flags of requests and of caches, with the values of illumos.

use core::cell::Cell;
use core::ffi::c_int;

use bitflags::bitflags;
use uma::core::Request;

bitflags! {
    /// How hard a request may try (`KM_*`). Those of `vmem` have the same values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Km: c_int {
        /// May wait for memory: the default.
        const SLEEP = 0;
        /// Fails rather than wait.
        const NOSLEEP = 1;
        /// A failure ends the process.
        const PANIC = 2;
        /// May use the reserve.
        const PUSHPAGE = 4;
        /// With `NOSLEEP`: not urgent, so the reserve stays.
        const NORMALPRI = 8;
        /// Memory of [`kmem_alloc`](super::kmem_alloc) is zeroed. Of the ports to Linux.
        const ZERO = 0x1000;
        /// Large memory is wanted: nothing. Of the ports to Linux.
        const VMEM = 0x2000;
        const _ = !0;
    }
}

impl Km {
    /// What it asks of the engine.
    pub(super) const fn request(self) -> Request {
        let request = if self.contains(Self::NOSLEEP) { Request::NOWAIT } else { Request::WAIT };
        if self.contains(Self::PUSHPAGE) && !self.contains(Self::NORMALPRI) {
            request.from_reserve()
        } else {
            request
        }
    }

    /// What a constructor is told: the flags of the request that it serves.
    pub(super) fn of(request: Request) -> c_int {
        if let Some(flags) = CURRENT.get() {
            return flags.bits();
        }
        let mut flags = if request.may_wait() { Self::SLEEP } else { Self::NOSLEEP };
        flags.set(Self::PUSHPAGE, request.may_use_reserve());
        flags.bits()
    }

    /// Runs `body`, in which constructors are told these flags. The engine makes several objects for one request,
    /// all but the last of which it would not wait for; but the caller may.
    pub(super) fn during<T>(self, body: impl FnOnce() -> T) -> T {
        struct Before(Option<Km>);
        impl Drop for Before {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _before = Before(CURRENT.replace(Some(self)));
        body()
    }
}

std::thread_local! {
    static CURRENT: Cell<Option<Km>> = const { Cell::new(None) };
}

bitflags! {
    /// What a cache is like (`KMC_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Kmc: c_int {
        /// Free objects are never written to, by no check either.
        const NOTOUCH = 0x1_0000;
        /// Nothing is checked.
        const NODEBUG = 0x2_0000;
        /// The CPUs have no caches.
        const NOMAGAZINE = 0x4_0000;
        /// No table leads from objects to slabs: there is none here.
        const NOHASH = 0x8_0000;
        /// The cache is that of an arena.
        const QCACHE = 0x10_0000;
        /// The cache is one of `kmem_alloc`: none of the caller's.
        const KMEM_ALLOC = 0x20_0000;
        /// Objects are numbers: none of the caller's.
        const IDENTIFIER = 0x40_0000;
        /// All objects of a new slab go to the CPU's cache.
        const PREFILL = 0x80_0000;
        /// Slabs need not be in one piece of the machine's memory: nothing, like the others of the ports to Linux.
        const KVMEM = 0x100_0000;
        /// The system's own caches are to be used: nothing.
        const SLAB = 0x200_0000;
        /// Its memory counts as free: nothing.
        const RECLAIMABLE = 0x400_0000;
    }
}
