//! Groups of zones that share a limit, and groups of groups.
//!
//! ```text
//!                    "machine" 1 GiB
//!                   /               \
//!          "network" 256 MiB       "files" 900 MiB        a group's own limit, below its parent's
//!            /        \                  |
//!        packets    sockets            nodes              zones: members
//! ```
//!
//! # Bytes
//!
//! A group counts bytes, because its members' items differ in size: an item counts as its size rounded up
//! to its alignment, from when it leaves the slabs until it is back, in every group on the way up. Slab
//! headers, and slabs that are held empty, do not count: they are the page supplier's to bound.
//!
//! # Protocol
//!
//! Each group has a gate: a word of bytes and sleepers, and a queue. [`Grouped`] stands between a zone's
//! limit and its slabs, so that a hit never comes here. To import, it charges the groups from the nearest
//! to the root; a batch takes as many items as there is room for everywhere, and what it charged below
//! too much goes back.
//!
//! When a group has no room for even one item:
//!
//! - it becomes *wanted*, by a sleeper in the queue, or by a caller that will not wait and counts itself
//!   as hungry. From then on frees of all zones under it pass their caches.
//! - then every member of the tree is told to [`settle`](ItemSource::settle): those that find a group above
//!   them wanted give back what their caches hold, the others do nothing. So the caches of *other* zones
//!   are drained before a caller fails or sleeps. That runs those zones' fini on this thread.
//! - then the caller looks again, and fails, or sleeps until it is its turn.
//!
//! Waiting is in order of arrival in each group, whatever the sizes: a small item does not overtake a
//! large one. An item larger than a group's whole limit is refused at once, also if the limit is lowered
//! while it waits, and wherever it stands in the queue.
//!
//! A caller that waits in a group holds its room in the groups below, and its place at its own zone's
//! limit. All callers climb in the one direction, from a zone up to the root, and whoever holds room
//! above waits for nothing below; so there is no circle of callers that wait for one another. While it
//! waits, that room is taken: others of the group below may fail or sleep meanwhile.
//!
//! # What is exact
//!
//! Never more than the limit is out. A sleeper is served as soon as enough came back, wherever. A caller that
//! does not wait fails only if what is in use, and what other threads have in hand just now on its way
//! between cache and slabs, leaves no room; with nobody else at work, all of the limit can be in use.
//!
//! # Locks
//!
//! A gate's queue, and the list of members at the root: leaves, both. Members are visited as zones are by
//! their registry: counted in, without the lock. A fork takes the locks of the groups with those of the
//! first member, and lets go of them with the last. A group that has no members is known to no fork: so without
//! members no lock is taken, not even to change the limit, and the last member stays while somebody who changes it
//! has one. (But if there are callers asleep nevertheless: those of a stack that has not joined, or of a future that
//! was forgotten.)

mod grouped;
mod members;
mod outside;

use core::num::NonZeroU64;
use core::ptr;

use lock_api::RawMutex;

pub use grouped::{GroupPlace, Grouped};
use members::{Members, Visit};
use outside::Outside;

use crate::gate::{Admission, Gate, UNLIMITED};
use crate::sync::{AtomicU64, Mutex, Ordering, const_unless_modelled};
use crate::{AllocError, Name, Process, Request, Sleep};

/// A limit in bytes that zones share, and perhaps a parent to whose limit it counts, too.
///
/// There is no counterpart in zone(9), whose limits are those of single zones.
///
/// A group and all under it must be used on one platform: by one registry's zones, which are held
/// together when the process forks.
pub struct LimitGroup<'p, L: RawMutex, Z: Sleep> {
    gate: Gate<L, Z>,
    parent: Option<&'p LimitGroup<'p, L, Z>>,
    /// Callers that are about to fail for want of room.
    hungry: AtomicU64,
    /// Bytes of items that will never come back.
    lost: AtomicU64,
    outside: Outside,
    /// Of the root only: the zones that have joined.
    members: Mutex<L, Members>,
    /// Members that have been told of a fork.
    holds: AtomicU64,
    name: Name,
}

impl<'p, L: RawMutex, Z: Sleep> LimitGroup<'p, L, Z> {
    const_unless_modelled! {
        /// A group of at most `bytes`, or without a limit of its own.
        pub const fn new(name: &str, bytes: Option<NonZeroU64>, sleep: Z) -> Self {
            Self::with(name, bytes, sleep, None)
        }
    }

    const_unless_modelled! {
        /// A group in a group: what counts here counts there as well.
        pub const fn within(
            parent: &'p LimitGroup<'p, L, Z>,
            name: &str,
            bytes: Option<NonZeroU64>,
            sleep: Z,
        ) -> Self {
            Self::with(name, bytes, sleep, Some(parent))
        }
    }

    const_unless_modelled! {
        const fn with(
            name: &str,
            bytes: Option<NonZeroU64>,
            sleep: Z,
            parent: Option<&'p LimitGroup<'p, L, Z>>,
        ) -> Self {
            Self {
                gate: Gate::new(Self::bound(bytes), sleep),
                parent,
                hungry: AtomicU64::new(0),
                lost: AtomicU64::new(0),
                outside: Outside::new(),
                members: Mutex::const_new(L::INIT, Members::new()),
                holds: AtomicU64::new(0),
                name: Name::new(name),
            }
        }
    }

