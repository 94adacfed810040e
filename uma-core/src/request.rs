//! What a caller asks for beside the item itself.

use core::time::Duration;

use crate::Sleep;

/// A point in time, in nanoseconds on the clock of the zone's [`Sleep`](crate::Sleep).
///
/// Of a time from now [`after`](Self::after) makes one; for the clock of a process there is
/// `uma::Park::deadline_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// No deadline.
    pub const NEVER: Self = Self(u64::MAX);

    /// The given number of nanoseconds on the clock of the zone's [`Sleep`](crate::Sleep).
    pub const fn at(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// The point that is `time` from now, on the clock of `sleep`. On one that stands still, as that of
    /// [`NoSleep`](crate::NoSleep), it never comes. Beyond the end of the clock there is
    /// [no deadline](Self::NEVER).
    pub fn after(time: Duration, sleep: &impl Sleep) -> Self {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self(sleep.now().saturating_add(nanoseconds))
    }

    /// Nanoseconds on that clock, or `None` if there is no deadline.
    pub const fn nanoseconds(self) -> Option<u64> {
        if self.0 == u64::MAX { None } else { Some(self.0) }
    }

    /// Whether the deadline has passed at time `now`.
    pub const fn passed(self, now: u64) -> bool {
        self.0 != u64::MAX && self.0 <= now
    }
}

/// How to treat one allocation: the `M_WAITOK`, `M_NOWAIT`, `M_ZERO`, `M_USE_RESERVE` and `M_NOVM` of
/// zone(9).
///
/// ```
/// use uma_core::Request;
/// let request = Request::WAIT.zeroed();
/// assert!(request.may_wait() && request.wants_zero());
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Request {
    // Two scalars, so that a request travels in two registers.
    flags: u32,
    deadline: Deadline,
}

const WAIT: u32 = 1;
const ZERO: u32 = 2;
const RESERVE: u32 = 4;
const NO_PAGES: u32 = 8;
const NO_DUMP: u32 = 16;
const FOR_GOOD: u32 = 32;

impl Request {
    /// Fail rather than wait (`M_NOWAIT`). It is about sleeping: short locks may still be taken.
    pub const NOWAIT: Self = Self { flags: 0, deadline: Deadline::NEVER };

    /// Wait at the zone's limit until an item is freed (`M_WAITOK`).
    ///
    /// Unlike the kernels' flag it does not promise success: a page supplier that has no more pages
    /// fails the call, because in user space nobody will bring pages later.
    pub const WAIT: Self = Self { flags: WAIT, deadline: Deadline::NEVER };

    /// Wait, but not past `deadline`.
    pub const fn until(deadline: Deadline) -> Self {
        Self { flags: WAIT, deadline }
    }

    /// Fill the item with zeros after its ctor ran (`M_ZERO`).
    pub const fn zeroed(self) -> Self {
        Self { flags: self.flags | ZERO, ..self }
    }

    /// May take the items that the keg keeps in reserve (`M_USE_RESERVE`).
    pub const fn from_reserve(self) -> Self {
        Self { flags: self.flags | RESERVE, ..self }
    }

    /// Makes do with what is held already: page suppliers are not asked (`M_NOVM`).
    pub const fn without_pages(self) -> Self {
        Self { flags: self.flags | NO_PAGES, ..self }
    }

    /// Pages that are taken for it are to be left out of core dumps (`M_NODUMP`). Kegs say so to page
    /// suppliers, for all their slabs or for none; a supplier that cannot do that need not.
    pub const fn without_dump(self) -> Self {
        Self { flags: self.flags | NO_DUMP, ..self }
    }

    /// Pages that are taken for it are kept as long as there is the zone (`M_NEVERFREED`): a supplier may put
    /// them where they are in nobody's way. Kegs say so for slabs that are never given back.
    pub const fn for_good(self) -> Self {
        Self { flags: self.flags | FOR_GOOD, ..self }
    }

    /// The same request, but failing rather than waiting.
    pub const fn without_waiting(self) -> Self {
        Self { flags: self.flags & !WAIT, ..self }
    }

    /// The same request, but leaving the keg's reserve alone.
    pub const fn without_reserve(self) -> Self {
        Self { flags: self.flags & !RESERVE, ..self }
    }

    /// Whether the caller may be put to sleep.
    pub const fn may_wait(self) -> bool {
        self.flags & WAIT != 0
    }

    /// Whether the item must be zeroed.
    pub const fn wants_zero(self) -> bool {
        self.flags & ZERO != 0
    }

    /// Whether the keg's reserve may be used.
    pub const fn may_use_reserve(self) -> bool {
        self.flags & RESERVE != 0
    }

    /// Whether page suppliers may be asked.
    pub const fn may_take_pages(self) -> bool {
        self.flags & NO_PAGES == 0
    }

    /// Whether pages may be in core dumps.
    pub const fn may_be_dumped(self) -> bool {
        self.flags & NO_DUMP == 0
    }

    /// Whether pages are kept as long as there is the zone.
    pub const fn is_for_good(self) -> bool {
        self.flags & FOR_GOOD != 0
    }

    /// Until when the caller may sleep.
    pub const fn deadline(self) -> Deadline {
        self.deadline
    }
}

impl core::fmt::Debug for Request {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Request")
            .field("wait", &self.may_wait())
            .field("zero", &self.wants_zero())
            .field("reserve", &self.may_use_reserve())
            .field("pages", &self.may_take_pages())
            .field("dump", &self.may_be_dumped())
            .field("for_good", &self.is_for_good())
            .field("deadline", &self.deadline.nanoseconds())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NoSleep, Spin};

    #[test]
    fn a_deadline_from_now_is_on_the_clock_of_whoever_sleeps() {
        let in_time = |time, clock| Deadline::after(time, &Spin::new(clock));
        assert_eq!(in_time(Duration::from_micros(3), || 7), Deadline::at(3007));
        assert_eq!(in_time(Duration::ZERO, || 7), Deadline::at(7));
        assert!(Deadline::after(Duration::ZERO, &NoSleep).passed(0));
        assert_eq!(in_time(Duration::MAX, || 7), Deadline::NEVER);
        assert_eq!(in_time(Duration::from_nanos(u64::MAX - 7), || 7), Deadline::NEVER);
        assert_eq!(in_time(Duration::from_nanos(1), || u64::MAX - 2), Deadline::at(u64::MAX - 1));
    }
}
