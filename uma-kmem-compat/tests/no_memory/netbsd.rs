//! NetBSD: pools, pool caches, kmem, arenas and maps.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::{self, null, null_mut};

use crate::failing::{FAILED, LEFT, MOST};
use crate::hooks::{Constructor, Destructor, constructor, destructor};
use crate::story::{Told, child, end, every_failure, policy, turn};

unsafe extern "C" {
    fn uma_netbsd_pool_init(
        at: *mut *mut c_void,
        size: usize,
        align: u32,
        offset: u32,
        flags: c_int,
        name: *const c_char,
        pages: *const c_void,
        level: c_int,
    );
    fn uma_netbsd_pool_destroy(at: *mut *mut c_void);
    fn uma_netbsd_pool_get(at: *mut *mut c_void, flags: c_int) -> *mut c_void;
    fn uma_netbsd_pool_put(at: *mut *mut c_void, item: *mut c_void);
    fn uma_netbsd_pool_prime(at: *mut *mut c_void, count: c_int) -> c_int;
    fn uma_netbsd_pool_reclaim(at: *mut *mut c_void) -> c_int;
    fn uma_netbsd_pool_sethardlimit(
        at: *mut *mut c_void,
        count: c_int,
        warning: *const c_char,
        ratecap: c_int,
    );
    fn uma_netbsd_pool_cache_init(
        size: usize,
        align: u32,
        offset: u32,
        flags: u32,
        name: *const c_char,
        pages: *const c_void,
        level: c_int,
        ctor: Option<Constructor>,
        dtor: Option<Destructor>,
        arg: *mut c_void,
    ) -> *mut c_void;
    fn uma_netbsd_pool_cache_get(at: *mut c_void, flags: c_int) -> *mut c_void;
    fn uma_netbsd_pool_cache_put(at: *mut c_void, object: *mut c_void);
    fn uma_netbsd_pool_cache_destroy(at: *mut c_void);
    fn uma_netbsd_kmem_alloc(size: usize, flags: u32) -> *mut c_void;
    fn uma_netbsd_kmem_free(at: *mut c_void, size: usize);
    fn uma_netbsd_kmem_active() -> u64;
    fn uma_netbsd_vmem_create(
        name: *const c_char,
        base: usize,
        size: usize,
        quantum: usize,
        import: *const c_void,
        release: *const c_void,
        source: *mut c_void,
        qcache_max: usize,
        flags: u32,
        level: c_int,
    ) -> *mut c_void;
    fn uma_netbsd_vmem_alloc(
        arena: *mut c_void,
        size: usize,
        flags: u32,
        into: *mut usize,
    ) -> c_int;
    fn uma_netbsd_vmem_free(arena: *mut c_void, at: usize, size: usize);
    fn uma_netbsd_vmem_destroy(arena: *mut c_void);
    fn uma_netbsd_kernel_map() -> *mut *mut c_void;
    fn uma_netbsd_vm_map_create(name: *const c_char, size: usize, flags: c_int)
    -> *mut *mut c_void;
    fn uma_netbsd_vm_map_destroy(map: *mut *mut c_void);
    fn uma_netbsd_uvm_km_alloc(
        map: *mut *mut c_void,
        size: usize,
        align: usize,
        flags: u32,
    ) -> usize;
    fn uma_netbsd_uvm_km_free(map: *mut *mut c_void, at: usize, size: usize, of_type: u32);
    fn uma_netbsd_uvm_km_suballoc(
        map: *mut *mut c_void,
        min: *mut usize,
        max: *mut usize,
        size: usize,
        flags: c_int,
        fixed: bool,
        into: *mut *mut c_void,
    ) -> *mut *mut c_void;
}

const NOWAIT: c_int = 2;
const PSERIALIZE: c_int = 0x20000;
/// Of `kmem` and of `vmem`.
const NOSLEEP: u32 = 2;
const INSTANTFIT: u32 = 0x1000;
/// Of `uvm_km`.
const PAGEABLE: u32 = 2;
const CANFAIL: u32 = 8;

