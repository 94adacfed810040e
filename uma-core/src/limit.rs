//! At most N items, and callers that wait for one.
//!
//! How room is counted, and how callers wait for it in order of arrival, is told in `gate`. Here one unit
//! is one item that is out of the source below, in use or in a cache above.
//!
//! While anybody sleeps [`ItemSource::wanted`] is true and caches above pass frees on. The sleeper's
//! `flush` runs after it enlisted; a free that went into a cache before the flush is found by the flush,
//! one that comes later sees `wanted`.

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::num::NonZeroU64;

use lock_api::RawMutex;

use crate::gate::{Gate, UNLIMITED};
use crate::source::Taken;
use crate::sync::{AtomicU64, Ordering, const_unless_modelled};
use crate::{AllocError, Item, ItemSource, Process, Reclaim, Request, Sleep, Stats};

/// Lets at most a given number of items out of `S` at once. Callers beyond that fail, or wait for
/// their turn, by `Z`.
///
/// It counts every item that is out, also those in caches above it. A cache above gives them back
/// before anybody fails or sleeps (see [`ItemSource::alloc_or_flush`]), so the limit is exact in both
/// directions: never more than N, and N can always be in use.
///
/// That is so with one cache above the limit. If several stacks share a limit by reference and have
/// caches of their own, each flushes only its own, and what the others hold is out of its reach. For
/// zones that share a limit there are [groups](crate::LimitGroup).
///
/// Waiting callers are served strictly in the order in which they joined the queue, threads and
/// [tasks](Self::place) alike, each by exactly one wake-up.
///
/// An item that is freed twice counts as two that came back, although the source below refuses the second:
/// after such a misuse one more than the limit may be out.
///
/// Without a limit it only counts, and the count costs one atomic addition per batch.
pub struct Limited<S, L: RawMutex, Z: Sleep> {
    source: S,
    gate: Gate<L, Z>,
    sleeps: AtomicU64,
}

impl<S, L: RawMutex, Z: Sleep> Limited<S, L, Z> {
    const_unless_modelled! {
        /// Puts a limit of `max` items, or none, around `source`.
        pub const fn new(source: S, max: Option<NonZeroU64>, sleep: Z) -> Self {
            Self {
                source,
                gate: Gate::new(Self::bound(max), sleep),
                sleeps: AtomicU64::new(0),
            }
        }
    }

    const fn bound(max: Option<NonZeroU64>) -> u64 {
        match max {
            Some(max) if max.get() < UNLIMITED => max.get(),
            _ => UNLIMITED,
        }
    }

    /// The source below.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// The limit in items, if there is one (`uma_zone_get_max`).
    pub fn max(&self) -> Option<NonZeroU64> {
        let max = self.gate.max();
        if max == UNLIMITED { None } else { NonZeroU64::new(max) }
    }

    /// Changes the limit (`uma_zone_set_max`), at any time. Raising it serves waiting callers at
    /// once. Lowering it below the number of items that are out takes none away: nothing more is
    /// handed out until enough came back. Until then [`wanted`](ItemSource::wanted) is true; a cache above is
    /// to be told to [`settle`](ItemSource::settle) after this, or it goes on handing out what it holds.
    ///
    /// The number is taken as it is. FreeBSD once rounded it to whole slabs, down to none, which meant no
    /// limit at all.
    pub fn set_max(&self, max: Option<NonZeroU64>) {
        self.gate.set_max(Self::bound(max), ());
    }

    /// Items that are out, in use or in caches above.
    pub fn items(&self) -> u64 {
        self.gate.units()
    }

    /// Callers asleep at the limit just now (`uma_zone_exhausted` asks whether there are any).
    pub fn sleepers(&self) -> u64 {
        self.gate.sleepers()
    }

    /// A place for one item, for a caller that waits as a task does: the future ends when it is this
    /// caller's turn and there is room. `flush` runs once, when the caller has joined the queue, and gives
    /// back what caches above hold (their [`settle`](ItemSource::settle) does, now that somebody waits).
    ///
    /// The future may be dropped at any time: its place in the queue, or the room it was granted, goes to
    /// the next. In the copy of a process made by fork(2) it must be polled again, and joins the queue anew.
    ///
    /// # Errors
    ///
    /// [`AllocError::Limit`] if a million callers wait already.
    pub async fn place(&self, flush: impl FnMut()) -> Result<LimitPlace<'_, S, L, Z>, AllocError> {
        if self.gate.charge(1, 1) == 0 {
            self.sleeps.fetch_add(1, Ordering::Relaxed);
            self.gate.reserve(1, flush).await?;
        }
        Ok(LimitPlace(Charged { limit: self, count: 1 }))
    }
}

