//! `vmem`: arenas, as C has them. From Rust, `uma_vmem` is at hand itself.
//!
//! What imports from another arena does so by the two functions that it was made with, and never holds a lock
//! meanwhile. A function gets `VM_NOSLEEP`, also for a caller who waits: the arena waits itself, and asks again.

use core::alloc::Layout;
use core::ffi::{c_int, c_void};
use core::fmt;
use core::ptr::{self, NonNull};

use uma::core::{Name, PageRun, PageSupplier, Request};
use uma::{Host, HostLock, Platform};
use uma_vmem::{
    Arena, ArenaConfig, ArenaStats, Constraints, Import, Policy, Segment, SegmentKind, Span,
    VmemError, VmemFault,
};

use super::{Km, SYSTEM, kmem_reap};
use crate::common::boundary;
use crate::common::fork::{Listed, Lock};
use crate::common::memory::{NoMemory, Table, enter, table};
use crate::common::objects::Backing;

/// `VM_BESTFIT`, `VM_FIRSTFIT`, `VM_NEXTFIT`.
const BESTFIT: c_int = 0x100;
const FIRSTFIT: c_int = 0x200;
const NEXTFIT: c_int = 0x400;
/// Neither reaps nor waits.
const ABORT: c_int = 0x2000;
/// Takes the highest addresses.
const ENDALLOC: c_int = 0x4000;
/// `VMC_NO_QCACHE`: what would be cached is the least that is imported instead.
const NO_QCACHE: c_int = 0x2_0000;
/// `VMC_IDENTIFIER`: no memory.
const IDENTIFIER: c_int = 0x4_0000;
/// `VMC_XALLOC`: the import function may return more than asked for, and says how much.
const XALLOC: c_int = 0x8_0000;

/// Waits for an arena to be asked for, not for anything to come back.
const QUIET: c_int = Km::NOSLEEP.bits();

pub(super) type Alloc = unsafe extern "C-unwind" fn(*mut c_void, usize, c_int) -> *mut c_void;
pub(super) type AllocMore =
    unsafe extern "C-unwind" fn(*mut c_void, *mut usize, c_int) -> *mut c_void;
pub(super) type Free = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, usize);

/// Where an arena's spans come from.
#[derive(Clone, Copy)]
pub(super) enum Parent {
    None,
    /// Functions of C, and the arena that they take from.
    Functions {
        alloc: Importer,
        free: Free,
        source: *mut c_void,
    },
    /// The system.
    Heap,
}

#[derive(Clone, Copy)]
pub(super) enum Importer {
    Exact(Alloc),
    More(AllocMore),
}

pub(super) struct Spans {
    parent: Parent,
    /// Of spans that were not aligned as the arena wanted: what the parent gave. By the base of the span.
    cut: Lock<Table<usize, (usize, usize)>>,
    /// Of the heap: the flags and alignments of its runs, by base.
    runs: Lock<Table<usize, (u8, usize)>>,
}

// SAFETY: the source is only handed to the functions, and whoever made the arena promised that they may be
// called on any thread.
unsafe impl Send for Spans {}
// SAFETY: as above.
unsafe impl Sync for Spans {}

/// The layout of a run of pages for a span.
fn run(size: usize, align: usize) -> Option<Layout> {
    let page = Host.pages().page_size();
    Layout::from_size_align(size.checked_next_multiple_of(page)?, align.max(page)).ok()
}

impl Spans {
    const fn new(parent: Parent) -> Self {
        Self { parent, cut: Lock::new(table()), runs: Lock::new(table()) }
    }

    /// What the functions give for a size.
    fn ask(alloc: Importer, source: *mut c_void, size: usize) -> Option<Span> {
        let mut got = size;
        // SAFETY: whoever made the arena promised that the function takes these.
        let base = unsafe {
            match alloc {
                Importer::Exact(alloc) => alloc(source, size, QUIET),
                Importer::More(alloc) => alloc(source, &raw mut got, QUIET),
            }
        };
        (!base.is_null()).then(|| Span { base: base.expose_provenance(), size: got })
    }
}

