//! Without memory for books the faces fail as the originals do, and lose nothing.
//!
//! Each face is a short story of C calls that make, use and end everything that it has. A process is forked for
//! every allocation of that story from the global allocator: there, this one fails, or this and all after it. What
//! comes back is null or an error, and whoever sees one goes on without. Then the story is told twice with memory, and
//! must come to its end, with nothing in use, no zone left, and not a block more than where all went well. The same for
//! calls of a constructor, which refuses: the first ones, and some later.
#![cfg(all(
    feature = "capi",
    feature = "solaris",
    feature = "umem",
    feature = "linux",
    feature = "netbsd",
    feature = "freebsd",
    target_os = "linux"
))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::io::Write;
use std::ptr::{self, null, null_mut};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use uma_kmem_compat as _;

/// Handles are never freed: they are aligned to this, and nothing else is.
const HANDLE: usize = 64;

struct Failing;

thread_local! {
    /// How many allocations of this thread succeed before one fails; none does at less than 0.
    static LEFT: Cell<i64> = const { Cell::new(-1) };
    /// Whether all after that fail, too.
    static FOR_GOOD: Cell<bool> = const { Cell::new(false) };
    static FAILED: Cell<u64> = const { Cell::new(0) };
}
/// Blocks that are allocated, but for handles.
static BLOCKS: AtomicI64 = AtomicI64::new(0);

fn fails() -> bool {
    let left = LEFT.get();
    if left < 0 {
        return false;
    }
    if left > 0 {
        LEFT.set(left - 1);
        return false;
    }
    FAILED.set(FAILED.get() + 1);
    if !FOR_GOOD.get() {
        LEFT.set(-1);
    }
    if SHOWN.load(Ordering::Relaxed) != 0 {
        let (left, good) = (LEFT.replace(-1), FOR_GOOD.get());
        let trace = std::backtrace::Backtrace::force_capture();
        let _ = writeln!(std::io::stderr(), "{trace}");
        LEFT.set(left);
        FOR_GOOD.set(good);
    }
    true
}

/// Whether the places of failures are shown.
static SHOWN: AtomicU64 = AtomicU64::new(0);

// SAFETY: the system's, or null, which is allowed.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails() {
            return null_mut();
        }
        BLOCKS.fetch_add(i64::from(layout.align() != HANDLE), Ordering::Relaxed);
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BLOCKS.fetch_sub(i64::from(layout.align() != HANDLE), Ordering::Relaxed);
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if fails() {
            return null_mut();
        }
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static GLOBAL: Failing = Failing;

/// Objects that constructors made, and destructors did not take apart.
static CONSTRUCTED: AtomicI64 = AtomicI64::new(0);
/// How many calls of constructors succeed before one refuses; none does at less than 0.
static PATIENCE: AtomicI64 = AtomicI64::new(-1);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// 0, or the constructor refuses.
fn constructs() -> c_int {
    if PATIENCE.load(Ordering::Relaxed) >= 0 && PATIENCE.fetch_sub(1, Ordering::Relaxed) == 0 {
        REFUSED.fetch_add(1, Ordering::Relaxed);
        return -1;
    }
    CONSTRUCTED.fetch_add(1, Ordering::Relaxed);
    0
}

fn destructs() {
    CONSTRUCTED.fetch_sub(1, Ordering::Relaxed);
}

extern "C-unwind" fn silent(_: *const c_char) {}

unsafe extern "C" {
    fn uma_compat_set_policy(key: *const c_char, value: *const c_char) -> c_int;
    fn uma_compat_set_reporter(reporter: Option<extern "C-unwind" fn(*const c_char)>);
}

/// What a story has in use at its end.
type Used = fn() -> u64;

/// How a story of a face was told: whether it came to its end.
struct Told(bool);

impl Told {
    /// Something that may be missing.
    fn is<T>(&mut self, at: *mut T) -> bool {
        self.so(!at.is_null())
    }

    fn so(&mut self, so: bool) -> bool {
        self.0 &= so;
        so
    }
}

/// In a child: says what went wrong, and ends.
fn end(what: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "no_memory.rs: {what}");
    // SAFETY: it ends the process.
    unsafe { libc::_exit(1) }
}

