//! `kmem_cache`: objects of one kind.

use core::ffi::CStr;
#[cfg(feature = "capi")]
use core::ffi::c_void;
use core::fmt;
use core::ptr::NonNull;

use uma::Hardening;
use uma::core::{AllocError, ConfigError, Stats};
use uma::debug::Fill;

use super::{DESTROY, FAILING_CTOR, KMEM_FLAGS, Km, Kmc, NAME, SLEEP, SYSTEM, look_after};
#[cfg(feature = "capi")]
use crate::common::Front;
use crate::common::Patience;
use crate::common::Sample;
use crate::common::memory::Counted;
use crate::common::objects::{self, Backing, Callbacks, MoveCallback, Objects, Owner, Wanted};

/// Alignment in bytes of objects that ask for none (`KMEM_ALIGN`).
const ALIGN: usize = 8;

/// A cache of objects of one size (`kmem_cache_t`).
pub struct KmemCache {
    objects: Owner,
    untouched: bool,
}

/// Why a cache could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateError {
    /// The engine cannot have such objects.
    Config(ConfigError),
    /// There is no name.
    NoName,
    /// The policy `solaris.name` is `manual`, and the name has other characters.
    BadName,
    /// These flags exclude each other, or are none that a caller may give.
    BadFlags(Kmc),
    /// The arena has no memory to give.
    BadArena,
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::NoName => f.write_str("it has no name"),
            Self::BadName => f.write_str("the name is not alphanumeric"),
            Self::BadFlags(flags) => write!(f, "the flags {:#x} cannot be", flags.bits()),
            Self::BadArena => f.write_str("the arena is none of memory"),
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
    /// The cache, unharmed, if the policy `solaris.destroy` is `refuse`.
    pub cache: Option<KmemCache>,
}

impl fmt::Display for Leaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} objects of a cache that was to be destroyed are in use", self.objects)
    }
}

impl core::error::Error for Leaked {}

impl KmemCache {
    /// A cache without callbacks. `align` is in bytes, 0 for 8.
    ///
    /// # Errors
    ///
    /// What is wrong with the description, or that there was no memory.
    pub fn create(name: &str, size: usize, align: usize, flags: Kmc) -> Result<Self, CreateError> {
        // SAFETY: there are no callbacks.
        unsafe { Self::create_with(name, size, align, Callbacks::NONE, flags) }
    }