impl Import for Spans {
    fn import(&self, size: usize, align: usize, _: Request) -> Option<Span> {
        match self.parent {
            Parent::None => None,
            Parent::Heap => {
                let layout = run(size, align)?;
                let run = Host.pages().alloc_pages(layout, Request::NOWAIT).ok()?;
                let base = run.base().expose_provenance().get();
                if enter(&mut self.runs.lock(), base, (run.flag(), align)).is_err() {
                    // SAFETY: it came just now, and nobody uses it.
                    unsafe { Host.pages().free_pages(run) };
                    return None;
                }
                Some(Span { base, size: layout.size() })
            }
            Parent::Functions { alloc, free, source } => {
                let span = Self::ask(alloc, source, size)?;
                if span.base.is_multiple_of(align) {
                    return Some(span);
                }
                // SAFETY: it was given just now, and nobody uses it.
                unsafe { free(source, ptr::with_exposed_provenance_mut(span.base), span.size) };
                let span = Self::ask(alloc, source, size.checked_add(align)?)?;
                let base = span.base.checked_next_multiple_of(align);
                let fits = |base: &usize| {
                    (base - span.base).checked_add(size).is_some_and(|end| end <= span.size)
                };
                // Of what is less than was asked for, the arena says so, and gives it back.
                let Some(base) = base.filter(fits) else { return Some(span) };
                if enter(&mut self.cut.lock(), base, (span.base, span.size)).is_err() {
                    // SAFETY: as above.
                    unsafe { free(source, ptr::with_exposed_provenance_mut(span.base), span.size) };
                    return None;
                }
                Some(Span { base, size })
            }
        }
    }

    fn release(&self, span: Span) -> Result<(), VmemError> {
        match self.parent {
            Parent::None => {}
            Parent::Heap => {
                let mut runs = self.runs.lock();
                let known = runs.remove(&span.base);
                drop(runs);
                let base = NonNull::new(ptr::with_exposed_provenance_mut(span.base));
                let layout = known.and_then(|(_, align)| run(span.size, align));
                if let (Some((flag, _)), Some(base), Some(layout)) = (known, base, layout) {
                    // SAFETY: `import` got such a run, and the arena gives it back whole.
                    unsafe {
                        let run = PageRun::from_parts(base, layout, false, flag);
                        Host.pages().free_pages(run);
                    }
                }
            }
            Parent::Functions { free, source, .. } => {
                let mut cut = self.cut.lock();
                let (base, size) = cut.remove(&span.base).unwrap_or((span.base, span.size));
                drop(cut);
                // SAFETY: whoever made the arena promised that the function takes back what the other gave.
                unsafe { free(source, ptr::with_exposed_provenance_mut(base), size) };
            }
        }
        Ok(())
    }
}

type Books = <Host as Platform>::Metadata;
type Waits = <Host as Platform>::Sleep;

/// An arena (`vmem_t`).
pub(super) struct Vmem {
    arena: Listed<Arena<HostLock, Books, Waits, Spans>>,
    identifiers: bool,
    /// Whether all memory is behind it.
    heap: bool,
}

/// No memory is larger, however long one waits.
const MOST: usize = 1 << 47;

impl Vmem {
    pub(super) fn new(
        name: &str,
        quantum: usize,
        parent: Parent,
        qcache_max: usize,
        flags: c_int,
    ) -> Result<Self, VmemError> {
        let mut config = ArenaConfig::new(name, quantum)?;
        if flags & NO_QCACHE != 0 {
            config = config.min_import(qcache_max);
        }
        let heap = matches!(parent, Parent::Heap);
        let arena = Arena::xcreate(config, Spans::new(parent), Host.metadata(), Host.sleep());
        let arena = Listed::new(arena).map_err(|NoMemory| no_arena(name))?;
        Ok(Self { arena, identifiers: flags & IDENTIFIER != 0, heap })
    }

    pub(super) const fn has_identifiers(&self) -> bool {
        self.identifiers
    }

    pub(super) fn add(&self, base: usize, size: usize) -> Result<(), VmemError> {
        self.arena.add(base, size)
    }

