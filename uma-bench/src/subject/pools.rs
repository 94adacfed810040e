//! Pools written in Rust. They hand out values or keys, and not pointers. Those that values are moved
//! into have their first word written by that.
//!
//! Each subject leaks its pool: a handful for each run of the program.

use std::mem::MaybeUninit;

use infinity_pool::{PinnedPool, PooledMut};
use lockfree_object_pool::{LinearObjectPool, LinearReusable};
use opool::{Pool, PoolAllocator, RefGuard};

use crate::subject::{Subject, out_of_memory};
use crate::sync::Mutex;

/// What the pools hold: `N` bytes, of which the first word is written.
#[derive(Clone, Copy)]
#[repr(align(8))]
pub(crate) struct Value<const N: usize>([MaybeUninit<u8>; N]);

impl<const N: usize> Value<N> {
    /// A value of which nothing is written.
    const NEW: Self = Self([MaybeUninit::uninit(); N]);

    #[inline(always)]
    fn write(&mut self, word: u64) {
        // SAFETY: `N` is at least 8, and the type is aligned for words.
        unsafe { self.0.as_mut_ptr().cast::<u64>().write_volatile(word) }
    }

    #[inline(always)]
    fn with(word: u64) -> Self {
        let mut value = Self::NEW;
        value.write(word);
        value
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// opool: a queue of boxes, with room for the largest workload.
#[derive(Clone, Copy)]
pub(crate) struct Opool<const N: usize>(&'static Pool<Boxes, Box<Value<N>>>);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Boxes;

impl<const N: usize> PoolAllocator<Box<Value<N>>> for Boxes {
    fn allocate(&self) -> Box<Value<N>> {
        Box::new(Value::NEW)
    }
}

impl<const N: usize> Opool<N> {
    pub(crate) fn new() -> Self {
        Self(leak(Pool::new(1 << 15, Boxes)))
    }
}

// SAFETY: a box is in the pool or held.
unsafe impl<const N: usize> Subject for Opool<N> {
    type Held = RefGuard<'static, Boxes, Box<Value<N>>>;

    #[inline(always)]
    fn take(self) -> Self::Held {
        self.0.get()
    }

    #[inline(always)]
    fn write(held: &mut Self::Held, word: u64) {
        held.write(word);
    }

    #[inline(always)]
    unsafe fn free(self, held: Self::Held) {
        drop(held);
    }
}

/// lockfree-object-pool, the linear one.
#[derive(Clone, Copy)]
pub(crate) struct Linear<const N: usize>(&'static LinearObjectPool<Box<Value<N>>>);

impl<const N: usize> Linear<N> {
    pub(crate) fn new() -> Self {
        Self(leak(LinearObjectPool::new(|| Box::new(Value::NEW), |_| {})))
    }
}

// SAFETY: the pool lends a value once.
unsafe impl<const N: usize> Subject for Linear<N> {
    type Held = LinearReusable<'static, Box<Value<N>>>;

    #[inline(always)]
    fn take(self) -> Self::Held {
        self.0.pull()
    }

    #[inline(always)]
    fn write(held: &mut Self::Held, word: u64) {
        held.write(word);
    }

    #[inline(always)]
    unsafe fn free(self, held: Self::Held) {
        drop(held);
    }
}

/// sharded-slab: values moved in, and found by key.
#[derive(Clone, Copy)]
pub(crate) struct Sharded<const N: usize>(&'static sharded_slab::Slab<Value<N>>);

impl<const N: usize> Sharded<N> {
    pub(crate) fn new() -> Self {
        Self(leak(sharded_slab::Slab::new()))
    }
}

// SAFETY: a key is given out once.
unsafe impl<const N: usize> Subject for Sharded<N> {
    type Held = usize;

    #[inline(always)]
    fn take(self) -> usize {
        self.0.insert(Value::with(0)).unwrap_or_else(|| out_of_memory())
    }

    fn write(_: &mut usize, _: u64) {}

    #[inline(always)]
    unsafe fn free(self, held: usize) {
        self.0.remove(held);
    }
}

/// slab behind a mutex.
#[derive(Clone, Copy)]
pub(crate) struct Locked<const N: usize>(&'static Mutex<slab::Slab<Value<N>>>);

impl<const N: usize> Locked<N> {
    pub(crate) fn new() -> Self {
        Self(leak(Mutex::new(slab::Slab::new())))
    }
}

// SAFETY: a key is given out once.
unsafe impl<const N: usize> Subject for Locked<N> {
    type Held = usize;

    #[inline(always)]
    fn take(self) -> usize {
        let Ok(mut slab) = self.0.lock() else { out_of_memory() };
        slab.insert(Value::with(0))
    }

    fn write(_: &mut usize, _: u64) {}

    #[inline(always)]
    unsafe fn free(self, held: usize) {
        if let Ok(mut slab) = self.0.lock() {
            slab.remove(held);
        }
    }
}

/// infinity_pool, the one whose handles free what they point to.
#[derive(Clone, Copy)]
pub(crate) struct Infinity<const N: usize>(&'static PinnedPool<Value<N>>);

impl<const N: usize> Infinity<N> {
    pub(crate) fn new() -> Self {
        Self(leak(PinnedPool::new()))
    }
}

// SAFETY: a handle owns its value.
unsafe impl<const N: usize> Subject for Infinity<N> {
    type Held = PooledMut<Value<N>>;

    #[inline(always)]
    fn take(self) -> Self::Held {
        self.0.insert(Value::with(0))
    }

    fn write(_: &mut Self::Held, _: u64) {}

    #[inline(always)]
    unsafe fn free(self, held: Self::Held) {
        drop(held);
    }
}
