//! Linux: caches, sheaves, kmalloc and mempools.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use crate::story::{Told, every_failure};

#[repr(C)]
struct Args {
    align: u32,
    useroffset: u32,
    usersize: u32,
    freeptr_offset: u32,
    use_freeptr_offset: bool,
    ctor: Option<unsafe extern "C-unwind" fn(*mut c_void)>,
    sheaf_capacity: u32,
}

type Alloc = extern "C-unwind" fn(u32, *mut c_void) -> *mut c_void;
type Free = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void);

unsafe extern "C" {
    fn uma_linux_kmem_cache_create(
        name: *const c_char,
        size: u32,
        align: u32,
        flags: u32,
        ctor: Option<unsafe extern "C-unwind" fn(*mut c_void)>,
    ) -> *mut c_void;
    fn uma_linux_kmem_cache_create_args(
        name: *const c_char,
        size: u32,
        args: *const Args,
        flags: u32,
    ) -> *mut c_void;
    fn uma_linux_kmem_cache_destroy(cache: *mut c_void);
    fn uma_linux_kmem_cache_alloc(cache: *mut c_void, gfp: u32) -> *mut c_void;
    fn uma_linux_kmem_cache_free(cache: *mut c_void, object: *mut c_void);
    fn uma_linux_kmem_cache_shrink(cache: *mut c_void) -> c_int;
    fn uma_linux_kmem_cache_prefill_sheaf(cache: *mut c_void, gfp: u32, count: u32) -> *mut c_void;
    fn uma_linux_kmem_cache_alloc_from_sheaf(
        cache: *mut c_void,
        gfp: u32,
        sheaf: *mut c_void,
    ) -> *mut c_void;
    fn uma_linux_kmem_cache_return_sheaf(cache: *mut c_void, gfp: u32, sheaf: *mut c_void);
    fn uma_linux_kmalloc(size: usize, gfp: u32) -> *mut c_void;
    fn uma_linux_krealloc(at: *const c_void, size: usize, gfp: u32) -> *mut c_void;
    fn uma_linux_kfree(at: *const c_void);
    fn uma_linux_kmem_dump_obj(at: *const c_void);
    fn uma_linux_kmalloc_active() -> u64;
    fn uma_linux_mempool_create_node(
        least: c_int,
        alloc: Option<Alloc>,
        free: Option<Free>,
        data: *mut c_void,
        gfp: u32,
        node: c_int,
    ) -> *mut c_void;
    fn uma_linux_mempool_destroy(pool: *mut c_void);
    fn uma_linux_mempool_resize(pool: *mut c_void, least: c_int) -> c_int;
    fn uma_linux_mempool_kmalloc(gfp: u32, size: *mut c_void) -> *mut c_void;
    fn uma_linux_mempool_kfree(element: *mut c_void, size: *mut c_void);
    fn uma_linux_set_grace_period(function: Option<extern "C-unwind" fn()>);
}

const KERNEL: u32 = 0xcc0;
const TYPESAFE: u32 = 0x80000;

extern "C-unwind" fn grace() {}

fn objects(told: &mut Told, cache: *mut c_void) {
    // SAFETY: the cache is live, and each object is freed once.
    unsafe {
        told.round::<300>(
            || uma_linux_kmem_cache_alloc(cache, KERNEL),
            |object| uma_linux_kmem_cache_free(cache, object),
        );
        uma_linux_kmem_cache_shrink(cache);
    }
}

fn story(told: &mut Told) {
    // SAFETY: everything is used as Linux has it, and nothing after it has ended.
    unsafe {
        uma_linux_set_grace_period(Some(grace));
        // Bytes that are no text, too.
        let name = c"story \xff";
        let cache = uma_linux_kmem_cache_create(name.as_ptr(), 100, 0, 0, None);
        if told.is(cache) {
            objects(told, cache);
            let sheaf = uma_linux_kmem_cache_prefill_sheaf(cache, KERNEL, 10);
            if told.is(sheaf) {
                let object = uma_linux_kmem_cache_alloc_from_sheaf(cache, KERNEL, sheaf);
                told.is(object);
                uma_linux_kmem_cache_free(cache, object);
                uma_linux_kmem_cache_return_sheaf(cache, KERNEL, sheaf);
            }
            // A report of what is in use.
            let object = uma_linux_kmem_cache_alloc(cache, KERNEL);
            if told.is(object) {
                uma_linux_kmem_cache_destroy(cache);
                uma_linux_kmem_cache_free(cache, object);
            }
            uma_linux_kmem_cache_destroy(cache);
        }
        let args = Args {
            align: 64,
            useroffset: 0,
            usersize: 0,
            freeptr_offset: 0,
            use_freeptr_offset: false,
            ctor: None,
            sheaf_capacity: 20,
        };
        let cache =
            uma_linux_kmem_cache_create_args(c"story 2".as_ptr(), 1000, &raw const args, TYPESAFE);
        if told.is(cache) {
            objects(told, cache);
            uma_linux_kmem_cache_destroy(cache);
        }
        let memory = uma_linux_kmalloc(100, KERNEL);
        if told.is(memory) {
            uma_linux_kmem_dump_obj(memory);
            let more = uma_linux_krealloc(memory, 100_000, KERNEL | 0x100);
            uma_linux_kfree(if told.is(more) { more } else { memory });
        }
        let pool = uma_linux_mempool_create_node(
            4,
            Some(uma_linux_mempool_kmalloc_safe),
            Some(uma_linux_mempool_kfree_safe),
            ptr::without_provenance_mut(100),
            KERNEL,
            -1,
        );
        if told.is(pool) {
            told.so(uma_linux_mempool_resize(pool, 40) == 0);
            uma_linux_mempool_destroy(pool);
        }
    }
}

extern "C-unwind" fn uma_linux_mempool_kmalloc_safe(gfp: u32, size: *mut c_void) -> *mut c_void {
    // SAFETY: it takes any number.
    unsafe { uma_linux_mempool_kmalloc(gfp, size) }
}

unsafe extern "C-unwind" fn uma_linux_mempool_kfree_safe(at: *mut c_void, size: *mut c_void) {
    // SAFETY: the pool gives it what the other returned.
    unsafe { uma_linux_mempool_kfree(at, size) }
}

#[test]
fn no_memory() {
    // SAFETY: it only looks.
    every_failure(|| {}, story, || unsafe { uma_linux_kmalloc_active() });
}
