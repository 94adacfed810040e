//! `pool_cache`: objects of one kind, which stay constructed in caches of each CPU.

use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;

use uma::core::ConfigError;

use super::{Callbacks, PageAllocator, Pool, PoolArgs, StillOut};

/// A pool with a cache of constructed objects for each CPU (`pool_cache_t`).
///
/// The constructor runs when memory enters the cache, the destructor when it leaves. What a [`Pool`] can do
/// it can do as well, and counts are those of objects in use.
///
/// ```
/// use uma_kmem_compat::netbsd::{Callbacks, PoolArgs, PoolCache, PoolFlags};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // SAFETY: there are no callbacks.
/// let nodes = unsafe { PoolCache::create("node", 64, PoolArgs::default(), Callbacks::NONE)? };
/// let node = nodes.get(PoolFlags::WAITOK).ok_or("no memory")?;
/// // SAFETY: it came from this cache and is used no more.
/// unsafe { nodes.put(node) };
/// nodes.invalidate();
/// nodes.destroy()?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct PoolCache(Pool);

impl PoolCache {
    /// A cache (`pool_cache_init`).
    ///
    /// # Errors
    ///
    /// As [`Pool::create`].
    ///
    /// # Safety
    ///
    /// The constructor takes a pointer to memory of `size` bytes with unspecified contents, the destructor one
    /// to what the constructor and users have made of it; they touch no more of it, and may run on any thread.
    pub unsafe fn create(
        name: &str,
        size: usize,
        args: PoolArgs,
        callbacks: Callbacks,
    ) -> Result<Self, ConfigError> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { Pool::make(name, size, args, None, Some(callbacks)) }.map(Self)
    }

    /// A cache with pages from elsewhere.
    ///
    /// # Errors
    ///
    /// As [`Pool::create_on`].
    ///
    /// # Safety
    ///
    /// As [`create`](Self::create) and [`Pool::create_on`].
    pub unsafe fn create_on(
        name: &str,
        size: usize,
        args: PoolArgs,
        callbacks: Callbacks,
        pages: PageAllocator,
    ) -> Result<Self, ConfigError> {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { Pool::make(name, size, args, Some(pages), Some(callbacks)) }.map(Self)
    }

    /// Takes an object apart and gives its memory back to the pool, past the caches
    /// (`pool_cache_destruct_object`): for one whose state is not worth keeping.
    ///
    /// # Safety
    ///
    /// It came from this cache and is used no more.
    pub unsafe fn destruct_object(&self, object: NonNull<u8>) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.destruct(object) };
    }

    /// Takes apart all objects in caches, of every CPU (`pool_cache_invalidate`). Pages that are wholly free go
    /// with them.
    pub fn invalidate(&self) {
        self.0.invalidate();
    }

    /// Ends the cache (`pool_cache_destroy`): every object in it is taken apart.
    ///
    /// # Errors
    ///
    /// If objects are in use: the cache, unharmed, and how many.
    pub fn destroy(self) -> Result<(), StillOut<Self>> {
        match self.0.out() {
            0 => Ok(()),
            out => Err(StillOut { pool: Box::new(self), out }),
        }
    }
}

impl Deref for PoolCache {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.0
    }
}

impl fmt::Display for PoolCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
