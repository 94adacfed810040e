//! The allocated segments by address: a hash table that grows by one chain at a time.
//!
//! It is linear hashing. With `n` chains, of which `p` is the largest power of two not above `n`, a
//! segment is in chain `hash mod 2p`, or in `hash mod p` if there is no such chain yet. Growing by one
//! splits one chain; nothing is ever moved as a whole, so no insertion takes longer because the table
//! is large. The chains' heads lie in pieces that double in size and stay where they are:
//!
//! ```text
//!   first: 16 | piece 0: 16 | piece 1: 32   | piece 2: 64 ...
//!     in the   \_ from Metadata, each got before it is needed and not
//!     arena       written to before its chains exist
//! ```
//!
//! If there is no memory for a piece, the chains get longer, and it is asked for again later. With few
//! segments left the table shrinks, as it grew.

use core::alloc::Layout;
use core::ptr::NonNull;

use crate::tag::{Memory, Seg};

const FIRST: usize = 16;
/// More than any memory holds chains.
const PIECES: usize = 32;

type Head = Option<Seg>;

pub(crate) struct Table {
    first: [Head; FIRST],
    /// The first `got` of them are there.
    pieces: [Option<NonNull<Head>>; PIECES],
    got: usize,
    /// Chains.
    chains: usize,
    /// Segments.
    count: usize,
    /// After a piece could not be had: how many segments there must be to ask again.
    ask_at: usize,
    bytes: usize,
    /// Addresses are multiples of 2 to the power of this.
    shift: u32,
}

/// Spreads the bits of an address. The lower ones decide.
pub(crate) const fn scatter(value: usize) -> usize {
    // The golden ratio; on smaller machines its lower half serves as well.
    let product = value.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize);
    product ^ (product >> (usize::BITS / 2))
}

const fn floor_power(value: usize) -> usize {
    1 << value.ilog2()
}

/// The piece that a chain's head lies in, and where. Not for the first ones.
const fn place(chain: usize) -> (usize, usize) {
    let start = floor_power(chain);
    ((start / FIRST).ilog2() as usize, chain - start)
}

fn piece_layout(piece: usize) -> Option<Layout> {
    // `PIECES` keeps the shift in bounds on machines of 64 bits; on smaller ones it is checked here.
    let heads = FIRST.checked_mul(1usize.checked_shl(piece as u32)?)?;
    Layout::array::<Head>(heads).ok()
}

impl Table {
    pub(crate) const fn new(quantum: usize) -> Self {
        Self {
            first: [None; FIRST],
            pieces: [None; PIECES],
            got: 0,
            chains: FIRST,
            count: 0,
            ask_at: 0,
            bytes: 0,
            shift: quantum.trailing_zeros(),
        }
    }