    const fn bound(bytes: Option<NonZeroU64>) -> u64 {
        match bytes {
            Some(bytes) if bytes.get() < UNLIMITED => bytes.get(),
            _ => UNLIMITED,
        }
    }

    /// The group's name.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The group that this one is in.
    pub const fn parent(&self) -> Option<&'p LimitGroup<'p, L, Z>> {
        self.parent
    }

    /// The limit in bytes, if there is one.
    pub fn max_bytes(&self) -> Option<NonZeroU64> {
        let max = self.gate.max();
        if max == UNLIMITED { None } else { NonZeroU64::new(max) }
    }

    /// Changes the limit, at any time, as [`Limited::set_max`](crate::Limited::set_max) does. If more than
    /// that is out, the caches of all zones under this group are drained. Callers that wait for an item larger
    /// than the new limit fail.
    pub fn set_max_bytes(&self, bytes: Option<NonZeroU64>) {
        /// Drains also if a wake-up unwinds, of somebody who is served or refused.
        struct Drained<'a, 'p, L: RawMutex, Z: Sleep>(&'a LimitGroup<'p, L, Z>);

        impl<L: RawMutex, Z: Sleep> Drop for Drained<'_, '_, L, Z> {
            fn drop(&mut self) {
                if self.0.gate.wanted() {
                    self.0.drain();
                }
            }
        }

        let _drained = Drained(self);
        self.gate.set_max(Self::bound(bytes), &self.outside);
    }

    /// Bytes in items that are out, in use or in the caches of the zones under this group.
    pub fn bytes(&self) -> u64 {
        self.gate.units()
    }

    /// Of [`bytes`](Self::bytes), those in items whose zone has ended while they were in use. Their memory is
    /// never given back, since whoever has them may use it still; so it goes on counting, and a limit
    /// bounds what leaks as it bounds all else.
    pub fn lost_bytes(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Does not count what is [lost](Self::lost_bytes) any more, in this group and those it is in, and
    /// returns how many bytes that were in this one: for those who know of the leak and would rather have the
    /// room than the bound. Callers that wait are served.
    pub fn write_off(&self) -> u64 {
        let bytes = self.lost.swap(0, Ordering::Relaxed);
        let _above = self.parent.map(|group| WrittenOff { group, bytes });
        self.gate.refund(bytes, &self.outside);
        bytes
    }

    fn lose(&self, bytes: u64) {
        for group in self.path() {
            group.lost.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// The nearest, of this group and those it is in, that has no room for `bytes` more just now: which one an
    /// [`AllocError::GroupLimit`] was about, unless something came back since.
    pub fn full(&self, bytes: u64) -> Option<&LimitGroup<'p, L, Z>> {
        self.path().find(|group| group.gate.max().saturating_sub(group.gate.units()) < bytes)
    }

    /// Callers asleep at this group's limit just now.
    pub fn sleepers(&self) -> u64 {
        self.gate.sleepers()
    }

    /// This group and those it is in, from the nearest to the root.
    fn path(&self) -> impl Iterator<Item = &LimitGroup<'p, L, Z>> {
        core::iter::successors(Some(self), |group| group.parent)
    }

    fn root(&self) -> &LimitGroup<'p, L, Z> {
        self.path().last().unwrap_or(self)
    }

    /// Whether somebody waits, or is about to fail, for want of what a zone in this group may hold.
    fn wanted(&self) -> bool {
        self.path().any(|group| group.gate.wanted() || group.hungry.load(Ordering::SeqCst) != 0)
    }

    /// Takes room for up to `wanted` items of `each` bytes, and returns for how many.
    fn charge(&self, each: u64, wanted: u64) -> u64 {
        let mut count = wanted;
        let mut held = Held { from: self, end: Some(self), bytes: 0 };
        for group in self.path() {
            let fits = group.gate.charge(each, count);
            (held.end, held.bytes) = (group.parent, fits * each);
            // What is too much below goes back; from the first group nothing does, however much was wanted.
            let bytes = (count - fits).saturating_mul(each);
            drop(Held { from: self, end: Some(group), bytes });
            if fits == 0 {
                return 0;
            }
            count = fits;
        }
        held.bytes = 0;
        count
    }

    /// Takes room for one item of `each` bytes. Drains the caches of all under a group before it
    /// fails or sleeps there.
    fn enter(
        &self,
        each: u64,
        request: Request,
        sleeps: &AtomicU64,
        flush: &mut dyn FnMut(),
    ) -> Result<Held<'_, 'p, L, Z>, AllocError> {
        let mut held = Held { from: self, end: Some(self), bytes: each };
        for group in self.path() {
            if group.gate.charge(each, 1) == 0 {
                let mut drain = || {
                    flush();
                    group.drain();
                };
                if Z::CAN_SLEEP && request.may_wait() {
                    let deadline = request.deadline();
                    let waited = group.gate.wait(each, deadline, sleeps, &mut drain);
                    waited.map_err(of_group)?;
                } else {
                    let _hungry = Hungry::new(&group.hungry);
                    drain();
                    if group.gate.charge(each, 1) == 0 {
                        return Err(AllocError::GroupLimit);
                    }
                }
            }
            held.end = group.parent;
        }
        Ok(held)
    }

