//! `umem_cache`: objects of one kind.

#[cfg(feature = "capi")]
use core::ffi::c_void;
use core::ffi::{CStr, c_int};
use core::fmt;
use core::ptr::NonNull;

use uma::core::{AllocError, ConfigError, ConfigFault, Stats};

use super::env::Settings;
use super::{DESTROY, SYSTEM, nofail, umem_reap};
#[cfg(feature = "capi")]
use crate::common::Front;
use crate::common::Sample;
use crate::common::objects::{self, Callbacks, Objects, Owner, Wanted};

/// Largest alignment of a cache, in bytes: a page.
const PAGE: usize = 4096;

/// How hard a request may try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Umem(c_int);

impl Umem {
    /// Fails if there is no memory (`UMEM_DEFAULT`).
    pub const DEFAULT: Self = Self(0);
    /// Asks the nofail callback what to do (`UMEM_NOFAIL`).
    pub const NOFAIL: Self = Self(0x100);

    /// That of a number from C.
    #[cfg(feature = "capi")]
    pub(super) const fn of(flags: c_int) -> Self {
        Self(flags)
    }

    pub(super) const fn must(self) -> bool {
        self.0 & Self::NOFAIL.0 != 0
    }
}

/// What a cache is like (`UMC_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Umc(c_int);

impl Umc {
    /// Free objects are never written to, by no check either.
    pub const NOTOUCH: Self = Self(0x1_0000);
    /// Nothing is checked.
    pub const NODEBUG: Self = Self(0x2_0000);
    /// The CPUs have no caches.
    pub const NOMAGAZINE: Self = Self(0x4_0000);
    /// No table leads from objects to slabs: there is none here.
    pub const NOHASH: Self = Self(0x8_0000);

    /// None.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// That of a number from C.
    #[cfg(feature = "capi")]
    pub(super) const fn of(flags: c_int) -> Self {
        Self(flags)
    }

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for Umc {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why a cache could not be made. C sees an error number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateError {
    /// `EINVAL`: there is no name.
    NoName,
    /// `EINVAL`: there is a source, which must not be.
    Source,
    /// `EINVAL`: `UMC_NOTOUCH` and `UMC_NOHASH` exclude each other.
    BadFlags,
    /// `EINVAL`: the alignment, in bytes, is no power of two or more than a page.
    BadAlign(usize),
    /// `EINVAL` or `ENOMEM`, or `EAGAIN` if there was no memory for the cache itself: the engine cannot have
    /// such objects.
    Config(ConfigError),
}

impl CreateError {
    /// Its error number.
    pub const fn errno(&self) -> c_int {
        match self {
            Self::Config(error) => match error.fault {
                ConfigFault::SizeTooLarge(_) | ConfigFault::Overflow => libc::ENOMEM,
                ConfigFault::NoMemory => libc::EAGAIN,
                _ => libc::EINVAL,
            },
            _ => libc::EINVAL,
        }
    }
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName => f.write_str("it has no name"),
            Self::Source => f.write_str("a source of memory is not for callers to give"),
            Self::BadFlags => f.write_str("UMC_NOTOUCH and UMC_NOHASH exclude each other"),
            Self::BadAlign(align) => {
                write!(f, "the alignment {align} is not a power of two up to {PAGE}")
            }
            Self::Config(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for CreateError {}

impl From<ConfigError> for CreateError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// A cache was destroyed with objects in use, whose memory stays as it is; or was not, by policy.
#[derive(Debug)]
pub struct Leaked {
    /// How many objects.
    pub objects: u64,
    /// The cache, unharmed, if the policy `umem.destroy` is `refuse`.
    pub cache: Option<UmemCache>,
}

impl fmt::Display for Leaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} objects of a cache that was to be destroyed are in use", self.objects)
    }
}

impl core::error::Error for Leaked {}

/// A cache of objects of one size (`umem_cache_t`).
pub struct UmemCache {
    objects: Owner,
}

impl UmemCache {
    /// A cache without callbacks. `align` is in bytes, 0 for 16, or 8 for objects of less than 9.
    ///
    /// # Errors
    ///
    /// What is wrong with the description, or that there was no memory.
    pub fn create(name: &str, size: usize, align: usize, flags: Umc) -> Result<Self, CreateError> {
        // SAFETY: there are no callbacks.
        unsafe { Self::create_with(name, size, align, Callbacks::NONE, flags) }
    }

