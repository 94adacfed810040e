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
//! while it waits.
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
//! first member, and lets go of them with the last.

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::num::NonZeroU64;
use core::ptr;

use lock_api::RawMutex;

use crate::gate::{Gate, UNLIMITED};
use crate::sync::{AtomicU64, Mutex, Ordering, UnsafeCell, const_unless_modelled};
use crate::{AllocError, Item, ItemSource, Name, Process, Reclaim, Request, Sleep, Stats};

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
    /// Of the root only: all members of the tree.
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
            let list = Members { first: ptr::null(), last: ptr::null() };
            Self {
                gate: Gate::new(Self::bound(bytes), sleep),
                parent,
                hungry: AtomicU64::new(0),
                members: Mutex::const_new(L::INIT, list),
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
        self.gate.set_max(Self::bound(bytes));
        if self.gate.wanted() {
            self.drain();
        }
    }

    /// Bytes in items that are out, in use or in the caches of the zones under this group.
    pub fn bytes(&self) -> u64 {
        self.gate.units()
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
        let mut below = Held { from: self, end: Some(self), bytes: 0 };
        for group in self.path() {
            let fits = group.gate.charge(each, count);
            // What is too much below goes back; from the first group nothing does, however much was wanted.
            below.end = Some(group);
            below.bytes = (count - fits).saturating_mul(each);
            below.give_back();
            if fits == 0 {
                return 0;
            }
            count = fits;
        }
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
        let mut visit = Visit { list: &self.root().members, at: ptr::null() };
        while let Some(member) = visit.advance() {
            member.settle();
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

/// Room in the groups from one up to, and without, another. Dropped, it goes to whoever waits for it.
struct Held<'a, 'p, L: RawMutex, Z: Sleep> {
    from: &'a LimitGroup<'p, L, Z>,
    end: Option<&'a LimitGroup<'p, L, Z>>,
    bytes: u64,
}

impl<L: RawMutex, Z: Sleep> Held<'_, '_, L, Z> {
    fn give_back(&mut self) {
        let bytes = core::mem::take(&mut self.bytes);
        if bytes == 0 {
            return;
        }
        let mut next = Some(self.from);
        while let Some(group) = next {
            if self.end.is_some_and(|end| ptr::eq(group, end)) {
                break;
            }
            group.gate.refund(bytes);
            next = group.parent;
        }
    }
}

impl<L: RawMutex, Z: Sleep> Drop for Held<'_, '_, L, Z> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Counts the items of `S` in a [`LimitGroup`] and those it is in; or, without a group, does nothing.
///
/// It stands below a zone's own limit and above whatever makes the items. The zone [joins](Self::join)
/// the group once it has its place, so that other members can drain its caches.
pub struct Grouped<'p, S, L: RawMutex, Z: Sleep> {
    source: S,
    group: Option<&'p LimitGroup<'p, L, Z>>,
    member: Member,
    sleeps: AtomicU64,
}

// SAFETY: the member's links are touched under the lock of the tree only, and what it points to may be
// used from any thread, as `join` demands; the rest is as shared as its types.
unsafe impl<S: Send, L: RawMutex + Sync, Z: Sleep + Sync> Send for Grouped<'_, S, L, Z> {}
// SAFETY: as above.
unsafe impl<S: Sync, L: RawMutex + Sync, Z: Sleep + Sync> Sync for Grouped<'_, S, L, Z> {}

impl<'p, S, L: RawMutex, Z: Sleep> Grouped<'p, S, L, Z> {
    const_unless_modelled! {
        /// Counts the items of `source` in `group`, if there is one.
        pub const fn new(source: S, group: Option<&'p LimitGroup<'p, L, Z>>) -> Self {
            Self { source, group, member: Member::new(), sleeps: AtomicU64::new(0) }
        }
    }

    /// The source below.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// The group, if there is one.
    pub const fn group(&self) -> Option<&'p LimitGroup<'p, L, Z>> {
        self.group
    }

    /// Makes the zone known to its group: `settle(zone)` is called when other members are short of room,
    /// and is to give back what its caches hold if [`ItemSource::wanted`]. Without a group it does nothing.
    ///
    /// # Safety
    ///
    /// This value stays where it is, and `settle` may be called with `zone` on any thread that uses the
    /// group, until [`leave`](Self::leave) returned. It is called once.
    pub unsafe fn join(&self, zone: *const (), settle: unsafe fn(*const ())) {
        let Some(group) = self.group else { return };
        let mut list = group.root().members.lock();
        // SAFETY: the member is in no list, and in place as the caller promises.
        unsafe { list.add(&self.member, Settle { zone, settle }) };
    }

    /// Takes the zone out of its group, once nobody visits it any more; `relax` passes the time. A `settle`
    /// that ends up here waits for itself.
    pub fn leave(&self, relax: impl Fn()) {
        let Some(group) = self.group else { return };
        while !group.root().members.lock().remove(&self.member) {
            relax();
        }
    }

    /// Callers asleep for want of room in the group, or in one above it.
    pub fn sleepers(&self) -> u64 {
        self.group.map_or(0, |group| group.path().map(LimitGroup::sleepers).sum())
    }

    /// Room for one item, for a caller that waits as a task does: see [`Limited::place`], which comes
    /// first.
    ///
    /// [`Limited::place`]: crate::Limited::place
    ///
    /// # Errors
    ///
    /// [`AllocError::GroupLimit`] if there can never be so much room.
    pub async fn place(&self, flush: impl FnMut()) -> Result<GroupPlace<'_, 'p, L, Z>, AllocError>
    where
        S: ItemSource,
    {
        match self.group {
            None => Ok(GroupPlace(None)),
            Some(group) => {
                Ok(GroupPlace(Some(group.place(self.each(), &self.sleeps, flush).await?)))
            }
        }
    }

    /// What one item counts.
    fn each(&self) -> u64
    where
        S: ItemSource,
    {
        (self.source.layout().pad_to_align().size() as u64).max(1)
    }

    /// Gives room for so many items back when it is dropped.
    fn refund(&self, count: usize) -> Option<Held<'_, 'p, L, Z>>
    where
        S: ItemSource,
    {
        let group = self.group?;
        Some(Held { from: group, end: None, bytes: count as u64 * self.each() })
    }
}

/// Room for one item in a group. Dropped, it goes to the next caller.
#[must_use = "room that is not used goes back"]
pub struct GroupPlace<'a, 'p, L: RawMutex, Z: Sleep>(Option<Held<'a, 'p, L, Z>>);

impl<L: RawMutex, Z: Sleep> GroupPlace<'_, '_, L, Z> {
    /// The room is used: by an item that the caller took from the source below the group, past it. It
    /// comes back through the group.
    pub fn used(mut self) {
        if let Some(held) = &mut self.0 {
            held.bytes = 0;
        }
    }
}

// SAFETY: items pass through unchanged, and none is kept.
unsafe impl<S: ItemSource, L: RawMutex, Z: Sleep> ItemSource for Grouped<'_, S, L, Z> {
    fn layout(&self) -> Layout {
        self.source.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        let Some(group) = self.group else { return self.source.import(into, request) };
        let each = self.each();
        // A slice never has more elements than a u64 counts.
        let count = group.charge(each, into.len() as u64);
        if count == 0 {
            return Err(AllocError::GroupLimit);
        }
        let mut held = Held { from: group, end: None, bytes: count * each };
        // `count` is at most `into.len()`, so it fits.
        let imported = self.source.import(&mut into[..count as usize], request)?;
        held.bytes = (count - imported as u64) * each;
        Ok(imported)
    }

    unsafe fn release(&self, items: &[Item]) {
        // The refund comes after the release, as at a limit.
        let _refund = self.refund(items.len());
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.source.release(items) };
    }

    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        self.alloc_or_flush(request, &mut || {})
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        let Some(group) = self.group else { return self.source.alloc_or_flush(request, flush) };
        let mut held = group.enter(self.each(), request, &self.sleeps, flush)?;
        let item = self.source.alloc_or_flush(request, flush)?;
        held.bytes = 0;
        Ok(item)
    }

    unsafe fn discard(&self, item: Item) {
        let _refund = self.refund(1);
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.source.discard(item) };
    }

    fn wanted(&self) -> bool {
        self.group.is_some_and(LimitGroup::wanted) || self.source.wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        self.source.reclaim(mode);
    }

    fn visit_stats(&self, stats: &mut Stats) {
        self.source.visit_stats(stats);
        stats.sleeps += self.sleeps.load(Ordering::Relaxed);
    }

    fn prefork(&self) {
        if let Some(group) = self.group {
            group.prefork();
        }
        self.source.prefork();
    }

    unsafe fn postfork(&self, process: Process) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            self.source.postfork(process);
            if let Some(group) = self.group {
                group.postfork(process);
            }
        }
    }

    fn settle(&self) {
        self.source.settle();
    }
}