/// Runs `body` in a copy of the process. Returns the number that it ends with, or `None` if it does not end well.
fn child(body: impl FnOnce() -> u8) -> Option<u8> {
    // SAFETY: the library was not used here, and this test has no other thread that does.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        std::panic::set_hook(Box::new(|panic| end(&panic.to_string())));
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: plain numbers; and a process that hangs is ended.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::alarm(60);
            if SHOWN.load(Ordering::Relaxed) == 0 {
                uma_compat_set_reporter(Some(silent));
            }
        }
        let said = body();
        // SAFETY: it ends the process.
        unsafe { libc::_exit(100 + i32::from(said)) }
    }
    let mut status = 0;
    // SAFETY: it is our child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    let ended = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) >= 100;
    ended.then(|| (libc::WEXITSTATUS(status) - 100) as u8)
}

/// Tells the story twice with memory. Returns how many blocks there are then.
fn twice(story: fn(&mut Told), used: Used) -> i64 {
    for _ in 0..2 {
        let mut told = Told(true);
        story(&mut told);
        if !told.0 {
            end("with memory again, it fails");
        }
    }
    if used() != 0 {
        end(&format!("{} are still in use", used()));
    }
    let zones = uma::zones();
    if let Some(zone) = zones.iter().find(|zone| zone.name.as_str().starts_with("story")) {
        end(&format!("zone \"{}\" is left", zone.name));
    }
    let constructed = CONSTRUCTED.load(Ordering::Relaxed);
    if constructed != 0 {
        end(&format!("{constructed} objects were not taken apart"));
    }
    drop(zones);
    BLOCKS.load(Ordering::Relaxed)
}

const BEGIN: &str = "UMA_TEST_ALLOCATION";

/// The tests take turns: forks are copies of one thread.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn every_failure(prepare: fn(), story: fn(&mut Told), used: Used) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let picked: Option<i64> = std::env::var(BEGIN).ok().and_then(|wish| wish.parse().ok());
    SHOWN.store(u64::from(picked.is_some()), Ordering::Relaxed);
    // How many blocks there are if nothing fails, by a pipe of one number.
    let mut ends = [0; 2];
    // SAFETY: there is room for two numbers.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    let [from, to] = ends;
    let base = child(|| {
        // In the child nobody else allocates.
        let before = BLOCKS.load(Ordering::Relaxed);
        prepare();
        let mut told = Told(true);
        story(&mut told);
        if !told.0 {
            end("it fails at once");
        }
        let blocks = (twice(story, used) - before).to_ne_bytes();
        // SAFETY: the pipe has room for 8 bytes.
        unsafe { libc::write(to, blocks.as_ptr().cast(), blocks.len()) };
        0
    });
    assert_eq!(base, Some(0));
    let mut blocks = [0; 8];
    // SAFETY: they were written before the child ended; there is room.
    assert_eq!(unsafe { libc::read(from, blocks.as_mut_ptr().cast(), 8) }, 8);
    let base = i64::from_ne_bytes(blocks);
    let mut counts = [0; 3];
    for (kind, count) in counts.iter_mut().enumerate() {
        let first = picked.unwrap_or(0);
        // Constructors are called often, and in the end always for the same.
        for at in (first..).filter(|at| kind != 2 || *at < 30 || at % 29 == 0) {
            let said = child(|| {
                let before = BLOCKS.load(Ordering::Relaxed);
                prepare();
                let mut told = Told(true);
                if kind == 2 {
                    PATIENCE.store(at, Ordering::Relaxed);
                } else {
                    FOR_GOOD.set(kind == 1);
                    LEFT.set(at);
                }
                story(&mut told);
                LEFT.set(-1);
                PATIENCE.store(-1, Ordering::Relaxed);
                let failed = FAILED.get() + REFUSED.load(Ordering::Relaxed);
                let blocks = twice(story, used) - before;
                if blocks > base {
                    end(&format!("{} blocks were lost", blocks - base));
                }
                u8::from(failed != 0)
            });
            let how = ["one failed", "all failed from there", "a constructor refused"][kind];
            let said = said.unwrap_or_else(|| {
                panic!("number {at}, {how}: it did not end well ({BEGIN}={at} shows where)")
            });
            if said == 0 || picked.is_some() {
                break;
            }
            *count += 1;
        }
    }
    // SAFETY: they are ours.
    unsafe { (libc::close(from), libc::close(to)) };
    if picked.is_none() {
        assert!(counts[0] >= 5 && counts[1] == counts[0], "nothing was to fail: {counts:?}");
        let [one, _, refused] = counts;
        let line = format!("no_memory.rs: {one} allocations, {refused} calls of constructors\n");
        let _ = std::io::stdout().write_all(line.as_bytes());
    }
}