    /// A cache of everything that `umem_cache_create` takes.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    ///
    /// # Safety
    ///
    /// The callbacks take objects of `size` bytes, touch no more of them, and may run on any thread as long as
    /// the cache exists.
    pub unsafe fn create_with(
        name: &str,
        size: usize,
        align: usize,
        callbacks: Callbacks,
        flags: Umc,
    ) -> Result<Self, CreateError> {
        if flags.has(Umc::NOTOUCH | Umc::NOHASH) {
            return Err(CreateError::BadFlags);
        }
        if (align != 0 && !align.is_power_of_two()) || align > PAGE {
            return Err(CreateError::BadAlign(align));
        }
        let align = match align {
            0 if size > 8 => 16,
            align => align.max(8),
        };
        let settings = Settings::get();
        let untouched = flags.has(Umc::NOTOUCH);
        let hardening = match settings.hardening(size) {
            _ if flags.has(Umc::NODEBUG) => Some(uma::Hardening::RELEASE),
            Some(hardening) if untouched => Some(hardening.red_zones(false).sums(false)),
            hardening => hardening,
        };
        let wanted = Wanted {
            system: &SYSTEM,
            name,
            size,
            align,
            callbacks,
            // Also where the request must not fail: else a callback that does not return would leak the
            // object that is being made.
            flags: |_| Umem::DEFAULT.0,
            magazines: !flags.has(Umc::NOMAGAZINE) && !settings.without_magazines(),
            untouched,
            hardening,
            backing: None,
        };
        // SAFETY: the caller's duty is passed on unchanged.
        let objects = unsafe { Objects::create(wanted) }?;
        objects::start(settings.interval());
        Ok(Self { objects: Owner::new(objects) })
    }

    /// An object (`umem_cache_alloc`); `None` if there is no memory or the constructor fails, but not with
    /// [`Umem::NOFAIL`].
    #[inline]
    pub fn alloc(&self, flags: Umem) -> Option<NonNull<u8>> {
        NonNull::new(self.objects.alloc_cached()).or_else(|| self.alloc_slow(flags))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(&self, flags: Umem) -> Option<NonNull<u8>> {
        insist(flags, "umem_cache_alloc", format_args!("{self}"), || {
            self.objects.alloc(uma::core::Request::NOWAIT)
        })
    }

    /// Frees an object (`umem_cache_free`).
    ///
    /// # Safety
    ///
    /// It came from this cache and is not used or freed any more. It is in constructed state.
    #[inline]
    pub unsafe fn free(&self, object: NonNull<u8>) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.objects.free(object) }
    }

    /// Has a front lead to the zone.
    ///
    /// # Safety
    ///
    /// As [`uma::RawZone::lend_front`].
    #[cfg(feature = "capi")]
    pub(super) unsafe fn lend_front(&self, front: &Front) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.objects.lend_front(front) };
    }

    /// Whether a pointer has the alignment of an object.
    #[cfg(feature = "capi")]
    #[inline(always)]
    pub(super) fn is_aligned(&self, object: *const c_void) -> bool {
        self.objects.is_aligned(object)
    }

    /// Asks the owner for objects, and gives back all that are free.
    pub fn reap_now(&self) {
        objects::reap(&self.objects);
    }

    /// Ends the cache (`umem_cache_destroy`): free objects are destroyed. Waits while it is being reaped.
    ///
    /// # Errors
    ///
    /// If objects are in use: how many. What becomes of the cache is for the policy `umem.destroy` to say.
    pub fn destroy(self) -> Result<(), Leaked> {
        const NAME: &str = "umem_cache_destroy";
        let ended = self.objects.end(|objects, used| {
            let mut some = Sample::default();
            objects.for_each_used(|object| some.add(object));
            let what = format_args!("{objects} is not empty: {used} objects in use:{some}");
            match DESTROY.get() {
                "panic" => SYSTEM.fatal(NAME, what),
                "refuse" => {
                    SYSTEM.report(NAME, format_args!("{what}; it stays"));
                    true
                }
                _ => {
                    SYSTEM.report(NAME, format_args!("{what}; their memory stays"));
                    false
                }
            }
        });
        ended.map_err(|(used, objects)| Leaked {
            objects: used,
            cache: objects.map(|objects| Self { objects }),
        })
    }

    /// The size that was asked for, in bytes.
    pub fn size(&self) -> usize {
        self.objects.size()
    }

    /// The alignment of objects, in bytes.
    pub fn align(&self) -> usize {
        self.objects.align()
    }

    /// The name, whole.
    pub fn name(&self) -> &CStr {
        self.objects.name()
    }

    /// The figures of its zone.
    pub fn stats(&self) -> Stats {
        self.objects.stats()
    }
}

/// Names the cache in reports.
impl fmt::Display for UmemCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(f)
    }
}

impl fmt::Debug for UmemCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UmemCache").field(&self.objects).finish()
    }
}

/// Tries; reaps everything and tries again; and if it must not fail, asks what to do, as often as it is told to
/// try again.
pub(super) fn insist<T>(
    flags: Umem,
    function: &'static str,
    whose: fmt::Arguments<'_>,
    attempt: impl Fn() -> Result<T, AllocError>,
) -> Option<T> {
    let settings = Settings::get();
    // What must not fail is not made to.
    let mut result =
        if !flags.must() && settings.fails() { Err(AllocError::Unsupported) } else { attempt() };
    if result.as_ref().is_err_and(|error| error.is_shortage()) {
        umem_reap();
        result = attempt();
    }
    loop {
        let error = match result {
            Ok(got) => return Some(got),
            Err(error) => error,
        };
        if settings.tell_failures {
            SYSTEM.report(function, format_args!("{whose}: {error}"));
        }
        if !flags.must() {
            return None;
        }
        nofail::ask();
        result = attempt();
    }
}