    /// Allocates as hard as the flags have it. `None` was reported if it is misuse.
    pub(super) fn alloc(
        &self,
        function: &'static str,
        size: usize,
        constraints: Constraints,
        flags: c_int,
    ) -> Option<usize> {
        let km = Km::from_bits_retain(flags);
        let policy = match flags & (BESTFIT | FIRSTFIT | NEXTFIT) {
            BESTFIT => Policy::Best,
            FIRSTFIT => Policy::First,
            NEXTFIT => Policy::Next,
            _ => Policy::Instant,
        };
        if flags & ENDALLOC != 0
            && let Some(at) = self.alloc_from_the_end(size, policy)
        {
            return Some(at);
        }
        let attempt = |request| self.arena.xalloc(size, constraints, policy, request);
        let sleeps = !km.contains(Km::NOSLEEP) && flags & ABORT == 0;
        if self.heap && size >= MOST && sleeps && !km.contains(Km::PANIC) {
            let what = format_args!(
                "{self}: no address space has {size:#x} bytes, however long one waits"
            );
            SYSTEM.misuse(function, what);
            return None;
        }
        let mut got = attempt(Request::NOWAIT);
        if sleeps && got.as_ref().is_err_and(is_shortage) && !km.contains(Km::PANIC) {
            kmem_reap();
            got = attempt(Request::WAIT);
        }
        match got {
            Ok(at) => Some(at),
            Err(error) if km.contains(Km::PANIC) => {
                SYSTEM.fatal(function, format_args!("VM_PANIC: {error}"))
            }
            Err(error) if is_shortage(&error) => None,
            // A size that no address space has fails, if it may.
            Err(VmemError { fault: VmemFault::Overflow(_), .. }) if !sleeps => None,
            Err(error) => {
                SYSTEM.misuse(function, format_args!("{error}"));
                None
            }
        }
    }

    /// The highest addresses of the highest free segment that is large enough, if nobody takes them first.
    fn alloc_from_the_end(&self, size: usize, policy: Policy) -> Option<usize> {
        let real = size.checked_next_multiple_of(self.arena.quantum())?;
        let mut highest = None;
        let _ = self.arena.walk(|segment| {
            if segment.kind == SegmentKind::Free && segment.size >= real {
                let from = segment.addr + (segment.size - real);
                highest = highest.max(Some(from));
            }
        });
        let from = highest?;
        let there = Constraints::new().range(from, from + (real - 1));
        self.arena.xalloc(size, there, policy, Request::NOWAIT).ok()
    }

    pub(super) fn free(&self, function: &'static str, addr: usize, size: usize) {
        if let Err(error) = self.arena.free(addr, size) {
            SYSTEM.misuse(function, format_args!("{error}"));
        }
    }

    pub(super) fn contains(&self, addr: usize, size: usize) -> bool {
        self.arena.contains(addr, size)
    }

    pub(super) fn walk(&self, visit: impl FnMut(Segment)) -> Result<(), VmemError> {
        self.arena.walk(visit)
    }

    pub(super) fn stats(&self) -> ArenaStats {
        self.arena.stats()
    }

    /// Ends the arena, and tells of what is allocated still.
    pub(super) fn destroy(self) {
        let what = if self.identifiers { "identifiers" } else { "bytes" };
        if let Err(leaked) = self.arena.into_inner().destroy(|_| {}) {
            let size = leaked.size;
            SYSTEM.report("vmem_destroy", format_args!("leaked {size} {what}: {leaked}"));
        }
    }
}

/// The least that kmem caches and others may take from an arena.
impl Backing for Vmem {
    fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        let align = layout.align().max(self.arena.quantum());
        let constraints = Constraints::new().align(align);
        // The function that imports is the program's.
        let at = boundary(Some(&SYSTEM), "vmem_alloc", || {
            self.arena.xalloc(layout.size(), constraints, Policy::Instant, Request::NOWAIT)
        });
        NonNull::new(ptr::with_exposed_provenance_mut(at.ok()?))
    }

    unsafe fn give(&self, at: NonNull<u8>, layout: Layout) {
        boundary(Some(&SYSTEM), "vmem_free", || {
            self.free("kmem_cache", at.addr().get(), layout.size());
        });
    }
}

/// There was no memory for an arena.
pub(super) fn no_arena(name: &str) -> VmemError {
    VmemError { arena: Name::new(name), fault: VmemFault::Metadata }
}

/// Whether waiting could have helped.
fn is_shortage(error: &VmemError) -> bool {
    let fault = &error.fault;
    matches!(fault, VmemFault::Exhausted { .. } | VmemFault::TimedOut { .. } | VmemFault::Metadata)
}

/// Whether the flags say that the import function may return more than it was asked for.
pub(super) const fn imports_more(flags: c_int) -> bool {
    flags & XALLOC != 0
}

impl fmt::Display for Vmem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arena \"{}\"", self.arena.name())
    }
}
