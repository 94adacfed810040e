//! `vmem`: sets of integers, in arenas of `uma-vmem`.

use core::ffi::{c_int, c_uint, c_void};
use core::fmt;

use uma::core::{Name, Request};
use uma::{Host, HostLock, Park, Platform};
use uma_vmem::{
    Arena, ArenaConfig, ArenaStats, Constraints, Import, Leaked, Policy, Segment, Span, VmemError,
    VmemFault,
};

use super::VmFlags;
use crate::common::fork::Listed;
use crate::common::memory::NoMemory;

/// Imports a span of a size from the source, with `VM_*` flags, and says where it is: 0, or an error
/// (`vmem_import_t`). Never called with `VM_SLEEP`: the arena waits itself.
pub type ImportFn = unsafe extern "C-unwind" fn(*mut c_void, usize, c_uint, *mut usize) -> c_int;
/// The same, and says how large the span is, which is no less than asked for (`vmem_ximport_t`).
pub type XimportFn =
    unsafe extern "C-unwind" fn(*mut c_void, usize, *mut usize, c_uint, *mut usize) -> c_int;
/// Takes a span back (`vmem_release_t`).
pub type ReleaseFn = unsafe extern "C-unwind" fn(*mut c_void, usize, usize);

/// How an arena imports spans.
#[derive(Clone, Copy, Debug)]
enum How {
    Never,
    Exactly(ImportFn),
    AtLeast(XimportFn),
}

/// Where an arena imports spans from.
#[derive(Clone, Copy, Debug)]
pub struct VmemSource {
    how: How,
    release: Option<ReleaseFn>,
    /// Passed to both.
    source: *mut c_void,
    /// How many times as much as is needed.
    times: usize,
}

// SAFETY: whoever makes an arena of it promises that the functions may be called on any thread.
unsafe impl Send for VmemSource {}
// SAFETY: as above.
unsafe impl Sync for VmemSource {}

impl VmemSource {
    /// Nowhere: the arena has what is added to it.
    pub const NONE: Self =
        Self { how: How::Never, release: None, source: core::ptr::null_mut(), times: 1 };

    /// Spans by `import`, which gives just as much as it is asked for.
    ///
    /// # Safety
    ///
    /// The functions take `source`, on any thread, as long as the arena exists; they do not use the arena.
    pub const unsafe fn new(
        import: ImportFn,
        release: Option<ReleaseFn>,
        source: *mut c_void,
    ) -> Self {
        Self { how: How::Exactly(import), release, source, times: 1 }
    }

    /// Spans by `import`, which may give more.
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new).
    pub const unsafe fn larger(
        import: XimportFn,
        release: Option<ReleaseFn>,
        source: *mut c_void,
    ) -> Self {
        Self { how: How::AtLeast(import), release, source, times: 1 }
    }
}

impl Import for VmemSource {
    fn import(&self, size: usize, _: usize, _: Request) -> Option<Span> {
        let mut size = size.checked_mul(self.times)?;
        let mut base = 0;
        let flags = (VmFlags::NOSLEEP | VmFlags::INSTANTFIT).bits();
        // SAFETY: whoever made the source promised that the function may be called so.
        let result = unsafe {
            match self.how {
                How::Never => return None,
                How::Exactly(import) => import(self.source, size, flags, &raw mut base),
                How::AtLeast(import) => {
                    let wanted = size;
                    import(self.source, wanted, &raw mut size, flags, &raw mut base)
                }
            }
        };
        (result == 0).then_some(Span { base, size })
    }

    fn release(&self, span: Span) -> Result<(), VmemError> {
        if let Some(release) = self.release {
            // SAFETY: whoever made the source promised that the function may be called so.
            unsafe { release(self.source, span.base, span.size) };
        }
        Ok(())
    }
}

type Books = Arena<HostLock, <Host as Platform>::Metadata, Park, Unconstrained>;

/// A source that imports for requests without constraints only.
struct Unconstrained {
    source: VmemSource,
    quantum: usize,
}

impl Import for Unconstrained {
    fn import(&self, size: usize, align: usize, request: Request) -> Option<Span> {
        if align > self.quantum {
            return None;
        }
        self.source.import(size, align, request)
    }

    fn release(&self, span: Span) -> Result<(), VmemError> {
        self.source.release(span)
    }
}