    /// A cache of everything that `kmem_cache_create` takes but an arena.
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
        flags: Kmc,
    ) -> Result<Self, CreateError> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { Self::create_over(name, size, align, callbacks, None, flags) }
    }

    /// The same, with memory from an arena if there is one.
    ///
    /// # Safety
    ///
    /// As [`create_with`](Self::create_with).
    pub(super) unsafe fn create_over(
        name: &str,
        size: usize,
        align: usize,
        callbacks: Callbacks,
        backing: Option<Counted<dyn Backing>>,
        flags: Kmc,
    ) -> Result<Self, CreateError> {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        if NAME.get() == "manual" && !name.chars().all(plain) {
            return Err(CreateError::BadName);
        }
        let exclusive = Kmc::NOTOUCH | Kmc::NOHASH;
        if flags.contains(exclusive) || flags.intersects(Kmc::IDENTIFIER | Kmc::KMEM_ALLOC) {
            return Err(CreateError::BadFlags(flags));
        }
        let align = if align == 0 { ALIGN } else { align };
        let untouched = align < ALIGN || flags.contains(Kmc::NOTOUCH);
        let wanted = Wanted {
            system: &SYSTEM,
            name,
            size,
            align,
            callbacks,
            flags: Km::of,
            magazines: !flags.contains(Kmc::NOMAGAZINE),
            untouched,
            hardening: hardening(flags, untouched),
            backing,
        };
        // SAFETY: the caller's duty is passed on unchanged.
        let objects = unsafe { Objects::create(wanted) }?;
        look_after();
        Ok(Self { objects: Owner::new(objects), untouched })
    }

    /// An object (`kmem_cache_alloc`). `None` with [`Km::NOSLEEP`] and no memory, or if the constructor fails.
    #[inline]
    pub fn alloc(&self, flags: Km) -> Option<NonNull<u8>> {
        NonNull::new(self.objects.alloc_cached()).or_else(|| self.alloc_slow(flags))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(&self, flags: Km) -> Option<NonNull<u8>> {
        let request = flags.request();
        insist(flags, "kmem_cache_alloc", format_args!("{self}"), || {
            flags.during(|| self.objects.alloc(request))
        })
    }

    /// Frees an object (`kmem_cache_free`).
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

    /// Says how objects move (`kmem_cache_set_move`), before the first is allocated. Returns whether they ever
    /// will: not if no slab holds two, or the cache does not touch free objects.
    ///
    /// The callback gets an object that may be in use, a constructed one of another slab, their size, and the
    /// cache's private value, and returns an [`Answer`](super::Answer) as its number. It runs on the thread that
    /// looks after caches, one at a time in the process. The old object may have been freed; its memory can be
    /// looked at until the callback returns.
    ///
    /// # Safety
    ///
    /// The callback does with the objects what its answer says, and may run as long as the cache exists.
    pub unsafe fn set_move(&self, callback: MoveCallback) -> bool {
        // SAFETY: the caller's duty is passed on unchanged.
        !self.untouched && unsafe { self.objects.set_move(callback) }
    }

    /// Whether free objects are never written to.
    pub const fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// An object that its owner refused to move can be moved now (`kmem_cache_move_notify`).
    pub fn move_notify(&self, object: NonNull<u8>) {
        Objects::move_notify(&self.objects, object);
    }

    /// Asks the owner for objects, and gives back all that are free (`kmem_cache_reap_now`). Objects that can
    /// move are moved together a little later.
    pub fn reap_now(&self) {
        objects::reap(&self.objects);
        objects::defragment_later(&self.objects);
    }

    /// The same on the thread that looks after caches (`kmem_cache_reap_soon`).
    pub fn reap_soon(&self) {
        objects::reap_later(&self.objects);
    }

    /// Calls `visit` with every object in use, after emptying the caches. Objects above 1 MiB are not known.
    pub fn for_each_used(&self, visit: impl FnMut(NonNull<u8>)) {
        self.objects.for_each_used(visit);
    }

    /// Ends the cache (`kmem_cache_destroy`): free objects are destroyed. Waits while it is being reaped.
    ///
    /// # Errors
    ///
    /// If objects are in use: how many. What becomes of the cache is for the policy `solaris.destroy` to say.
    pub fn destroy(self) -> Result<(), Leaked> {
        const NAME: &str = "kmem_cache_destroy";
        let untouched = self.untouched;
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
            cache: objects.map(|objects| Self { objects, untouched }),
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

    pub(super) fn objects(&self) -> &Counted<Objects> {
        &self.objects
    }
}

/// Names the cache in reports.
impl fmt::Display for KmemCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(f)
    }
}

impl fmt::Debug for KmemCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KmemCache").field(&self.objects).finish()
    }
}

/// What is checked, if a flag or the policy says so; else it is as for all zones.
fn hardening(flags: Kmc, untouched: bool) -> Option<Hardening> {
    if flags.contains(Kmc::NODEBUG) {
        return Some(Hardening::RELEASE);
    }
    let lite = Hardening::RELEASE.live(true).red_zones(!untouched);
    match KMEM_FLAGS.get() {
        "lite" => Some(lite),
        "on" => Some(lite.fill(Fill::Pattern).sums(!untouched).owners(true)),
        _ => None,
    }
}

/// Tries as hard as `flags` have it. `function` wants something of `whose`.
pub(super) fn insist<T>(
    flags: Km,
    function: &'static str,
    whose: fmt::Arguments<'_>,
    attempt: impl Fn() -> Result<T, AllocError>,
) -> Option<T> {
    let sleeps = !flags.contains(Km::NOSLEEP);
    let mut result = attempt();
    if sleeps && result.as_ref().is_err_and(|error| error.is_shortage()) {
        super::kmem_reap();
        result = attempt();
    }
    let mut told = false;
    let mut patience = Patience::new();
    loop {
        let error = match result {
            Ok(got) => return Some(got),
            Err(error) => error,
        };
        if flags.contains(Km::PANIC) {
            SYSTEM.fatal(function, format_args!("KM_PANIC: {whose}: {error}"));
        }
        if !sleeps {
            return None;
        }
        match error {
            AllocError::Refused if FAILING_CTOR.get() == "null" => return None,
            AllocError::Refused => {}
            error if error.is_shortage() => match SLEEP.get() {
                "panic" => SYSTEM.fatal(function, format_args!("KM_SLEEP: {whose}: {error}")),
                "null" => return None,
                _ if !told => {
                    told = true;
                    SYSTEM.report(function, format_args!("KM_SLEEP: {whose}: {error}; waiting"));
                }
                _ => {}
            },
            error => {
                SYSTEM.misuse(function, format_args!("KM_SLEEP: {whose}: {error}"));
                return None;
            }
        }
        if patience.wait() && error.is_shortage() {
            super::kmem_reap();
        }
        result = attempt();
    }
}
