//! Segments of one size as items, for a quantum cache to stand on.
//!
//! Caches are not of this crate: any cache over an `ItemSource` will do, that of `uma-cache` for one.
//!
//! ```text
//!   BucketCache<QuantumSource>   of 1 quantum       per-CPU buckets
//!   BucketCache<QuantumSource>   of 2 quanta
//!               |  items, many under one lock
//!             Arena  <------------------------ larger requests, and those with constraints
//! ```
//!
//! An item is a pointer, and an identifier is not. Two kinds of sources tell them apart: items of one
//! for memory are the memory; items of one for identifiers have a size of 0, and their address is the
//! identifier plus one, since no item is at address 0.

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::num::NonZeroUsize;
use core::ptr::NonNull;

use uma_core::{AllocError, Item, ItemSource, Metadata, RawMutex, Request, Sleep, Stats};

use crate::fit::Want;
use crate::{Arena, Constraints, Import, Policy, VmemError, VmemFault};

/// Segments of one size of an arena, as items.
pub struct QuantumSource<'a, L: RawMutex, M: Metadata, W: Sleep, P: Import> {
    arena: &'a Arena<L, M, W, P>,
    want: Want,
    layout: Layout,
    /// For memory: a pointer with the provenance of all of it.
    memory: Option<Item>,
}

/// Most segments that are allocated under one lock.
const BATCH: usize = 32;

impl<'a, L: RawMutex, M: Metadata, W: Sleep, P: Import> QuantumSource<'a, L, M, W, P> {
    /// Segments of `quanta` times the arena's quantum that are not memory. The items have a size of 0;
    /// [`addr_of`](Self::addr_of) says what they stand for. The last address, `usize::MAX`, is never one.
    ///
    /// # Errors
    ///
    /// [`ZeroSize`](VmemFault::ZeroSize), or [`Overflow`](VmemFault::Overflow).
    pub fn identifiers(arena: &'a Arena<L, M, W, P>, quanta: usize) -> Result<Self, VmemError> {
        let size = Self::size(arena, quanta)?;
        let want = arena.want(size, &Constraints::new(), Policy::Instant)?;
        let want = want.within(0, usize::MAX - 1);
        Ok(Self { arena, want, layout: Layout::new::<()>(), memory: None })
    }

    /// Segments of `quanta` times the arena's quantum that are memory: the items are the segments,
    /// aligned to the quantum.
    ///
    /// # Errors
    ///
    /// [`ZeroSize`](VmemFault::ZeroSize), or [`Overflow`](VmemFault::Overflow).
    ///
    /// # Safety
    ///
    /// Every address that the arena has, or comes to have, is memory that is valid for reads and writes
    /// through pointers with the provenance of `memory` for as long as it is allocated from the arena.
    /// No address is in two of its spans, and nobody frees what they did not allocate.
    pub unsafe fn memory(
        arena: &'a Arena<L, M, W, P>,
        quanta: usize,
        memory: NonNull<u8>,
    ) -> Result<Self, VmemError> {
        let size = Self::size(arena, quanta)?;
        let want = arena.want(size, &Constraints::new(), Policy::Instant)?;
        let layout = Layout::from_size_align(size, arena.quantum())
            .map_err(|_| arena.error(VmemFault::Overflow(size)))?;
        // No item is at address 0.
        Ok(Self {
            arena,
            want: want.within(1, usize::MAX),
            layout,
            memory: Some(Item::new(memory)),
        })
    }

    fn size(arena: &Arena<L, M, W, P>, quanta: usize) -> Result<usize, VmemError> {
        arena
            .quantum()
            .checked_mul(quanta)
            .ok_or_else(|| arena.error(VmemFault::Overflow(usize::MAX)))
    }