    /// As `enter`, for a caller that waits as a task does.
    async fn place(
        &self,
        each: u64,
        sleeps: &AtomicU64,
        mut flush: impl FnMut(),
    ) -> Result<Held<'_, 'p, L, Z>, AllocError> {
        let mut held = Held { from: self, end: Some(self), bytes: each };
        let mut next = Some(self);
        while let Some(group) = next {
            if group.gate.charge(each, 1) == 0 {
                sleeps.fetch_add(1, Ordering::Relaxed);
                let drain = || {
                    flush();
                    group.drain();
                };
                group.gate.reserve(each, drain).await.map_err(of_group)?;
            }
            next = group.parent;
            held.end = next;
        }
        Ok(held)
    }

    /// Gives every member of the tree the opportunity to see what is wanted.
    fn drain(&self) {
        let root = self.root();
        // Without members nobody would let go of the lock in the copy of a process. Who joins later finds what is
        // wanted by himself.
        let Some(entered) = root.outside.enter() else { return };
        let mut visit = Visit::new(&root.members);
        let mut next = visit.advance();
        // From here on there is a member that is visited, and so stays.
        drop(entered);
        while let Some(member) = next {
            member.settle();
            next = visit.advance();
        }
    }

    /// Takes the locks, if this is the first member to be told.
    fn prefork(&self) {
        for group in self.path() {
            if group.holds.fetch_add(1, Ordering::SeqCst) == 0 {
                group.gate.hold();
                core::mem::forget(group.members.lock());
            }
        }
    }

    /// Lets go of the locks, if this is the last member to be told.
    ///
    /// # Safety
    ///
    /// As [`ItemSource::postfork`].
    unsafe fn postfork(&self, process: Process) {
        for group in self.path() {
            if group.holds.fetch_sub(1, Ordering::SeqCst) != 1 {
                continue;
            }
            // SAFETY: the first member that was told took both locks, and until now nobody let go.
            unsafe {
                if process == Process::Copy {
                    // Whoever visited a member, or was about to fail, is in the original; but for this thread,
                    // if it forked out of a hook.
                    group.hungry.store(0, Ordering::SeqCst);
                    group.outside.nobody();
                    (*group.members.data_ptr()).no_visitors();
                }
                group.members.force_unlock();
                group.gate.let_go(process);
            }
        }
    }
}

impl<L: RawMutex, Z: Sleep> core::fmt::Debug for LimitGroup<'_, L, Z> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LimitGroup")
            .field("name", &self.name)
            .field("bytes", &self.bytes())
            .field("lost_bytes", &self.lost_bytes())
            .field("max_bytes", &self.max_bytes())
            .field("sleepers", &self.sleepers())
            .field("parent", &self.parent.map(LimitGroup::name))
            .finish_non_exhaustive()
    }
}

/// A gate knows only that there is no room.
const fn of_group(error: AllocError) -> AllocError {
    match error {
        AllocError::Limit => AllocError::GroupLimit,
        error => error,
    }
}

/// Somebody is about to fail for want of room.
struct Hungry<'a>(&'a AtomicU64);

impl<'a> Hungry<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Hungry<'_> {
    fn drop(&mut self) {
        // Not counted any more, if a hook has forked meanwhile and this is the copy.
        if self.0.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// What was lost in groups below, given up in this one and those it is in.
struct WrittenOff<'a, 'p, L: RawMutex, Z: Sleep> {
    group: &'a LimitGroup<'p, L, Z>,
    bytes: u64,
}

impl<L: RawMutex, Z: Sleep> Drop for WrittenOff<'_, '_, L, Z> {
    fn drop(&mut self) {
        let Self { group, bytes } = *self;
        // What was written off here already is not given back again.
        let mut less = 0;
        let change = |lost: u64| {
            less = lost.min(bytes);
            Some(lost - less)
        };
        let _ = group.lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
        // Also if a wake-up unwinds here.
        let _above = group.parent.map(|group| WrittenOff { group, bytes });
        group.gate.refund(less, &group.outside);
    }
}

/// Room in the groups from one up to, and without, another. Dropped, it goes to whoever waits for it.
struct Held<'a, 'p, L: RawMutex, Z: Sleep> {
    from: &'a LimitGroup<'p, L, Z>,
    end: Option<&'a LimitGroup<'p, L, Z>>,
    bytes: u64,
}

impl<L: RawMutex, Z: Sleep> Drop for Held<'_, '_, L, Z> {
    fn drop(&mut self) {
        let Self { from, end, bytes } = *self;
        if bytes == 0 || end.is_some_and(|end| ptr::eq(from, end)) {
            return;
        }
        // Also if a wake-up unwinds here; a second panic aborts.
        let _above = from.parent.map(|from| Held { from, end, bytes });
        from.gate.refund(bytes, ());
    }
}
