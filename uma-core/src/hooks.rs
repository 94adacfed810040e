//! What the user of a zone does to its items: init, fini, ctor, dtor.

use crate::{Item, Refused, Request};

/// The four hooks of a zone, as `uma_init`, `uma_fini`, `uma_ctor` and `uma_dtor` of zone(9).
///
/// ```text
///   pages --init--> constructed --ctor--> in use
///                   (cached)    <--dtor--
///   pages <--fini--
/// ```
///
/// `init` runs once when an item enters the zone and `fini` once when it leaves; `ctor` and `dtor`
/// run at every allocation and free. `dtor` must leave the item as `init` left it. [`Constructed`]
/// calls the first two, [`Zone`] the last two; the ones you leave out do nothing.
///
/// Whoever puts hooks on a zone promises that they suit it (see [`Constructed::new`] and
/// [`Zone::with_hooks`]). An item comes to `dtor`, and so to `fini`, as its user left it: zeroed, too, if
/// a request asked for that.
///
/// All four run with no lock held, so they may sleep and may use zones, this one included. If one
/// panics, no item is lost: the item goes back to where it came from and the panic goes on.
///
/// [`Constructed`]: crate::Constructed
/// [`Constructed::new`]: crate::Constructed::new
/// [`Zone`]: crate::Zone
/// [`Zone::with_hooks`]: crate::Zone::with_hooks
pub trait Hooks {
    /// Whether [`init`](Self::init) or [`fini`](Self::fini) do anything. Where this is `false` they
    /// are not called.
    const HAS_INIT: bool = true;

    /// Whether [`ctor`](Self::ctor) or [`dtor`](Self::dtor) do anything. Where this is `false` they need
    /// not be called.
    const HAS_CTOR: bool = true;

    /// Whether items keep a constructed state while they are free, so that nobody may write to them then.
    fn keeps_state(&self) -> bool {
        Self::HAS_INIT
    }

    /// Makes fresh memory into a constructed item. `request` is that of the allocation that caused
    /// it.
    ///
    /// # Errors
    ///
    /// [`Refused`] if it cannot; the item goes back without `fini`.
    ///
    /// # Safety
    ///
    /// The item is valid memory of the zone's layout, owned by the caller, with unspecified contents.
    #[inline]
    unsafe fn init(&self, item: Item, request: Request) -> Result<(), Refused> {
        let _ = (item, request);
        Ok(())
    }

    /// Takes a constructed item apart.
    ///
    /// # Safety
    ///
    /// The item is owned by the caller, and `init` made it.
    #[inline]
    unsafe fn fini(&self, item: Item) {
        let _ = item;
    }

    /// Prepares a constructed item for one use. `arg` is the caller's, as in `uma_zalloc_arg`, and null
    /// for callers that give none.
    ///
    /// # Errors
    ///
    /// [`Refused`] if it cannot; the item is given up without `dtor`, and the allocation fails.
    ///
    /// # Safety
    ///
    /// The item is owned by the caller, and in the state in which `init` or the last `dtor` left it.
    /// `arg` is what this zone's users agreed on.
    #[inline]
    unsafe fn ctor(&self, item: Item, arg: *mut (), request: Request) -> Result<(), Refused> {
        let _ = (item, arg, request);
        Ok(())
    }

    /// Ends one use: brings the item back to the constructed state.
    ///
    /// # Safety
    ///
    /// The item is owned by the caller, and `ctor` prepared it. `arg` is what this zone's users
    /// agreed on.
    #[inline]
    unsafe fn dtor(&self, item: Item, arg: *mut ()) {
        let _ = (item, arg);
    }
}

/// No hooks: items are plain memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {
    const HAS_INIT: bool = false;
    const HAS_CTOR: bool = false;
}

/// Hooks as plain function pointers, for C and for zones whose type must be nameable.
///
/// `context` is passed to each; it is for the creator of the zone what `arg` is for its callers.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::type_complexity,
    reason = "four signatures, each used once; aliases would hide them"
)]
pub struct FnHooks {
    /// Passed to every hook.
    pub context: *mut (),
    /// See [`Hooks::init`].
    pub init: Option<unsafe fn(*mut (), Item, Request) -> Result<(), Refused>>,
    /// See [`Hooks::fini`].
    pub fini: Option<unsafe fn(*mut (), Item)>,
    /// See [`Hooks::ctor`].
    pub ctor: Option<unsafe fn(*mut (), Item, *mut (), Request) -> Result<(), Refused>>,
    /// See [`Hooks::dtor`].
    pub dtor: Option<unsafe fn(*mut (), Item, *mut ())>,
}

// SAFETY: neither function pointers nor a pointer that is only handed to them give access to anything.
// Whoever puts the hooks on a zone promises that they may run on any thread.
unsafe impl Send for FnHooks {}
// SAFETY: as above.
unsafe impl Sync for FnHooks {}

impl FnHooks {
    /// No hooks.
    pub const NONE: Self =
        Self { context: core::ptr::null_mut(), init: None, fini: None, ctor: None, dtor: None };
}

impl Hooks for FnHooks {
    fn keeps_state(&self) -> bool {
        self.init.is_some() || self.fini.is_some()
    }

    #[inline]
    unsafe fn init(&self, item: Item, request: Request) -> Result<(), Refused> {
        match self.init {
            // SAFETY: the caller's duty is passed on unchanged.
            Some(init) => unsafe { init(self.context, item, request) },
            None => Ok(()),
        }
    }

    #[inline]
    unsafe fn fini(&self, item: Item) {
        if let Some(fini) = self.fini {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { fini(self.context, item) }
        }
    }

    #[inline]
    unsafe fn ctor(&self, item: Item, arg: *mut (), request: Request) -> Result<(), Refused> {
        match self.ctor {
            // SAFETY: the caller's duty is passed on unchanged.
            Some(ctor) => unsafe { ctor(self.context, item, arg, request) },
            None => Ok(()),
        }
    }

    #[inline]
    unsafe fn dtor(&self, item: Item, arg: *mut ()) {
        if let Some(dtor) = self.dtor {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { dtor(self.context, item, arg) }
        }
    }
}

/// Hooks by reference, so that [`Constructed`](crate::Constructed) and [`Zone`](crate::Zone) can
/// share one value.
impl<H: Hooks> Hooks for &H {
    const HAS_INIT: bool = H::HAS_INIT;
    const HAS_CTOR: bool = H::HAS_CTOR;

    fn keeps_state(&self) -> bool {
        (**self).keeps_state()
    }

    #[inline]
    unsafe fn init(&self, item: Item, request: Request) -> Result<(), Refused> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).init(item, request) }
    }

    #[inline]
    unsafe fn fini(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).fini(item) }
    }

    #[inline]
    unsafe fn ctor(&self, item: Item, arg: *mut (), request: Request) -> Result<(), Refused> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).ctor(item, arg, request) }
    }

    #[inline]
    unsafe fn dtor(&self, item: Item, arg: *mut ()) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { (**self).dtor(item, arg) }
    }
}
