//! Solaris: caches, moves, arenas and kmem.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::{self, null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hooks::{Constructor, Destructor, constructor, destructor};
use crate::story::{Told, every_failure, policy};

type Move = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, usize, *mut c_void) -> c_int;

unsafe extern "C" {
    fn uma_solaris_kmem_cache_create(
        name: *const c_char,
        size: usize,
        align: usize,
        constructor: Option<Constructor>,
        destructor: Option<Destructor>,
        reclaim: *const c_void,
        private: *mut c_void,
        arena: *mut c_void,
        flags: c_int,
    ) -> *mut c_void;
    fn uma_solaris_kmem_cache_destroy(cache: *mut c_void);
    fn uma_solaris_kmem_cache_alloc(cache: *mut c_void, flags: c_int) -> *mut c_void;
    fn uma_solaris_kmem_cache_free(cache: *mut c_void, object: *mut c_void);
    fn uma_solaris_kmem_cache_set_move(cache: *mut c_void, callback: Option<Move>);
    fn uma_solaris_kmem_cache_reap_now(cache: *mut c_void);
    fn uma_solaris_kmem_cache_reap_active() -> c_int;
    fn uma_solaris_kmem_alloc(size: usize, flags: c_int) -> *mut c_void;
    fn uma_solaris_kmem_free(at: *mut c_void, size: usize);
    fn uma_solaris_kmem_reap();
    fn uma_solaris_kmem_alloc_active() -> u64;
    fn uma_solaris_heap_arena() -> *mut c_void;
    fn uma_solaris_vmem_alloc(arena: *mut c_void, size: usize, flags: c_int) -> *mut c_void;
    fn uma_solaris_vmem_free(arena: *mut c_void, at: *mut c_void, size: usize);
    fn uma_solaris_vmem_create(
        name: *const c_char,
        base: *mut c_void,
        size: usize,
        quantum: usize,
        alloc: Option<unsafe extern "C" fn(*mut c_void, usize, c_int) -> *mut c_void>,
        free: Option<unsafe extern "C" fn(*mut c_void, *mut c_void, usize)>,
        source: *mut c_void,
        qcache_max: usize,
        flags: c_int,
    ) -> *mut c_void;
    fn uma_solaris_vmem_xalloc(
        arena: *mut c_void,
        size: usize,
        align: usize,
        phase: usize,
        nocross: usize,
        min: *mut c_void,
        max: *mut c_void,
        flags: c_int,
    ) -> *mut c_void;
    fn uma_solaris_vmem_xfree(arena: *mut c_void, at: *mut c_void, size: usize);
    fn uma_solaris_vmem_destroy(arena: *mut c_void);
}

const NOSLEEP: c_int = 1;
const PUSHPAGE: c_int = 4;

unsafe extern "C-unwind" fn moves(
    _: *mut c_void,
    _: *mut c_void,
    _: usize,
    _: *mut c_void,
) -> c_int {
    // Later.
    2
}

unsafe fn objects(told: &mut Told, cache: *mut c_void) {
    let mut all = [null_mut(); 300];
    // SAFETY: the cache is live, and each object is freed once.
    unsafe {
        for object in &mut all {
            *object = uma_solaris_kmem_cache_alloc(cache, NOSLEEP | PUSHPAGE);
            told.is(*object);
        }
        // Few are left in each slab.
        for (place, object) in all.into_iter().enumerate() {
            if place % 20 != 0 && !object.is_null() {
                uma_solaris_kmem_cache_free(cache, object);
            }
        }
        uma_solaris_kmem_cache_reap_now(cache);
        while uma_solaris_kmem_cache_reap_active() != 0 {
            std::thread::yield_now();
        }
        for object in all.into_iter().step_by(20).filter(|object| !object.is_null()) {
            uma_solaris_kmem_cache_free(cache, object);
        }
    }
}

/// Numbers that somebody lends, behind a multiple of 4096 and never at one.
static NEXT: AtomicUsize = AtomicUsize::new(1 << 20);
static LENT: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn lend(_: *mut c_void, size: usize, _: c_int) -> *mut c_void {
    LENT.fetch_add(size, Ordering::Relaxed);
    let next = NEXT.fetch_add((size + 16).next_multiple_of(4096), Ordering::Relaxed);
    ptr::without_provenance_mut(next + 16)
}

unsafe extern "C" fn take_back(_: *mut c_void, at: *mut c_void, size: usize) {
    assert_eq!(at.addr() % 4096, 16, "what was lent comes back whole");
    LENT.fetch_sub(size, Ordering::Relaxed);
}

/// What is borrowed is cut so that it is aligned, and that is noted: without memory for it, it goes back.
fn aligned(told: &mut Told) {
    // SAFETY: as in the story.
    unsafe {
        let null = null_mut();
        let (name, lend, back) = (c"story".as_ptr(), Some(lend as _), Some(take_back as _));
        let arena = uma_solaris_vmem_create(name, null, 0, 16, lend, back, null, 0, NOSLEEP);
        if told.is(arena) {
            let at = uma_solaris_vmem_xalloc(arena, 64, 4096, 0, 0, null, null, NOSLEEP);
            if told.is(at) {
                assert_eq!(at.addr() % 4096, 0);
                uma_solaris_vmem_xfree(arena, at, 64);
            }
            uma_solaris_vmem_destroy(arena);
        }
        assert_eq!(LENT.load(Ordering::Relaxed), 0, "what was lent and did not come back");
    }
}

fn story(told: &mut Told) {
    // SAFETY: everything is used as Solaris has it, and nothing after it has ended.
    unsafe {
        let cache = uma_solaris_kmem_cache_create(
            c"story".as_ptr(),
            200,
            0,
            Some(constructor),
            Some(destructor),
            null(),
            null_mut(),
            null_mut(),
            0,
        );
        if told.is(cache) {
            uma_solaris_kmem_cache_set_move(cache, Some(moves));
            objects(told, cache);
            let object = uma_solaris_kmem_cache_alloc(cache, NOSLEEP);
            if told.is(object) {
                // It stays, by policy.
                uma_solaris_kmem_cache_destroy(cache);
                uma_solaris_kmem_cache_free(cache, object);
            }
            uma_solaris_kmem_cache_destroy(cache);
        }
        let heap = uma_solaris_heap_arena();
        let arena = uma_solaris_vmem_create(
            c"story".as_ptr(),
            null_mut(),
            0,
            4096,
            Some(uma_solaris_vmem_alloc),
            Some(uma_solaris_vmem_free),
            heap,
            0,
            NOSLEEP,
        );
        told.is(heap);
        if told.is(arena) {
            let name = c"story 2".as_ptr();
            let (none, null) = (null(), null_mut());
            let cache =
                uma_solaris_kmem_cache_create(name, 100, 0, None, None, none, null, arena, 0);
            if told.is(cache) {
                objects(told, cache);
                uma_solaris_kmem_cache_destroy(cache);
            }
            // Where there is no heap it has nothing to give.
            uma_solaris_vmem_destroy(arena);
        }
        for size in [100, 1_000_000] {
            let memory = uma_solaris_kmem_alloc(size, NOSLEEP);
            if told.is(memory) {
                uma_solaris_kmem_free(memory, size);
            }
        }
        uma_solaris_kmem_reap();
        aligned(told);
    }
}

#[test]
fn no_memory() {
    let prepare = || {
        policy(c"solaris.misuse", c"report");
        policy(c"solaris.destroy", c"refuse");
    };
    // SAFETY: it only looks.
    every_failure(prepare, story, || unsafe { uma_solaris_kmem_alloc_active() });
}