impl<S: core::fmt::Debug, L: RawMutex, Z: Sleep> core::fmt::Debug for Grouped<'_, S, L, Z> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Grouped")
            .field("group", &self.group)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl<L: RawMutex, Z: Sleep> core::fmt::Debug for GroupPlace<'_, '_, L, Z> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("GroupPlace")
    }
}

/// How a member is told to give back what is wanted.
#[derive(Clone, Copy)]
struct Settle {
    zone: *const (),
    settle: unsafe fn(*const ()),
}

/// A zone's place in the list of its tree's members.
struct Member(UnsafeCell<Links>);

struct Links {
    next: *const Member,
    previous: *const Member,
    /// Threads that look at it; while there are some it stays.
    visitors: usize,
    /// `Some` while it is in the list.
    settle: Option<Settle>,
}

impl Links {
    /// A visitor leaves: one who is not counted any more if it is the copy of a process that a member's hook
    /// has made.
    const fn uncount(&mut self) {
        self.visitors = self.visitors.saturating_sub(1);
    }
}

impl Member {
    const_unless_modelled! {
        const fn new() -> Self {
            let (next, previous) = (ptr::null(), ptr::null());
            Self(UnsafeCell::new(Links { next, previous, visitors: 0, settle: None }))
        }
    }
}

