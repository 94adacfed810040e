//! The zones of a tree of groups, to be told when one of them is short of room.
//!
//! A list under one lock, at the root. A visit counts itself into one member at a time, and calls it without
//! the lock; a member that is visited cannot leave.

use core::ptr;

use lock_api::RawMutex;

use crate::sync::{Mutex, UnsafeCell, const_unless_modelled};

/// How a member is told to give back what is wanted.
#[derive(Clone, Copy)]
pub(super) struct Settle {
    zone: *const (),
    settle: unsafe fn(*const ()),
}

/// A zone's place in the list of its tree's members.
pub(super) struct Member(UnsafeCell<Links>);

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
        pub(super) const fn new() -> Self {
            let (next, previous) = (ptr::null(), ptr::null());
            Self(UnsafeCell::new(Links { next, previous, visitors: 0, settle: None }))
        }
    }
}

pub(super) struct Members {
    first: *const Member,
    last: *const Member,
}

// SAFETY: members are reached under the lock or while counted in, and may be visited from any thread, as
// `Grouped::join` demands.
unsafe impl Send for Members {}

impl Members {
    pub(super) const fn new() -> Self {
        Self { first: ptr::null(), last: ptr::null() }
    }

    /// # Safety
    ///
    /// The member is in no list, and stays where it is until `remove` took it off.
    pub(super) unsafe fn add(&mut self, member: &Member, settle: Settle) {
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

    /// Takes a member off the list, and returns whether it was on it; or `None` if it is visited just now.
    pub(super) fn remove(&mut self, member: &Member) -> Option<bool> {
        // SAFETY: as in `add`; a member whose `settle` is `Some` is in the list.
        unsafe {
            let links = &mut *member.0.get();
            if links.visitors != 0 {
                return None;
            }
            if links.settle.take().is_none() {
                return Some(false);
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
        Some(true)
    }

    pub(super) fn no_visitors(&mut self) {
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
pub(super) struct Visit<'a, L: RawMutex> {
    list: &'a Mutex<L, Members>,
    at: *const Member,
}

impl<'a, L: RawMutex> Visit<'a, L> {
    pub(super) const fn new(list: &'a Mutex<L, Members>) -> Self {
        Self { list, at: ptr::null() }
    }

    /// Leaves the member it is at and enters the next.
    pub(super) fn advance(&mut self) -> Option<Settle> {
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
        if self.at.is_null() {
            // Nobody is visited who would keep the lock known to forks.
            return;
        }
        let _list = self.list.lock();
        // SAFETY: as in `advance`.
        if let Some(member) = unsafe { self.at.as_ref() } {
            // SAFETY: under the lock.
            unsafe { (*member.0.get()).uncount() };
        }
    }
}

impl Settle {
    pub(super) const fn new(zone: *const (), settle: unsafe fn(*const ())) -> Self {
        Self { zone, settle }
    }

    pub(super) fn settle(self) {
        // SAFETY: the member is counted into, so it has not left, and until then this may be called
        // (see `Grouped::join`).
        unsafe { (self.settle)(self.zone) }
    }
}
