//! Every system call refused in turn: nothing is lost, and everything works again afterwards.
//!
//! With `UMA_LONG` in the environment the suite for page suppliers runs after every refusal, and not only
//! after the first of each kind; that takes minutes.
#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::Mutex;

use uma_backend_mmap::sys::{Errno, Kernel, System};
use uma_backend_mmap::{Config, HugePages, MmapPages};
use uma_core::{PageError, PageRun, PageSupplier, Protect, Request};
use uma_testkit::conformance;

const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;

const KINDS: [&str; 8] = ["map", "unmap", "discard", "wall", "protect", "unwall", "hint", "dump"];

/// A system that refuses calls, and knows what is mapped.
#[derive(Default)]
struct Refusing(Mutex<Book>);

#[derive(Default)]
struct Book {
    calls: [usize; KINDS.len()],
    refused: usize,
    /// Which kind, from which call on, up to which.
    plan: Option<(usize, usize, usize)>,
    mapped: BTreeMap<usize, usize>,
}

impl Refusing {
    /// Counts a call and says whether it is to be made.
    fn may(&self, kind: &str) -> Result<(), Errno> {
        let kind = KINDS.iter().position(|&name| name == kind).unwrap();
        let mut book = self.0.lock().unwrap();
        let call = book.calls[kind];
        book.calls[kind] += 1;
        match book.plan {
            Some((planned, from, to)) if planned == kind && (from..to).contains(&call) => {
                book.refused += 1;
                Err(libc::ENOMEM)
            }
            _ => Ok(()),
        }
    }
}

// SAFETY: forwards to the system, or does nothing and says so.
unsafe impl System for &'static Refusing {
    fn map(&self, len: usize) -> Result<NonNull<u8>, Errno> {
        self.may("map")?;
        let at = Kernel.map(len)?;
        self.0.lock().unwrap().mapped.insert(at.addr().get(), len);
        Ok(at)
    }

    // Chunks are neither reserved without access nor locked.
    fn reserve(&self, _: usize) -> Result<NonNull<u8>, Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn lock(&self, _: NonNull<u8>, _: usize) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn unlock(&self, _: NonNull<u8>, _: usize) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        self.may("unmap")?;
        let known = self.0.lock().unwrap().mapped.remove(&at.addr().get());
        assert_eq!(known, Some(len), "not a whole mapping");
        // SAFETY: passed on to the caller.
        unsafe { Kernel.unmap(at, len) }
    }

    unsafe fn discard(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        self.may("discard")?;
        // SAFETY: as above.
        unsafe { Kernel.discard(at, len) }
    }

    unsafe fn wall(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        self.may("wall")?;
        // SAFETY: as above.
        unsafe { Kernel.wall(at, len) }
    }

    unsafe fn protect(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        self.may("protect")?;
        // SAFETY: as above.
        unsafe { Kernel.protect(at, len) }
    }

    unsafe fn unwall(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        self.may("unwall")?;
        // SAFETY: as above.
        unsafe { Kernel.unwall(at, len) }
    }

    unsafe fn huge(&self, at: NonNull<u8>, len: usize, huge: HugePages) -> Result<(), Errno> {
        self.may("hint")?;
        // SAFETY: as above.
        unsafe { Kernel.huge(at, len, huge) }
    }

    fn huge_unasked(&self) -> bool {
        false
    }

    unsafe fn resident(&self, _: NonNull<u8>, _: usize, _: &mut [u8]) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn tear(&self, at: NonNull<u8>, page: usize) -> Result<(), Errno> {
        self.may("hint")?;
        // SAFETY: as above.
        unsafe { Kernel.tear(at, page) }
    }

    unsafe fn dump(&self, at: NonNull<u8>, len: usize, yes: bool) -> Result<(), Errno> {
        self.may("dump")?;
        // SAFETY: as above.
        unsafe { Kernel.dump(at, len, yes) }
    }

    unsafe fn name(&self, at: NonNull<u8>, len: usize, name: &CStr) -> Result<(), Errno> {
        self.may("hint")?;
        // SAFETY: as above.
        unsafe { Kernel.name(at, len, name) }
    }
}

type Pages = MmapPages<parking_lot::RawMutex, &'static Refusing>;

/// A run whose every page carries its number.
struct Held(PageRun, u8);

/// Whether all bytes are so. (Slices are compared fast also without optimisation.)
///
/// # Safety
///
/// They are the caller's, and initialised.
unsafe fn all(at: NonNull<u8>, len: usize, byte: u8) -> bool {
    // SAFETY: passed on to the caller.
    let bytes = unsafe { std::slice::from_raw_parts(at.as_ptr(), len) };
    bytes.chunks(4 * KIB).all(|page| page == &[byte; 4 * KIB][..page.len()])
}

fn take(pages: &Pages, size: usize, align: usize, held: &mut Vec<Held>) {
    let layout = Layout::from_size_align(size, align).unwrap();
    // Some are left out of core dumps.
    let request =
        if held.len() % 8 == 5 { Request::NOWAIT.without_dump() } else { Request::NOWAIT };
    match pages.alloc_pages(layout, request) {
        Ok(run) => {
            // SAFETY: the run is ours; what is zeroed is initialised.
            unsafe {
                assert!(!run.is_zeroed() || all(run.base(), size, 0), "not zeroed");
                let stamp = held.len() as u8 + 1;
                run.base().write_bytes(stamp, size);
                held.push(Held(run, stamp));
            }
        }
        Err(error) => assert_eq!(error, PageError::System(libc::ENOMEM)),
    }
}

