//! FreeBSD: zones, secondary zones, SMR, malloc(9) and its figures.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::{self, null_mut};
use std::sync::Barrier;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

use uma_kmem_compat::freebsd::types;

use crate::failing::{BLOCKS, FAILED, LEFT, MEANWHILE, MOST};
use crate::hooks::{constructs, destructs};
use crate::story::{Told, child, end, every_failure, policy, turn};

type Ctor = unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut c_void, c_int) -> c_int;
type Dtor = unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut c_void);
type Init = unsafe extern "C-unwind" fn(*mut c_void, c_int, c_int) -> c_int;
type Fini = unsafe extern "C-unwind" fn(*mut c_void, c_int);
type Allocf = unsafe extern "C-unwind" fn(*mut c_void, usize, c_int, *mut u8, c_int) -> *mut c_void;
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
    fn uma_freebsd_zalloc_arg(zone: *mut c_void, arg: *mut c_void, flags: c_int) -> *mut c_void;
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
        let zone =
            uma_freebsd_zcreate(name, 100, Some(ctor), Some(dtor), Some(init), Some(fini), 7, 0);
        if told.is(zone) {
            uma_freebsd_zone_set_warning(zone, c"it is full".as_ptr());
            uma_freebsd_zone_set_allocf(zone, Some(allocf));
            uma_freebsd_zone_set_freef(zone, Some(freef));
            uma_freebsd_zone_set_max(zone, 300);
            let second = uma_freebsd_zsecond_create(name, None, None, Some(init), Some(fini), zone);
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
            told.round::<300>(
                || uma_freebsd_zalloc_smr(zone, NOWAIT),
                |item| uma_freebsd_zfree_smr(zone, item),
            );
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
        for name in [c"vm.zone", c"vm.uma", c"vm.zone_stats", c"kern.malloc", c"vm.zone_count"] {
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
    let _turn = turn();
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

/// Two use a type for the first time at the same moment: it is one type, listed once.
#[test]
fn a_type_that_two_use_first() {
    static OF: AtomicPtr<MallocType> = AtomicPtr::new(null_mut());
    let _turn = turn();
    let said = child(|| {
        let name = c"story".as_ptr();
        let mut of = MallocType { short: name, long: name, handle: null_mut() };
        OF.store(&raw mut of, Ordering::Relaxed);
        MEANWHILE.set(Some(|| {
            let of = OF.load(Ordering::Relaxed);
            // SAFETY: the type is there, and its memory is freed once.
            unsafe { uma_freebsd_free(uma_freebsd_malloc(100, of, NOWAIT), of) };
        }));
        let listed = || types().into_iter().filter(|of| of.name() == "story");
        // SAFETY: as above; the type ends after that.
        unsafe {
            let memory = uma_freebsd_malloc(100, &raw mut of, NOWAIT);
            assert!(MEANWHILE.get().is_none() && !memory.is_null());
            let allocs: Vec<_> = listed().map(|of| of.stats().allocs).collect();
            assert_eq!(allocs, [2]);
            uma_freebsd_free(memory, &raw mut of);
            uma_freebsd_malloc_uninit(&raw mut of);
        }
        assert_eq!(listed().count(), 0);
        0
    });
    assert_eq!(said, Some(0));
}

/// More readers than there are slots for: who finds no memory for more waits, and where another has made them meanwhile,
/// his are used.
#[test]
fn a_slot_is_waited_for() {
    const READERS: usize = 32;
    const FAILURES: u64 = 3;
    static SMR: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
    fn read() {
        let smr = SMR.load(Ordering::Relaxed);
        // SAFETY: it is there, and the section ends at once.
        unsafe {
            uma_freebsd_smr_enter(smr);
            uma_freebsd_smr_exit(smr);
        }
    }
    let crowd = || {
        // SAFETY: as FreeBSD has it.
        SMR.store(unsafe { uma_freebsd_smr_create(c"story".as_ptr(), 0, 0) }, Ordering::Relaxed);
        let (inside, done) = (Barrier::new(READERS + 1), Barrier::new(READERS + 1));
        std::thread::scope(|scope| {
            let reader = || {
                let smr = SMR.load(Ordering::Relaxed);
                // SAFETY: it is there until all threads have ended.
                unsafe { uma_freebsd_smr_enter(smr) };
                inside.wait();
                done.wait();
                // SAFETY: as above.
                unsafe { uma_freebsd_smr_exit(smr) };
            };
            let readers = [(); READERS].map(|()| scope.spawn(reader));
            inside.wait();
            FAILED.set(0);
            MOST.set(FAILURES);
            LEFT.set(0);
            MEANWHILE.set(Some(read));
            read();
            assert!(MEANWHILE.get().is_none());
            assert_eq!(FAILED.get(), FAILURES, "it did not wait");
            done.wait();
            // Whole threads, with what is theirs.
            readers.into_iter().for_each(|reader| reader.join().expect("it does not panic"));
        });
        // SAFETY: nobody reads any more.
        unsafe { uma_freebsd_smr_destroy(SMR.load(Ordering::Relaxed)) };
        BLOCKS.load(Ordering::Relaxed)
    };
    let _turn = turn();
    let said = child(|| {
        let first = crowd();
        assert_eq!(crowd(), first, "blocks, after the first time");
        0
    });
    assert_eq!(said, Some(0));
}
