//! libumem: caches and memory.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::{null, null_mut};

use crate::hooks::{Constructor, Destructor, constructor, destructor};
use crate::story::{Told, every_failure};

unsafe extern "C" {
    fn uma_umem_cache_create(
        name: *const c_char,
        size: usize,
        align: usize,
        constructor: Option<Constructor>,
        destructor: Option<Destructor>,
        reclaim: *const c_void,
        private: *mut c_void,
        source: *mut c_void,
        flags: c_int,
    ) -> *mut c_void;
    fn uma_umem_cache_destroy(cache: *mut c_void);
    fn uma_umem_cache_alloc(cache: *mut c_void, flags: c_int) -> *mut c_void;
    fn uma_umem_cache_free(cache: *mut c_void, object: *mut c_void);
    fn uma_umem_alloc(size: usize, flags: c_int) -> *mut c_void;
    fn uma_umem_free(at: *mut c_void, size: usize);
    fn uma_umem_reap();
    fn uma_umem_alloc_active() -> u64;
}

fn story(told: &mut Told) {
    // SAFETY: everything is used as libumem has it, and nothing after it has ended.
    unsafe {
        let name = c"story".as_ptr();
        let (none, null) = (null(), null_mut());
        *libc::__errno_location() = 0;
        let cache = uma_umem_cache_create(
            name,
            100,
            0,
            Some(constructor),
            Some(destructor),
            none,
            null,
            null,
            0,
        );
        if told.is(cache) {
            told.round::<300>(
                || uma_umem_cache_alloc(cache, 0),
                |object| uma_umem_cache_free(cache, object),
            );
            uma_umem_cache_destroy(cache);
        } else {
            assert_eq!(*libc::__errno_location(), libc::EAGAIN);
        }
        for size in [100, 1_000_000] {
            let memory = uma_umem_alloc(size, 0);
            if told.is(memory) {
                uma_umem_free(memory, size);
            }
        }
        uma_umem_reap();
    }
}

#[test]
fn no_memory() {
    // SAFETY: it only looks.
    every_failure(|| {}, story, || unsafe { uma_umem_alloc_active() });
}
