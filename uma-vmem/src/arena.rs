//! The arena: the lock around the books, and what is done outside of it.
//!
//! # Locks
//!
//! One lock for each arena, a leaf. Without it, and never under it: metadata is got and given back, the
//! parent is asked and given back to, waiting callers are woken and their wakers dropped, walks call back.
//!
//! # How an allocation goes
//!
//! 1. Make sure that there are tags enough ([`Arena::lock_for`]); a block is got without the lock.
//! 2. Under the lock: find a place and take it. Mostly that is all.
//! 3. If there was none: promise tags to ourselves, ask the parent without the lock, and look again,
//!    since somebody may have freed enough meanwhile; then the span goes straight back.
//! 4. If that was in vain and the caller may wait: under the lock, look once more and join the queue
//!    ([`wait`](crate::wait)), with the tags for the segment promised. Whoever frees something from here
//!    on sees it.

use core::fmt;

use uma_core::{Metadata, Name, Process, RawMutex, Request, Sleep};

use crate::fit::{Policy, Want, round_up};
use crate::segments::{SPAN_TAGS, Segments, TAKE_TAGS};
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::wait::Waiters;
use crate::walk::{Segment, SegmentKind};
use crate::{
    ArenaConfig, ArenaStats, Constraints, Import, Leaked, NoParent, Span, VmemError, VmemFault,
};

/// What the arena's lock guards.
pub(crate) struct State<K> {
    pub(crate) segments: Segments,
    pub(crate) waiters: Waiters<K>,
    pub(crate) counts: Counts,
}

// SAFETY: tags, table and cursors are reached through the state alone; the nodes of waiting callers are
// shared as the lock around it allows, and what they hold of foreign types is `Send` and `Sync`.
unsafe impl<K: Send + Sync> Send for State<K> {}

#[derive(Clone, Copy)]
pub(crate) struct Counts {
    allocs: u64,
    frees: u64,
    fails: u64,
    pub(crate) waits: u64,
    pub(crate) imports: u64,
    releases: u64,
}

/// The lock, held.
pub(crate) type Held<'a, L, W> = MutexGuard<'a, L, State<<W as Sleep>::Waker>>;

impl<K> State<K> {
    /// Finds a place and takes it. There are `TAKE_TAGS` tags for it.
    pub(crate) fn take(&mut self, want: &Want) -> Option<usize> {
        let at = self.segments.take(want)?;
        self.counts.allocs += 1;
        Some(at)
    }

    /// Allocates for one of the callers that wait, if there is room for any. Returns whom to wake.
    pub(crate) fn serve(&mut self) -> Option<K> {
        if self.waiters.len() == 0 {
            return None;
        }
        let Self { segments, waiters, counts } = self;
        let woken = waiters.serve(|want| {
            let at = segments.take(want)?;
            counts.allocs += 1;
            Some(at)
        })?;
        // Two of the spare tags were promised to it, and it has taken no more than that.
        segments.pool.unreserve(TAKE_TAGS);
        Some(woken)
    }
}

/// Allocates from sets of integers: `vmem_t`.
///
/// An arena has *spans*, which are added or imported from a parent, and allocates *segments* of them. It
/// keeps its books apart from what it manages, so that can be anything: addresses of memory, of devices,
/// identifiers, block numbers. Sizes and addresses are `usize`, as in the originals (`uintptr_t`): wide
/// enough for an address of this machine, with nothing to convert. The last one, `usize::MAX`, can be
/// allocated too; only the whole range at once is one more than a size can say.
///
/// `L` is the lock, `M` where tags come from, `W` how callers wait, and `P` the parent, if there is one.
/// Nothing is reserved until spans are added. Dropping an arena gives its bookkeeping back; imported spans
/// in which something is allocated stay allocated in the parent ([`destroy`](Self::destroy) says what).
///
/// ```
/// use uma_core::{NoSleep, Request};
/// use uma_vmem::{Arena, ArenaConfig, Policy};
/// # use uma_testkit::HeapMeta;
/// # use parking_lot::RawMutex;
/// let config = ArenaConfig::new("minor", 1)?;
/// let minors = Arena::<RawMutex, _, _>::new(config, HeapMeta::new(), NoSleep);
/// minors.add(0, 256)?;
/// let minor = minors.alloc(1, Policy::Next, Request::NOWAIT)?;
/// minors.free(minor, 1)?;
/// assert!(minors.free(minor, 1).is_err());
/// # Ok::<(), uma_vmem::VmemError>(())
/// ```
pub struct Arena<L: RawMutex, M: Metadata, W: Sleep, P: Import = NoParent> {
    pub(crate) state: Mutex<L, State<W::Waker>>,
    pub(crate) waiting: AtomicUsize,
    pub(crate) config: ArenaConfig,
    pub(crate) metadata: M,
    pub(crate) sleep: W,
    pub(crate) parent: P,
}