fn story(told: &mut Told) {
    // SAFETY: everything is used as NetBSD has it, and nothing after it has ended.
    unsafe {
        let mut pool = ptr::without_provenance_mut::<c_void>(0x55);
        let at = &raw mut pool;
        uma_netbsd_pool_init(at, 100, 0, 0, PSERIALIZE, c"story".as_ptr(), null(), 0);
        if told.is(pool) {
            uma_netbsd_pool_sethardlimit(at, 200, c"too many".as_ptr(), 1);
            told.so(uma_netbsd_pool_prime(at, 10) == 0);
            let mut all = [null_mut(); 200];
            for item in &mut all {
                *item = uma_netbsd_pool_get(at, NOWAIT);
                told.is(*item);
            }
            // The limit is reached, unless one is missing.
            let more = uma_netbsd_pool_get(at, NOWAIT);
            if !more.is_null() {
                uma_netbsd_pool_put(at, more);
            }
            // It is busy.
            uma_netbsd_pool_destroy(at);
            for item in all.into_iter().filter(|item| !item.is_null()) {
                uma_netbsd_pool_put(at, item);
            }
            uma_netbsd_pool_reclaim(at);
            uma_netbsd_pool_destroy(at);
        }
        let cache = uma_netbsd_pool_cache_init(
            100,
            0,
            0,
            0,
            c"story 2".as_ptr(),
            null(),
            0,
            Some(constructor),
            Some(destructor),
            null_mut(),
        );
        if told.is(cache) {
            told.round::<100>(
                || uma_netbsd_pool_cache_get(cache, NOWAIT),
                |object| uma_netbsd_pool_cache_put(cache, object),
            );
            uma_netbsd_pool_cache_destroy(cache);
        }
        for size in [100, 100_000] {
            let memory = uma_netbsd_kmem_alloc(size, NOSLEEP);
            if told.is(memory) {
                uma_netbsd_kmem_free(memory, size);
            }
        }
        let name = c"story".as_ptr();
        let (none, null) = (null(), null_mut());
        let arena = uma_netbsd_vmem_create(name, 100, 1000, 1, none, none, null, 0, NOSLEEP, 0);
        if told.is(arena) {
            let mut addr = 0;
            let flags = NOSLEEP | INSTANTFIT;
            if told.so(uma_netbsd_vmem_alloc(arena, 10, flags, &raw mut addr) == 0) {
                uma_netbsd_vmem_free(arena, addr, 10);
            }
            uma_netbsd_vmem_destroy(arena);
        }
        maps(told);
    }
}

/// Maps of addresses, and maps out of these, in their own memory and in ours.
fn maps(told: &mut Told) {
    // SAFETY: as above.
    unsafe {
        let map = uma_netbsd_vm_map_create(c"story".as_ptr(), 1 << 20, 1);
        if told.is(map) {
            let mut own = null_mut();
            for into in [null_mut(), &raw mut own] {
                let (mut min, mut max) = (0, 0);
                let (first, last) = (&raw mut min, &raw mut max);
                let part = uma_netbsd_uvm_km_suballoc(map, first, last, 8 << 12, 1, false, into);
                if told.is(part) {
                    page(told, part);
                    uma_netbsd_vm_map_destroy(part);
                }
            }
            // All parts went back, also those that did not come about.
            let whole = uma_netbsd_uvm_km_alloc(map, 1 << 20, 0, PAGEABLE | CANFAIL);
            assert!(whole != 0);
            uma_netbsd_uvm_km_free(map, whole, 1 << 20, PAGEABLE);
            uma_netbsd_vm_map_destroy(map);
        }
        let map = uma_netbsd_kernel_map();
        if told.is(map) {
            page(told, map);
        }
    }
}

unsafe fn page(told: &mut Told, map: *mut *mut c_void) {
    // SAFETY: as above.
    unsafe {
        let at = uma_netbsd_uvm_km_alloc(map, 1 << 12, 0, PAGEABLE | CANFAIL);
        if told.so(at != 0) {
            uma_netbsd_uvm_km_free(map, at, 1 << 12, PAGEABLE);
        }
    }
}

#[test]
fn no_memory() {
    let prepare = || {
        policy(c"netbsd.misuse", c"report");
        policy(c"netbsd.diagnostic", c"on");
    };
    // SAFETY: it only looks.
    every_failure(prepare, story, || unsafe { uma_netbsd_kmem_active() });
}

/// Who waits for memory waits for that of the books about its size, too, however long that takes: on a small stack.
#[test]
fn a_size_is_waited_for() {
    const SLEEP: u32 = 1;
    const FAILURES: u64 = 500;
    let _turn = turn();
    let said = child(|| {
        policy(c"netbsd.diagnostic", c"on");
        let waits = || {
            MOST.set(FAILURES);
            LEFT.set(0);
            // SAFETY: it is freed once.
            unsafe {
                let memory = uma_netbsd_kmem_alloc(100, SLEEP);
                if memory.is_null() || FAILED.get() != FAILURES {
                    end("it did not wait");
                }
                uma_netbsd_kmem_free(memory, 100);
            }
        };
        let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(waits);
        thread.expect("a thread").join().expect("it does not panic");
        0
    });
    assert_eq!(said, Some(0));
}
