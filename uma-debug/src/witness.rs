//! Who did something, and where: what is noted of allocations and frees.

use core::fmt;

use uma_core::Name;

use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::{Report, Verdict};

/// Return addresses that are kept of one call.
pub const FRAMES: usize = 16;

/// What checks need from their surroundings: who is calling, whose an address is, and whom to tell.
///
/// Everything but [`misuse`](Self::misuse) may be left out; then reports say less.
pub trait Witness {
    /// A number for the calling thread, or 0.
    fn thread(&self) -> u64 {
        0
    }

    /// Writes the return addresses of the calls that led here, innermost first, and returns how many.
    fn trace(&self, frames: &mut [usize; FRAMES]) -> usize {
        let _ = frames;
        0
    }

    /// Writes what is known of a return address: on one line, or several that are indented.
    ///
    /// # Errors
    ///
    /// As the formatter.
    fn show_frame(&self, frame: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "      {frame:#x}")
    }

    /// The zone, other than the one that asks, of which an item in use contains this address.
    fn owner(&self, address: usize) -> Option<Name> {
        let _ = address;
        None
    }

    /// Takes notice of misuse, and says how to go on. Called without a lock, on the thread that
    /// found it.
    fn misuse(&self, report: &Report<'_>) -> Verdict;
}

impl<W: Witness + ?Sized> Witness for &W {
    fn thread(&self) -> u64 {
        (**self).thread()
    }

    fn trace(&self, frames: &mut [usize; FRAMES]) -> usize {
        (**self).trace(frames)
    }

    fn show_frame(&self, frame: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).show_frame(frame, f)
    }

    fn owner(&self, address: usize) -> Option<Name> {
        (**self).owner(address)
    }

    fn misuse(&self, report: &Report<'_>) -> Verdict {
        (**self).misuse(report)
    }
}

/// Who called, and from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    thread: u64,
    len: usize,
    frames: [usize; FRAMES],
}

impl Trace {
    pub(crate) const NONE: Self = Self { thread: 0, len: 0, frames: [0; FRAMES] };

    /// The calling thread, here.
    #[inline(never)]
    pub(crate) fn here(witness: &(impl Witness + ?Sized)) -> Self {
        let mut trace = Self { thread: witness.thread(), ..Self::NONE };
        trace.len = witness.trace(&mut trace.frames).min(FRAMES);
        trace
    }

    /// The number of the thread, or 0 if it is not known.
    pub const fn thread(&self) -> u64 {
        self.thread
    }

    /// The return addresses, innermost first.
    pub fn frames(&self) -> &[usize] {
        &self.frames[..self.len]
    }

    /// Whether anything is known.
    pub const fn is_known(&self) -> bool {
        self.thread != 0 || self.len != 0
    }
}

/// A trace in memory that several threads may look at. What is read while another thread writes is a mix of
/// both, which a report can bear.
pub(crate) struct Kept {
    thread: AtomicU64,
    len: AtomicUsize,
    frames: [AtomicUsize; FRAMES],
}

impl Kept {
    pub(crate) const fn new() -> Self {
        Self {
            thread: AtomicU64::new(0),
            len: AtomicUsize::new(0),
            frames: [const { AtomicUsize::new(0) }; FRAMES],
        }
    }

    pub(crate) fn set(&self, trace: &Trace) {
        self.thread.store(trace.thread, Ordering::Relaxed);
        self.len.store(trace.len, Ordering::Relaxed);
        for (kept, &frame) in self.frames.iter().zip(trace.frames()) {
            kept.store(frame, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> Trace {
        let mut trace = Trace::NONE;
        trace.thread = self.thread.load(Ordering::Relaxed);
        trace.len = self.len.load(Ordering::Relaxed).min(FRAMES);
        for (frame, kept) in trace.frames.iter_mut().zip(&self.frames).take(trace.len) {
            *frame = kept.load(Ordering::Relaxed);
        }
        trace
    }
}