struct Members {
    first: *const Member,
    last: *const Member,
}

// SAFETY: members are reached under the lock or while counted in, and may be visited from any thread, as
// `Grouped::join` demands.
unsafe impl Send for Members {}

impl Members {
    /// # Safety
    ///
    /// The member is in no list, and stays where it is until `remove` returned `true`.
    unsafe fn add(&mut self, member: &Member, settle: Settle) {
        // SAFETY: links are touched under the lock that `&mut self` stands for; the last member is alive, as
        // all in the list.
        unsafe {
            let links = &mut *member.0.get();
            (links.previous, links.settle) = (self.last, Some(settle));
            match self.last.as_ref() {
                Some(last) => (*last.0.get()).next = member,
                None => self.first = member,
            }
        }
        self.last = member;
    }

    /// Takes a member off the list, unless it is visited just now. Returns whether it is off.
    fn remove(&mut self, member: &Member) -> bool {
        // SAFETY: as in `add`; a member whose `settle` is `Some` is in the list.
        unsafe {
            let links = &mut *member.0.get();
            if links.visitors != 0 {
                return false;
            }
            if links.settle.take().is_none() {
                return true;
            }
            match links.previous.as_ref() {
                Some(previous) => (*previous.0.get()).next = links.next,
                None => self.first = links.next,
            }
            match links.next.as_ref() {
                Some(next) => (*next.0.get()).previous = links.previous,
                None => self.last = links.previous,
            }
        }
        true
    }

    fn no_visitors(&mut self) {
        let mut at = self.first;
        // SAFETY: as in `add`.
        while let Some(member) = unsafe { at.as_ref() } {
            // SAFETY: as in `add`.
            let links = unsafe { &mut *member.0.get() };
            links.visitors = 0;
            at = links.next;
        }
    }
}

/// A walk through the members, counted into at most one. Counts itself out if a visit unwinds.
struct Visit<'a, L: RawMutex> {
    list: &'a Mutex<L, Members>,
    at: *const Member,
}

impl<L: RawMutex> Visit<'_, L> {
    /// Leaves the member it is at and enters the next.
    fn advance(&mut self) -> Option<Settle> {
        let list = self.list.lock();
        // SAFETY: links are only touched under the lock. The member we are counted into is still in the
        // list, so it and its successor are alive; and the successor stays once counted into.
        unsafe {
            let next = match self.at.as_ref() {
                Some(member) => {
                    let links = &mut *member.0.get();
                    links.uncount();
                    links.next
                }
                None => list.first,
            };
            self.at = next;
            let links = &mut *next.as_ref()?.0.get();
            links.visitors += 1;
            links.settle
        }
    }
}

impl<L: RawMutex> Drop for Visit<'_, L> {
    fn drop(&mut self) {
        let _list = self.list.lock();
        // SAFETY: as in `advance`.
        if let Some(member) = unsafe { self.at.as_ref() } {
            // SAFETY: under the lock.
            unsafe { (*member.0.get()).uncount() };
        }
    }
}

impl Settle {
    fn settle(self) {
        // SAFETY: the member is counted into, so it has not left, and until then this may be called
        // (see `Grouped::join`).
        unsafe { (self.settle)(self.zone) }
    }
}