    /// The arena.
    pub const fn arena(&self) -> &'a Arena<L, M, W, P> {
        self.arena
    }

    /// The first address of the segment that an item of this source stands for.
    pub fn addr_of(&self, item: Item) -> usize {
        match self.memory {
            Some(_) => item.addr(),
            None => item.addr() - 1,
        }
    }

    /// The item that stands for the segment at `addr`: the inverse of [`addr_of`](Self::addr_of).
    ///
    /// `None` for an address that has no item: 0 of memory, `usize::MAX` of identifiers.
    pub fn item_at(&self, addr: usize) -> Option<Item> {
        Some(Item::new(match self.memory {
            Some(memory) => memory.as_non_null().with_addr(NonZeroUsize::new(addr)?),
            None => NonNull::without_provenance(NonZeroUsize::new(addr.checked_add(1)?)?),
        }))
    }

    fn alloc_one(
        &self,
        request: Request,
        flush: Option<&mut dyn FnMut()>,
    ) -> Result<Item, AllocError> {
        let at = self.arena.alloc_wanted(&self.want, request, flush).map_err(reason)?;
        // The bounds of `want` leave out the addresses that have no item.
        self.item_at(at).ok_or(AllocError::Unsupported)
    }
}

/// Items that go back, all of them also if the parent of the arena unwinds.
struct Rest<'s, 'a, L: RawMutex, M: Metadata, W: Sleep, P: Import>(
    &'s QuantumSource<'a, L, M, W, P>,
    &'s [Item],
);

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Rest<'_, '_, L, M, W, P> {
    /// Returns what was wrong with the first that could not be freed.
    fn free(&mut self) -> Option<VmemError> {
        let Self(source, items) = self;
        let mut misuse = None;
        while let Some((&item, rest)) = items.split_first() {
            *items = rest;
            match source.arena.free(source.addr_of(item), source.want.size) {
                // What the parent does not take back is its affair: the segment is free.
                Ok(()) | Err(VmemError { fault: VmemFault::NotTaken { .. }, .. }) => {}
                Err(error) => misuse = misuse.or(Some(error)),
            }
        }
        misuse
    }
}

impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> Drop for Rest<'_, '_, L, M, W, P> {
    fn drop(&mut self) {
        // After a panic; a second one aborts.
        self.free();
    }
}

/// Why, in the words of an item source.
fn reason(error: VmemError) -> AllocError {
    match error.fault {
        VmemFault::Exhausted { .. } => AllocError::Limit,
        VmemFault::TimedOut { .. } => AllocError::TimedOut,
        VmemFault::Metadata => AllocError::Metadata,
        _ => AllocError::Unsupported,
    }
}

// SAFETY: a segment is allocated once until it is freed, so items do not overlap; that they are memory is
// the promise of whoever called `memory`, and items of size 0 need none. Nothing here unwinds between
// allocating and handing out. Waiting is done by the arena, and both methods about it lead there.
unsafe impl<L: RawMutex, M: Metadata, W: Sleep, P: Import> ItemSource
    for QuantumSource<'_, L, M, W, P>
{
    fn layout(&self) -> Layout {
        self.layout
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        let mut count = 0;
        let mut addresses = [0; BATCH];
        while count < into.len() {
            let batch = &mut addresses[..BATCH.min(into.len() - count)];
            let got = match self.arena.take_many(&self.want, batch) {
                Ok(got) => got,
                Err(error) if count == 0 => return Err(reason(error)),
                Err(_) => break,
            };
            for &at in &addresses[..got] {
                if let Some(item) = self.item_at(at) {
                    into[count].write(item);
                    count += 1;
                }
            }
            if got == 0 {
                break;
            }
        }
        if count == 0 {
            into[0].write(self.alloc_one(request.without_waiting(), None)?);
            count = 1;
        }
        Ok(count)
    }

    /// # Panics
    ///
    /// If an item was freed before, as a keg does: when the others are free.
    unsafe fn release(&self, items: &[Item]) {
        let misuse = Rest(self, items).free();
        if let Some(error) = misuse {
            panic!("{error}");
        }
    }

    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        self.alloc_one(request, None)
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        self.alloc_one(request, Some(flush))
    }

    fn wanted(&self) -> bool {
        self.arena.waiting() != 0
    }

    fn visit_stats(&self, stats: &mut Stats) {
        stats.size = self.want.size;
        stats.align = self.arena.quantum();
    }
}