impl<L: RawMutex, M: Metadata, W: Sleep> Arena<L, M, W> {
    /// An arena without a parent and without spans.
    pub const fn new(config: ArenaConfig, metadata: M, sleep: W) -> Self {
        Self::xcreate(config, NoParent, metadata, sleep)
    }

    /// An arena without a parent and with one span (`vmem_create`).
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn create(
        config: ArenaConfig,
        base: usize,
        size: usize,
        metadata: M,
        sleep: W,
    ) -> Result<Self, VmemError> {
        let arena = Self::new(config, metadata, sleep);
        arena.add(base, size)?;
        Ok(arena)
    }
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Arena<L, M, W, P> {
    /// An arena that imports spans from a parent (`vmem_xcreate`), mostly a reference to another arena.
    /// Spans may be added to it as well.
    pub const fn xcreate(config: ArenaConfig, parent: P, metadata: M, sleep: W) -> Self {
        let counts = Counts { allocs: 0, frees: 0, fails: 0, waits: 0, imports: 0, releases: 0 };
        let segments = Segments::new(config.quantum);
        let state = State { segments, waiters: Waiters::new(), counts };
        Self {
            state: Mutex::const_new(L::INIT, state),
            waiting: AtomicUsize::new(0),
            config,
            metadata,
            sleep,
            parent,
        }
    }

    /// The name.
    pub const fn name(&self) -> Name {
        self.config.name
    }

    /// Sizes and addresses are multiples of this.
    pub const fn quantum(&self) -> usize {
        self.config.quantum
    }

    /// The parent.
    pub const fn parent(&self) -> &P {
        &self.parent
    }

    pub(crate) fn round_up(&self, size: usize) -> Option<usize> {
        round_up(size, self.config.quantum)
    }

    pub(crate) const fn error(&self, fault: VmemFault) -> VmemError {
        VmemError { arena: self.config.name, fault }
    }

    /// Adds a span (`vmem_add`), and serves those who wait for room. It stays until the arena is
    /// dropped. Segments do not reach from one span to the next, also where the spans touch.
    ///
    /// # Errors
    ///
    /// [`ZeroSize`](VmemFault::ZeroSize), [`Unaligned`](VmemFault::Unaligned),
    /// [`TooLarge`](VmemFault::TooLarge), [`Overlap`](VmemFault::Overlap), and
    /// [`Metadata`](VmemFault::Metadata).
    pub fn add(&self, base: usize, size: usize) -> Result<(), VmemError> {
        let mut state = self.lock_for(SPAN_TAGS)?;
        state.segments.add(Span { base, size }, false).map_err(|fault| self.error(fault))?;
        let woken = state.serve();
        drop(state);
        self.wake(woken);
        Ok(())
    }

    /// Allocates a segment of `size` and returns its first address (`vmem_alloc`). It takes up `size`
    /// rounded up to the quantum, and is freed with `size` as it was given here.
    ///
    /// Imports a span if there is no room. If there is none to be had and `request` may wait, waits until
    /// somebody frees enough, or to its deadline; what it wants may never come, as in the originals. Only
    /// waiting and the deadline of a request are looked at.
    ///
    /// # Errors
    ///
    /// [`ZeroSize`](VmemFault::ZeroSize), [`Overflow`](VmemFault::Overflow),
    /// [`Exhausted`](VmemFault::Exhausted), [`TimedOut`](VmemFault::TimedOut);
    /// [`BadImport`](VmemFault::BadImport), or what [`add`](Self::add) says, of a span that the parent
    /// gave; [`Metadata`](VmemFault::Metadata), also if the caller may wait.
    pub fn alloc(&self, size: usize, policy: Policy, request: Request) -> Result<usize, VmemError> {
        self.xalloc(size, Constraints::new(), policy, request)
    }

    /// The same, at a place that meets constraints (`vmem_xalloc`).
    ///
    /// It imports for an alignment and a phase, but not if it must not cross a boundary or has bounds, as
    /// in Solaris. (NetBSD does for none of them.) Constraints other than an alignment may look at every
    /// free segment of one size class and above.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc), and [`BadAlign`](VmemFault::BadAlign),
    /// [`BadPhase`](VmemFault::BadPhase), [`BadNocross`](VmemFault::BadNocross),
    /// [`Overconstrained`](VmemFault::Overconstrained), [`BadRange`](VmemFault::BadRange).
    pub fn xalloc(
        &self,
        size: usize,
        constraints: Constraints,
        policy: Policy,
        request: Request,
    ) -> Result<usize, VmemError> {
        let want = self.want(size, &constraints, policy)?;
        self.alloc_wanted(&want, request, None)
    }

    /// The same for a caller who must not sleep, not even for the arena's lock: if another has that just
    /// now, it fails. It does not import either, since a parent has a lock of its own.
    ///
    /// # Errors
    ///
    /// As [`xalloc`](Self::xalloc), and [`Busy`](VmemFault::Busy). What is wrong with the arguments, or
    /// that the arena is busy, is not counted among the failures: they are under the lock.
    pub fn try_xalloc(
        &self,
        size: usize,
        constraints: Constraints,
        policy: Policy,
    ) -> Result<usize, VmemError> {
        let want = Want::new(size, &constraints, policy, self.config.quantum)
            .map_err(|fault| self.error(fault))?;
        let mut state = self.lock_by(TAKE_TAGS, Mutex::try_lock)?;
        state.take(&want).ok_or_else(|| {
            state.counts.fails += 1;
            self.error(VmemFault::Exhausted { size, free: state.segments.free_size() })
        })
    }

    /// A request that makes sense.
    pub(crate) fn want(
        &self,
        size: usize,
        constraints: &Constraints,
        policy: Policy,
    ) -> Result<Want, VmemError> {
        Want::new(size, constraints, policy, self.config.quantum)
            .map_err(|fault| self.failed(fault))
    }

    /// Allocates. `flush`, if there is one, runs once before the caller fails or sleeps for want of room;
    /// and if it may sleep, after it has joined the queue.
    pub(crate) fn alloc_wanted(
        &self,
        want: &Want,
        request: Request,
        flush: Option<&mut dyn FnMut()>,
    ) -> Result<usize, VmemError> {
        if let Some(at) = self.try_alloc(want)? {
            return Ok(at);
        }
        if W::CAN_SLEEP && request.may_wait() {
            return self.wait(want, request.deadline(), flush);
        }
        if let Some(flush) = flush {
            flush();
            if let Some(at) = self.try_alloc(want)? {
                return Ok(at);
            }
        }
        let free = self.state.lock().segments.free_size();
        Err(self.failed(VmemFault::Exhausted { size: want.size, free }))
    }

    /// Allocates what there is, or what the parent has.
    fn try_alloc(&self, want: &Want) -> Result<Option<usize>, VmemError> {
        let mut state = self.lock_for(TAKE_TAGS).inspect_err(|_| self.count_fail())?;
        let at = state.take(want);
        drop(state);
        match at {
            Some(at) => Ok(Some(at)),
            None => self.import_for(want, None).inspect_err(|_| self.count_fail()),
        }
    }

    /// Allocates several under one lock, of what there is. Returns how many, which may be none.
    pub(crate) fn take_many(&self, want: &Want, into: &mut [usize]) -> Result<usize, VmemError> {
        let mut state = self.lock_for(TAKE_TAGS)?;
        let mut count = 0;
        for place in into {
            if state.segments.pool.short_of(TAKE_TAGS) {
                break;
            }
            let Some(at) = state.take(want) else { break };
            *place = at;
            count += 1;
        }
        Ok(count)
    }

    /// An allocation that failed.
    pub(crate) fn failed(&self, fault: VmemFault) -> VmemError {
        self.count_fail();
        self.error(fault)
    }

    pub(crate) fn count_fail(&self) {
        self.state.lock().counts.fails += 1;
    }

    /// Frees a segment (`vmem_free`), with the size that it was allocated with. An imported span that is
    /// wholly free after that goes back to the parent.
    ///
    /// It takes the same time however many segments there are, but for the callers that it serves who
    /// wait for room.
    ///
    /// # Errors
    ///
    /// [`Foreign`](VmemFault::Foreign), [`NotAllocated`](VmemFault::NotAllocated) and
    /// [`WrongSize`](VmemFault::WrongSize), which change nothing. [`NotTaken`](VmemFault::NotTaken) if the
    /// parent did not take a span back; the segment is free all the same.
    pub fn free(&self, addr: usize, size: usize) -> Result<(), VmemError> {
        let mut state = self.state.lock();
        let freed = match state.segments.release(addr, size) {
            Ok(freed) => freed,
            Err(fault) => {
                drop(state);
                return Err(self.error(fault));
            }
        };
        state.counts.frees += 1;
        let woken = state.serve();
        let served = woken.is_some();
        let mut span = match woken {
            Some(_) => None,
            None => self.retire(&mut state, |segments| segments.retire(freed)),
        };
        let surplus = state.segments.surplus();
        drop(state);
        if let Some(memory) = surplus {
            self.discard(memory);
        }
        if served {
            let emptied = Emptied { arena: self, addr };
            self.wake(woken);
            // Those served mostly lie in what was freed; but if another thread freed more meanwhile, they
            // may lie in that, and this span is free.
            span = emptied.take();
        }
        self.give_back(span)
    }

    /// Frees a segment that [`xalloc`](Self::xalloc) allocated (`vmem_xfree`). It is the same as
    /// [`free`](Self::free): no cache stands in front of an arena of its own accord, so there is nothing
    /// for it to bypass.
    ///
    /// # Errors
    ///
    /// As [`free`](Self::free).
    pub fn xfree(&self, addr: usize, size: usize) -> Result<(), VmemError> {
        self.free(addr, size)
    }

    /// Whether the whole range lies in one span (`vmem_contains`), allocated or not. Takes the logarithm
    /// of the number of spans.
    pub fn contains(&self, addr: usize, size: usize) -> bool {
        self.state.lock().segments.contains(addr, size)
    }

    /// Addresses in segments of a kind (`vmem_size`), allocated ones rounded up to the quantum.
    pub fn size(&self, kind: SegmentKind) -> usize {
        let state = self.state.lock();
        match kind {
            SegmentKind::Allocated => state.segments.in_use,
            SegmentKind::Free => state.segments.free_size(),
        }
    }

    /// Callers that wait for room just now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// All figures, of one instant.
    pub fn stats(&self) -> ArenaStats {
        let state = self.state.lock();
        let State { segments, waiters, counts } = &*state;
        ArenaStats {
            size: segments.size,
            in_use: segments.in_use,
            peak: segments.peak,
            imported: segments.imported,
            spans: segments.spans(),
            segments: segments.table.len(),
            allocs: counts.allocs,
            frees: counts.frees,
            fails: counts.fails,
            waits: counts.waits,
            imports: counts.imports,
            releases: counts.releases,
            waiting: waiters.len(),
            meta_bytes: segments.pool.bytes() + segments.table.bytes(),
        }
    }

    /// Ends the arena (`vmem_destroy`), which dropping it does too, and reports every segment that is
    /// still allocated.
    ///
    /// # Errors
    ///
    /// If there are any: how many, and how much. What they lie in stays allocated in the parent.
    pub fn destroy(self, mut report: impl FnMut(Segment)) -> Result<(), Leaked> {
        let state = self.state.lock();
        let (segments, size) = (state.segments.table.len(), state.segments.in_use);
        drop(state);
        if segments == 0 {
            return Ok(());
        }
        // The arena is ours alone: no walk is under way whose place this one could want.
        let _ = self.walk(|segment| {
            if segment.kind == SegmentKind::Allocated {
                report(segment);
            }
        });
        Err(Leaked { arena: self.config.name, segments, size })
    }

    /// Takes the lock and keeps it, for a copy of the process to be made (fork(2)) in which nothing is
    /// half done. Until [`postfork`](Self::postfork) every other call may block. A parent is not locked:
    /// it has an owner.
    pub fn prefork(&self) {
        core::mem::forget(self.state.lock());
    }

    /// Lets go of the lock, in the process or in its copy. In the copy, nobody waits.
    ///
    /// # Safety
    ///
    /// This thread, or the one that it is the copy of, called `prefork`, and this was not called since.
    pub unsafe fn postfork(&self, process: Process) {
        if process == Process::Copy {
            // SAFETY: `prefork` took the lock and forgot its guard, so nobody else has the state.
            let state = unsafe { &mut *self.state.data_ptr() };
            state.segments.pool.unreserve(TAKE_TAGS * state.waiters.len());
            state.waiters.forget_all();
            state.segments.cursors.close_walks();
            self.waiting.store(0, Ordering::SeqCst);
        }
        // SAFETY: the caller called `prefork`, which took the lock.
        unsafe { self.state.force_unlock() };
    }

    /// Takes a span out of the books, if there is one to take, and counts it.
    pub(crate) fn retire(
        &self,
        state: &mut Held<'_, L, W>,
        take: impl FnOnce(&mut Segments) -> Option<Span>,
    ) -> Option<Span> {
        if !P::IMPORTS {
            return None;
        }
        let span = take(&mut state.segments)?;
        state.counts.releases += 1;
        Some(span)
    }

    /// Gives a span back to the parent.
    pub(crate) fn give_back(&self, span: Option<Span>) -> Result<(), VmemError> {
        let Some(span) = span else { return Ok(()) };
        let fault = VmemFault::NotTaken { base: span.base, size: span.size };
        self.parent.release(span).map_err(|_| self.error(fault))
    }

    /// Wakes a caller that was served, and serves the others for whom there is room.
    pub(crate) fn wake(&self, woken: Option<W::Waker>) {
        /// Serves the others if a wake-up, or the end of a waker, unwinds; a second panic aborts.
        struct Others<'a, L: RawMutex, M: Metadata, W: Sleep, P: Import>(&'a Arena<L, M, W, P>);

        impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Drop for Others<'_, L, M, W, P> {
            fn drop(&mut self) {
                let next = self.0.state.lock().serve();
                self.0.wake(next);
            }
        }

