//! Heap memory with books: every piece its own allocation, given back exactly as it was taken.

use std::alloc::Layout;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ptr::NonNull;

use crate::sync::{AtomicBool, Mutex, Ordering};

/// What fresh memory is filled with, so that nobody takes it for zeroed.
const FRESH: u8 = 0xa5;
/// What memory is filled with before it goes back to the heap.
const GONE: u8 = 0x5a;

/// What has been handed out and not come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    /// Runs, or pieces of bookkeeping memory.
    pub runs: usize,
    /// Bytes in them.
    pub bytes: usize,
}

struct Piece {
    layout: Layout,
    flag: u8,
}

#[derive(Default)]
struct Books {
    live: BTreeMap<usize, Piece>,
    /// Addresses that were given back and not handed out again.
    gone: BTreeSet<usize>,
    bytes: usize,
}

pub(crate) struct Ledger {
    /// What it hands out, for messages.
    what: &'static str,
    books: Mutex<Books>,
    leaks_allowed: AtomicBool,
}

impl Ledger {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, books: Mutex::default(), leaks_allowed: AtomicBool::new(false) }
    }

    pub(crate) fn outstanding(&self) -> Outstanding {
        let books = self.books.lock();
        Outstanding { runs: books.live.len(), bytes: books.bytes }
    }

    pub(crate) fn allow_leaks(&self) {
        self.leaks_allowed.store(true, Ordering::Relaxed);
    }

    /// `flag` must come back with the memory.
    pub(crate) fn take(&self, layout: Layout, flag: u8) -> Option<NonNull<u8>> {
        if layout.size() == 0 {
            return None;
        }
        // SAFETY: the size is not zero.
        let at = NonNull::new(unsafe { std::alloc::alloc(layout) })?;
        // SAFETY: fresh memory of this size.
        unsafe { at.write_bytes(FRESH, layout.size()) };
        let mut books = self.books.lock();
        books.gone.remove(&at.addr().get());
        books.bytes += layout.size();
        books.live.insert(at.addr().get(), Piece { layout, flag });
        Some(at)
    }

    /// Takes memory back. Panics if it was not handed out, has come back already, or comes back with
    /// another layout or flag.
    ///
    /// # Safety
    ///
    /// If `at` came from `take`, nobody uses its memory any more.
    pub(crate) unsafe fn give(&self, at: NonNull<u8>, layout: Layout, flag: u8) {
        let address = at.addr().get();
        let mut books = self.books.lock();
        let Some(Piece { layout: taken, flag: set }) = books.live.remove(&address) else {
            let again = books.gone.contains(&address);
            drop(books);
            if again {
                self.fault(format_args!("double free of {address:#x} ({layout:?})"));
            }
            self.fault(format_args!("free of {address:#x}, which was never handed out"));
        };
        books.gone.insert(address);
        books.bytes -= taken.size();
        drop(books);
        // SAFETY: it was live until now, with layout `taken`, and the caller has done with it.
        unsafe {
            at.write_bytes(GONE, taken.size());
            std::alloc::dealloc(at.as_ptr(), taken);
        }
        if taken != layout {
            self.fault(format_args!(
                "{address:#x} was taken as {taken:?}, given back as {layout:?}"
            ));
        }
        if flag != set {
            self.fault(format_args!(
                "{address:#x} was taken with flag {set}, given back with {flag}"
            ));
        }
    }

    fn fault(&self, message: impl Display) -> ! {
        panic!("{}: {message}", self.what)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let Outstanding { runs, bytes } = self.outstanding();
        if runs > 0 && !self.leaks_allowed.load(Ordering::Relaxed) && !std::thread::panicking() {
            self.fault(format_args!("{runs} pieces of {bytes} bytes were never given back"));
        }
    }
}
