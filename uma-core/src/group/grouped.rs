//! A zone's layer that counts in a group.

use core::alloc::Layout;
use core::mem::MaybeUninit;

use lock_api::RawMutex;

use super::members::{Member, Settle};
use super::{Held, LimitGroup};
use crate::source::Taken;
use crate::sync::{AtomicU64, Ordering, const_unless_modelled};
use crate::{AllocError, Item, ItemSource, Process, Reclaim, Request, Sleep, Stats};

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
        let root = group.root();
        group.path().for_each(|group| group.outside.join());
        let mut list = root.members.lock();
        // SAFETY: the member is in no list, and in place as the caller promises.
        unsafe { list.add(&self.member, Settle::new(zone, settle)) };
    }

    /// Takes the zone out of its group, once nobody visits it any more, nor has one of the group's locks of which a
    /// fork knows by this zone; `relax` passes the time. A `settle` that ends up here waits for itself. Until this
    /// returned, forks must know of the zone.
    pub fn leave(&self, relax: impl Fn()) {
        let Some(group) = self.group else { return };
        let root = group.root();
        let was_there = loop {
            let removed = root.members.lock().remove(&self.member);
            match removed {
                Some(was_there) => break was_there,
                None => relax(),
            }
        };
        if was_there {
            group.path().for_each(|group| group.outside.leave(&relax));
        }
    }

    /// Says that so many items will never come back: their zone has ended, and nobody else takes them. Their
    /// memory is still in use, so they still count; see [`LimitGroup::lost_bytes`].
    pub fn lose(&self, items: u64)
    where
        S: ItemSource,
    {
        if let Some(group) = self.group {
            group.lose(items.saturating_mul(self.each()));
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
        // SAFETY: the source has initialised so many, and they are not handed out before the end.
        let taken = unsafe { Taken::new(self, &into[..imported]) };
        drop(held);
        taken.hand_out();
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