        let mut next = woken;
        while let Some(waker) = next {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            let others = Others(self);
            self.sleep.wake(&waker);
            drop(waker);
            core::mem::forget(others);
            next = self.state.lock().serve();
        }
    }
}

/// The span around a segment that was freed, which may be wholly free: given back if a wake-up unwinds.
struct Emptied<'a, L: RawMutex, M: Metadata, W: Sleep, P: Import> {
    arena: &'a Arena<L, M, W, P>,
    addr: usize,
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Emptied<'_, L, M, W, P> {
    /// Takes it out of the books if it is.
    fn look(&self) -> Option<Span> {
        let mut state = self.arena.state.lock();
        self.arena.retire(&mut state, |segments| segments.retire_at(self.addr))
    }

    fn take(self) -> Option<Span> {
        core::mem::ManuallyDrop::new(self).look()
    }
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Drop for Emptied<'_, L, M, W, P> {
    fn drop(&mut self) {
        // Of a span that the parent does not take back there is nobody to hear.
        let _ = self.arena.give_back(self.look());
    }
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Drop for Arena<L, M, W, P> {
    fn drop(&mut self) {
        let Self { state, metadata, .. } = self;
        let segments = &mut state.get_mut().segments;
        // SAFETY: nothing but this is called on the way out.
        while let Some(memory) = unsafe { segments.dismantle() } {
            // SAFETY: it came from this metadata supplier with this layout, and left the books just now.
            unsafe { metadata.free_meta(memory.at, memory.layout) };
        }
    }
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> fmt::Debug for Arena<L, M, W, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("name", &self.config.name)
            .field("quantum", &self.config.quantum)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