fn give(pages: &Pages, Held(run, stamp): Held) {
    // SAFETY: a whole run of this supplier, that was written in full.
    unsafe {
        assert!(all(run.base(), run.layout().size(), stamp), "a live run has changed");
        pages.free_pages(run);
    }
}

/// Until it is done: a refusal is not final.
fn unprotect(pages: &Pages, at: NonNull<u8>, len: usize) {
    loop {
        // SAFETY: a page of a run that is ours.
        if unsafe { pages.unprotect(at, len) }.is_ok() {
            return;
        }
    }
}

fn balanced(pages: &Pages, in_use: usize) {
    let stats = pages.stats();
    assert_eq!(stats.in_use, in_use, "{stats:?}");
    assert_eq!(stats.in_use + stats.dirty + stats.clean, stats.reserved, "{stats:?}");
    assert_eq!(stats.maps - stats.unmaps, stats.chunks as u64, "{stats:?}");
}

fn sum(held: &[Held]) -> usize {
    held.iter().map(|Held(run, _)| run.layout().size()).sum()
}

/// Something of everything, with about so many chunks.
fn work(pages: &Pages, chunks: usize) {
    let mut held = Vec::new();
    for at in 0..20 {
        take(pages, (1 + at % 5) * 16 * KIB, (4 * KIB) << (at % 6), &mut held);
    }
    balanced(pages, sum(&held));
    for at in (0..held.len() / 2).rev() {
        give(pages, held.swap_remove(at * 2));
    }
    pages.trim();
    balanced(pages, sum(&held));
    for _ in 0..2 {
        take(pages, 256 * KIB, MIB, &mut held);
    }
    if let Some(Held(run, stamp)) = held.last() {
        let at = run.base();
        // SAFETY: whole pages of a run that is ours, which are not touched before `unprotect`.
        unsafe {
            let _ = pages.protect(at, 4 * KIB);
            unprotect(pages, at, 4 * KIB);
            let _ = pages.guard(at, 4 * KIB);
            unprotect(pages, at, 4 * KIB);
            at.write_bytes(*stamp, 4 * KIB);
            pages.decommit(at, 8 * KIB);
            assert!(all(at, 8 * KIB, 0));
            at.write_bytes(*stamp, 8 * KIB);
        }
    }
    pages.maintain();
    for _ in 0..chunks {
        take(pages, 256 * KIB, 4 * KIB, &mut held);
    }
    balanced(pages, sum(&held));
    held.drain(..).for_each(|run| give(pages, run));
    pages.maintain();
    balanced(pages, 0);
    pages.trim();
    balanced(pages, 0);
}

/// Works with calls `from..to` of one kind refused; checks everything; works once more without.
/// Returns how many calls of each kind the first work makes.
fn work_refused(chunks: usize, kind: usize, from: usize, to: usize) -> [usize; KINDS.len()] {
    let system: &'static Refusing = Box::leak(Box::default());
    system.0.lock().unwrap().plan = Some((kind, from, to));
    let config = Config::DEFAULT
        .chunks(256 * KIB, 256 * KIB)
        .dirty_max(128 * KIB)
        .huge_pages(HugePages::Unwanted);
    let pages = Pages::with_system(config, system);
    work(&pages, chunks);
    let (calls, refused) = {
        let mut book = system.0.lock().unwrap();
        book.plan = None;
        (book.calls, book.refused)
    };
    let stats = pages.stats();
    let told = stats.maps_refused
        + stats.unmaps_refused
        + stats.refused
        + stats.protects_refused
        + stats.hints_refused;
    assert!(told >= refused as u64, "{told} of {refused} counted");

    // The system is well again.
    if (from, to) == (0, 1) || std::env::var_os("UMA_LONG").is_some() {
        conformance::page_supplier(&pages);
        conformance::protect(&pages);
        conformance::regions(&pages);
    }
    work(&pages, chunks);
    pages.trim();
    let stats = pages.stats();
    assert!(stats.dirty == 0 && stats.chunks == 1, "{stats:?}");
    drop(pages);
    // A table of the directory that could not be unmapped is lost, but no chunk.
    let left = system.0.lock().unwrap().mapped.len();
    assert!(left == 0 || KINDS[kind] == "unmap" && left == 1, "{left} mappings are left");
    calls
}

fn refuse(chunks: usize, kind: usize, from: usize, to: usize) {
    work_refused(chunks, kind, from, to);
}

/// How many calls of each kind there are if none is refused.
fn calls(chunks: usize) -> [usize; KINDS.len()] {
    let calls = work_refused(chunks, 0, usize::MAX, usize::MAX);
    println!("calls made with {chunks} chunks: {KINDS:?} {calls:?}");
    assert!(calls.iter().all(|&calls| calls > 0), "{calls:?}");
    calls
}

#[test]
fn every_call_refused_once() {
    for (kind, calls) in calls(4).into_iter().enumerate() {
        (0..calls).for_each(|call| refuse(4, kind, call, call + 1));
    }
}

/// More chunks than the first directory has room for.
#[test]
fn a_call_refused_with_many_chunks() {
    for (kind, calls) in calls(140).into_iter().enumerate() {
        refuse(140, kind, calls / 2, calls / 2 + 1);
    }
    // Among these is the larger table of the directory.
    (125..131).for_each(|call| refuse(140, 0, call, call + 1));
}

#[test]
fn all_calls_refused_from_one_on() {
    for (kind, calls) in calls(4).into_iter().enumerate() {
        // What is to be unprotected is tried until it is.
        if KINDS[kind] != "unwall" {
            (0..calls).step_by(2).for_each(|call| refuse(4, kind, call, usize::MAX));
        }
    }
}
