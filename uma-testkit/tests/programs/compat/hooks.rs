//! Callbacks of the caches, in the types of every system, and what they count.
//!
//! Linux and FreeBSD tell a constructor nothing of the cache it is for. So each of the four places has functions
//! of its own, and what they count is in statics; one program runs at a time.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst};

use uma_testkit::{FailPlan, token};

/// Places for caches.
pub const PLACES: usize = 4;

/// What the callbacks of one place do and count.
#[derive(Debug)]
pub struct Place {
    /// Bytes of an object.
    pub size: AtomicUsize,
    /// Objects that were constructed and not taken apart.
    pub made: AtomicI64,
    /// Objects that were constructed, ever.
    pub ever: AtomicU64,
    /// Objects that a user's ctor has seen, and no dtor after it.
    pub used: AtomicI64,
    /// How often a user's ctor, and dtor, ran.
    pub ctors: AtomicU64,
    pub dtors: AtomicU64,
    /// Constructors that refused or unwound.
    pub failed: AtomicU64,
    pub refuses: FailPlan,
    pub panics: FailPlan,
    pub end_panics: FailPlan,
    /// Pages that functions of this place gave, and a plan to give none.
    pub pages: AtomicI64,
    pub pages_fail: FailPlan,
    /// How often there were none.
    pub pages_failed: AtomicU64,
}

impl Place {
    const fn new() -> Self {
        Self {
            size: AtomicUsize::new(0),
            made: AtomicI64::new(0),
            ever: AtomicU64::new(0),
            used: AtomicI64::new(0),
            ctors: AtomicU64::new(0),
            dtors: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refuses: FailPlan::new(),
            panics: FailPlan::new(),
            end_panics: FailPlan::new(),
            pages: AtomicI64::new(0),
            pages_fail: FailPlan::new(),
            pages_failed: AtomicU64::new(0),
        }
    }

    /// Nothing fails any more.
    pub fn no_faults(&self) {
        for plan in [&self.refuses, &self.panics, &self.end_panics, &self.pages_fail] {
            plan.never();
        }
    }

    /// As it was at first, for objects of so many bytes.
    pub fn reset(&self, size: usize) {
        self.no_faults();
        self.size.store(size, SeqCst);
        self.made.store(0, SeqCst);
        self.used.store(0, SeqCst);
        self.ctors.store(0, SeqCst);
        self.dtors.store(0, SeqCst);
        self.pages.store(0, SeqCst);
    }

    /// What went wrong so far: who got nothing may say that this was why.
    pub fn faults(&self) -> u64 {
        self.failed.load(SeqCst) + self.pages_failed.load(SeqCst)
    }
}

pub static PLACE: [Place; PLACES] = [const { Place::new() }; PLACES];

/// What went wrong so far in any place.
pub fn faults() -> u64 {
    PLACE.iter().map(Place::faults).sum()
}

static WRONG: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn wrong(what: String) {
    WRONG.lock().expect("nothing panics under it").push(what);
}

/// What callbacks found wrong since the last time.
pub fn complaints() -> Vec<String> {
    std::mem::take(&mut WRONG.lock().expect("nothing panics under it"))
}

fn constructed(at: NonNull<u8>) -> u64 {
    !(at.addr().get() as u64)
}

/// Makes an object what a constructor makes it.
///
/// # Safety
///
/// It is the caller's, and has so many bytes.
pub unsafe fn construct(at: NonNull<u8>, size: usize) {
    // SAFETY: passed on to the caller.
    unsafe { token::stamp(at, size, constructed(at)) };
}

/// Whether an object is as a constructor makes it; or where it is not.
///
/// # Safety
///
/// It is the caller's, and has so many bytes, all written.
pub unsafe fn is_constructed(at: NonNull<u8>, size: usize) -> Result<(), usize> {
    // SAFETY: passed on to the caller.
    unsafe { token::verify(at, size, constructed(at)) }
}

fn object(at: *mut c_void) -> NonNull<u8> {
    NonNull::new(at.cast()).expect("a callback gets an object")
}

fn begin<const N: usize>(at: *mut c_void) -> c_int {
    let place = &PLACE[N];
    if place.refuses.call() {
        place.failed.fetch_add(1, SeqCst);
        return -1;
    }
    if place.panics.call() {
        place.failed.fetch_add(1, SeqCst);
        panic!("a constructor panics as planned");
    }
    // SAFETY: the object is the callback's, and the place's caches have objects of this size.
    unsafe { construct(object(at), place.size.load(SeqCst)) };
    place.made.fetch_add(1, SeqCst);
    place.ever.fetch_add(1, SeqCst);
    0
}

fn end<const N: usize>(at: *mut c_void) {
    let place = &PLACE[N];
    // SAFETY: as above; it was constructed, which wrote to all of it.
    if let Err(offset) = unsafe { is_constructed(object(at), place.size.load(SeqCst)) } {
        wrong(format!("{at:p} comes to a destructor of place {N}, changed at offset {offset}"));
    }
    place.made.fetch_sub(1, SeqCst);
    // A second panic would end the process.
    let panics = place.end_panics.call() && !std::thread::panicking();
    assert!(!panics, "a destructor panics as planned");
}