/// Room for one item at a limit. Dropped, it goes to the next caller.
#[must_use = "room that is not used goes back"]
pub struct LimitPlace<'a, S, L: RawMutex, Z: Sleep>(Charged<'a, S, L, Z>);

impl<S, L: RawMutex, Z: Sleep> LimitPlace<'_, S, L, Z> {
    /// The room is used: by an item that the caller took from the source below the limit, past it. It
    /// comes back through the limit.
    pub fn used(self) {
        self.0.settle(1);
    }
}

/// Gives room back if the source below fails or unwinds.
struct Charged<'a, S, L: RawMutex, Z: Sleep> {
    limit: &'a Limited<S, L, Z>,
    count: u64,
}

impl<S, L: RawMutex, Z: Sleep> Charged<'_, S, L, Z> {
    /// Keeps `used` of the room; the rest goes back.
    fn settle(mut self, used: u64) {
        self.count -= used;
    }
}

impl<S, L: RawMutex, Z: Sleep> Drop for Charged<'_, S, L, Z> {
    fn drop(&mut self) {
        if self.count != 0 {
            self.limit.gate.refund(self.count, ());
        }
    }
}

// SAFETY: items pass through unchanged, and none is kept.
unsafe impl<S: ItemSource, L: RawMutex, Z: Sleep> ItemSource for Limited<S, L, Z> {
    fn layout(&self) -> Layout {
        self.source.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        // A slice never has more elements than a u64 counts.
        let count = self.gate.charge(1, into.len() as u64);
        if count == 0 {
            return Err(AllocError::Limit);
        }
        let charged = Charged { limit: self, count };
        // `count` is at most `into.len()`, so it fits.
        let imported = self.source.import(&mut into[..count as usize], request)?;
        // SAFETY: the source has initialised so many, and they are not handed out before the end.
        let taken = unsafe { Taken::new(self, &into[..imported]) };
        charged.settle(imported as u64);
        taken.hand_out();
        Ok(imported)
    }

    unsafe fn release(&self, items: &[Item]) {
        // The refund comes after the release, also if that unwinds, so that whoever gets the room
        // finds the item.
        let _refund = Charged { limit: self, count: items.len() as u64 };
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
        if self.gate.charge(1, 1) == 0 {
            if Z::CAN_SLEEP && request.may_wait() {
                self.gate.wait(1, request.deadline(), &self.sleeps, flush)?;
            } else {
                flush();
                if self.gate.charge(1, 1) == 0 {
                    return Err(AllocError::Limit);
                }
            }
        }
        let charged = Charged { limit: self, count: 1 };
        let item = self.source.alloc_or_flush(request, flush)?;
        charged.settle(1);
        Ok(item)
    }

    unsafe fn discard(&self, item: Item) {
        let _refund = Charged { limit: self, count: 1 };
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.source.discard(item) };
    }

    fn wanted(&self) -> bool {
        self.gate.wanted() || self.source.wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        self.source.reclaim(mode);
    }

    fn visit_stats(&self, stats: &mut Stats) {
        self.source.visit_stats(stats);
        stats.limit = self.max().map_or(0, NonZeroU64::get);
        stats.sleeps += self.sleeps.load(Ordering::Relaxed);
        stats.sleepers = self.sleepers();
    }

    fn prefork(&self) {
        self.gate.hold();
        self.source.prefork();
    }

    unsafe fn postfork(&self, process: Process) {
        // SAFETY: the caller's duty is passed on unchanged, who also called `prefork`, which took the
        // lock.
        unsafe {
            self.source.postfork(process);
            self.gate.let_go(process);
        }
    }

    fn settle(&self) {
        self.source.settle();
    }
}

impl<S: core::fmt::Debug, L: RawMutex, Z: Sleep> core::fmt::Debug for Limited<S, L, Z> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Limited")
            .field("items", &self.items())
            .field("max", &self.max())
            .field("sleepers", &self.sleepers())
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl<S, L: RawMutex, Z: Sleep> core::fmt::Debug for LimitPlace<'_, S, L, Z> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("LimitPlace")
    }
}
