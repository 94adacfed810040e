//! Fakes: a lock that knows who holds it, pages and bookkeeping memory from the heap.
#![allow(dead_code, reason = "each test file uses some")]

pub(crate) mod logged;

use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use uma_core::{
    AllocError, Decommit, Item, ItemSource, Metadata, PageError, PageRun, PageSupplier, RawMutex,
    Request, Stats,
};

thread_local! {
    static HELD: Cell<u32> = const { Cell::new(0) };
    static COUNTED: Cell<Option<&'static AtomicU64>> = const { Cell::new(None) };
}

/// From now on counts how often the calling thread has let go of a lock.
pub(crate) fn count_locks(count: &'static AtomicU64) {
    COUNTED.set(Some(count));
}

/// Fails the test if the calling thread holds a keg's lock.
pub(crate) fn assert_no_lock() {
    assert_eq!(HELD.get(), 0, "called under the lock");
}

/// A spin lock that counts, per thread, how many are held.
pub(crate) struct Lock(AtomicBool);

// SAFETY: the flag is set by one thread at a time, with acquire and release ordering.
unsafe impl RawMutex for Lock {
    #[allow(clippy::declare_interior_mutable_const, reason = "the trait wants it")]
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = *mut ();

    fn lock(&self) {
        while !self.try_lock() {
            std::thread::yield_now();
        }
    }

    fn try_lock(&self) -> bool {
        let free = !self.0.swap(true, Ordering::Acquire);
        HELD.set(HELD.get() + u32::from(free));
        free
    }