fn policy(key: &std::ffi::CStr, value: &std::ffi::CStr) {
    // SAFETY: both are strings.
    let set = unsafe { uma_compat_set_policy(key.as_ptr(), value.as_ptr()) };
    assert_eq!(set, 0, "{key:?}");
}

mod linux {
    use super::*;

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
        fn uma_linux_kmem_cache_prefill_sheaf(
            cache: *mut c_void,
            gfp: u32,
            count: u32,
        ) -> *mut c_void;
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
        let mut all = [null_mut(); 300];
        // SAFETY: the cache is live, and each object is freed once.
        unsafe {
            for object in &mut all {
                *object = uma_linux_kmem_cache_alloc(cache, KERNEL);
                told.is(*object);
            }
            for object in all.into_iter().filter(|object| !object.is_null()) {
                uma_linux_kmem_cache_free(cache, object);
            }
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
            let cache = uma_linux_kmem_cache_create_args(
                c"story 2".as_ptr(),
                1000,
                &raw const args,
                TYPESAFE,
            );
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

    extern "C-unwind" fn uma_linux_mempool_kmalloc_safe(
        gfp: u32,
        size: *mut c_void,
    ) -> *mut c_void {
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
}

mod netbsd {
    use super::*;

    type Ctor = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, c_int) -> c_int;
    type Dtor = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void);

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
            ctor: Option<Ctor>,
            dtor: Option<Dtor>,
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
        fn uma_netbsd_vm_map_create(
            name: *const c_char,
            size: usize,
            flags: c_int,
        ) -> *mut *mut c_void;
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

    unsafe extern "C-unwind" fn ctor(_: *mut c_void, _: *mut c_void, _: c_int) -> c_int {
        constructs()
    }

    unsafe extern "C-unwind" fn dtor(_: *mut c_void, _: *mut c_void) {
        destructs();
    }

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
                Some(ctor),
                Some(dtor),
                null_mut(),
            );
            if told.is(cache) {
                let mut all = [null_mut(); 100];
                for object in &mut all {
                    *object = uma_netbsd_pool_cache_get(cache, NOWAIT);
                    told.is(*object);
                }
                for object in all.into_iter().filter(|object| !object.is_null()) {
                    uma_netbsd_pool_cache_put(cache, object);
                }
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
                    let part =
                        uma_netbsd_uvm_km_suballoc(map, first, last, 8 << 12, 1, false, into);
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
}

mod solaris {
    use super::*;

    type Constructor = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, c_int) -> c_int;
    type Destructor = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void);
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
        fn uma_solaris_vmem_destroy(arena: *mut c_void);
    }

    const NOSLEEP: c_int = 1;
    const PUSHPAGE: c_int = 4;

    unsafe extern "C-unwind" fn constructor(_: *mut c_void, _: *mut c_void, _: c_int) -> c_int {
        constructs()
    }

    unsafe extern "C-unwind" fn destructor(_: *mut c_void, _: *mut c_void) {
        destructs();
    }

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
}

mod umem {
    use super::*;

    type Constructor = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, c_int) -> c_int;
    type Destructor = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void);

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

    unsafe extern "C-unwind" fn constructor(_: *mut c_void, _: *mut c_void, _: c_int) -> c_int {
        constructs()
    }

    unsafe extern "C-unwind" fn destructor(_: *mut c_void, _: *mut c_void) {
        destructs();
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
                let mut all = [null_mut(); 300];
                for object in &mut all {
                    *object = uma_umem_cache_alloc(cache, 0);
                    told.is(*object);
                }
                for object in all.into_iter().filter(|object| !object.is_null()) {
                    uma_umem_cache_free(cache, object);
                }
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
}

mod freebsd {
    use super::*;