/// What an arena is made of.
#[derive(Clone, Copy, Debug)]
pub struct CreateVmem {
    /// The first span, if its size is not 0.
    pub base: usize,
    /// Its size.
    pub size: usize,
    /// Sizes are multiples of this, a power of two.
    pub quantum: usize,
    /// Where more comes from.
    pub source: VmemSource,
    /// `VM_LARGEIMPORT` counts here.
    pub flags: VmFlags,
}

/// An arena (`vmem_t`).
///
/// ```
/// use uma_kmem_compat::netbsd::{CreateVmem, VmFlags, Vmem, VmemSource};
/// use uma_vmem::Constraints;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ports = Vmem::create("ports", CreateVmem {
///     base: 0, size: 1024, quantum: 1, source: VmemSource::NONE, flags: VmFlags::NOSLEEP,
/// })?;
/// let flags = VmFlags::NOSLEEP | VmFlags::INSTANTFIT;
/// let at = ports.xalloc(8, Constraints::new().align(8), flags)?;
/// assert_eq!(at % 8, 0);
/// ports.free(at, 8)?;
/// # Ok(()) }
/// ```
pub struct Vmem(Listed<Books>);

impl Vmem {
    /// An arena (`vmem_create`, `vmem_xcreate`).
    ///
    /// # Errors
    ///
    /// What is wrong with the quantum or the span, or that there was no memory.
    pub fn create(name: &str, args: CreateVmem) -> Result<Self, VmemError> {
        let config = ArenaConfig::new(name, args.quantum)?;
        let mut source = args.source;
        source.times = if args.flags.contains(VmFlags::LARGEIMPORT) { 16 } else { 1 };
        let source = Unconstrained { source, quantum: args.quantum };
        let arena = Books::xcreate(config, source, Host.metadata(), Park);
        if args.size != 0 {
            arena.add(args.base, args.size)?;
        }
        let fault = |NoMemory| VmemError { arena: Name::new(name), fault: VmemFault::Metadata };
        Ok(Self(Listed::new(arena).map_err(fault)?))
    }

    /// Allocates (`vmem_alloc`). With [`VmFlags::SLEEP`] it waits until somebody frees enough.
    ///
    /// # Errors
    ///
    /// As [`Arena::alloc`].
    pub fn alloc(&self, size: usize, flags: VmFlags) -> Result<usize, VmemError> {
        self.xalloc(size, Constraints::new(), flags)
    }

    /// Allocates at a place that meets constraints (`vmem_xalloc`). Imports nothing for those.
    ///
    /// # Errors
    ///
    /// As [`Arena::xalloc`].
    pub fn xalloc(
        &self,
        size: usize,
        constraints: Constraints,
        flags: VmFlags,
    ) -> Result<usize, VmemError> {
        let best = flags.contains(VmFlags::BESTFIT);
        let policy = if best { Policy::Best } else { Policy::Instant };
        let sleeps = flags.contains(VmFlags::SLEEP);
        let request = if sleeps { Request::WAIT } else { Request::NOWAIT };
        self.0.xalloc(size, constraints, policy, request)
    }

    /// Frees what was allocated, with the same size (`vmem_free`, `vmem_xfree`).
    ///
    /// # Errors
    ///
    /// As [`Arena::free`].
    pub fn free(&self, addr: usize, size: usize) -> Result<(), VmemError> {
        self.0.free(addr, size)
    }

    /// Adds a span (`vmem_add`).
    ///
    /// # Errors
    ///
    /// As [`Arena::add`].
    pub fn add(&self, base: usize, size: usize) -> Result<(), VmemError> {
        self.0.add(base, size)
    }

    /// What a request for so much takes (`vmem_roundup_size`).
    pub fn roundup_size(&self, size: usize) -> usize {
        size.checked_next_multiple_of(self.0.quantum()).unwrap_or(size)
    }

    /// Calls `visit` for every segment.
    ///
    /// # Errors
    ///
    /// As [`Arena::walk`].
    pub fn walk(&self, visit: impl FnMut(Segment)) -> Result<(), VmemError> {
        self.0.walk(visit)
    }

    /// The figures.
    pub fn stats(&self) -> ArenaStats {
        self.0.stats()
    }

    /// The name.
    pub fn name(&self) -> Name {
        self.0.name()
    }

    /// Ends the arena (`vmem_destroy`). Imported spans in which nothing is allocated have gone back before.
    ///
    /// # Errors
    ///
    /// If anything is allocated: how much.
    pub fn destroy(self) -> Result<(), Leaked> {
        self.0.into_inner().destroy(|_| {})
    }
}

impl fmt::Debug for Vmem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vmem").field("name", &self.0.name()).finish_non_exhaustive()
    }
}
