//! What a request asks of a place, and where in a free segment it is met.

use crate::VmemFault;

/// Which of the free segments that fit is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// One from a list of segments that are certainly large enough, in a time that does not depend on
    /// how many there are; only if there is none, the first that fits from the list below. The default,
    /// as in Solaris (`VM_INSTANTFIT` of NetBSD).
    #[default]
    Instant,
    /// The smallest that fits (`VM_BESTFIT`). Looks at every segment of one list, unless one fits
    /// exactly.
    Best,
    /// The first that fits in the order of the free lists, from the list of the smallest that could
    /// (`VM_FIRSTFIT` of Solaris). That is not the lowest address.
    First,
    /// The next one in the order of addresses after the last that was allocated by this policy, and
    /// from the beginning again at the end (`VM_NEXTFIT`): an address that was just freed comes last.
    /// Spans follow one another in the order in which they were added. Looks at every segment on
    /// its way.
    Next,
}

/// Where an allocation may lie: the further arguments of `vmem_xalloc`.
///
/// ```text
///   |        .        |        .        |        multiples of `align`
///   |--phase-->[ size )                          begins `phase` after one of them
///   min <= first address        last address <= max
///   no multiple of `nocross` lies between the first and the last address
/// ```
///
/// ```
/// use uma_vmem::Constraints;
/// // Below 16 MiB, and not across 64 KiB: a buffer for old DMA hardware.
/// let dma = Constraints::new().nocross(0x1_0000).range(0, 0xff_ffff);
/// # let _ = dma;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constraints {
    align: usize,
    phase: usize,
    nocross: usize,
    min: usize,
    max: usize,
}

impl Constraints {
    /// None.
    pub const fn new() -> Self {
        Self { align: 0, phase: 0, nocross: 0, min: 0, max: usize::MAX }
    }

    /// Begins at a multiple of `align`: a power of two, not less than the quantum; 0 stands for the
    /// quantum.
    pub const fn align(self, align: usize) -> Self {
        Self { align, ..self }
    }

    /// Begins `phase` after such a multiple: a multiple of the quantum, below the alignment.
    pub const fn phase(self, phase: usize) -> Self {
        Self { phase, ..self }
    }

    /// Does not cross a multiple of `nocross`: a power of two, not less than the quantum; 0 for none.
    pub const fn nocross(self, nocross: usize) -> Self {
        Self { nocross, ..self }
    }

    /// Has no address below `min` and none above `max`. Both may be used themselves, as in NetBSD; in
    /// Solaris, `maxaddr` may not.
    pub const fn range(self, min: usize, max: usize) -> Self {
        Self { min, max, ..self }
    }
}

impl Default for Constraints {
    fn default() -> Self {
        Self::new()
    }
}

/// A request that was found to make sense.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    /// As asked for, and rounded up to the quantum.
    pub(crate) size: usize,
    pub(crate) real: usize,
    pub(crate) align: usize,
    pub(crate) phase: usize,
    nocross: usize,
    min: usize,
    max: usize,
    /// A segment of so much more than `real` has a place that is aligned.
    pub(crate) slack: usize,
    /// Whether a span from elsewhere can serve it: it is not bound to certain addresses.
    pub(crate) importable: bool,
    pub(crate) policy: Policy,
}

/// The smallest address from `from` on that is `phase` after a multiple of `align`.
fn phase_up(from: usize, align: usize, phase: usize) -> Option<usize> {
    from.checked_add(phase.wrapping_sub(from) & (align - 1))
}

/// `size` rounded up to a multiple of the quantum.
pub(crate) fn round_up(size: usize, quantum: usize) -> Option<usize> {
    // A power of two, by the configuration.
    size.checked_add(quantum - 1).map(|size| size & !(quantum - 1))
}

impl Want {
    pub(crate) fn new(
        size: usize,
        constraints: &Constraints,
        policy: Policy,
        quantum: usize,
    ) -> Result<Self, VmemFault> {
        let &Constraints { align, phase, nocross, min, max } = constraints;
        if size == 0 {
            return Err(VmemFault::ZeroSize);
        }
        let real = round_up(size, quantum).ok_or(VmemFault::Overflow(size))?;
        let align = if align == 0 { quantum } else { align };
        if !align.is_power_of_two() || align < quantum {
            return Err(VmemFault::BadAlign(align));
        }
        if phase >= align || phase & (quantum - 1) != 0 {
            return Err(VmemFault::BadPhase(phase));
        }
        if nocross != 0 {
            if !nocross.is_power_of_two() || nocross < quantum {
                return Err(VmemFault::BadNocross(nocross));
            }
            // Both are multiples of the quantum, so that the exact size says the same as the rounded.
            if align > nocross || phase.checked_add(real).is_none_or(|end| end > nocross) {
                return Err(VmemFault::Overconstrained);
            }
        }
        if min > max {
            return Err(VmemFault::BadRange { min, max });
        }
        let importable = nocross == 0 && min == 0 && max == usize::MAX;
        let slack = align - quantum;
        Ok(Self { size, real, align, phase, nocross, min, max, slack, importable, policy })
    }

    /// The same, but never at an address above `max` or below `min`; imports regardless.
    pub(crate) const fn within(self, min: usize, max: usize) -> Self {
        Self { min, max, ..self }
    }

    /// The first place from `from` on in a free segment from `start` to `last`.
    pub(crate) fn fit(&self, start: usize, last: usize, from: usize) -> Option<usize> {
        let at = phase_up(start.max(self.min).max(from), self.align, self.phase)?;
        let mut at = at;
        let mut end = at.checked_add(self.real - 1)?;
        if self.nocross != 0 && (at ^ end) & !(self.nocross - 1) != 0 {
            // What begins before the boundary crosses it, however it is aligned.
            let boundary = (at | (self.nocross - 1)).checked_add(1)?;
            at = phase_up(boundary, self.align, self.phase)?;
            end = at.checked_add(self.real - 1)?;
        }
        // `size` is at most `real`, so this does not overflow either.
        (end <= last && at + (self.size - 1) <= self.max).then_some(at)
    }
}