    unsafe fn unlock(&self) {
        HELD.set(HELD.get() - 1);
        self.0.store(false, Ordering::Release);
        if let Some(count) = COUNTED.get() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[derive(Debug, Default)]
struct Books {
    out: BTreeMap<usize, (Layout, u8)>,
    bytes: usize,
    most: usize,
}

/// Every piece is a heap allocation of its own with the exact layout, is filled with rubbish, and
/// must come back whole and with its flag. Calls can be made to fail.
#[derive(Debug)]
pub(crate) struct Heap {
    books: Mutex<Books>,
    calls: AtomicU64,
    fail_at: AtomicU64,
    page: usize,
}

impl Heap {
    pub(crate) const fn new() -> Self {
        Self::with_page(4096)
    }

    pub(crate) const fn with_page(page: usize) -> Self {
        Self {
            books: Mutex::new(Books { out: BTreeMap::new(), bytes: 0, most: 0 }),
            calls: AtomicU64::new(0),
            fail_at: AtomicU64::new(u64::MAX),
            page,
        }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.books.lock().unwrap().out.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.books.lock().unwrap().bytes
    }

    pub(crate) fn most_bytes(&self) -> usize {
        self.books.lock().unwrap().most
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Lets the `k`-th call from now, counted from 0, fail.
    pub(crate) fn fail(&self, k: u64) {
        self.fail_at.store(self.calls() + k, Ordering::Relaxed);
    }

    pub(crate) fn fail_no_more(&self) {
        self.fail_at.store(u64::MAX, Ordering::Relaxed);
    }

    pub(crate) fn fail_all(&self) {
        self.fail_at.store(u64::MAX - 1, Ordering::Relaxed);
    }

    fn get(&self, layout: Layout) -> Option<(NonNull<u8>, u8)> {
        assert_no_lock();
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let fail_at = self.fail_at.load(Ordering::Relaxed);
        if call == fail_at || fail_at == u64::MAX - 1 {
            return None;
        }
        assert_ne!(layout.size(), 0);
        // SAFETY: not of size zero.
        let at = NonNull::new(unsafe { alloc(layout) }).unwrap();
        // SAFETY: fresh memory of that size.
        unsafe { at.write_bytes(0xa5, layout.size()) };
        let flag = (call as u8).wrapping_mul(37) ^ 0x5a;
        let mut books = self.books.lock().unwrap();
        assert!(books.out.insert(at.addr().get(), (layout, flag)).is_none());
        books.bytes += layout.size();
        books.most = books.most.max(books.bytes);
        Some((at, flag))
    }

    fn put(&self, at: NonNull<u8>, layout: Layout, flag: Option<u8>) {
        assert_no_lock();
        let mut books = self.books.lock().unwrap();
        let (was, had) = books.out.remove(&at.addr().get()).expect("never supplied");
        books.bytes -= layout.size();
        assert_eq!(was, layout, "another layout came back");
        assert!(flag.is_none_or(|flag| flag == had), "another flag came back");
        drop(books);
        // SAFETY: it came from there with this layout, and was in the books.
        unsafe {
            at.write_bytes(0x5a, layout.size());
            dealloc(at.as_ptr(), layout);
        }
    }
}

// SAFETY: memory from the global allocator, with exact layouts.
unsafe impl PageSupplier for Heap {
    fn page_size(&self) -> usize {
        self.page
    }

    fn alloc_pages(&self, layout: Layout, _: Request) -> Result<PageRun, PageError> {
        PageError::check(layout, self.page)?;
        assert!(layout.align() >= self.page);
        let (at, flag) = self.get(layout).ok_or(PageError::Exhausted)?;
        // SAFETY: ours, and of this layout.
        Ok(unsafe { PageRun::from_parts(at, layout, false, flag) })
    }

    unsafe fn free_pages(&self, run: PageRun) {
        self.put(run.base(), run.layout(), Some(run.flag()));
    }

    fn decommits(&self) -> Option<&dyn Decommit> {
        Some(self)
    }
}

// SAFETY: it writes to the range, which lies inside a run.
unsafe impl Decommit for Heap {
    unsafe fn decommit(&self, at: NonNull<u8>, len: usize) {
        assert_no_lock();
        let start = at.addr().get();
        let books = self.books.lock().unwrap();
        let (base, (run, _)) = books.out.range(..=start).next_back().expect("never supplied");
        assert!((start - base).is_multiple_of(self.page) && len.is_multiple_of(self.page));
        assert!(len != 0 && start + len <= base + run.size());
        drop(books);
        // SAFETY: part of a run that is out.
        unsafe { at.write_bytes(0xdc, len) };
    }
}

// SAFETY: as above.
unsafe impl Metadata for Heap {
    fn alloc_meta(&self, layout: Layout) -> Option<NonNull<u8>> {
        Some(self.get(layout)?.0)
    }

    unsafe fn free_meta(&self, at: NonNull<u8>, layout: Layout) {
        self.put(at, layout, None);
    }
}

/// A small generator of numbers: xorshift.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

pub(crate) fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// Imports up to `count` items.
pub(crate) fn take<S: ItemSource>(
    source: &S,
    count: usize,
    request: Request,
) -> Result<Vec<Item>, AllocError> {
    let mut into = vec![MaybeUninit::uninit(); count];
    let got = source.import(&mut into, request)?;
    assert!(got >= 1 && got <= count);
    // SAFETY: so many have been initialised.
    Ok(into[..got].iter().map(|item| unsafe { item.assume_init() }).collect())
}

/// Imports exactly `count` items.
pub(crate) fn take_all<S: ItemSource>(source: &S, count: usize) -> Vec<Item> {
    let mut items = Vec::new();
    while items.len() < count {
        items.extend(take(source, count - items.len(), Request::NOWAIT).unwrap());
    }
    items
}

/// Gives items back.
pub(crate) fn give<S: ItemSource>(source: &S, items: &[Item]) {
    // SAFETY: the tests give back what they took, or mean to be caught.
    unsafe { source.release(items) }
}

pub(crate) fn stats<S: ItemSource>(source: &S) -> Stats {
    let mut stats = Stats::default();
    source.visit_stats(&mut stats);
    stats
}

/// Fills an item with a stamp that tells it from others.
pub(crate) fn stamp(item: Item, size: usize, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for at in 0..size {
        // SAFETY: the caller owns the item, which has that size.
        unsafe { item.as_non_null().add(at).write(random.next() as u8) };
    }
}

/// Whether the stamp is still whole.
pub(crate) fn is_stamped(item: Item, size: usize, seed: u64) -> bool {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    // SAFETY: as above.
    (0..size).all(|at| unsafe { item.as_non_null().add(at).read() } == random.next() as u8)
}