    type Ctor = unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut c_void, c_int) -> c_int;
    type Dtor = unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut c_void);
    type Init = unsafe extern "C-unwind" fn(*mut c_void, c_int, c_int) -> c_int;
    type Fini = unsafe extern "C-unwind" fn(*mut c_void, c_int);
    type Allocf =
        unsafe extern "C-unwind" fn(*mut c_void, usize, c_int, *mut u8, c_int) -> *mut c_void;
    type Freef = unsafe extern "C-unwind" fn(*mut c_void, usize, u8);

    #[repr(C)]
    struct MallocType {
        short: *const c_char,
        long: *const c_char,
        handle: *mut c_void,
    }

    unsafe extern "C" {
        fn uma_freebsd_zcreate(
            name: *const c_char,
            size: usize,
            ctor: Option<Ctor>,
            dtor: Option<Dtor>,
            init: Option<Init>,
            fini: Option<Fini>,
            align: c_int,
            flags: u32,
        ) -> *mut c_void;
        fn uma_freebsd_zsecond_create(
            name: *const c_char,
            ctor: Option<Ctor>,
            dtor: Option<Dtor>,
            zinit: Option<Init>,
            zfini: Option<Fini>,
            primary: *mut c_void,
        ) -> *mut c_void;
        fn uma_freebsd_zdestroy(zone: *mut c_void);
        fn uma_freebsd_zalloc_arg(zone: *mut c_void, arg: *mut c_void, flags: c_int)
        -> *mut c_void;
        fn uma_freebsd_zfree_arg(zone: *mut c_void, item: *mut c_void, arg: *mut c_void);
        fn uma_freebsd_zalloc_smr(zone: *mut c_void, flags: c_int) -> *mut c_void;
        fn uma_freebsd_zfree_smr(zone: *mut c_void, item: *mut c_void);
        fn uma_freebsd_zone_set_max(zone: *mut c_void, items: c_int) -> c_int;
        fn uma_freebsd_zone_set_warning(zone: *mut c_void, text: *const c_char);
        fn uma_freebsd_zone_set_allocf(zone: *mut c_void, allocf: Option<Allocf>);
        fn uma_freebsd_zone_set_freef(zone: *mut c_void, freef: Option<Freef>);
        fn uma_freebsd_zone_get_smr(zone: *mut c_void) -> *mut c_void;
        fn uma_freebsd_smr_create(name: *const c_char, limit: c_int, flags: c_int) -> *mut c_void;
        fn uma_freebsd_smr_enter(smr: *mut c_void);
        fn uma_freebsd_smr_exit(smr: *mut c_void);
        fn uma_freebsd_smr_destroy(smr: *mut c_void);
        fn uma_freebsd_pcpu_zone(size: u32) -> *mut c_void;
        fn uma_freebsd_malloc(size: usize, of: *mut MallocType, flags: c_int) -> *mut c_void;
        fn uma_freebsd_free(at: *mut c_void, of: *mut MallocType);
        fn uma_freebsd_malloc_uninit(of: *mut MallocType);
        fn uma_freebsd_sysctlbyname(
            name: *const c_char,
            old: *mut c_void,
            length: *mut usize,
            new: *const c_void,
            new_length: usize,
        ) -> c_int;
    }

    const NOWAIT: c_int = 1;
    const SMR: u32 = 0x40000;

    unsafe extern "C-unwind" fn ctor(_: *mut c_void, _: c_int, _: *mut c_void, _: c_int) -> c_int {
        constructs()
    }

    unsafe extern "C-unwind" fn dtor(_: *mut c_void, _: c_int, _: *mut c_void) {
        destructs();
    }

    unsafe extern "C-unwind" fn init(_: *mut c_void, _: c_int, _: c_int) -> c_int {
        constructs()
    }

    unsafe extern "C-unwind" fn fini(_: *mut c_void, _: c_int) {
        destructs();
    }

    static LENT: AtomicI64 = AtomicI64::new(0);

    unsafe extern "C-unwind" fn allocf(
        _: *mut c_void,
        bytes: usize,
        _: c_int,
        _: *mut u8,
        _: c_int,
    ) -> *mut c_void {
        LENT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: plain memory.
        unsafe { libc::aligned_alloc(4096, bytes) }
    }

    unsafe extern "C-unwind" fn freef(at: *mut c_void, _: usize, _: u8) {
        LENT.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: it came from there.
        unsafe { libc::free(at) }
    }

    fn story(told: &mut Told) {
        // SAFETY: everything is used as FreeBSD has it, and nothing after it has ended.
        unsafe {
            let (null, name) = (null_mut(), c"story".as_ptr());
            let zone = uma_freebsd_zcreate(
                name,
                100,
                Some(ctor),
                Some(dtor),
                Some(init),
                Some(fini),
                7,
                0,
            );
            if told.is(zone) {
                uma_freebsd_zone_set_warning(zone, c"it is full".as_ptr());
                uma_freebsd_zone_set_allocf(zone, Some(allocf));
                uma_freebsd_zone_set_freef(zone, Some(freef));
                uma_freebsd_zone_set_max(zone, 300);
                let second =
                    uma_freebsd_zsecond_create(name, None, None, Some(init), Some(fini), zone);
                let mut all = [null; 300];
                for item in &mut all {
                    *item = uma_freebsd_zalloc_arg(zone, null, NOWAIT);
                    told.is(*item);
                }
                // The limit is reached, unless one is missing.
                let more = uma_freebsd_zalloc_arg(zone, null, NOWAIT);
                uma_freebsd_zfree_arg(zone, more, null);
                for item in all.into_iter().filter(|item| !item.is_null()) {
                    uma_freebsd_zfree_arg(zone, item, null);
                }
                if told.is(second) {
                    let item = uma_freebsd_zalloc_arg(second, null, NOWAIT);
                    told.is(item);
                    uma_freebsd_zfree_arg(second, item, null);
                    uma_freebsd_zdestroy(second);
                }
                uma_freebsd_zdestroy(zone);
            }
            let zone = uma_freebsd_zcreate(name, 100, None, Some(dtor_smr), None, None, 7, SMR);
            if told.is(zone) {
                let smr = uma_freebsd_zone_get_smr(zone);
                uma_freebsd_smr_enter(smr);
                uma_freebsd_smr_exit(smr);
                let mut all = [null; 300];
                for item in &mut all {
                    *item = uma_freebsd_zalloc_smr(zone, NOWAIT);
                    told.is(*item);
                }
                for item in all.into_iter().filter(|item| !item.is_null()) {
                    uma_freebsd_zfree_smr(zone, item);
                }
                uma_freebsd_zdestroy(zone);
            }
            let smr = uma_freebsd_smr_create(name, 0, 0);
            if told.is(smr) {
                uma_freebsd_smr_destroy(smr);
            }
            let zone = uma_freebsd_pcpu_zone(8);
            if told.is(zone) {
                let item = uma_freebsd_zalloc_arg(zone, null, NOWAIT);
                told.is(item);
                uma_freebsd_zfree_arg(zone, item, null);
            }
            let mut of = MallocType { short: name, long: name, handle: null };
            let memory = uma_freebsd_malloc(100, &raw mut of, NOWAIT);
            if told.is(memory) {
                uma_freebsd_free(memory, &raw mut of);
            }
            for name in [c"vm.zone", c"vm.uma", c"vm.zone_stats", c"kern.malloc", c"vm.zone_count"]
            {
                let mut length = 0;
                let (at, name) = (&raw mut length, name.as_ptr());
                let error = uma_freebsd_sysctlbyname(name, null, at, ptr::null(), 0);
                assert!(error == 0 || error == libc::ENOMEM, "{error}");
                told.so(error == 0);
            }
            uma_freebsd_malloc_uninit(&raw mut of);
            assert_eq!(LENT.load(Ordering::Relaxed), 0);
        }
    }

    unsafe extern "C-unwind" fn dtor_smr(_: *mut c_void, _: c_int, _: *mut c_void) {}

    #[test]
    fn no_memory() {
        every_failure(|| policy(c"freebsd.misuse", c"report"), story, || 0);
    }

    /// Who waits for memory waits for that of the books about its type, too.
    #[test]
    fn a_type_is_waited_for() {
        const WAITOK: c_int = 2;
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut failures = 0;
        loop {
            let said = child(|| {
                let name = c"story".as_ptr();
                let mut of = MallocType { short: name, long: name, handle: null_mut() };
                LEFT.set(failures);
                // SAFETY: it is freed once, and the type ends after that.
                unsafe {
                    let memory = uma_freebsd_malloc(100, &raw mut of, WAITOK);
                    LEFT.set(-1);
                    if memory.is_null() {
                        end("it did not wait");
                    }
                    uma_freebsd_free(memory, &raw mut of);
                    uma_freebsd_malloc_uninit(&raw mut of);
                }
                u8::from(FAILED.get() != 0)
            });
            match said {
                Some(0) => break,
                Some(_) => failures += 1,
                None => panic!("failure {failures}: it did not end well"),
            }
        }
        assert!(failures >= 3, "only {failures} allocations were to fail");
    }
}
