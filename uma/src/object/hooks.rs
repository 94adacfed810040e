//! How objects come about and are made ready, in terms of their type; and the one place where the pointers that
//! a zone's hooks are given become references.

use core::fmt;
use core::marker::PhantomData;

use uma_core::{Hooks, Item, Refused, Request};

/// How the objects of a cache are made and made ready: init, ctor and dtor in terms of a type. Fini is
/// the type's own `Drop`.
///
/// Implement it for a type of your own where function pointers are not enough, because making an
/// object needs something that is only known at run time, which a closure would capture.
///
/// ```
/// use uma::{ObjectCache, ObjectHooks, Refused};
///
/// #[derive(Clone)]
/// struct Buffers { size: usize }
///
/// impl ObjectHooks<Vec<u8>> for Buffers {
///     fn init(&self) -> Result<Vec<u8>, Refused> {
///         let mut buffer = Vec::new();
///         buffer.try_reserve_exact(self.size).map_err(|_| Refused)?;
///         Ok(buffer)
///     }
///     fn dtor(&self, buffer: &mut Vec<u8>) {
///         buffer.clear();
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let read_from_a_file = 5000;
/// let buffers: ObjectCache<Vec<u8>, Buffers> =
///     ObjectCache::builder("buffer").hooks(Buffers { size: read_from_a_file }).build()?;
/// assert!(buffers.get()?.capacity() >= 5000);
/// # Ok(()) }
/// ```
pub trait ObjectHooks<T> {
    /// Makes an object. Runs when memory enters the cache, for whole batches ahead of need.
    ///
    /// # Errors
    ///
    /// [`Refused`] if it cannot.
    fn init(&self) -> Result<T, Refused>;

    /// Makes an object ready for one use.
    ///
    /// # Errors
    ///
    /// [`Refused`] if it cannot; the object is then dropped.
    fn ctor(&self, object: &mut T) -> Result<(), Refused> {
        let _ = object;
        Ok(())
    }

    /// Brings an object back to the state in which `init` left it.
    fn dtor(&self, object: &mut T) {
        let _ = object;
    }
}

/// [`ObjectHooks`] as function pointers.
pub struct FnObject<T> {
    pub(super) init: Init<T>,
    pub(super) ctor: Option<Ctor<T>>,
    pub(super) dtor: Option<fn(&mut T)>,
}

pub(super) enum Init<T> {
    Always(fn() -> T),
    Maybe(fn() -> Result<T, Refused>),
}

pub(super) enum Ctor<T> {
    Always(fn(&mut T)),
    Maybe(fn(&mut T) -> Result<(), Refused>),
}

// Written out, since a derive would ask for `T: Clone`.
impl<T> Clone for FnObject<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for FnObject<T> {}

impl<T> Clone for Init<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Init<T> {}

impl<T> Clone for Ctor<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ctor<T> {}

impl<T> ObjectHooks<T> for FnObject<T> {
    fn init(&self) -> Result<T, Refused> {
        match self.init {
            Init::Always(init) => Ok(init()),
            Init::Maybe(init) => init(),
        }
    }

    #[inline(always)]
    fn ctor(&self, object: &mut T) -> Result<(), Refused> {
        match self.ctor {
            None => Ok(()),
            Some(Ctor::Always(ctor)) => {
                ctor(object);
                Ok(())
            }
            Some(Ctor::Maybe(ctor)) => ctor(object),
        }
    }

    #[inline(always)]
    fn dtor(&self, object: &mut T) {
        if let Some(dtor) = self.dtor {
            dtor(object);
        }
    }
}

impl<T> fmt::Debug for FnObject<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnObject").finish_non_exhaustive()
    }
}

/// [`ObjectHooks`] as hooks of a zone: where pointers become references.
///
/// They suit items of the layout of a `T` that are never zeroed, which is why the zone of an object
/// cache is not to be had as a raw one.
pub(crate) struct TypedHooks<T, O> {
    pub(super) object: O,
    pub(super) values: PhantomData<fn(T) -> T>,
}

impl<T, O: Clone> Clone for TypedHooks<T, O> {
    fn clone(&self) -> Self {
        Self { object: self.object.clone(), values: PhantomData }
    }
}

impl<T, O: ObjectHooks<T>> Hooks for TypedHooks<T, O> {
    unsafe fn init(&self, item: Item, _: Request) -> Result<(), Refused> {
        let object = self.object.init()?;
        // SAFETY: the item is memory of the layout of a `T`, and the caller's alone.
        unsafe { item.cast::<T>().write(object) };
        Ok(())
    }

    unsafe fn fini(&self, item: Item) {
        // SAFETY: `init` has written a `T`, and every use since left a valid one.
        unsafe { item.cast::<T>().drop_in_place() };
    }

    #[inline(always)]
    unsafe fn ctor(&self, item: Item, _: *mut (), _: Request) -> Result<(), Refused> {
        // SAFETY: as in `fini`; the caller has the item to itself.
        self.object.ctor(unsafe { item.cast::<T>().as_mut() })
    }

    #[inline(always)]
    unsafe fn dtor(&self, item: Item, _: *mut ()) {
        // SAFETY: as in `ctor`.
        self.object.dtor(unsafe { item.cast::<T>().as_mut() });
    }
}
