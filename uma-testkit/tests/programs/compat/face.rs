//! What the program needs of a face: one vocabulary, which each brings its own to.

use std::alloc::Layout;
use std::ptr::NonNull;

use uma_malloc::SizeClasses;
use uma_testkit::caught;
use uma_testkit::ops::compat::{CacheConfig, How};

/// What is counted of a cache.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub used: u64,
    pub cached: u64,
    /// Objects that were handed out, ever.
    pub allocs: u64,
}

/// A cache, pool or zone.
pub trait Cache {
    fn take(&self, how: How) -> Option<NonNull<u8>>;

    /// # Safety
    ///
    /// The object came from here, and is used no more. Likewise below.
    unsafe fn give(&self, object: NonNull<u8>);

    /// All of `n`, or none or fewer as the face has it.
    fn take_many(&self, how: How, n: usize) -> Vec<NonNull<u8>> {
        let mut all = Vec::new();
        while all.len() < n {
            match caught(|| self.take(how)) {
                Ok(Some(object)) => all.push(object),
                Err(panic) if !panic.is_planned() => panic!("{panic}"),
                _ => break,
            }
        }
        all
    }

    unsafe fn give_many(&self, objects: &[NonNull<u8>]) {
        for &object in objects {
            // SAFETY: passed on to the caller.
            match caught(|| unsafe { self.give(object) }) {
                Err(panic) if !panic.is_planned() => panic!("{panic}"),
                _ => {}
            }
        }
    }

    unsafe fn discard(&self, object: NonNull<u8>) {
        // SAFETY: passed on to the caller.
        unsafe { self.give(object) };
    }

    fn counts(&self) -> Counts;

    /// Changes the limit, and says what it is now; `None` where there are none.
    fn set_limit(&self, _max: Option<u64>) -> Option<Option<u64>> {
        None
    }

    fn prime(&self, _items: u64) {}
    fn low_water(&self, _items: u64) {}
    /// Returns whether nothing is cached after it, for certain.
    fn reap(&self, how: u8) -> bool;

    /// The objects in use, where the face can say.
    fn in_use(&self) -> Option<Vec<usize>> {
        None
    }

    /// Whether it finds a second free of an object at once, with nothing coming of it.
    fn finds_twice(&self, _checked: bool) -> bool {
        false
    }

    /// `used` of `n` objects that were set aside.
    fn sheaf(&self, _n: usize, _used: usize) -> Option<Vec<NonNull<u8>>> {
        None
    }

    fn elements(&self, _least: usize) -> Option<Box<dyn Elements>> {
        None
    }

    fn second(&self, _place: usize, _config: &CacheConfig) -> Option<Box<dyn Cache>> {
        None
    }

    /// Ends it; with objects in use it stays, and says how many.
    fn destroy(self: Box<Self>) -> Result<(), (Box<dyn Cache>, u64)>;
}

/// A pool of elements with a reserve.
pub trait Elements {
    fn take(&self, wait: bool) -> Option<NonNull<u8>>;

    /// # Safety
    ///
    /// The element came from here, and is used no more.
    unsafe fn give(&self, element: NonNull<u8>);
    fn resize(&self, least: usize) -> bool;
    /// How many elements are to be in reserve, and are.
    fn reserve(&self) -> (usize, usize);
    /// Elements that came from the cache and did not go back.
    fn out(&self) -> u64;
    /// From the `k`-th on there is no element any more.
    fn fails_from(&self, k: Option<u64>);
    fn refused(&self) -> u64;
}

/// What was made.
pub struct Made {
    pub cache: Box<dyn Cache>,
    pub layout: Layout,
    /// Whether objects are constructed, and taken apart.
    pub begins: bool,
    pub ends: bool,
    /// Whether something is called at each allocation and free.
    pub each: bool,
    /// Whether zeros can be asked for.
    pub zeroes: bool,
}

/// The rest of an interface.
pub trait Face {
    fn create(&self, place: usize, config: &CacheConfig) -> Result<Made, String>;
    /// Memory, and what it is aligned to at least.
    fn memory(&self, size: usize, align: usize, how: How) -> (*mut u8, usize);
    /// # Safety
    ///
    /// If it is memory in use, nobody uses it any more. Likewise below.
    unsafe fn free(&self, at: *mut u8, size: usize);

    /// `None` where sizes do not change.
    unsafe fn resize(&self, _at: *mut u8, _old: usize, _size: usize, _how: How) -> Option<*mut u8> {
        None
    }

    /// The size classes that its memory is of.
    fn classes(&self) -> &'static SizeClasses;

    /// Bytes that may be used, where the face can say.
    fn usable(&self, _at: *mut u8) -> Option<usize> {
        None
    }

    /// What memory is aligned to at least when its size has changed.
    fn realigned(&self, _size: usize) -> usize {
        1
    }

    /// Pieces of memory in use.
    fn used(&self) -> u64;

    /// Bytes of memory in use, by their classes, where the face can say.
    fn bytes(&self) -> Option<u64> {
        None
    }

    /// Whether a free of memory of `size` bytes with `other` is found.
    fn finds_size(&self, _size: usize, _other: usize, _checked: bool) -> bool {
        false
    }

    fn reap_all(&self, how: u8);
    /// Describes what cannot be, and looks at the answer.
    fn bad(&self, what: u8);
    fn end(&self) {}
}
