//! Callbacks of a zone, in the types of today and in those of 2002.

use core::ffi::{c_int, c_void};
use core::marker::PhantomData;
use core::mem;
use core::ptr;

use uma::core::{Hooks, Item, Refused, Request};

use super::M;
use super::shared::Shared;
use crate::common::memory::Counted;
use crate::sync::{AtomicPtr, Ordering};

/// `uma_ctor`: item, size, the caller's argument, `M_*`. Not 0 refuses the item.
pub type Ctor = unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut c_void, c_int) -> c_int;
/// `uma_dtor`: item, size, the caller's argument.
pub type Dtor = unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut c_void);
/// `uma_init`: item, size, `M_*`. Not 0 refuses the item.
pub type Init = unsafe extern "C-unwind" fn(*mut c_void, c_int, c_int) -> c_int;
/// `uma_fini`: item, size.
pub type Fini = unsafe extern "C-unwind" fn(*mut c_void, c_int);
/// `uma_alloc`: the zone's handle, bytes, domain, the flag of the slab, `M_*`.
pub type AllocPages =
    unsafe extern "C-unwind" fn(*mut c_void, usize, c_int, *mut u8, c_int) -> *mut c_void;
/// `uma_free`: memory, bytes, the flag of the slab.
pub type FreePages = unsafe extern "C-unwind" fn(*mut c_void, usize, u8);
/// `uma_import`: argument, room for items, how many, domain, `M_*`. Returns how many there are.
pub type Import =
    unsafe extern "C-unwind" fn(*mut c_void, *mut *mut c_void, c_int, c_int, c_int) -> c_int;
/// `uma_release`: argument, items, how many.
pub type Release = unsafe extern "C-unwind" fn(*mut c_void, *mut *mut c_void, c_int);
/// `uma_maxaction_t`: the zone's handle, and 1.
pub type Maxaction = unsafe extern "C-unwind" fn(*mut c_void, c_int);

/// `uma_ctor` of 2002, which can neither refuse nor know the flags.
pub type Ctor2002 = unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut c_void);
/// `uma_init` of 2002.
pub type Init2002 = unsafe extern "C-unwind" fn(*mut c_void, c_int);
/// `uma_alloc` of 2002: the zone's handle, bytes, the flag of the slab, `M_*`.
pub type AllocPages2002 =
    unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut u8, c_int) -> *mut c_void;
/// `uma_free` of 2002: memory, bytes, the flag of the slab.
pub type FreePages2002 = unsafe extern "C-unwind" fn(*mut c_void, c_int, u8);

/// The four callbacks of a zone; for a secondary or a cache zone `init` and `fini` are its `zinit` and `zfini`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Callbacks {
    /// At every allocation.
    pub ctor: Option<Ctor>,
    /// At every free.
    pub dtor: Option<Dtor>,
    /// When memory enters the zone.
    pub init: Option<Init>,
    /// When it leaves.
    pub fini: Option<Fini>,
}

/// The four callbacks of a zone of 2002.
#[derive(Clone, Copy, Debug, Default)]
pub struct Callbacks2002 {
    /// At every allocation.
    pub ctor: Option<Ctor2002>,
    /// At every free.
    pub dtor: Option<Dtor>,
    /// When memory enters the zone.
    pub init: Option<Init2002>,
    /// When it leaves.
    pub fini: Option<Fini>,
}

/// A function of today, or of 2002.
#[derive(Clone, Copy, Debug)]
pub(super) enum Era<T, O> {
    Today(T),
    Old(O),
}

/// Callbacks of either time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Given {
    pub(super) ctor: Option<Era<Ctor, Ctor2002>>,
    pub(super) dtor: Option<Dtor>,
    pub(super) init: Option<Era<Init, Init2002>>,
    pub(super) fini: Option<Fini>,
}

impl From<Callbacks> for Given {
    fn from(Callbacks { ctor, dtor, init, fini }: Callbacks) -> Self {
        Self { ctor: ctor.map(Era::Today), dtor, init: init.map(Era::Today), fini }
    }
}

impl From<Callbacks2002> for Given {
    fn from(Callbacks2002 { ctor, dtor, init, fini }: Callbacks2002) -> Self {
        Self { ctor: ctor.map(Era::Old), dtor, init: init.map(Era::Old), fini }
    }
}