    /// Segments in it.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Bytes of its pieces.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn chain_of(&self, address: usize) -> usize {
        let hash = scatter(address >> self.shift);
        let half = floor_power(self.chains);
        let chain = hash & (2 * half - 1);
        if chain < self.chains { chain } else { hash & (half - 1) }
    }

    fn head(&mut self, chain: usize) -> &mut Head {
        if chain < FIRST {
            return &mut self.first[chain];
        }
        let (piece, at) = place(chain);
        match self.pieces[piece] {
            // SAFETY: the piece has room for as many heads as its first chain has number, which is
            // more than `at`. The callers pass chains below `chains`, whose heads `grow` has
            // written; pieces of such chains are not let go of.
            Some(heads) => unsafe { heads.add(at).as_mut() },
            None => unreachable!("a chain exists only after its piece"),
        }
    }

    pub(crate) fn find(&mut self, address: usize) -> Option<Seg> {
        let chain = self.chain_of(address);
        let mut at = *self.head(chain);
        while let Some(seg) = at {
            if seg.start.get() == address {
                return Some(seg);
            }
            at = seg.right.get();
        }
        None
    }

    fn push(&mut self, seg: Seg) {
        let chain = self.chain_of(seg.start.get());
        let head = self.head(chain);
        seg.right.set(*head);
        *head = Some(seg);
    }

    pub(crate) fn insert(&mut self, seg: Seg) {
        self.push(seg);
        self.count += 1;
        // Two steps, so that it catches up after it could not grow for a while.
        for _ in 0..2 {
            if self.count > self.chains {
                self.grow();
            }
        }
    }

    /// Takes a segment out that is in it.
    pub(crate) fn remove(&mut self, seg: Seg) {
        let chain = self.chain_of(seg.start.get());
        let head = self.head(chain);
        if *head == Some(seg) {
            *head = seg.right.get();
        } else {
            let mut at = *head;
            while let Some(other) = at {
                at = other.right.get();
                if at == Some(seg) {
                    other.right.set(seg.right.get());
                    break;
                }
            }
        }
        self.count -= 1;
        // Four steps keep up with a count that goes down by one.
        for _ in 0..5 {
            if self.count < self.chains / 4 {
                self.shrink();
            }
        }
    }

    /// Splits one chain in two, if there is a place for the new one's head.
    fn grow(&mut self) {
        let new = self.chains;
        let (piece, at) = place(new);
        let Some(heads) = self.pieces.get(piece).copied().flatten() else { return };
        // SAFETY: as in `head`; the memory is ours to write.
        unsafe { heads.add(at).write(None) };
        let mut rest = self.head(new - floor_power(new)).take();
        self.chains += 1;
        while let Some(seg) = rest {
            rest = seg.right.get();
            self.push(seg);
        }
    }

    /// Puts the last chain back into the one that it was split off.
    fn shrink(&mut self) {
        if self.chains == FIRST {
            return;
        }
        let mut rest = self.head(self.chains - 1).take();
        self.chains -= 1;
        while let Some(seg) = rest {
            rest = seg.right.get();
            self.push(seg);
        }
    }

    /// The piece to get now, if one is needed or soon will be.
    pub(crate) fn next_piece(&self) -> Option<Layout> {
        let (piece, _) = place(self.chains);
        let needed = self.count + FIRST / 2 >= self.chains && self.count >= self.ask_at;
        if !needed || piece != self.got || piece == PIECES {
            return None;
        }
        piece_layout(piece)
    }

    /// Takes a piece in, or hands it back if it is not needed any more.
    ///
    /// # Safety
    ///
    /// The memory is the table's alone from here on, has the layout that `next_piece` returned at some
    /// time, and is valid for writes.
    pub(crate) unsafe fn add_piece(&mut self, memory: Memory) -> Option<Memory> {
        if self.next_piece() != Some(memory.layout) {
            return Some(memory);
        }
        self.bytes += memory.layout.size();
        self.pieces[self.got] = Some(memory.at.cast());
        self.got += 1;
        None
    }

    /// There was no memory for a piece.
    pub(crate) fn no_piece(&mut self) {
        self.ask_at = self.count + self.count / 8 + 1;
    }

    /// A piece that holds no chain any more, if the table is far from needing it.
    pub(crate) fn surplus(&mut self) -> Option<Memory> {
        if self.count > self.chains / 2 {
            return None;
        }
        self.ask_at = 0;
        let (piece, at) = place(self.chains);
        let used = if at == 0 { piece } else { piece + 1 };
        if self.got > used { self.retire() } else { None }
    }

    /// Any piece: for the end of the arena.
    ///
    /// # Safety
    ///
    /// No other method but this one is called afterwards.
    pub(crate) unsafe fn dismantle(&mut self) -> Option<Memory> {
        self.retire()
    }

    /// Lets go of the last piece.
    fn retire(&mut self) -> Option<Memory> {
        let last = self.got.checked_sub(1)?;
        let layout = piece_layout(last)?;
        let heads = self.pieces[last].take()?;
        self.got = last;
        self.bytes -= layout.size();
        Some(Memory { at: heads.cast(), layout })
    }
}