/// Solaris and libumem.
pub unsafe extern "C-unwind" fn sun_begin<const N: usize>(
    at: *mut c_void,
    private: *mut c_void,
    _: c_int,
) -> c_int {
    if private.addr() != N {
        wrong(format!("a constructor of place {N} is told {private:p}"));
    }
    begin::<N>(at)
}

pub unsafe extern "C-unwind" fn sun_end<const N: usize>(at: *mut c_void, private: *mut c_void) {
    if private.addr() != N {
        wrong(format!("a destructor of place {N} is told {private:p}"));
    }
    end::<N>(at);
}

/// Linux: it cannot fail.
pub unsafe extern "C-unwind" fn linux_begin<const N: usize>(at: *mut c_void) {
    PLACE[N].refuses.never();
    begin::<N>(at);
}

/// NetBSD: the argument comes first.
pub unsafe extern "C-unwind" fn netbsd_begin<const N: usize>(
    arg: *mut c_void,
    at: *mut c_void,
    flags: c_int,
) -> c_int {
    // SAFETY: the same, in another order.
    unsafe { sun_begin::<N>(at, arg, flags) }
}

pub unsafe extern "C-unwind" fn netbsd_end<const N: usize>(arg: *mut c_void, at: *mut c_void) {
    // SAFETY: as above.
    unsafe { sun_end::<N>(at, arg) };
}

fn told_size<const N: usize>(size: c_int) {
    if usize::try_from(size) != Ok(PLACE[N].size.load(SeqCst)) {
        wrong(format!("a callback of place {N} is told a size of {size}"));
    }
}

/// FreeBSD: when memory enters and leaves a zone.
pub unsafe extern "C-unwind" fn uma_init<const N: usize>(
    at: *mut c_void,
    size: c_int,
    _: c_int,
) -> c_int {
    told_size::<N>(size);
    begin::<N>(at)
}

pub unsafe extern "C-unwind" fn uma_fini<const N: usize>(at: *mut c_void, size: c_int) {
    told_size::<N>(size);
    end::<N>(at);
}

/// FreeBSD: at each allocation and free.
pub unsafe extern "C-unwind" fn uma_ctor<const N: usize>(
    _: *mut c_void,
    size: c_int,
    arg: *mut c_void,
    _: c_int,
) -> c_int {
    told_size::<N>(size);
    if !arg.is_null() {
        wrong(format!("a ctor of place {N} is told {arg:p}"));
    }
    let place = &PLACE[N];
    if place.refuses.call() {
        place.failed.fetch_add(1, SeqCst);
        return 1;
    }
    place.used.fetch_add(1, SeqCst);
    place.ctors.fetch_add(1, SeqCst);
    0
}

pub unsafe extern "C-unwind" fn uma_dtor<const N: usize>(
    _: *mut c_void,
    size: c_int,
    _: *mut c_void,
) {
    told_size::<N>(size);
    PLACE[N].used.fetch_sub(1, SeqCst);
    PLACE[N].dtors.fetch_add(1, SeqCst);
}

/// Pages of 4096 bytes from the global allocator, to which they go back.
fn page(bytes: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(bytes, bytes.next_power_of_two().max(4096))
        .expect("a few pages")
}

fn pages<const N: usize>(bytes: usize) -> *mut c_void {
    let place = &PLACE[N];
    if place.pages_fail.call() {
        place.pages_failed.fetch_add(1, SeqCst);
        return std::ptr::null_mut();
    }
    // SAFETY: the size is not 0.
    let at: *mut c_void = unsafe { std::alloc::alloc(page(bytes)) }.cast();
    place.pages.fetch_add(i64::from(!at.is_null()), SeqCst);
    at
}

/// # Safety
///
/// They came from `pages`, and nobody uses them any more.
unsafe fn no_pages<const N: usize>(at: *mut c_void, bytes: usize) {
    PLACE[N].pages.fetch_sub(1, SeqCst);
    // SAFETY: passed on to the caller. Whoever had them told the sanitizer what was free in them, and is to have
    // taken that back.
    unsafe { std::alloc::dealloc(at.cast(), page(bytes)) };
}

pub unsafe extern "C-unwind" fn netbsd_page<const N: usize>(
    _: *mut c_void,
    _: c_int,
) -> *mut c_void {
    pages::<N>(4096)
}

pub unsafe extern "C-unwind" fn netbsd_no_page<const N: usize>(_: *mut c_void, at: *mut c_void) {
    // SAFETY: a pool gives back what it got.
    unsafe { no_pages::<N>(at, 4096) };
}

pub unsafe extern "C-unwind" fn uma_pages<const N: usize>(
    _: *mut c_void,
    bytes: usize,
    _: c_int,
    _: *mut u8,
    _: c_int,
) -> *mut c_void {
    pages::<N>(bytes)
}

pub unsafe extern "C-unwind" fn uma_no_pages<const N: usize>(at: *mut c_void, bytes: usize, _: u8) {
    // SAFETY: as above.
    unsafe { no_pages::<N>(at, bytes) };
}

/// One function for each place.
macro_rules! of_each_place {
    ($function:ident: $type:ty) => {
        const {
            let all: [$type; crate::programs::compat::hooks::PLACES] =
                [$function::<0>, $function::<1>, $function::<2>, $function::<3>];
            all
        }
    };
}
pub(crate) use of_each_place;