/// A place for a function, which may be changed while the zone is cold.
#[derive(Debug)]
pub(super) struct Slot<T, O = T> {
    today: AtomicPtr<()>,
    old: AtomicPtr<()>,
    functions: PhantomData<(T, O)>,
}

impl<T: Copy, O: Copy> Slot<T, O> {
    pub(super) const fn empty() -> Self {
        const { assert!(size_of::<T>() == size_of::<*mut ()>()) }
        const { assert!(size_of::<O>() == size_of::<*mut ()>()) }
        let today = AtomicPtr::new(ptr::null_mut());
        let old = AtomicPtr::new(ptr::null_mut());
        Self { today, old, functions: PhantomData }
    }

    /// # Safety
    ///
    /// `T` and `O` are function pointers.
    pub(super) unsafe fn set(&self, function: Option<Era<T, O>>) {
        let (mut today, mut old) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the caller says that they are function pointers, and the sizes are those of a pointer.
        unsafe {
            match function {
                Some(Era::Today(function)) => today = mem::transmute_copy::<T, *mut ()>(&function),
                Some(Era::Old(function)) => old = mem::transmute_copy::<O, *mut ()>(&function),
                None => {}
            }
        }
        self.today.store(today, Ordering::Release);
        self.old.store(old, Ordering::Release);
    }

    #[inline]
    pub(super) fn get(&self) -> Option<Era<T, O>> {
        let today = self.today.load(Ordering::Acquire);
        if !today.is_null() {
            // SAFETY: `set` stored a function of this type.
            return Some(Era::Today(unsafe { mem::transmute_copy::<*mut (), T>(&today) }));
        }
        let old = self.old.load(Ordering::Acquire);
        if old.is_null() {
            return None;
        }
        // SAFETY: as above.
        Some(Era::Old(unsafe { mem::transmute_copy::<*mut (), O>(&old) }))
    }
}

/// What the engine calls.
#[derive(Clone)]
pub(super) struct Called<const CTOR: bool> {
    shared: Counted<Shared>,
    ctor: Option<Era<Ctor, Ctor2002>>,
    dtor: Option<Dtor>,
}

impl<const CTOR: bool> Called<CTOR> {
    pub(super) fn new(shared: Counted<Shared>, given: &Given) -> Self {
        Self { shared, ctor: given.ctor, dtor: given.dtor }
    }

    fn size(&self) -> c_int {
        self.shared.size
    }
}

fn refused(result: c_int) -> Result<(), Refused> {
    if result == 0 { Ok(()) } else { Err(Refused) }
}

impl<const CTOR: bool> Hooks for Called<CTOR> {
    const HAS_CTOR: bool = CTOR;

    /// An init may be set later.
    fn keeps_state(&self) -> bool {
        true
    }

    unsafe fn init(&self, item: Item, request: Request) -> Result<(), Refused> {
        let (at, size) = (item.as_ptr().cast(), self.size());
        match self.shared.init.get() {
            // SAFETY: the item is memory of the zone; whoever made the zone vouches for its functions.
            Some(Era::Today(init)) => refused(unsafe { init(at, size, M::of(request)) }),
            Some(Era::Old(init)) => {
                // SAFETY: as above.
                unsafe { init(at, size) };
                Ok(())
            }
            None => Ok(()),
        }
    }

    unsafe fn fini(&self, item: Item) {
        if let Some(Era::Today(fini) | Era::Old(fini)) = self.shared.fini.get() {
            // SAFETY: as in `init`.
            unsafe { fini(item.as_ptr().cast(), self.size()) }
        }
    }

    unsafe fn ctor(&self, item: Item, arg: *mut (), request: Request) -> Result<(), Refused> {
        let (at, size) = (item.as_ptr().cast(), self.size());
        match self.ctor {
            Some(Era::Today(ctor)) => {
                // SAFETY: as in `init`; `arg` is the caller's, who knows the function.
                refused(unsafe { ctor(at, size, arg.cast(), M::of(request)) })
            }
            Some(Era::Old(ctor)) => {
                // SAFETY: as above.
                unsafe { ctor(at, size, arg.cast()) };
                Ok(())
            }
            None => Ok(()),
        }
    }

    unsafe fn dtor(&self, item: Item, arg: *mut ()) {
        if let Some(dtor) = self.dtor {
            // SAFETY: as in `ctor`.
            unsafe { dtor(item.as_ptr().cast(), self.size(), arg.cast()) }
        }
    }
}
