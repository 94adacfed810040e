//! Another makes the same thing at the same moment: the instance, a leaf of its map, a larger table. One of the two is
//! kept, and what the other made is given back.
//!
//! It is no thread that does so, but the supplier of memory for books: in the middle of its k-th call it allocates
//! from the instance, for every k. Nothing is locked then, so it may.

mod common;

use std::alloc::Layout;
use std::fmt;
use std::ptr::{NonNull, null_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering::SeqCst};

use common::OneCpu;
use parking_lot::RawMutex;
use uma::cache::CpuLocks;
use uma::core::{Metadata, PageError, PageRun, PageSupplier};
use uma::{Park, Platform, Registry};
use uma_malloc::{Malloc, MallocFault, Request, SizeClasses};
use uma_testkit::{Fake, HeapMeta};

const NOWAIT: Request = Request::NOWAIT;
const SIZES: [usize; 4] = [64, 5000, 200_000, 3 << 20];

/// A machine on which another comes in between.
struct Machine {
    pages: Fake,
    metadata: HeapMeta,
    registry: Registry<RawMutex>,
    /// Calls for memory for books before the other comes.
    left: AtomicI64,
    /// What he allocates from, and what he has.
    malloc: AtomicPtr<Malloc<On>>,
    his: Mutex<Vec<usize>>,
}

// SAFETY: the memory is that of the books below.
unsafe impl Metadata for Machine {
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
        let memory = self.metadata.alloc_meta(layout);
        if self.left.fetch_sub(1, SeqCst) == 0 {
            // SAFETY: it is there as long as anybody allocates from it.
            let malloc = unsafe { self.malloc.load(SeqCst).as_ref() }.expect("the instance");
            let his = SIZES.map(|size| malloc.alloc(size, NOWAIT).expect("memory"));
            self.his.lock().unwrap().extend(his.map(|at| at.as_ptr().expose_provenance()));
        }
        memory
    }

    unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
        // SAFETY: passed on to the caller.
        unsafe { self.metadata.free_meta(at, layout) };
    }
}

#[derive(Clone, Copy)]
struct On(&'static Machine);

// SAFETY: every method leads to the same machine.
unsafe impl Platform for On {
    type Pages = &'static Fake;
    type Cpus = CpuLocks<OneCpu>;
    type Lock = RawMutex;
    type Sleep = Park;
    type Metadata = &'static Machine;

    fn pages(&self) -> &'static Fake {
        &self.0.pages
    }

    fn cpus(&self) -> Self::Cpus {
        CpuLocks::new(OneCpu)
    }

    fn sleep(&self) -> Park {
        Park
    }

    fn metadata(&self) -> &'static Machine {
        self.0
    }

    fn registry(&self) -> &Registry<RawMutex> {
        &self.0.registry
    }

    fn relax(&self) {
        std::thread::yield_now();
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        panic!("{message}");
    }
}

/// Returns whether the other came.
fn with_another_at(k: i64) -> bool {
    let machine: &'static Machine = Box::leak(Box::new(Machine {
        pages: Fake::new(),
        metadata: HeapMeta::new(),
        registry: Registry::new(),
        left: AtomicI64::new(k),
        malloc: AtomicPtr::new(null_mut()),
        his: Mutex::default(),
    }));
    let malloc = Box::into_raw(Box::new(Malloc::new_in("busy", SizeClasses::GENERAL, On(machine))));
    machine.malloc.store(malloc, SeqCst);
    {
        // SAFETY: it goes below.
        let malloc = unsafe { &*malloc };
        let mut all = SIZES.map(|size| malloc.alloc(size, NOWAIT).expect("memory")).to_vec();
        let his = std::mem::take(&mut *machine.his.lock().unwrap());
        let his = his.into_iter().map(std::ptr::with_exposed_provenance_mut);
        all.extend(his.map(|at| NonNull::new(at).expect("memory")));
        assert_eq!(malloc.stats().used(), all.len() as u64);
        for at in all {
            // SAFETY: it is in use, and not used any more.
            unsafe { malloc.free(at) };
        }
    }
    // SAFETY: it came from a box, and nobody has memory of it.
    drop(unsafe { Box::from_raw(malloc) });
    assert_eq!(machine.metadata.outstanding().runs, 0, "books of the instance, call {k}");
    assert_eq!(machine.pages.outstanding().runs, 0, "pages of the instance, call {k}");
    machine.left.load(SeqCst) < 0
}

#[test]
fn what_both_make_is_kept_once() {
    let calls = (0..).find(|k| !with_another_at(*k)).expect("it ends");
    assert!(calls >= 8, "only {calls} calls for memory for books");
}

/// Pages so large that no class can be cut from slabs of them.
struct Vast(Fake);

// SAFETY: it supplies nothing.
unsafe impl PageSupplier for Vast {
    fn page_size(&self) -> usize {
        1 << (usize::BITS - 2)
    }

    fn alloc_pages(&self, _: Layout, _: Request) -> Result<PageRun, PageError> {
        Err(PageError::Exhausted)
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: passed on to the caller.
        unsafe { self.0.free_pages(run) };
    }
}

/// An instance of which a class cannot be made is none, and gives back what it has begun with.
#[test]
fn an_instance_that_cannot_be_made_leaves_nothing() {
    let machine = common::Machine::new(Vast(Fake::new()));
    let malloc = Malloc::new_in("vast", SizeClasses::GENERAL, common::On(&machine));
    for _ in 0..2 {
        let error = malloc.alloc(64, NOWAIT).expect_err("there are no slabs");
        assert!(matches!(error.fault, MallocFault::Alloc(why) if !why.is_shortage()), "{error}");
    }
    assert_eq!(machine.metadata.outstanding().runs, 0);
    assert_eq!(machine.zones(), [""; 0]);
}
